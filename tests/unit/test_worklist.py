"""The worklist's views, search, alerts and what it says of the box."""

from __future__ import annotations

import re
import uuid
from datetime import timedelta
from pathlib import Path

import pytest

from edge.config import Config, FolderSink
from edge.records import Outcome, ReadKind, Reason, Role
from edge.state import acceptances, audit, outbox, reads
from edge.state.audit import Event
from edge.state.store import now, transaction
from tests.people import sign_in
from tests.unit.test_web import ACCEPTED, OWN, Box
from web import phrases, ranking
from web.ranking import Show

CAP = timedelta(hours=4)


@pytest.fixture
def box(tmp_path: Path) -> Box:
    return Box(tmp_path)


def decide(box: Box, number: int, kind: ReadKind, run: int = 1, minutes: float = 0) -> None:
    with transaction(box.store):
        at = now() - timedelta(minutes=minutes)
        outcome = Outcome.SOON if kind is ReadKind.OVERRIDE else None
        reads.add(box.store, number, run, kind, "Amina", at, uuid.uuid4().hex, outcome=outcome)


def accept(box: Box) -> None:
    with transaction(box.store):
        acceptances.sign(box.store, ACCEPTED, "balanced", "Lead", now())


def shown(box: Box, show: Show = Show.OPEN, sought: str = "") -> list[int]:
    return [row.film.arrival.id for row in ranking.build(box.store, now(), CAP, show=show, sought=sought).rows]


def test_a_decided_film_leaves_the_list_and_comes_back_when_taken_back(box: Box) -> None:
    first, second, third = (box.film(Outcome.ROUTINE, minutes=minutes) for minutes in (30, 20, 10))
    decide(box, first, ReadKind.CONFIRM)
    decide(box, second, ReadKind.REFER)
    assert (shown(box), shown(box, Show.ASKED), shown(box, Show.READ)) == ([third], [second], [first])
    decide(box, first, ReadKind.WITHDRAW)
    assert (shown(box), shown(box, Show.READ)) == ([first, third], [])


def test_a_film_that_was_assessed_again_is_to_be_read_again(box: Box) -> None:
    film = box.film(Outcome.COULD_NOT_ASSESS, reason=Reason.AGE_UNKNOWN)
    decide(box, film, ReadKind.CONFIRM)
    assert shown(box) == []
    box.store.execute(
        "INSERT INTO result SELECT arrival_id, 2, outcome, header, decision, milliseconds, saliency, decided_at, letterhead"
        " FROM result"
    )
    assert shown(box) == [film]


def test_films_that_could_not_be_assessed_have_a_view_with_their_place(box: Box) -> None:
    box.film(Outcome.ROUTINE, minutes=20)
    film = box.film(Outcome.COULD_NOT_ASSESS, minutes=10, reason=Reason.CROPPED)
    rows = ranking.build(box.store, now(), CAP, show=Show.UNASSESSED).rows
    assert [(row.film.arrival.id, row.position) for row in rows] == [(film, 2)]
    page = box.client.get("/?show=unassessed").text
    assert "Part of the chest is missing." in page


@pytest.mark.parametrize("sought", ["muñoz", "MUNOZ jose", "p-1", "josé", "P-١"])
def test_search_finds_whatever_the_case_and_accents(box: Box, sought: str) -> None:
    film = box.film(Outcome.ROUTINE, name="MUÑOZ^José")
    read = box.film(Outcome.ROUTINE, name="MUÑOZ^José")
    decide(box, read, ReadKind.CONFIRM)
    assert shown(box, sought=sought) == [film, read]
    assert shown(box, sought="nobody") == []
    assert "<script>" not in box.client.get("/?q=<script>alert(1)</script>").text.split("<main")[1].replace(
        '<script type="module"', ""
    )


def test_the_expected_time_comes_from_todays_pace(box: Box) -> None:
    for minutes in (5, 15, 25, 35):
        decide(box, box.film(Outcome.ROUTINE, minutes=60), ReadKind.CONFIRM, minutes=minutes)
    box.film(Outcome.ROUTINE, minutes=3)
    box.film(Outcome.ROUTINE, minutes=2)
    at = now()
    one, two = ranking.build(box.store, at, CAP).rows
    assert one.expected is not None and two.expected is not None
    pace = timedelta(minutes=35) / 4
    assert abs(one.expected - at - pace) < timedelta(seconds=30) > abs(two.expected - at - 2 * pace)
    assert len(re.findall(r"read by about \d\d:\d\d<", box.client.get("/").text)) == 2


def test_two_reads_tell_no_pace(box: Box) -> None:
    for _ in range(2):
        decide(box, box.film(Outcome.ROUTINE), ReadKind.CONFIRM)
    box.film(Outcome.ROUTINE)
    assert ranking.build(box.store, now(), CAP).rows[0].expected is None


def test_an_immediate_film_calls_until_somebody_knows_of_it(box: Box) -> None:
    film = box.film(Outcome.IMMEDIATE)
    assert "look at this film now" not in box.client.get("/alerts").text, "no alert in shadow mode"
    accept(box)
    assert "look at this film now" in box.client.get("/alerts").text
    assert "look at this film now" in box.client.get("/status").text, "on every page"
    for _ in range(2):
        assert box.client.post(f"/films/{film}/alert", headers=OWN).status_code == 303
    assert "look at this film now" not in box.client.get("/alerts").text
    known = [record for record in audit.records(box.store) if record.event is Event.ALERT_ACKNOWLEDGED]
    assert [(record.actor, record.arrival_id) for record in known] == [("Amina", film)]


