"""Changed films at the hub: which clinics are named, why, and what readers found that the AI did not."""

from __future__ import annotations

import re
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest

from edge import cards
from edge.records import Outcome
from edge.validity import packet, pooling
from edge.validity.verdict import Cause
from tests import reading
from tests.property.test_watch import CASES, day
from tests.reading import PROGRAMME, Hub
from tests.unit.test_reading import STREAM, flushed, sealed_and_sent, take
from web.hub import drift, packets
from web.hub.accounts import Role
from web.hub.config import Config
from web.hub.records import Finding

WHOLE = pooling.LEAST + pooling.RECENT


@pytest.fixture
def hub(tmp_path: Path) -> Hub:
    return reading.made(Config(state=str(tmp_path)))


def sent(hub: Hub, site: str, days: int, **moved: object) -> None:
    """So many days of a clinic, the last two weeks of 44 moved."""
    today = datetime.now(UTC).date()
    bodies = []
    for number in range(days):
        shift = moved if number >= pooling.LEAST else {}
        one = replace(day(number, seed=len(site), **shift), day=today - timedelta(WHOLE - number))  # type: ignore[arg-type]
        bodies.append(cards.Packet(edges=one.edges, day=one.day.isoformat(), data=packet.encode(one)))
    hub.says(site, *bodies)


def rows(page: str) -> list[tuple[str, str, str]]:
    """Level, title and sentence of each row, in order."""
    found = re.findall(r'<div class="share (\w+)">.*?<bdi>(.*?)</bdi>.*?<span>([^<].*?)</span>\s*</div>', page, re.S)
    return [(level, title, re.sub(r"<[^>]+>", "", said)) for level, title, said in found]


def test_a_clinic_that_changed_comes_first_with_its_cause_and_what_to_do(hub: Hub) -> None:
    sent(hub, "north", WHOLE)
    sent(hub, "south", WHOLE, **CASES[Cause.DETECTOR])
    lead = hub.client("Lead", Role.LEAD)
    first, second, *rest = rows(lead.get("/drift").text)
    assert first[:2] == ("act", "عيادة الجنوب") and second[:2] == ("good", "North clinic")
    assert "changed in the last two weeks" in first[2] and "another X-ray unit or detector" in first[2]
    assert "Ask what was changed at the X-ray unit" in first[2] and "Moved most:" in first[2]
    assert "such as they were before" in second[2]
    assert rest[0][1].startswith("X-ray unit ") and "2 clinics" in rest[0][1]
    assert lead.get("/drift").text.count("<polyline") == 3, "a picture of each"
    assert hub.client("Reader").get("/drift").status_code == 403


def test_what_a_box_says_of_itself_is_shown_where_it_may_be_chance(hub: Hub) -> None:
    sent(hub, "north", WHOLE)
    status = cards.Status(version="1", model="m", device_uid="2.25.1", accepted=True, drift="changed",
                          disk_free_mib=1, films=1, unsent=0, notices=())  # fmt: skip
    hub.says("north", status)
    level, title, said = rows(hub.client("Lead", Role.LEAD).get("/drift").text)[0]
    assert (level, title) == ("look", "North clinic") and "Its box says" in said


def test_too_few_days_and_none_are_said(hub: Hub) -> None:
    sent(hub, "north", 10)
    page = rows(hub.client("Lead", Role.LEAD).get("/drift").text)
    assert {title: said for _, title, said in page} == {
        "North clinic": f"Too few days to say: {WHOLE - 10} more are needed. Nothing to do.",
        "عيادة الجنوب": "No day of films has come from there yet. Nothing to do.",
    }


def test_a_packet_that_cannot_be_read_is_left_out(hub: Hub) -> None:
    sent(hub, "north", 10)
    with hub.held.store.transaction(PROGRAMME) as db:
        packets.keep(db, "north", cards.Packet(edges="0" * 16, day="2026-11-01", data=b"nonsense"), reading.EPOCH, 999)
    assert f"{WHOLE - 10} more are needed" in hub.client("Lead", Role.LEAD).get("/drift").text


def test_reads_that_did_not_see_the_ai_say_how_many_it_raises(hub: Hub) -> None:
    for _ in range(3):
        hub.film(Outcome.SOON, stream=STREAM)
    client = hub.client()
    while "none" not in (path := take(client)):
        sealed_and_sent(client, path, "effusion", outcome="soon")
        flushed(hub)
    said = rows(hub.client("Lead", Role.LEAD).get("/drift").text)[-1]
    assert said[:2] == ("good", "demonstrator 1.0")
    assert "Of 100 abnormal films it raises about 100" in said[2] and "by 3 that were read here" in said[2]


def result(outcome: Outcome) -> cards.Result:
    return cards.Result(case="2.25.9", run=1, study=None, patient="P" + "A" * 16, age="", sex="", day="", view="",
                        urgency="routine", outcome=outcome, reason=None, findings=(), model="m", device_uid="2.25.1",
                        operating_point="balanced", shadow=False)  # type: ignore[arg-type]  # fmt: skip


def read(code: str, blind: bool = True) -> Finding:
    said = Finding(outcome=Outcome.SOON, codes=(code,))
    return Finding(outcome=Outcome.SOON, codes=(code,), before_ai=said if blind else None)


def test_a_miss_that_was_drawn_by_lot_counts_for_those_it_stands_for_and_what_was_seen_with_the_ai_for_none() -> None:
    raised, missed = (result(Outcome.SOON), read("effusion"), 1.0), (result(Outcome.ROUTINE), read("effusion"), 10.0)
    others = [
        (result(Outcome.ROUTINE), read("effusion", blind=False), 10.0),
        (result(Outcome.ROUTINE), read("normal"), 10.0),
        (result(Outcome.COULD_NOT_ASSESS), read("effusion"), 1.0),
    ]
    (told,) = drift.found([raised] * 90 + [missed] + others)
    assert told.estimate.value == pytest.approx(0.9) and not told.fewer
    (told,) = drift.found([raised] * 90 + [missed] * 6)
    assert told.estimate.value == pytest.approx(0.6) and told.fewer
    assert drift.found(others) == []
