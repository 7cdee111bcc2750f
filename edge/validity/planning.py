"""Planning: how many days a change of films goes unnoticed, by its size, the volume and how uneven days are; and what others need.

Clinics are simulated whose history the watch must learn first, as it would there. Beside it, over the same films and at the same
one false alarm a year: the Kolmogorov-Smirnov distance and the population stability index of the last 30 days against the history
(largest of the streams), and the maximum mean discrepancy of the last 30 days by random Fourier features (Gretton 2012; Rahimi and
Recht 2007). Those three get their limits from many simulated quiet years, which no clinic has: they are shown at their best.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from itertools import islice

import numpy as np
import numpy.typing as npt

from edge.validity import packet, sensitivity, watch
from edge.validity.sensitivity import BAD, GOOD, Audited
from edge.validity.watch import CHARTED, COLUMNS, MAIN, Charts, Days

Array = npt.NDArray[np.float64]

WINDOW = 30
PATIENCE = 90
"""Days after which a change counts as not found."""
LONGEST = 365
"""Days after which a fall of the sensitivity counts as not found."""
FEATURES = 64
RIVALS = ("KS 30 days", "PSI 30 days", "MMD 30 days")
SHARES = (0.05, 0.20, 0.10, 0.15, 0.40)
"""The rates of the simulated clinic, in the order of `watch.RATES`."""
INNER = np.arange(-3.5, 4, 0.5)
"""The inner edges of the packet's histograms."""


@dataclass(frozen=True)
class Clinic:
    """A clinic as somebody plans it."""

    films_per_day: int = 30
    effect: float = 0.2
    """Spread of the days themselves, in spreads of single films."""
    history: int = 180
    """Days that the watch has learnt from."""
    running: int = WINDOW
    """Quiet days it has stood since; a change that comes with the very first (0) takes it longest."""


@dataclass(frozen=True)
class Programme:
    """Clinics that share a model and a kind of X-ray unit, so that their reads are added."""

    clinics: int = 1
    share: float = 0.10
    """Of the films that the AI does not raise, so many are read, drawn by lot; of those it raises, all."""
    films_per_day: int = 30
    abnormal: float = 0.08


@dataclass(frozen=True)
class Found:
    """How long changes of one size went unnoticed, in days; those never found count as `PATIENCE`."""

    shift: float
    days: tuple[int, ...]

    @property
    def median(self) -> float:
        """Of the days until it was found."""
        return float(np.median(self.days))

    @property
    def percentile90(self) -> float:
        """Nine of ten are found by then."""
        return float(np.percentile(self.days, 90))


@dataclass(frozen=True)
class Quiet:
    """What happened in simulated years in which nothing changed."""

    alarms: tuple[int, ...]
    """In each year; crossings within the same alarm count once, as on the box."""

    @property
    def interval(self) -> tuple[float, float]:
        """95 % interval of alarms a year, from how years differ."""
        mean, spread = np.mean(self.alarms), 1.96 * np.std(self.alarms, ddof=1) / np.sqrt(len(self.alarms))
        return float(mean - spread), float(mean + spread)


def films(
    draw: np.random.Generator, clinic: Clinic, days: int, shift: float = 0.0, since: int = 0
) -> tuple[Days, Array]:
    """Some days of a clinic, and its films' main streams (days, films, streams); from a day on the first is moved by `shift`."""
    n, size = clinic.films_per_day, len(COLUMNS) + packet.AXES
    effect = draw.normal(0, clinic.effect, (days, 1, size))
    values = draw.standard_normal((days, n, size)) + effect
    values[since:, :, 0] += shift
    rates = slice(len(MAIN), CHARTED)
    values[:, :, rates] = draw.random((days, n, len(SHARES))) < np.array(SHARES)
    mean = values.mean(1)
    return Days(np.full(mean.shape, float(n)), mean, np.square(values - mean[:, None]).sum(1)), values[
        :, :, : len(MAIN)
    ]


def days_to_find(clinic: Clinic, shift: float, seeds: Iterator[int]) -> Iterator[int]:
    """For each seed, a clinic and a change: the days until the watch finds it."""
    for seed in seeds:
        draw = np.random.default_rng(seed)
        history, _ = films(draw, clinic, clinic.history)
        usual, most = watch.reference(history), watch.limits(history, seed)
        after, _ = films(draw, clinic, clinic.running + PATIENCE, shift, clinic.running)
        charts, found = Charts(), PATIENCE
        for day, standard in enumerate(usual.standard(after.n, after.mean), 1 - clinic.running):
            if np.any(charts.step(standard) > most):
                if day > 0:
                    found = day
                    break
                charts = Charts()  # a false alarm
        yield found


def quiet_years(clinic: Clinic, seeds: Iterator[int]) -> Iterator[int]:
    """For each seed, a clinic and a year in which nothing changes: how many alarms there are."""
    for seed in seeds:
        draw = np.random.default_rng(seed)
        history, _ = films(draw, clinic, clinic.history)
        usual, most = watch.reference(history), watch.limits(history, seed)
        year, _ = films(draw, clinic, watch.YEAR)
        charts, alarms, last = Charts(), 0, -watch.YEAR
        for day, standard in enumerate(usual.standard(year.n, year.mean)):
            if np.any(charts.step(standard) > most):
                alarms += day - last > watch.QUIET
                charts, last = Charts(), day
        yield alarms


