"""The tables of orders: which films somebody asked for, which film came of each, and how it stands with the RIS.

An order is on the list until its film has come, a person or the RIS has taken it off, or a day has passed. For some time after
that a late film still finds it; then it is forgotten, unless a film came of it.
"""

from __future__ import annotations

import sqlite3
from collections.abc import Iterable
from dataclasses import dataclass
from datetime import datetime, timedelta
from enum import StrEnum

import msgspec

from edge.records import Order, Trouble

LISTED = timedelta(days=1)
"""How long a registered patient is on the list."""
LATE = timedelta(days=2)
"""How long after an order has left the list a film still finds it: X-ray units send late when the network was away."""

TABLE = """
CREATE TABLE imaging_order (
    id INTEGER PRIMARY KEY,
    source TEXT NOT NULL CHECK (source IN ('ris', 'tablet')),
    key TEXT NOT NULL UNIQUE,
    content TEXT NOT NULL,
    made_by TEXT NOT NULL,
    made_at TEXT NOT NULL,
    ended TEXT CHECK (ended IN ('arrived', 'withdrawn', 'gone')),
    ended_at TEXT
) STRICT;
CREATE TABLE ordered_film (
    arrival_id INTEGER PRIMARY KEY REFERENCES arrival,
    order_id INTEGER NOT NULL REFERENCES imaging_order,
    met_at TEXT NOT NULL
) STRICT;
CREATE INDEX film_of_order ON ordered_film (order_id);
CREATE TABLE ris (
    one INTEGER PRIMARY KEY CHECK (one = 1),
    asked_at TEXT NOT NULL,
    answered_at TEXT,
    orders INTEGER NOT NULL,
    trouble TEXT,
    detail TEXT NOT NULL,
    failures INTEGER NOT NULL,
    next_at TEXT NOT NULL
) STRICT;
"""

SHARED = """
CREATE INDEX order_of_study ON imaging_order (content ->> '$.StudyInstanceUID');
CREATE INDEX order_of_accession ON imaging_order (content ->> '$.AccessionNumber');
CREATE INDEX order_of_procedure ON imaging_order (content ->> '$.RequestedProcedureID');
"""
"""A hospital's RIS has hundreds of orders a day, and each film asks for its own."""

_OWN = {"id", "source", "made_by", "made_at"}
"""What stands in columns of its own."""


class Ended(StrEnum):
    """Why an order is no longer on the list."""

    ARRIVED = "arrived"
    """Its film has come."""
    WITHDRAWN = "withdrawn"
    """A person, or the RIS, has cancelled it; no film is taken for it any more."""
    GONE = "gone"
    """The RIS no longer names it."""


def register(connection: sqlite3.Connection, order: Order, request: str) -> tuple[Order, bool]:
    """Put a patient on the list inside the caller's transaction; returns the order and whether it is new.

    `request` is the idempotency key that the page drew: the same one again, from a double tap or a retry, changes nothing.
    """
    row = connection.execute(
        "INSERT INTO imaging_order (source, key, content, made_by, made_at) VALUES (?, ?, ?, ?, ?)"
        " ON CONFLICT (key) DO NOTHING RETURNING *",
        (order.source, request, _content(order), order.made_by, order.made_at.isoformat()),
    ).fetchone()
    if row is not None:
        return _order(row), True
    return _order(connection.execute("SELECT * FROM imaging_order WHERE key = ?", (request,)).fetchone()), False


def listed(connection: sqlite3.Connection, at: datetime) -> list[Order]:
    """The patients whom the X-ray unit finds on this box's list, the first registered first."""
    rows = connection.execute(
        "SELECT * FROM imaging_order WHERE source = 'tablet' AND ended IS NULL AND made_at > ? ORDER BY id",
        ((at - LISTED).isoformat(),),
    )
    return [_order(row) for row in rows]


def withdraw(connection: sqlite3.Connection, order_id: int, at: datetime) -> bool:
    """Take a registered patient off the list inside the caller's transaction; says whether that changed anything."""
    return _end(connection, order_id, Ended.WITHDRAWN, at)


def follow(
    connection: sqlite3.Connection, orders: Iterable[Order], cancelled: Iterable[Order], at: datetime, whole: bool
) -> bool:
    """Make the RIS's orders what it says now, inside the caller's transaction; says whether any is new or changed.

    Only a `whole` answer tells that an order it does not name is gone.
    """
    named, changed = set(), False
    for order in orders:
        key, content = _key(order), _content(order)
        named.add(key)
        changed |= (
            connection.execute(
                "INSERT INTO imaging_order (source, key, content, made_by, made_at) VALUES ('ris', ?, ?, ?, ?)"
                " ON CONFLICT (key) DO UPDATE SET content = excluded.content,"
                " ended = iif(ended = 'arrived', ended, NULL), ended_at = iif(ended = 'arrived', ended_at, NULL)"
                " WHERE content <> excluded.content OR ended IN ('withdrawn', 'gone')",
                (key, content, order.made_by, at.isoformat()),
            ).rowcount
            > 0
        )
    off = {_key(order) for order in cancelled} - named
    for row in connection.execute(
        "SELECT id, key FROM imaging_order WHERE source = 'ris' AND ended IS NULL"
    ).fetchall():
        if row["key"] in off:
            _end(connection, row["id"], Ended.WITHDRAWN, at)
        elif whole and row["key"] not in named:
            _end(connection, row["id"], Ended.GONE, at)
    return changed


def _end(connection: sqlite3.Connection, order_id: int, ended: Ended, at: datetime) -> bool:
    return (
        connection.execute(
            "UPDATE imaging_order SET ended = ?, ended_at = ? WHERE id = ? AND ended IS NULL",
            (ended, at.isoformat(), order_id),
        ).rowcount
        == 1
    )


