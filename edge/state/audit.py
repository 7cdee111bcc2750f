"""The ledger: who decided, saw, changed or exported what, and when; append-only, each record chained to the one before.

The chain alone shows what was changed, reordered or cut out of its middle; the head, sealed with this box's key, shows what was
cut off its end. Whoever holds the box's key and its disk can write a new ledger: that is what sending it away is for.
"""

from __future__ import annotations

import hashlib
import hmac
import json
import os
import sqlite3
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import datetime
from enum import StrEnum
from pathlib import Path
from typing import Any

TABLE = """
CREATE TABLE audit (
    id INTEGER PRIMARY KEY,
    at TEXT NOT NULL,
    event TEXT NOT NULL,
    actor TEXT NOT NULL,
    arrival_id INTEGER REFERENCES arrival,
    detail TEXT NOT NULL,
    hash TEXT NOT NULL
) STRICT;
CREATE INDEX audit_of_film ON audit (arrival_id) WHERE arrival_id IS NOT NULL;
CREATE INDEX audit_of_event ON audit (event, id);
CREATE TABLE audit_head (one INTEGER PRIMARY KEY CHECK (one = 1), id INTEGER NOT NULL, seal TEXT NOT NULL) STRICT;
CREATE TRIGGER audit_unchanged BEFORE UPDATE ON audit BEGIN SELECT RAISE (ABORT, 'the ledger is append-only'); END;
CREATE TRIGGER audit_kept BEFORE DELETE ON audit BEGIN SELECT RAISE (ABORT, 'the ledger is append-only'); END;
"""

ORIGIN = "0" * 64
"""What the first record is chained to."""


class Event(StrEnum):
    """Everything the ledger records."""

    ASSESSED = "assessed"
    VIEWED = "viewed"
    REVEALED = "revealed"
    """A person was shown what the AI says."""
    SEALED = "sealed"
    """A person's own impression, before the AI's was shown."""
    CONFIRMED = "confirmed"
    OVERRIDDEN = "overridden"
    REFERRED = "referred"
    WITHDRAWN = "withdrawn"
    AGE_SUPPLIED = "age_supplied"
    ALERT_ACKNOWLEDGED = "alert_acknowledged"
    ALERT_TESTED = "alert_tested"
    HANDED_OFF = "handed_off"
    EXPORTED = "exported"
    EXPORT_REFUSED = "export_refused"
    SIGNED_IN = "signed_in"
    SIGN_IN_FAILED = "sign_in_failed"
    SIGNED_OUT = "signed_out"
    LOCKED_OUT = "locked_out"
    ACCOUNT_CHANGED = "account_changed"
    CONFIGURED = "configured"
    MODEL_CHANGED = "model_changed"
    ACCEPTED = "accepted"
    STARTED = "started"
    STOPPED = "stopped"
    TAMPERED = "tampered"
    BACKED_UP = "backed_up"
    READ_OUT = "read_out"
    """The ledger itself was exported."""


@dataclass(frozen=True)
class Record:
    """One entry of the ledger."""

    id: int
    at: datetime
    event: Event
    actor: str
    """An account's name, an AE title, or the process of the box that did it."""
    arrival_id: int | None
    detail: dict[str, Any]
    hash: str


@dataclass(frozen=True)
class Break:
    """Where the ledger is no longer what was written."""

    id: int
    why: str


def append(
    connection: sqlite3.Connection,
    event: Event,
    actor: str,
    at: datetime,
    arrival_id: int | None = None,
    **detail: Any,
) -> int:
    """Write one record inside the caller's transaction, and say its number; `detail` holds plain JSON values."""
    last = connection.execute("SELECT id, hash FROM audit ORDER BY id DESC LIMIT 1").fetchone()
    number, before = (1, ORIGIN) if last is None else (int(last["id"]) + 1, str(last["hash"]))
    written = json.dumps(detail, ensure_ascii=False, sort_keys=True, separators=(",", ":"))
    digest = _chained(before, number, at.isoformat(), event, actor, arrival_id, written)
    connection.execute(
        "INSERT INTO audit (id, at, event, actor, arrival_id, detail, hash) VALUES (?, ?, ?, ?, ?, ?, ?)",
        (number, at.isoformat(), event, actor, arrival_id, written, digest),
    )
    connection.execute(
        "INSERT INTO audit_head (one, id, seal) VALUES (1, ?, ?)"
        " ON CONFLICT DO UPDATE SET id = excluded.id, seal = excluded.seal",
        (number, _seal(connection, number, digest)),
    )
    return number


