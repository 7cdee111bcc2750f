"""The page of connections: both ways between the box and each X-ray unit, and to a real one, dcmtk's."""

from __future__ import annotations

import re
import socket
import subprocess
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path

import pytest

from edge import connections as neighbours
from edge.config import Config, DicomSink, Intake, Modality, Worker
from edge.records import Receipt, Role, Trouble, Urgency
from edge.state import arrivals, audit, connections
from edge.state.connections import MOST, Caller
from edge.state.store import now, open_store, transaction
from tests.box import free_port, until
from tests.conftest import peer
from tests.people import sign_in
from tests.unit.test_web import OWN
from web import clinic

PACS = DicomSink(name="the archive", host="127.0.0.1", port=1, ae_title="PACS", send=("sr",), seconds=2)
DOORS = Intake()


class Box:
    """A box with two X-ray units, one of which answers an echo, and an archive that does not; and its pages."""

    def __init__(self, folder: Path, intake: Intake = DOORS) -> None:
        (folder / "card.md").write_text("# The card\n", encoding="utf-8")
        units = (Modality(ae_title="ROOM1", host="127.0.0.1", port=free_port()), Modality(ae_title="ROOM2"))
        self.config = Config(
            state=str(folder / "state"),
            intake=intake,
            modalities=units,
            worker=Worker(bundle=str(folder)),
            sinks=(PACS,),
        )
        self.client = clinic.create(self.config).test_client()
        self.store = open_store(Path(self.config.state))
        sign_in(self.client, Path(self.config.state), "Tumaini", Role.TECHNICIAN)

    def line(self, title: str) -> str:
        """What the page says under a title, as text."""
        page = self.client.get("/connections").text
        (found,) = re.findall(rf"<li [^>]*>(?:(?!</li>).)*<h2>{title}</h2>.*?</li>", page, re.DOTALL)
        return " ".join(re.sub(r"<[^>]+>", " ", found).replace("&#39;", "'").split())

    def test(self) -> None:
        """Touch the button."""
        assert self.client.post("/connections/test", headers=OWN).status_code == 303


@pytest.fixture
def box(tmp_path: Path) -> Iterator[Box]:
    with closing((box := Box(tmp_path)).store):
        yield box


def _listens(port: int) -> bool:
    with socket.socket() as probe:
        return probe.connect_ex(("127.0.0.1", port)) == 0


@pytest.mark.peer
@pytest.mark.filterwarnings(r"ignore:unclosed <socket\.socket:ResourceWarning")  # pynetdicom's, where nobody listens
def test_the_box_calls_each_neighbour_when_a_person_asks(box: Box, tmp_path: Path) -> None:
    port = box.config.modalities[0].port
    assert "Not tested yet." in box.line("From the box to ROOM1")
    assert "no address of it" in box.line("From the box to ROOM2")
    assert not neighbours.step(box.config, box.store), "nobody asked"
    with subprocess.Popen([peer("storescp", "dcmtk"), "-od", tmp_path, "-aet", "ROOM1", str(port)]) as unit:
        try:
            until(lambda: _listens(port), "the unit listens")
            box.test()
            box.test()
            assert "Being tested" in box.line("From the box to ROOM1")
            assert neighbours.step(box.config, box.store)
        finally:
            unit.terminate()
    assert "It answered at" in box.line("From the box to ROOM1") and "Good" in box.line("From the box to ROOM1")
    assert "It cannot be reached." in box.line("From the box to the archive")
    assert [record.actor for record in audit.records(box.store) if record.event is audit.Event.CONNECTIONS_TESTED] == [
        "Tumaini"
    ], "a second tap while they are being called calls nobody"
    box.test()
    neighbours.step(box.config, box.store)
    assert "It cannot be reached." in box.line("From the box to ROOM1")


def test_what_comes_from_a_unit_is_seen(box: Box) -> None:
    assert "It has not called this box yet." in box.line("From ROOM2 to the box")
    with transaction(box.store):
        connections.called(box.store, Caller("ROOM2", "192.0.2.7", now(), refused=False))
        arrivals.add(box.store, "1.2", "0" * 64, "ROOM2", now(), Urgency.ROUTINE)
        connections.called(box.store, Caller("RO0M1", "192.0.2.8", now(), refused=True))
        connections.called(box.store, Caller("<b>", "192.0.2.9", now(), refused=False))
    assert "It called at" in box.line("From ROOM2 to the box")
    assert "Its last film came at" in box.line("From ROOM2 to the box")
    assert "from 192.0.2.8 and was refused" in box.line("From RO0M1 to the box")
    assert "It called at" in box.line("From &lt;b&gt; to the box")
    with transaction(box.store):
        connections.called(box.store, Caller("ROOM2", "192.0.2.7", now(), refused=True))
    assert "was refused" in box.line("From ROOM2 to the box"), "the latest call is what counts"


@pytest.mark.parametrize(("host", "shown"), [("0.0.0.0", "127.0.0.1"), ("192.0.2.5", "192.0.2.5")])
def test_the_page_says_what_to_type_at_the_unit(tmp_path: Path, host: str, shown: str) -> None:
    with closing((box := Box(tmp_path, Intake(host=host))).store):
        assert f"AE title OUTPOST, address {shown}, port 11112" in box.client.get("/connections").text


def test_a_port_that_is_another_at_each_start_is_told_to_nobody(tmp_path: Path) -> None:
    with closing((box := Box(tmp_path, Intake(port=0))).store):
        assert "port 0" not in box.client.get("/connections").text


def test_who_calls_under_ever_new_names_fills_no_disk(box: Box) -> None:
    with transaction(box.store):
        for number in range(MOST + 5):
            connections.called(box.store, Caller(f"A{number}", "192.0.2.7", now(), refused=True))
    assert {one.ae_title for one in connections.callers(box.store)} == {f"A{number}" for number in range(5, MOST + 5)}


def test_a_neighbour_that_is_no_longer_in_the_settings(box: Box) -> None:
    with transaction(box.store):
        connections.ask(box.store, "way gone", now())
    assert neighbours.step(box.config, box.store)
    assert connections.tests(box.store)["way gone"].trouble is Trouble.NOT_CONFIGURED


def test_a_test_that_fails_by_itself_is_said(box: Box, monkeypatch: pytest.MonkeyPatch) -> None:
    def broken(_settings: object) -> Receipt:
        raise RuntimeError

    monkeypatch.setattr(neighbours, "open_sink", broken)
    box.test()
    assert neighbours.step(box.config, box.store)
    assert "RuntimeError" in box.line("From the box to the archive")


def test_carers_have_no_use_for_it(box: Box) -> None:
    sign_in(box.client, Path(box.config.state), "Amina", Role.CLINICIAN)
    assert box.client.get("/connections").status_code == 403


def test_two_units_of_one_ae_title_are_both_called(tmp_path: Path) -> None:
    units = tuple(Modality(ae_title="XRAY", host=host) for host in ("192.0.2.1", "192.0.2.2"))
    assert len(neighbours.peers(Config(state=str(tmp_path), modalities=units))) == 2
