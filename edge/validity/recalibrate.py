"""Re-calibration: what this site's own reads say of the model's probabilities, and whether others would be truer.

Below 100 reads nothing is changed; up to 3,000 the logit is moved and stretched a little (ridge-Platt); above, it is replaced
by what was found at it (isotonic). A single temperature is not tried: it cannot mend a bias. The reads are of people who had
not seen the AI.
"""

from __future__ import annotations

import itertools
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from edge.validity.accuracy import Share
from edge.validity.calibration import CLEAR, Fitted, Held, Isotonic, Place, Platt
from models import platt

AT_LEAST = 100
"""Fewer reads than this make probabilities worse as often as better."""
OF_EACH = 10
"""Fewer abnormal films than this, or normal ones, tell nothing of the other kind."""
ISOTONIC_FROM = 3_000
FOLDS = 5
BIN = 50
"""So many films, at least, stand for one place of an isotonic map."""
PLACES = 10
"""Points of a reliability curve, at most."""
SEED = 20_261_125
DIGITS = 9

Floats = npt.NDArray[np.float64]


@dataclass(frozen=True)
class Label:
    """A film that was read without seeing the AI, and what the bundle's own calibration says of it."""

    patient: str
    probability: float
    abnormal: bool


def lacking(labels: Sequence[Label]) -> int:
    """How many more reads are needed, at least, before anything may be changed; 0 when they suffice."""
    abnormal = sum(label.abnormal for label in labels)
    patients = len({label.patient for label in labels})
    short = (
        AT_LEAST - len(labels),
        OF_EACH - abnormal,
        OF_EACH - (len(labels) - abnormal),
        FOLDS - patients,
    )
    return max(0, *short)


def fit(labels: Sequence[Label], points: Mapping[str, float], seed: int = SEED) -> Fitted | None:
    """A finding's map from these reads, or None where they are too few; `points` are its thresholds by operating point.

    It is judged on each patient's films by a map that was made without that patient: cross-fitting in five parts, seeded.
    """
    if lacking(labels):
        return None
    said = np.array([label.probability for label in labels], np.float64)
    logits = _logit(said)
    seen = np.array([label.abnormal for label in labels], np.int64)
    parts = _parts([label.patient for label in labels], seed)
    make = _isotonic if len(labels) > ISOTONIC_FROM else _platt
    after = np.empty(len(labels))
    for part in range(FOLDS):
        here = parts == part
        made = make(logits[~here], seen[~here])
        after[here] = [made.apply(float(one))[0] for one in said[here]]
    held = Held(
        reads=len(labels),
        abnormal=int(seen.sum()),
        patients=len({label.patient for label in labels}),
        brier=(_brier(said, seen), _brier(after, seen)),
        found={name: (_found(said, seen, at), _found(after, seen, at)) for name, at in points.items()},
        curves=(reliability(said, seen), reliability(after, seen)),
    )
    return Fitted(make(logits, seen), held)


def reliability(said: Floats, seen: npt.NDArray[np.int64]) -> tuple[Place, ...]:
    """What was said against what was seen, in groups of films as equal as can be."""
    order = np.argsort(said, kind="stable")
    groups = np.array_split(order, min(PLACES, max(1, len(order) // OF_EACH)))
    return tuple(
        Place(_rounded(float(said[group].mean())), int(seen[group].sum()), len(group)) for group in groups if len(group)
    )


def _platt(logits: Floats, seen: npt.NDArray[np.int64]) -> Platt:
    slope, intercept, covariance = platt.fit(logits, seen)
    first, both, second = map(_rounded, covariance)
    return Platt(_rounded(slope), _rounded(intercept), (first, both, second))


def _isotonic(logits: Floats, seen: npt.NDArray[np.int64]) -> Isotonic:
    """Films in groups of equal logits or at least `BIN`, each with half an abnormal and half a normal one added; then PAVA."""
    order = np.argsort(logits, kind="stable")
    sorted_logits, sorted_seen = logits[order], seen[order]
    edges = [0]
    while edges[-1] < len(order):
        end = min(edges[-1] + BIN, len(order))
        while end < len(order) and sorted_logits[end] == sorted_logits[end - 1]:
            end += 1
        edges.append(len(order) if len(order) - end < BIN else end)
    spans = list(itertools.pairwise(edges))
    at = np.array([sorted_logits[low:high].mean() for low, high in spans])
    counts = np.array([high - low for low, high in spans], np.float64)
    hits = np.array([sorted_seen[low:high].sum() for low, high in spans], np.float64)
    blocks = pava((hits + 0.5) / (counts + 1), counts + 1)
    values, lows, highs = [], [], []
    for block in blocks:
        share = Share(int(hits[block].sum()), int(counts[block].sum()))
        value = float((hits[block].sum() + 0.5 * len(block)) / (counts[block].sum() + len(block)))
        low, high = share.interval
        values += [value] * len(block)
        lows += [min(low, value)] * len(block)
        highs += [max(high, value)] * len(block)
    # the intervals of neighbours of unequal size need not rise with them
    lows = list(np.minimum.accumulate(lows[::-1])[::-1])
    highs = list(np.maximum.accumulate(highs))
    return Isotonic(*(tuple(map(_rounded, map(float, kept))) for kept in (at, values, lows, highs)))


def pava(values: Floats, weights: Floats) -> list[list[int]]:
    """The blocks of neighbours that isotonic regression gives one value each: pool adjacent violators (Ayer et al. 1955)."""
    blocks: list[tuple[float, float, list[int]]] = []
    for index, (value, weight) in enumerate(zip(values, weights, strict=True)):
        blocks.append((float(value), float(weight), [index]))
        while len(blocks) > 1 and blocks[-2][0] >= blocks[-1][0]:
            (first, much, before), (second, more, after) = blocks[-2:]
            blocks[-2:] = [((first * much + second * more) / (much + more), much + more, before + after)]
    return [block for _, _, block in blocks]


def _parts(patients: Sequence[str], seed: int) -> npt.NDArray[np.int64]:
    """A part for each film, the same for all films of a patient."""
    known = sorted(set(patients))
    drawn = np.random.default_rng(seed).permutation(len(known))
    part = {patient: int(place) % FOLDS for patient, place in zip(known, drawn, strict=True)}
    return np.array([part[patient] for patient in patients], np.int64)


def _brier(said: Floats, seen: npt.NDArray[np.int64]) -> float:
    return _rounded(float(np.mean(np.square(said - seen))))


def _found(said: Floats, seen: npt.NDArray[np.int64], threshold: float) -> int:
    return int(np.sum(seen[said >= threshold]))


def _logit(probability: Floats) -> Floats:
    clear = np.clip(probability, CLEAR, 1 - CLEAR)
    return np.asarray(np.log(clear / (1 - clear)), np.float64)


def _rounded(value: float) -> float:
    return round(value, DIGITS)
