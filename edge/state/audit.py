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
from collections.abc import Collection, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import datetime, timedelta
from enum import StrEnum
from pathlib import Path
from typing import Any

from edge import durable
from edge.records import Breakage

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

BY_ACTOR = """
CREATE INDEX audit_of_actor ON audit (actor, id);
"""

LOOK = timedelta(minutes=10)
"""Within it a person who opens the same film again is still looking at it."""

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
    ORDER_REGISTERED = "order_registered"
    """A person put a patient on the modality's worklist."""
    ORDER_WITHDRAWN = "order_withdrawn"
    ORDER_MET = "order_met"
    """A film was found to be the one that an order asked for."""
    ALERT_ACKNOWLEDGED = "alert_acknowledged"
    ALERT_TESTED = "alert_tested"
    CONNECTIONS_TESTED = "connections_tested"
    """A person had the box call its neighbours."""
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
    CALIBRATION_PROPOSED = "calibration_proposed"
    """A calibration was made from this site's own reads; nothing changes before it is accepted."""
    ACCEPTED = "accepted"
    TEST_PASSED = "test_passed"
    """A film of the daily test came out of the whole way as it should."""
    TEST_FAILED = "test_failed"
    """It did not, and the AI stopped."""
    DRIFT_FOUND = "drift_found"
    """The films are no longer such as they were here."""
    DRIFT_ENDED = "drift_ended"
    TRIAL_REGISTERED = "trial_registered"
    RANDOMIZED = "randomized"
    """A film was given to an arm of the trial, in the transaction of its arrival."""
    NOT_RANDOMIZED = "not_randomized"
    TRIAL_ENDED = "trial_ended"
    """All that was planned was randomized; the seed is in the record."""
    TRIAL_STOPPED = "trial_stopped"
    """A lead ended it before; the seed is in the record."""
    TRIAL_EXPORTED = "trial_exported"
    STARTED = "started"
    STOPPED = "stopped"
    TAMPERED = "tampered"
    ENROLLED = "enrolled"
    """With a hub."""
    ORDERED = "ordered"
    """The hub ordered something; the record says what, and what came of it."""
    BACKED_UP = "backed_up"
    RESTORED = "restored"
    """This box became what another one was."""
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
class Counted:
    """How often something was done with a film, and when first."""

    arrival_id: int
    event: Event
    times: int
    first: datetime


@dataclass(frozen=True)
class Break:
    """The first record where the ledger is no longer what was written."""

    id: int
    why: Breakage


def append(
    connection: sqlite3.Connection,
    event: Event,
    actor: str,
    at: datetime,
    arrival_id: int | None = None,
    **detail: Any,
) -> int:
    """Write one record inside the caller's transaction, and say its number; `detail` holds plain JSON values.

    Where the end is not what was sealed, a record of that comes first, after a gap: the new seal shall not mend what was done.
    """
    number, before = head(connection)
    if (found := _at_the_end(connection, number, before)) is not None:
        sealed = connection.execute("SELECT id FROM audit_head").fetchone()
        gap = max(number, sealed["id"] if sealed else 0) + 1
        _write(connection, gap + 1, before, Event.TAMPERED, "box", at, None, {"record": found.id, "why": found.why})
        number, before = head(connection)
    return _write(connection, number + 1, before, event, actor, at, arrival_id, detail)


def _write(
    connection: sqlite3.Connection,
    number: int,
    before: str,
    event: Event,
    actor: str,
    at: datetime,
    arrival_id: int | None,
    detail: dict[str, Any],
) -> int:
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


def page(
    connection: sqlite3.Connection, limit: int, before: int = 2**62, arrival_id: int | None = None, actor: str = ""
) -> list[Record]:
    """The last records with a lower number than `before`, newest first; of one film or one actor where they are named."""
    asked = {"before": before, "limit": limit, "arrival_id": arrival_id, "actor": actor}
    of_film = "" if arrival_id is None else " AND arrival_id = :arrival_id"
    of_actor = " AND actor = :actor" if actor else ""
    rows = connection.execute(
        f"SELECT * FROM audit WHERE id < :before{of_film}{of_actor} ORDER BY id DESC LIMIT :limit", asked
    )
    return [_record(row) for row in rows]


