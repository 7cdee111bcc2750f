"""The table of what is wrong with the box right now: one line per process, shown on every page until it is mended."""

from __future__ import annotations

import sqlite3
from datetime import datetime

TABLE = """
CREATE TABLE notice (process TEXT PRIMARY KEY, text TEXT NOT NULL, since TEXT NOT NULL) STRICT;
"""


def post(connection: sqlite3.Connection, process: str, text: str, since: datetime) -> None:
    """Say what is wrong with a process, inside the caller's transaction."""
    connection.execute(
        "INSERT INTO notice (process, text, since) VALUES (?, ?, ?) ON CONFLICT DO UPDATE SET text = excluded.text",
        (process, text, since.isoformat()),
    )


def clear(connection: sqlite3.Connection, process: str) -> None:
    """Say that a process works again, inside the caller's transaction."""
    connection.execute("DELETE FROM notice WHERE process = ?", (process,))


def current(connection: sqlite3.Connection) -> list[str]:
    """What is wrong now, oldest first."""
    return [str(row["text"]) for row in connection.execute("SELECT text FROM notice ORDER BY since")]


def processes(connection: sqlite3.Connection) -> list[str]:
    """Which processes something is wrong with now."""
    return [str(row["process"]) for row in connection.execute("SELECT process FROM notice ORDER BY process")]
