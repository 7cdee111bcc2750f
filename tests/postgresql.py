"""A real PostgreSQL of Debian's on a socket in a temporary folder, run by an unprivileged user, with its durability as it is."""

from __future__ import annotations

import os
import pwd
import shutil
import subprocess
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from itertools import count
from pathlib import Path

import pytest

from tests.conftest import CI

BINARIES = sorted(Path("/usr/lib/postgresql").glob("*/bin/initdb"))
NOBODY = pwd.getpwnam("nobody")


class Postgresql:
    """A server; each `database` is a new one, owned by the unprivileged role `hub`."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.data = folder / "data"
        self._names = count()

    def run(self, program: str, *arguments: str, **named: object) -> None:
        """Run one of its programs as the user that owns the data; it refuses to be root."""
        if os.getuid() == 0:
            named |= {"user": NOBODY.pw_uid, "group": NOBODY.pw_gid, "extra_groups": []}
        path = BINARIES[-1].with_name(program)
        subprocess.run([path, *arguments], check=True, stdout=subprocess.DEVNULL, stdin=subprocess.DEVNULL, **named)  # type: ignore[call-overload]

    def start(self) -> None:
        """Start it, and wait until it answers."""
        options = f"-k {self.folder} -c listen_addresses='' -c max_connections=60"
        self.run(
            "pg_ctl", "-D", str(self.data), "-w", "-t", "240", "-o", options, "-l", str(self.folder / "log"), "start"
        )

    def stop(self, how: str = "fast") -> None:
        """Stop it; `immediate` is as near to a power cut as it gets without one."""
        self.run("pg_ctl", "-D", str(self.data), "-w", "-t", "240", "-m", how, "stop")

    def sql(self, statement: str, database: str = "postgres") -> None:
        """Carry out a statement as the superuser."""
        self.run(
            "psql", "-q", "-v", "ON_ERROR_STOP=1", "-h", str(self.folder), "-U", "owner", "-c", statement, database
        )

    def database(self) -> str:
        """A connection string of a new, empty database."""
        name = f"hub{next(self._names)}"
        self.sql(f"CREATE DATABASE {name} OWNER hub")
        return self.where(name)

    def where(self, name: str, role: str = "hub") -> str:
        """The connection string of a database."""
        return f"host={self.folder} user={role} dbname={name}"


@contextmanager
def postgresql() -> Iterator[Postgresql]:
    """A server for the length of the block; skipped where it is not installed, in CI a failure."""
    if not BINARIES:
        missing = "PostgreSQL is missing: apt-get install postgresql"
        pytest.fail(missing) if CI else pytest.skip(missing)
    # a socket's path must be short, and intake in a thread of the tests has made tempfile's own folder that of its box
    folder = Path(tempfile.mkdtemp(prefix="outpost-pg-", dir="/tmp"))
    if os.getuid() == 0:
        os.chown(folder, NOBODY.pw_uid, NOBODY.pw_gid)
    server = Postgresql(folder)
    try:
        server.run("initdb", "-D", str(server.data), "-U", "owner", "-A", "trust", "--no-locale", "-E", "UTF8")
        server.start()
        try:
            server.sql("CREATE ROLE hub LOGIN")
            yield server
        finally:
            server.stop()
    finally:
        shutil.rmtree(folder)
