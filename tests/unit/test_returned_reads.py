"""What the tablet says of the hub: what has not arrived there, why, and what a teleradiologist answers, in six languages."""

from __future__ import annotations

import hashlib
from datetime import timedelta
from html import unescape
from pathlib import Path
from typing import Any

import pytest

from edge import outside, words
from edge.cards import Answer, Decided, Enrolled, Lane, Read, Seen, ToBox
from edge.config import Hub, Policy
from edge.records import (
    Assessment,
    Concern,
    Display,
    Outcome,
    ReadKind,
    Reason,
    Sha256,
    StoredFile,
    Trouble,
    Urgency,
    Withheld,
)
from edge.state import device, reads, results, sync
from edge.state.store import MIGRATIONS, now, transaction
from edge.vocabulary import ADVICE, IMPRESSIONS
from models.bundle import SHIPPED, load
from tests.unit.test_web import Box
from web.languages import LANGUAGES, speaking, translated

HUB = Hub(url="https://hub.example")
KEY = bytes(range(32))
GRAY = Sha256("a" * 64)


@pytest.fixture
def box(tmp_path: Path) -> Box:
    return Box(tmp_path, hub=HUB, policy=Policy(impression_first=False))


def enrol(box: Box) -> None:
    told = Enrolled(site="north", programme="lakes", signing=KEY, sealing=KEY, epoch="a" * 16)
    with transaction(box.store):
        device.enrol(box.store, told, "", now())
        sync.begin_with(box.store, told.epoch)


def read_of(box: Box, number: int, **more: Any) -> Read:
    """A teleradiologist's read of a film comes back."""
    with transaction(box.store):
        name = sync.case(box.store, number, f"2.25.{number}")
    said: dict[str, Any] = {
        "case": name,
        "read": hashlib.sha256(repr((number, more)).encode()).hexdigest(),
        "reader": "Dr Grace <Banda>",
        "outcome": Outcome.IMMEDIATE,
        "codes": ("pneumothorax", "newer_word"),
        "advice": ("act_now", "newer_advice"),
        "final": False,
        "at": "2026-11-25T10:00:00Z",
    }
    body = Read(**(said | more))
    with transaction(box.store):
        seq = sync.standing(box.store).upto + 1
        answers = (Answer(epoch="a" * 16, seq=seq, body=body),)
        sync.take(box.store, ToBox(epoch="a" * 16, answers=answers), now(), fresh=True)
    return body


def told(box: Box, kind: type) -> list[Any]:
    return [one.body for one in sync.events(box.store, now() + reads.UNDO, 2**30) if isinstance(one.body, kind)]


def test_the_status_page_says_how_it_stands_with_the_hub_and_what_to_do(box: Box) -> None:
    box.film(Outcome.SOON)
    assert "not enrolled with its hub yet" in box.text("/status")
    enrol(box)
    assert "Everything has arrived there." in box.text("/status")
    with transaction(box.store):
        name = sync.case(box.store, 1, "2.25.1")
        sync.tell(box.store, Seen(case=name, read="b" * 64), Lane.PEOPLE, now(), about="x", arrival_id=1)
    assert "1 film has not arrived there yet" in box.text("/status")
    for trouble in Trouble:
        if trouble not in words.HUB:
            continue
        with transaction(box.store):
            sync.settle(box.store, trouble, "for the technician", now(), timedelta(minutes=1))
        page = box.text("/status")
        for sentence in words.HUB[trouble]:
            assert sentence.replace("'", "&#39;") in page, trouble


def test_without_a_hub_nobody_hears_of_one(tmp_path: Path) -> None:
    box = Box(tmp_path)
    assert "<h2>Hub</h2>" not in box.text("/status")


def test_the_list_counts_what_has_not_arrived_at_the_hub(box: Box) -> None:
    enrol(box)
    number = box.film(Outcome.SOON)
    assert "Not sent yet:" not in box.text("/")
    with transaction(box.store):
        name = sync.case(box.store, number, "2.25.1")
        sync.tell(box.store, Seen(case=name, read="b" * 64), Lane.PEOPLE, now(), about="x", arrival_id=number)
        sync.tell(box.store, Seen(case=name, read="c" * 64), Lane.PEOPLE, now(), about="y", arrival_id=number)
    assert "1 film, since" in box.text("/")


def test_a_read_that_comes_back_is_on_the_list_until_it_was_opened_and_the_hub_learns_that_it_was(box: Box) -> None:
    enrol(box)
    number = box.film(Outcome.SOON)
    body = read_of(box, number)
    assert f'id="returned-{number}"' in box.text("/")
    page = box.text(f"/films/{number}")
    assert "A teleradiologist has read this film" in page
    assert "Air in the chest (pneumothorax)" in page
    assert "Act now: this cannot wait" in page
    assert "Dr Grace &lt;Banda&gt;" in page
    assert "A second teleradiologist reads it as well." in page
    assert "newer_word" in page and "newer_advice" in page, "what this box has no word for is shown as it came"
    assert f'id="returned-{number}"' not in box.text("/")
    assert told(box, Seen) == [Seen(case=body.case, read=body.read)]
    box.text(f"/films/{number}")
    assert len(told(box, Seen)) == 1


