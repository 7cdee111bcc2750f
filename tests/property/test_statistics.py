"""Statistics: equal to their definitions written out by hand, and to SciPy where it has them."""

from __future__ import annotations

import math

import numpy as np
import pytest
from hypothesis import assume, given
from hypothesis import strategies as st
from scipy.optimize import minimize
from scipy.stats import beta, mannwhitneyu

from models import statistics

FILMS = st.lists(st.tuples(st.integers(0, 12), st.booleans()), min_size=2, max_size=40)


def arrays(films: list[tuple[int, bool]]) -> tuple[np.ndarray, np.ndarray]:
    return np.array([level / 12 for level, _ in films]), np.array([truth for _, truth in films])


@given(FILMS)
def test_the_auroc_is_that_of_mann_and_whitney(films: list[tuple[int, bool]]) -> None:
    p, truth = arrays(films)
    area = statistics.auroc(p, truth)(np.ones(len(p)))
    if truth.all() or not truth.any():
        assert math.isnan(area)
        return
    assert area == pytest.approx(mannwhitneyu(p[truth], p[~truth]).statistic / (truth.sum() * (~truth).sum()))
    false, true = statistics.roc(p, truth)
    assert float(np.trapezoid(true, false)) == pytest.approx(area)


@given(FILMS, st.data())
def test_a_film_that_counts_twice_is_two_films(films: list[tuple[int, bool]], data: st.DataObject) -> None:
    p, truth = arrays(films)
    counts = np.array(data.draw(st.lists(st.integers(0, 3), min_size=len(p), max_size=len(p))))
    assume(counts.sum() > 0)
    many, were = np.repeat(p, counts), np.repeat(truth, counts)
    for statistic in (statistics.auroc, statistics.brier):
        assert statistic(p, truth)(counts.astype(float)) == pytest.approx(
            statistic(many, were)(np.ones(len(many))), nan_ok=True
        )


@given(FILMS)
def test_the_calibration_error_by_hand(films: list[tuple[int, bool]]) -> None:
    p, truth = arrays(films)
    told = statistics.reliability(p, truth)
    assert sum(number for _, _, number in told) == len(p)
    by_hand = sum(abs(said - was) * number for said, was, number in told) / len(p)
    assert statistics.calibration_error(p, truth)(np.ones(len(p))) == pytest.approx(by_hand)
    assert statistics.brier(p, truth)(np.ones(len(p))) == pytest.approx(
        np.mean([(a - b) ** 2 for a, b in zip(p, truth, strict=True)])
    )


@pytest.mark.parametrize("seed", range(5))
def test_slope_and_intercept_are_the_most_likely_ones(seed: int) -> None:
    draw = np.random.default_rng(seed)
    logit = draw.normal(0, 2, 300)
    truth = draw.random(300) < 1 / (1 + np.exp(-(0.6 * logit - 0.4)))
    counts = draw.integers(0, 3, 300).astype(float)

    def loss(at: np.ndarray) -> float:
        return float(counts @ np.logaddexp(0, np.where(truth, -1, 1) * (at[0] * logit + at[1])))

    found = statistics.slope_and_intercept(1 / (1 + np.exp(-logit)), truth, counts)
    assert found == pytest.approx(minimize(loss, [1, 0], tol=1e-10).x, abs=1e-4)


@pytest.mark.parametrize(("p", "truth"), [([0.1, 0.2, 0.8, 0.9], [0, 0, 1, 1]), ([0.1, 0.5, 0.9], [1, 1, 1])])
def test_what_no_line_fits_has_no_slope(p: list[float], truth: list[int]) -> None:
    found = statistics.slope_and_intercept(np.array(p), np.array(truth, bool), np.ones(len(p)))
    assert all(map(math.isnan, found))


def test_the_interval_holds_the_truth_as_often_as_it_says() -> None:
    """95 % of intervals, over clinics of 60 patients with one to four films each that agree; by film it would be far fewer."""
    draw = np.random.default_rng(3)
    held = 0
    for clinic in range(200):
        sizes = draw.integers(1, 5, 60)
        hits = np.repeat(draw.random(60) < 0.7, sizes)
        patients = [str(one) for one in np.repeat(np.arange(60), sizes)]
        found = statistics.share(hits, np.ones(len(hits), bool), patients, clinic, draws=300)
        held += found.low <= 0.7 <= found.high
    assert 178 <= held <= 200


@given(st.integers(1, 60), st.booleans())
def test_all_or_none_have_the_exact_bound(patients: int, hit: bool) -> None:
    films = np.full(2 * patients, hit)
    found = statistics.share(films, np.ones(len(films), bool), [str(n // 2) for n in range(len(films))], 1)
    bound = beta.ppf(0.025, patients, 1)
    assert (found.low, found.high) == pytest.approx((bound, 1) if hit else (0, 1 - bound))


def test_one_patient_has_no_interval() -> None:
    found = statistics.estimate(lambda counts: float(counts.sum()), ["a", "a"], 1)
    assert found.value == 2 and math.isnan(found.low) and math.isnan(found.high)


@given(FILMS)
def test_selective_risk_by_hand(films: list[tuple[int, bool]]) -> None:
    confidence, wrong = arrays(films)
    kept, risk = statistics.selective_risk(confidence, wrong)
    for share, error in zip(kept, risk, strict=True):
        threshold = sorted(confidence, reverse=True)[round(share * len(confidence)) - 1]
        assert error == pytest.approx(wrong[confidence >= threshold].mean())
    assert kept[-1] == 1 and risk[-1] == pytest.approx(wrong.mean())
