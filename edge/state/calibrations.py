"""The table of this site's own calibrations of a model, as they were proposed; which one is used, an acceptance says."""

from __future__ import annotations

import sqlite3
from dataclasses import dataclass
from datetime import datetime

TABLE = """
CREATE TABLE calibration (
    id INTEGER PRIMARY KEY,
    digest TEXT NOT NULL UNIQUE,
    bundle TEXT NOT NULL,
    document TEXT NOT NULL,
    proposed_by TEXT NOT NULL,
    proposed_at TEXT NOT NULL
) STRICT;
CREATE INDEX calibration_of_bundle ON calibration (bundle, id);
ALTER TABLE acceptance ADD COLUMN calibration TEXT NOT NULL DEFAULT '';
"""
"""An acceptance names the calibration that it is of; the empty name is the bundle's own."""


@dataclass(frozen=True)
class Proposed:
    """A calibration that somebody proposed."""

    digest: str
    document: bytes
    by: str
    at: datetime


def add(connection: sqlite3.Connection, bundle: str, proposed: Proposed) -> bool:
    """Keep a proposal inside the caller's transaction, and say whether it is new; the same one again becomes the newest."""
    known = connection.execute("DELETE FROM calibration WHERE digest = ? RETURNING id", (proposed.digest,)).fetchone()
    connection.execute(
        "INSERT INTO calibration (digest, bundle, document, proposed_by, proposed_at) VALUES (?, ?, ?, ?, ?)",
        (proposed.digest, bundle, proposed.document.decode(), proposed.by, proposed.at.isoformat()),
    )
    return known is None


def get(connection: sqlite3.Connection, digest: str) -> Proposed | None:
    """The calibration of that digest, or None."""
    row = connection.execute("SELECT * FROM calibration WHERE digest = ?", (digest,)).fetchone()
    return None if row is None else _proposed(row)


def of_bundle(connection: sqlite3.Connection, bundle: str) -> list[Proposed]:
    """Every calibration of a bundle, the newest last."""
    rows = connection.execute("SELECT * FROM calibration WHERE bundle = ? ORDER BY id", (bundle,))
    return [_proposed(row) for row in rows]


def _proposed(row: sqlite3.Row) -> Proposed:
    return Proposed(
        row["digest"], row["document"].encode(), row["proposed_by"], datetime.fromisoformat(row["proposed_at"])
    )
