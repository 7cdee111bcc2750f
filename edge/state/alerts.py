"""The table of alerts that a person has acknowledged: an *immediate* film calls until somebody says that they know of it."""

from __future__ import annotations

import sqlite3
from datetime import datetime

TABLE = """
CREATE TABLE alert (
    arrival_id INTEGER NOT NULL REFERENCES arrival,
    run INTEGER NOT NULL,
    acknowledged_by TEXT NOT NULL,
    acknowledged_at TEXT NOT NULL,
    PRIMARY KEY (arrival_id, run)
) STRICT;
"""


def acknowledge(connection: sqlite3.Connection, arrival_id: int, run: int, by: str, at: datetime) -> bool:
    """Note inside the caller's transaction that a person knows of a film; False where somebody did before."""
    return (
        connection.execute(
            "INSERT INTO alert (arrival_id, run, acknowledged_by, acknowledged_at) VALUES (?, ?, ?, ?)"
            " ON CONFLICT DO NOTHING",
            (arrival_id, run, by, at.isoformat()),
        ).rowcount
        == 1
    )


def acknowledged(connection: sqlite3.Connection) -> set[tuple[int, int]]:
    """The films, each with its run, that a person knows of."""
    return {(row["arrival_id"], row["run"]) for row in connection.execute("SELECT arrival_id, run FROM alert")}
