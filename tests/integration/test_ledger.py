"""What the box itself does is in the ledger, and `outpost audit` reads it: real processes, as people start them."""

from __future__ import annotations

import shutil
import subprocess
import sys
from contextlib import closing
from pathlib import Path
from xml.etree import ElementTree as ET

import msgspec
import pytest

from edge import config as settings
from edge.config import FolderSink, Site, Worker
from edge.samples import film
from edge.sending import send
from edge.state import audit
from edge.state.audit import Event, Record
from edge.state.store import open_store
from models import phantom
from models.bundle import SHIPPED
from tests.audit_message import check
from tests.box import ROOT, Box, until


def records(box: Box) -> list[Record]:
    with closing(open_store(Path(box.config.state))) as store:
        assert audit.verify(store) is None
        return list(audit.records(store))


def outpost(box: Box, *words: str, status: int = 0) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "edge", "--config", str(box.file), *words]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)
    assert done.returncode == status, done.stderr
    return done


def change(box: Box, **changed: object) -> None:
    box.config = msgspec.structs.replace(box.config, **changed)
    settings.save(box.config, box.file)


@pytest.fixture(scope="module")
def lived(tmp_path_factory: pytest.TempPathFactory) -> Box:
    """A box that was started, got a film and sent its result, was stopped, changed, started and cut off."""
    folder = tmp_path_factory.mktemp("lived")
    out = folder / "out"
    out.mkdir()
    box = Box(folder)
    change(box, sinks=(FolderSink(name="share", path=str(out), send=("oru",)),))
    path = folder / "film.dcm"
    film(phantom.chest(1, (512, 448)), "Test^One", "050Y", "F").save_as(path, enforce_file_format=True)
    with box:
        send("127.0.0.1", box.port, "OUTPOST", path)
        until(lambda: Event.EXPORTED in [record.event for record in records(box)], "the result is sent")
    change(box, site=Site(name="Clinic"), sinks=())
    box.start().kill()
    return box


def test_starts_stops_settings_models_results_and_exports_are_recorded(lived: Box) -> None:
    told = [(record.event, record.actor, record.arrival_id) for record in records(lived)]
    assert [one for one in told if one[0] is not Event.MODEL_CHANGED] == [
        (Event.CONFIGURED, "box", None),
        (Event.STARTED, "box", None),
        (Event.ASSESSED, "worker", 1),
        (Event.EXPORTED, "courier", 1),
        (Event.STOPPED, "box", None),
        (Event.CONFIGURED, "box", None),
        (Event.STARTED, "box", None),
    ]
    assert told.count((Event.MODEL_CHANGED, "worker", None)) == 1
    first, second = [record.detail for record in records(lived) if record.event is Event.CONFIGURED]
    assert first["changed"] == [], "the first settings are no change"
    assert "site.name" in second["changed"] and "sinks.share.path" in second["changed"]
    assert not [key for key in second["changed"] if key.startswith(("intake.", "web."))]
    assert first["settings"] != second["settings"] and "Clinic" not in str(second)


def test_a_start_with_the_same_settings_is_no_change(tmp_path: Path, lived: Box) -> None:
    box = Box(tmp_path, like=lived)
    shutil.copytree(lived.config.state, tmp_path / "state")
    change(box, state=str(tmp_path / "state"))
    for _ in range(2):
        with box:
            pass
    changed = [record.detail["changed"] for record in records(box) if record.event is Event.CONFIGURED]
    assert changed[2:] == [["state"]]


def test_a_model_that_was_tampered_with_is_recorded(tmp_path: Path) -> None:
    bundle = Path(shutil.copytree(SHIPPED, tmp_path / "bundle"))
    (bundle / "gate.npz").write_bytes(b"something else")
    box = Box(tmp_path)
    change(box, worker=Worker(bundle=str(bundle)))
    outpost(box, "worker", status=76)
    (record,) = records(box)
    assert record.event is Event.TAMPERED and "gate.npz" in record.detail["why"]


def test_the_ledger_is_verified_exported_and_its_break_is_told(tmp_path: Path, lived: Box) -> None:
    box = Box(tmp_path, like=lived)
    shutil.copytree(lived.config.state, tmp_path / "state")
    change(box, state=str(tmp_path / "state"))
    shown = outpost(box, "audit", "verify").stdout.splitlines()
    count = len(records(box))
    assert shown[0] == f"The ledger is whole: {count} records."
    noted = shown[1]
    assert noted == f"{count}:{records(box)[-1].hash}"

    outpost(box, "audit", "export", "--out", str(tmp_path / "out"))
    files = sorted((tmp_path / "out").iterdir())
    assert len(files) == count + 1 == len(records(box)), "the export itself is recorded, and in it"
    families = [check(file.read_bytes())[0][0].attrib["csd-code"] for file in files]
    assert families[-1] == "110101" and "110106" in families and "110100" in families
    shown = outpost(box, "audit", "export", "--out", "-", "--after", str(count)).stdout.splitlines()
    assert len(shown) == 2 and {ET.fromstring(line).tag for line in shown} == {"AuditMessage"}
    assert "audit.host" in outpost(box, "audit", "export", status=78).stderr
    outpost(box, "audit", "verify", "--noted", noted)
    assert "NUMBER:HASH" in outpost(box, "audit", "verify", "--noted", "12", status=2).stderr

    forged = f"{count}:{'0' * 64}"
    assert f"broken at record {count}." in outpost(box, "audit", "verify", "--noted", forged, status=1).stderr
    with closing(open_store(Path(box.config.state))) as store:
        store.execute("DROP TRIGGER audit_unchanged")
        store.execute("UPDATE audit SET actor = 'somebody' WHERE id = 2")
    told = outpost(box, "audit", "verify", status=1).stderr
    assert "broken at record 2." in told and "changed after it was written" in told
    shown = outpost(box, "check", status=1).stdout
    assert "✘ audit" in shown and "record 2" in shown
