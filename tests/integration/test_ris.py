"""The RIS's orders: read from Orthanc's worklist, followed as they change; and one that refuses, hangs or answers nonsense."""

from __future__ import annotations

import socket
import threading
from collections.abc import Callable, Iterator
from contextlib import closing, contextmanager
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import msgspec
import pytest
from pydicom import Dataset
from pydicom.dataset import FileMetaDataset
from pydicom.uid import ExplicitVRLittleEndian, generate_uid
from pynetdicom import AE, evt
from pynetdicom.sop_class import ModalityWorklistInformationFind, Verification  # type: ignore[attr-defined]

from edge import config as settings
from edge import ris
from edge.check import orders as check
from edge.config import Config, Ris
from edge.errors import Transient
from edge.records import Trouble, Urgency
from edge.samples import film
from edge.sending import send
from edge.state import orders
from edge.state.objects import Objects
from edge.state.store import now, open_store, transaction
from models import phantom
from tests.box import PATIENCE, Box, free_port, until
from tests.orthanc import Orthanc
from tests.peers import strict  # noqa: F401  a fixture

# pynetdicom leaves the socket of a connection that was refused to the garbage collector
pytestmark = [
    pytest.mark.usefixtures("strict"),
    pytest.mark.filterwarnings(r"ignore:unclosed <socket\.socket:ResourceWarning"),
]

Answers = Callable[[evt.Event], Iterator[tuple[int, Dataset | None]]]


def entry(name: str = "Okafor^Chidi", number: str = "A-1", **changed: Any) -> Dataset:
    """What a RIS says of one order."""
    step = Dataset()
    step.Modality, step.ScheduledStationAETitle = "DX", "ROOM1"
    step.ScheduledProcedureStepStartDate, step.ScheduledProcedureStepStartTime = f"{now():%Y%m%d}", "080000"
    step.ScheduledProcedureStepID = "S-1"
    said = Dataset()
    said.SpecificCharacterSet = "ISO_IR 192"
    said.PatientName, said.PatientID, said.PatientSex = name, "P-7", "M"
    said.PatientBirthDate = "19840731"
    said.AccessionNumber, said.StudyInstanceUID, said.RequestedProcedureID = number, f"1.2.3.{number[2:]}", number
    said.RequestedProcedurePriority = "HIGH"
    for keyword, value in changed.items():
        setattr(step if keyword.startswith("Scheduled") else said, keyword, value)
    said.ScheduledProcedureStepSequence = [step]
    return said


def save(folder: Path, said: Dataset) -> None:
    """Write it as Orthanc's worklist plug-in reads it."""
    said.file_meta = FileMetaDataset()
    said.file_meta.MediaStorageSOPClassUID = ModalityWorklistInformationFind
    said.file_meta.MediaStorageSOPInstanceUID = generate_uid()
    said.file_meta.TransferSyntaxUID = ExplicitVRLittleEndian
    said.save_as(folder / f"{said.AccessionNumber}.wl", enforce_file_format=True)


def config_of(state: Path, port: int, **changed: Any) -> Config:
    return Config(state=str(state), ris=Ris(**{"host": "127.0.0.1", "port": port, "seconds": PATIENCE, **changed}))


@contextmanager
def worklist(answers: Answers) -> Iterator[int]:
    """A RIS that answers as it is told to."""
    ae = AE("RIS")
    ae.add_supported_context(ModalityWorklistInformationFind)
    server = ae.start_server(("127.0.0.1", 0), block=False, evt_handlers=[(evt.EVT_C_FIND, answers)])
    assert server is not None
    try:
        yield server.server_address[1]
    finally:
        ae.shutdown()


@contextmanager
def silent(speaks: Callable[[socket.socket], None]) -> Iterator[int]:
    """Something that listens, and does as it is told with each connection."""
    listener = socket.create_server(("127.0.0.1", 0))
    over = threading.Event()

    def serve() -> None:
        while not over.is_set():
            try:
                connection, _ = listener.accept()
            except OSError:
                return
            with connection:
                speaks(connection)

    thread = threading.Thread(target=serve)
    thread.start()
    try:
        yield listener.getsockname()[1]
    finally:
        over.set()
        listener.shutdown(socket.SHUT_RDWR)
        listener.close()
        thread.join()


