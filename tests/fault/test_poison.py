"""A film that crashes or hangs its worker ends as *could not assess*, after the others; the box lives."""

from __future__ import annotations

from pathlib import Path

import msgspec
import pytest
from pydicom.uid import generate_uid

from edge import config as settings
from edge.config import Worker
from edge.records import Outcome, Reason
from edge.samples import film
from edge.sending import send
from models import phantom
from tests.box import ROOT, Box


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
