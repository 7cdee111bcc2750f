"""The table of what has to leave: one row for each result, or person's decision, and sink; written together with what it sends.

Nothing is ever given up. A result that a peer refuses is tried again less and less often by itself and delays no other; a peer that
fails, or refuses one result after another, is asked less and less often as a whole, with one result at a time. Moments are kept, so
that a reboot changes none of this.
"""

from __future__ import annotations

import hashlib
import sqlite3
from collections.abc import Collection
from datetime import datetime, timedelta

import msgspec

from edge.config import Config
from edge.records import Delivery, Outcome, Read, ReadKind, Receipt, Trouble, Way
from edge.state import audit, queue, reads

TABLE = """
CREATE TABLE delivery (
    id INTEGER PRIMARY KEY,
    sink TEXT NOT NULL,
    arrival_id INTEGER NOT NULL REFERENCES arrival,
    run INTEGER NOT NULL,
    read_id INTEGER NOT NULL,
    priority INTEGER NOT NULL,
    state TEXT NOT NULL CHECK (state IN ('waiting', 'sent', 'refused', 'delivered')),
    attempts INTEGER NOT NULL DEFAULT 0,
    refusals INTEGER NOT NULL DEFAULT 0,
    made_at TEXT NOT NULL,
    due_at TEXT NOT NULL,
    trouble TEXT NOT NULL DEFAULT '',
    detail TEXT NOT NULL DEFAULT '',
    transaction_uid TEXT NOT NULL DEFAULT '',
    UNIQUE (sink, arrival_id, run, read_id)
) STRICT;
CREATE INDEX delivery_of_film ON delivery (sink, arrival_id);
CREATE INDEX delivery_open ON delivery (sink) WHERE state <> 'delivered';
CREATE INDEX delivery_warned ON delivery (sink) WHERE trouble = 'warned';
CREATE TABLE sink (
    name TEXT PRIMARY KEY,
    failures INTEGER NOT NULL,
    in_a_row INTEGER NOT NULL,
    since TEXT NOT NULL,
    due_at TEXT NOT NULL,
    trouble TEXT NOT NULL,
    detail TEXT NOT NULL
) STRICT;
"""
"""`read_id` is 0 for the assessment itself; `sent` waits for the peer to commit; `sink` has a row while a peer fails or refuses."""

FIRST = timedelta(seconds=2)
PEER_CAP = timedelta(minutes=15)
"""A peer in trouble is asked at least this often, so that everything arrives soon after it is mended."""
RESULT_FIRST = timedelta(minutes=1)
RESULT_CAP = timedelta(hours=6)
COMMITMENT = timedelta(hours=1)
"""A peer that has not committed by then is given the result again: it has it, or it needs it."""
PICTURE = timedelta(minutes=2)
"""So long a result waits for the film's picture, which old PACS show; then it goes without."""
IN_A_ROW = 3
"""So many results refused one after another, and it is the peer."""
TRIES = 4
"""So often a result may go before less urgent ones; after that, those get their turn, should it be what takes the peer down."""

OF_THE_PEER = {
    Trouble.UNREACHABLE,
    Trouble.TLS,
    Trouble.KEPT_OUT,
    Trouble.HANGS,
    Trouble.CLOSED,
    Trouble.FULL,
    Trouble.BUSY,
    Trouble.NOT_CONFIGURED,
}
"""Whatever result it is, it would not arrive."""

_PRIORITY = {Outcome.IMMEDIATE: 0, Outcome.SOON: 1, Outcome.COULD_NOT_ASSESS: 1, Outcome.ROUTINE: 2}
_OPEN = """(delivery.state <> 'delivered' AND NOT (delivery.state = 'refused' AND EXISTS (
    SELECT 1 FROM delivery AS later WHERE later.sink = delivery.sink AND later.arrival_id = delivery.arrival_id
    AND later.id > delivery.id AND later.state = 'delivered')))"""
"""A result that was refused is not sent after a later one of the same film: what is preliminary never follows what is final."""


def back_off(times: int, first: timedelta, cap: timedelta, key: str) -> timedelta:
    """How long to wait after so many failures in a row: doubled each time, up to `cap`, less up to a quarter by `key`.

    The part that is taken off differs by key and times, so that many results, or boxes, do not come back together.
    """
    whole = min(first * 2.0 ** min(max(times, 1) - 1, 30), cap)
    draw = hashlib.sha256(f"{key} {times}".encode()).digest()[0] / 255
    return whole * (1 - draw / 4)


