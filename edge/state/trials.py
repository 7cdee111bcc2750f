"""The tables of trials: what each is about, its seed, and which film is in which arm or was left out, and why.

The seed is told to nobody until the trial has ended; until then the ledger has its hash.
"""

from __future__ import annotations

import sqlite3
from collections.abc import Collection
from dataclasses import dataclass, field
from datetime import date, datetime

import msgspec

from edge.records import Arm, Protocol

TABLE = """
CREATE TABLE trial (
    id INTEGER PRIMARY KEY,
    protocol TEXT NOT NULL,
    seed BLOB NOT NULL,
    registered_by TEXT NOT NULL,
    registered_at TEXT NOT NULL,
    ended_by TEXT,
    ended_at TEXT
) STRICT;
CREATE UNIQUE INDEX trial_running ON trial (ended_at IS NULL) WHERE ended_at IS NULL;
CREATE TABLE allocation (
    arrival_id INTEGER PRIMARY KEY REFERENCES arrival,
    trial_id INTEGER NOT NULL REFERENCES trial,
    day TEXT NOT NULL,
    place INTEGER,
    arm TEXT CHECK (arm IN ('ai_ranked', 'arrival_order')),
    excluded TEXT NOT NULL,
    CHECK ((arm IS NULL) = (place IS NULL) AND (arm IS NULL) = (excluded <> ''))
) STRICT;
CREATE INDEX allocation_of_trial ON allocation (trial_id, day);
"""


@dataclass(frozen=True)
class Trial:
    """A trial that was registered here."""

    id: int
    protocol: Protocol
    seed: bytes = field(repr=False)
    registered_by: str
    registered_at: datetime
    ended_by: str | None
    ended_at: datetime | None


@dataclass(frozen=True)
class Allocation:
    """A film that came during a trial."""

    arrival_id: int
    day: date
    """On which it came, by the clinic's clock."""
    place: int | None
    """Of its unit in the sequence, from 0; None where it was left out."""
    arm: Arm | None
    excluded: str
    """Why it was left out; empty where it was not."""


def register(connection: sqlite3.Connection, protocol: Protocol, seed: bytes, by: str, at: datetime) -> Trial:
    """Begin a trial inside the caller's transaction; while another one runs that is an error of the database."""
    row = connection.execute(
        "INSERT INTO trial (protocol, seed, registered_by, registered_at) VALUES (?, ?, ?, ?) RETURNING *",
        (msgspec.json.encode(protocol).decode(), seed, by, at.isoformat()),
    ).fetchone()
    return _trial(row)


def end(connection: sqlite3.Connection, trial: Trial, by: str, at: datetime) -> None:
    """Note that a trial is over, inside the caller's transaction."""
    connection.execute(
        "UPDATE trial SET ended_by = ?, ended_at = ? WHERE id = ? AND ended_at IS NULL", (by, at.isoformat(), trial.id)
    )


def running(connection: sqlite3.Connection) -> Trial | None:
    """The trial that has not ended, or None."""
    row = connection.execute("SELECT * FROM trial WHERE ended_at IS NULL").fetchone()
    return None if row is None else _trial(row)


def latest(connection: sqlite3.Connection) -> Trial | None:
    """The trial that was registered last, or None."""
    row = connection.execute("SELECT * FROM trial ORDER BY id DESC LIMIT 1").fetchone()
    return None if row is None else _trial(row)


def units(connection: sqlite3.Connection, trial: Trial) -> int:
    """How many units were given to an arm; the next one has this place."""
    row = connection.execute("SELECT COALESCE(MAX(place) + 1, 0) FROM allocation WHERE trial_id = ?", (trial.id,))
    return int(row.fetchone()[0])


def place_of(connection: sqlite3.Connection, trial: Trial, day: date) -> int | None:
    """The place of a day in the sequence, or None where no film of it was given to an arm yet."""
    row = connection.execute(
        "SELECT place FROM allocation WHERE trial_id = ? AND day = ? AND place IS NOT NULL LIMIT 1",
        (trial.id, day.isoformat()),
    ).fetchone()
    return None if row is None else int(row["place"])


def allocate(
    connection: sqlite3.Connection,
    trial: Trial,
    arrival_id: int,
    day: date,
    place: int | None,
    arm: Arm | None,
    excluded: str = "",
) -> None:
    """Give a film to an arm, or leave it out, inside the caller's transaction; once."""
    connection.execute(
        "INSERT INTO allocation (arrival_id, trial_id, day, place, arm, excluded) VALUES (?, ?, ?, ?, ?, ?)",
        (arrival_id, trial.id, day.isoformat(), place, arm, excluded),
    )


def arms(connection: sqlite3.Connection, trial: Trial, arrival_ids: Collection[int]) -> dict[int, Arm]:
    """Of these films, those that are in an arm of the trial, each with its arm."""
    rows = connection.execute(
        "SELECT arrival_id, arm FROM allocation WHERE trial_id = ? AND arm IS NOT NULL"
        " AND arrival_id IN (SELECT value FROM json_each(?))",
        (trial.id, msgspec.json.encode(list(arrival_ids)).decode()),
    )
    return {row["arrival_id"]: Arm(row["arm"]) for row in rows}


def allocations(connection: sqlite3.Connection, trial: Trial) -> list[Allocation]:
    """Every film that came during a trial, in order of arrival."""
    rows = connection.execute("SELECT * FROM allocation WHERE trial_id = ? ORDER BY arrival_id", (trial.id,))
    return [
        Allocation(
            row["arrival_id"],
            date.fromisoformat(row["day"]),
            row["place"],
            None if row["arm"] is None else Arm(row["arm"]),
            row["excluded"],
        )
        for row in rows
    ]


def _trial(row: sqlite3.Row) -> Trial:
    return Trial(
        id=row["id"],
        protocol=msgspec.json.decode(row["protocol"], type=Protocol),
        seed=row["seed"],
        registered_by=row["registered_by"],
        registered_at=datetime.fromisoformat(row["registered_at"]),
        ended_by=row["ended_by"],
        ended_at=None if row["ended_at"] is None else datetime.fromisoformat(row["ended_at"]),
    )