def records(connection: sqlite3.Connection, after: int = 0, arrival_id: int | None = None) -> Iterator[Record]:
    """The records with a higher number than `after`, oldest first; those of one film where it is named."""
    of_film = "" if arrival_id is None else " AND arrival_id = :arrival_id"
    rows = connection.execute(
        f"SELECT * FROM audit WHERE id > :after{of_film} ORDER BY id", {"after": after, "arrival_id": arrival_id}
    )
    for row in rows:
        yield _record(row)


def latest(connection: sqlite3.Connection, event: Event, before: int | None = None) -> Record | None:
    """The last record of that event, or the last with a lower number than `before`; None where there is none."""
    row = connection.execute(
        "SELECT * FROM audit WHERE event = ? AND id < ? ORDER BY id DESC LIMIT 1",
        (event, 2**62 if before is None else before),
    ).fetchone()
    return None if row is None else _record(row)


def starting(connection: sqlite3.Connection, event: Event, beginning: str) -> Record | None:
    """The record of that event whose hash begins so, or None."""
    row = connection.execute(
        "SELECT * FROM audit WHERE event = ? AND substr(hash, 1, ?) = ?", (event, len(beginning), beginning)
    ).fetchone()
    return None if row is None else _record(row)


def newest(connection: sqlite3.Connection) -> datetime | None:
    """The latest time that the ledger holds."""
    at = connection.execute("SELECT MAX(at) FROM audit").fetchone()[0]
    return None if at is None else datetime.fromisoformat(at)


def _record(row: sqlite3.Row) -> Record:
    return Record(
        id=row["id"],
        at=datetime.fromisoformat(row["at"]),
        event=Event(row["event"]),
        actor=row["actor"],
        arrival_id=row["arrival_id"],
        detail=json.loads(row["detail"]),
        hash=row["hash"],
    )


def verify(connection: sqlite3.Connection) -> Break | None:
    """The first place where the ledger was changed, reordered or cut, or None where it is whole."""
    before, expected = ORIGIN, 1
    for row in connection.execute("SELECT * FROM audit ORDER BY id"):
        if row["id"] != expected:
            return Break(expected, "a record is missing")
        digest = _chained(before, row["id"], row["at"], row["event"], row["actor"], row["arrival_id"], row["detail"])
        if digest != row["hash"]:
            return Break(expected, "a record was changed")
        before, expected = digest, expected + 1
    head = connection.execute("SELECT id, seal FROM audit_head").fetchone()
    if head is None:
        return None if expected == 1 else Break(expected, "the seal of the last record is missing")
    if head["id"] != expected - 1:
        return Break(expected, "records are missing at the end")
    if not hmac.compare_digest(head["seal"], _seal(connection, head["id"], before)):
        return Break(expected - 1, "the last record was not written by this box")
    return None


def head(connection: sqlite3.Connection) -> tuple[int, str]:
    """The number and hash of the last record, to be noted elsewhere: whoever has it can tell a later forgery."""
    row = connection.execute("SELECT id, hash FROM audit ORDER BY id DESC LIMIT 1").fetchone()
    return (0, ORIGIN) if row is None else (int(row["id"]), str(row["hash"]))


def _chained(before: str, number: int, at: str, event: str, actor: str, arrival_id: int | None, detail: str) -> str:
    record = json.dumps(
        [before, number, at, event, actor, arrival_id, detail], ensure_ascii=False, separators=(",", ":")
    )
    return hashlib.sha256(record.encode("utf-8", "surrogatepass")).hexdigest()


def _seal(connection: sqlite3.Connection, number: int, digest: str) -> str:
    return hmac.new(_key(connection), f"{number} {digest}".encode(), hashlib.sha256).hexdigest()


def _key(connection: sqlite3.Connection) -> bytes:
    """This box's key for the ledger, made at its first use beside the database."""
    database = Path(str(connection.execute("PRAGMA database_list").fetchone()["file"]))
    path = database.with_name("ledger.key")
    try:
        return path.read_bytes()
    except FileNotFoundError:  # only ever inside a write transaction, so only one process gets here
        handle = os.open(path.with_suffix(".new"), os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600)
        with os.fdopen(handle, "wb") as file:
            file.write(os.urandom(32))
            file.flush()
            os.fsync(file.fileno())
        path.with_suffix(".new").rename(path)
        folder = os.open(path.parent, os.O_RDONLY | os.O_DIRECTORY)
        try:
            os.fsync(folder)
        finally:
            os.close(folder)
        return path.read_bytes()