def of_result(
    connection: sqlite3.Connection, config: Config, arrival_id: int, run: int, outcome: Outcome, at: datetime
) -> None:
    """Have an assessment sent to every sink, inside the transaction that records it; a second time changes nothing."""
    _add(connection, config, arrival_id, run, 0, outcome, at, at)


def of_read(connection: sqlite3.Connection, config: Config, read: Read) -> None:
    """Have a person's decision sent to every sink, inside the transaction that records it; a second time changes nothing.

    It goes once the person can no longer take it back. An impression stays here: it is what a person said before they had seen
    everything.
    """
    if read.kind is not ReadKind.IMPRESSION:
        outcome, due = read.outcome or Outcome.IMMEDIATE, read.at + reads.UNDO
        _add(connection, config, read.arrival_id, read.run, read.id, outcome, read.at, due)


def take_back(connection: sqlite3.Connection, read: Read) -> None:
    """Have a decision that was taken back in time sent to nobody, inside the transaction that takes it back."""
    connection.execute("DELETE FROM delivery WHERE read_id = ? AND attempts = 0", (read.id,))


def _add(
    connection: sqlite3.Connection,
    config: Config,
    arrival_id: int,
    run: int,
    read_id: int,
    outcome: Outcome,
    at: datetime,
    due: datetime,
) -> None:
    connection.executemany(
        "INSERT INTO delivery (sink, arrival_id, run, read_id, priority, state, made_at, due_at)"
        " VALUES (?, ?, ?, ?, ?, 'waiting', ?, ?) ON CONFLICT DO NOTHING",
        [
            (sink.name, arrival_id, run, read_id, _PRIORITY[outcome], at.isoformat(), due.isoformat())
            for sink in config.sinks
        ],
    )


_DUE = f"""
SELECT delivery.* FROM delivery LEFT JOIN sink ON sink.name = delivery.sink
WHERE delivery.sink IN (SELECT value FROM json_each(:sinks)) AND {_OPEN}
    AND (delivery.due_at <= :at OR delivery.due_at > :absurd)
    AND (sink.name IS NULL OR sink.due_at <= :at OR sink.due_at > :absurd)
    AND NOT EXISTS (SELECT 1 FROM delivery AS earlier WHERE earlier.sink = delivery.sink
        AND earlier.arrival_id = delivery.arrival_id AND earlier.id < delivery.id AND earlier.state = 'waiting')
    AND NOT (delivery.made_at BETWEEN :picture AND :at AND {queue.UNRENDERED})
ORDER BY delivery.attempts / {TRIES}, delivery.priority, delivery.attempts, delivery.id LIMIT 1
"""
"""A moment beyond every wait was written under a clock that was wrong."""


def due(connection: sqlite3.Connection, sinks: Collection[str], at: datetime) -> bool:
    """Whether there is something to send to one of these sinks now."""
    return _due(connection, sinks, at) is not None


def _due(connection: sqlite3.Connection, sinks: Collection[str], at: datetime) -> sqlite3.Row | None:
    asked = {
        "sinks": msgspec.json.encode(list(sinks)).decode(),
        "at": at.isoformat(),
        "absurd": (at + RESULT_CAP).isoformat(),
        "picture": (at - PICTURE).isoformat(),
    }
    row: sqlite3.Row | None = connection.execute(_DUE, asked).fetchone()
    return row


def claim(connection: sqlite3.Connection, sinks: Collection[str], at: datetime) -> Delivery | None:
    """The next delivery that is due to one of these sinks, inside the caller's transaction; None when there is none.

    The attempt is counted and the next one set before anything is sent: whatever takes the box down is no storm.
    """
    row = _due(connection, sinks, at)
    if row is None:
        return None
    delivery = Delivery(
        id=row["id"],
        sink=row["sink"],
        arrival_id=row["arrival_id"],
        run=row["run"],
        read_id=row["read_id"] or None,
        attempts=row["attempts"] + 1,
        made_at=datetime.fromisoformat(row["made_at"]),
        transaction_uid=_transaction_uid(row),
    )
    again = at + back_off(delivery.attempts, FIRST, PEER_CAP, f"{delivery.sink} {delivery.id}")
    connection.execute(
        "UPDATE delivery SET attempts = ?, due_at = ?, trouble = ?, detail = '', transaction_uid = ?,"
        " state = CASE state WHEN 'sent' THEN 'waiting' ELSE state END WHERE id = ?",
        (delivery.attempts, again.isoformat(), Trouble.INTERRUPTED, delivery.transaction_uid, delivery.id),
    )
    peer = connection.execute("SELECT * FROM sink WHERE name = ? AND failures > 0", (delivery.sink,)).fetchone()
    if peer is not None:
        connection.execute(
            "UPDATE sink SET due_at = ? WHERE name = ?",
            ((at + back_off(peer["failures"], FIRST, PEER_CAP, delivery.sink)).isoformat(), delivery.sink),
        )
    return delivery


