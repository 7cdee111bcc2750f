"""Killed at any moment of the daily test: no test film is ever a patient's, and the next test comes to its end."""

from __future__ import annotations

import signal
import subprocess
import sys
from contextlib import closing
from pathlib import Path

from edge.state import audit, phantoms
from edge.state.audit import Event
from edge.state.objects import Objects
from edge.state.store import open_store
from models.bundle import SHIPPED, load
from tests.box import ROOT

STEPS = 40
"""More durable steps than one test has."""


def test_killed_at_every_durable_step(tmp_path: Path) -> None:
    state, struck = tmp_path / "state", 0
    open_store(state).close()
    for step in range(1, STEPS):
        killer = [str(ROOT / "tests/fault/killer.py"), "after", str(step), "--"]
        script = [str(ROOT / "tests/fault/phantom.py"), str(state)]
        ended = subprocess.run([sys.executable, *killer, *script], cwd=ROOT, env={"PYTHONPATH": str(ROOT)}).returncode
        with closing(open_store(state)) as store:
            passed = [one for one in audit.records(store) if one.event is Event.TEST_PASSED]
            judged = store.execute("SELECT COUNT(*) FROM phantom WHERE judged_at IS NOT NULL").fetchone()[0]
            assert len(passed) == judged, "a verdict and its record are one"
            assert audit.verify(store) is None
            assert store.execute("SELECT COUNT(*) FROM arrival").fetchone()[0] == 0
        if ended == 0:
            break
        assert ended == -signal.SIGKILL
        struck += 1
    with closing(open_store(state)) as store:
        (film,) = store.execute("SELECT sha256 FROM phantom WHERE judged_at IS NOT NULL").fetchone()
        beside = [one for one in Objects(state).path(film).parent.iterdir() if one.name != film]
        assert struck >= (8 if beside else 9), "in each part of the way; a folder that is there need not be made"
        verdict = phantoms.verdict(store, load(SHIPPED).digest)
        assert verdict is not None and verdict.why == ""
        assert not store.execute("SELECT 1 FROM phantom WHERE sha256 IS NOT NULL AND judged_at IS NULL").fetchall()
