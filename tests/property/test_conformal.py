"""Conformal bands against their definition by ranks, against scipy, and against simulated sites."""

from __future__ import annotations

import math
from fractions import Fraction

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy.stats import beta, kstest, norm

from models import conformal
from models.training import bands

FILMS = st.lists(st.tuples(st.integers(0, 12), st.booleans()), max_size=60)


@given(FILMS, st.sampled_from(["0.5", "0.8", "0.9", "0.95"]), st.integers(-1, 13))
def test_the_band_is_that_of_conformal_p_values(films: list[tuple[int, bool]], coverage: str, level: int) -> None:
    """A film may have the finding unless, put among those that have, it is among the lowest: its rank is its p-value."""
    band = conformal.band([level / 12 for level, _ in films], [truth for _, truth in films], float(coverage))
    among = {kind: [one for one, truth in films if truth is kind] for kind in (True, False)}
    ranks = {True: sum(one <= level for one in among[True]), False: sum(one >= level for one in among[False])}
    may = {kind: Fraction(ranks[kind] + 1, len(among[kind]) + 1) > 1 - Fraction(coverage) for kind in (True, False)}
    expected = None if may[True] == may[False] else may[True]
    assert band.says(level / 12) is expected


@pytest.mark.parametrize(("films", "coverage"), [(19, 0.95), (59, 0.95), (99, 0.9), (200, 0.95), (3000, 0.99)])
def test_the_coverage_of_a_set_of_films_is_scipys_beta(films: int, coverage: float) -> None:
    k = int((films + 1) * (1 - Fraction(str(coverage))))
    of = beta(films + 1 - k, k)
    found = conformal.covered(films, coverage)
    assert (found.mean, found.low, found.high) == pytest.approx((of.mean(), of.ppf(0.025), of.ppf(0.975)))
    assert found.mean >= coverage


def test_simulated_sites_are_covered_as_said() -> None:
    """Binormal scores, so that a band's true coverage is known: of sets with 200 films of each kind 95 % are within 3 points."""
    draw, reached = np.random.default_rng(8), []
    for _ in range(400):
        truth = np.arange(400) < 200
        score = draw.normal(np.where(truth, 1.0, -1.0))
        band = conformal.band(list(1 / (1 + np.exp(-score))), list(truth))
        low, high = (math.log(end / (1 - end)) for end in (band.present, band.absent))
        assert low < high, "they overlap, so nothing is unlike both"
        reached += [norm.sf(low - 1.0), norm.cdf(high + 1.0)]
    assert kstest(reached, beta(191, 10).cdf).pvalue > 0.01
    assert kstest(reached, beta(190, 11).cdf).pvalue < 0.001
    assert np.mean(np.abs(np.array(reached) - 0.95) <= 0.03) == pytest.approx(0.95, abs=0.025)


def test_what_too_few_films_cannot_rule_out_may_be() -> None:
    eighteen, nineteen = (conformal.band([at / 20 for at in range(n)], [True] * n) for n in (18, 19))
    assert eighteen.present == -math.inf and eighteen.absent == math.inf
    assert nineteen.present == 0 and nineteen.says(-0.05) is False and nineteen.says(0.95) is None
    assert conformal.covered(18) == conformal.Covered(1, 1, 1)
    apart = conformal.band([0.1] * 40 + [0.9] * 40, [False] * 40 + [True] * 40)
    assert [apart.says(p) for p in (0.05, 0.1, 0.5, 0.9)] == [False, False, None, True]


def test_a_bundles_band_is_of_one_film_a_patient_and_holds_for_patients_left_out() -> None:
    draw = np.random.default_rng(3)
    truth = np.arange(3000) % 3 > 0
    p = 1 / (1 + np.exp(-draw.normal(np.where(truth, 1.0, -1.0))))
    patients = [str(n // 3) for n in range(3000)]  # each has two films with it and one without
    made, kinds = bands.band(p, truth, patients)
    assert kinds == {True: 1000, False: 1000}
    assert made == conformal.band(list(p[1::3]) + list(p[::3]), [True] * 1000 + [False] * 1000)
    told = bands.held(bands.across(p, truth, patients, 1), truth, patients, 1)
    for name, of in (("with_it_not_called_absent", 2000), ("without_it_not_called_present", 1000)):
        assert told[name]["of"] == of and told[name]["low"] < 0.95 < told[name]["high"]
    assert 0.2 < told["called_neither"]["share"] < 0.5
