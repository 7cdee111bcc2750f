"""The ledger's page, and that what people do on the pages is in the ledger."""

from __future__ import annotations

import re
from collections.abc import Iterator
from contextlib import closing
from datetime import timedelta
from pathlib import Path

import pytest

from edge.config import Policy
from edge.records import Outcome, Reason, Role
from edge.state import audit
from edge.state.audit import Event
from edge.state.store import now, transaction
from tests.people import sign_in
from tests.unit.test_web import OWN, Box
from web import clinic, ledger


@pytest.fixture
def box(tmp_path: Path) -> Iterator[Box]:
    with closing((box := Box(tmp_path)).store):
        yield box


def events(box: Box, number: int) -> list[tuple[str, str]]:
    return [(record.event, record.actor) for record in audit.records(box.store, arrival_id=number)]


def lead(box: Box) -> str:
    sign_in(box.client, Path(box.config.state), "Lina", Role.LEAD)
    return str(box.text("/ledger"))


def many(box: Box, count: int) -> None:
    with transaction(box.store):
        for number in range(count):
            audit.append(box.store, Event.SIGNED_IN, f"Person {number % 7}", now())


def numbers(page: str) -> list[int]:
    return [int(number) for number in re.findall(r'<li value="(\d+)"', page)]


def test_every_event_has_words() -> None:
    assert set(ledger.SAYS) == set(Event)


@pytest.mark.parametrize("path", ["", "/sections", "/preview.png", "/film.png"])
def test_a_look_at_a_film_is_recorded(box: Box, path: str) -> None:
    number = box.film(Outcome.ROUTINE)
    box.client.get(f"/films/{number}{path}")
    assert events(box, number) == [(Event.VIEWED, "Amina")]


def test_a_look_is_recorded_once_for_each_person_and_some_minutes(box: Box, monkeypatch: pytest.MonkeyPatch) -> None:
    number, other = box.film(Outcome.ROUTINE), box.film(Outcome.ROUTINE)
    for _ in range(3):
        box.text(f"/films/{number}")
        box.text(f"/films/{number}/sections")
    assert events(box, number) == [(Event.VIEWED, "Amina")]
    box.text(f"/films/{other}")
    sign_in(box.client, Path(box.config.state), "Bilal")
    box.text(f"/films/{number}")
    assert events(box, number) == [(Event.VIEWED, "Amina"), (Event.VIEWED, "Bilal")]
    monkeypatch.setattr(audit, "LOOK", timedelta(0))
    box.text(f"/films/{number}")
    assert len(events(box, number)) == 3
    assert audit.verify(box.store) is None


def test_an_age_that_a_person_enters_is_recorded(box: Box) -> None:
    number = box.film(Outcome.COULD_NOT_ASSESS, reason=Reason.AGE_UNKNOWN)
    box.client.post(f"/films/{number}/age", data={"years": "44", "name": "Amina"}, headers=OWN)
    box.client.post(f"/films/{number}/age", data={"years": "45", "name": "Amina"}, headers=OWN)
    supplied = [record for record in audit.records(box.store) if record.event is Event.AGE_SUPPLIED]
    assert [(record.actor, record.arrival_id, record.detail) for record in supplied] == [
        ("Amina", number, {"years": 44})
    ]


def test_who_accepted_the_model_is_recorded(box: Box) -> None:
    box.accept()
    record = audit.latest(box.store, Event.ACCEPTED)
    assert record is not None and record.actor == "Dr Ba" and record.detail["operating_point"] == "balanced"


def test_what_is_undone_leaves_no_record(box: Box) -> None:
    with pytest.raises(ZeroDivisionError), transaction(box.store):
        audit.append(box.store, Event.VIEWED, "Amina", now())
        1 / 0  # noqa: B018
    assert audit.head(box.store)[0] == 0


def test_a_lead_sees_all_and_who_treats_patients_a_films(box: Box) -> None:
    number = box.film(Outcome.IMMEDIATE)
    assert f'href="/ledger?film={number}"' in box.text(f"/films/{number}")
    page = box.text(f"/ledger?film={number}")
    assert "<bdi>Amina</bdi></b>: Opened the film" in page and "is whole" in page
    assert 'name="person"' not in page
    assert box.client.get("/ledger").status_code == 403
    assert box.client.get("/ledger?film=99").status_code == 404
    sign_in(box.client, Path(box.config.state), "Tarek", Role.TECHNICIAN)
    assert box.client.get(f"/ledger?film={number}").status_code == 403
    page = lead(box)
    assert "Opened the film" in page and '<option value="Amina" >' in page


