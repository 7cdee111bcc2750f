"""Whether a model finds fewer abnormal films than it did, from films that people read whatever the AI says of them.

Films that the AI raises are read first, of the others only a share, drawn by lot. So a miss that was read stands for several that
were not. The CUSUM (Page 1954) adds up, for each film that was read as abnormal, how much likelier what the AI said of it is at a
bad sensitivity than at a good one, given that it was read at all: how many people are ill plays no part in it. Reads of clinics
that share a model and a kind of X-ray unit are added as if they were of one.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

import numpy as np

from edge.validity.accuracy import Z

GOOD, BAD = 0.90, 0.75
"""The sensitivity that a site accepted, and the one that shall be found soonest."""
QUIET_ALL_YEAR = math.exp(-1)
"""With one false alarm a year on average, so many years have none (Poisson)."""
DRAWS = 1000


@dataclass(frozen=True)
class Audited:
    """A film that a person read as abnormal without knowing what the AI says."""

    detected: bool
    """The AI had raised it."""
    share: float
    """How often a film that the AI does not raise is read here, for each one read that it does: above 0, at most 1."""


@dataclass(frozen=True)
class Estimate:
    """A sensitivity with its 95 % interval."""

    value: float
    low: float
    high: float
    detected: int
    missed: int


def evidence(film: Audited, good: float = GOOD, bad: float = BAD) -> float:
    """By how much a film speaks for the bad sensitivity: the log likelihood ratio, given that it was read."""
    before, after = _read(good, film.share), _read(bad, film.share)
    return math.log(after / before) if film.detected else math.log((1 - after) / (1 - before))


def _read(sensitivity: float, share: float) -> float:
    """The chance that an abnormal film which was read is one that the AI had raised."""
    return sensitivity / (sensitivity + (1 - sensitivity) * share)


def chart(films: Iterable[Audited], good: float = GOOD, bad: float = BAD, height: float = 0.0) -> list[float]:
    """How high the CUSUM stands after each film, in the order in which they were read; before them it stood at `height`."""
    heights = list[float]()
    for film in films:
        height = max(0.0, height + evidence(film, good, bad))
        heights.append(height)
    return heights


def limit(shares: Sequence[float], a_year: int, seed: int, good: float = GOOD, bad: float = BAD) -> float:
    """How high the chart may stand, so that e^-1 of the years with so many abnormal reads go by without an alarm.

    `shares` are those of the films that are read, in any number; simulated at the good sensitivity, the same for the same seed.
    """
    draw, known = np.random.default_rng(seed), np.asarray(shares, float)
    chances = good / (good + (1 - good) * known)
    steps = np.array(
        [[evidence(Audited(said, share), good, bad) for share in known.tolist()] for said in (False, True)]
    )
    height, highest = np.zeros(DRAWS), np.zeros(DRAWS)
    for _ in range(a_year):
        kind = draw.integers(0, len(known), DRAWS)
        detected = draw.random(DRAWS) < chances[kind]
        height = np.maximum(0.0, height + steps[detected.astype(int), kind])
        np.maximum(highest, height, out=highest)
    return float(np.quantile(highest, QUIET_ALL_YEAR))


def estimate(films: Sequence[Audited]) -> Estimate | None:
    """The sensitivity, each miss counted for as many as it stands for; None where nothing abnormal was read.

    The interval is on the logit scale (delta method), with half a film added where one of the two is empty.
    """
    detected = sum(film.detected for film in films)
    weights = [1 / film.share for film in films if not film.detected]
    if not films:
        return None
    raised, missed, squares = detected + 0.0, sum(weights), sum(weight * weight for weight in weights)
    value = raised / (raised + missed)
    if not raised or not missed:
        half = 0.5 / films[0].share if not missed else 0.0
        raised, missed, squares = raised or 0.5, missed or half, squares or 2 * half * half
    center, spread = math.log(raised / missed), Z * math.sqrt(1 / raised + squares / missed**2)
    low, high = (1 / (1 + math.exp(-center - sign * spread)) for sign in (-1, 1))
    return Estimate(value, min(low, value), max(high, value), detected, len(weights))
