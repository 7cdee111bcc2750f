"""Runs an Outpost command and kills it, as a power cut would, right before or after its N-th durable step.

A durable step is what the promise "acknowledged means durable" rests on: an fsync, a rename, a commit.
Usage: python killer.py {before|after} N -- COMMAND…
"""

import os
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

    def execute(self, statement, *arguments):
        run = super().execute
        if statement == "COMMIT":
            run = countdown.around(run)
        return run(statement, *arguments)


when, at, _, *command = sys.argv[1:]
countdown = Countdown(when, int(at))
os.fsync = countdown.around(os.fsync)
os.rename = countdown.around(os.rename)
connect = sqlite3.connect
sqlite3.connect = lambda *arguments, **named: connect(*arguments, **{"factory": Connection, **named})

sys.argv = ["outpost", *command]
from edge.cli import main  # noqa: E402  after the steps are wrapped

main()
