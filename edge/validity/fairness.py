"""Fairness: whether some people's films wait longer, cannot be assessed more often, or are missed more often than others'.

A difference is told only where an interval shows it, and that there is none only where the interval leaves no room for one that
matters; all else is *too few to tell*. Small groups are not shown, nor what would give them away.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from enum import StrEnum
from statistics import NormalDist, median
from typing import TypeAlias

from edge.validity.accuracy import MARGIN, Share, age_band, wilson

LEVEL = 0.95
SMALL = 5
"""A group of fewer films is not shown by itself: its figures would be of persons."""
MINUTES = 15.0
"""Medians that differ by less, or by less than `PART` of the others', are about the same."""
PART = 0.25


class By(StrEnum):
    """What the films are told apart by."""

    SEX = "sex"
    AGE = "age"
    DEVICE = "device"


class Measure(StrEnum):
    """What is compared."""

    WAIT = "wait"
    ABSTAINED = "abstained"
    FOUND = "found"


class Verdict(StrEnum):
    """How a group compares with the others."""

    MORE = "more"
    LESS = "less"
    SAME = "same"
    UNSURE = "unsure"
    """Too few films to tell."""


@dataclass(frozen=True)
class Seen:
    """One film: whose it is, and what became of it."""

    sex: str
    age_years: float | None
    device: str
    """Manufacturer and model of the unit that took it."""
    waited: float
    """Minutes from its arrival until a person decided, or until now."""
    waiting: bool
    """Nobody has decided yet, so that it will have waited longer."""
    abstained: bool | None
    """Whether the AI could not assess it; None while it has not tried."""
    found: bool | None
    """Whether the AI raised it, where a person read it as abnormal without seeing the AI; None for all other films."""


@dataclass(frozen=True)
class Wait:
    """How long the films of a group waited, in minutes; an interval without an end has infinity there."""

    of: int
    waiting: int
    """Of them, those that nobody has decided yet; they count with what they have waited so far."""
    median: float
    interval: tuple[float, float]
    percentile90: float
    interval90: tuple[float, float]
    longest: float


Told: TypeAlias = Wait | Share


@dataclass(frozen=True)
class Group:
    """One group that is large enough to be shown."""

    name: str
    """`F`, `M`, `O`; `0-5`, …; a device; empty for films that do not say."""
    told: Told
    verdict: Verdict
    """Women against men; any other group against all other films."""


@dataclass(frozen=True)
class Panel:
    """One measure of the groups of one kind."""

    by: By
    measure: Measure
    groups: list[Group]
    hidden: int
    """Groups that are not shown: too small, or one that would give a small one away."""

    @property
    def verdict(self) -> tuple[Verdict, list[str]]:
        """What a sentence can say of all groups, and of which groups it says so."""
        told = [one for one in self.groups if not (self.by is By.SEX and one.name != "F")]
        worse = Verdict.LESS if self.measure is Measure.FOUND else Verdict.MORE
        better = Verdict.MORE if worse is Verdict.LESS else Verdict.LESS
        for verdict in (worse, better):
            if names := [one.name for one in told if one.verdict is verdict]:
                return verdict, names
        if told and all(one.verdict is Verdict.SAME for one in told):
            return Verdict.SAME, [one.name for one in told]
        return Verdict.UNSURE, []


def group_of(film: Seen, by: By) -> str:
    """The group that a film is in; empty where it does not say."""
    match by:
        case By.SEX:
            return film.sex if film.sex in ("F", "M", "O") else ""
        case By.AGE:
            return age_band(film.age_years)
        case By.DEVICE:
            return " ".join(film.device.split())


def counts(measure: Measure, film: Seen) -> bool:
    """Whether a film tells anything about this measure."""
    match measure:
        case Measure.WAIT:
            return True
        case Measure.ABSTAINED:
            return film.abstained is not None
        case Measure.FOUND:
            return film.found is not None


def panel(films: Sequence[Seen], by: By, measure: Measure) -> Panel:
    """One measure by sex, age band or device."""
    groups: dict[str, list[Seen]] = {}
    for film in films:
        if counts(measure, film):
            groups.setdefault(group_of(film, by), []).append(film)
    names = shown({name: len(some) for name, some in groups.items()})
    level = 1 - (1 - LEVEL) / max(
        len(names), 1
    )  # as many comparisons as groups are wrong together no more often than one

    def verdict(name: str) -> Verdict:
        against = {"F": ["M"], "M": ["F"]}.get(name) if by is By.SEX else None
        others = [film for other in against or groups if other != name for film in groups.get(other, [])]
        return _compared(measure, groups[name], others, level)

    ordered = sorted(names, key=lambda name: (name == "", _place(name, by)))
    return Panel(
        by,
        measure,
        [Group(name, tell(measure, groups[name]), verdict(name)) for name in ordered],
        len(groups) - len(names),
    )