def actors(connection: sqlite3.Connection) -> list[str]:
    """Everyone who is in the ledger, people and processes, by name; each found by one step into the index."""
    names = connection.execute(
        "WITH RECURSIVE one (actor) AS (SELECT MIN(actor) FROM audit"
        " UNION ALL SELECT (SELECT MIN(actor) FROM audit WHERE actor > one.actor) FROM one WHERE one.actor IS NOT NULL)"
        " SELECT actor FROM one WHERE actor IS NOT NULL"
    )
    return [str(row["actor"]) for row in names]


def view(connection: sqlite3.Connection, actor: str, arrival_id: int, at: datetime) -> None:
    """Note inside the caller's transaction that a person looked at a film; see `looked`."""
    if not looked(connection, actor, arrival_id, at):
        append(connection, Event.VIEWED, actor, at, arrival_id)


def looked(connection: sqlite3.Connection, actor: str, arrival_id: int, at: datetime) -> bool:
    """Whether that a person looks at a film is in the ledger already: they go to and fro, and that is one look."""
    row = connection.execute(
        "SELECT at FROM audit WHERE arrival_id = ? AND event = ? AND actor = ? ORDER BY id DESC LIMIT 1",
        (arrival_id, Event.VIEWED, actor),
    ).fetchone()
    return row is not None and abs(at - datetime.fromisoformat(row["at"])) < LOOK


def counted(
    connection: sqlite3.Connection, arrival_ids: Collection[int], events: Collection[Event], until: datetime
) -> list[Counted]:
    """How often each of these events befell each of these films until a moment, and when first."""
    rows = connection.execute(
        "SELECT arrival_id, event, COUNT(*) AS times, MIN(at) AS first FROM audit"
        " WHERE arrival_id IN (SELECT value FROM json_each(?)) AND event IN (SELECT value FROM json_each(?)) AND at <= ?"
        " GROUP BY arrival_id, event",
        (json.dumps(list(arrival_ids)), json.dumps(list(events)), until.isoformat()),
    )
    return [
        Counted(row["arrival_id"], Event(row["event"]), row["times"], datetime.fromisoformat(row["first"]))
        for row in rows
    ]


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


def verify(connection: sqlite3.Connection, after: int = 0) -> Break | None:
    """The first place where the ledger was changed, reordered or cut, or None where it is whole.

    With `after`, the record of that number is believed and only what follows it is looked at.
    """
    with _at_one_moment(connection):
        start = connection.execute("SELECT id, hash FROM audit WHERE id = ?", (after,)).fetchone()
        before, expected = (ORIGIN, 1) if start is None else (str(start["hash"]), after + 1)
        for row in connection.execute(
            "SELECT * FROM audit WHERE id >= ? ORDER BY id", (expected if start else -(2**62),)
        ):
            if row["id"] != expected:
                return Break(expected, Breakage.MISSING)
            digest = _chained(
                before, row["id"], row["at"], row["event"], row["actor"], row["arrival_id"], row["detail"]
            )
            if digest != row["hash"]:
                return Break(expected, Breakage.CHANGED)
            before, expected = digest, expected + 1
        return _at_the_end(connection, expected - 1, before)


@contextmanager
def _at_one_moment(connection: sqlite3.Connection) -> Iterator[None]:
    """What is read inside stands as it was at its beginning, though others go on writing: records and seal belong together."""
    if connection.in_transaction:
        yield
        return
    connection.execute("BEGIN")
    try:
        yield
    finally:
        connection.execute("ROLLBACK")


def _at_the_end(connection: sqlite3.Connection, number: int, digest: str) -> Break | None:
    """What is wrong with the seal, if the last record has that number and hash."""
    sealed = connection.execute("SELECT id, seal FROM audit_head").fetchone()
    if sealed is None:
        return None if number == 0 else Break(number, Breakage.UNSEALED)
    if sealed["id"] > number:
        return Break(number + 1, Breakage.CUT)
    if sealed["id"] < number or not hmac.compare_digest(sealed["seal"], _seal(connection, number, digest)):
        return Break(number, Breakage.FOREIGN)
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
        durable.write(path, os.urandom(32))
        return path.read_bytes()
