"""The table of test films: each is made here, sent through the box's own DICOM port, and judged by what comes out.

They are kept apart from the films of patients: no list, count, trial or way out can ever take one for a patient's.
"""

from __future__ import annotations

import sqlite3
from dataclasses import dataclass
from datetime import datetime, timedelta

from edge.records import Sha256

TABLE = """
CREATE TABLE phantom (
    id INTEGER PRIMARY KEY,
    bundle TEXT NOT NULL,
    film INTEGER NOT NULL,
    sop_instance_uid TEXT NOT NULL,
    data_set TEXT NOT NULL,
    file BLOB,
    made_at TEXT NOT NULL,
    sha256 TEXT,
    attempts INTEGER NOT NULL DEFAULT 0,
    leased_until TEXT,
    judged_at TEXT,
    off REAL,
    why TEXT
) STRICT;
"""


@dataclass(frozen=True)
class Phantom:
    """A test film on its way."""

    id: int
    film: int
    """Which of the bundle's golden films it is."""
    sop_instance_uid: str
    made_at: datetime
    sha256: Sha256 | None
    """Of the file as it came in by the port; None before that."""
    attempts: int


@dataclass(frozen=True)
class Verdict:
    """What came of the latest test with each film of a bundle."""

    at: datetime
    off: float | None
    """How far the farthest probability lay from the golden one; None where a film had none."""
    why: str
    """What was wrong, in English, for the technician; empty where nothing was."""


def add(
    connection: sqlite3.Connection,
    bundle: str,
    film: int,
    sop_instance_uid: str,
    data_set: Sha256,
    file: bytes,
    at: datetime,
) -> None:
    """Expect a film whose data set has that hash, inside the caller's transaction; it is to be sent."""
    connection.execute(
        "INSERT INTO phantom (bundle, film, sop_instance_uid, data_set, file, made_at) VALUES (?, ?, ?, ?, ?, ?)",
        (bundle, film, sop_instance_uid, data_set, file, at.isoformat()),
    )


def give_up(connection: sqlite3.Connection) -> None:
    """Expect none of those any more that nobody has sent, inside the caller's transaction: newer ones are made."""
    connection.execute("DELETE FROM phantom WHERE sha256 IS NULL")


def to_send(connection: sqlite3.Connection) -> list[tuple[str, bytes]]:
    """The films that did not come in yet: SOP Instance UID and file."""
    rows = connection.execute("SELECT sop_instance_uid, file FROM phantom WHERE sha256 IS NULL ORDER BY id")
    return [(row["sop_instance_uid"], row["file"]) for row in rows]


def expected(connection: sqlite3.Connection) -> set[str]:
    """The hashes of the data sets that have not come in yet."""
    return {row["data_set"] for row in connection.execute("SELECT data_set FROM phantom WHERE sha256 IS NULL")}


def arrive(connection: sqlite3.Connection, data_set: str, sha256: Sha256) -> None:
    """Note that an expected film has come in, inside the caller's transaction; the copy to send is needed no more."""
    connection.execute(
        "UPDATE phantom SET sha256 = ?, file = NULL WHERE data_set = ? AND sha256 IS NULL", (sha256, data_set)
    )


def claim(connection: sqlite3.Connection, bundle: str, at: datetime, seconds: float) -> Phantom | None:
    """Lease the next film of this bundle that came in and is not judged; see `queue.claim`."""
    row = connection.execute(
        "UPDATE phantom SET leased_until = :until, attempts = attempts + 1 WHERE id = ("
        " SELECT id FROM phantom WHERE bundle = :bundle AND sha256 IS NOT NULL AND judged_at IS NULL ORDER BY id LIMIT 1)"
        " RETURNING *",
        {"bundle": bundle, "until": (at + timedelta(seconds=seconds)).isoformat()},
    ).fetchone()
    return None if row is None else _read(row)


def overdue(connection: sqlite3.Connection, at: datetime) -> bool:
    """Whether a lease has run out: its worker hangs."""
    row = connection.execute(
        "SELECT EXISTS (SELECT 1 FROM phantom WHERE judged_at IS NULL AND leased_until <= ?)", (at.isoformat(),)
    ).fetchone()
    return bool(row[0])


def release(connection: sqlite3.Connection) -> None:
    """Give back what a worker that is known to be dead had leased, inside the caller's transaction."""
    connection.execute("UPDATE phantom SET leased_until = NULL WHERE judged_at IS NULL")


def judge(connection: sqlite3.Connection, phantom: Phantom, off: float | None, why: str, at: datetime) -> None:
    """Note what came of a film, inside the caller's transaction."""
    connection.execute(
        "UPDATE phantom SET judged_at = ?, off = ?, why = ?, leased_until = NULL WHERE id = ?",
        (at.isoformat(), off, why, phantom.id),
    )


def newest(connection: sqlite3.Connection, bundle: str) -> Phantom | None:
    """The film that was made last for this bundle, or None before the first."""
    row = connection.execute("SELECT * FROM phantom WHERE bundle = ? ORDER BY id DESC LIMIT 1", (bundle,)).fetchone()
    return None if row is None else _read(row)


def verdict(connection: sqlite3.Connection, bundle: str) -> Verdict | None:
    """What came of the latest test with each film: the worst of it. None before the first was judged."""
    rows = connection.execute(
        "SELECT judged_at, off, why FROM phantom WHERE id IN ("
        " SELECT MAX(id) FROM phantom WHERE bundle = ? AND judged_at IS NOT NULL GROUP BY film)"
        " ORDER BY why <> '' DESC, off DESC",
        (bundle,),
    ).fetchall()
    if not rows:
        return None
    at = max(datetime.fromisoformat(row["judged_at"]) for row in rows)
    return Verdict(at, rows[0]["off"], rows[0]["why"])


def _read(row: sqlite3.Row) -> Phantom:
    return Phantom(
        id=row["id"],
        film=row["film"],
        sop_instance_uid=row["sop_instance_uid"],
        made_at=datetime.fromisoformat(row["made_at"]),
        sha256=None if row["sha256"] is None else Sha256(row["sha256"]),
        attempts=row["attempts"],
    )
