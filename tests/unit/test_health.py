"""What the box can tell of its own state."""

from __future__ import annotations

from contextlib import closing
from datetime import timedelta
from pathlib import Path

import pytest

from edge import health
from edge.config import Config, Intake
from edge.health import Level
from edge.state import arrivals, audit
from edge.state.audit import Event
from edge.state.store import now, open_store, transaction


def test_disk_good_and_full(state: Path) -> None:
    assert health.disk(Config(state=str(state))).level in {Level.GOOD, Level.LOOK}
    full = health.disk(Config(state=str(state), intake=Intake(disk_floor_mib=2**40)))
    assert (full.state, full.level, full.values["films"]) == ("full", Level.ACT, 0)


def test_a_clock_before_what_was_written_is_wrong(state: Path) -> None:
    synchronized = state / "synchronized"
    with closing(open_store(state)) as store:
        assert health.clock(store, now(), synchronized).state == "alone"
        synchronized.touch()
        assert health.clock(store, now(), synchronized).state == "synchronized"
        with transaction(store):
            arrivals.add(store, "1.2", "a" * 64, "X", now())  # type: ignore[arg-type]
        assert health.clock(store, now() - timedelta(days=1), synchronized).state == "behind"


SUPPLIES = [
    ({}, ("unknown", {})),
    ({"AC/type": "Mains", "AC/online": "1"}, ("mains", {})),
    (
        {"AC/type": "Mains", "AC/online": "0", "BAT0/type": "Battery", "BAT0/capacity": "63"},
        ("battery", {"percent": 63}),
    ),
    ({"AC/type": "Mains", "AC/online": "1", "BAT0/type": "Battery", "BAT0/capacity": "9"}, ("mains", {})),
]


@pytest.mark.parametrize(("files", "told"), SUPPLIES)
def test_power_as_the_kernel_tells_it(tmp_path: Path, files: dict[str, str], told: tuple[str, dict[str, int]]) -> None:
    for name, text in files.items():
        path = tmp_path / "class/power_supply" / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text + "\n")
    reading = health.power(tmp_path)
    assert (reading.state, reading.values) == told


def test_a_weak_supply_is_told_before_all_else(tmp_path: Path) -> None:
    sensor = tmp_path / "class/hwmon/hwmon1"
    sensor.mkdir(parents=True)
    (sensor / "in0_lcrit_alarm").write_text("1\n")
    assert health.power(tmp_path).state == "weak"


def test_the_hottest_sensor_counts(tmp_path: Path) -> None:
    assert health.warmth(tmp_path).state == "unknown"
    for zone, value in (("0", "41000"), ("1", "86500"), ("2", "nonsense")):
        (tmp_path / f"class/thermal/thermal_zone{zone}").mkdir(parents=True)
        (tmp_path / f"class/thermal/thermal_zone{zone}/temp").write_text(value)
    reading = health.warmth(tmp_path)
    assert (reading.state, reading.values["degrees"]) == ("hot", 86.5)


def test_a_start_without_a_stop_before_it_was_a_power_cut(state: Path) -> None:
    with closing(open_store(state)) as store:

        def happens(*events: Event) -> str:
            for event in events:
                with transaction(store):
                    audit.append(store, event, "box", now())
            return health.starts(store).state

        assert happens() == "first"
        assert happens(Event.STARTED) == "proper"
        assert happens(Event.STOPPED, Event.STARTED) == "proper"
        assert happens(Event.STARTED) == "cut"
        assert happens(Event.STOPPED, Event.STARTED) == "proper"


def test_an_old_backup_is_asked_for(state: Path) -> None:
    with closing(open_store(state)) as store:
        assert health.backup(store, now()).state == "never"
        with transaction(store):
            audit.append(store, Event.BACKED_UP, "technician", now())
        assert health.backup(store, now()).state == "made"
        assert health.backup(store, now() + timedelta(days=8)).state == "old"
