"""The table of what people, and the hub itself, have done to the fleet; append-only, each line chained to the one before."""

from __future__ import annotations

import hashlib
from typing import Any

import msgspec

from web.hub.records import Act
from web.hub.transaction import Row, Transaction

TABLE = """
CREATE TABLE act (
    programme TEXT NOT NULL,
    seq INTEGER NOT NULL,
    at REAL NOT NULL,
    actor TEXT NOT NULL,
    act TEXT NOT NULL,
    detail TEXT NOT NULL,
    chain TEXT NOT NULL,
    PRIMARY KEY (programme, seq)
) STRICT;
"""

HUB = ""
"""In the place of a person: the hub did it by itself."""


def append(db: Transaction, actor: str, act: str, at: float, **detail: Any) -> None:
    """Write down what was done, inside the transaction that does it."""
    db.rows("SELECT programme FROM programme WHERE programme = :programme" + db.hold)  # one after the other
    last = db.row("SELECT * FROM act WHERE programme = :programme ORDER BY seq DESC LIMIT 1")
    line: dict[str, Any] = {
        "seq": 1 if last is None else last["seq"] + 1,
        "at": at,
        "actor": actor,
        "act": act,
        "detail": msgspec.json.encode(detail, order="sorted").decode(),
    }
    db.run(
        "INSERT INTO act (programme, seq, at, actor, act, detail, chain)"
        " VALUES (:programme, :seq, :at, :actor, :act, :detail, :chain)",
        **line,
        chain=_chain("" if last is None else last["chain"], line),
    )


def acts(db: Transaction, most: int = 2**62) -> list[Act]:
    """What was done last, the latest first."""
    rows = db.rows("SELECT * FROM act WHERE programme = :programme ORDER BY seq DESC LIMIT :most", most=most)
    return [
        Act(seq=row["seq"], at=row["at"], actor=row["actor"], act=row["act"], detail=msgspec.json.decode(row["detail"]))
        for row in rows
    ]


def broken(db: Transaction) -> int | None:
    """The number of the first line that is not what was written, or that is missing; None where all are there."""
    chain, number = "", 0
    for number, row in enumerate(db.rows("SELECT * FROM act WHERE programme = :programme ORDER BY seq"), 1):
        if row["seq"] != number or row["chain"] != (chain := _chain(chain, row)):
            return number
    return None


def _chain(before: str, line: Row) -> str:
    said = [before, line["seq"], line["at"], line["actor"], line["act"], line["detail"]]
    return hashlib.sha256(msgspec.json.encode(said)).hexdigest()
