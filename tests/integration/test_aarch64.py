"""On an emulated ARM board: the runtimes' aarch64 wheels import, and the shipped model computes there what it shall.

Run by `build/emulate`, which makes the board; by themselves these tests are skipped.
"""

from __future__ import annotations

import os
import subprocess
from pathlib import Path

import pytest

from models.backends import BACKENDS
from tests.box import ROOT

pytestmark = [pytest.mark.emulated, pytest.mark.timeout(1500)]

SCRIPT = "from models.model import Model; from models.bundle import SHIPPED, load; Model(load(SHIPPED), runtime={!r}).self_test()"


@pytest.fixture
def board() -> Path:
    folder = os.environ.get("OUTPOST_BOARD")
    if folder is None:
        pytest.skip("needs an emulated board: build/emulate")
    return Path(folder)


def on(board: Path, *arguments: str) -> str:
    environment = {"PYTHONPATH": f"{board / 'site'}:{ROOT}", "OMP_NUM_THREADS": "1", "HOME": "/tmp"}
    python = [str(board / "debian/usr/bin/python3.11"), "-W", "ignore"]
    command = ["qemu-aarch64-static", "-L", str(board / "debian"), "-cpu", "cortex-a72", *python, *arguments]
    done = subprocess.run(command, env=environment, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    return done.stdout


@pytest.mark.parametrize("name", BACKENDS)
def test_the_wheel_is_for_the_board_and_imports(board: Path, name: str) -> None:
    module = {"litert": "ai_edge_litert.interpreter"}.get(name, BACKENDS[name].packages[0])
    assert "aarch64" in on(board, "-c", f"import platform, {module}; print(platform.machine())")


@pytest.mark.parametrize("name", BACKENDS)
def test_the_shipped_model_passes_its_self_test(board: Path, name: str) -> None:
    on(board, "-c", SCRIPT.format(name))
