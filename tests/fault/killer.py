"""Runs an Outpost command and kills it, as a power cut would, right before or after its N-th durable step.

A durable step is what the promise "acknowledged means durable" rests on: an fsync, a rename, a commit.
Usage: python killer.py {before|after} N [TABLE] -- COMMAND…    with a TABLE, only the commits of what was written there count;
with `postgresql` in its place only those of transactions in a PostgreSQL that may write
In place of the command it may be a script of the tests and what that needs.
"""

import os
import runpy
import signal
import sqlite3
import sys


class Countdown:
    """Kills this process at the N-th call, before or after the step itself."""

    def __init__(self, when: str, at: int) -> None:
        self.when = when
        self.left = at

    def around(self, step):
        def counted(*arguments, **named):
            self.left -= 1
            if self.left == 0 and self.when == "before":
                os.kill(os.getpid(), signal.SIGKILL)
            result = step(*arguments, **named)
            if self.left == 0:
                os.kill(os.getpid(), signal.SIGKILL)
            return result

        return counted


class Connection(sqlite3.Connection):
    """A connection whose COMMIT is a durable step."""

    wrote = False

    def execute(self, statement, *arguments):
        run = super().execute
        if statement == "BEGIN IMMEDIATE":
            self.wrote = not table
        self.wrote = self.wrote or statement.startswith(f"INSERT INTO {table} ")
        if statement == "COMMIT" and self.wrote:
            run = countdown.around(run)
        return run(statement, *arguments)


def commits(execute):
    """Psycopg's execute, in which the COMMIT of a transaction that may write is a durable step."""
    writing = set()

    def run(connection, statement, *arguments, **named):
        if str(statement).startswith("BEGIN"):
            (writing.discard if "READ ONLY" in statement else writing.add)(id(connection))
        step = statement == "COMMIT" and id(connection) in writing
        return (countdown.around(execute) if step else execute)(connection, statement, *arguments, **named)

    return run


split = sys.argv.index("--")
(when, at, *only), command = sys.argv[1:split], sys.argv[split + 1 :]
table = only[0] if only else ""
countdown = Countdown(when, int(at))
if not table:
    os.fsync, os.fdatasync = countdown.around(os.fsync), countdown.around(os.fdatasync)
    os.rename = countdown.around(os.rename)
connect = sqlite3.connect
sqlite3.connect = lambda *arguments, **named: connect(*arguments, **{"factory": Connection, **named})

if table == "postgresql":
    import psycopg

    psycopg.Connection.execute = commits(psycopg.Connection.execute)

if command[0].endswith(".py"):
    sys.argv = command
    runpy.run_path(command[0], run_name="__main__")
else:
    sys.argv = ["outpost", *command]
    from edge.cli import main

    main()
