"""Whatever goes wrong between a box and its hub, in any order: what one has the other has, once and whole.

Here are a few days; `python -m tests.fault.apart 10000` is as many as you like.
"""

from __future__ import annotations

import logging
import random
import shutil
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, rule

from edge import stick
from edge.state import sync
from tests.fault.apart import BOX, HUB, PROGRAMME, SITE, Weather, World, day
from web.hub import stick as hub_stick

SIDES = st.sampled_from([BOX, HUB])
OFTEN = st.sampled_from([0.0, 0.1, 0.3])


@pytest.fixture(autouse=True)
def quiet() -> Iterator[None]:
    """Cut connections are in the hub's log by the dozen."""
    logging.disable(logging.CRITICAL)
    yield
    logging.disable(logging.NOTSET)


@pytest.mark.parametrize("seed", range(6))
def test_a_day(tmp_path: Path, seed: int) -> None:
    assert day(tmp_path, seed).ever, "nothing happened"


@pytest.mark.parametrize("database_only", [None, False, True])
def test_a_day_by_stick_alone(tmp_path: Path, database_only: bool | None) -> None:
    """No network: every stick is taken in twice at either end, and in one day the hub is restored between two of them."""
    with World(tmp_path / "world", random.Random(1)) as world:
        config = world.link.config
        carried = 0

        def there_and_back() -> None:
            nonlocal carried
            to, back = tmp_path / f"to{carried}", tmp_path / f"back{carried}.outpost"
            carried += 1
            to.mkdir()
            written = stick.export(config, to, world.at)
            for _ in range(2):
                hub_stick.take(world.hub, written.path)
            hub_stick.give(world.hub, PROGRAMME, SITE, back)
            for _ in range(2):
                stick.take(config, back, world.at)

        for size in (700, 70_000, 300_000):
            world.film(size == 700, size)
            world.say()
        world.back_up(HUB)
        there_and_back()
        assert sync.waiting(world.store) == 0, "what one stick brought and another acknowledged has arrived"
        for _ in range(4):
            world.answer()
        if database_only is not None:
            world.restore(HUB, database_only)
        world.assess_again()
        for _ in range(4):
            there_and_back()
        world.check()
        assert world.read == 0, "nothing went over the network"


class Apart(RuleBasedStateMachine):
    """Any order of what happens at the clinic, at the hub, in the air and to the power of both."""

    @initialize(seed=st.integers(0, 2**32), shares=st.tuples(OFTEN, OFTEN, OFTEN, OFTEN, OFTEN), whole=st.booleans())
    def begin(self, seed: int, shares: tuple[float, ...], whole: bool) -> None:
        self.folder = Path(tempfile.mkdtemp(prefix="outpost-apart-"))
        self.world = World(self.folder, random.Random(seed), Weather(*shares), whole).__enter__()

    @rule(urgent=st.booleans(), size=st.sampled_from([1, 700, 5_000, 33_000, 70_000]))
    def film(self, urgent: bool, size: int) -> None:
        self.world.film(urgent, size)

    @rule()
    def say(self) -> None:
        self.world.say()

    @rule()
    def assess_again(self) -> None:
        self.world.assess_again()

    @rule()
    def answer(self) -> None:
        self.world.answer()

    @rule(side=SIDES, after=st.integers(0, 30))
    def blow(self, side: str, after: int) -> None:
        self.world.blow(side, after)

    @rule(side=SIDES)
    def back_up(self, side: str) -> None:
        self.world.back_up(side)

    @rule(side=SIDES, database_only=st.booleans())
    def restore(self, side: str, database_only: bool) -> None:
        self.world.restore(side, database_only and side == HUB)

    @rule(times=st.integers(1, 8))
    def talk(self, times: int) -> None:
        for _ in range(times):
            self.world.step()

    def teardown(self) -> None:
        try:
            self.world.settle()
            self.world.check()
        finally:
            self.world.__exit__()
            shutil.rmtree(self.folder)


TestApart = Apart.TestCase
TestApart.settings = settings(max_examples=15, stateful_step_count=20, deadline=None)
