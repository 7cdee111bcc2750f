"""Films in over the real network path, from dcmtk and from a stick, to an outcome."""

from __future__ import annotations

import shutil
import subprocess
from contextlib import closing
from pathlib import Path

import pytest
from pydicom import dcmread
from pynetdicom import AE
from pynetdicom.sop_class import Verification  # type: ignore[attr-defined]

from edge import config as settings
from edge.config import Config, Intake
from edge.errors import Transient
from edge.intake import Intake as Doors
from edge.intake import Watch
from edge.records import Outcome, Reason
from edge.samples import film, real_films, rle
from edge.sending import send
from edge.state import arrivals, connections, results
from edge.state.store import open_store
from models import phantom
from tests.box import Box, until
from tests.conftest import peer

ENCODINGS = {"RG1_J2KR.dcm": "-xv", "RG1_UNCR.dcm": "-xe", "RG1_J2KI.dcm": "-xw", "RG1_UNCI.dcm": "-xe"}


@pytest.mark.peer
def test_one_chest_in_four_encodings_by_storescu(tmp_path: Path) -> None:
    """Four films on the page, with the same outcome and probabilities within 0.02, whatever the encoding."""
    storescu = peer("storescu", "dcmtk")
    with Box(tmp_path) as box:
        for _, path in real_films():
            subprocess.run([storescu, ENCODINGS[path.name], "127.0.0.1", str(box.port), str(path)], check=True)
        films = box.decided(4)
        shown = box.page()
    decisions = [film.decision for film in films if film.decision is not None]
    assert len(films) == len(decisions) == 4
    assert len({decision.outcome for decision in decisions}) == 1
    assert decisions[0].outcome is not Outcome.COULD_NOT_ASSESS
    probabilities = [decision.findings[0].probability for decision in decisions]
    assert max(probabilities) - min(probabilities) <= 0.02
    assert shown.count("9RG1") >= 4
    assert [film.arrival.conflict for film in films] == [False, False, True, True]


@pytest.mark.peer
def test_echo_from_dcmtk(tmp_path: Path) -> None:
    echoscu = peer("echoscu", "dcmtk")
    with Box(tmp_path, "intake") as box:
        subprocess.run([echoscu, "127.0.0.1", str(box.port)], check=True)


@pytest.mark.peer
def test_a_resend_by_storescu_makes_no_second_film(tmp_path: Path) -> None:
    storescu = peer("storescu", "dcmtk")
    path = real_films()[1][1]
    with Box(tmp_path, "intake") as box:
        for _ in range(2):
            subprocess.run([storescu, "127.0.0.1", str(box.port), str(path)], check=True)
    assert len(box.films()) == 1


def test_every_door_gives_the_bytes_as_they_came(tmp_path: Path) -> None:
    """What the object store keeps decodes to the same pixels, and a film cut off on the way is kept as it is."""
    original = tmp_path / "film.dcm"
    rle(film(phantom.chest(1, (256, 256)), "Test^One", "040Y", "F")).save_as(original, enforce_file_format=True)
    with Box(tmp_path, "intake") as box:
        send("127.0.0.1", box.port, "OUTPOST", original)
        kept = box.films()[0].arrival.sha256
    stored = Doors(box.config).objects.path(kept)
    assert dcmread(stored).PixelData == dcmread(original).PixelData
    assert dcmread(stored).file_meta.TransferSyntaxUID == dcmread(original).file_meta.TransferSyntaxUID


def test_below_the_disk_floor_the_sender_keeps_the_film(tmp_path: Path) -> None:
    original = tmp_path / "film.dcm"
    film(phantom.chest(1, (256, 256)), "Test^One", "040Y", "F").save_as(original, enforce_file_format=True)
    box = Box(tmp_path, "intake")
    full = Config(state=box.config.state, intake=Intake(port=box.port, disk_floor_mib=2**40))
    settings.save(full, box.file)
    with box, pytest.raises(Transient, match="42752"):  # 0xA700
        send("127.0.0.1", box.port, "OUTPOST", original)
    assert box.films() == []
    assert not list((Path(box.config.state) / "incoming").iterdir())