@pytest.mark.peer
def test_orthancs_order_makes_a_film_urgent_before_and_after(tmp_path: Path) -> None:
    """A box and Orthanc's worklist: a film that comes after its order, and one that was here before it."""
    folder = tmp_path / "worklists"
    folder.mkdir()
    (folder / "lockfile").touch()
    with Orthanc(tmp_path, worklist=folder, more={"DefaultEncoding": "Utf8"}) as orthanc:
        save(folder, entry("山田^太郎", "A-1"))
        box = Box(tmp_path)
        asks = Ris("127.0.0.1", orthanc.port, "ORTHANC", every_minutes=0.02, seconds=20)
        box.config = msgspec.structs.replace(box.config, ris=asks)
        settings.save(box.config, box.file)
        with box, closing(open_store(Path(box.config.state))) as store:
            until(lambda: orders.expected(store) == 1, "the order is known")
            for number, age in (("A-1", ""), ("A-2", "040Y")):
                taken = film(phantom.chest(int(number[2:])), "Okafor^Chidi", age, "")
                taken.PatientID, taken.AccessionNumber = "P-7", number
                taken.save_as(tmp_path / f"{number}.dcm", enforce_file_format=True)
                send("127.0.0.1", box.port, "OUTPOST", tmp_path / f"{number}.dcm")
            first, second = box.decided(2)
            assert first.arrival.urgency is Urgency.HIGH and second.arrival.urgency is Urgency.ROUTINE
            assert first.header.from_order == ("PatientSex", "age_years", "PatientBirthDate")
            assert first.decision is not None and first.decision.refusal is None
            save(folder, entry("Okafor^Chidi", "A-2", RequestedProcedurePriority="STAT"))
            until(lambda: box.films()[1].arrival.urgency is Urgency.STAT, "the second film's order is known")
            (folder / "A-2.wl").unlink()
            (folder / "A-1.wl").unlink()
            save(folder, entry("Gone^Soon", "A-3"))
            until(lambda: orders.expected(store) == 1, "the third order is known")
            (folder / "A-3.wl").unlink()
            until(lambda: orders.expected(store) == 0, "the orders have left the worklist")
            asked = orders.asked(store)
            assert asked is not None and asked.trouble is None
            assert [one.arrival.urgency for one in box.films()] == [Urgency.HIGH, Urgency.STAT]
        assert "gives 0" in check(box.config)


def test_each_attribute_is_read(state: Path) -> None:
    def answers(event: evt.Event) -> Iterator[tuple[int, Dataset | None]]:
        asked = event.identifier.ScheduledProcedureStepSequence[0]
        if asked.Modality == "DX":
            yield 0xFF00, entry(RequestedProcedurePriority="STAT")
            yield (
                0xFF00,
                entry(number="A-2", RequestedProcedurePriority="MEDIUM", ScheduledProcedureStepStatus="DISCONTINUED"),
            )
        else:
            yield 0xFF01, entry(number="A-3", RequestedProcedurePriority="LOW", PatientBirthDate="")

    with worklist(answers) as port:
        answer = ris.ask(config_of(state, port), now())
    assert answer.trouble is None
    first, third = answer.orders
    assert (first.PatientName, first.PatientID, first.PatientSex) == ("Okafor^Chidi", "P-7", "M")
    assert (first.AccessionNumber, first.StudyInstanceUID, first.RequestedProcedureID) == ("A-1", "1.2.3.1", "A-1")
    assert first.urgency is Urgency.STAT and third.urgency is Urgency.ROUTINE and third.PatientBirthDate is None
    assert first.scheduled_at == datetime.combine(now().date(), datetime.min.time(), UTC) + timedelta(hours=8)
    assert [order.AccessionNumber for order in answer.cancelled] == ["A-2"]


def trouble(state: Path, port: int, **changed: Any) -> tuple[Trouble | None, str]:
    answer = ris.ask(config_of(state, port, **changed), now())
    return answer.trouble, answer.detail


def test_nobody_listens(state: Path) -> None:
    assert trouble(state, free_port())[0] is Trouble.UNREACHABLE
    assert trouble(state, 104, host="no such host.invalid")[0] is Trouble.UNREACHABLE


def test_it_hangs_closes_or_speaks_something_else(state: Path) -> None:
    done = threading.Event()
    with silent(lambda _: (done.wait(), None)[1]) as port:
        assert trouble(state, port, seconds=0.5)[0] is Trouble.HANGS
        done.set()
    with silent(lambda _: None) as port:
        assert trouble(state, port)[0] is Trouble.CLOSED
    with silent(lambda connection: connection.sendall(b"HTTP/1.1 400 Bad Request\r\n\r\n" * 20)) as port:
        assert trouble(state, port, seconds=0.5)[0] in (Trouble.CLOSED, Trouble.HANGS)


def test_it_lets_this_box_not_in_or_has_no_worklist(state: Path) -> None:
    ae = AE("RIS")
    ae.add_supported_context(Verification)
    server = ae.start_server(("127.0.0.1", 0), block=False)
    assert server is not None
    try:
        assert trouble(state, server.server_address[1])[0] is Trouble.UNSUPPORTED
        ae.require_calling_aet = ["SOMEBODY"]
        assert trouble(state, server.server_address[1])[0] is Trouble.KEPT_OUT
    finally:
        ae.shutdown()