def test_a_film_that_is_open_is_not_to_be_opened_and_stays_when_its_alert_ends(box: Box) -> None:
    film, other = box.film(Outcome.IMMEDIATE), box.film(Outcome.IMMEDIATE)
    accept(box)
    page = box.client.get(f"/films/{film}").text
    part = re.search(r'id="alerts" data-url="([^"]+)"', page)
    assert part is not None
    for shown in (page, box.client.get(part[1]).text):
        own, its = (re.search(rf'action="/films/{one}/alert".*?</form>', shown, re.DOTALL) for one in (film, other))
        assert own is not None and its is not None
        assert "Open the film" not in own[0] and "I know of it" in own[0] and f"film {other}" in its[0]
        for form in (own, its):
            assert re.findall(r'name="(\w+)" value="(\w+)"', form[0]) == [("film", "open")]
    answer = box.client.post(f"/films/{film}/alert", data={"film": "open"}, headers=OWN)
    assert answer.headers["Location"] == f"/films/{film}"


def test_above_an_open_film_all_others_call_by_one_alert(box: Box) -> None:
    film, *others = (box.film(Outcome.IMMEDIATE) for _ in range(5))
    accept(box)
    shown = box.client.get("/alerts").text
    assert shown.count('role="alert"') == 3 and "2 other immediate films call" in shown
    page = box.client.get(f"/alerts?film={film}").text
    assert page.count('role="alert"') == 2 and "4 other immediate films call" in page
    assert len(re.findall("data-alert=", page)) == 3, "each that is shown calls by sound until it is known of"
    last = box.client.get(f"/alerts?film={others[-1]}").text
    assert "look at this film now" in last and "4 other immediate films call" in last, "what is open calls before all"
    box.client.post(f"/films/{film}/alert", headers=OWN)
    page = box.client.get(f"/alerts?film={film}").text
    assert page.count('role="alert"') == 1 and "4 other immediate films call" in page
    assert [other in map(int, re.findall(r"/films/(\d+)/alert", page)) for other in others] == [True, True, True, False]


def test_a_decision_ends_the_alert(box: Box) -> None:
    film = box.film(Outcome.IMMEDIATE)
    accept(box)
    decide(box, film, ReadKind.CONFIRM)
    assert "look at this film now" not in box.client.get("/alerts").text


def test_a_technician_sees_no_alert(box: Box) -> None:
    film = box.film(Outcome.IMMEDIATE)
    accept(box)
    sign_in(box.client, Path(box.config.state), "Tom", Role.TECHNICIAN)
    assert box.client.get("/alerts").status_code == 403
    assert "look at this film now" not in box.client.get("/status").text
    assert box.client.post(f"/films/{film}/alert", headers=OWN).status_code == 403


def test_what_has_not_been_sent_is_counted_with_the_oldest(tmp_path: Path) -> None:
    config = Config(
        state=str(tmp_path), sinks=(FolderSink(name="share", path="/x"), FolderSink(name="other", path="/y"))
    )
    box = Box(tmp_path)
    assert "Not sent yet" not in box.text("/")
    oldest = now() - timedelta(hours=3)
    for at in (now(), oldest):
        number = box.film(Outcome.ROUTINE)
        with transaction(box.store):
            outbox.of_result(box.store, config, number, 1, Outcome.ROUTINE, at)
    told = " ".join(re.sub("<[^>]+>", " ", box.text("/worklist")).split())
    assert f"Not sent yet: 2 films, the oldest since {phrases.clock(oldest)}. Nothing is lost" in told


def test_the_status_page_says_what_to_do(box: Box) -> None:
    page = box.client.get("/status").text
    for words in ("Shadow mode", "The sound alert was never tested.", "No back-up was made yet.", "more films"):
        assert words in page
    box.client.post("/alerts/test", data={"heard": "no"}, headers=OWN)
    assert "Turn the tablet" in box.client.get("/status").text
    box.client.post("/alerts/test", data={"heard": "yes"}, headers=OWN)
    assert "The alert was heard at" in box.client.get("/status").text
    accept(box)
    assert "Accepted for this site by Lead" in box.client.get("/status").text


def test_five_thousand_films_are_one_short_page(tmp_path: Path) -> None:
    box = Box(tmp_path)
    first = box.film(Outcome.ROUTINE)
    with transaction(box.store):
        for number in range(2, 5001):
            box.store.execute(
                "INSERT INTO arrival (id, sop_instance_uid, sha256, source, received_at, urgency)"
                " SELECT ?, '1.2.' || ?, sha256, source, received_at, urgency FROM arrival WHERE id = ?",
                (number, 10_000 + number, first),
            )
            box.store.execute(
                "INSERT INTO result SELECT ?, run, outcome, header, decision, milliseconds, saliency, decided_at, letterhead"
                " FROM result WHERE arrival_id = ?",
                (number, first),
            )
    page = box.client.get("/").text
    assert page.count('<li id="film-') == ranking.PART
    assert "Films 1 to 100 of 5,000" in page
    assert len(page) < 250_000


def test_the_list_asks_for_the_sound_once_a_day_and_says_when_the_clock_is_wrong(tmp_path: Path) -> None:
    box = Box(tmp_path)
    box.film(Outcome.ROUTINE)
    assert 'id="test-sound"' in box.text("/") and "clock is wrong" not in box.text("/")
    box.client.post("/alerts/test", data={"heard": "yes"}, headers={"Sec-Fetch-Site": "same-origin"})
    assert 'id="test-sound"' not in box.text("/")
    box.film(Outcome.ROUTINE, minutes=-120)  # it came two hours from now: the clock was set back since
    assert "clock is wrong" in box.text("/")
    box.store.close()
