"""The tables of the box's neighbours: who has called its DICOM port, and what came of the last test of each that it calls."""

from __future__ import annotations

import sqlite3
from dataclasses import dataclass
from datetime import datetime

from edge.records import Receipt, Trouble

TABLE = """
CREATE TABLE caller (ae_title TEXT PRIMARY KEY, address TEXT NOT NULL, at TEXT NOT NULL, refused INTEGER NOT NULL) STRICT;
CREATE TABLE tested (peer TEXT PRIMARY KEY, asked_at TEXT NOT NULL, ended_at TEXT, trouble TEXT, detail TEXT) STRICT;
"""

MOST = 20
"""So many callers are remembered: whoever calls under ever new names fills no disk."""


@dataclass(frozen=True)
class Caller:
    """Who has called the DICOM port for an echo, or was refused."""

    ae_title: str
    address: str
    at: datetime
    refused: bool


@dataclass(frozen=True)
class Tested:
    """The last test of a neighbour; `ended_at` is None while it goes on."""

    asked_at: datetime
    ended_at: datetime | None
    trouble: Trouble | None
    detail: str


def called(connection: sqlite3.Connection, caller: Caller) -> None:
    """Note inside the caller's transaction who has called; the latest call of each is kept."""
    connection.execute(
        "INSERT OR REPLACE INTO caller VALUES (?, ?, ?, ?)",
        (caller.ae_title, caller.address, caller.at.isoformat(), caller.refused),
    )
    connection.execute(
        "DELETE FROM caller WHERE ae_title NOT IN (SELECT ae_title FROM caller ORDER BY at DESC LIMIT ?)", (MOST,)
    )


def callers(connection: sqlite3.Connection) -> list[Caller]:
    """Who has called, the latest first."""
    rows = connection.execute("SELECT * FROM caller ORDER BY at DESC")
    return [
        Caller(row["ae_title"], row["address"], datetime.fromisoformat(row["at"]), bool(row["refused"])) for row in rows
    ]


def ask(connection: sqlite3.Connection, peer: str, at: datetime) -> None:
    """Ask the courier inside the caller's transaction to test a neighbour."""
    connection.execute("INSERT OR REPLACE INTO tested VALUES (?, ?, NULL, NULL, NULL)", (peer, at.isoformat()))


def asked(connection: sqlite3.Connection) -> list[str]:
    """Whom the courier shall test."""
    return [str(row["peer"]) for row in connection.execute("SELECT peer FROM tested WHERE ended_at IS NULL")]


def ended(connection: sqlite3.Connection, peer: str, receipt: Receipt, at: datetime) -> None:
    """Note inside the caller's transaction what came of a test."""
    connection.execute(
        "UPDATE tested SET ended_at = ?, trouble = ?, detail = ? WHERE peer = ?",
        (at.isoformat(), receipt.trouble, receipt.detail, peer),
    )


def tests(connection: sqlite3.Connection) -> dict[str, Tested]:
    """The last test of each neighbour."""
    return {
        row["peer"]: Tested(
            datetime.fromisoformat(row["asked_at"]),
            datetime.fromisoformat(row["ended_at"]) if row["ended_at"] else None,
            Trouble(row["trouble"]) if row["trouble"] else None,
            row["detail"] or "",
        )
        for row in connection.execute("SELECT * FROM tested")
    }