def test_only_the_senders_that_were_named(tmp_path: Path) -> None:
    box = Box(tmp_path, "intake")
    settings.save(Config(state=box.config.state, intake=Intake(port=box.port, calling_ae_titles=("ROOM1",))), box.file)
    with box:
        ours, stranger = AE("ROOM1"), AE("STRANGER")
        for ae, welcome in ((ours, True), (stranger, False)):
            ae.add_requested_context(Verification)
            association = ae.associate("127.0.0.1", box.port, ae_title="OUTPOST")
            assert association.is_established is welcome
            if welcome:
                association.send_c_echo()
                association.release()
        with closing(open_store(Path(box.config.state))) as store:
            until(lambda: len(connections.callers(store)) == 2, "both calls are noted")
            called = {one.ae_title: (one.address, one.refused) for one in connections.callers(store)}
    assert called == {"ROOM1": ("127.0.0.1", False), "STRANGER": ("127.0.0.1", True)}


def test_a_sender_that_calls_itself_what_the_box_calls_acceptance_films_hides_nothing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "film.dcm"
    film(phantom.chest(1, size=(256, 256)), "Diallo^Awa", "041Y", "F").save_as(path, enforce_file_format=True)
    monkeypatch.setattr("edge.sending.AE_TITLE", arrivals.FOR_ACCEPTANCE)
    with Box(tmp_path, "intake") as box:
        send("127.0.0.1", box.port, "OUTPOST", path)
        films = box.films()
    assert [one.arrival.source for one in films] == ["AE acceptance"], "it is on the worklist"


def test_a_stick_is_read_once_and_never_written(tmp_path: Path) -> None:
    stick = tmp_path / "stick"
    (stick / "DICOM").mkdir(parents=True)
    (stick / "autorun.inf").write_text("not a film")
    film(phantom.chest(1, (256, 256)), "Test^One", "040Y", "F").save_as(
        stick / "DICOM" / "IM1", enforce_file_format=True
    )
    before = sorted((path, path.stat().st_mtime_ns) for path in stick.rglob("*"))
    doors = Doors(Config(state=str(tmp_path / "box"), intake=Intake(disk_floor_mib=0)))
    with closing(doors.store):
        watch = Watch(doors, stick)
        assert [watch.look() for _ in range(3)] == [0, 1, 0]  # seen, unchanged and taken, done
        shutil.copy(stick / "DICOM" / "IM1", stick / "again.dcm")
        assert [watch.look() for _ in range(2)] == [0, 0]  # the same bytes are no second film
        (stick / "again.dcm").unlink()
    assert sorted((path, path.stat().st_mtime_ns) for path in stick.rglob("*") if path.is_file()) == [
        one for one in before if one[0].is_file()
    ]


def test_a_stick_comes_to_an_outcome(tmp_path: Path) -> None:
    stick = tmp_path / "stick"
    stick.mkdir()
    film(phantom.chest(1), "Test^One", "", "F").save_as(stick / "IM1", enforce_file_format=True)
    with Box(tmp_path, watch=[stick]) as box:
        decision = box.decided(1)[0].decision
    assert decision is not None and decision.refusal is not None
    assert decision.refusal.reason is Reason.AGE_UNKNOWN


def test_a_picture_follows_the_outcome(tmp_path: Path) -> None:
    path = tmp_path / "film.dcm"
    film(phantom.chest(1), "Test^One", "040Y", "F").save_as(path, enforce_file_format=True)
    with Box(tmp_path) as box:
        send("127.0.0.1", box.port, "OUTPOST", path)
        box.decided(1)
        with closing(open_store(Path(box.config.state))) as store:
            until(lambda: results.film(store, 1).rendition is not None, "the picture is rendered")
            shown = results.film(store, 1)
    assert shown.saliency is not None and shown.saliency.startswith(b"\x89PNG")
