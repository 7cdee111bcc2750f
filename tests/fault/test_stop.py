"""A process that is asked to end does so, whichever of its threads the kernel has hear it."""

from __future__ import annotations

import subprocess
import sys

import pytest

OTHER = """
import signal, threading, time
from edge.box import stop_on_signal

stop = stop_on_signal()

def hear():
    time.sleep(1)  # the main thread waits by now
    signal.pthread_kill(threading.get_ident(), signal.{name})

threading.Thread(target=hear).start()
stop.wait()
"""


@pytest.mark.parametrize("name", ["SIGTERM", "SIGINT"])
def test_a_signal_that_another_thread_hears_ends_the_process(name: str) -> None:
    assert subprocess.run([sys.executable, "-c", OTHER.format(name=name)], timeout=60, check=False).returncode == 0
