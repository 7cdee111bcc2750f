"""How the hub remembers: transactions on one of two databases, SQLite for a laptop, PostgreSQL for any number of workers.

Both speak the same SQL here; the SQL of a table stands in one module, and what differs between the two in `sqlite.py` and
`postgresql.py`. Everything that belongs to a programme is read and written inside a transaction of that programme, and every
statement in it names `:programme`; PostgreSQL keeps programmes apart by row-level security besides.
"""

from __future__ import annotations

import abc
import re
import time
from collections.abc import Iterator
from contextlib import AbstractContextManager
from pathlib import Path

from edge.errors import Misconfigured
from web.hub import accounts, answers, archives, drafts, films, inbox, ledger, packets, rollouts, sites, taken, tasks
from web.hub.config import Config
from web.hub.transaction import Transaction

HUB = """
CREATE TABLE hub (
    key TEXT PRIMARY KEY,
    value TEXT NOT NULL
) STRICT;
"""

MIGRATIONS: tuple[str, ...] = (
    HUB + sites.TABLE + inbox.TABLE + films.TABLE + tasks.TABLE + answers.TABLE + packets.TABLE,
    accounts.TABLE + drafts.TABLE,
    packets.ABOUT + ledger.TABLE + rollouts.TABLE,
    archives.TABLE + films.STUDIES,
    films.CHANGES,
    taken.TABLE,
    films.DROPPED,
    rollouts.REMOVED,
)
"""Each is applied once, in order; `hub.version` is how many have been. Written for SQLite; PostgreSQL has other names of types."""

DOORS = frozenset({"hub", "programme", "device", "enrolment", "account", "session", "browser", "tries", "archive"})
"""Tables that are asked before anybody knows whose programme it is; all others are kept apart by programme."""

PROGRAMME = re.compile("[a-z0-9][a-z0-9_-]{0,62}")


class Store(abc.ABC):
    """A database of a hub; any number of threads may use it."""

    @abc.abstractmethod
    def transaction(self, programme: str = "") -> AbstractContextManager[Transaction]:
        """Everything inside is committed durably when the block ends, or nothing is.

        Without a programme only the tables of `DOORS` can be reached. Raises `Transient` when the database cannot be reached.
        """

    @abc.abstractmethod
    def reading(self, programme: str = "") -> AbstractContextManager[Transaction]:
        """A view of one moment that changes nothing and waits for nobody."""

    @abc.abstractmethod
    def backup(self, file: Path) -> None:
        """Write all of it to a new file while it is at work. Raises `Misconfigured` where that is done otherwise."""

    @abc.abstractmethod
    def close(self) -> None:
        """Give the connections back."""


def migrated(db: Transaction) -> None:
    """Note inside the caller's transaction that all migrations were applied."""
    db.run(
        "INSERT INTO hub (key, value) VALUES ('version', :value) ON CONFLICT (key) DO UPDATE SET value = excluded.value",
        value=str(len(MIGRATIONS)),
    )


def open_store(config: Config) -> Store:
    """The store that the settings name, created and migrated where needed.

    Raises `Misconfigured` when it cannot be used or a newer Outpost has written it.
    """
    if config.database.postgresql:
        try:
            from web.hub.postgresql import Postgresql
        except ImportError as error:
            raise Misconfigured(
                f"database.postgresql: {error}. Install it with pip install 'outpost-cxr[hub]'."
            ) from None
        return Postgresql(config.database.postgresql)
    from web.hub.sqlite import Sqlite

    return Sqlite(Path(config.state))


def statements(script: str) -> Iterator[str]:
    """The statements of a migration, one by one."""
    for statement in script.split(";\n"):
        if statement.strip():
            yield statement


def named(programme: str) -> str:
    """A programme's name, once it is sure to be one. Raises ValueError."""
    if programme and not PROGRAMME.fullmatch(programme):
        raise ValueError(f"{programme!r} is no programme's name")
    return programme


def now() -> float:
    """The present moment, in seconds since 1970."""
    return time.time()
