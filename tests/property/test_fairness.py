"""The figures of the fairness panel, held against scipy; and that no small group can be seen or worked out."""

from __future__ import annotations

import math
import random

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy.stats import binomtest, quantile_test

from edge.validity.accuracy import Share
from edge.validity.fairness import (
    SMALL,
    By,
    Measure,
    Seen,
    Verdict,
    Wait,
    between_medians,
    difference,
    group_of,
    panel,
    quantile_interval,
    shown,
    tell,
)

FILMS = st.lists(
    st.builds(
        Seen,
        sex=st.sampled_from(["F", "M", "O", "", "x"]),
        age_years=st.none() | st.floats(0, 100),
        device=st.sampled_from(["", "Acme DR 1", "Acme  DR 1", "Other"]),
        waited=st.floats(0, 1e4),
        waiting=st.booleans(),
        abstained=st.none() | st.booleans(),
        found=st.none() | st.booleans(),
    ),
    max_size=80,
)
SIZES = st.dictionaries(st.text(max_size=3), st.integers(1, 12), max_size=7)


def film(waited: float = 30, sex: str = "F", abstained: bool = False, found: bool | None = None) -> Seen:
    return Seen(sex, 30.0, "Acme", waited, False, abstained, found)


@given(st.integers(1, 400), st.sampled_from([0.5, 0.9]), st.sampled_from([0.9, 0.95, 0.99]))
def test_the_interval_of_a_quantile_is_that_of_scipy(of: int, share: float, level: float) -> None:
    values = np.sort(np.random.default_rng(of).exponential(30, of))
    oracle = quantile_test(values, p=share).confidence_interval(level)
    low, high = quantile_interval(list(values), share, level)
    assert low == (0.0 if math.isnan(oracle.low) else oracle.low)
    assert high == (math.inf if math.isnan(oracle.high) else oracle.high)


def test_the_interval_holds_the_true_median_as_often_as_it_says() -> None:
    draw, true, held = random.Random(5), 30 * math.log(2), 0
    for _ in range(2000):
        low, high = quantile_interval(sorted(draw.expovariate(1 / 30) for _ in range(25)), 0.5)
        held += low <= true <= high
    assert binomtest(held, 2000, 0.95, alternative="less").pvalue > 0.01
    assert held < 1990, "an interval that always holds says nothing"


@given(st.integers(1, 60), st.integers(1, 60), st.data())
def test_the_interval_of_a_difference_is_made_of_scipys(first: int, second: int, data: st.DataObject) -> None:
    ours = Share(data.draw(st.integers(0, first)), first)
    theirs = Share(data.draw(st.integers(0, second)), second)
    a, b = (binomtest(one.count, one.of).proportion_ci(0.9, method="wilson") for one in (ours, theirs))
    between = ours.value - theirs.value
    low, high = difference(ours, theirs, 0.9)
    assert low == pytest.approx(between - math.sqrt((ours.value - a.low) ** 2 + (b.high - theirs.value) ** 2), abs=1e-9)
    assert high == pytest.approx(
        between + math.sqrt((a.high - ours.value) ** 2 + (theirs.value - b.low) ** 2), abs=1e-9
    )
    assert -1 - 1e-9 <= low <= between <= high <= 1 + 1e-9


@given(st.lists(st.floats(0, 600), min_size=1, max_size=60), st.lists(st.floats(0, 600), min_size=1, max_size=60))
def test_medians_are_held_apart_by_intervals_that_hold_together(ours: list[float], theirs: list[float]) -> None:
    """Bonferroni: each misses its median in 2.5 % of samples, so that both hold in 95 %."""
    (low, high), (their_low, their_high) = (quantile_interval(sorted(some), 0.5, 0.975) for some in (ours, theirs))
    assert between_medians(ours, theirs) == (low - their_high, high - their_low)


def test_the_difference_of_newcombes_own_example() -> None:
    """Newcombe 1998, table II: 56/70 against 48/80 by method 10."""
    low, high = difference(Share(56, 70), Share(48, 80))
    assert (round(low, 4), round(high, 4)) == (0.0524, 0.3339)


