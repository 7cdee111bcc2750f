"""The table of what the hub has ordered of this box, how much of an ordered model is here, and what came of each order."""

from __future__ import annotations

import sqlite3
from dataclasses import dataclass
from datetime import datetime

import msgspec

from edge import cards
from edge.cards import Order, What
from edge.records import Carried

TABLE = """
DROP TABLE IF EXISTS sync_order;
CREATE TABLE ordered (
    name TEXT PRIMARY KEY,
    number INTEGER NOT NULL,
    body TEXT NOT NULL,
    taken_at TEXT NOT NULL,
    have INTEGER NOT NULL DEFAULT 0,
    tries INTEGER NOT NULL DEFAULT 0,
    aim TEXT NOT NULL DEFAULT '',
    result TEXT,
    about TEXT NOT NULL DEFAULT '',
    done_at TEXT
) STRICT;
CREATE INDEX ordered_open ON ordered (number) WHERE result IS NULL;
"""
"""`have` is how many bytes of the ordered object are here durably; `tries` counts before each, `aim` is where it leads."""


@dataclass(frozen=True)
class Held:
    """An order, and how far it is."""

    order: Order
    have: int
    tries: int
    aim: str
    result: Carried | None
    about: str
    at: datetime
    """When it was carried out or refused; when it came, before that."""


def take(connection: sqlite3.Connection, order: Order, at: datetime) -> None:
    """Keep an order, inside the caller's transaction; the same again changes nothing.

    What came of a model before its order was overtaken is there for the next order of it.
    """
    connection.execute(
        "INSERT INTO ordered (name, number, body, taken_at, have) VALUES (:name, :number, :body, :at, COALESCE((SELECT MAX(have)"
        " FROM ordered WHERE body ->> 'sha256' = :sha256 AND (result IS NULL OR result = :overtaken)), 0)) ON CONFLICT DO NOTHING",
        {
            "name": order.order,
            "number": order.number,
            "body": cards.canonical(order).decode(),
            "at": at.isoformat(),
            "sha256": order.sha256,
            "overtaken": Carried.OVERTAKEN,
        },
    )


def pending(connection: sqlite3.Connection) -> list[Held]:
    """The orders that nothing has come of yet, the latest first."""
    return _all(connection, "WHERE result IS NULL ORDER BY number DESC, name")


def latest(connection: sqlite3.Connection) -> Held | None:
    """The latest order, whatever came of it; None before the first."""
    return next(iter(_all(connection, "ORDER BY number DESC, name LIMIT 1")), None)


def wanted(connection: sqlite3.Connection) -> Held | None:
    """The latest order, where it is a model of which not all bytes are here."""
    found = latest(connection)
    if found is None or found.result is not None or found.order.what != What.MODEL:
        return None
    return found if found.have < found.order.size else None


def keep(connection: sqlite3.Connection, name: str, have: int) -> None:
    """Note how many bytes of the ordered object are here durably, inside the caller's transaction."""
    connection.execute("UPDATE ordered SET have = ? WHERE name = ?", (have, name))


def try_(connection: sqlite3.Connection, name: str, aim: str) -> None:
    """Count a try before it is made, and note where it leads, inside the caller's transaction."""
    connection.execute("UPDATE ordered SET tries = tries + 1, aim = ? WHERE name = ?", (aim, name))


def settle(connection: sqlite3.Connection, name: str, result: Carried, about: str, at: datetime) -> None:
    """Note what came of an order, inside the caller's transaction."""
    connection.execute(
        "UPDATE ordered SET result = ?, about = ?, done_at = ? WHERE name = ?", (result, about, at.isoformat(), name)
    )


def _all(connection: sqlite3.Connection, rest: str) -> list[Held]:
    return [
        Held(
            order=msgspec.json.decode(row["body"], type=Order),
            have=row["have"],
            tries=row["tries"],
            aim=row["aim"],
            result=None if row["result"] is None else Carried(row["result"]),
            about=row["about"],
            at=datetime.fromisoformat(row["done_at"] or row["taken_at"]),
        )
        for row in connection.execute(f"SELECT * FROM ordered {rest}")
    ]
