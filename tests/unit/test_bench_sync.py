"""What the bench of sync makes of arrivals: outages are nobody's fault, and what never came is not left out."""

from __future__ import annotations

import io
import json
import sys
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner

from edge import bench, bench_sync
from edge.bench_sync import OURS, Run
from edge.cards import Lane
from edge.errors import Misconfigured
from edge.netem import Count, Link, Profile

BEGIN = 1000.0


def ran(*arrived: float | None) -> Run:
    """A run on a link that is up 45 s and down 20 s; each item is told at its start, and has arrived so many seconds after it."""
    link = Link(Profile(up=45, down=20))
    link.start = BEGIN
    link.count = lambda: (Count(carried=1000), Count())  # type: ignore[method-assign]
    plan = [{"number": number, "lane": Lane.URGENT, "at": 0.0} for number in range(len(arrived))]
    plan += [{"number": 100 + number, "lane": Lane.URGENT_IMAGE, "at": 40.0} for number in range(len(arrived))]
    run = Run(OURS, Path(), link, plan, BEGIN)
    for number, seconds in enumerate(arrived):
        if seconds is not None:
            said = {"at": BEGIN + seconds, "names": [str(number)], "kept": 10 * (number + 1)}
            run.hear(io.StringIO(json.dumps(said) + "\n"))
    return run


def test_outages_do_not_count() -> None:
    assert ran(10.0, 60.0, 70.0).waits(Lane.URGENT, BEGIN + 200) == [(10.0, True), (45.0, True), (50.0, True)]


def test_what_never_came_waits_until_the_end_and_makes_a_lower_bound() -> None:
    figures: Any = bench_sync.summary([ran(1.0, None, 3.0)], BEGIN + 65)
    assert (figures["result"]["count"], figures["result"]["arrived"]) == (3, 2)
    assert figures["result"]["p95"] == 45.0
    assert figures["result"]["p95 is a lower bound"]
    assert figures["prefix"]["arrived"] == 0
    assert figures["prefix"]["p95"] == 5.0
    assert figures["kept of what used the link"] == pytest.approx(0.03)
    assert not bench_sync.summary([ran(1.0, 2.0, 3.0)], BEGIN + 65)["result"]["p95 is a lower bound"]


@pytest.mark.parametrize("number", range(bench_sync.LINKS))
def test_a_day_leaves_time_for_what_was_urgent_last(number: int) -> None:
    for _, every in bench_sync.PROFILES.values():
        plan = bench_sync.day(number, every)
        urgent = [one["at"] for one in plan if one["lane"] == Lane.URGENT]
        assert len(urgent) >= 4
        assert max(urgent) < bench_sync.SECONDS - bench_sync.LAST_SECONDS
        assert sum(one["lane"] == Lane.BULK for one in plan) == bench_sync.BACKLOG


@pytest.mark.parametrize("options", [(), ("--sync",)])
def test_without_a_checkout_the_bench_says_that_it_needs_one(
    options: tuple[str, ...], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, "tests.bench", None)
    said = CliRunner().invoke(bench.bench, options).exception
    assert isinstance(said, Misconfigured) and "needs a checkout of the project" in str(said)
