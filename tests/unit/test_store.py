"""The database as several processes open it."""

from __future__ import annotations

import subprocess
import sys
import tempfile
from pathlib import Path

OPEN = """
import sys
from pathlib import Path
from edge.state.store import open_store
for line in sys.stdin:
    open_store(Path(line.strip())).close()
    print("open", flush=True)
"""


def test_processes_that_open_a_new_state_at_once_wait_for_each_other(tmp_path: Path) -> None:
    openers = [
        subprocess.Popen([sys.executable, "-c", OPEN], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
        for _ in range(4)
    ]
    try:
        for _ in range(50):
            state = tempfile.mkdtemp(dir=tmp_path)
            for opener in openers:
                assert opener.stdin is not None
                opener.stdin.write(f"{state}\n")
                opener.stdin.flush()
            for opener in openers:
                assert opener.stdout is not None
                assert opener.stdout.readline() == "open\n"
    finally:
        for opener in openers:
            opener.communicate()
