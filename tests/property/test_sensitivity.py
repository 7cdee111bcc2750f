"""The CUSUM on audited reads against scipy, and against simulated clinics whose model finds fewer from some day on."""

from __future__ import annotations

import math
from itertools import islice

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy import stats

from edge.validity.planning import Programme, days_to_find_misses, reads
from edge.validity.sensitivity import BAD, GOOD, Audited, chart, estimate, evidence, limit

SHARES = st.sampled_from([0.05, 0.1, 0.3, 1.0])
FILMS = st.lists(st.builds(Audited, st.booleans(), SHARES), max_size=60)
ILL_A_DAY = 30 * 0.08
"""Of 30 films a day, 8 % abnormal."""


@given(detected=st.booleans(), share=SHARES)
def test_the_evidence_is_scipys_likelihood_ratio(detected: bool, share: float) -> None:
    """Of a film that is raised, or missed and then read by lot, given that it is one of the two."""
    chances = [p / (p + (1 - p) * share) for p in (GOOD, BAD)]
    before, after = (stats.bernoulli(chance).logpmf(detected) for chance in chances)
    assert evidence(Audited(detected, share)) == pytest.approx(after - before)


@given(films=FILMS)
def test_the_chart_is_that_of_the_textbook(films: list[Audited]) -> None:
    """Page's recursion: the largest sum of evidence over any stretch that ends with the latest film, or nought."""
    steps = [evidence(film) for film in films]
    for at, height in enumerate(chart(films)):
        assert height == pytest.approx(max(0.0, *(sum(steps[start : at + 1]) for start in range(at + 1))), abs=1e-9)
    early = chart(films[:20])
    assert chart(films) == [*early, *chart(films[20:], height=early[-1] if early else 0.0)]


@given(share=SHARES)
def test_a_miss_speaks_for_a_bad_model_and_more_the_more_were_read(share: float) -> None:
    assert evidence(Audited(False, share)) > 0 > evidence(Audited(True, share))
    assert evidence(Audited(True, share)) >= evidence(Audited(True, 1.0))


def read(programme: Programme, sensitivity: float, days: int, *seed: int) -> list[Audited]:
    """What is read in so many days."""
    return [film for day in islice(reads(np.random.default_rng(seed), programme, sensitivity), days) for film in day]


def test_a_model_that_finds_fewer_is_found_by_ten_clinics_in_two_weeks() -> None:
    assert np.median(list(days_to_find_misses(Programme(10), iter(range(60))))) <= 14
    assert 28 <= np.median(list(days_to_find_misses(Programme(1), iter(range(60))))) <= 65


def test_what_is_read_is_what_the_programme_says() -> None:
    films = read(Programme(4, share=0.3), 0.85, 1000, 7)
    missed = sum(not film.detected for film in films)
    assert len(films) - missed == pytest.approx(ILL_A_DAY * 4 * 0.85 * 1000, rel=0.05)
    assert missed == pytest.approx(ILL_A_DAY * 4 * 0.15 * 0.3 * 1000, rel=0.15)


def test_one_false_alarm_a_year() -> None:
    """Fresh years at the good sensitivity: e^-1 of them are quiet, as far as 200 years can tell."""
    a_year = round(ILL_A_DAY * (GOOD + (1 - GOOD) * 0.1) * 365)
    most = limit([0.1], a_year, seed=1)
    quiet = sum(max(chart(read(Programme(1), GOOD, 365, 2, seed))) <= most for seed in range(200))
    low, high = stats.binom(200, math.exp(-1)).ppf([0.001, 0.999])
    assert low <= quiet <= high


def test_limits_are_the_same_for_the_same_seed_and_grow_with_the_reads() -> None:
    assert limit([0.1, 1.0], 300, 3) == limit([0.1, 1.0], 300, 3)
    assert limit([1.0], 300, 3) < limit([1.0], 3000, 3)


def test_the_estimate_covers_what_is_true_when_misses_are_read_by_lot() -> None:
    covered = 0
    for seed in range(400):
        draw = np.random.default_rng([4, seed])
        told = estimate(read(Programme(4, float(draw.choice([0.1, 0.3]))), 0.85, 60, 5, seed))
        assert told is not None
        covered += told.low <= 0.85 <= told.high
    assert covered >= stats.binom(400, 0.95).ppf(0.001)


@given(films=FILMS)
def test_the_estimate_is_a_share_within_its_interval(films: list[Audited]) -> None:
    told = estimate(films)
    assert (told is None) is (films == [])
    if told is not None:
        assert 0 <= told.low <= told.value <= told.high <= 1
        assert told.detected + told.missed == len(films)
        if all(film.share == 1 for film in films):
            assert told.value == pytest.approx(told.detected / len(films))