def _place(name: str, by: By) -> tuple[int, str]:
    return (int(name.partition("-")[0]) if by is By.AGE and name else 0, name)


def tell(measure: Measure, films: Sequence[Seen]) -> Told:
    """A measure of some films, at least one, each of which counts for it."""
    match measure:
        case Measure.WAIT:
            return waits([film.waited for film in films], sum(film.waiting for film in films))
        case Measure.ABSTAINED:
            return Share(sum(film.abstained is True for film in films), len(films))
        case Measure.FOUND:
            return Share(sum(film.found is True for film in films), len(films))


def shown(sizes: Mapping[str, int]) -> set[str]:
    """The groups that can be shown, where the total is known too.

    Those below `SMALL` cannot; nor can the next larger ones, as long as all hidden ones together are below `SMALL`: the total would
    give them away.
    """
    hidden = {name for name, size in sizes.items() if size < SMALL}
    rest = sorted((size, name) for name, size in sizes.items() if name not in hidden)
    while hidden and rest and sum(sizes[name] for name in hidden) < SMALL:
        hidden.add(rest.pop(0)[1])
    return set(sizes) - hidden


def waits(minutes: Sequence[float], waiting: int = 0) -> Wait:
    """How long at least one film waited; `waiting` of them still do."""
    ranked = sorted(minutes)
    return Wait(
        len(ranked),
        waiting,
        median(ranked),
        quantile_interval(ranked, 0.5),
        ranked[math.ceil(0.9 * len(ranked)) - 1],
        quantile_interval(ranked, 0.9),
        ranked[-1],
    )


def quantile_interval(ranked: Sequence[float], share: float, level: float = LEVEL) -> tuple[float, float]:
    """An interval for the value below which this share lies, by order statistics; of sorted values, no less than 0.

    How many of n values lie below it is binomial, whatever they are distributed like (Conover 1999, section 3.2).
    """
    low, high = _ranks(len(ranked), share, (1 - level) / 2)
    return ranked[low - 1] if low else 0.0, ranked[high - 1] if high <= len(ranked) else math.inf


def _ranks(of: int, share: float, tail: float) -> tuple[int, int]:
    """The largest rank with no more than `tail` below it and the smallest with no more above; 0 and n + 1 where there is none."""
    low, high, below = 0, of + 1, 0.0
    for rank in range(1, of + 1):  # after this line `below` is P(B <= rank - 1)
        below += _binomial(rank - 1, of, share)
        if below <= tail:
            low = rank
        if below >= 1 - tail:
            high = rank
            break
    return low, high


def _binomial(count: int, of: int, share: float) -> float:
    ways = math.lgamma(of + 1) - math.lgamma(count + 1) - math.lgamma(of - count + 1)
    return math.exp(ways + count * math.log(share) + (of - count) * math.log1p(-share))


def _compared(measure: Measure, some: Sequence[Seen], others: Sequence[Seen], level: float) -> Verdict:
    if min(len(some), len(others)) < SMALL:
        return Verdict.UNSURE
    if measure is Measure.WAIT:
        waited, they_waited = ([film.waited for film in films] for films in (some, others))
        return _judge(*between_medians(waited, they_waited, level), max(MINUTES, PART * median(they_waited)))
    ours, theirs = tell(measure, some), tell(measure, others)
    assert isinstance(ours, Share)
    assert isinstance(theirs, Share)
    return _judge(*difference(ours, theirs, level), MARGIN)


def between_medians(ours: Sequence[float], theirs: Sequence[float], level: float = LEVEL) -> tuple[float, float]:
    """What our median exceeds theirs by, at least and at most: from an interval of each, so wide that both hold together."""
    each = 1 - (1 - level) / 2
    (low, high), (their_low, their_high) = (quantile_interval(sorted(some), 0.5, each) for some in (ours, theirs))
    return low - their_high, high - their_low


def difference(ours: Share, theirs: Share, level: float = LEVEL) -> tuple[float, float]:
    """An interval for the difference of two shares of different films: hybrid of Wilson's (Newcombe 1998, method 10)."""
    z = NormalDist().inv_cdf((1 + level) / 2)
    (low, high), (their_low, their_high) = (wilson(one.value, one.of, z) for one in (ours, theirs))
    between = ours.value - theirs.value
    return (
        between - math.hypot(ours.value - low, their_high - theirs.value),
        between + math.hypot(high - ours.value, theirs.value - their_low),
    )


def _judge(low: float, high: float, margin: float) -> Verdict:
    if -margin <= low and high <= margin:
        return Verdict.SAME
    if low > 0:
        return Verdict.MORE
    return Verdict.LESS if high < 0 else Verdict.UNSURE
