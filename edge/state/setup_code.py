"""The table of the one-time code that makes a lead: at the first start, or when the only lead has lost their PIN."""

from __future__ import annotations

import sqlite3
from datetime import datetime

TABLE = """
CREATE TABLE setup_code (one INTEGER PRIMARY KEY CHECK (one = 1), secret TEXT NOT NULL, made_at TEXT NOT NULL) STRICT;
"""


def put(connection: sqlite3.Connection, secret: str, at: datetime) -> None:
    """Keep the hash of a new code inside the caller's transaction; the one before is void."""
    connection.execute(
        "INSERT INTO setup_code (one, secret, made_at) VALUES (1, ?, ?)"
        " ON CONFLICT DO UPDATE SET secret = excluded.secret, made_at = excluded.made_at",
        (secret, at.isoformat()),
    )


def get(connection: sqlite3.Connection) -> str | None:
    """The hash of the code that counts, or None."""
    row = connection.execute("SELECT secret FROM setup_code").fetchone()
    return None if row is None else str(row["secret"])


def take(connection: sqlite3.Connection, secret: str) -> bool:
    """Use the code up inside the caller's transaction; False where somebody was faster."""
    return connection.execute("DELETE FROM setup_code WHERE secret = ?", (secret,)).rowcount == 1
