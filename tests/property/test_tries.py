"""The lock-out, for any tries at any times on any clock: guesses stay few, and nobody is kept out for ever."""

from __future__ import annotations

import itertools
from contextlib import closing
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path
from tempfile import TemporaryDirectory

from hypothesis import given, settings
from hypothesis import strategies as st

from edge.state import tries
from edge.state.store import open_store, transaction

START = datetime(2026, 11, 25, tzinfo=UTC)


@dataclass(frozen=True)
class Step:
    """Time that really passed, then what somebody did to the clock, then one wrong try."""

    seconds: int
    jump: int


STEPS = st.lists(
    st.builds(
        Step,
        st.one_of(st.just(0), st.integers(0, 40), st.integers(0, 2 * 3600)),
        st.one_of(st.just(0), st.just(0), st.integers(-400_000_000, 400_000_000), st.integers(-4000, 4000)),
    ),
    max_size=40,
)


@given(STEPS, st.booleans())
@settings(max_examples=60)
def test_guesses_are_few_and_the_right_pin_gets_in_within_the_longest_wait(steps: list[Step], reopened: bool) -> None:
    with TemporaryDirectory() as folder, closing(open_store(Path(folder))) as store:
        passed, clock, checked = timedelta(0), START, list[tuple[timedelta, int]]()
        for number, step in enumerate(steps):
            passed += timedelta(seconds=step.seconds)
            clock += timedelta(seconds=step.seconds + step.jump)
            with closing(open_store(Path(folder))) as restarted, transaction(restarted if reopened else store) as used:
                left = tries.begin(used, "person", clock)
            assert timedelta(0) <= left <= tries.LONGEST
            if not left:
                checked.append((passed, number))
        # between two guesses beyond the free ones lies the wait that was imposed, or a jump of the clock
        for count, ((before, one), (after, other)) in enumerate(itertools.pairwise(checked), 1):
            jumped = any(step.jump for step in steps[one + 1 : other + 1])
            assert jumped or after - before >= tries.wait(count)
        with transaction(store):
            assert not tries.begin(store, "person", clock + tries.LONGEST), "an hour without tries is always enough"
            tries.forget(store, "person")
            assert not tries.begin(store, "person", clock)


@given(st.integers(0, 10_000))
def test_the_wait_grows_to_an_hour_and_no_further(failures: int) -> None:
    assert tries.wait(failures) <= tries.wait(failures + 1) <= tries.LONGEST
    assert (tries.wait(failures) == timedelta(0)) is (failures < tries.FREE)


def test_a_year_of_guessing_finds_few_pins() -> None:
    """What the figures of SECURITY.md rest on: guesses in a year without pause, of a million PINs."""
    with TemporaryDirectory() as folder, closing(open_store(Path(folder))) as store, transaction(store):
        at, guesses = START, 0
        while at < START + timedelta(days=365):
            left = tries.begin(store, "person", at)
            guesses += not left
            at += left or timedelta(milliseconds=1)
    assert guesses < 9_000
