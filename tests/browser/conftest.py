"""What every browser test may use: Debian's Chromium, and a tablet's page on which somebody is signed in."""

from __future__ import annotations

import os
from collections.abc import Iterator
from typing import Any

import pytest

from tests.screens import SHELL, launch


def _missing(what: str) -> None:
    if os.environ.get("CI"):
        pytest.fail(f"CI needs {what}")
    pytest.skip(f"needs {what}")


@pytest.fixture(scope="module")
def browser() -> Iterator[Any]:
    """Debian's Chromium; where it is missing, tests are skipped and say so, and in CI they fail."""
    try:
        from playwright.sync_api import sync_playwright
    except ImportError:
        _missing("playwright: pip install playwright axe-playwright-python")
    if not SHELL.exists():
        _missing("Chromium: apt-get install chromium-headless-shell")
    with sync_playwright() as playwright:
        chromium = launch(playwright.chromium)
        yield chromium
        chromium.close()