def reads(draw: np.random.Generator, programme: Programme, sensitivity_: float) -> Iterator[list[Audited]]:
    """Day after day, the abnormal films that people read without seeing the AI."""
    ill = programme.films_per_day * programme.clinics * programme.abnormal
    while True:
        raised, missed = draw.poisson(ill * sensitivity_), draw.poisson(ill * (1 - sensitivity_) * programme.share)
        yield [Audited(bool(one), programme.share) for one in draw.permutation([1] * raised + [0] * missed)]


def days_to_find_misses(programme: Programme, seeds: Iterator[int]) -> Iterator[int]:
    """For each seed, the days until reads tell that the AI has come to find fewer: a fall from `GOOD` to `BAD`."""
    ill = programme.films_per_day * programme.clinics * programme.abnormal
    a_year = round(ill * (GOOD + (1 - GOOD) * programme.share) * watch.YEAR)
    most = sensitivity.limit([programme.share], a_year, seed=1)
    for seed in seeds:
        found, height = LONGEST, 0.0
        for day, some in enumerate(islice(reads(np.random.default_rng(seed), programme, BAD), LONGEST), 1):
            heights = sensitivity.chart(some, height=height)
            if any(one > most for one in heights):
                found = day
                break
            height = heights[-1] if heights else height
        yield found


class Rivals:
    """What others watch with: the last 30 days against the history, at one false alarm a simulated year in all."""

    def __init__(self, clinic: Clinic, seed: int, years: int) -> None:
        self.clinic = clinic
        draw = np.random.default_rng(seed)
        self._turn = draw.standard_normal((len(MAIN), FEATURES)) / np.sqrt(len(MAIN))
        self._phase = draw.uniform(0, 2 * np.pi, FEATURES)
        highest = np.array([self._series(draw, watch.YEAR, 0).max(1) for _ in range(years)])
        self.limits = np.quantile(highest, watch.QUIET_ALL_YEAR, axis=0)

    def days_to_find(self, shift: float, seeds: Iterator[int]) -> Iterator[tuple[int, ...]]:
        """For each seed, the days until each of `RIVALS` finds a change."""
        for seed in seeds:
            series = self._series(np.random.default_rng(seed), PATIENCE, shift)
            over = series > self.limits[:, None]
            yield tuple(int(np.argmax(row)) + 1 if row.any() else PATIENCE for row in over)

    def _series(self, draw: np.random.Generator, days: int, shift: float) -> Array:
        """Each rival's statistic on each of the days, (rivals, days)."""
        counted, features = self._seen(films(draw, self.clinic, self.clinic.history)[1])
        before = [one[-WINDOW:] for one in (counted, features)]
        after = self._seen(films(draw, self.clinic, days, shift)[1])
        last = [_windows(np.concatenate(pair)) for pair in zip(before, after, strict=True)]
        history, recent = counted.mean(0), last[0][1:]
        mmd = np.linalg.norm(last[1][1:] - features.mean(0), axis=-1)
        return np.stack([ks(history, recent).max(-1), psi(history, recent).max(-1), mmd])

    def _seen(self, values: Array) -> tuple[Array, Array]:
        """Each day's histograms as shares (days, streams, bins), and the mean of its random features (days, features)."""
        return binned(values), np.cos(values @ self._turn + self._phase).mean(1) * np.sqrt(2 / FEATURES)


def binned(values: Array) -> Array:
    """Each day's histograms as shares (days, streams, bins) of its films (days, films, streams)."""
    bins = np.searchsorted(INNER, values)
    return np.stack([(bins == one).mean(1) for one in range(packet.BINS)], -1)


def ks(old: Array, new: Array) -> Array:
    """The Kolmogorov-Smirnov distance of two histograms of shares."""
    found: Array = np.abs(np.cumsum(new - old, -1)).max(-1)
    return found


def psi(old: Array, new: Array) -> Array:
    """The population stability index of two histograms of shares."""
    old, new = np.maximum(old, 1e-4), np.maximum(new, 1e-4)
    found: Array = ((new - old) * np.log(new / old)).sum(-1)
    return found


def _windows(days: Array) -> Array:
    total = np.cumsum(np.concatenate([np.zeros_like(days[:1]), days]), 0)
    found: Array = (total[WINDOW:] - total[:-WINDOW]) / WINDOW
    return found


def table(
    clinics: list[Clinic], shifts: list[float], seed: int, sites: int, tick: Callable[[], None]
) -> Iterator[tuple[Clinic, str, list[Found]]]:
    """For each clinic, the watch first and then its rivals: how long changes of each size go unnoticed."""
    for clinic in clinics:
        rivals, own, theirs = Rivals(clinic, seed, max(sites, 20)), list[Found](), list[list[Found]]()
        tick()
        for number, shift in enumerate(shifts):
            first = seed + (number + 1) * 1_000_000
            own.append(Found(shift, tuple(days_to_find(clinic, shift, iter(range(first, first + sites))))))
            told = list(rivals.days_to_find(shift, iter(range(first, first + sites))))
            theirs.append([Found(shift, days) for days in zip(*told, strict=True)])
            tick()
        yield clinic, "Outpost", own
        for name, some in zip(RIVALS, zip(*theirs, strict=True), strict=True):
            yield clinic, name, list(some)
