"""What people say of films: sealed, decided, taken back; once each, and never over somebody else's head."""

from __future__ import annotations

import html
import re
from collections.abc import Iterator
from contextlib import closing
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest

from edge.config import FolderSink, Policy
from edge.records import Outcome, ReadKind, Reason
from edge.state import audit, outbox, reads
from edge.state.audit import Event
from edge.state.store import now
from edge.vocabulary import IMPRESSIONS, NOT_ASSESSED
from tests.people import sign_in
from tests.unit.test_web import OWN, SHOWN_AT_ONCE, Box
from web import clinic, languages, phrases

KEYS = iter(f"{number:016}" for number in range(10**6))


@pytest.fixture
def box(tmp_path: Path) -> Iterator[Box]:
    with closing((box := Box(tmp_path, Policy(impression_first=True))).store):
        box.accept()
        yield box


def post(box: Box, path: str, client: Any = None, **form: object) -> Any:
    form.setdefault("request", next(KEYS))
    return (client or box.client).post(path, data=form, headers=OWN)


def decide(box: Box, number: int, act: str, client: Any = None, run: int = 1, **form: object) -> Any:
    form.setdefault("standing", 0)
    return post(box, f"/films/{number}/decision", client, act=act, run=run, **form)


def impress(box: Box, number: int, choice: str = "normal", **form: object) -> Any:
    return post(box, f"/films/{number}/impression", choice=choice, run=1, **form)


def events(box: Box) -> list[str]:
    return [record.event for record in audit.records(box.store)]


def text(box: Box, path: str) -> str:
    return " ".join(html.unescape(re.sub("<[^>]+>", " ", box.text(path))).split())


def test_the_ai_is_not_shown_before_the_person_has_said_what_they_see(box: Box) -> None:
    number = box.film(Outcome.IMMEDIATE)
    for path in ("/", f"/films/{number}", f"/films/{number}/sections", f"/films/{number}/sheet"):
        assert "Tuberculosis: likely" not in text(box, path), path
        assert "72 %" not in text(box, path), path
    assert "What do you see?" in text(box, f"/films/{number}")
    assert decide(box, number, "confirm").status_code == 409
    answer = impress(box, number, "effusion")
    assert (answer.status_code, answer.headers["Location"]) == (303, f"/films/{number}#decide")
    page = text(box, f"/films/{number}")
    assert "Tuberculosis : likely, about 7 of 10 such films" in page and "You saw: Fluid in the chest." in page
    (act,) = reads.of_film(box.store, number)
    film_sha = box.store.execute("SELECT sha256 FROM arrival").fetchone()[0]
    assert act.seal == reads.seal(film_sha, 1, "Amina", act.at, ("effusion",))
    assert act.seal != reads.seal(film_sha, 1, "Amina", act.at, ("normal",))
    assert events(box)[-2:] == [Event.SEALED, Event.REVEALED]


def test_an_impression_cannot_be_changed_after_the_ai_was_shown(box: Box) -> None:
    number = box.film(Outcome.IMMEDIATE)
    assert impress(box, number, "normal").status_code == 303
    assert impress(box, number, "effusion").status_code == 303
    assert [act.codes for act in reads.of_film(box.store, number)] == [("normal",)]


def test_each_reader_has_an_impression_of_their_own(box: Box) -> None:
    number = box.film(Outcome.IMMEDIATE)
    impress(box, number)
    other = clinic.create(box.config).test_client()
    sign_in(other, Path(box.config.state), "Binta")
    assert "What do you see?" in other.get(f"/films/{number}").text


def test_where_the_policy_does_not_ask_the_ai_is_shown_at_once(tmp_path: Path) -> None:
    with closing((box := Box(tmp_path)).store):
        number = box.film(Outcome.IMMEDIATE)
        assert "What do you see?" not in box.text(f"/films/{number}")
        assert decide(box, number, "confirm").status_code == 303


def test_triage_only_never_shows_the_map(tmp_path: Path) -> None:
    with closing((box := Box(tmp_path, Policy(impression_first=False, triage_only=True))).store):
        number = box.film(Outcome.IMMEDIATE)
        box.store.execute("UPDATE result SET saliency = x'00'")
        assert box.client.get(f"/films/{number}/map.png").status_code == 404
        assert "map.png" not in box.text(f"/films/{number}")


