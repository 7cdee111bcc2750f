"""The hub's bench replays a day as boxes send it, reads it, and says what it measured; here with few films and no ratio to hold."""

from __future__ import annotations

from pathlib import Path

import pytest

from web.hub import bench
from web.hub.config import Config, Policy


def test_the_bench_takes_a_day_and_reads_it(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(bench, "SECONDS", 0.2)
    monkeypatch.setattr(bench, "READERS", 2)
    figures = bench.measured(Config(state=str(tmp_path), policy=Policy(second_share=0)), 80, 2)
    assert figures["open films"] >= 80 and figures["claims"] == 2 * bench.CLAIMS
    assert min(figures.values()) > 0
    said = bench.told(
        {"machine": "m", "load before": 0.1, "studies": 80, "sqlite": figures, "postgresql": "not measured"}
    )
    assert "(aim 1500)" in said and "not measured" in said
