"""The table of how far the ledger has been sent to an audit record repository; the ledger itself is the spool."""

from __future__ import annotations

import sqlite3
from dataclasses import dataclass
from datetime import datetime, timedelta

from edge.records import Receipt, Trouble
from edge.state.outbox import FIRST, PEER_CAP, back_off

TABLE = """
CREATE TABLE forwarding (
    repository TEXT PRIMARY KEY,
    id INTEGER NOT NULL,
    before INTEGER NOT NULL,
    sent_at TEXT NOT NULL,
    failures INTEGER NOT NULL,
    since TEXT NOT NULL,
    due_at TEXT NOT NULL,
    trouble TEXT NOT NULL,
    detail TEXT NOT NULL
) STRICT;
"""
"""`id` is the last record that the repository has taken, `before` the last of the batch before that one."""

DOUBT = timedelta(minutes=1)
"""A repository that is gone so soon after it took a batch may have died with it in memory: it is given that batch again."""


@dataclass(frozen=True)
class Forwarding:
    """How it stands with one repository."""

    id: int
    """The last record that it has taken."""
    before: int
    sent_at: datetime | None
    failures: int
    since: datetime | None
    """Since when it takes nothing."""
    due_at: datetime | None
    trouble: Trouble | None
    detail: str

    def due(self, at: datetime) -> bool:
        """Whether it may be asked now; a moment beyond every wait was written under a clock that was wrong."""
        return self.due_at is None or not at < self.due_at <= at + PEER_CAP


def standing(connection: sqlite3.Connection, repository: str) -> Forwarding:
    """How it stands with a repository; one that is new shall get the whole ledger."""
    row = connection.execute("SELECT * FROM forwarding WHERE repository = ?", (repository,)).fetchone()
    if row is None:
        return Forwarding(0, 0, None, 0, None, None, None, "")
    return Forwarding(
        id=row["id"],
        before=row["before"],
        sent_at=_moment(row["sent_at"]),
        failures=row["failures"],
        since=_moment(row["since"]),
        due_at=_moment(row["due_at"]),
        trouble=Trouble(row["trouble"]) if row["trouble"] else None,
        detail=row["detail"],
    )


def taken(connection: sqlite3.Connection, repository: str, last: int, at: datetime) -> None:
    """Note inside the caller's transaction that a repository has read everything up to the record `last`."""
    before = standing(connection, repository).id
    _put(connection, repository, (last, before, at.isoformat(), 0, "", "", "", ""))


def failed(connection: sqlite3.Connection, repository: str, receipt: Receipt, at: datetime) -> None:
    """Note inside the caller's transaction that a repository takes nothing; it is asked less and less often."""
    stood = standing(connection, repository)
    doubtful = stood.failures == 0 and stood.sent_at is not None and abs(at - stood.sent_at) < DOUBT
    last = stood.before if doubtful else stood.id
    failures = stood.failures + 1
    due = at + back_off(failures, FIRST, PEER_CAP, repository)
    since = stood.since or at
    sent_at = stood.sent_at.isoformat() if stood.sent_at else ""
    told = (receipt.trouble or "", receipt.detail)
    _put(connection, repository, (last, stood.before, sent_at, failures, since.isoformat(), due.isoformat(), *told))


def _put(connection: sqlite3.Connection, repository: str, values: tuple[object, ...]) -> None:
    connection.execute("INSERT OR REPLACE INTO forwarding VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?)", (repository, *values))


def _moment(text: str) -> datetime | None:
    return datetime.fromisoformat(text) if text else None
