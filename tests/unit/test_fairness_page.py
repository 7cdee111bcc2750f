"""The fairness page: what it says of whom, for which period, and what it keeps to itself."""

from __future__ import annotations

import random
import re
from collections.abc import Iterator
from contextlib import closing
from datetime import timedelta
from pathlib import Path

import pytest

from edge.records import Assessment, Decision, Finding, Header, Outcome, ReadKind, Reason, Refusal, Role
from edge.state import arrivals, reads, results
from edge.state.store import now, transaction
from tests.people import sign_in
from tests.unit.test_languages import Pseudo, left_out
from tests.unit.test_web import Box
from web import languages

FINDING = Finding("tb", "Tuberculosis", "SCT", "56717001", 0.72, 0.58, 0.83, "balanced", 0.3, 0.7)


@pytest.fixture
def box(tmp_path: Path) -> Iterator[Box]:
    with closing((box := Box(tmp_path)).store):
        sign_in(box.client, Path(box.config.state), "Lina", Role.LEAD)
        yield box


def came(
    box: Box, sex: str, waited: float | None, days: float = 1, age: float = 30, device: str = "Acme",
    outcome: Outcome = Outcome.SOON, seen: str = "",
) -> int:  # fmt: skip
    """A film that came so many days ago and that somebody decided on after so many minutes."""
    box.count += 1
    refusal = Refusal(Reason.CROPPED) if outcome is Outcome.COULD_NOT_ASSESS else None
    at = now() - timedelta(days=days)
    header = Header(PatientName="Okonkwo^Ada", PatientID="P-77", PatientSex=sex, age_years=age, Manufacturer=device)
    decision = Decision(outcome, () if refusal else (FINDING,), "m", "2.25.1", refusal)
    with transaction(box.store):
        number, _ = arrivals.add(box.store, f"1.2.{box.count}", f"{box.count:064x}", "XRAY", at)  # type: ignore[arg-type]
        results.add(box.store, number, 1, Assessment(header, decision, None, {}), at)
        if seen:
            reads.add(box.store, number, 1, ReadKind.IMPRESSION, "Amina", at, f"seen {number}", codes=(seen,), seal="s")
        if waited is not None:
            done = at + timedelta(minutes=waited)
            reads.add(box.store, number, 1, ReadKind.CONFIRM, "Amina", done, f"done {number}", outcome=outcome)
    return number


def said(box: Box, path: str = "/fairness") -> str:
    return " ".join(re.sub("<[^>]+>", " ", box.text(path)).split())


def test_only_a_lead_sees_it(box: Box) -> None:
    assert box.client.get("/fairness").status_code == 200
    for role in (Role.CLINICIAN, Role.TECHNICIAN):
        sign_in(box.client, Path(box.config.state), role.value, role)
        assert box.client.get("/fairness").status_code == 403


def test_an_empty_box_says_that_it_is_too_little(box: Box) -> None:
    page = said(box)
    assert "too few to tell anything" in page
    assert "Too few films to tell whether women wait as long as men." in page


def test_women_who_wait_longer_are_said_to(box: Box) -> None:
    draw = random.Random(2)
    for _ in range(40):
        came(box, "F", draw.uniform(100, 120))
        came(box, "M", draw.uniform(10, 30))
    page = said(box)
    assert "Women wait longer than men." in page
    assert "80 films came" in page
    assert "40 films: half of them within 1 h" in page
    assert "Okonkwo" not in page and "P-77" not in page


def test_about_as_long_is_said_only_when_the_films_say_so(box: Box) -> None:
    draw = random.Random(3)
    for _ in range(8):
        came(box, "F", draw.uniform(20, 90))
        came(box, "M", draw.uniform(20, 90))
    assert "Too few films to tell whether women wait as long as men." in said(box)
    for _ in range(60):
        came(box, "F", draw.uniform(20, 30))
        came(box, "M", draw.uniform(20, 30))
    assert "Women wait about as long as men." in said(box)


def test_a_decision_taken_back_is_no_decision_and_a_second_one_is_no_longer_wait(box: Box) -> None:
    films = [came(box, "F", 10) for _ in range(5)]
    with transaction(box.store):
        reads.add(box.store, films[0], 1, ReadKind.REFER, "Amina", now(), "again")
        reads.add(box.store, films[1], 1, ReadKind.WITHDRAW, "Amina", now(), "back")
    page = said(box)
    assert "1 still waits." in page and "the longest 24 h" in page
    assert "half of them within 10 min" in page


def test_a_small_group_is_not_shown_and_cannot_be_worked_out(box: Box) -> None:
    for sex, films in (("F", 9), ("M", 12), ("O", 3)):
        for _ in range(films):
            came(box, sex, 10)
    page = said(box)
    women = page.split("Women and men")[1].split("By age")[0]
    assert "12 films" in women
    assert "9 films" not in women and "3 films" not in women, "24 less 12 and 9 is 3"
    assert "nor a group from which they could be worked out" in women


def test_what_the_ai_misses_is_told_by_blind_reads_only(box: Box) -> None:
    for place in range(30):
        came(box, "F", 10, outcome=Outcome.ROUTINE if place < 20 else Outcome.SOON, seen="effusion")
        came(box, "M", 10, outcome=Outcome.SOON, seen="effusion")
        came(box, "F", 10, outcome=Outcome.SOON, seen="normal")
        came(box, "F", 10, outcome=Outcome.SOON, seen="unsure")
        came(box, "F", 10, outcome=Outcome.SOON)
    page = said(box)
    assert "The AI misses more of women’s abnormal films than of men’s." in page
    assert "10 of 30" in page and "30 of 30" in page and "40 of 60" in page


def test_a_unit_whose_films_cannot_be_assessed_is_named(box: Box) -> None:
    for place in range(40):
        came(box, "F", 10, device="Acme <b>DR</b>", outcome=Outcome.COULD_NOT_ASSESS if place < 30 else Outcome.SOON)
        came(box, "F", 10, device="Other")
    assert "The AI fails to assess these more often than the others: Acme &lt;b&gt;DR&lt;/b&gt;." in said(box)


def test_the_period_is_chosen(box: Box) -> None:
    for days in (2, 60, 200, 400):
        for _ in range(6):
            came(box, "F", 10, days=days)
    assert "6 films came" in said(box)
    assert "6 films came" in said(box, "/fairness?days=31")
    assert "12 films came" in said(box, "/fairness?days=90")
    assert "18 films came" in said(box, "/fairness?days=365")


def test_no_text_is_left_out_of_the_catalogues(box: Box, monkeypatch: pytest.MonkeyPatch) -> None:
    draw = random.Random(4)
    for sex, age, wait in (("F", 3, 200), ("M", 30, 20), ("", 70, 30), ("O", 30, None)):
        for _ in range(6):
            came(box, sex, wait and wait * draw.uniform(0.9, 1.1), age=age, device="" if sex else "12", seen="effusion")
    came(box, "O", 10)
    monkeypatch.setattr(languages, "_catalogue", lambda code: Pseudo())
    assert left_out(box.text("/fairness")) == []