def test_it_refuses_is_full_or_stops_in_the_middle(state: Path) -> None:
    def refuses(event: evt.Event) -> Iterator[tuple[int, Dataset | None]]:
        yield 0xC001, None

    def full(event: evt.Event) -> Iterator[tuple[int, Dataset | None]]:
        yield 0xFF00, entry()
        yield 0xA700, None

    def breaks_off(event: evt.Event) -> Iterator[tuple[int, Dataset | None]]:
        yield 0xFF00, entry()
        event.assoc.abort()

    with worklist(refuses) as port:
        assert trouble(state, port) == (Trouble.REJECTED, "C001")
    with worklist(full) as port:
        assert trouble(state, port) == (Trouble.BUSY, "A700")
    with worklist(breaks_off) as port:
        assert trouble(state, port)[0] is Trouble.CLOSED


def test_it_never_comes_to_an_end(state: Path) -> None:
    over = threading.Event()

    def endless(event: evt.Event) -> Iterator[tuple[int, Dataset | None]]:
        while not over.wait(0.05):
            yield 0xFF00, entry()

    with worklist(endless) as port:
        assert trouble(state, port, seconds=0.5) == (Trouble.HANGS, "does not come to an end")
        over.set()


@pytest.mark.parametrize(
    "said",
    [
        Dataset(),
        entry(StudyInstanceUID="", AccessionNumber="", RequestedProcedureID=""),
        entry(StudyInstanceUID="", PatientID=""),
    ],
    ids=["nothing", "no request", "no patient"],
)
def test_an_answer_without_identifiers_is_said_and_the_others_are_used(state: Path, said: Dataset) -> None:
    def answers(event: evt.Event) -> Iterator[tuple[int, Dataset | None]]:
        said.SpecificCharacterSet = "ISO_IR 192"
        yield 0xFF00, entry()
        yield 0xFF00, said

    with worklist(answers) as port:
        answer = ris.ask(config_of(state, port), now())
    assert answer.trouble is Trouble.GARBLED
    assert {order.AccessionNumber for order in answer.orders} == {"A-1"}


def test_garbage_in_the_values_stops_nothing(state: Path) -> None:
    """Names beyond any length, dates that are none, bytes that the character set does not have."""

    def answers(event: evt.Event) -> Iterator[tuple[int, Dataset | None]]:
        yield 0xFF00, entry("<script>" + "x" * 300)
        broken = entry(number="A-2")
        broken.add_new("PatientBirthDate", "DA", "yesterda")
        broken.ScheduledProcedureStepSequence[0].add_new("ScheduledProcedureStepStartTime", "TM", "99zz")
        broken.add_new("PatientName", "PN", b"\xff\xfe\xfa^\xc3")
        yield 0xFF00, broken

    with worklist(answers) as port, closing(open_store(state)) as store:
        config = config_of(state, port)
        assert ris.step(config, store, Objects(state))
        asked = orders.asked(store)
        assert asked is not None and asked.trouble is None and orders.expected(store) == 2
        assert len(orders.sharing(store, "1.2.3.1", "", "", now())[0].PatientName) <= 400
        assert orders.sharing(store, "1.2.3.2", "", "", now())[0].PatientBirthDate is None


def test_a_failing_ris_is_asked_less_and_less_and_its_orders_stay(state: Path) -> None:
    with closing(open_store(state)) as store:
        objects = Objects(state)

        def answers(event: evt.Event) -> Iterator[tuple[int, Dataset | None]]:
            yield 0xFF00, entry()

        with worklist(answers) as port:
            assert ris.step(config_of(state, port), store, objects)
        assert not ris.step(config_of(state, port), store, objects)
        pauses = []
        for _ in range(3):
            asked = orders.asked(store)
            assert asked is not None
            with transaction(store):
                orders.note(store, replace(asked, next_at=now()))
            assert ris.step(config_of(state, port), store, objects)
            asked = orders.asked(store)
            assert asked is not None and asked.trouble is Trouble.UNREACHABLE and asked.answered_at is not None
            pauses.append(asked.next_at - asked.asked_at)
        assert pauses == [timedelta(minutes=10), timedelta(minutes=20), timedelta(minutes=40)]
        assert ris.pause(config_of(state, port).ris, 10_000) == timedelta(hours=1)
        assert ris.pause(Ris(every_minutes=240), 3) == timedelta(hours=4)
        assert orders.expected(store) == 1
        assert asked is not None
        with transaction(store):  # the clock was ahead, and is right again
            orders.note(store, replace(asked, asked_at=now() + timedelta(days=1), next_at=now() + timedelta(days=1)))
        assert ris.step(config_of(state, port), store, objects)


def test_the_check_says_what_to_do(state: Path) -> None:
    assert "no RIS" in check(Config(state=str(state)))
    with pytest.raises(Transient, match="cannot be reached"):
        check(config_of(state, free_port()))
