"""The table of what a reader is about to say of a film: the impression that was sealed before the AI's answer was shown, and a read
that leaves for the clinic when its ten seconds of undo are over.

A read that leaves keeps its film from everybody else. It is durable from the moment it was sent: whoever asks next, box or reader,
lets it go (`flush`).
"""

from __future__ import annotations

import msgspec

from web.hub import tasks
from web.hub.accounts import Account
from web.hub.records import Finding, Reader, Record, Review
from web.hub.tasks import Rules
from web.hub.transaction import Row, Transaction

TABLE = """
CREATE TABLE draft (
    programme TEXT NOT NULL,
    task INTEGER NOT NULL,
    reader TEXT NOT NULL,
    opened_at REAL NOT NULL,
    impression TEXT NOT NULL DEFAULT '',
    finding TEXT NOT NULL DEFAULT '',
    shown_as TEXT NOT NULL DEFAULT '',
    key TEXT NOT NULL DEFAULT '',
    leaves_at REAL,
    PRIMARY KEY (programme, task, reader)
) STRICT;
CREATE INDEX draft_leaves ON draft (programme, leaves_at) WHERE leaves_at IS NOT NULL;
"""

UNDO_SECONDS = 10.0
"""So long a read can be taken back."""
APART_SECONDS = 3600.0
"""So long a film whose read leaves is kept from others, should nobody ask the hub for anything meanwhile."""

_finding = msgspec.json.Decoder(Finding)


class Draft(Record, frozen=True, kw_only=True):
    """What a reader is about to say of a film."""

    task: int
    reader: str
    opened_at: float
    impression: Finding | None
    finding: Finding | None
    """Sent, and not gone yet."""
    leaves_at: float | None


def opened(db: Transaction, task: int, reader: Reader, at: float) -> Draft:
    """The reader has opened a film; gives what they have said of it so far."""
    db.run(
        "INSERT INTO draft (programme, task, reader, opened_at) VALUES (:programme, :task, :reader, :at)"
        " ON CONFLICT (programme, task, reader) DO NOTHING",
        task=task,
        reader=reader.name,
        at=at,
    )
    draft = get(db, task, reader)
    assert draft is not None
    return draft


def get(db: Transaction, task: int, reader: Reader) -> Draft | None:
    """What the reader has said of a film so far, or None where they have not opened it."""
    row = db.row(
        "SELECT * FROM draft WHERE programme = :programme AND task = :task AND reader = :reader",
        task=task,
        reader=reader.name,
    )
    return None if row is None else _draft(row)


def seal(db: Transaction, task: int, reader: Reader, impression: Finding) -> None:
    """Keep what the reader saw before they are shown the AI's answer; the first counts."""
    db.run(
        "UPDATE draft SET impression = :impression WHERE programme = :programme AND task = :task AND reader = :reader"
        " AND impression = ''",
        task=task,
        reader=reader.name,
        impression=msgspec.json.encode(impression).decode(),
    )


def leave(db: Transaction, task: int, reader: Reader, account: Account, finding: Finding, key: str, at: float) -> bool:
    """Send a read, which leaves in ten seconds; False where the reader no longer has the film."""
    mine = db.run(
        "UPDATE task SET lease_by = '', lease_until = :apart WHERE programme = :programme AND id = :task"
        " AND lease_by = :reader AND lease_until > :at AND done_at IS NULL",
        task=task,
        reader=reader.name,
        at=at,
        apart=at + APART_SECONDS,
    )
    if not mine:
        return False
    db.run(
        "UPDATE draft SET finding = :finding, shown_as = :shown, key = :key, leaves_at = :leaves"
        " WHERE programme = :programme AND task = :task AND reader = :reader",
        task=task,
        reader=reader.name,
        finding=msgspec.json.encode(finding).decode(),
        shown=account.name,
        key=key,
        leaves=at + UNDO_SECONDS,
    )
    return True


def take_back(db: Transaction, task: int, reader: Reader, lease_seconds: float, at: float) -> bool:
    """Take a read back that has not left yet: the reader has the film again; False where it is too late."""
    back = db.run(
        "UPDATE draft SET finding = '', key = '', leaves_at = NULL WHERE programme = :programme AND task = :task"
        " AND reader = :reader AND leaves_at > :at",
        task=task,
        reader=reader.name,
        at=at,
    )
    if back:
        db.run(
            "UPDATE task SET lease_by = :reader, lease_until = :until WHERE programme = :programme AND id = :task",
            task=task,
            reader=reader.name,
            until=at + lease_seconds,
        )
    return back == 1


def flush(db: Transaction, rules: Rules, at: float, all_of: Reader | None = None) -> list[Review]:
    """Let every read go whose ten seconds are over, and all of a reader who signs out; gives those that went."""
    rows = db.rows(
        "SELECT * FROM draft WHERE programme = :programme AND leaves_at IS NOT NULL"
        f" AND (leaves_at <= :at OR reader = :whose) ORDER BY leaves_at{db.take}",
        at=at,
        whose=all_of.name if all_of else "",
    )
    gone = []
    for row in rows:
        reader = Reader(programme=db.programme, name=row["reader"])
        finding = _finding.decode(row["finding"])
        review = tasks.finish(db, reader, row["shown_as"], row["task"], finding, row["key"], rules, at)
        db.run(
            "DELETE FROM draft WHERE programme = :programme AND task = :task AND reader = :reader",
            task=row["task"],
            reader=row["reader"],
        )
        if review is not None:
            gone.append(review)
    return gone


def leaving(db: Transaction, reader: Reader, at: float) -> Draft | None:
    """The read that the reader can still take back, or None."""
    row = db.row(
        "SELECT * FROM draft WHERE programme = :programme AND reader = :reader AND leaves_at > :at"
        " ORDER BY leaves_at DESC LIMIT 1",
        reader=reader.name,
        at=at,
    )
    return None if row is None else _draft(row)


def _draft(row: Row) -> Draft:
    return Draft(
        task=row["task"],
        reader=row["reader"],
        opened_at=row["opened_at"],
        impression=_finding.decode(row["impression"]) if row["impression"] else None,
        finding=_finding.decode(row["finding"]) if row["finding"] else None,
        leaves_at=row["leaves_at"],
    )
