"""The page where a patient is registered: what it puts on the X-ray unit's list, and what it refuses."""

from __future__ import annotations

import re
from collections.abc import Iterator
from contextlib import closing
from datetime import date, timedelta
from pathlib import Path

import pytest
from werkzeug.test import TestResponse

from edge.records import Order, Role, Urgency
from edge.state import audit, orders
from edge.state.store import now, transaction
from tests.people import sign_in
from tests.unit.test_web import LOOKALIKE, OWN, Box

GOOD = {
    "request": "key-drawn-by-the-page",
    "family": "Okafor",
    "given": "Chidi",
    "patient_id": "P-7",
    "born": "1984-07-31",
    "years": "",
    "sex": "M",
    "urgency": "stat",
    "procedure": "chest_pa",
}
SCRIPTS = ("Диалло", "عبد الله", "山田", "ዓለሙ", "김희중")


@pytest.fixture
def box(tmp_path: Path) -> Iterator[Box]:
    with closing((box := Box(tmp_path)).store):
        yield box


def post(box: Box, **changed: str) -> TestResponse:
    return box.client.post("/register", data=GOOD | changed, headers=OWN)


def listed(box: Box) -> list[Order]:
    return orders.listed(box.store, now())


def test_a_patient_is_put_on_the_list(box: Box) -> None:
    response = post(box)
    (order,) = listed(box)
    assert response.status_code == 303 and response.location.endswith(f"#order-{order.id}")
    assert (order.PatientName, order.PatientID, order.PatientSex) == ("Okafor^Chidi", "P-7", "M")
    assert order.PatientBirthDate == date(1984, 7, 31) and order.age_years is None
    assert order.urgency is Urgency.STAT and order.made_by == "Amina"
    assert re.fullmatch(r"2\.25\.[1-9]\d{0,38}", order.StudyInstanceUID) and len(order.StudyInstanceUID) <= 64
    assert re.fullmatch(r"OP[0-9A-Z]{12}", order.AccessionNumber)
    record = audit.latest(box.store, audit.Event.ORDER_REGISTERED)
    assert record is not None and record.actor == "Amina" and record.detail["accession"] == order.AccessionNumber
    assert "Okafor" not in str(record.detail)
    assert "Okafor, Chidi" in box.text("/register") and "Chest X-ray, standing (PA)" in box.text("/register")


def test_a_double_tap_registers_once(box: Box) -> None:
    assert post(box).location == post(box).location
    assert len(listed(box)) == 1
    assert sum(one.event is audit.Event.ORDER_REGISTERED for one in audit.records(box.store)) == 1


def test_the_same_patient_twice_is_asked_about(box: Box) -> None:
    post(box)
    response = post(box, request="another-key-of-the-page")
    assert response.status_code == 422 and "on the list already" in response.text
    assert len(listed(box)) == 1
    assert post(box, request="a-third-key-of-the-page", procedure="chest_two").status_code == 303


def test_without_an_id_the_box_gives_one_that_nobody_else_has(box: Box) -> None:
    post(box, patient_id="")
    post(box, patient_id="", request="another-key-of-the-page", family="Diallo")
    first, second = listed(box)
    assert first.PatientID and second.PatientID and first.PatientID != second.PatientID


@pytest.mark.parametrize("name", SCRIPTS)
def test_names_in_any_script(box: Box, name: str) -> None:
    post(box, family=name)
    assert listed(box)[0].PatientName == f"{name}^Chidi"
    assert name in box.text("/register")


def test_a_name_is_only_text(box: Box) -> None:
    post(box, family=LOOKALIKE, given='"><img src>')
    assert LOOKALIKE not in box.text("/register") and "<img src" not in box.text("/register")
    assert len(listed(box)) == 1


