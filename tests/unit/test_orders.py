"""Orders and films meet, whichever is known first; and whose earlier films a film's page shows."""

from __future__ import annotations

import html
from collections.abc import Iterator
from contextlib import closing
from dataclasses import replace
from datetime import date, timedelta
from pathlib import Path

import pytest
from pydicom.uid import DeflatedExplicitVRLittleEndian

from edge import ordering, words
from edge.config import Config, Intake, Ris
from edge.intake import Intake as Doors
from edge.records import (
    Arrival,
    Assessment,
    Decision,
    Display,
    Finding,
    Header,
    Order,
    Outcome,
    Reason,
    Refusal,
    Sha256,
    Trouble,
    Urgency,
)
from edge.samples import film
from edge.stages import header
from edge.state import arrivals, audit, orders, queue, results
from edge.state.audit import Event
from edge.state.objects import Objects
from edge.state.store import now, transaction
from edge.worker import Worker
from models import phantom
from tests.people import sign_in
from tests.unit.test_web import OWN, Box
from web import clinic

ORDER = Order(
    id=0,
    source="ris",
    made_by="RIS",
    made_at=now(),
    StudyInstanceUID="1.2.3",
    AccessionNumber="A-1",
    RequestedProcedureID="R-1",
    PatientID="P-1",
    PatientName="DOE^Jane",
    PatientSex="F",
    PatientBirthDate=date(1984, 7, 31),
    urgency=Urgency.HIGH,
)
FINDING = Finding("tb", "Tuberculosis", "SCT", "56717001", 0.2, 0.1, 0.3, "balanced", 0.3, 0.7)
SAID = Header(StudyInstanceUID="1.2.3", AccessionNumber="A-1", PatientID="P-1", StudyDate=date(2026, 11, 25))


@pytest.fixture
def box(tmp_path: Path) -> Iterator[Box]:
    with closing((box := Box(tmp_path)).store):
        yield box


def follow(box: Box, *named: Order, cancelled: tuple[Order, ...] = (), whole: bool = True) -> bool:
    with transaction(box.store):
        return orders.follow(box.store, named, cancelled, now(), whole)


def assessed(box: Box, said: Header, outcome: Outcome = Outcome.ROUTINE, reason: Reason | None = None) -> int:
    """A film that was assessed."""
    number = box.film()
    decision = Decision(outcome, () if reason else (FINDING,), "model 1", "2.25.1", Refusal(reason) if reason else None)
    with transaction(box.store):
        job = queue.claim(box.store, now(), 60)
        assert job is not None and queue.finish(box.store, job)
        results.add(box.store, number, 1, Assessment(said, decision, None, {}), now())
    return number


def meet_all(box: Box) -> int:
    return ordering.meet_all(box.store, Objects(Path(box.config.state)), "ris", now())


def urgency(box: Box, number: int) -> Urgency:
    return results.film(box.store, number).arrival.urgency


def test_an_order_that_comes_after_its_film_raises_it(box: Box) -> None:
    first, number = assessed(box, Header(PatientID="P-9")), assessed(box, SAID)
    follow(box, ORDER)
    assert meet_all(box) == 1
    assert urgency(box, number) is Urgency.HIGH and urgency(box, first) is Urgency.ROUTINE
    assert box.order() == [number, first]
    record = audit.latest(box.store, audit.Event.ORDER_MET)
    assert record is not None and record.arrival_id == number and record.actor == "ris"
    assert meet_all(box) == 1
    assert audit.latest(box.store, audit.Event.ORDER_MET) == record  # nothing new, nothing written


def test_a_changed_priority_raises_and_never_lowers(box: Box) -> None:
    number = assessed(box, SAID)
    for asked, then in ((Urgency.STAT, Urgency.STAT), (Urgency.ROUTINE, Urgency.STAT)):
        assert follow(box, replace(ORDER, urgency=asked))
        meet_all(box)
        assert urgency(box, number) is then


