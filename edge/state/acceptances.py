"""The table of site acceptances: without one for this very device UID the box is in shadow mode, it computes but does not rank."""

from __future__ import annotations

import sqlite3
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime
from typing import Any

import msgspec

from edge.state import audit

TABLE = """
CREATE TABLE acceptance (
    id INTEGER PRIMARY KEY,
    device_uid TEXT NOT NULL,
    operating_point TEXT NOT NULL,
    signed_by TEXT NOT NULL,
    signed_at TEXT NOT NULL
) STRICT;
"""

PASSPORT = """
ALTER TABLE acceptance ADD COLUMN passport TEXT NOT NULL DEFAULT '{}';
"""
"""What was signed is kept with the signature."""


def sign(
    connection: sqlite3.Connection,
    device_uid: str,
    operating_point: str,
    by: str,
    at: datetime,
    passport: Mapping[str, Any] | None = None,
    calibration: str = "",
) -> None:
    """Record that a person accepted this model, calibration and operating point here, inside the caller's transaction.

    `passport` is what was before them when they signed; `calibration` is empty where it is the bundle's own.
    """
    connection.execute(
        "INSERT INTO acceptance (device_uid, operating_point, signed_by, signed_at, passport, calibration)"
        " VALUES (?, ?, ?, ?, ?, ?)",
        (device_uid, operating_point, by, at.isoformat(), msgspec.json.encode(passport or {}).decode(), calibration),
    )
    what = {"device_uid": device_uid, "operating_point": operating_point}
    audit.append(connection, audit.Event.ACCEPTED, by, at, None, **what)


@dataclass(frozen=True)
class Acceptance:
    """A person's signature under one model, calibration and operating point."""

    device_uid: str
    operating_point: str
    signed_by: str
    signed_at: datetime
    passport: dict[str, Any]
    calibration: str
    """The digest of this site's own calibration; empty where it is the bundle's."""


def latest(connection: sqlite3.Connection) -> Acceptance | None:
    """The latest acceptance, or None when there is none."""
    row = connection.execute("SELECT * FROM acceptance ORDER BY id DESC LIMIT 1").fetchone()
    return None if row is None else _acceptance(row)


def history(connection: sqlite3.Connection) -> list[Acceptance]:
    """Every acceptance, the latest last."""
    return [_acceptance(row) for row in connection.execute("SELECT * FROM acceptance ORDER BY id")]


def _acceptance(row: sqlite3.Row) -> Acceptance:
    return Acceptance(
        row["device_uid"],
        row["operating_point"],
        row["signed_by"],
        datetime.fromisoformat(row["signed_at"]),
        msgspec.json.decode(row["passport"]),
        row["calibration"],
    )


def accepted(connection: sqlite3.Connection) -> str | None:
    """The device UID that the latest acceptance is bound to, or None when there is none."""
    row = connection.execute("SELECT device_uid FROM acceptance ORDER BY id DESC LIMIT 1").fetchone()
    return None if row is None else str(row["device_uid"])


def operating_point(connection: sqlite3.Connection) -> str | None:
    """The operating point that the latest acceptance chose, or None when there is none."""
    row = connection.execute("SELECT operating_point FROM acceptance ORDER BY id DESC LIMIT 1").fetchone()
    return None if row is None else str(row["operating_point"])
