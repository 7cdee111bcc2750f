"""The fleet page: every clinic's box in one sentence, the worst first; and how often a box says how it stands."""

from __future__ import annotations

import re
from contextlib import closing
from datetime import timedelta
from pathlib import Path
from typing import Any

import msgspec
import pytest
from click.testing import CliRunner

from edge import outside
from edge.cards import Applied, Order, Status, What
from edge.cli import main
from edge.config import Config as BoxConfig
from edge.config import Hub as HubSettings
from edge.errors import Misconfigured
from edge.state import acceptances, notices
from edge.state.store import now, open_store, transaction
from edge.words import DRIFT
from models.bundle import SHIPPED, load, unpack
from tests import bundles as signed
from tests import reading
from tests.reading import PROGRAMME, STATUS, Hub
from web.hub import answers, fleet, ledger, rollouts, sites
from web.hub.accounts import Role
from web.hub.config import Config
from web.hub.records import Contact, Site
from web.hub.store import open_store as open_hub_store

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
    told = lead.get("/fleet/box/south").text
    assert "Its films have changed." in told and "demonstrator 1.0" in told and "ab" * 8 in told
    assert lead.get("/fleet/box/nowhere").status_code == 404
    assert hub.client("Reader").get("/fleet").status_code == 403


def test_a_clinic_that_is_called_like_a_page_has_its_own_all_the_same(hub: Hub) -> None:
    names = ("rollout", "box", "fleet", "static", "sync")
    with hub.held.store.transaction(PROGRAMME) as db:
        for name in names:
            sites.add(db, Site(programme=PROGRAMME, name=name, title=f"At {name}", language="en", timezone="UTC"))
    lead = hub.client("Lead", Role.LEAD)
    links = dict(re.findall(r'href="([^"]+)"><bdi>(At \w+)', lead.get("/fleet").text))
    assert sorted(links.values()) == sorted(f"At {name}" for name in names)
    for link, title in links.items():
        assert f"<h1><bdi>{title}</bdi></h1>" in lead.get(link).text


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
        assert "8 days" in fleet.word(contact, 24 * 8 * 3600).sentence.replace("\xa0", " ")


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
        assert (
            first.model == f"cxr-lite0 {load(SHIPPED).manifest.version}"
            and not first.accepted
            and first.device_uid.startswith("2.25.")
        )
        assert len(first.bundle) == 64 and first.disk_free_percent is not None and first.unsent == 0
        store.execute("INSERT INTO sync (one, epoch) VALUES (1, '') ON CONFLICT DO NOTHING")
        assert len(told(HOUR / 2)) == 1, "nothing has changed"
        with transaction(store):
            notices.post(store, "drift", DRIFT, at)
        assert told(HOUR / 2)[-1].notices == ("drift",), "at once"
        with transaction(store):
            acceptances.sign(store, first.device_uid, "balanced", "Amina", at)
        assert told(HOUR / 2)[-1].accepted and len(told(2 * HOUR)) == 3, "the same is not said twice"


# --- roll-outs


def form(page: str, **more: str) -> dict[str, str]:
    """The form of a roll-out as a lead fills it in."""
    (key,) = re.findall(r'name="request" value="([^"]+)"', page)
    return {"request": key, "first": "north", "hours": "0", "days": "7", **more}


def post(lead: Any, path: str, data: dict[str, str]) -> Any:
    return lead.post(f"/fleet/rollout/{path}", data=data, headers={"Sec-Fetch-Site": "same-origin"})


def carried(hub: Hub, site: str, result: str, about: str = "") -> None:
    """A site's box says what came of its latest order."""
    with hub.held.store.reading(PROGRAMME) as db:
        last = answers.since(db, site, sites.epoch(db, site), 0, 100)[-1].body
    assert isinstance(last, Order)
    hub.says(site, Applied(order=last.order, result=result, about=about))


def test_a_lead_begins_a_roll_out_sees_it_halt_and_goes_on_or_ends_it(hub: Hub) -> None:
    hub.says("north", STATUS)
    hub.says("south", STATUS)
    lead = hub.client("Lena", Role.LEAD)
    data = form(
        lead.get("/fleet/rollout").text, what="settings", **{"hub.daily_mib": "20", "hub.metered": "08:00-16:00"}
    )
    assert post(lead, "start", data).status_code == 303 == post(lead, "start", data).status_code, "sent twice it is one"
    page = lead.get("/fleet/rollout").text
    assert "hub.daily_mib = 20, hub.metered = 08:00-16:00" in page and "It goes on: wave 1." in page
    assert post(lead, "start", {**data, "request": "another"}).status_code == 409
    carried(hub, "north", "bad_value", "hub.metered")
    said = lead.get("/fleet").text
    assert "A roll-out has halted." in said and "It has halted at North clinic." in said
    assert "The setting cannot have this value. (hub.metered) <b>Correct the value and order it again.</b>" in said
    (name,) = re.findall(r'name="rollout" value="(\w+)"', page)
    assert post(lead, "act", {"rollout": name, "act": "stop"}).status_code == 409
    assert post(lead, "act", {"rollout": name, "act": "resume"}).status_code == 303
    carried(hub, "north", "done")
    hub.says("north", msgspec.structs.replace(STATUS, films=401))
    assert "wave 2" in lead.get("/fleet/rollout").text, "the page itself moves it on"
    assert post(lead, "act", {"rollout": name, "act": "stop"}).status_code == 303
    assert "A person has halted it." in lead.get("/fleet/rollout").text
    assert post(lead, "act", {"rollout": name, "act": "end"}).status_code == 303
    page = lead.get("/fleet/rollout").text
    assert "ended by a person" in page and page.count("<b><bdi>Lena</bdi></b>") == 4
    told = lead.get("/fleet/box/south").text
    assert "Settings of the link" in told and "Stay as it is" in told and "has not said yet" in told


