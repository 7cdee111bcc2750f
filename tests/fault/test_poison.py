"""A film that crashes or hangs its worker ends as *could not assess*, after the others; the box lives."""

from __future__ import annotations

from contextlib import closing
from pathlib import Path

import msgspec
import pytest
from pydicom.uid import generate_uid

from edge import config as settings
from edge.box import WorkerProcess
from edge.config import Config, Worker
from edge.records import Outcome, Reason, Sha256, Urgency
from edge.samples import film
from edge.sending import send
from edge.state import arrivals, queue
from edge.state.store import now, open_store, transaction
from models import phantom
from tests.box import ROOT, Box


def test_the_lease_of_a_dead_worker_does_not_end_the_next(state: Path) -> None:
    """However slowly that one starts, on a small board."""
    watched = WorkerProcess(Config(state=str(state)))
    with closing(open_store(state)) as store:
        with transaction(store):
            number, _ = arrivals.add(store, "1.2", Sha256("a" * 64), "XRAY", now(), Urgency.ROUTINE)
            queue.add(store, number, Urgency.ROUTINE, now())
            assert queue.claim(store, now(), 0)
        assert queue.overdue(store, now())
        watched._ended(store, -9)
        assert not queue.overdue(store, now())
        assert queue.open_jobs(store, "assess") == 1


@pytest.mark.parametrize("name", ["Poison^Film", "Hang^Film"])
def test_a_film_that_takes_its_worker_down(tmp_path: Path, name: str) -> None:
    box = Box(tmp_path, path=[ROOT / "tests/fault/poison"])
    config = msgspec.structs.replace(box.config, worker=Worker(lease_seconds=3))
    settings.save(config, box.file)
    with box:
        for patient in (name, "Good^One", "Good^Two"):
            dataset = film(phantom.chest(1, (256, 256)), patient, "050Y", "F")
            dataset.SOPInstanceUID = generate_uid(entropy_srcs=[patient])
            path = tmp_path / "film.dcm"
            dataset.save_as(path, enforce_file_format=True)
            send("127.0.0.1", box.port, "OUTPOST", path)
        bad, *good = box.decided(3)
    assert bad.decision is not None and bad.decision.refusal is not None
    assert bad.decision.refusal.reason is Reason.PROCESSING_FAILED
    assert bad.header.PatientName == name
    for one in good:
        assert one.decision is not None and one.decision.outcome is not Outcome.COULD_NOT_ASSESS
        assert one.decided_at is not None and bad.decided_at is not None
        assert one.decided_at < bad.decided_at
