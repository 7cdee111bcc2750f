"""A reader's pages on a slow link."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from tests import reading
from tests.bench import reads
from tests.screens import launch
from web.hub.config import Config, Policy

pytestmark = pytest.mark.browser


def test_forty_films_an_hour_pass_at_512_kilobits_and_leave_time_to_look(browser: Any, tmp_path: Path) -> None:
    hub = reading.made(Config(state=str(tmp_path), policy=Policy(second_share=0)))
    with reading.serving(hub), launch(browser.browser_type, reading.trusted(hub.config)) as trusting:
        found = reads.reads(trusting, hub, 2)
    assert max(one["whole"] for one in found) < 60