@pytest.mark.parametrize(
    ("field", "value", "sentence"),
    [
        ("family", "", "Give the family name"),
        ("family", "x" * 300, "at most 63 characters"),
        ("given", "x" * 300, "at most 63 characters"),
        ("given", "x" * 60, "together have at most 63 characters"),
        ("family", "A^B", "cannot hold"),
        ("patient_id", "1" * 65, "at most 64 characters"),
        ("patient_id", "A\\B", "cannot hold"),
        ("patient_id", "A*", "cannot hold"),
        ("born", "31.7.1984", "year-month-day"),
        ("born", "1984-02-30", "year-month-day"),
        ("born", "2999-01-01", "in the future"),
        ("born", "1899-01-01", "year-month-day"),
        ("born", "", "If nobody knows it, give your estimate"),
        ("years", "12", "do not agree"),
        ("years", "121", "from 0 to 120"),
        ("sex", "X", "Choose one of these"),
        ("urgency", "", "Choose one of these"),
        ("procedure", "knee", "Choose one of these"),
    ],
)
def test_what_is_wrong_is_said_and_what_was_typed_stays(box: Box, field: str, value: str, sentence: str) -> None:
    response = post(box, **{field: value})
    assert response.status_code == 422
    assert sentence in response.text
    assert listed(box) == []
    if field not in ("given", "patient_id"):
        assert 'value="P-7"' in response.text and 'value="Chidi"' in response.text
    assert 'aria-invalid="true"' in response.text


def test_control_characters_and_direction_marks_are_no_part_of_a_name(box: Box) -> None:
    post(box, family="O\tka\x00for\r\n ", patient_id=" P-\x07 8 ")
    assert listed(box)[0].PatientName == "O ka for^Chidi"
    assert listed(box)[0].PatientID == "P- 8"


def test_a_key_that_no_page_drew_is_refused(box: Box) -> None:
    assert post(box, request="short").status_code == 400
    assert box.client.post("/register", data=GOOD).status_code == 403
    assert listed(box) == []


def test_an_age_instead_of_a_birth_date(box: Box) -> None:
    post(box, born="", years="0,25")
    assert listed(box)[0].age_years == 0.25


def test_an_entry_is_taken_off_once(box: Box) -> None:
    post(box)
    number = listed(box)[0].id
    for _ in range(2):
        assert box.client.post(f"/register/{number}/withdraw", headers=OWN).status_code == 303
    assert listed(box) == []
    assert sum(one.event is audit.Event.ORDER_WITHDRAWN for one in audit.records(box.store)) == 1
    assert box.client.post("/register/99/withdraw", headers=OWN).status_code == 404
    assert post(box).status_code == 303  # a repeated sending does not put it back
    assert listed(box) == []


def test_an_entry_is_gone_after_a_day(box: Box) -> None:
    post(box)
    post(box, request="another-key-of-the-page", patient_id="P-8")
    assert len(orders.listed(box.store, now() + timedelta(hours=23))) == 2
    assert orders.listed(box.store, now() + timedelta(hours=25)) == []
    with transaction(box.store):
        assert orders.forget(box.store, now() + timedelta(days=2)) == 0
        assert orders.forget(box.store, now() + timedelta(days=4)) == 1


def test_registering_forgets_who_was_registered_days_ago(box: Box) -> None:
    post(box)
    old = listed(box)[0].id
    with transaction(box.store):
        box.store.execute("UPDATE imaging_order SET made_at = ?", ((now() - timedelta(days=4)).isoformat(),))
    post(box, request="another-key-of-the-page", family="Diallo")
    with pytest.raises(KeyError):
        orders.get(box.store, old)
    assert [order.PatientName for order in listed(box)] == ["Diallo^Chidi"]


def test_a_technician_sees_no_patients_and_registers_none(box: Box) -> None:
    post(box)
    sign_in(box.client, Path(box.config.state), "Tariq", Role.TECHNICIAN)
    assert box.client.get("/register").status_code == 403
    assert post(box, request="another-key-of-the-page").status_code == 403
    assert box.client.post(f"/register/{listed(box)[0].id}/withdraw", headers=OWN).status_code == 403
    assert len(listed(box)) == 1