def test_an_order_puts_a_film_forward_that_waits_for_the_ai(tmp_path: Path, box: Box) -> None:
    """Films are in the queue, no header has been read; the order of the last one comes."""
    taken = film(phantom.chest(1, (256, 256)), "DOE^Jane", "040Y", "F")
    taken.StudyInstanceUID, taken.PatientID = "1.2.3", "P-1"
    taken.save_as(tmp_path / "film.dcm", enforce_file_format=True)
    box.film()
    doors = Doors(Config(state=box.config.state, intake=Intake(disk_floor_mib=0)))
    with closing(doors.store):
        number, _ = doors.accept_copy(tmp_path / "film.dcm", "folder")
    assert urgency(box, number) is Urgency.ROUTINE
    follow(box, ORDER)
    assert meet_all(box) == 1
    with transaction(box.store):
        job = queue.claim(box.store, now() + timedelta(seconds=1), 60)
    assert job is not None and job.arrival_id == number and urgency(box, number) is Urgency.HIGH


def test_an_order_puts_a_failed_film_no_further_forward(box: Box) -> None:
    number = box.film()
    with transaction(box.store):
        job = queue.claim(box.store, now(), 60)
        assert job is not None
        queue.retry(box.store, job, "failed", now())
        other = arrivals.add(box.store, "1.9", Sha256("0" * 64), "XRAY", now())[0]
        queue.add(box.store, other, Urgency.ROUTINE, now())
        queue.hasten(box.store, number, Urgency.STAT)
        job = queue.claim(box.store, now() + timedelta(seconds=1), 60)
    assert job is not None and job.arrival_id == other


def test_the_age_of_an_order_has_the_film_assessed_again(box: Box) -> None:
    number = assessed(box, SAID, Outcome.COULD_NOT_ASSESS, Reason.AGE_UNKNOWN)
    assert "Enter the age" in box.text(f"/films/{number}")
    follow(box, ORDER)
    for _ in range(2):
        meet_all(box)
    with transaction(box.store):
        job = queue.claim(box.store, now() + timedelta(seconds=1), 60)
        assert job is not None and (job.arrival_id, job.run) == (number, 2)
        assert queue.claim(box.store, now() + timedelta(seconds=1), 60) is None
    page = box.text(f"/films/{number}")
    assert "Save the age" not in page and "being assessed again" in page


def test_the_worker_takes_the_age_and_the_sex_from_the_order_and_a_persons_age_wins(tmp_path: Path, box: Box) -> None:
    taken = film(phantom.chest(1), "DOE^Jane", "", "")
    taken.StudyInstanceUID, taken.PatientID = "1.2.3", "P-1"
    taken.save_as(tmp_path / "film.dcm", enforce_file_format=True)
    config = Config(state=box.config.state, intake=Intake(disk_floor_mib=0))
    doors, worker = Doors(config), Worker(config, box.store)
    with closing(doors.store):
        number, _ = doors.accept_copy(tmp_path / "film.dcm", "folder")
    worker.step()
    assert results.film(box.store, number).decision.refusal.reason is Reason.AGE_UNKNOWN  # type: ignore[union-attr]
    follow(box, ORDER)
    meet_all(box)
    while worker.step():
        pass
    shown = results.film(box.store, number)
    assert shown.run == 2 and shown.decision is not None and shown.decision.refusal is None
    assert shown.header.from_order == ("PatientSex", "age_years", "PatientBirthDate")
    assert "42 years (from the order)" in box.text(f"/films/{number}")
    record = audit.latest(box.store, audit.Event.ASSESSED)
    assert record is not None and record.detail["from_order"] == list(shown.header.from_order)
    with transaction(box.store):
        arrivals.supply_age(box.store, number, 11, "Amina", now())
        queue.add(box.store, number, Urgency.ROUTINE, now(), run=queue.next_run(box.store, number))
    while worker.step():
        pass
    again = results.film(box.store, number)
    assert again.decision is not None and again.decision.refusal is not None
    assert again.decision.refusal.reason is Reason.AGE_OUT_OF_SCOPE
    assert "11 years (entered here)" in box.text(f"/films/{number}")


