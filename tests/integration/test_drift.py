"""Drift through a real box: films are counted in the transaction of their result, days are the clinic's, an alarm is told."""

from __future__ import annotations

import re
from contextlib import closing
from datetime import UTC, date, datetime, timedelta
from pathlib import Path

import pytest
from click.testing import CliRunner

from edge import pins, surveillance
from edge.cli import main
from edge.config import Config, Intake, Site, save
from edge.intake import Intake as Door
from edge.records import Role
from edge.samples import film
from edge.state import accounts, audit, drift, notices, results
from edge.state.arrivals import FOR_ACCEPTANCE
from edge.state.audit import Event
from edge.state.store import BUILT, now, open_store, transaction
from edge.validity import packet
from edge.validity.verdict import Cause
from edge.worker import Worker
from models import phantom
from tests.people import sign_in
from tests.property.test_watch import day, usual
from web import clinic

DEVICE = "2.25.1"


@pytest.fixture
def config(state: Path) -> Config:
    return Config(state=str(state), site=Site(timezone="Pacific/Kiritimati"), intake=Intake(disk_floor_mib=0))


def outpost(config: Config, *arguments: str, status: int = 0) -> str:
    path = Path(config.state) / "test.toml"
    save(config, path)
    ran = CliRunner().invoke(main, ["--config", str(path), *arguments], catch_exceptions=False)
    assert ran.exit_code == status, ran.output
    return ran.output


def test_films_are_counted_with_their_results_and_those_for_acceptance_are_not(config: Config, tmp_path: Path) -> None:
    doors = Door(config)
    with closing(doors.store):
        for number, source in enumerate(["folder", "folder", FOR_ACCEPTANCE]):
            path = tmp_path / f"{number}.dcm"
            film(phantom.chest(number, size=(300, 250)), f"F^{number}", "041Y", "F").save_as(
                path, enforce_file_format=True
            )
            doors.accept_copy(path, source)
    with closing(open_store(Path(config.state))) as store:
        worker = Worker(config, store)
        while worker.step():
            pass
        (one,) = surveillance.days(store, packet.edges(worker.reader.device_uid))
        assert packet.count(one.whole, "films") == packet.moments(one.whole, "noise")[0] == 2
        assert one.day == (now() + timedelta(hours=14)).date(), "the clinic's own day: UTC+14"
        assert packet.decode(packet.encode(one)) == one
        with transaction(store):
            for number in (1, 2, 3):
                surveillance.count_read(store, config, results.film(store, number), overridden=number > 1)
        (one,) = surveillance.days(store, one.edges)
        assert (packet.count(one.whole, "read"), packet.count(one.whole, "overridden")) == (2, 1)
    assert "2 films" in outpost(config, "drift", "packet", one.day.isoformat())


def fill(config: Config, days: int, **moved: float) -> None:
    """Put days into a box as if its films had come; the last has not ended."""
    with closing(open_store(Path(config.state))) as store, transaction(store):
        known = len(drift.days(store, packet.edges(DEVICE)))
        for number in range(known, known + days):
            one = day(number, seed=3, **moved)  # type: ignore[arg-type]
            tallies = {(key.device, key.view, key.ages): tally for key, tally in one.strata.items()}
            drift.add(store, one.day, packet.edges(DEVICE), tallies)


def test_an_alarm_is_in_the_ledger_and_on_the_screen_until_a_lead_settles_it(config: Config) -> None:
    assert "Nothing to do" in outpost(config, "drift", "status")
    fill(config, 10)
    with closing(open_store(Path(config.state))) as store:
        assert surveillance.look(store, Config(), DEVICE, now())
        assert not surveillance.look(store, Config(), DEVICE, now()), "no day has ended since"
    assert "Too few to say: 9 days with 270 films" in outpost(config, "drift", "status"), "the tenth has not ended"
    fill(config, 35)
    fill(config, 4, noise=2.5, sharpness=1.5)
    with closing(open_store(Path(config.state))) as store:
        assert surveillance.look(store, Config(), DEVICE, now())
        found = surveillance.current(store)
        assert found is not None
        assert found.alarm is not None
        assert found.alarm.cause is Cause.DETECTOR
        assert len(notices.current(store)) == 1
        record = audit.latest(store, Event.DRIFT_FOUND)
        assert record is not None
        assert record.detail["cause"] == "detector"
        with transaction(store):
            accounts.add(store, "Lindiwe", Role.LEAD, "en", pins.hashed("385027"), now())
    assert "another X-ray unit" in outpost(config, "drift", "status")
    client = clinic.create(config).test_client()
    sign_in(client, Path(config.state), "Tariq", Role.TECHNICIAN)
    assert "another X-ray unit" in client.get("/status").text
    assert "another X-ray unit" in client.get("/drift").text
    assert "begins anew" in outpost(config, "drift", "restart", "--by", "Lindiwe", "--pin", "385027")
    with closing(open_store(Path(config.state))) as store:
        assert notices.current(store) == []
        assert surveillance.current(store) is None
        assert audit.latest(store, Event.DRIFT_ENDED) is not None
        assert surveillance.days(store, packet.edges(DEVICE)) == []


