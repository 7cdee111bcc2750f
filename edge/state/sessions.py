"""The tables of who is signed in on which tablet; a browser holds a random token, the box only its hash."""

from __future__ import annotations

import hashlib
import secrets
import sqlite3
from datetime import datetime

from edge.records import Session

TABLE = """
CREATE TABLE session (
    id TEXT PRIMARY KEY,
    account TEXT NOT NULL COLLATE NOCASE REFERENCES account,
    tablet TEXT NOT NULL,
    created_at TEXT NOT NULL,
    seen_at TEXT NOT NULL,
    locked INTEGER NOT NULL DEFAULT 0
) STRICT;
CREATE INDEX session_of_account ON session (account);
CREATE TABLE tablet_person (
    tablet TEXT NOT NULL,
    account TEXT NOT NULL COLLATE NOCASE REFERENCES account,
    at TEXT NOT NULL,
    PRIMARY KEY (tablet, account)
) STRICT;
"""


def token() -> str:
    """What a browser is given to be known by."""
    return secrets.token_urlsafe(32)


def hash_of(token: str) -> str:
    """What is kept of a token."""
    return hashlib.sha256(token.encode("utf-8", "surrogatepass")).hexdigest()


def start(connection: sqlite3.Connection, account: str, tablet: str, at: datetime) -> str:
    """Sign a person in on a tablet inside the caller's transaction; gives the token for the browser."""
    given, stamp = token(), at.isoformat()
    connection.execute(
        "INSERT INTO session (id, account, tablet, created_at, seen_at) VALUES (?, ?, ?, ?, ?)",
        (hash_of(given), account, tablet, stamp, stamp),
    )
    connection.execute(
        "INSERT INTO tablet_person (tablet, account, at) VALUES (?, ?, ?) ON CONFLICT DO UPDATE SET at = excluded.at",
        (tablet, account, stamp),
    )
    return given


def get(connection: sqlite3.Connection, token: str) -> Session | None:
    """The session of a token, or None."""
    row = connection.execute("SELECT * FROM session WHERE id = ?", (hash_of(token),)).fetchone()
    return None if row is None else _read(row)


def seen(connection: sqlite3.Connection, session: Session, at: datetime) -> None:
    """The person did something."""
    connection.execute("UPDATE session SET seen_at = ? WHERE id = ?", (at.isoformat(), session.id))


def lock(connection: sqlite3.Connection, session: Session) -> None:
    """Ask for the PIN again before anything else is shown."""
    connection.execute("UPDATE session SET locked = 1 WHERE id = ?", (session.id,))


def end(connection: sqlite3.Connection, session: Session) -> None:
    """Sign out."""
    connection.execute("DELETE FROM session WHERE id = ?", (session.id,))


def end_all(connection: sqlite3.Connection, account: str) -> None:
    """Sign a person out everywhere."""
    connection.execute("DELETE FROM session WHERE account = ?", (account,))


def end_older(connection: sqlite3.Connection, before: datetime) -> None:
    """Forget the sessions that nobody has used since."""
    connection.execute("DELETE FROM session WHERE seen_at < ?", (before.isoformat(),))


def everyones(connection: sqlite3.Connection) -> list[Session]:
    """All sessions, the latest used first."""
    return [_read(row) for row in connection.execute("SELECT * FROM session ORDER BY seen_at DESC")]


def people_of(connection: sqlite3.Connection, tablet: str) -> list[str]:
    """The names of those who have signed in on a tablet, the latest first."""
    rows = connection.execute("SELECT account FROM tablet_person WHERE tablet = ? ORDER BY at DESC", (tablet,))
    return [row["account"] for row in rows]


def forget_person(connection: sqlite3.Connection, account: str) -> None:
    """No tablet names the person any longer."""
    connection.execute("DELETE FROM tablet_person WHERE account = ?", (account,))


def _read(row: sqlite3.Row) -> Session:
    return Session(
        id=row["id"],
        account=row["account"],
        tablet=row["tablet"],
        created_at=datetime.fromisoformat(row["created_at"]),
        seen_at=datetime.fromisoformat(row["seen_at"]),
        locked=bool(row["locked"]),
    )
