"""How the box itself is: readings of disk, clock, power and warmth, as values that a page or a command puts into words."""

from __future__ import annotations

import hashlib
import sqlite3
from dataclasses import dataclass
from datetime import datetime, timedelta
from enum import StrEnum
from pathlib import Path

from edge import passport, phantom
from edge.config import Config
from edge.errors import Tampered
from edge.records import DISK_KEY, DiskKey, Update
from edge.state import arrivals, audit, phantoms, trust, updates
from edge.state.audit import Event
from edge.state.objects import Objects

HOT = 85.0
"""Degrees Celsius at which small boards begin to slow themselves down."""
FILM_MIB = 30
"""What a film takes on disk, its pictures included: a large one, so that the estimate is on the safe side."""
LOW_FILMS = 200
"""Room for fewer films than this is said before it runs out."""
BACKUP_DAYS = 7
SYSTEM = Path("/sys")
SYNCHRONIZED = Path("/run/systemd/timesync/synchronized")


class Level(StrEnum):
    """Whether somebody has to do something."""

    GOOD = "good"
    UNKNOWN = "unknown"
    """Nobody can tell from here."""
    LOOK = "look"
    """Soon."""
    ACT = "act"
    """Now."""


@dataclass(frozen=True)
class Reading:
    """One thing about the box; `edge.health` measures it, whoever shows it finds the words by subject and state."""

    subject: str
    state: str
    level: Level
    values: dict[str, float | int | str | datetime]


def disk(config: Config) -> Reading:
    """Room for films on the box's disk."""
    free = Objects(Path(config.state)).free_mib()
    films = max(0, free - config.intake.disk_floor_mib) // FILM_MIB
    values: dict[str, float | int | str | datetime] = {"free_gib": free / 1024, "films": films}
    if free < config.intake.disk_floor_mib:
        return Reading("disk", "full", Level.ACT, values)
    if films < LOW_FILMS:
        return Reading("disk", "low", Level.LOOK, values)
    return Reading("disk", "good", Level.GOOD, values)


def encryption(note: Path = DISK_KEY) -> Reading:
    """Whether the box's disk is encrypted, and whom that keeps out."""
    held = _text(note)
    if held in set(DiskKey):
        return Reading("encryption", held, Level.GOOD, {})
    return Reading("encryption", "unknown", Level.UNKNOWN, {})


def clock(store: sqlite3.Connection, at: datetime, synchronized: Path = SYNCHRONIZED) -> Reading:
    """Whether the clock can be right: never before what this box has already written."""
    written = max(filter(None, (arrivals.newest(store), audit.newest(store))), default=None)
    values: dict[str, float | int | str | datetime] = {"now": at}
    if written is not None and at < written - timedelta(minutes=1):
        return Reading("clock", "behind", Level.ACT, {**values, "written": written})
    if synchronized.exists():
        return Reading("clock", "synchronized", Level.GOOD, values)
    return Reading("clock", "alone", Level.UNKNOWN, values)


def power(system: Path = SYSTEM) -> Reading:
    """Whether the box has mains, and how full its battery is, where the board can tell."""
    supplies = {path.name: path for path in (system / "class/power_supply").glob("*")}
    kinds = {name: _text(path / "type") for name, path in supplies.items()}
    if any(_text(path / "in0_lcrit_alarm") == "1" for path in (system / "class/hwmon").glob("*")):
        return Reading("power", "weak", Level.ACT, {})  # a Raspberry Pi's own under-voltage sensor
    batteries = [
        int(level)
        for name, path in supplies.items()
        if kinds[name] in {"Battery", "UPS"} and (level := _text(path / "capacity")).isdigit()
    ]
    mains = [_text(path / "online") == "1" for name, path in supplies.items() if kinds[name] in {"Mains", "USB"}]
    if batteries and mains and not any(mains):
        level = Level.ACT if min(batteries) < 20 else Level.LOOK
        return Reading("power", "battery", level, {"percent": min(batteries)})
    if mains and any(mains):
        return Reading("power", "mains", Level.GOOD, {})
    return Reading("power", "unknown", Level.UNKNOWN, {})


