"""The table of work to do: leased, never popped, so that a crash loses nothing.

A job that was tried `ATTEMPTS` times is buried; whoever buries it issues a *could not assess* in the same transaction.
"""

from __future__ import annotations

import sqlite3
import uuid
from datetime import datetime, timedelta

from edge.records import Job, Urgency

ATTEMPTS = 3

TABLE = """
CREATE TABLE job (
    id INTEGER PRIMARY KEY,
    arrival_id INTEGER NOT NULL REFERENCES arrival,
    kind TEXT NOT NULL CHECK (kind IN ('assess', 'render')),
    run INTEGER NOT NULL,
    priority INTEGER NOT NULL,
    state TEXT NOT NULL CHECK (state IN ('ready', 'leased', 'done', 'buried')),
    attempts INTEGER NOT NULL DEFAULT 0,
    due_at TEXT NOT NULL,
    lease TEXT,
    leased_until TEXT,
    last_error TEXT NOT NULL DEFAULT '',
    UNIQUE (arrival_id, kind, run)
) STRICT;
CREATE INDEX job_claim ON job (priority, due_at, id) WHERE state IN ('ready', 'leased');
"""

SCORES = """
CREATE TABLE job_new (
    id INTEGER PRIMARY KEY,
    arrival_id INTEGER NOT NULL REFERENCES arrival,
    kind TEXT NOT NULL CHECK (kind IN ('assess', 'render', 'score')),
    run INTEGER NOT NULL,
    priority INTEGER NOT NULL,
    state TEXT NOT NULL CHECK (state IN ('ready', 'leased', 'done', 'buried')),
    attempts INTEGER NOT NULL DEFAULT 0,
    due_at TEXT NOT NULL,
    lease TEXT,
    leased_until TEXT,
    last_error TEXT NOT NULL DEFAULT '',
    UNIQUE (arrival_id, kind, run)
) STRICT;
INSERT INTO job_new SELECT * FROM job;
DROP TABLE job;
ALTER TABLE job_new RENAME TO job;
CREATE INDEX job_claim ON job (priority, due_at, id) WHERE state IN ('ready', 'leased');
"""
"""The queue knows one more kind of work, `score`."""

UNRENDERED = """EXISTS (SELECT 1 FROM job WHERE job.arrival_id = delivery.arrival_id AND job.run = delivery.run
    AND job.kind = 'render' AND job.state IN ('ready', 'leased'))"""
"""For the outbox: whether the picture that belongs to a delivery's result is still to be made."""

_PRIORITY = {Urgency.STAT: 0, Urgency.HIGH: 1, Urgency.ROUTINE: 2}
_RENDER_PRIORITY = 3
_RETRY_PRIORITY = 4
_SCORE_PRIORITY = 5
"""A film that failed waits behind the others: it must not delay them."""


def add(connection: sqlite3.Connection, arrival_id: int, urgency: Urgency, at: datetime, run: int = 1) -> None:
    """Ask for an assessment, inside the caller's transaction."""
    _add(connection, arrival_id, "assess", run, _PRIORITY[urgency], at)


def add_render(connection: sqlite3.Connection, arrival_id: int, run: int, at: datetime, *, again: bool = False) -> None:
    """Ask for the picture that people look at, inside the caller's transaction; `again` also where it was made, behind others."""
    _add(connection, arrival_id, "render", run, _RENDER_PRIORITY, at)
    if again:
        connection.execute(
            "UPDATE job SET state = 'ready', attempts = 0, due_at = ?, priority = ?"
            " WHERE arrival_id = ? AND kind = 'render' AND run = ? AND state IN ('done', 'buried')",
            (at.isoformat(), _RETRY_PRIORITY, arrival_id, run),
        )


def add_score(connection: sqlite3.Connection, arrival_id: int, at: datetime) -> None:
    """Ask for a second opinion on a film that was read, behind everything else, inside the caller's transaction."""
    row = connection.execute(
        "SELECT COUNT(*), COALESCE(SUM(state IN ('ready', 'leased')), 0) FROM job WHERE arrival_id = ? AND kind = 'score'",
        (arrival_id,),
    ).fetchone()
    if not row[1]:
        _add(connection, arrival_id, "score", row[0] + 1, _SCORE_PRIORITY, at)


