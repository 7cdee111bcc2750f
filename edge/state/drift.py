"""The tables of drift: what each day's films looked like, summed as they come, and what was last made of it."""

from __future__ import annotations

import sqlite3
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import date, datetime

import msgspec

TABLE = """
CREATE TABLE drift_day (
    id INTEGER PRIMARY KEY,
    day TEXT NOT NULL,
    edges TEXT NOT NULL,
    device TEXT NOT NULL,
    view TEXT NOT NULL,
    ages TEXT NOT NULL,
    tally TEXT NOT NULL,
    UNIQUE (edges, day, device, view, ages)
) STRICT;
CREATE TABLE drift_verdict (
    one INTEGER PRIMARY KEY CHECK (one = 1),
    edges TEXT NOT NULL,
    day TEXT NOT NULL,
    at TEXT NOT NULL,
    verdict TEXT NOT NULL
) STRICT;
CREATE TABLE drift_start (id INTEGER PRIMARY KEY, edges TEXT NOT NULL, after_row INTEGER NOT NULL, at TEXT NOT NULL) STRICT;
"""

Key = tuple[str, str, str]
"""X-ray unit, view, age band."""


@dataclass(frozen=True)
class Verdict:
    """What was made of the days so far, and up to which."""

    edges: str
    day: date
    """The last day that had ended then."""
    at: datetime
    verdict: str
    """As JSON; see `edge/surveillance.py`."""


def add(connection: sqlite3.Connection, day: date, edges: str, tallies: Mapping[Key, tuple[int, ...]]) -> None:
    """Add whole numbers to a day's, inside the caller's transaction."""
    for key, tally in tallies.items():
        where = (edges, day.isoformat(), *key)
        row = connection.execute(
            "SELECT id, tally FROM drift_day WHERE edges = ? AND day = ? AND device = ? AND view = ? AND ages = ?",
            where,
        ).fetchone()
        if row is None:
            connection.execute(
                "INSERT INTO drift_day (edges, day, device, view, ages, tally) VALUES (?, ?, ?, ?, ?, ?)",
                (*where, _json(tally)),
            )
        else:
            total = [old + new for old, new in zip(_numbers(row["tally"]), tally, strict=True)]
            connection.execute("UPDATE drift_day SET tally = ? WHERE id = ?", (_json(total), row["id"]))


def days(connection: sqlite3.Connection, edges: str) -> dict[date, dict[Key, tuple[int, ...]]]:
    """Every day since the watch last began anew, in the order in which they began: a clock that jumped back makes none older."""
    rows = connection.execute(
        "SELECT day, device, view, ages, tally FROM drift_day WHERE edges = ? AND id > ? ORDER BY id",
        (edges, _start(connection, edges)),
    )
    found: dict[date, dict[Key, tuple[int, ...]]] = {}
    for row in rows:
        tallies = found.setdefault(date.fromisoformat(row["day"]), {})
        tallies[row["device"], row["view"], row["ages"]] = _numbers(row["tally"])
    return found


def of_day(connection: sqlite3.Connection, day: date) -> dict[str, dict[Key, tuple[int, ...]]]:
    """One day's numbers, by edges: there are several where the model changed on that day."""
    rows = connection.execute("SELECT * FROM drift_day WHERE day = ? ORDER BY id", (day.isoformat(),))
    found: dict[str, dict[Key, tuple[int, ...]]] = {}
    for row in rows:
        found.setdefault(row["edges"], {})[row["device"], row["view"], row["ages"]] = _numbers(row["tally"])
    return found


def newest(connection: sqlite3.Connection, edges: str) -> list[date]:
    """The two days that began last, the latest first; the other one has ended."""
    rows = connection.execute(
        "SELECT day FROM drift_day WHERE edges = ? AND id > ? GROUP BY day ORDER BY MIN(id) DESC LIMIT 2",
        (edges, _start(connection, edges)),
    )
    return [date.fromisoformat(row["day"]) for row in rows]


def edges_in_use(connection: sqlite3.Connection) -> str | None:
    """Those of the latest film, or None before the first."""
    row = connection.execute("SELECT edges FROM drift_day ORDER BY id DESC LIMIT 1").fetchone()
    return None if row is None else str(row["edges"])


def begin_anew(connection: sqlite3.Connection, edges: str, at: datetime) -> None:
    """Leave the days so far out of the watch, inside the caller's transaction; they are kept."""
    last = connection.execute("SELECT COALESCE(MAX(id), 0) FROM drift_day WHERE edges = ?", (edges,)).fetchone()[0]
    connection.execute("INSERT INTO drift_start (edges, after_row, at) VALUES (?, ?, ?)", (edges, last, at.isoformat()))


def _start(connection: sqlite3.Connection, edges: str) -> int:
    row = connection.execute("SELECT after_row FROM drift_start WHERE edges = ? ORDER BY id DESC LIMIT 1", (edges,))
    found = row.fetchone()
    return 0 if found is None else int(found["after_row"])


def keep(connection: sqlite3.Connection, edges: str, day: date, at: datetime, verdict: str) -> None:
    """Note what was made of the days, inside the caller's transaction."""
    connection.execute(
        "INSERT INTO drift_verdict (one, edges, day, at, verdict) VALUES (1, ?, ?, ?, ?) ON CONFLICT DO UPDATE"
        " SET edges = excluded.edges, day = excluded.day, at = excluded.at, verdict = excluded.verdict",
        (edges, day.isoformat(), at.isoformat(), verdict),
    )


def forget(connection: sqlite3.Connection) -> None:
    """Leave what was made of the days, inside the caller's transaction: the watch begins anew."""
    connection.execute("DELETE FROM drift_verdict")


def verdict(connection: sqlite3.Connection) -> Verdict | None:
    """What was last made of the days, or None before the first day has ended."""
    row = connection.execute("SELECT * FROM drift_verdict").fetchone()
    if row is None:
        return None
    at = datetime.fromisoformat(row["at"])
    return Verdict(row["edges"], date.fromisoformat(row["day"]), at, row["verdict"])


def _numbers(text: str) -> tuple[int, ...]:
    return msgspec.json.decode(text, type=tuple[int, ...])


def _json(numbers: object) -> str:
    return msgspec.json.encode(numbers).decode()