def forget(connection: sqlite3.Connection, at: datetime) -> int:
    """Remove what no film can find any more and no film came of, inside the caller's transaction; says how many.

    The last one stays, so that no number is given twice.
    """
    return connection.execute(
        "DELETE FROM imaging_order WHERE NOT EXISTS (SELECT 1 FROM ordered_film WHERE order_id = imaging_order.id)"
        " AND id < (SELECT MAX(id) FROM imaging_order) AND CASE WHEN ended_at IS NOT NULL THEN ended_at <= :late"
        " ELSE source = 'tablet' AND made_at <= :listed END",
        {"late": (at - LATE).isoformat(), "listed": (at - LISTED - LATE).isoformat()},
    ).rowcount


_FINDABLE = (
    "(ended IS NULL AND (source = 'ris' OR made_at > :listed) OR ended IN ('arrived', 'gone') AND ended_at > :late)"
)


def _times(at: datetime) -> dict[str, str]:
    return {"late": (at - LATE).isoformat(), "listed": (at - LISTED - LATE).isoformat()}


def any_findable(connection: sqlite3.Connection, at: datetime) -> bool:
    """Whether there is any order that a film could be the one of."""
    row = connection.execute(f"SELECT EXISTS (SELECT 1 FROM imaging_order WHERE {_FINDABLE})", _times(at)).fetchone()
    return bool(row[0])


def sharing(connection: sqlite3.Connection, study: str, accession: str, procedure: str, at: datetime) -> list[Order]:
    """The orders that share an identifier of the request with a film; which of them is its own, `edge.stages.match` says."""
    rows = connection.execute(
        f"SELECT * FROM imaging_order WHERE {_FINDABLE} AND (content ->> '$.StudyInstanceUID' = :study"
        " OR content ->> '$.AccessionNumber' = :accession OR content ->> '$.RequestedProcedureID' = :procedure)"
        " ORDER BY id",
        {**_times(at), "study": study or None, "accession": accession or None, "procedure": procedure or None},
    )
    return [_order(row) for row in rows]


def bind(connection: sqlite3.Connection, arrival_id: int, order: Order, at: datetime) -> bool:
    """Note that a film came of an order, inside the caller's transaction; says whether that is news."""
    known = of_film(connection, arrival_id)
    if known is not None and known.id == order.id:
        return False
    connection.execute(
        "INSERT INTO ordered_film (arrival_id, order_id, met_at) VALUES (?, ?, ?)"
        " ON CONFLICT (arrival_id) DO UPDATE SET order_id = excluded.order_id, met_at = excluded.met_at",
        (arrival_id, order.id, at.isoformat()),
    )
    _end(connection, order.id, Ended.ARRIVED, at)
    return True


def of_film(connection: sqlite3.Connection, arrival_id: int) -> Order | None:
    """The order that a film came of, or None where none is known."""
    row = connection.execute(
        "SELECT imaging_order.* FROM imaging_order JOIN ordered_film ON order_id = imaging_order.id WHERE arrival_id = ?",
        (arrival_id,),
    ).fetchone()
    return None if row is None else _order(row)


def get(connection: sqlite3.Connection, order_id: int) -> Order:
    """One order. Raises KeyError when there is none of that number."""
    row = connection.execute("SELECT * FROM imaging_order WHERE id = ?", (order_id,)).fetchone()
    if row is None:
        raise KeyError(order_id)
    return _order(row)


def expected(connection: sqlite3.Connection) -> int:
    """How many orders of the RIS have no film yet."""
    row = connection.execute("SELECT COUNT(*) FROM imaging_order WHERE source = 'ris' AND ended IS NULL").fetchone()
    return int(row[0])


def _key(order: Order) -> str:
    """By what the RIS tells an order from others."""
    ours = (order.StudyInstanceUID, order.AccessionNumber, order.RequestedProcedureID, order.ScheduledProcedureStepID)
    return msgspec.json.encode(["ris", *ours, order.PatientID, order.IssuerOfPatientID]).decode()


def _content(order: Order) -> str:
    values = msgspec.to_builtins(order)
    return msgspec.json.encode({key: value for key, value in values.items() if key not in _OWN}).decode()


def _order(row: sqlite3.Row) -> Order:
    own = {"id": row["id"], "source": row["source"], "made_by": row["made_by"], "made_at": row["made_at"]}
    return msgspec.convert({**msgspec.json.decode(row["content"]), **own}, Order)


@dataclass(frozen=True)
class Asked:
    """How it stands with the RIS."""

    asked_at: datetime
    answered_at: datetime | None
    """When it last answered properly."""
    orders: int
    """How many orders it named then."""
    trouble: Trouble | None
    """Why it gave no, or no proper, answer; an `edge.records.Trouble`."""
    detail: str
    """For the technician, in English; never a patient's data."""
    failures: int
    """In a row."""
    next_at: datetime


def note(connection: sqlite3.Connection, asked: Asked) -> None:
    """Record how the RIS answered, inside the caller's transaction."""
    values = msgspec.to_builtins(asked)
    connection.execute(
        "INSERT OR REPLACE INTO ris (one, asked_at, answered_at, orders, trouble, detail, failures, next_at)"
        " VALUES (1, :asked_at, :answered_at, :orders, :trouble, :detail, :failures, :next_at)",
        values,
    )


def asked(connection: sqlite3.Connection) -> Asked | None:
    """How the RIS answered last, or None before the first time."""
    row = connection.execute("SELECT * FROM ris").fetchone()
    return None if row is None else msgspec.convert({key: row[key] for key in row.keys() if key != "one"}, Asked)  # noqa: SIM118
