"""The hub's database in PostgreSQL, for any number of workers."""

from __future__ import annotations

import queue
import re
from collections.abc import Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, contextmanager
from functools import lru_cache
from pathlib import Path
from typing import Any

import psycopg
from psycopg.rows import dict_row

from edge.errors import Misconfigured, Transient
from web.hub import store
from web.hub.transaction import Row, Transaction

LOCK = 0x0F70
"""The advisory lock under which tables are made."""
TYPES = (
    ("INTEGER PRIMARY KEY", "BIGINT GENERATED ALWAYS AS IDENTITY PRIMARY KEY"),
    ("INTEGER", "BIGINT"),
    ("REAL", "DOUBLE PRECISION"),
    ("BLOB", "BYTEA"),
    (") STRICT", ")"),
    ("json_extract(card, '$.study')", "card::json ->> 'study'"),
    ("json_extract(card, '$.day')", "card::json ->> 'day'"),
    (") VIRTUAL", ") STORED"),
)
"""What SQLite's types are called here."""

_Connection = Any
"""A psycopg.Connection; types are checked also where psycopg is not installed."""


@lru_cache(maxsize=1024)
def _translated(statement: str) -> str:
    """A statement with psycopg's placeholders in the place of SQLite's."""
    return re.sub(r"(?<![:\w]):(\w+)", r"%(\1)s", statement.replace("%", "%%"))


class _Open(Transaction):
    hold = " FOR UPDATE"
    take = " FOR UPDATE SKIP LOCKED"

    def __init__(self, connection: _Connection, programme: str) -> None:
        self.connection, self.programme = connection, programme

    def rows(self, statement: str, **values: object) -> list[Row]:
        found = self.connection.execute(_translated(statement), {**values, "programme": self.programme})
        return list(found.fetchall())

    def run(self, statement: str, **values: object) -> int:
        changed = self.connection.execute(_translated(statement), {**values, "programme": self.programme})
        return int(changed.rowcount)

    def many(self, statement: str, values: Sequence[Mapping[str, object]]) -> None:
        with self.connection.cursor() as cursor:
            cursor.executemany(_translated(statement), [{**one, "programme": self.programme} for one in values])

    def each(self, statement: str, values: Sequence[Mapping[str, object]]) -> list[Row | None]:
        if not values:
            return []
        given = [{**one, "programme": self.programme} for one in values]
        with self.connection.cursor() as cursor:
            cursor.executemany(
                _translated(statement), given, returning=True
            )  # all leave before the first answer is read
            return [result.fetchone() for result in cursor.results()]


class Postgresql(store.Store):
    """A hub's database in PostgreSQL; every table of a programme has row-level security, which the hub's own role obeys too."""

    def __init__(self, where: str) -> None:
        self._where = where
        self._idle: queue.SimpleQueue[_Connection] = queue.SimpleQueue()
        try:
            self._idle.put(self._connect())
            self._check()
            self._migrate()
        except Misconfigured:
            self.close()
            raise
        except psycopg.Error as error:
            self.close()
            raise Misconfigured(f"database.postgresql: it cannot be used ({error}).") from error

    def _connect(self) -> _Connection:
        return psycopg.connect(
            self._where, autocommit=True, row_factory=dict_row, options="-c synchronous_commit=on", connect_timeout=10
        )

    def _check(self) -> None:
        with self.reading() as db:
            row = db.row(
                "SELECT rolsuper OR rolbypassrls AS free, current_setting('fsync') AS fsync,"
                " current_setting('server_encoding') AS encoding FROM pg_roles WHERE rolname = current_user"
            )
        assert row is not None
        if row["free"]:
            raise Misconfigured(
                "database.postgresql: this role sees every programme's rows. Use one that is no superuser and has no BYPASSRLS."
            )
        if row["fsync"] != "on" or row["encoding"] != "UTF8":
            raise Misconfigured(
                "database.postgresql: the database has to be UTF8, and its fsync on: what is acknowledged is kept."
            )

    def _migrate(self) -> None:
        with self.transaction() as db:
            db.rows("SELECT pg_advisory_xact_lock(:lock)", lock=LOCK)
            has = db.row("SELECT to_regclass('hub') IS NOT NULL AS has")
            assert has is not None
            row = db.row("SELECT value FROM hub WHERE key = 'version'") if has["has"] else None
            version = int(row["value"]) if row else 0
            if version > len(store.MIGRATIONS):
                raise Misconfigured("The hub's database was written by a newer Outpost. Install that version again.")
            for script in store.MIGRATIONS[version:]:
                for statement in store.statements(script):
                    db.run(_typed(statement))
                    for table in re.findall(r"CREATE TABLE (\w+)", statement):
                        if table not in store.DOORS:
                            self._keep_apart(db, table)
            store.migrated(db)

    def _keep_apart(self, db: Transaction, table: str) -> None:
        db.run(f"ALTER TABLE {table} ENABLE ROW LEVEL SECURITY")
        db.run(f"ALTER TABLE {table} FORCE ROW LEVEL SECURITY")
        db.run(f"CREATE POLICY own ON {table} USING (programme = current_setting('outpost.programme'))")

    @contextmanager
    def _begun(self, begin: str, programme: str) -> Iterator[Transaction]:
        """A broken connection is not used again; whoever asked may ask again."""
        of = store.named(programme)
        connection: _Connection = None
        try:
            connection = self._fresh()
            connection.execute(f"{begin}; SET LOCAL outpost.programme = '{of}'")
            yield _Open(connection, of)
            connection.execute("COMMIT")
        except psycopg.OperationalError as error:
            self.close()  # the others have most probably lost it too
            raise Transient(f"The hub's database cannot be used now ({error}).") from error
        finally:
            if connection is not None:
                self._give_back(connection)

    def _fresh(self) -> _Connection:
        while True:
            try:
                connection = self._idle.get_nowait()
            except queue.Empty:
                return self._connect()
            if not connection.closed and not connection.broken:
                return connection
            connection.close()

    def _give_back(self, connection: _Connection) -> None:
        """Whatever was not committed is undone."""
        try:
            if connection.info.transaction_status != psycopg.pq.TransactionStatus.IDLE:
                connection.execute("ROLLBACK")
            self._idle.put(connection)
        except psycopg.Error:
            connection.close()

    def transaction(self, programme: str = "") -> AbstractContextManager[Transaction]:
        """Beside others, on other rows."""
        return self._begun("BEGIN", programme)

    def reading(self, programme: str = "") -> AbstractContextManager[Transaction]:
        """One moment, whatever others commit meanwhile."""
        return self._begun("BEGIN ISOLATION LEVEL REPEATABLE READ READ ONLY", programme)

    def backup(self, file: Path) -> None:
        """PostgreSQL has programs of its own for that."""
        raise Misconfigured("database.postgresql: make its backups with pg_dump, or with pg_basebackup and its log.")

    def close(self) -> None:
        """Close the idle connections."""
        while not self._idle.empty():
            self._idle.get().close()


def _typed(statement: str) -> str:
    for here, there in TYPES:
        statement = statement.replace(here, there)
    return statement
