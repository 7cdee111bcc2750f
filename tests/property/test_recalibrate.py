"""Re-calibration against scipy, against simulated sites, and whatever reads there are."""

from __future__ import annotations

import hashlib

import msgspec
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.optimize import isotonic_regression, minimize  # type: ignore[import-untyped]
from scipy.special import expit, logit  # type: ignore[import-untyped]

from edge.validity import recalibrate
from edge.validity.calibration import Calibration, Fitted, Isotonic, Platt
from edge.validity.recalibrate import FOLDS, ISOTONIC_FROM, Label, fit, lacking, pava, reliability
from models import platt

POINTS = {"balanced": 0.3, "sensitive": 0.1}


def site(number: int, seed: int, prevalence: float = 0.08, bias: float = 1.0, pull: float = 1.5) -> list[Label]:
    """A site whose model is biased and too sure of itself, each film of a patient of its own."""
    draw = np.random.default_rng(seed)
    true = draw.normal(logit(prevalence), 1.2, number)
    seen = draw.random(number) < expit(true)
    said = expit(true * pull + bias)
    return [Label(f"patient {n}", float(p), bool(y)) for n, (p, y) in enumerate(zip(said, seen, strict=True))]


def error(
    fitted: Fitted, seed: int, bias: float = 1.0, pull: float = 1.5, prevalence: float = 0.08
) -> tuple[float, float]:
    """Mean distance from the truth on new films of such a site, before and after."""
    true = np.random.default_rng(seed).normal(logit(prevalence), 1.2, 4000)
    said = expit(true * pull + bias)
    after = np.array([fitted.map.apply(float(one))[0] for one in said])
    return float(np.abs(said - expit(true)).mean()), float(np.abs(after - expit(true)).mean())


@settings(max_examples=60, deadline=None)
@given(
    st.integers(0, 2**32 - 1),
    st.integers(1, 300),
    st.floats(0.05, 20),
    st.floats(-8, 8),
    st.sampled_from(["drawn", "all", "none", "apart"]),
)
def test_ridge_platt_is_the_minimum_that_scipy_finds(
    seed: int, number: int, spread: float, shift: float, kind: str
) -> None:
    draw = np.random.default_rng(seed)
    logits = draw.normal(shift, spread, number)
    kinds = {
        "drawn": draw.random(number) < expit(logits / 2),
        "all": np.ones(number, bool),
        "none": np.zeros(number, bool),
        "apart": logits > shift,
    }
    seen = kinds[kind].astype(np.int64)

    def loss(at: np.ndarray) -> float:
        z = at[0] * logits + at[1]
        return float(np.sum(np.logaddexp(0, z) - seen * z) + ((at[0] - 1) ** 2 + 0.1 * at[1] ** 2) / 2)

    slope, intercept, (variance, _both, _last) = platt.fit(logits, seen)
    assert variance > 0
    found = minimize(loss, [1.0, 0.0], method="Nelder-Mead", options={"xatol": 1e-9, "fatol": 1e-12, "maxiter": 4000})
    assert loss(np.array([slope, intercept])) <= found.fun + 1e-7 * max(1, abs(found.fun))


@settings(max_examples=100, deadline=None)
@given(st.lists(st.tuples(st.floats(0, 1), st.integers(1, 50)), min_size=1, max_size=40))
def test_pooled_neighbours_are_those_of_scipy(pairs: list[tuple[float, int]]) -> None:
    values, weights = (np.array(one, np.float64) for one in zip(*pairs, strict=True))
    expected = isotonic_regression(values, weights=weights).x
    found = np.empty(len(values))
    for block in pava(values, weights):
        found[block] = np.average(values[block], weights=weights[block])
    assert np.allclose(found, expected, atol=1e-12)


@pytest.mark.parametrize(("number", "within"), [(100, 0.95), (400, 0.55), (1000, 0.45), (3000, 0.25), (6000, 0.45)])
def test_more_reads_bring_the_probabilities_nearer_to_the_truth(number: int, within: float) -> None:
    errors = []
    for seed in range(10):
        # whether there are ten abnormal ones among a hundred is chance
        fitted = fit(site(number, seed, prevalence=0.1), POINTS)
        if fitted is not None:
            assert isinstance(fitted.map, Isotonic if number > ISOTONIC_FROM else Platt)
            errors.append(error(fitted, 100 + seed, prevalence=0.1))
    before, after = np.mean(errors, axis=0)
    assert len(errors) >= 5
    assert after < within * before


def test_one_temperature_could_not_do_it() -> None:
    labels = site(1000, 1, bias=2.0, pull=1.0)
    fitted = fit(labels, POINTS)
    assert fitted is not None
    true = np.random.default_rng(5).normal(logit(0.08), 1.2, 4000)
    said = true + 2.0
    best = min(float(np.abs(expit(said * scale) - expit(true)).mean()) for scale in np.linspace(0.05, 5, 200))
    assert error(fitted, 5, bias=2.0, pull=1.0)[1] < best / 2