def test_a_picture_that_stays_in_the_clinic_says_why_and_what_to_do(box: Box) -> None:
    enrol(box)
    number = box.film(Outcome.SOON)
    with transaction(box.store):
        sync.case(box.store, number, "2.25.1")
        results.add_rendition(box.store, number, GRAY, GRAY, Display(((32768, 65535),), None, True))
    assert "it stays in the clinic" not in box.text(f"/films/{number}")
    for concern in Concern:
        with transaction(box.store):
            outside.tell_withheld(box.store, box.config, number, Withheld(concern), now())
        page = unescape(box.text(f"/films/{number}"))
        assert "Teleradiologists do not see this picture: it stays in the clinic." in page
        assert all(sentence in page for sentence in words.CONCERNS[concern])
    with transaction(box.store):
        file, display = StoredFile(GRAY, Path("unread"), 9), Display(((1, 2),), None, True)
        outside.tell_image(box.store, box.config, number, file, (3, 3), display, now())
    assert "it stays in the clinic" not in box.text(f"/films/{number}"), "sent anew, it leaves"


def test_a_reader_who_is_to_say_first_what_they_see_is_not_told_before(tmp_path: Path) -> None:
    box = Box(tmp_path, hub=HUB, policy=Policy())
    enrol(box)
    number = box.film(Outcome.SOON)
    read_of(box, number)
    page = box.text(f"/films/{number}")
    assert "Say what you see first; then their read is shown." in page
    assert "Dr Grace" not in page
    assert told(box, Seen) == [], "they have not seen it"


def test_a_read_that_cannot_tell_is_no_word_of_the_ais(box: Box) -> None:
    enrol(box)
    number = box.film(Outcome.SOON)
    read_of(box, number, outcome=Outcome.COULD_NOT_ASSESS, codes=("unsure",), advice=("repeat",), final=True)
    page = box.text(f"/films/{number}")
    assert "They cannot tell from this film." in page
    part = page[page.index("A teleradiologist has read") :]
    assert "AI could not assess" not in part[: part.index("</div>")]


@pytest.mark.parametrize("language", [one for one in LANGUAGES if one != "en"])
def test_a_read_is_said_in_the_clinics_language_from_codes_alone(box: Box, language: str) -> None:
    texts = [choice.text for table in (IMPRESSIONS, ADVICE) for choice in table.values()]
    with box.client.application.test_request_context(), speaking(language):
        assert all(translated(text) != text for text in texts)


def test_what_ranks_before_routine_goes_before_it_and_what_nobody_could_tell_does_too(box: Box) -> None:
    enrol(box)
    manifest = load(SHIPPED).manifest
    first = {"stat": Lane.URGENT, "high": Lane.SOON, "routine": Lane.ROUTINE, "immediate": Lane.URGENT}
    first |= {"soon": Lane.SOON, "could_not_assess": Lane.SOON}
    expected = {}
    for urgency, outcome in reversed([(urgency, outcome) for urgency in Urgency for outcome in Outcome]):
        reason = Reason.PROCESSING_FAILED if outcome is Outcome.COULD_NOT_ASSESS else None
        number = box.film(outcome, reason=reason, urgency=urgency)
        expected[number] = min(first[urgency], first[outcome])
        with transaction(box.store):
            shown = results.film(box.store, number)
            assert shown.header and shown.decision
            said = Assessment(shown.header, shown.decision, None, {})
            outside.tell_result(box.store, box.config, manifest, number, 1, said, number % 2 == 0, now())
    went = sync.events(box.store, now(), 2**30)
    rows = box.store.execute("SELECT id, arrival_id FROM sync_event").fetchall()
    lanes = [expected[dict(map(tuple, rows))[one.id]] for one in went]
    assert lanes == sorted(lanes) == [one.lane for one in went] and len(lanes) == 18


def test_lanes_of_an_earlier_version_stay_what_they_were(box: Box) -> None:
    assert sync.SOON in MIGRATIONS
    with transaction(box.store):
        sync.tell(box.store, Seen(case="2.25.1", read="b" * 64), Lane(4), now(), about="routine, then")
        for statement in sync.SOON.strip().splitlines():
            box.store.execute(statement)
    assert [one.lane for one in sync.events(box.store, now(), 2**30)] == [Lane.ROUTINE]


def test_asking_a_teleradiologist_goes_first_and_not_before_it_can_no_longer_be_taken_back(box: Box) -> None:
    enrol(box)
    number = box.film(Outcome.ROUTINE)
    with transaction(box.store):
        name = sync.case(box.store, number, "2.25.1")
        sync.tell(box.store, Seen(case=name, read="b" * 64), Lane.ROUTINE, now(), about="x", arrival_id=number)
        said, _ = reads.add(box.store, number, 1, ReadKind.REFER, "Amina", now(), "k" * 20)
        outside.tell_read(box.store, box.config, said)
    assert [one.lane for one in sync.events(box.store, now(), 2**30)] == [Lane.URGENT], "the film goes first as well"
    assert [one.act for one in told(box, Decided)] == [ReadKind.REFER]
    with transaction(box.store):
        outside.take_back(box.store, said)
    assert told(box, Decided) == []
