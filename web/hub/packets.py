"""The tables of the sites' drift packets, a day's films in whole numbers, and of what became of the hub's orders."""

from __future__ import annotations

from edge import cards
from web.hub.transaction import Transaction

TABLE = """
CREATE TABLE packet (
    programme TEXT NOT NULL,
    site TEXT NOT NULL,
    edges TEXT NOT NULL,
    day TEXT NOT NULL,
    epoch TEXT NOT NULL,
    seq INTEGER NOT NULL,
    data BLOB NOT NULL,
    PRIMARY KEY (programme, site, edges, day)
) STRICT;
CREATE TABLE applied (
    programme TEXT NOT NULL,
    site TEXT NOT NULL,
    ordered TEXT NOT NULL,
    result TEXT NOT NULL,
    at REAL NOT NULL,
    PRIMARY KEY (programme, site, ordered)
) STRICT;
"""

ABOUT = """
ALTER TABLE applied ADD COLUMN about TEXT NOT NULL DEFAULT '';
"""


def keep(db: Transaction, site: str, packet: cards.Packet, epoch: str, seq: int) -> None:
    """A day of a site; a later one of the same edges and day replaces it, one that was overtaken on the way does not."""
    db.run(
        "INSERT INTO packet (programme, site, edges, day, epoch, seq, data)"
        " VALUES (:programme, :site, :edges, :day, :epoch, :seq, :data) ON CONFLICT (programme, site, edges, day)"
        " DO UPDATE SET epoch = excluded.epoch, seq = excluded.seq, data = excluded.data"
        " WHERE packet.epoch <> excluded.epoch OR packet.seq < excluded.seq",
        site=site,
        edges=packet.edges,
        day=packet.day,
        epoch=epoch,
        seq=seq,
        data=packet.data,
    )


def days(db: Transaction, site: str, since: str) -> list[cards.Packet]:
    """The days of a site from a date on (YYYY-MM-DD), in order."""
    rows = db.rows(
        "SELECT edges, day, data FROM packet WHERE programme = :programme AND site = :site AND day >= :since"
        " ORDER BY day, edges",
        site=site,
        since=since,
    )
    return [cards.Packet(edges=row["edges"], day=row["day"], data=bytes(row["data"])) for row in rows]


def applied(db: Transaction, site: str, what: cards.Applied, at: float) -> None:
    """What became of an order at a site."""
    db.run(
        "INSERT INTO applied (programme, site, ordered, result, about, at)"
        " VALUES (:programme, :site, :ordered, :result, :about, :at) ON CONFLICT (programme, site, ordered)"
        " DO UPDATE SET result = excluded.result, about = excluded.about, at = excluded.at",
        site=site,
        ordered=what.order,
        result=what.result,
        about=what.about,
        at=at,
    )


def results(db: Transaction, order: str) -> dict[str, str]:
    """What became of an order, by site."""
    rows = db.rows(
        "SELECT site, result FROM applied WHERE programme = :programme AND ordered = :ordered", ordered=order
    )
    return {row["site"]: row["result"] for row in rows}
