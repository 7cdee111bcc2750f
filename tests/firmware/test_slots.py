"""Which slot stays: good once the checks pass on it; the one that was tried in vain is never started again, and people are told."""

from __future__ import annotations

import os
import subprocess
from contextlib import closing
from pathlib import Path

import pytest
from click.testing import CliRunner, Result
from hypothesis import given
from hypothesis import strategies as st

from edge import config as settings
from edge import words
from edge.cli import main
from edge.config import Config
from edge.errors import Misconfigured
from edge.state import notices
from edge.state.store import open_store
from firmware import slots
from tests.conftest import peer

FRESH = {"ORDER": "A B", "A_OK": "1", "A_TRY": "1", "B_OK": "0", "B_TRY": "0"}
"""As GRUB leaves it at the first start."""


class Box:
    """A box's boot loader variables, kernel command line and settings."""

    def __init__(self, folder: Path) -> None:
        self.grubenv, self.line, self.file = folder / "grubenv", folder / "cmdline", folder / "outpost.toml"
        self.config = Config(state=str(folder / "state"))
        settings.save(self.config, self.file)
        self.began("A", FRESH)

    def began(self, slot: str, values: dict[str, str]) -> None:
        self.grubenv.write_bytes(slots.render(values))
        self.line.write_text(f"root=/dev/mapper/root ro rauc.slot={slot} quiet\n")

    def update(self, command: str) -> Result:
        where = ["--variables", str(self.grubenv), "--command-line", str(self.line)]
        return CliRunner().invoke(main, ["--config", str(self.file), "update", command, *where])

    def variables(self) -> dict[str, str]:
        return slots.parse(self.grubenv.read_bytes())

    def notices(self) -> list[str]:
        with closing(open_store(Path(self.config.state))) as store:
            return notices.current(store)


@pytest.fixture
def box(tmp_path: Path) -> Box:
    return Box(tmp_path)


def test_a_slot_that_works_is_kept(box: Box) -> None:
    result = box.update("good")
    assert result.exit_code == 0, result.output
    assert "self-test passed" in result.output
    assert box.variables() == FRESH | {"A_TRY": "0"}
    assert box.notices() == []
    assert "* A  good\n  B  not to be started" in box.update("status").output


def test_a_slot_whose_model_fails_its_test_stays_on_trial(box: Box, tmp_path: Path) -> None:
    values = {"ORDER": "B A", "A_OK": "1", "A_TRY": "0", "B_OK": "1", "B_TRY": "1"}
    box.began("B", values)
    settings.save(Config(state=box.config.state, worker=settings.Worker(bundle=str(tmp_path / "none"))), box.file)
    result = box.update("good")
    assert result.exit_code == 1
    assert "✘ model" in result.output
    assert box.variables() == values
    assert "* B  started, not yet shown to work" in box.update("status").output


def test_the_slot_that_was_tried_in_vain_is_not_started_again_and_people_are_told(box: Box) -> None:
    box.began("A", {"ORDER": "B A", "A_OK": "1", "A_TRY": "1", "B_OK": "1", "B_TRY": "1"})
    assert box.update("good").exit_code == 0
    assert box.variables() == {"ORDER": "A B", "A_OK": "1", "A_TRY": "0", "B_OK": "0", "B_TRY": "0"}
    assert box.notices() == [words.FALLEN_BACK]


def test_a_new_slot_that_works_leaves_the_old_one_to_fall_back_on(box: Box) -> None:
    box.began("B", {"ORDER": "B A", "A_OK": "1", "A_TRY": "0", "B_OK": "1", "B_TRY": "1"})
    assert box.update("good").exit_code == 0
    assert box.variables() == {"ORDER": "B A", "A_OK": "1", "A_TRY": "0", "B_OK": "1", "B_TRY": "0"}
    assert box.notices() == []


def test_the_variables_are_written_in_place(box: Box) -> None:
    before = box.grubenv.stat()
    slots.change(box.grubenv, B_OK="1")
    after = box.grubenv.stat()
    assert (after.st_ino, after.st_size, after.st_blocks) == (before.st_ino, slots.SIZE, before.st_blocks)


def test_a_computer_that_is_no_box_says_so(box: Box) -> None:
    box.line.write_text("root=/dev/sda1 quiet\n")
    for command in ("status", "good"):
        assert box.update(command).exit_code == Misconfigured.exit_status
    box.began("A", FRESH)
    box.grubenv.write_bytes(os.urandom(1024))
    assert box.update("status").exit_code == Misconfigured.exit_status


@given(
    st.dictionaries(
        st.from_regex(r"[A-Z_]{1,10}", fullmatch=True), st.from_regex(r"[ A-Z0-9]{0,10}", fullmatch=True), max_size=8
    )
)
def test_what_is_written_is_read(values: dict[str, str]) -> None:
    assert slots.parse(slots.render(values)) == values


def test_grub_reads_what_is_written_and_the_other_way(box: Box) -> None:
    program = peer("grub-editenv", "grub-common")
    listed = subprocess.run([program, box.grubenv, "list"], capture_output=True, text=True, check=True).stdout
    assert dict(line.split("=", 1) for line in listed.splitlines()) == FRESH
    subprocess.run([program, box.grubenv, "set", "A_TRY=0"], check=True)
    assert box.variables() == FRESH | {"A_TRY": "0"}
