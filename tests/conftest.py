"""What every test may use: programs of other projects, an empty state folder, the Hypothesis profiles."""

from __future__ import annotations

import os
import shutil
from pathlib import Path

import pytest
from hypothesis import settings

CI = bool(os.environ.get("CI"))

settings.register_profile("laptop", deadline=None)
settings.register_profile("ci", deadline=None, derandomize=True)
settings.load_profile("ci" if CI else "laptop")

PACKAGES = {
    "storescu": "dcmtk",
    "storescp": "dcmtk",
    "echoscu": "dcmtk",
    "dcmdump": "dcmtk",
    "dcmodify": "dcmtk",
    "dcmcjpeg": "dcmtk",
    "dcmcjpls": "dcmtk",
    "dcmcrle": "dcmtk",
    "chromium": "chromium",
    "ip": "iproute2",
    "unshare": "util-linux",
}
"""Command → the Debian package it comes in."""


def peer(name: str, package: str = "") -> Path:
    """The path of a program of another project: `peer("storescu")`; `package` is Debian's, where the table lacks it.

    Where it is missing the test is skipped and says what to install; in CI it fails, so that nothing goes untested unseen.
    """
    found = shutil.which(name, path=f"{os.environ.get('PATH', '')}:/usr/sbin:/sbin")
    if found is None:
        missing = f"{name} is missing: apt-get install {package or PACKAGES.get(name, name)}"
        pytest.fail(missing) if CI else pytest.skip(missing)
    return Path(found)


@pytest.fixture
def state(tmp_path: Path) -> Path:
    """An empty folder for a box's database and films."""
    folder = tmp_path / "state"
    folder.mkdir()
    return folder
