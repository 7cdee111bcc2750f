"""Killed while a model is put into use, a box has the old model or the new one, whole, and the next try succeeds."""

from __future__ import annotations

import signal
import subprocess
import sys
from pathlib import Path

import pytest

from edge.state import installed
from models.bundle import SHIPPED, load
from tests import bundles
from tests.box import ROOT

STEPS = len(list(SHIPPED.iterdir())) + 6
"""Each file is synced, and their folder; it gets its name, and that is synced; the choice is synced, named, and that is synced."""


def activate(state: Path, bundle: Path, *killer: str) -> int:
    program = [str(ROOT / "tests/fault/killer.py"), *killer, "--"] if killer else []
    script = str(ROOT / "tests/fault/activate.py")
    return subprocess.run([sys.executable, *program, script, str(state), str(bundle)], cwd=ROOT, check=False).returncode


@pytest.mark.parametrize("when", ["before", "after"])
def test_killed_at_every_durable_step(tmp_path: Path, when: str) -> None:
    state = tmp_path / "state"
    named = {}
    for number in range(STEPS + 1):
        bundle = bundles.copied(tmp_path / str(number), lambda text, n=number: text + f"# {n}\n")  # type: ignore[misc]
        named[number] = load(bundle).digest
        before = installed.choice(state)
        if number == STEPS:
            assert activate(state, bundle, when, str(STEPS + 1)) == 0, (
                "there are more durable steps than this test knows"
            )
            break
        assert activate(state, bundle, when, str(number + 1)) == -signal.SIGKILL
        after = installed.choice(state)
        assert after == before or after == installed.Choice(named[number], before.current)
        for digest in {after.current, after.previous} - {installed.SHIPPED, None}:
            assert digest and load(installed.folder(state, digest)).digest == digest
        assert activate(state, bundle) == 0
        assert installed.choice(state).current == named[number]
    kept = {path.name for path in (state / "models").iterdir() if path.is_dir()}
    assert kept == {named[STEPS], named[STEPS - 1]}
