"""The fleet page: every clinic's box in one sentence, the worst first; and how often a box says how it stands."""

from __future__ import annotations

import re
from contextlib import closing
from datetime import timedelta
from pathlib import Path

import msgspec
import pytest

from edge import outside
from edge.cards import Status
from edge.config import Config as BoxConfig
from edge.config import Hub as HubSettings
from edge.state import acceptances, notices
from edge.state.store import now, open_store, transaction
from edge.words import DRIFT
from tests import reading
from tests.reading import PROGRAMME, STATUS, Hub
from web.hub import fleet, sites
from web.hub.accounts import Role
from web.hub.config import Config
from web.hub.records import Contact

HOUR = timedelta(hours=1)


@pytest.fixture
def hub(tmp_path: Path) -> Hub:
    return reading.made(Config(state=str(tmp_path)))


def rows(page: str) -> list[tuple[str, str, str]]:
    """Level, title and sentence of each row, in order."""
    found = re.findall(r'<li class="(\w+)">.*?<bdi>(.*?)</bdi></a></h2>\s*<p>(.*?)</p>', page, re.S)
    return [(level, title, re.sub(r"<[^>]+>", "", said)) for level, title, said in found]


def test_the_box_that_needs_somebody_comes_first_and_leads_to_all_it_said(hub: Hub) -> None:
    hub.says("north", STATUS)
    lead = hub.client("Lead", Role.LEAD)
    north, south = sorted(rows(lead.get("/fleet").text), key=lambda row: row[1])
    assert north == ("good", "North clinic", "All is well there. Nothing to do.")
    assert south[0] == "unknown" and "outpost hub enrol south" in south[2]
    hub.says("south", msgspec.structs.replace(STATUS, notices=("worker",), drift="changed"))
    first, second = rows(lead.get("/fleet").text)
    assert first[:2] == ("act", "عيادة الجنوب") and "The AI is stopped" in first[2] and second == north
    told = lead.get("/fleet/south").text
    assert "Its films have changed." in told and "demonstrator 1.0" in told and "ab" * 8 in told
    assert lead.get("/fleet/nowhere").status_code == 404
    assert hub.client("Reader").get("/fleet").status_code == 403


WRONG = {
    "nothing": ({}, ""),
    "disk": ({"disk_free_percent": 14}, "look"),
    "disk 4": ({"disk_free_percent": 4}, "act"),
    "clock": ({"clock": "behind"}, "act"),
    "hot": ({"degrees": 90}, "act"),
    "fallen back": ({"notices": ("update",)}, "look"),
    "link": ({"unsent_hours": 50}, "look"),
    "never accepted": ({"accepted": False}, "look"),
    "model changed": ({"accepted": False, "before": True}, "look"),
}


@pytest.mark.parametrize("what", WRONG)
def test_what_is_wrong_has_its_level_and_something_to_do(hub: Hub, what: str) -> None:
    changed, level = WRONG[what]
    site = reading.SITES[0]
    contact = Contact(site=site, heard_at=1e6, status=msgspec.structs.replace(STATUS, **changed), status_at=1e6)
    with hub.app.test_request_context():
        told = fleet.word(contact, 1e6)
        assert told.level == (level or "good")
        assert told.action != "Nothing to do." or not level


def test_a_silent_box_stands_out_the_longer_the_more(hub: Hub) -> None:
    contact = Contact(site=reading.SITES[0], heard_at=0.0, status=STATUS, status_at=0.0)
    with hub.app.test_request_context():
        levels = [fleet.word(contact, hours * 3600).level for hours in (23, 25, 24 * 8)]
        assert levels == ["good", "look", "act"]
        assert "8 days" in fleet.word(contact, 24 * 8 * 3600).sentence


def test_many_clinics_are_shown_a_hundred_at_a_time(hub: Hub) -> None:
    with hub.held.store.transaction(PROGRAMME) as db:
        for number in range(150):
            sites.add(db, msgspec.structs.replace(reading.SITES[0], name=f"c{number}", title=f"Clinic {number}"))
    lead = hub.client("Lead", Role.LEAD)
    first = lead.get("/fleet").text
    assert len(rows(first)) == 100 and "Of 152 boxes" in first
    (rest,) = re.findall(r'href="(/fleet\?from=\d+)"', first)
    assert len(rows(lead.get(rest).text)) == 52 and not re.findall(r'href="(/fleet\?from=\d+)"', lead.get(rest).text)
    assert len(rows(lead.get("/fleet?from=x").text)) == 100


def test_a_box_says_how_it_stands_at_once_where_it_presses_and_else_hourly(tmp_path: Path) -> None:
    config, at = BoxConfig(state=str(tmp_path), hub=HubSettings(url="https://hub.example")), now()
    with closing(open_store(tmp_path)) as store:

        def told(after: timedelta) -> list[Status]:
            with transaction(store):
                outside.tell_status(store, config, at + after)
                store.execute("UPDATE sync_event SET state = 'sent'")
            rows = store.execute("SELECT body FROM sync_event ORDER BY id")
            return [msgspec.json.decode(row["body"], type=Status) for row in rows]

        (first,) = told(timedelta(0))
        assert first.model == "cxr-lite0 0.1.0" and not first.accepted and first.device_uid.startswith("2.25.")
        assert len(first.bundle) == 64 and first.disk_free_percent is not None and first.unsent == 0
        store.execute("INSERT INTO sync (one, epoch) VALUES (1, '') ON CONFLICT DO NOTHING")
        assert len(told(HOUR / 2)) == 1, "nothing has changed"
        with transaction(store):
            notices.post(store, "drift", DRIFT, at)
        assert told(HOUR / 2)[-1].notices == ("drift",), "at once"
        with transaction(store):
            acceptances.sign(store, first.device_uid, "balanced", "Amina", at)
        assert told(HOUR / 2)[-1].accepted and len(told(2 * HOUR)) == 3, "the same is not said twice"