def test_a_person_may_enter_the_age_while_that_of_the_order_is_on_its_way(box: Box) -> None:
    number = assessed(box, SAID, Outcome.COULD_NOT_ASSESS, Reason.AGE_UNKNOWN)
    follow(box, ORDER)
    meet_all(box)
    said = {"years": "12"}
    assert box.client.post(f"/films/{number}/age", data=said, headers=OWN).status_code == 303
    assert results.film(box.store, number).supplied_age == 12
    assert queue.next_run(box.store, number) == 4  # the order's run, and one with the person's age after it


def test_a_vanished_or_cancelled_order_leaves_its_films_alone(box: Box) -> None:
    number = assessed(box, SAID)
    gone, off = replace(ORDER, StudyInstanceUID="1.2.4"), replace(ORDER, StudyInstanceUID="1.2.5")
    follow(box, ORDER, off, gone)
    meet_all(box)
    assert orders.expected(box.store) == 2
    follow(box, whole=False)  # an answer that was cut off tells nothing of what it does not name
    assert orders.expected(box.store) == 2
    follow(box, cancelled=(off,))
    assert orders.expected(box.store) == 0
    assert urgency(box, number) is Urgency.HIGH and orders.of_film(box.store, number) is not None
    late = assessed(box, replace(SAID, StudyInstanceUID="1.2.4", AccessionNumber=""))
    cancelled = assessed(box, replace(SAID, StudyInstanceUID="1.2.5", AccessionNumber=""))
    meet_all(box)
    assert urgency(box, late) is Urgency.HIGH  # taken before the order vanished, sent after
    assert urgency(box, cancelled) is Urgency.ROUTINE
    assert not orders.sharing(box.store, "1.2.4", "", "", now() + timedelta(days=3))
    with transaction(box.store):
        assert orders.forget(box.store, now() + timedelta(days=3)) == 1  # the others have films


def test_a_name_alone_finds_no_order(box: Box) -> None:
    number = assessed(box, Header(PatientName="DOE^Jane", PatientSex="F", PatientBirthDate=date(1984, 7, 31)))
    follow(box, ORDER)
    assert meet_all(box) == 0 and urgency(box, number) is Urgency.ROUTINE


def test_a_film_that_cannot_be_identified_is_accepted_all_the_same(tmp_path: Path, box: Box) -> None:
    follow(box, ORDER)
    (tmp_path / "x.dcm").write_bytes(b"\0" * 128 + b"DICM" + b"\xff" * 200)
    doors = Doors(Config(state=box.config.state, intake=Intake(disk_floor_mib=0)))
    with closing(doors.store):
        assert doors.accept_copy(tmp_path / "x.dcm", "folder") == (1, True)
    assert header.identify(tmp_path / "x.dcm").PatientID == ""


@pytest.mark.parametrize("encoding", ["deflated", "without a preamble"])
def test_what_a_glance_does_not_tell_the_worker_does(tmp_path: Path, box: Box, encoding: str) -> None:
    taken = film(phantom.chest(1, (256, 256)), "DOE^Jane", "040Y", "F")
    taken.StudyInstanceUID, taken.PatientID = "1.2.3", "P-1"
    path = tmp_path / "film.dcm"
    if encoding == "deflated":
        taken.file_meta.TransferSyntaxUID = DeflatedExplicitVRLittleEndian
        taken.save_as(path, enforce_file_format=True)
    else:
        taken.save_as(path, enforce_file_format=True)
        path.write_bytes(path.read_bytes()[132:])
    follow(box, ORDER)
    config = Config(state=box.config.state, intake=Intake(disk_floor_mib=0))
    doors, worker = Doors(config), Worker(config, box.store)
    with closing(doors.store):
        number, _ = doors.accept_copy(path, "folder")
    assert urgency(box, number) is Urgency.ROUTINE
    worker.step()
    assert urgency(box, number) is Urgency.HIGH


def prior(box: Box, said: Header, picture: bool = True) -> int:
    number = assessed(box, said)
    if picture:
        with transaction(box.store):
            sha256 = Objects(Path(box.config.state)).put(b"picture").sha256
            results.add_rendition(box.store, number, sha256, sha256, Display(((32768.0, 65536.0),), None, False))
    return number