def test_a_decided_film_leaves_the_list_and_can_be_taken_back_for_ten_seconds(
    box: Box, monkeypatch: pytest.MonkeyPatch
) -> None:
    number, other = box.film(Outcome.IMMEDIATE), box.film(Outcome.ROUTINE)
    impress(box, number)
    answer = decide(box, number, "confirm")
    assert answer.status_code == 303
    assert box.order() == [other]
    done = box.text(answer.headers["Location"])
    assert "Confirmed by" in done and "Take it back" in done
    standing = reads.standing(box.store)[number]
    assert (standing.kind, standing.outcome, standing.reader) == (ReadKind.CONFIRM, Outcome.IMMEDIATE, "Amina")
    assert post(box, f"/films/{number}/withdraw", read=standing.id).status_code == 303
    assert box.order() == [number, other] and reads.standing(box.store) == {}
    decide(box, number, "confirm")
    standing = reads.standing(box.store)[number]
    late = now() + reads.UNDO + timedelta(seconds=1)
    monkeypatch.setattr("web.reads.now", lambda: late)
    answer = post(box, f"/films/{number}/withdraw", read=standing.id)
    assert answer.status_code == 409 and "too late" in answer.text
    assert "Take it back" not in box.text(f"/?done={standing.id}")
    assert events(box)[-3:] == [Event.CONFIRMED, Event.WITHDRAWN, Event.CONFIRMED]
    assert audit.verify(box.store) is None


def test_a_decision_leaves_the_box_once_it_can_no_longer_be_taken_back(tmp_path: Path) -> None:
    sinks = (FolderSink(name="archive", path=str(tmp_path / "out")),)
    with closing((box := Box(tmp_path, SHOWN_AT_ONCE, sinks)).store):
        number = box.film(Outcome.IMMEDIATE)
        decide(box, number, "confirm")
        standing = reads.standing(box.store)[number]
        with box.client.application.test_request_context():
            oldest = phrases.clock(standing.at)
        assert f"Not sent yet: 1 film, since {oldest}." in text(box, "/")
        assert not outbox.due(box.store, ["archive"], standing.at)
        assert outbox.due(box.store, ["archive"], standing.at + reads.UNDO)
        other = box.film(Outcome.IMMEDIATE)
        decide(box, other, "confirm")
        assert f"Not sent yet: 2 films, the oldest since {oldest}." in text(box, "/")
        decided = reads.standing(box.store)
        for film in (number, other):
            post(box, f"/films/{film}/withdraw", read=decided[film].id)
        assert outbox.unsent(box.store) == {}
        assert "Not sent yet" not in box.text("/")


def test_nobody_takes_back_what_another_decided(box: Box) -> None:
    number = box.film(Outcome.IMMEDIATE)
    impress(box, number)
    decide(box, number, "confirm")
    other = clinic.create(box.config).test_client()
    sign_in(other, Path(box.config.state), "Binta")
    standing = reads.standing(box.store)[number]
    assert post(box, f"/films/{number}/withdraw", other, read=standing.id).status_code == 409
    assert "Take it back" not in other.get(f"/?done={standing.id}").text


def test_an_override_needs_an_outcome_and_a_reason(box: Box) -> None:
    number = box.film(Outcome.IMMEDIATE)
    impress(box, number)
    for form in (
        {},
        {"outcome": "soon"},
        {"outcome": "could_not_assess", "reason": "nothing"},
        {"outcome": "soon", "reason": "x"},
    ):
        assert decide(box, number, "override", **form).status_code == 422
    assert reads.standing(box.store) == {}
    assert decide(box, number, "override", outcome="routine", reason="nothing").status_code == 303
    standing = reads.standing(box.store)[number]
    assert (standing.outcome, standing.reason) == (Outcome.ROUTINE, "nothing")
    assert "Changed to “Routine” by" in box.text("/?show=read")


def test_a_film_that_could_not_be_assessed_is_decided_without_a_proposal(box: Box) -> None:
    number = box.film(Outcome.COULD_NOT_ASSESS, reason=Reason.CROPPED)
    page = box.text(f"/films/{number}")
    assert "What do you see?" not in page and 'value="confirm"' not in page
    assert decide(box, number, "confirm").status_code == 422
    assert decide(box, number, "override", outcome="soon").status_code == 303
    assert reads.standing(box.store)[number].reason == NOT_ASSESSED.key


def test_a_teleradiologist_can_be_asked_without_an_own_impression(box: Box) -> None:
    number = box.film(Outcome.IMMEDIATE)
    assert decide(box, number, "refer").status_code == 303
    assert box.order() == []
    assert "asked a teleradiologist" in box.text("/?show=asked")


@pytest.mark.parametrize("act", ["impression", "decision"])
def test_a_double_tap_and_a_repeated_sending_count_once(box: Box, act: str) -> None:
    number = box.film(Outcome.IMMEDIATE)
    key = next(KEYS)
    if act == "decision":
        impress(box, number)
    before = len(events(box))
    answers = [
        impress(box, number, request=key) if act == "impression" else decide(box, number, "confirm", request=key)
        for _ in range(3)
    ]
    assert {(answer.status_code, answer.headers["Location"]) for answer in answers} == {
        (303, answers[0].headers["Location"])
    }
    assert len(events(box)) == before + (2 if act == "impression" else 1)