def _transaction_uid(row: sqlite3.Row) -> str:
    named = f"{row['sink']} {row['id']} {row['made_at']} {row['attempts']}"
    return f"2.25.{int(hashlib.sha256(named.encode()).hexdigest()[:32], 16)}"


def settle(
    connection: sqlite3.Connection, delivery: Delivery, receipt: Receipt, at: datetime, peer_is_well: bool = False
) -> None:
    """Note what became of an attempt, in the outbox and the ledger, inside the caller's transaction.

    `peer_is_well` says that the peer answers otherwise, so that a result over which it hangs or closes is the one to blame.
    """
    trouble = receipt.trouble
    if trouble is None or trouble is Trouble.WARNED:
        connection.execute("DELETE FROM sink WHERE name = ?", (delivery.sink,))
        if receipt.awaits:
            _set(connection, delivery.id, "sent", at + COMMITMENT, receipt)
        elif (
            _set(connection, delivery.id, "delivered", at, receipt) and receipt.taken
        ):  # some films have nothing to send
            _record(connection, audit.Event.EXPORTED, delivery, at, uids=list(receipt.taken), **_told(receipt))
    elif trouble in OF_THE_PEER and not peer_is_well:
        if _set(connection, delivery.id, None, at, receipt):
            _fails(connection, delivery.sink, receipt, at)
    else:
        _refuse(connection, delivery, receipt, at)


def commit(
    connection: sqlite3.Connection, transaction_uid: str, kept: tuple[str, ...], missing: str, at: datetime
) -> bool:
    """Note what a peer says of a storage commitment, inside the caller's transaction; False where nobody asked for it.

    `kept` are the objects it commits to; `missing` says which it does not, and why; empty where it commits to all of them.
    """
    row = connection.execute(
        "SELECT * FROM delivery WHERE transaction_uid = ? AND transaction_uid <> '' AND state <> 'delivered'",
        (transaction_uid,),
    ).fetchone()
    if row is None:
        return False
    delivery = Delivery(
        row["id"],
        row["sink"],
        row["arrival_id"],
        row["run"],
        row["read_id"] or None,
        row["attempts"],
        datetime.fromisoformat(row["made_at"]),
        transaction_uid,
    )
    warned = Trouble(row["trouble"]) if row["trouble"] == Trouble.WARNED else None
    receipt = Receipt(Trouble.NOT_COMMITTED, missing, kept) if missing else Receipt(warned, row["detail"], kept)
    settle(connection, delivery, receipt, at)
    return True


def _set(
    connection: sqlite3.Connection, delivery_id: int, state: str | None, due_at: datetime, receipt: Receipt
) -> bool:
    """What is delivered stays so: a commitment may come before the attempt that asked for it has ended."""
    return (
        connection.execute(
            "UPDATE delivery SET state = COALESCE(?, state), due_at = ?, trouble = ?, detail = ?"
            " WHERE id = ? AND state <> 'delivered'",
            (state, due_at.isoformat(), receipt.trouble or "", receipt.detail, delivery_id),
        ).rowcount
        == 1
    )


def _fails(connection: sqlite3.Connection, sink: str, receipt: Receipt, at: datetime) -> None:
    row = connection.execute("SELECT failures FROM sink WHERE name = ?", (sink,)).fetchone()
    failures = 1 if row is None else int(row["failures"]) + 1
    connection.execute(
        "INSERT INTO sink (name, failures, in_a_row, since, due_at, trouble, detail) VALUES (?, ?, 0, ?, ?, ?, ?)"
        " ON CONFLICT DO UPDATE SET failures = excluded.failures, due_at = excluded.due_at,"
        " trouble = excluded.trouble, detail = excluded.detail",
        (
            sink,
            failures,
            at.isoformat(),
            (at + back_off(failures, FIRST, PEER_CAP, sink)).isoformat(),
            receipt.trouble or "",
            receipt.detail,
        ),
    )