def test_the_walk_from_decision_to_record(box: Box) -> None:
    number = box.film(Outcome.IMMEDIATE)
    form = {"request": "k" * 20, "act": "override", "run": 1, "standing": 0, "outcome": "soon", "reason": "artefact"}
    reason = next(iter(re.findall(r'name="reason" value="(\w+)"', box.text(f"/films/{number}"))))
    answer = box.client.post(f"/films/{number}/decision", data=form | {"reason": reason}, headers=OWN)
    assert answer.status_code == 303
    page = box.text(f"/ledger?film={number}")
    assert re.search(r"Amina</bdi></b>: Chose another outcome \(<bdi>Soon, ", page)


def test_what_the_ai_found_stays_hidden_until_a_person_said_what_they_see(tmp_path: Path) -> None:
    with closing((box := Box(tmp_path, Policy(impression_first=True))).store):
        number = box.film(Outcome.IMMEDIATE)
        with transaction(box.store):
            audit.append(box.store, Event.ASSESSED, "worker", now(), number, outcome="immediate")
        page = box.text(f"/ledger?film={number}")
        assert "The AI assessed the film" in page and "Immediate" not in page.partition("<ol")[2].partition("</ol")[0]
        data = {"request": "k" * 20, "run": 1, "choice": "normal"}
        box.client.post(f"/films/{number}/impression", data=data, headers=OWN)
        assert "Immediate" in box.text(f"/ledger?film={number}").partition("<ol")[2].partition("</ol")[0]


def test_the_ledger_is_paged_and_filtered(box: Box) -> None:
    many(box, 120)
    page = lead(box)
    assert numbers(page) == list(range(120, 70, -1))
    older = re.search(r'href="(/ledger\?[^"]*before=\d+)"', page)
    assert older is not None
    assert numbers(box.text(older[1])) == list(range(70, 20, -1))
    assert numbers(box.text("/ledger?before=21")) == list(range(20, 0, -1))
    assert numbers(box.text("/ledger?person=Person+3")) == list(range(116, 0, -7))
    assert numbers(box.text("/ledger?person=nobody")) == []


def test_a_broken_ledger_is_told_on_its_page_and_on_the_boxs(box: Box) -> None:
    many(box, ledger.RECENT + 50)
    assert "The last 1,000 of 1,050 records are whole" in lead(box)
    box.store.execute("DROP TRIGGER audit_unchanged")
    box.store.execute("UPDATE audit SET actor = 'Somebody else' WHERE id = 10")
    assert "broken" not in box.text("/ledger"), "only the last records are checked each time"
    assert "The ledger is broken at record 10." in box.text("/ledger?check=")
    box.store.execute("UPDATE audit SET actor = 'Somebody else' WHERE id = 1000")
    assert "The ledger is broken at record 1,000." in box.text("/ledger")
    assert "The ledger is broken at record 1,000." in box.text("/status")


def test_the_page_costs_the_same_however_long_the_ledger_is(box: Box) -> None:
    """The work is counted in SQLite's own steps, not in seconds."""

    def steps(path: str) -> int:
        count = [0]
        app = clinic.create(box.config)
        client = app.test_client()
        sign_in(client, Path(box.config.state), "Lina", Role.LEAD)
        opened = clinic.here.open_store

        def counting(folder: Path) -> object:
            store = opened(folder)
            store.set_progress_handler(lambda: count.__setitem__(0, count[0] + 1), 1000)
            return store

        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(clinic.here, "open_store", counting)
            assert client.get(path).status_code == 200
        return count[0]

    many(box, 2000)
    paths = ("/ledger", "/ledger?person=Person+3", "/ledger?before=1500")
    few = [steps(path) for path in paths]
    many(box, 18000)
    assert all(steps(path) <= before + 20 for path, before in zip(paths, few, strict=True))
