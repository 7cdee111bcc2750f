"""The table of what people said of films: one row per act of a named person, never changed, only followed by another."""

from __future__ import annotations

import hashlib
import sqlite3
from collections.abc import Iterator
from datetime import datetime, timedelta

import msgspec

from edge.records import Outcome, Read, ReadKind, Sha256

UNDO = timedelta(seconds=10)
"""How long a person may take a decision back; nothing leaves the box before that. Later they decide anew."""

TABLE = """
CREATE TABLE read (
    id INTEGER PRIMARY KEY,
    arrival_id INTEGER NOT NULL REFERENCES arrival,
    run INTEGER NOT NULL,
    kind TEXT NOT NULL CHECK (kind IN ('impression', 'confirm', 'override', 'refer', 'withdraw')),
    reader TEXT NOT NULL,
    at TEXT NOT NULL,
    outcome TEXT,
    codes TEXT NOT NULL,
    reason TEXT NOT NULL,
    seal TEXT NOT NULL,
    request TEXT NOT NULL UNIQUE
) STRICT;
CREATE INDEX read_of_film ON read (arrival_id);
"""


def add(
    connection: sqlite3.Connection,
    arrival_id: int,
    run: int,
    kind: ReadKind,
    reader: str,
    at: datetime,
    request: str,
    *,
    outcome: Outcome | None = None,
    codes: tuple[str, ...] = (),
    reason: str = "",
    seal: str = "",
) -> tuple[Read, bool]:
    """Record an act inside the caller's transaction; returns it and whether it is new.

    `request` is the idempotency key that the page drew: the same one again, from a double tap or a retry, changes nothing.
    """
    row = connection.execute(
        "INSERT INTO read (arrival_id, run, kind, reader, at, outcome, codes, reason, seal, request)"
        " VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?) ON CONFLICT (request) DO NOTHING RETURNING *",
        (
            arrival_id,
            run,
            kind,
            reader,
            at.isoformat(),
            outcome,
            msgspec.json.encode(codes).decode(),
            reason,
            seal,
            request,
        ),
    ).fetchone()
    if row is not None:
        return _read(row), True
    return _read(connection.execute("SELECT * FROM read WHERE request = ?", (request,)).fetchone()), False


def seal(film: Sha256, run: int, reader: str, at: datetime, codes: tuple[str, ...]) -> str:
    """What binds an impression to its film, its assessment, its reader and its moment before the AI's is shown: a SHA-256."""
    return hashlib.sha256(msgspec.json.encode([film, run, reader, at.isoformat(), codes])).hexdigest()


def find(connection: sqlite3.Connection, request: str) -> Read | None:
    """The act that a page asked for under this key, or None."""
    row = connection.execute("SELECT * FROM read WHERE request = ?", (request,)).fetchone()
    return None if row is None else _read(row)


def impression(acts: list[Read], reader: str, run: int) -> Read | None:
    """What a reader said of one assessment of a film before they were shown the AI's; `acts` are the film's."""
    return next(
        (act for act in acts if act.kind is ReadKind.IMPRESSION and act.reader == reader and act.run == run), None
    )


def blind(connection: sqlite3.Connection, limit: int) -> list[Read]:
    """By film, the first impression that anybody sealed before they were shown the AI's; the newest films, oldest first."""
    rows = connection.execute(
        "SELECT * FROM read WHERE id IN (SELECT MIN(id) FROM read WHERE kind = 'impression' GROUP BY arrival_id"
        " ORDER BY arrival_id DESC LIMIT ?) ORDER BY arrival_id",
        (limit,),
    )
    return [_read(row) for row in rows]


def of_reader(connection: sqlite3.Connection, reader: str) -> list[Read]:
    """Everything that one person said of films, oldest first."""
    return [_read(row) for row in connection.execute("SELECT * FROM read WHERE reader = ? ORDER BY id", (reader,))]


def of_film(connection: sqlite3.Connection, arrival_id: int) -> list[Read]:
    """Everything that people said of a film, oldest first."""
    return [
        _read(row) for row in connection.execute("SELECT * FROM read WHERE arrival_id = ? ORDER BY id", (arrival_id,))
    ]


def get(connection: sqlite3.Connection, read_id: int) -> Read:
    """One act. Raises KeyError when there is none of that number."""
    row = connection.execute("SELECT * FROM read WHERE id = ?", (read_id,)).fetchone()
    if row is None:
        raise KeyError(read_id)
    return _read(row)


def standing(connection: sqlite3.Connection) -> dict[int, Read]:
    """By film, the decision that stands: the latest confirm, override or refer that was not withdrawn."""
    return {arrival_id: acts[-1] for arrival_id, acts in decisions(connection).items()}


def decisions(connection: sqlite3.Connection) -> dict[int, list[Read]]:
    """By film, the decisions that were not withdrawn, oldest first; at least one."""
    decided: dict[int, list[Read]] = {}
    for row in connection.execute("SELECT * FROM read WHERE kind <> 'impression' ORDER BY id"):
        _follow(decided.setdefault(int(row["arrival_id"]), []), _read(row))
    return {arrival_id: acts for arrival_id, acts in decided.items() if acts}


def decision(acts: list[Read]) -> Read | None:
    """The decision that stands among a film's acts, oldest first; see `standing`."""
    decided: list[Read] = []
    for act in acts:
        if act.kind is not ReadKind.IMPRESSION:
            _follow(decided, act)
    return decided[-1] if decided else None


def _follow(decided: list[Read], act: Read) -> None:
    if act.kind is not ReadKind.WITHDRAW:
        decided.append(act)
    elif decided:
        decided.pop()


def everything(connection: sqlite3.Connection) -> Iterator[Read]:
    """Every act of every film, oldest first."""
    return map(_read, connection.execute("SELECT * FROM read ORDER BY id"))


def _read(row: sqlite3.Row) -> Read:
    return Read(
        id=row["id"],
        arrival_id=row["arrival_id"],
        run=row["run"],
        kind=ReadKind(row["kind"]),
        reader=row["reader"],
        at=datetime.fromisoformat(row["at"]),
        outcome=None if row["outcome"] is None else Outcome(row["outcome"]),
        codes=msgspec.json.decode(row["codes"], type=tuple[str, ...]),
        reason=row["reason"],
        seal=row["seal"],
    )
