"""The hub's database in one file, for one machine (a laptop, a district hospital): the default."""

from __future__ import annotations

import os
import queue
import shutil
import sqlite3
from collections.abc import Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, closing, contextmanager
from pathlib import Path

from edge import durable
from edge.errors import Misconfigured, Transient
from edge.state.store import alone
from web.hub import store
from web.hub.transaction import Row, Transaction

DATABASE = "hub.db"
BUSY_SECONDS = 30


class _Open(Transaction):
    def __init__(self, connection: sqlite3.Connection, programme: str) -> None:
        self.connection, self.programme = connection, programme

    def _bound(self, statement: str, values: Mapping[str, object]) -> dict[str, object]:
        """The one place that keeps programmes apart here: what does not say whose it means is not carried out."""
        if self.programme and ":programme" not in statement:
            raise RuntimeError(f"a statement does not name the programme: {statement}")
        return {**values, "programme": self.programme}

    def rows(self, statement: str, **values: object) -> list[Row]:
        return list(map(dict, self.connection.execute(statement, self._bound(statement, values))))

    def run(self, statement: str, **values: object) -> int:
        return self.connection.execute(statement, self._bound(statement, values)).rowcount

    def many(self, statement: str, values: Sequence[Mapping[str, object]]) -> None:
        self.connection.executemany(statement, [self._bound(statement, one) for one in values])

    def each(self, statement: str, values: Sequence[Mapping[str, object]]) -> list[Row | None]:
        return [self.row(statement, **one) for one in values]


class Sqlite(store.Store):
    """A hub's database in `state`: WAL with `synchronous=FULL`, so that a commit that returned survives a power cut."""

    def __init__(self, state: Path) -> None:
        self._file = state / DATABASE
        self._idle: queue.SimpleQueue[sqlite3.Connection] = queue.SimpleQueue()
        try:
            durable.folder(state, 0o700)
            with alone(state):
                self._idle.put(self._connect())
                self._migrate()
        except (OSError, sqlite3.Error) as error:
            raise Misconfigured(
                f"{state}: cannot be used as the hub's state ({error}). Check the folder's owner and disk."
            ) from error

    def _connect(self) -> sqlite3.Connection:
        connection = sqlite3.connect(self._file, BUSY_SECONDS, isolation_level=None, check_same_thread=False)
        connection.row_factory = sqlite3.Row
        connection.executescript(
            "PRAGMA journal_mode=WAL; PRAGMA synchronous=FULL; PRAGMA foreign_keys=ON; PRAGMA secure_delete=ON;"
        )
        return connection

    def _migrate(self) -> None:
        with self.transaction() as db:
            has = db.row("SELECT 1 FROM sqlite_schema WHERE name = 'hub'")
            row = db.row("SELECT value FROM hub WHERE key = 'version'") if has else None
            version = int(row["value"]) if row else 0
            if version > len(store.MIGRATIONS):
                raise Misconfigured("The hub's state was written by a newer Outpost. Install that version again.")
            for script in store.MIGRATIONS[version:]:
                for statement in store.statements(script):
                    db.run(statement)
            store.migrated(db)

    @contextmanager
    def _begun(self, begin: str, programme: str) -> Iterator[Transaction]:
        try:
            connection = self._idle.get_nowait()
        except queue.Empty:
            connection = self._connect()
        try:
            connection.execute(begin)
            try:
                yield _Open(connection, store.named(programme))
            except BaseException:
                connection.execute("ROLLBACK")
                raise
            connection.execute("COMMIT")
        except sqlite3.OperationalError as error:  # busy for too long, disk full
            if connection.in_transaction:
                connection.execute("ROLLBACK")
            raise Transient(f"The hub's database cannot be written now ({error}).") from error
        finally:
            self._idle.put(connection)

    def transaction(self, programme: str = "") -> AbstractContextManager[Transaction]:
        """One writer at a time."""
        return self._begun("BEGIN IMMEDIATE", programme)

    def reading(self, programme: str = "") -> AbstractContextManager[Transaction]:
        """Beside the writer."""
        return self._begun("BEGIN", programme)

    def backup(self, file: Path) -> None:
        """Page by page, beside the writer; the file is whole once it has its name."""
        if file.exists():
            raise Misconfigured(f"{file} is there already. Name a file that is not.")
        fresh = file.with_name(f"{file.name}.new")
        try:
            fresh.unlink(missing_ok=True)
            with closing(self._connect()) as source, closing(sqlite3.connect(fresh)) as target:
                source.backup(target)
            with fresh.open("rb+") as written:
                os.fsync(written.fileno())
            fresh.rename(file)
        except (OSError, sqlite3.Error) as error:
            raise Misconfigured(f"{file} cannot be written ({error}).") from error

    def close(self) -> None:
        """Close the idle connections."""
        while not self._idle.empty():
            self._idle.get().close()


def restore(state: Path, file: Path) -> None:
    """Put a backup in the place of the database in `state`; what was there is kept beside it. Raises `Misconfigured`."""
    try:
        with closing(sqlite3.connect(f"file:{file}?mode=ro", uri=True)) as read:
            if read.execute("PRAGMA integrity_check").fetchone()[0] != "ok":
                raise Misconfigured(f"{file} is damaged. Take another backup.")
            read.execute("SELECT value FROM hub WHERE key = 'version'")
        durable.folder(state, 0o700)
        fresh = state / f"{DATABASE}.new"
        shutil.copyfile(file, fresh)
        with fresh.open("rb+") as written:
            os.fsync(written.fileno())
        with alone(state):
            for old in (f"{DATABASE}-wal", f"{DATABASE}-shm", DATABASE):
                if (state / old).exists():
                    (state / old).rename(state / old.replace(DATABASE, f"{DATABASE}.before"))
            fresh.rename(state / DATABASE)
            durable.names(state)
    except (OSError, sqlite3.Error) as error:
        raise Misconfigured(f"{file} is no backup of a hub ({error}).") from error
