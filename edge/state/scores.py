"""The table of second opinions: what a model that is not accepted yet says of the films that were read here.

They are kept apart from the results, so that a film that was read shows what its reader was shown.
"""

from __future__ import annotations

import sqlite3
from collections.abc import Collection
from datetime import datetime

import msgspec

from edge.records import Decision

TABLE = """
CREATE TABLE score (
    arrival_id INTEGER NOT NULL REFERENCES arrival,
    device_uid TEXT NOT NULL,
    decision TEXT NOT NULL,
    decided_at TEXT NOT NULL,
    PRIMARY KEY (arrival_id, device_uid)
) STRICT;
"""


def add(connection: sqlite3.Connection, arrival_id: int, decision: Decision, at: datetime) -> None:
    """Keep what a model says of a film, inside the caller's transaction; a second time changes nothing."""
    connection.execute(
        "INSERT INTO score (arrival_id, device_uid, decision, decided_at) VALUES (?, ?, ?, ?) ON CONFLICT DO NOTHING",
        (arrival_id, decision.device_uid, msgspec.json.encode(decision).decode(), at.isoformat()),
    )


def decision(connection: sqlite3.Connection, arrival_id: int, device_uids: Collection[str]) -> Decision | None:
    """The latest that one of these devices says of a film, as its result or as a second opinion; None where none has."""
    row = connection.execute(
        "SELECT decision FROM (SELECT decision, decided_at FROM result WHERE arrival_id = :film"
        " UNION ALL SELECT decision, decided_at FROM score WHERE arrival_id = :film)"
        " WHERE decision ->> '$.device_uid' IN (SELECT value FROM json_each(:devices)) ORDER BY decided_at DESC LIMIT 1",
        {"film": arrival_id, "devices": msgspec.json.encode(list(device_uids)).decode()},
    ).fetchone()
    return None if row is None else msgspec.json.decode(row["decision"], type=Decision)
