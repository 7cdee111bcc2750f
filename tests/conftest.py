"""What every test may use: programs of other projects, an empty state folder, the Hypothesis profiles."""

from __future__ import annotations

import os
import shutil
from pathlib import Path
from typing import NoReturn

import pytest
from hypothesis import settings

from edge import netem

CI = bool(os.environ.get("CI"))

settings.register_profile("laptop", deadline=None)
settings.register_profile("ci", deadline=None, derandomize=True)
settings.load_profile("ci" if CI else "laptop")


def peer(name: str, package: str) -> Path:
    """The path of a program of another project and the Debian package it comes in: `peer("storescu", "dcmtk")`.

    Where it is missing the test is skipped and says what to install; in CI it fails, so that nothing goes untested unseen.
    """
    # the system's folders only: a virtual environment has a storescu of its own, pynetdicom's
    found = shutil.which(name, path=f"{os.defpath}:/usr/sbin:/sbin:/usr/local/bin")
    if found is None:
        lacking(f"{name} is missing: apt-get install {package}")
    return Path(found)


def lacking(what: str) -> NoReturn:
    """End a test for which this machine has not what it takes: skipped on a laptop, failed in CI."""
    if CI:
        pytest.fail(what)
    pytest.skip(what)


needs_bad_link = pytest.mark.skipif(bool(netem.missing()) and not CI, reason=f"no bad link: {netem.missing()}")
"""Marks a test that needs `edge/netem.py` for real; where that cannot be had the test is skipped and says why, in CI it fails."""


@pytest.fixture
def state(tmp_path: Path) -> Path:
    """An empty folder for a box's database and films."""
    folder = tmp_path / "state"
    folder.mkdir()
    return folder
