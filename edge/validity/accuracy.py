"""Accuracy: what the AI says of films held against what a person read in them without seeing it.

Every share comes with its 95 % interval and its count, because a clinic has few films.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from edge.records import Outcome

Z = 1.959963984540054
"""The 97.5th percentile of the normal distribution: two-sided 95 %."""

AT_LEAST = 50
"""Fewer films than this tell nothing, whatever they say."""
HALF_WIDTH = 0.10
"""An interval wider than ten points to either side decides nothing."""
EXPECTED = 0.90
"""Taken for granted where no film tells yet."""
MARGIN = 0.10
"""A new model may be this much worse than the old one and still replace it, as far as the films can tell."""

RAISED = (Outcome.IMMEDIATE, Outcome.SOON)
AGE_BANDS = ((0, 5), (5, 18), (18, 40), (40, 65), (65, 200))


@dataclass(frozen=True)
class Judged:
    """One film that a person read without seeing the AI, and what the AI says of it."""

    abnormal: bool
    """As the person read it."""
    outcome: Outcome
    finding: str
    """The finding that the outcome comes from; empty where it could not be assessed."""
    probability: float
    """Of that finding."""
    sex: str
    age_years: float | None


@dataclass(frozen=True)
class Share:
    """So many of so many, with Wilson's 95 % interval (Wilson 1927; Brown, Cai and DasGupta 2001)."""

    count: int
    of: int

    @property
    def value(self) -> float:
        """The share itself; NaN of nothing."""
        return self.count / self.of if self.of else math.nan

    @property
    def interval(self) -> tuple[float, float]:
        """From 0 to 1 where there is nothing to count."""
        if not self.of:
            return 0.0, 1.0
        return wilson(self.value, self.of)


def wilson(share: float, of: int, z: float = Z) -> tuple[float, float]:
    """Wilson's interval of a share of so many, so many standard errors wide to either side."""
    center = share + z * z / (2 * of)
    spread = z * math.sqrt(share * (1 - share) / of + z * z / (4 * of * of))
    whole = 1 + z * z / of
    return max((center - spread) / whole, 0.0), min((center + spread) / whole, 1.0)


@dataclass(frozen=True)
class Accuracy:
    """How the AI did on some films. All but `abstained` are of the films that it assessed."""

    sensitivity: Share
    """Of the abnormal films, those that were raised: *immediate* or *soon*."""
    specificity: Share
    ppv: Share
    npv: Share
    abstained: Share
    """Of all films, those that could not be assessed; a person reads them no later than *soon*."""


def accuracy(films: Iterable[Judged]) -> Accuracy:
    """How the AI did on these films."""
    every = list(films)
    assessed = [film for film in every if film.outcome is not Outcome.COULD_NOT_ASSESS]
    counts = {(True, True): 0, (True, False): 0, (False, True): 0, (False, False): 0}
    for film in assessed:
        counts[film.abnormal, film.outcome in RAISED] += 1
    found, missed = counts[True, True], counts[True, False]
    false, right = counts[False, True], counts[False, False]
    return Accuracy(
        Share(found, found + missed),
        Share(right, right + false),
        Share(found, found + false),
        Share(right, right + missed),
        Share(len(every) - len(assessed), len(every)),
    )


def age_band(years: float | None) -> str:
    """The band that an age is in, as in `strata`; empty where it is not known, or no age of a person."""
    return next((f"{low}-{high}" for low, high in AGE_BANDS if years is not None and low <= years < high), "")


def strata(films: Sequence[Judged]) -> dict[str, Accuracy]:
    """The same by sex and age band, for those that have a film: `F`, `M`, `O`, `0-5`, `5-18`, …"""
    chosen = {sex: [film for film in films if film.sex == sex] for sex in "FMO"}
    for low, high in AGE_BANDS:
        chosen[f"{low}-{high}"] = [film for film in films if age_band(film.age_years) == f"{low}-{high}"]
    return {name: accuracy(some) for name, some in chosen.items() if some}


@dataclass(frozen=True)
class Threshold:
    """What it would cost to raise films from this probability on."""

    at: float
    sensitivity: Share
    specificity: Share
    raised: float
    """Films of a hundred that a person would be shown first."""
    missed: float
    """Films of a hundred that are abnormal and would keep their place."""


def thresholds(films: Iterable[Judged], finding: str) -> list[Threshold]:
    """The cost at every threshold that these films can tell apart, for one finding, lowest first."""
    scored = sorted(
        (film.probability, film.abnormal)
        for film in films
        if film.finding == finding and film.outcome is not Outcome.COULD_NOT_ASSESS
    )
    abnormal, total = sum(wrong for _, wrong in scored), len(scored)
    found = []
    raised, hit = total, abnormal
    for place, (probability, wrong) in enumerate(scored):
        if place == 0 or probability != scored[place - 1][0]:
            found.append(
                Threshold(
                    probability,
                    Share(hit, abnormal),
                    Share(total - abnormal - (raised - hit), total - abnormal),
                    100 * raised / total,
                    100 * (abnormal - hit) / total,
                )
            )
        raised, hit = raised - 1, hit - wrong
    return found


def needed(films: Sequence[Judged]) -> int:
    """How many more films have to be read before sensitivity and specificity are known to ten points either way.

    From what these films show of both, and of how common abnormal films are; 0 when they suffice.
    """
    told = accuracy(films)
    abnormal = sum(film.abnormal for film in films)
    common = (abnormal + 1) / (len(films) + 2)  # Laplace: a share of nothing is neither never nor always
    assessed = 1 - (told.abstained.count + 1) / (len(films) + 2)
    wanted = max(
        AT_LEAST,
        math.ceil(_enough(told.sensitivity) / (common * assessed)),
        math.ceil(_enough(told.specificity) / ((1 - common) * assessed)),
    )
    return max(0, wanted - len(films)) if not _known(told) or len(films) < AT_LEAST else 0


def _known(told: Accuracy) -> bool:
    return all(_half_width(*share.interval) <= HALF_WIDTH for share in (told.sensitivity, told.specificity))


def _enough(share: Share) -> int:
    expected = EXPECTED if not share.of else share.value
    return next(of for of in range(1, 10_000) if _half_width(*wilson(expected, of)) <= HALF_WIDTH)


def _half_width(low: float, high: float) -> float:
    return (high - low) / 2


@dataclass(frozen=True)
class Difference:
    """How much more often one model is right than another on the same films, with its 95 % interval."""

    value: float
    low: float
    high: float
    of: int

    @property
    def non_inferior(self) -> bool:
        """Whether the films rule out that the new one is worse by more than the margin."""
        return self.low > -MARGIN


def difference(pairs: Iterable[tuple[bool, bool]]) -> Difference:
    """New minus old, from whether (old, new) is right on each film.

    Wald's interval with half a film added to each cell (Agresti and Min 2005).
    """
    listed = list(pairs)
    better = sum(new and not old for old, new in listed)
    worse = sum(old and not new for old, new in listed)
    of = len(listed) + 2
    shift = (better - worse) / of
    spread = Z * math.sqrt(max((better + worse + 1) / of - shift * shift, 0.0) / of)
    return Difference((better - worse) / len(listed) if listed else 0.0, shift - spread, shift + spread, len(listed))