def test_earlier_films_of_the_patient_are_offered_newest_first(box: Box) -> None:
    this = Header(
        PatientID="P-1", PatientName="DOE^Jane", PatientSex="F", StudyInstanceUID="1.9", StudyDate=date(2026, 11, 25)
    )
    older = prior(box, replace(this, StudyInstanceUID="1.1", StudyDate=date(2024, 1, 1)))
    newer = prior(box, replace(this, StudyInstanceUID="1.2", StudyDate=date(2025, 1, 1)))
    strangers = [
        prior(box, replace(this, StudyInstanceUID="1.3", StudyDate=date(2025, 1, 1), **changed))
        for changed in (
            {"PatientID": "P-2"},
            {"PatientSex": "M"},
            {"IssuerOfPatientID": "elsewhere"},
            {"PatientName": "ROE^Amy"},
        )
    ]
    unseen = prior(box, replace(this, StudyInstanceUID="1.4", StudyDate=date(2025, 2, 1)), picture=False)
    later = prior(box, replace(this, StudyInstanceUID="1.5", StudyDate=date(2026, 11, 26)))
    own = prior(box, replace(this, StudyTime="070000"))
    number = prior(box, replace(this, StudyTime="080000"))
    page = box.text(f"/films/{number}")
    assert 0 < page.index(f"beside={newer}#picture") < page.index(f"beside={older}#picture")
    for other in (*strangers, unseen, later, own):
        assert f"beside={other}#" not in page
        assert f"/films/{other}/" not in box.text(f"/films/{number}?beside={other}")
    compared = box.text(f"/films/{number}?beside={older}")
    assert "Earlier: 1 Jan 2024" in compared and "Move both together" in compared
    assert f"sections?beside={older}" in compared
    opened = {record.arrival_id for record in audit.records(box.store) if record.event is Event.VIEWED}
    assert older in opened and newer not in opened, "the film beside it was looked at too"
    for nonsense in ("x", "-1", "9" * 40, "%00"):
        assert box.client.get(f"/films/{number}?beside={nonsense}").status_code == 200


@pytest.mark.parametrize("patient_id", ["", "0", "000000", "unknown", "N/A"])
def test_a_film_without_an_id_has_no_earlier_ones(box: Box, patient_id: str) -> None:
    this = Header(PatientID=patient_id, PatientName="DOE^Jane", StudyInstanceUID="1.9", StudyDate=date(2026, 11, 25))
    prior(box, replace(this, StudyInstanceUID="1.1", StudyDate=date(2024, 1, 1)))
    assert "beside=" not in box.text(f"/films/{prior(box, this)}")


def test_hastening_never_lowers(box: Box) -> None:
    with transaction(box.store):
        number = arrivals.add(box.store, "1.7", Sha256("1" * 64), "XRAY", now(), Urgency.HIGH)[0]
        assert not arrivals.hasten(box.store, number, Urgency.ROUTINE)
        assert not arrivals.hasten(box.store, number, Urgency.HIGH)
        assert arrivals.hasten(box.store, number, Urgency.STAT)
        found: Arrival = arrivals.read(arrivals.get(box.store, number))
    assert found.urgency is Urgency.STAT


@pytest.mark.parametrize("trouble", [None, *Trouble])
def test_the_status_page_names_the_state_of_the_ris(tmp_path: Path, trouble: Trouble | None) -> None:
    box = Box(tmp_path)
    box.config = Config(state=box.config.state, ris=Ris(host="192.0.2.1"))
    box.client = clinic.create(box.config).test_client()
    sign_in(box.client, Path(box.config.state))
    with closing(box.store):
        assert "It was not asked yet." in box.text("/status")
        at = now()
        with transaction(box.store):
            orders.note(box.store, orders.Asked(at, at, 12, trouble, "C001", int(trouble is not None), at))
        page = box.text("/status")
    assert "Orders from the RIS" in page and "it named 12 orders" in page
    if trouble is None:
        assert "Films go on" not in page
    else:
        sentence, action = words.RIS[trouble]
        page = html.unescape(page)
        assert sentence in page and action in page and "The next attempt is at" in page


def test_without_a_ris_the_status_page_says_nothing_of_one(box: Box) -> None:
    assert "Orders from the RIS" not in box.text("/status")