def _refuse(connection: sqlite3.Connection, delivery: Delivery, receipt: Receipt, at: datetime) -> None:
    row = connection.execute(
        "UPDATE delivery SET refusals = refusals + 1 WHERE id = ? AND state <> 'delivered' RETURNING refusals",
        (delivery.id,),
    ).fetchone()
    if row is None:
        return
    again = back_off(row["refusals"], RESULT_FIRST, RESULT_CAP, f"{delivery.sink} {delivery.id}")
    _set(connection, delivery.id, "refused", at + again, receipt)
    if row["refusals"] > 1:
        return
    _record(connection, audit.Event.EXPORT_REFUSED, delivery, at, **_told(receipt))
    if receipt.trouble is Trouble.NOT_MADE:  # the peer has not even been asked
        return
    row = connection.execute(
        "INSERT INTO sink (name, failures, in_a_row, since, due_at, trouble, detail) VALUES (?, 0, 1, ?, ?, ?, ?)"
        " ON CONFLICT DO UPDATE SET in_a_row = in_a_row + 1 RETURNING in_a_row",
        (delivery.sink, at.isoformat(), at.isoformat(), receipt.trouble or "", receipt.detail),
    ).fetchone()
    if row["in_a_row"] >= IN_A_ROW:
        _fails(connection, delivery.sink, receipt, at)


def _record(
    connection: sqlite3.Connection, event: audit.Event, delivery: Delivery, at: datetime, **detail: object
) -> None:
    what = {"sink": delivery.sink, "run": delivery.run, "attempts": delivery.attempts}
    if delivery.read_id is not None:
        what["read"] = delivery.read_id
    audit.append(connection, event, "courier", at, delivery.arrival_id, **what, **detail)


def _told(receipt: Receipt) -> dict[str, str]:
    return {} if receipt.trouble is None else {"trouble": receipt.trouble, "detail": receipt.detail}


def unsent(connection: sqlite3.Connection) -> dict[int, datetime]:
    """By film, since when something of it has not been sent."""
    rows = connection.execute(
        f"SELECT arrival_id, MIN(made_at) AS since FROM delivery WHERE {_OPEN} GROUP BY arrival_id"
    )
    return {row["arrival_id"]: datetime.fromisoformat(row["since"]) for row in rows}


def ways(connection: sqlite3.Connection, config: Config) -> list[Way]:
    """How it stands with each sink of the settings, and with those that have left them with something unsent."""
    rows = connection.execute(
        "SELECT delivery.sink, COUNT(*) AS waiting, SUM(delivery.state = 'refused') AS refused,"
        " MIN(delivery.made_at) AS oldest,"
        " MIN(MAX(delivery.due_at, COALESCE(sink.due_at, ''))) AS next_at"
        f" FROM delivery LEFT JOIN sink ON sink.name = delivery.sink WHERE {_OPEN} GROUP BY delivery.sink"
    )
    unsent = {row["sink"]: row for row in rows}
    warned = {
        row["sink"]: row
        for row in connection.execute(
            "SELECT sink, COUNT(*) AS count, MAX(detail) AS detail FROM delivery WHERE trouble = 'warned' GROUP BY sink"
        )
    }
    peers = {row["name"]: row for row in connection.execute("SELECT * FROM sink WHERE failures > 0")}
    refusals: dict[str, sqlite3.Row] = {}
    for row in connection.execute(
        "SELECT sink, trouble, MAX(detail) AS detail FROM delivery WHERE state = 'refused' AND trouble <> ?"
        " GROUP BY sink, trouble ORDER BY COUNT(*) DESC, trouble",
        (Trouble.INTERRUPTED,),  # being tried again just now
    ):
        refusals.setdefault(row["sink"], row)
    named = [sink.name for sink in config.sinks]
    found = []
    for name in [*named, *sorted(set(unsent) - set(named))]:
        row, peer, refusal = unsent.get(name), peers.get(name), refusals.get(name)
        said = peer or refusal or warned.get(name)
        trouble = Trouble(peer["trouble"]) if peer is not None else None
        found.append(
            Way(
                sink=name,
                waiting=0 if row is None else row["waiting"],
                refused=0 if row is None else row["refused"],
                refusal=None if refusal is None or row is None else Trouble(refusal["trouble"]),
                warned=warned[name]["count"] if name in warned else 0,
                oldest=None if row is None else datetime.fromisoformat(row["oldest"]),
                trouble=trouble if name in named else Trouble.NOT_CONFIGURED,
                detail="" if said is None else said["detail"],
                since=None if peer is None else datetime.fromisoformat(peer["since"]),
                next_at=None if row is None or name not in named else datetime.fromisoformat(row["next_at"]),
            )
        )
    return found
