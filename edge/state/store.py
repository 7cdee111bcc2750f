"""The database: how it is opened, how a transaction is made durable, how its tables came to be."""

from __future__ import annotations

import fcntl
import os
import sqlite3
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import UTC, datetime
from pathlib import Path

from edge import durable
from edge.errors import Misconfigured
from edge.state import (
    acceptances,
    accounts,
    alerts,
    arrivals,
    audit,
    calibrations,
    connections,
    device,
    drift,
    forwarding,
    notices,
    ordered,
    orders,
    outbox,
    phantoms,
    queue,
    reads,
    results,
    scores,
    sessions,
    settled,
    setup_code,
    sync,
    trials,
    tries,
)

MIGRATIONS: tuple[str, ...] = (
    arrivals.TABLE + queue.TABLE + results.TABLE + acceptances.TABLE + notices.TABLE,
    audit.TABLE + reads.TABLE + accounts.TABLE + alerts.TABLE + results.RENDITIONS,
    outbox.TABLE,
    audit.BY_ACTOR + forwarding.TABLE + settled.TABLE,
    accounts.OWN_PIN + sessions.TABLE + tries.TABLE + setup_code.TABLE,
    orders.TABLE + results.PATIENTS,
    scores.TABLE + queue.SCORES + acceptances.PASSPORT,
    orders.SHARED,
    results.LETTERHEAD,
    calibrations.TABLE,
    drift.TABLE,
    trials.TABLE,
    phantoms.TABLE,
    device.TABLE + sync.TABLE,
    sync.SOON,
    ordered.TABLE,
    connections.TABLE,
)
"""Each is applied once, in order; `PRAGMA user_version` is how many have been."""

DATABASE = "outpost.db"
BUSY_SECONDS = 30
BUILT = datetime(2026, 11, 1, tzinfo=UTC)
"""When this version was made: no right clock shows an earlier time."""


def open_store(state: Path) -> sqlite3.Connection:
    """Open the database of a box, creating and migrating it where needed; use the connection from one thread.

    WAL with `synchronous=FULL`: a commit that returned survives a power cut.
    Raises `Misconfigured` when the folder cannot be used or a newer Outpost has written it.
    """
    try:
        durable.folder(state)
        with alone(state):
            connection = sqlite3.connect(state / DATABASE, timeout=BUSY_SECONDS, isolation_level=None)
            connection.row_factory = sqlite3.Row
            connection.executescript("PRAGMA journal_mode=WAL; PRAGMA synchronous=FULL; PRAGMA foreign_keys=ON;")
            _migrate(connection)
    except (OSError, sqlite3.Error) as error:
        raise Misconfigured(
            f"{state}: cannot be used as the box's state ({error}). Check the folder's owner and disk."
        ) from error
    return connection


@contextmanager
def alone(folder: Path) -> Iterator[None]:
    """Hold the folder's lock: SQLite does not wait for others when it turns a new database to WAL, it fails."""
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX)
        yield
    finally:
        os.close(descriptor)


def _migrate(connection: sqlite3.Connection) -> None:
    def version() -> int:
        return int(connection.execute("PRAGMA user_version").fetchone()[0])

    if version() > len(MIGRATIONS):
        raise Misconfigured(
            "The state was written by a newer Outpost. Install that version again, or use another state folder."
        )
    while (at := version()) < len(MIGRATIONS):
        with transaction(connection):
            for statement in _statements(MIGRATIONS[at]):
                connection.execute(statement)
            connection.execute(f"PRAGMA user_version = {at + 1}")


def _statements(script: str) -> Iterator[str]:
    """The script's statements, one by one: `executescript` would end the transaction."""
    statement = ""
    for line in script.splitlines():
        statement += line + "\n"
        if sqlite3.complete_statement(statement):
            yield statement
            statement = ""


@contextmanager
def transaction(connection: sqlite3.Connection) -> Iterator[sqlite3.Connection]:
    """Everything inside is committed durably when the block ends, or nothing is."""
    connection.execute("BEGIN IMMEDIATE")
    try:
        yield connection
    except BaseException:
        connection.execute("ROLLBACK")
        raise
    connection.execute("COMMIT")


def idle(connection: sqlite3.Connection) -> None:
    """Make sure that no other process has the database open. Raises `Misconfigured` where one has."""
    connection.execute("PRAGMA busy_timeout=1000")
    try:
        connection.execute("PRAGMA journal_mode=DELETE")  # which SQLite does for the last one alone
    except sqlite3.OperationalError:
        raise Misconfigured("the box is running. Stop it, and start the same again.") from None


def changes(connection: sqlite3.Connection) -> int:
    """A number that differs once any other connection has committed; cheap enough to poll."""
    return int(connection.execute("PRAGMA data_version").fetchone()[0])


def files_of(state: Path) -> list[os.stat_result]:
    """Size and time of the database's files that hold anything; they differ after every commit of any process."""
    files = (state / DATABASE, state / f"{DATABASE}-wal")
    return [status for file in files if file.exists() and (status := file.stat()).st_size]


def now() -> datetime:
    """The present moment, in UTC."""
    return datetime.now(UTC)