@given(SIZES)
def test_no_hidden_group_can_be_worked_out_from_the_total(sizes: dict[str, int]) -> None:
    visible = shown(sizes)
    hidden = set(sizes) - visible
    assert all(sizes[name] >= SMALL for name in visible)
    if hidden and visible:
        assert len(hidden) > 1, "the total less the others is the only hidden one"
        assert sum(sizes[name] for name in hidden) >= SMALL
    if all(size >= SMALL for size in sizes.values()):
        assert not hidden


@given(FILMS, st.sampled_from(By), st.sampled_from(Measure))
def test_a_panel_counts_every_film_once(films: list[Seen], by: By, measure: Measure) -> None:
    told = panel(films, by, measure)
    counted = {Measure.WAIT: films, Measure.ABSTAINED: [film for film in films if film.abstained is not None]}
    of = counted.get(measure, [film for film in films if film.found is not None])
    assert sum(one.told.of for one in told.groups) <= len(of)
    if not told.hidden:
        assert sum(one.told.of for one in told.groups) == len(of)
    for one in told.groups:
        own = [film for film in of if group_of(film, by) == one.name]
        assert one.told == tell(measure, own)
        if isinstance(one.told, Wait):
            assert one.told.interval[0] <= one.told.median <= one.told.interval[1]
            assert one.told.median <= one.told.percentile90 <= one.told.longest == max(film.waited for film in own)


@given(FILMS, st.sampled_from(Measure))
def test_women_are_longer_where_men_are_shorter(films: list[Seen], measure: Measure) -> None:
    told = {one.name: one.verdict for one in panel(films, By.SEX, measure).groups}
    opposite = {Verdict.MORE: {Verdict.LESS}, Verdict.LESS: {Verdict.MORE}}
    if told.get("F") in opposite and "M" in told:
        assert told["M"] in opposite[told["F"]]


def test_what_waits_alike_is_said_only_with_enough_films() -> None:
    draw = random.Random(1)

    def waits(films: int, longer: float = 0) -> list[Seen]:
        return [film(draw.uniform(20, 60) + (longer if sex == "F" else 0), sex) for sex in "FM" for _ in range(films)]

    assert panel(waits(6), By.SEX, Measure.WAIT).verdict == (Verdict.UNSURE, [])
    assert panel(waits(300), By.SEX, Measure.WAIT).verdict == (Verdict.SAME, ["F"])
    assert panel(waits(300, longer=40), By.SEX, Measure.WAIT).verdict == (Verdict.MORE, ["F"])
    assert panel(waits(300, longer=-40), By.SEX, Measure.WAIT).verdict == (Verdict.LESS, ["F"])
    assert panel(waits(3), By.SEX, Measure.WAIT).groups == []


def test_a_missed_group_is_named_before_one_that_does_well() -> None:
    films = [film(sex=sex, found=place >= missed) for sex, missed in (("F", 30), ("M", 2)) for place in range(100)]
    assert panel(films, By.SEX, Measure.FOUND).verdict == (Verdict.LESS, ["F"])
    ages = [
        Seen("F", years, "Acme", 1, False, False, place >= missed)
        for years, missed in ((3, 40), (30, 2), (70, 2))
        for place in range(100)
    ]
    assert panel(ages, By.AGE, Measure.FOUND).verdict == (Verdict.LESS, ["0-5"])


def test_chance_alone_is_seldom_called_a_difference() -> None:
    """Of 400 sites without any difference, by five age bands each: no more than one in twenty says there is one."""
    draw, told = random.Random(9), 0
    for _ in range(400):
        films = [
            Seen("F", years, "Acme", draw.expovariate(1 / 30), False, draw.random() < 0.1, None)
            for years in (2, 10, 30, 50, 70)
            for _ in range(20)
        ]
        told += panel(films, By.AGE, Measure.ABSTAINED).verdict[0] in (Verdict.MORE, Verdict.LESS)
    assert told <= 20 + 2 * math.sqrt(20)