def test_another_cause_of_an_alarm_that_stands_is_written_down_too(config: Config) -> None:
    told = []
    fill(config, 45)
    with closing(open_store(Path(config.state))) as store:
        for days, moved in (
            (4, {"logit": 1.2}),
            (1, {"logit": 1.2}),
            (6, {"logit": 1.2, "noise": 2.5, "sharpness": 1.0}),
        ):
            fill(config, days, **moved)
            assert surveillance.look(store, Config(), DEVICE, now())
            told.append([one.detail["cause"] for one in audit.records(store) if one.event == Event.DRIFT_FOUND])
    assert told == [["prevalence"], ["prevalence"], ["prevalence", "detector"]]


def test_a_clock_that_was_reset_makes_no_day_of_long_ago(config: Config) -> None:
    with closing(open_store(Path(config.state))) as store:
        edges, at = packet.edges(DEVICE), datetime(1970, 1, 1, tzinfo=UTC)
        assert surveillance._day(store, config, edges, at) == BUILT.date()
        fill(config, 2)
        assert surveillance._day(store, config, edges, at) == date(2026, 1, 2)


def test_a_clock_that_jumped_ahead_and_back_invents_no_days(config: Config) -> None:
    with closing(open_store(Path(config.state))) as store:
        edges = packet.edges(DEVICE)

        def film_days(*numbers: int) -> None:
            with transaction(store):
                for number in numbers:
                    tallies = {(key.device, key.view, key.ages): one for key, one in usual(number, 3).strata.items()}
                    drift.add(store, usual(number, 3).day, edges, tallies)

        came = [*range(33), 500, 33, 34, 35]
        for known in (33, 36):
            film_days(*came[len(drift.days(store, edges)) : known + 1])
            assert surveillance.look(store, Config(), DEVICE, now())
            found = surveillance.current(store)
            assert found is not None
            assert (found.days, found.films, found.alarm) == (known, 30 * known, None)
            assert found.latest == tuple(usual(number, 3).day for number in came[:known])


def test_a_change_is_found_in_days_and_the_old_ways_need_longer(config: Config) -> None:
    """As the command tells it; by clinics with 180 days of history, their rivals at the same false alarms."""
    told = outpost(
        config,
        *[
            "drift",
            "simulate",
            "--films",
            "30",
            "--effect",
            "0.2",
            "--shift",
            "0.5",
            "--shift",
            "1",
            "--sites",
            "20",
            "--years",
            "3",
            "--seed",
            "7",
        ],
    )
    rows = re.findall(r"^30, 0\.2 sd +(Outpost|\w+ 30 days) +([\d.]+) \(([\d.]+)\) +([\d.]+) \(([\d.]+)\)$", told, re.M)
    found = {name: [float(number) for number in numbers] for name, *numbers in rows}
    half, _, whole, _ = found.pop("Outpost")
    assert half <= 6 and whole <= 3
    assert set(found) == {"KS 30 days", "PSI 30 days", "MMD 30 days"}
    assert all(one[0] > half and one[2] > whole for one in found.values())
    alone, pooled = (float(days) for days in re.findall(r"sensitivity 0\.90 to 0\.75 found in ([\d.]+) \(", told))
    assert pooled < 20 < alone
    years = re.search(r"3 years without a change: (\d+) alarms, ([\d.]+) a year", told)
    assert years is not None and float(years[2]) == pytest.approx(int(years[1]) / 3, abs=0.005)
