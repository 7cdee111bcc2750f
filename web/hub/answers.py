"""The table of what the hub tells each site's box, numbered by site without a gap."""

from __future__ import annotations

import secrets

import msgspec

from edge import cards
from web.hub.transaction import Transaction

TABLE = """
CREATE TABLE answer (
    programme TEXT NOT NULL,
    site TEXT NOT NULL,
    seq INTEGER NOT NULL,
    body TEXT NOT NULL,
    chain TEXT NOT NULL,
    made_at REAL NOT NULL,
    PRIMARY KEY (programme, site, seq)
) STRICT;
"""

AT_ONCE = 64
"""So many go with one parcel."""

_body = msgspec.json.Decoder(cards.Down)


def give(db: Transaction, site: str, body: cards.Down, at: float) -> int:
    """Tell the site's box, inside the caller's transaction; gives the number."""
    row = db.row(
        "UPDATE site SET answers = answers + 1 WHERE programme = :programme AND site = :site RETURNING answers, epoch",
        site=site,
    )
    assert row is not None, site
    seq = int(row["answers"])
    db.run(
        "INSERT INTO answer (programme, site, seq, body, chain, made_at)"
        " VALUES (:programme, :site, :seq, :body, :chain, :at)",
        site=site,
        seq=seq,
        body=cards.canonical(body).decode(),
        chain=cards.chain(_chain(db, site, seq - 1) or "", cards.Answer(epoch=row["epoch"], seq=seq, body=body)),
        at=at,
    )
    return seq


def after(db: Transaction, site: str, epoch: str, upto: int, chain: str) -> tuple[str, tuple[cards.Answer, ...]]:
    """What a box with the answers to `upto` of an epoch lacks, in order, as many as go with one parcel; their epoch first.

    A box that has more than is here, or others, tells that this database was restored: all answers are then filed anew.
    """
    row = db.row(
        "SELECT epoch FROM site WHERE programme = :programme AND site = :site" + db.hold,
        site=site,
    )
    assert row is not None, site
    current = str(row["epoch"])
    if epoch != current:
        upto = 0
    elif _chain(db, site, upto) != chain:
        current, upto = _file_anew(db, site), 0
    return current, tuple(since(db, site, current, upto, AT_ONCE))


def since(db: Transaction, site: str, epoch: str, upto: int, most: int) -> list[cards.Answer]:
    """A site's answers after a number, in order, under the epoch that is theirs now."""
    rows = db.rows(
        "SELECT seq, body FROM answer WHERE programme = :programme AND site = :site AND seq > :upto"
        " ORDER BY seq LIMIT :most",
        site=site,
        upto=upto,
        most=most,
    )
    return [cards.Answer(epoch=epoch, seq=one["seq"], body=_body.decode(one["body"])) for one in rows]


def _chain(db: Transaction, site: str, seq: int) -> str | None:
    """The chain of a site's answers up to one of them; None where that one is not here."""
    if seq == 0:
        return ""
    row = db.row(
        "SELECT chain FROM answer WHERE programme = :programme AND site = :site AND seq = :seq", site=site, seq=seq
    )
    return None if row is None else str(row["chain"])


def _file_anew(db: Transaction, site: str) -> str:
    """Give all answers of a site to its box again, under a new epoch."""
    epoch, chain = secrets.token_hex(8), ""
    db.run("UPDATE site SET epoch = :epoch WHERE programme = :programme AND site = :site", site=site, epoch=epoch)
    chained = []
    for row in db.rows(
        "SELECT seq, body FROM answer WHERE programme = :programme AND site = :site ORDER BY seq", site=site
    ):
        chain = cards.chain(chain, cards.Answer(epoch=epoch, seq=row["seq"], body=_body.decode(row["body"])))
        chained.append({"site": site, "seq": row["seq"], "chain": chain})
    db.many("UPDATE answer SET chain = :chain WHERE programme = :programme AND site = :site AND seq = :seq", chained)
    return epoch
