"""The table of films that were accepted."""

from __future__ import annotations

import json
import sqlite3
from datetime import datetime

from edge.records import Arrival, Sha256, Urgency
from edge.state import audit

TABLE = """
CREATE TABLE arrival (
    id INTEGER PRIMARY KEY,
    sop_instance_uid TEXT NOT NULL,
    sha256 TEXT NOT NULL,
    source TEXT NOT NULL,
    received_at TEXT NOT NULL,
    urgency TEXT NOT NULL CHECK (urgency IN ('stat', 'high', 'routine')),
    supplied_age REAL,
    age_supplied_by TEXT,
    age_supplied_at TEXT,
    UNIQUE (sop_instance_uid, sha256)
) STRICT;
"""


def add(
    connection: sqlite3.Connection,
    sop_instance_uid: str,
    sha256: Sha256,
    source: str,
    received_at: datetime,
    urgency: Urgency = Urgency.ROUTINE,
) -> tuple[int, bool]:
    """Add a film inside the caller's transaction; returns its id and whether it is new (these very bytes were not here).

    The same SOP Instance UID with other bytes is kept as a film of its own, and both show a conflict.
    """
    row = connection.execute(
        "INSERT INTO arrival (sop_instance_uid, sha256, source, received_at, urgency) VALUES (?, ?, ?, ?, ?)"
        " ON CONFLICT DO NOTHING RETURNING id",
        (sop_instance_uid, sha256, source, received_at.isoformat(), urgency),
    ).fetchone()
    if row is not None:
        return int(row["id"]), True
    known = connection.execute(
        "SELECT id FROM arrival WHERE sop_instance_uid = ? AND sha256 = ?", (sop_instance_uid, sha256)
    ).fetchone()
    return int(known["id"]), False


FOR_ACCEPTANCE = "acceptance"
"""The source of films that came with readings of elsewhere: they are assessed, and are on no list."""


def of_instance(connection: sqlite3.Connection, sop_instance_uid: str) -> list[int]:
    """The films with that SOP Instance UID; more than one where their content differs."""
    rows = connection.execute(
        "SELECT id FROM arrival WHERE sop_instance_uid = ? AND sop_instance_uid <> '' ORDER BY id", (sop_instance_uid,)
    )
    return [int(row["id"]) for row in rows]


COLUMNS = """
    arrival.id, arrival.sop_instance_uid, arrival.sha256, arrival.source, arrival.received_at, arrival.urgency,
    arrival.supplied_age,
    arrival.sop_instance_uid <> '' AND EXISTS (
        SELECT 1 FROM arrival AS other
        WHERE other.sop_instance_uid = arrival.sop_instance_uid AND other.id <> arrival.id
    ) AS conflict
"""
"""What `read` needs; for any query over `arrival`."""


def get(connection: sqlite3.Connection, arrival_id: int) -> sqlite3.Row:
    """One film's row, `COLUMNS`. Raises KeyError when there is no such film."""
    row = connection.execute(f"SELECT {COLUMNS} FROM arrival WHERE id = ?", (arrival_id,)).fetchone()
    if row is None:
        raise KeyError(arrival_id)
    return row  # type: ignore[no-any-return]


def read(row: sqlite3.Row) -> Arrival:
    """The arrival in a row that holds `COLUMNS`."""
    return Arrival(
        id=row["id"],
        sop_instance_uid=row["sop_instance_uid"],
        sha256=Sha256(row["sha256"]),
        source=row["source"],
        received_at=datetime.fromisoformat(row["received_at"]),
        urgency=Urgency(row["urgency"]),
        conflict=bool(row["conflict"]),
    )


def count(connection: sqlite3.Connection) -> int:
    """How many films of patients have come."""
    row = connection.execute("SELECT COUNT(*) FROM arrival WHERE source <> ?", (FOR_ACCEPTANCE,)).fetchone()
    return int(row[0])


def newest(connection: sqlite3.Connection) -> datetime | None:
    """When the latest film came, or None before the first."""
    at = connection.execute("SELECT MAX(received_at) FROM arrival").fetchone()[0]
    return None if at is None else datetime.fromisoformat(at)


def last_from(connection: sqlite3.Connection, source: str) -> datetime | None:
    """When the latest film of a sender came, or None before the first."""
    row = connection.execute(
        "SELECT received_at FROM arrival WHERE source = ? ORDER BY id DESC LIMIT 1", (source,)
    ).fetchone()
    return None if row is None else datetime.fromisoformat(row["received_at"])


def supply_age(connection: sqlite3.Connection, arrival_id: int, years: float, by: str, at: datetime) -> None:
    """Note the age that a named person gave for a film, inside the caller's transaction."""
    connection.execute(
        "UPDATE arrival SET supplied_age = ?, age_supplied_by = ?, age_supplied_at = ? WHERE id = ?",
        (years, by, at.isoformat(), arrival_id),
    )
    audit.append(connection, audit.Event.AGE_SUPPLIED, by, at, arrival_id, years=years)


def hasten(connection: sqlite3.Connection, arrival_id: int, urgency: Urgency) -> bool:
    """Make a film as urgent as its order, inside the caller's transaction; never less. Says whether that changed it."""
    below = list(Urgency)[list(Urgency).index(urgency) + 1 :]
    changed = connection.execute(
        "UPDATE arrival SET urgency = ? WHERE id = ? AND urgency IN (SELECT value FROM json_each(?))",
        (urgency, arrival_id, json.dumps(below)),
    )
    return changed.rowcount == 1