def test_two_people_on_one_film_do_not_overwrite_each_other(box: Box) -> None:
    number = box.film(Outcome.IMMEDIATE)
    other = clinic.create(box.config).test_client()
    sign_in(other, Path(box.config.state), "Binta")
    impress(box, number)
    post(box, f"/films/{number}/impression", other, choice="normal", run=1)
    assert decide(box, number, "confirm").status_code == 303
    answer = decide(box, number, "override", other, outcome="routine", reason="nothing")
    assert answer.status_code == 409 and "Somebody else has decided" in answer.text
    assert f'href="/films/{number}"' in answer.text
    standing = reads.standing(box.store)[number]
    assert standing.reader == "Amina"
    again = decide(box, number, "override", other, outcome="routine", reason="nothing", standing=standing.id)
    assert again.status_code == 303 and reads.standing(box.store)[number].reader == "Binta"


def test_a_page_of_an_older_assessment_decides_nothing(box: Box) -> None:
    number = box.film(Outcome.IMMEDIATE)
    impress(box, number)
    assert decide(box, number, "confirm", run=0).status_code == 409
    assert reads.standing(box.store) == {}


@pytest.mark.parametrize("form", [{"request": ""}, {"request": "short"}, {"request": "x" * 65}, {"act": "approve"}])
def test_a_form_that_no_page_makes_changes_nothing(box: Box, form: dict[str, str]) -> None:
    number = box.film(Outcome.IMMEDIATE)
    fields = {"act": "refer", "run": 1, "standing": 0, "request": next(KEYS)} | form
    assert box.client.post(f"/films/{number}/decision", data=fields, headers=OWN).status_code == 400
    assert reads.standing(box.store) == {}


def test_the_learning_page_shows_a_reader_where_they_and_the_ai_differed(box: Box) -> None:
    assert "Nothing to show yet" in box.text("/learning")
    same, missed, unsure = box.film(Outcome.ROUTINE), box.film(Outcome.IMMEDIATE), box.film(Outcome.SOON)
    impress(box, same)
    impress(box, missed)
    impress(box, unsure, "unsure")
    page = text(box, "/learning")
    assert "On 1 of 2 films you and the AI agreed." in page
    assert f"Film {missed}" in page and f"Film {same}" not in page and f"Film {unsure}" not in page
    other = clinic.create(box.config).test_client()
    sign_in(other, Path(box.config.state), "Binta")
    assert "Nothing to show yet" in other.get("/learning").text


def test_a_sheet_can_be_checked_and_says_when_it_is_out_of_date(box: Box) -> None:
    number = box.film(Outcome.IMMEDIATE, name="DIALLO^Mariama")
    impress(box, number)
    decide(box, number, "confirm")
    page = box.text(f"/films/{number}/sheet")
    assert "DIALLO, Mariama" in page and "Confirmed by" in page and "not a diagnosis" in page
    code = re.findall(r'class="code">([0-9a-f ]{19})<', page)
    assert code == re.findall(r'class="code">([0-9a-f ]{19})<', box.text(f"/films/{number}/sheet"))
    assert events(box).count(Event.HANDED_OFF) == 1
    assert "genuine, and what it says still stands" in box.text(f"/verify?code={code[0]}")
    assert "genuine, and what it says still stands" in box.text(f"/verify?code=code+{code[0].upper()}")
    standing = reads.standing(box.store)[number]
    decide(box, number, "override", standing=standing.id, outcome="routine", reason="known")
    assert "decided again since" in box.text(f"/verify?code={code[0]}")
    for wrong in ("0000 0000 0000 0000", "abc", code[0][:-1]):
        assert "has made no sheet" in box.text(f"/verify?code={wrong}")


@pytest.mark.parametrize("language", languages.LANGUAGES)
def test_a_slip_tells_the_patient_what_happens_and_nothing_of_what_was_found(box: Box, language: str) -> None:
    number = box.film(Outcome.IMMEDIATE)
    page = box.text(f"/films/{number}/slip?language={language}")
    assert f'lang="{language}"' in page and page.count('class="pictogram"') == 5
    inner = re.sub("<[^>]+>", " ", page[page.index("<article") : page.index("</article")])
    assert "Immediate" not in inner and "Tuberculosis" not in inner and "72" not in inner


def test_every_choice_keeps_its_code() -> None:
    assert {choice.code for choice in IMPRESSIONS.values()} == {
        "168733007", "95436008", "60046008", "36118008", "8186001", "309529002", "154283005", "168734001", "unsure",
    }  # fmt: skip


def test_the_language_is_kept_with_the_person(box: Box) -> None:
    answer = box.client.post("/language", data={"code": "ar", "back": "/learning"}, headers=OWN)
    assert answer.headers["Location"] == "/learning"
    assert 'lang="ar" dir="rtl"' in box.text("/")
    for back in ("//elsewhere.example", "https://elsewhere.example", "/\\elsewhere.example"):
        answer = box.client.post("/language", data={"code": "en", "back": back}, headers=OWN)
        assert answer.headers["Location"] == "/"
    assert box.client.post("/language", data={"code": "xx"}, headers=OWN).status_code == 400
