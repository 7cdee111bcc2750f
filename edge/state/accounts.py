"""The table of people who may use the box's pages."""

from __future__ import annotations

import sqlite3
from datetime import datetime

from edge.records import Account, Role

TABLE = """
CREATE TABLE account (
    name TEXT PRIMARY KEY COLLATE NOCASE,
    role TEXT NOT NULL CHECK (role IN ('clinician', 'technician', 'lead')),
    language TEXT NOT NULL,
    secret TEXT NOT NULL,
    active INTEGER NOT NULL DEFAULT 1,
    failures INTEGER NOT NULL DEFAULT 0,
    locked_until TEXT,
    created_at TEXT NOT NULL
) STRICT;
"""

OWN_PIN = """
ALTER TABLE account DROP COLUMN failures;
ALTER TABLE account DROP COLUMN locked_until;
ALTER TABLE account ADD COLUMN one_time INTEGER NOT NULL DEFAULT 0;
ALTER TABLE account ADD COLUMN digits INTEGER NOT NULL DEFAULT 1;
"""


def add(
    connection: sqlite3.Connection,
    name: str,
    role: Role,
    language: str,
    secret: str,
    at: datetime,
    one_time: bool = False,
    digits: bool = True,
) -> bool:
    """Add an account inside the caller's transaction; `secret` is the encoded Argon2 hash. False when the name is taken."""
    return (
        connection.execute(
            "INSERT INTO account (name, role, language, secret, created_at, one_time, digits)"
            " VALUES (?, ?, ?, ?, ?, ?, ?) ON CONFLICT DO NOTHING",
            (name, role, language, secret, at.isoformat(), one_time, digits),
        ).rowcount
        == 1
    )


def set_secret(connection: sqlite3.Connection, name: str, secret: str, one_time: bool, digits: bool = True) -> None:
    """Put another PIN's hash in place, inside the caller's transaction."""
    connection.execute(
        "UPDATE account SET secret = ?, one_time = ?, digits = ? WHERE name = ?", (secret, one_time, digits, name)
    )


def set_role(connection: sqlite3.Connection, name: str, role: Role) -> None:
    """Let a person do other things, inside the caller's transaction."""
    connection.execute("UPDATE account SET role = ? WHERE name = ?", (role, name))


def set_active(connection: sqlite3.Connection, name: str, active: bool) -> None:
    """Let a person in, or no longer, inside the caller's transaction; what they did keeps their name."""
    connection.execute("UPDATE account SET active = ? WHERE name = ?", (active, name))


def get(connection: sqlite3.Connection, name: str) -> Account | None:
    """The account of that name, or None."""
    row = connection.execute("SELECT * FROM account WHERE name = ?", (name,)).fetchone()
    return None if row is None else _read(row)


def set_language(connection: sqlite3.Connection, name: str, language: str) -> None:
    """Note the language a person wants to be spoken to in, inside the caller's transaction."""
    connection.execute("UPDATE account SET language = ? WHERE name = ?", (language, name))


def everyone(connection: sqlite3.Connection) -> list[Account]:
    """All accounts, by name."""
    return [_read(row) for row in connection.execute("SELECT * FROM account ORDER BY name")]


def _read(row: sqlite3.Row) -> Account:
    return Account(
        name=row["name"],
        role=Role(row["role"]),
        language=row["language"],
        secret=row["secret"],
        active=bool(row["active"]),
        one_time=bool(row["one_time"]),
        digits=bool(row["digits"]),
    )