def test_a_model_that_is_right_is_hardly_changed() -> None:
    fitted = fit(site(2000, 3, bias=0.0, pull=1.0), POINTS)
    assert fitted is not None
    assert error(fitted, 4, bias=0.0, pull=1.0)[1] < 0.01


@settings(max_examples=200, deadline=None)
@given(st.integers(0, 160), st.integers(0, 160), st.integers(1, 200))
def test_nothing_is_made_of_too_few(abnormal: int, normal: int, patients: int) -> None:
    labels = [Label(str(n % patients), 0.2 + 0.6 * (n % 7) / 7, n < abnormal) for n in range(abnormal + normal)]
    more = lacking(labels)
    people = len({label.patient for label in labels})
    enough = len(labels) >= 100 and abnormal >= 10 and normal >= 10 and people >= FOLDS
    assert (more == 0) is enough
    assert (fit(labels, POINTS) is not None) is enough
    grown = [Label(f"new {n}", 0.5, n % 2 == 0) for n in range(2 * more)]
    assert lacking([*labels, *grown]) == 0, "twice what was asked for, half of it abnormal, is always enough"


@settings(max_examples=30, deadline=None)
@given(st.integers(0, 2**32 - 1), st.integers(120, 400), st.floats(-2, 2), st.floats(0.5, 2))
def test_a_map_rises_and_keeps_within_its_interval(seed: int, number: int, bias: float, pull: float) -> None:
    labels = site(number, seed, 0.3, bias, pull)
    seen = np.array([label.abnormal for label in labels], np.int64)
    logits = logit(np.array([label.probability for label in labels]))
    for made in (recalibrate._platt(logits, seen), recalibrate._isotonic(logits, seen)):
        steps = [made.apply(float(one)) for one in np.linspace(0, 1, 101)]
        values = [value for value, _, _ in steps]
        if not isinstance(made, Platt) or made.slope >= 0:
            assert values == sorted(values)
        assert all(0 <= low <= value <= high <= 1 for value, low, high in steps)
        assert all(0 < value < 1 for value in values), "never is never said"


def test_nobody_is_judged_by_a_map_that_they_taught(monkeypatch: pytest.MonkeyPatch) -> None:
    taught: list[np.ndarray] = []
    made = recalibrate._isotonic
    monkeypatch.setattr(recalibrate, "_isotonic", lambda logits, seen: taught.append(logits) or made(logits, seen))
    draw = np.random.default_rng(8)
    # everybody has five films, all alike, and whether they are abnormal is chance: only who learns patients by heart gains
    labels = [
        Label(f"patient {n}", float(p), bool(y))
        for n, (p, y) in enumerate(zip(draw.random(800), draw.random(800) < 0.5, strict=True))
        for _ in range(5)
    ]
    parts = recalibrate._parts([label.patient for label in labels], 1)
    assert len({(label.patient, int(part)) for label, part in zip(labels, parts, strict=True)}) == 800
    assert np.bincount(parts).min() > 700
    fitted = fit(labels, POINTS, 1)
    assert fitted is not None
    assert isinstance(fitted.map, Isotonic)
    said = logit([label.probability for label in labels])
    for part, logits in enumerate(taught[:FOLDS]):
        assert logits == pytest.approx(said[parts != part])
        assert set(np.unique(logits, return_counts=True)[1]) == {5}, "a patient's films are all there, or none of them"
    assert fitted.held.brier[1] > 0.25 - 0.01, "on films of people whom it has not seen, chance stays chance"


def test_equal_reads_make_equal_bytes_and_a_document_is_read_as_it_was_written() -> None:
    labels = site(500, 9)
    made = [Calibration("bundle", "set", {"pneumonia": fitted}) for _ in range(2) if (fitted := fit(labels, POINTS))]
    assert made[0].document == made[1].document
    assert len(made[0].document) < 3000
    read = msgspec.json.decode(made[0].document, type=Calibration)
    assert read == made[0]
    assert read.document == made[0].document
    assert read.digest == hashlib.sha256(made[0].document).hexdigest()
    assert read.apply("pneumonia", 0.4) == made[0].apply("pneumonia", 0.4)
    assert read.apply("another", 0.4) is None


@settings(max_examples=50, deadline=None)
@given(st.lists(st.tuples(st.floats(0.01, 0.99), st.booleans()), min_size=1, max_size=300))
def test_a_reliability_curve_counts_every_film_once(pairs: list[tuple[float, bool]]) -> None:
    said, seen = np.array([one for one, _ in pairs]), np.array([one for _, one in pairs], np.int64)
    curve = reliability(said, seen)
    assert sum(place.of for place in curve) == len(pairs)
    assert sum(place.abnormal for place in curve) == seen.sum()
    assert [place.said for place in curve] == sorted(place.said for place in curve)
    assert len(pairs) < 10 or min(place.of for place in curve) >= 5, "no point is of so few that it is of persons"