WRONG_FORMS = {
    "nothing to set": ({"what": "settings"}, 422),
    "no number": ({"what": "settings", "hub.daily_mib": "much"}, 422),
    "no hours": ({"what": "settings", "hub.metered": "all day"}, 422),
    "below zero": ({"what": "settings", "hub.daily_mib": "-5"}, 422),
    "hours": ({"what": "rollback", "hours": "1000"}, 422),
    "days": ({"what": "rollback", "days": ""}, 422),
    "no such model": ({"what": f"model:{'ab' * 32}"}, 400),
    "no order": ({"what": "reboot"}, 400),
    "called off": ({"what": "keep"}, 400),
    "a clinic that was never heard of": ({"what": "rollback", "first": "south"}, 400),
    "without a key": ({"what": "rollback", "request": ""}, 400),
}


def test_what_a_newer_box_says_halts_a_roll_out_in_its_own_word(hub: Hub) -> None:
    hub.says("north", STATUS)
    lead = hub.client("Lena", Role.LEAD)
    post(lead, "start", form(lead.get("/fleet/rollout").text, what="settings", **{"hub.daily_mib": "20"}))
    carried(hub, "north", "not_in_the_rain", "hub.daily_mib")
    for path in ("/fleet", "/fleet/rollout", "/fleet/box/north"):
        page = lead.get(path)
        assert page.status_code == 200 and "not_in_the_rain (hub.daily_mib)" in page.text, path


def test_a_form_that_makes_no_sense_orders_nothing(hub: Hub) -> None:
    hub.says("north", STATUS)
    lead = hub.client("Lena", Role.LEAD)
    for what, (more, status) in WRONG_FORMS.items():
        assert post(lead, "start", form(lead.get("/fleet/rollout").text, **more)).status_code == status, what
    with hub.held.store.reading(PROGRAMME) as db:
        assert rollouts.current(db) is None and ledger.acts(db, 9) == []
    assert (
        post(hub.client("Reader"), "start", form(lead.get("/fleet/rollout").text, what="rollback")).status_code == 403
    )


def test_a_model_comes_to_the_hub_whole_and_signed_or_not_at_all(tmp_path: Path) -> None:
    file = tmp_path / "hub.toml"
    file.write_text(f'state = "{tmp_path / "hub"}"\n')

    def outpost(*arguments: str) -> Any:
        return CliRunner().invoke(main, ["--config", str(file), "hub", *arguments])

    assert outpost("programme", "lakes").exit_code == 0
    for _ in range(2):
        told = outpost("model", str(SHIPPED))
        assert told.exit_code == 0 and f"cxr-lite0 {load(SHIPPED).manifest.version} (" in told.output
    copy = signed.copied(tmp_path / "unsigned")
    (copy / "manifest.sig").unlink()
    assert outpost("model", str(copy)).exit_code == Misconfigured.exit_status
    store = open_hub_store(Config(state=str(tmp_path / "hub")))
    with closing(store), store.reading("lakes") as db:
        (model,) = rollouts.models(db)
    blob = tmp_path / "hub/objects/lakes" / model.sha256[:2] / model.sha256
    unpack(blob, tmp_path / "again")
    assert load(tmp_path / "again").digest == load(SHIPPED).digest == model.bundle
    waits: dict[str, Any] = {"good_seconds": 0.0, "silent_seconds": 1e9, "sha256": model.sha256}
    outpost("enrol", "north")
    store = open_hub_store(Config(state=str(tmp_path / "hub")))
    with closing(store):
        with store.transaction("lakes") as db:
            assert rollouts.start(db, "r", What.MODEL, ["north"], "north", "Lead", 1.0, **waits)
        told = outpost("model", "--remove", model.name)
        assert told.exit_code == 2 and "the open roll-out, north. Nothing" in told.output
        with store.transaction("lakes") as db:
            assert rollouts.act(db, "r", "end", "Lead", 2.0)
        assert outpost("model", "--remove", "other").exit_code == 2 and blob.exists()
        assert outpost("model", "--remove", model.sha256[:12]).exit_code == 0 and not blob.exists()
        with store.reading("lakes") as db:
            assert rollouts.models(db) == [] and rollouts.given(db, "north", 9)[-1][1] == model.name
            assert [one.act for one in ledger.acts(db, 2)] == ["no_model", "ended"]
    assert outpost("model", "--remove", model.name).exit_code == outpost("model").exit_code == 2
    assert outpost("model", str(SHIPPED)).exit_code == 0 and blob.exists(), "it can come again"
