"""Statistics of an evaluation, in NumPy alone: how well scores tell films apart, how true probabilities are, and how sure that is.

Every figure is a function of counts: how often each film is in the sample. Once each gives the figure itself; drawn again by
patient, with films of one patient together, they give its interval (Efron 1979; Field and Welsh 2007 for clusters).
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

Floats = npt.NDArray[np.float64]
Truth = npt.NDArray[np.bool_]
Statistic = Callable[[Floats], float]
"""From counts (films,) to a figure; NaN where the sample has none."""

DRAWS = 1000
BINS = 10


@dataclass(frozen=True)
class Estimate:
    """A figure with its 95 % interval; NaN where the films do not tell."""

    value: float
    low: float
    high: float


def estimate(statistic: Statistic, patients: Sequence[str], seed: int, draws: int = DRAWS) -> Estimate:
    """A statistic of the films and its percentile interval over samples by patient; samples without a value are left out."""
    value = statistic(np.ones(len(patients)))
    drawn = np.array([statistic(counts) for counts in samples(patients, seed, draws)])
    drawn = drawn[np.isfinite(drawn)]
    if not math.isfinite(value) or len(set(patients)) < 2 or not len(drawn):
        return Estimate(value, math.nan, math.nan)
    low, high = np.percentile(drawn, (2.5, 97.5))
    return Estimate(value, float(low), float(high))


def samples(patients: Sequence[str], seed: int, draws: int = DRAWS) -> Iterator[Floats]:
    """So many samples of as many patients as there are, with replacement: how often each film is in each."""
    _, group = np.unique(np.array(list(patients), dtype=np.str_), return_inverse=True)
    number = int(group.max()) + 1 if len(group) else 0
    draw = np.random.default_rng(seed)
    for _ in range(draws if number else 0):
        yield np.bincount(draw.integers(0, number, number), minlength=number)[group].astype(float)


def share(hits: Truth, among: Truth, patients: Sequence[str], seed: int, draws: int = DRAWS) -> Estimate:
    """The share of hits among some films.

    Where all or none are hits every sample says the same, so that bound is exact and by patient (Clopper and Pearson 1934).
    """
    rows = np.flatnonzero(among)
    inside, own = hits[rows].astype(float), [patients[int(row)] for row in rows]
    if not len(rows):
        return Estimate(math.nan, math.nan, math.nan)
    value, sure = float(inside.mean()), 0.025 ** (1 / len(set(own)))
    if value in (0.0, 1.0):
        return Estimate(value, sure if value else 0.0, 1.0 if value else 1 - sure)
    return estimate(lambda counts: _ratio(float(counts @ inside), float(counts.sum())), own, seed, draws)


def auroc(scores: Floats, truth: Truth) -> Statistic:
    """Area under the ROC curve: how often a film with the finding has the higher score, ties counting half (Hanley 1982)."""
    levels, place = np.unique(scores, return_inverse=True)

    def area(counts: Floats) -> float:
        ill = np.bincount(place, counts * truth, len(levels))
        well = np.bincount(place, counts * ~truth, len(levels))
        lower = np.cumsum(well) - well / 2
        return _ratio(float(ill @ lower), float(ill.sum() * well.sum()))

    return area


def brier(p: Floats, truth: Truth) -> Statistic:
    """Mean squared distance of the probability from what was the case (Brier 1950)."""
    squared = np.square(p - truth)
    return lambda counts: _ratio(float(counts @ squared), float(counts.sum()))


def reliability(p: Floats, truth: Truth, bins: int = BINS) -> list[tuple[float, float, int]]:
    """Mean probability, share with the finding and films of each bin; bins are of equal count (Naeini 2015)."""
    parts = np.array_split(np.argsort(p, kind="stable"), bins)
    return [(float(p[part].mean()), float(truth[part].mean()), len(part)) for part in parts if len(part)]


def calibration_error(p: Floats, truth: Truth, bins: int = BINS) -> Statistic:
    """Expected calibration error over bins of equal count of the films themselves.

    Few films in a bin make it larger than it is: its interval reaches further up than down.
    """
    parts = [part for part in np.array_split(np.argsort(p, kind="stable"), bins) if len(part)]
    off = p - truth
    return lambda counts: _ratio(sum(abs(float(counts[part] @ off[part])) for part in parts), float(counts.sum()))


def slope_and_intercept(p: Floats, truth: Truth, counts: Floats) -> tuple[float, float]:
    """Logistic regression of the truth on the logit of the probability: 1 and 0 where it is calibrated (Cox 1958).

    NaN where there is no answer: one class alone, or probabilities that separate the two wholly.
    """
    nothing = math.nan, math.nan
    logit = logits(p)
    design = np.stack([logit, np.ones_like(logit)], 1)
    at = np.array([1.0, 0.0])
    for _ in range(50):
        fitted = 1 / (1 + np.exp(-np.clip(design @ at, -40, 40)))
        hessian = (design * (counts * fitted * (1 - fitted))[:, None]).T @ design
        if not np.linalg.cond(hessian) < 1e12:
            return nothing
        step = np.linalg.solve(hessian, design.T @ (counts * (truth - fitted)))
        at = at + step * min(1.0, 5 / max(float(np.abs(step).max()), 1e-12))
        if np.abs(step).max() < 1e-9:
            return float(at[0]), float(at[1])
    return nothing


def logits(p: Floats) -> Floats:
    """Logits of probabilities; 0 and 1 are taken as the nearest that have one."""
    inside = np.clip(p, 1e-9, 1 - 1e-9)
    return np.asarray(np.log(inside) - np.log1p(-inside))


def roc(scores: Floats, truth: Truth) -> tuple[Floats, Floats]:
    """The ROC curve: false and true positive shares from no film flagged to all."""
    levels, place = np.unique(-scores, return_inverse=True)
    ill = np.cumsum(np.bincount(place, truth, len(levels)))
    well = np.cumsum(np.bincount(place, ~truth, len(levels)))
    return np.concatenate([[0], well / max(well[-1], 1)]), np.concatenate([[0], ill / max(ill[-1], 1)])


def selective_risk(confidence: Floats, wrong: Truth) -> tuple[Floats, Floats]:
    """Share of films kept, and the share of wrong ones among them, when the least confident are left out (El-Yaniv 2010).

    Films of one confidence stay or go together.
    """
    order = np.argsort(-confidence, kind="stable")
    ends = np.append(np.flatnonzero(np.diff(confidence[order])), len(order) - 1) + 1
    risks = np.cumsum(wrong[order])[ends - 1] / ends
    return ends / len(order), risks


def _ratio(part: float, whole: float) -> float:
    return part / whole if whole else math.nan
