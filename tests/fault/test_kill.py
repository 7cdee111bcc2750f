"""Killed at any moment, every film that was acknowledged ends in exactly one outcome."""

from __future__ import annotations

import os
import random
import signal
import subprocess
import sys
from collections import Counter
from contextlib import closing
from pathlib import Path

import pytest
from pydicom.uid import generate_uid

from edge import box
from edge.config import Config, Intake, save
from edge.errors import Transient
from edge.samples import film
from edge.sending import send
from edge.state.store import open_store
from models import phantom
from tests.box import PATIENCE, Box

STEPS = 12
"""More durable steps than one film has on its way through intake, or through the worker."""


def outcomes(state: Path) -> Counter[str]:
    """How many outcomes each film has, by its SOP Instance UID."""
    with closing(open_store(state)) as store:
        rows = store.execute(
            "SELECT sop_instance_uid, COUNT(result.run) AS outcomes FROM arrival"
            " LEFT JOIN result ON result.arrival_id = arrival.id GROUP BY arrival.id"
        ).fetchall()
    counts: Counter[str] = Counter()
    for row in rows:
        counts[row["sop_instance_uid"]] += row["outcomes"]
    return counts


def small_film(folder: Path, number: int) -> tuple[str, Path]:
    """A small film of its own, and its SOP Instance UID."""
    dataset = film(phantom.chest(1, size=(256, 256)), f"Test^{number}", "050Y", "F")
    dataset.SOPInstanceUID = generate_uid(entropy_srcs=[f"film {number}"])
    path = folder / f"{number}.dcm"
    dataset.save_as(path, enforce_file_format=True)
    return str(dataset.SOPInstanceUID), path


def deliver(box: Box, path: Path) -> bool:
    """Send a film; True when it was acknowledged."""
    try:
        send("127.0.0.1", box.port, "OUTPOST", path)
    except (Transient, OSError, RuntimeError, ValueError):
        return False
    return True


@pytest.mark.parametrize("when", ["before", "after"])
def test_intake_killed_at_every_durable_step(tmp_path: Path, when: str) -> None:
    """Around each fsync, rename and commit of a film on its way in."""
    box = Box(tmp_path, "intake")
    acknowledged = set()
    for step in range(1, STEPS + 1):
        uid, path = small_film(tmp_path, step)
        box.start(when, str(step))
        if deliver(box, path):
            acknowledged.add(uid)
        box.kill()
    finish(box, acknowledged)


@pytest.mark.parametrize("when", ["before", "after"])
def test_worker_killed_at_every_durable_step(tmp_path: Path, when: str) -> None:
    """Around each fsync, rename and commit of a film on its way to an outcome and a picture."""
    box = Box(tmp_path, "intake")
    acknowledged = set()
    with box:
        for step in range(1, STEPS + 1):
            uid, path = small_film(tmp_path, step)
            assert deliver(box, path)
            acknowledged.add(uid)
    for step in range(1, STEPS + 1):
        worker = Box(tmp_path, "worker", like=box)
        worker.launch(when, str(step))
        worker.process.wait(PATIENCE)
        assert worker.process.returncode == -signal.SIGKILL
    finish(box, acknowledged)


def test_killed_at_random_while_200_films_arrive(tmp_path: Path) -> None:
    """The whole box, killed again and again at seeded random moments while films are sent and assessed."""
    choice = random.Random(20261123)
    box = Box(tmp_path)
    films = [small_film(tmp_path, number) for number in range(200)]
    acknowledged: set[str] = set()
    while films:
        box.start()
        for _ in range(choice.randint(10, 40)):
            if films and deliver(box, films[-1][1]):
                acknowledged.add(films.pop()[0])
        box.kill()
    finish(box, acknowledged)
    assert len(acknowledged) == 200


def finish(box: Box, acknowledged: set[str]) -> None:
    """Start the whole box again: every acknowledged film, and no film twice, has exactly one outcome."""
    with Box(box.folder, "serve", like=box) as again:
        again.decided(len(acknowledged))
    counted = outcomes(Path(box.config.state))
    assert acknowledged <= set(counted)
    assert set(counted.values()) == {1}


@pytest.mark.parametrize("command", ["worker", "courier"])
def test_a_child_whose_box_died_before_it_was_ready_ends_by_itself(state: Path, command: str) -> None:
    path = state / "settings.toml"
    save(Config(state=str(state), intake=Intake(disk_floor_mib=0)), path)
    gone = os.environ | {box.PARENT: "1"}  # another process than the one that starts it here
    ended = subprocess.run([sys.executable, "-m", "edge", "--config", str(path), command], env=gone, timeout=PATIENCE)
    assert ended.returncode == 0
