"""The table of failed tries: how often somebody was wrong, and until when they must wait.

A try is counted before it is checked, and forgotten once it was right: neither many at once nor a power cut gives one away. The
wait grows to an hour and no further, and whoever tries while waiting does not wait longer, so nobody is locked out for ever. A
clock that was set back ends a wait that is longer than any that was imposed; the next wrong try starts it anew.
"""

from __future__ import annotations

import sqlite3
from datetime import datetime, timedelta

TABLE = """
CREATE TABLE tries (
    whom TEXT PRIMARY KEY,
    failures INTEGER NOT NULL,
    locked_until TEXT,
    at TEXT NOT NULL
) STRICT;
"""

FREE = 5
"""So many wrong tries cost nothing but the last of them a first wait."""
FIRST = timedelta(seconds=30)
LONGEST = timedelta(hours=1)
STRANGERS = 1000
"""So many names that nobody has are remembered."""


def wait(failures: int, free: int = FREE, longest: timedelta = LONGEST) -> timedelta:
    """How long one must wait after so many wrong tries in a row."""
    return timedelta(0) if failures < free else min(FIRST * 2 ** min(failures - free, 20), longest)


def begin(
    connection: sqlite3.Connection, whom: str, at: datetime, free: int = FREE, longest: timedelta = LONGEST
) -> timedelta:
    """Count a try inside the caller's transaction; the answer is how long to wait instead, zero when it may be checked."""
    row = connection.execute("SELECT failures, locked_until FROM tries WHERE whom = ?", (whom,)).fetchone()
    failures = row["failures"] if row else 0
    if row and row["locked_until"]:
        left = datetime.fromisoformat(row["locked_until"]) - at
        if timedelta(0) < left <= wait(failures, free, longest):
            return left
    imposed = wait(failures + 1, free, longest)
    connection.execute(
        "INSERT INTO tries (whom, failures, locked_until, at) VALUES (?, ?, ?, ?) ON CONFLICT DO UPDATE SET"
        " failures = excluded.failures, locked_until = excluded.locked_until, at = excluded.at",
        (whom, failures + 1, (at + imposed).isoformat() if imposed else None, at.isoformat()),
    )
    return timedelta(0)


def imposed(connection: sqlite3.Connection, whom: str) -> timedelta:
    """How long the wrong tries so far make one wait."""
    row = connection.execute("SELECT failures FROM tries WHERE whom = ?", (whom,)).fetchone()
    return wait(row["failures"]) if row else timedelta(0)


def forget(connection: sqlite3.Connection, whom: str) -> None:
    """A try was right, or a lead has given a new PIN: there is nothing to wait for."""
    connection.execute("DELETE FROM tries WHERE whom = ?", (whom,))


def forget_person(connection: sqlite3.Connection, whom: str) -> None:
    """Forget a person's wrong tries, on whichever tablet."""
    connection.execute(
        "DELETE FROM tries WHERE whom = :whom OR substr(whom, 1, length(:whom) + 4) = :whom || ' on '", {"whom": whom}
    )


def forget_strangers(connection: sqlite3.Connection, prefix: str) -> None:
    """Keep no more than the latest of the names that nobody has, whose `whom` begins so."""
    connection.execute(
        "DELETE FROM tries WHERE substr(whom, 1, :size) = :prefix AND rowid NOT IN"
        " (SELECT rowid FROM tries WHERE substr(whom, 1, :size) = :prefix ORDER BY rowid DESC LIMIT :kept)",
        {"size": len(prefix), "prefix": prefix, "kept": STRANGERS},
    )
