"""A short run of the fuzz target; a long one is started by hand."""

from __future__ import annotations

import os
import subprocess
import sys
from importlib.util import find_spec
from pathlib import Path

import pytest

from tests.box import ROOT

RUNS = 1500


@pytest.mark.skipif(find_spec("atheris") is None and "CI" not in os.environ, reason="pip install atheris==3.0.0")
def test_no_bytes_bring_the_line_down(tmp_path: Path) -> None:
    done = subprocess.run(
        [
            sys.executable,
            str(ROOT / "tests/fuzz/fuzz_film.py"),
            f"-runs={RUNS}",
            "-seed=1",
            "-max_len=4096",
            "-rss_limit_mb=2048",
        ],
        cwd=tmp_path,
        env={**os.environ, "PYTHONPATH": str(ROOT)},
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stderr[-4000:]
    assert f"Done {RUNS} runs" in done.stderr