def warmth(system: Path = SYSTEM) -> Reading:
    """How warm the box is, in degrees Celsius at its hottest sensor."""
    sensors = [_text(path / "temp") for path in (system / "class/thermal").glob("thermal_zone*")]
    degrees = [int(value) / 1000 for value in sensors if value.lstrip("-").isdigit()]
    if not degrees:
        return Reading("warmth", "unknown", Level.UNKNOWN, {})
    hottest = max(degrees)
    values: dict[str, float | int | str | datetime] = {"degrees": hottest}
    return (
        Reading("warmth", "hot", Level.ACT, values) if hottest >= HOT else Reading("warmth", "good", Level.GOOD, values)
    )


def certificate(state: Path, at: datetime) -> Reading:
    """Whether tablets can trust the box at this time."""
    held = trust.read(state)
    if held is None:
        return Reading("certificate", "none", Level.UNKNOWN, {})
    end, last = held.certificate.not_valid_after_utc, held.authority.not_valid_after_utc
    values: dict[str, float | int | str | datetime] = {"until": end, "now": at}
    if not held.believes(at):
        return Reading("certificate", "clock", Level.ACT, values)
    if last - at < trust.LEAF:
        return Reading("certificate", "ending", Level.LOOK, {"until": last})
    return Reading("certificate", "good", Level.GOOD, values)


def daily(config: Config, store: sqlite3.Connection, at: datetime) -> Reading:
    """Whether the daily test films come out of the whole way as they should."""
    try:
        manifest = (passport.folder(config) / "manifest.toml").read_bytes()
    except (OSError, Tampered):
        return Reading("daily", "none", Level.UNKNOWN, {})
    digest = hashlib.sha256(manifest).hexdigest()
    last, found = phantoms.newest(store, digest), phantoms.verdict(store, digest)
    if found is not None and found.why:
        return Reading("daily", "failed", Level.ACT, {"at": found.at})
    if found is not None and at - found.at <= phantom.LATE:
        return Reading("daily", "passed", Level.GOOD, {"at": found.at})
    if last is None or at - last.made_at <= phantom.LATE:
        return Reading("daily", "none", Level.UNKNOWN, {})
    return Reading("daily", "late", Level.LOOK, {"at": last.made_at if found is None else found.at})


def starts(store: sqlite3.Connection) -> Reading:
    """Whether the box was stopped properly before it started last."""
    last = audit.latest(store, Event.STARTED)
    if last is None:
        return Reading("start", "first", Level.GOOD, {})
    before = audit.latest(store, Event.STARTED, before=last.id)
    stopped = audit.latest(store, Event.STOPPED, before=last.id)
    values: dict[str, float | int | str | datetime] = {"at": last.at}
    if before is not None and (stopped is None or stopped.id < before.id):
        return Reading("start", "cut", Level.LOOK, values)
    return Reading("start", "proper", Level.GOOD, values)


def backup(store: sqlite3.Connection, at: datetime) -> Reading:
    """When the box was last backed up."""
    last = audit.latest(store, Event.BACKED_UP)
    if last is None:
        return Reading("backup", "never", Level.LOOK, {})
    level = Level.GOOD if at - last.at < timedelta(days=BACKUP_DAYS) else Level.LOOK
    return Reading("backup", "made" if level is Level.GOOD else "old", level, {"at": last.at})


def system(state: Path) -> Reading:
    """What came of the last update of the system."""
    record = updates.read(state)
    if record.state is None:
        return Reading("system", "none", Level.UNKNOWN, {})
    level = Level.GOOD if record.state in (Update.GOOD, Update.BEGUN) else Level.LOOK
    return Reading("system", record.state, level, {"version": record.version})


def model(state: Path) -> list[Reading]:
    """What came of the last update of the model, if there was one."""
    record = updates.read(state)
    if record.model is None:
        return []
    level = Level.GOOD if record.model in (Update.GOOD, Update.BEGUN) else Level.LOOK
    return [Reading("model_update", record.model, level, {"version": record.model_version})]


def _text(path: Path) -> str:
    try:
        return path.read_text(encoding="ascii").strip()
    except (OSError, UnicodeDecodeError):  # not every board has every sensor, and some cannot be read at times
        return ""
