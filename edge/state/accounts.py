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


def add(connection: sqlite3.Connection, name: str, role: Role, language: str, secret: str, at: datetime) -> bool:
    """Add an account inside the caller's transaction; `secret` is the encoded Argon2 hash. False when the name is taken."""
    return (
        connection.execute(
            "INSERT INTO account (name, role, language, secret, created_at) VALUES (?, ?, ?, ?, ?)"
            " ON CONFLICT DO NOTHING",
            (name, role, language, secret, at.isoformat()),
        ).rowcount
        == 1
    )


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
        failures=row["failures"],
        locked_until=None if row["locked_until"] is None else datetime.fromisoformat(row["locked_until"]),
    )