def _add(connection: sqlite3.Connection, arrival_id: int, kind: str, run: int, priority: int, at: datetime) -> None:
    connection.execute(
        "INSERT INTO job (arrival_id, kind, run, priority, state, due_at) VALUES (?, ?, ?, ?, 'ready', ?)"
        " ON CONFLICT DO NOTHING",
        (arrival_id, kind, run, priority, at.isoformat()),
    )


def claim(connection: sqlite3.Connection, at: datetime, seconds: float, but: str = "") -> Job | None:
    """Lease the next job that is due, most urgent first, of any kind `but` one, for so many seconds; None when there is none.

    A lease that ran out is due again. The attempt is counted here, so that a job which kills its worker is buried too.
    """
    row = connection.execute(
        "UPDATE job SET state = 'leased', lease = :lease, leased_until = :until, attempts = attempts + 1 WHERE id = ("
        " SELECT id FROM job WHERE kind <> :but"
        " AND ((state = 'ready' AND due_at <= :at) OR (state = 'leased' AND leased_until <= :at))"
        " ORDER BY priority, due_at, id LIMIT 1) RETURNING id, arrival_id, kind, run, attempts, lease",
        {
            "but": but,
            "at": at.isoformat(),
            "lease": uuid.uuid4().hex,
            "until": (at + timedelta(seconds=seconds)).isoformat(),
        },
    ).fetchone()
    return None if row is None else Job(**row)


def hasten(connection: sqlite3.Connection, arrival_id: int, urgency: Urgency) -> None:
    """Put a film's assessment forward inside the caller's transaction, never back; one that failed stays behind the others."""
    connection.execute(
        "UPDATE job SET priority = MIN(priority, ?)"
        " WHERE arrival_id = ? AND kind = 'assess' AND state = 'ready' AND attempts = 0",
        (_PRIORITY[urgency], arrival_id),
    )


def next_run(connection: sqlite3.Connection, arrival_id: int) -> int:
    """The number of the assessment that would be this film's next."""
    row = connection.execute(
        "SELECT COALESCE(MAX(run), 0) + 1 FROM job WHERE arrival_id = ? AND kind = 'assess'", (arrival_id,)
    ).fetchone()
    return int(row[0])


def finish(connection: sqlite3.Connection, job: Job) -> bool:
    """End a job inside the caller's transaction; False when its lease was lost, and then nothing may be committed."""
    return _end(connection, job, "done", "")


def bury(connection: sqlite3.Connection, job: Job, error: str) -> bool:
    """Give a job up for good inside the caller's transaction; False when its lease was lost."""
    return _end(connection, job, "buried", error)


def _end(connection: sqlite3.Connection, job: Job, state: str, error: str) -> bool:
    return (
        connection.execute(
            "UPDATE job SET state = ?, lease = NULL, leased_until = NULL, last_error = ? WHERE id = ? AND lease = ?",
            (state, error, job.id, job.lease),
        ).rowcount
        == 1
    )


def retry(connection: sqlite3.Connection, job: Job, error: str, at: datetime) -> None:
    """Try a job again at `at`, behind the others; the failure is kept for the technician."""
    connection.execute(
        "UPDATE job SET state = 'ready', lease = NULL, leased_until = NULL, due_at = ?, priority = ?, last_error = ?"
        " WHERE id = ? AND lease = ?",
        (at.isoformat(), _RETRY_PRIORITY, error, job.id, job.lease),
    )


def release(connection: sqlite3.Connection, error: str) -> int:
    """Give back what a worker that is known to be dead had leased, and say how many jobs that were."""
    return connection.execute(
        "UPDATE job SET state = 'ready', lease = NULL, leased_until = NULL, priority = ?, last_error = ?"
        " WHERE state = 'leased'",
        (_RETRY_PRIORITY, error),
    ).rowcount


def overdue(connection: sqlite3.Connection, at: datetime) -> bool:
    """Whether a lease has run out: its worker hangs or is dead."""
    row = connection.execute(
        "SELECT EXISTS (SELECT 1 FROM job WHERE state = 'leased' AND leased_until <= ?)", (at.isoformat(),)
    ).fetchone()
    return bool(row[0])


def open_jobs(connection: sqlite3.Connection, kind: str) -> int:
    """How many jobs of that kind are still to be done."""
    row = connection.execute(
        "SELECT COUNT(*) FROM job WHERE kind = ? AND state IN ('ready', 'leased')", (kind,)
    ).fetchone()
    return int(row[0])
