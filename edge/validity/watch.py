"""The watch: whether the films of late are still such as this site's own history, and if not, since when and probably why.

Each stream's day mean, in units of what it varies by here from day to day, goes into a two-sided CUSUM (Page 1954); the place
among known films, many small movements at once, into a multivariate EWMA (Lowry 1992). Limits come from the site's own days, by
bootstrap of whole blocks of days, so that uneven days and streams that move together count; they leave one false alarm a site and
year in all. The bootstrap is double: the history itself is drawn anew each time, so that a short one gives wide limits.
"""

from __future__ import annotations

import math
import zlib
from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np
import numpy.typing as npt

from edge.records import Outcome
from edge.validity import cause, packet
from edge.validity.cause import Shift
from edge.validity.packet import Packet
from edge.validity.verdict import Alarm, Cause, Chart, Verdict

Array = npt.NDArray[np.float64]

RATES = ("abstained", "raised", "overridden", "children", "lying")
"""Shares of films: not assessed; put first by the AI; changed by a person; under 18; taken AP."""
MAIN = ("logit", "level", "contrast", "sharpness", "noise", "distance")
"""The streams that are charted. Every further one makes each slower to find: the others only help to name the cause."""
COLUMNS = (*MAIN, *RATES, *(stream for stream in packet.STREAMS if stream not in MAIN))
CHARTED = len(MAIN) + len(RATES)
PLACE = "place"
CHARTS = (*MAIN, *RATES, PLACE)
KINDS = (len(MAIN), len(RATES), 1)
"""Charts that have one limit together: a limit of its own for each would be too unsure, from so few days."""
STARTS = np.cumsum((0, *KINDS[:-1]))
SHARES = np.array([6.0, 0.3, 0.5])
"""How they share the budget of false alarms: the rates say little that the streams do not say before them."""

SLACK = 0.9
"""What the CUSUM lets pass each day, in standard deviations of a day's mean: half of the shift that shall be found soonest."""
WEIGHT = 0.2
"""Of the latest day in the EWMA."""
RARE = 0.02
"""A rate is never taken for steadier than one of so much: nobody knows a share of nothing that well."""
SIZES = (30, 60, 90, 180, 365)
"""Days of history that the limits are made of; more as they come, while nothing has moved."""
LEAST_FILMS = 300
BLUR = 1.06
"""Drawn days are blurred a little, as so few have no tails (Silverman and Young 1987)."""
BLOCK = 3
"""Days that are drawn together: what one day is like may last."""
DRAWS = 500
YEAR = 365
QUIET_ALL_YEAR = math.exp(-1)
"""With one false alarm a year on average, so many years have none (Poisson)."""
THIN, FASTER = 27.5, 1.17
"""Of n days of history the bootstrap's limits bring (THIN / n) ** FASTER more alarms than it promises (simulated, `figures.md`)."""
QUIET = 14
"""Days without another movement, after which an alarm ends."""


@dataclass(frozen=True)
class Days:
    """What the watch needs of each day, a row a day."""

    n: Array
    """(days, columns): films that the column was measured on."""
    mean: Array
    """(days, columns); 0 where there is none."""
    within: Array
    """(days, columns): sum of squares around the day's own mean."""

    def __getitem__(self, chosen: slice) -> Days:
        return Days(self.n[chosen], self.mean[chosen], self.within[chosen])

    def __len__(self) -> int:
        return len(self.n)


@dataclass(frozen=True)
class Reference:
    """What is usual here, for each column."""

    mean: Array
    variance: Array
    """Of films of one day."""
    effect: Array
    """Variance of the days themselves: real days differ by more than their films do."""

    def standard(self, n: Array, mean: Array) -> Array:
        """Day means in units of what they vary by here; 0 where there is no film."""
        spread = np.sqrt(self.variance / np.maximum(n, 1) + self.effect)
        return np.where(n > 0, (mean - self.mean) / spread, 0.0)


def days_of(packets: Sequence[Packet]) -> Days:
    """The columns of each day, the axes after them as they are in the packet."""
    return _days(np.array([_sums(one) for one in packets]))


def _sums(one: Packet) -> list[tuple[float, float, float]]:
    whole = one.whole
    films, assessed, read = (
        packet.count(whole, "films"),
        packet.moments(whole, "logit")[0],
        packet.count(whole, "read"),
    )
    raised = packet.count(whole, Outcome.IMMEDIATE) + packet.count(whole, Outcome.SOON)
    children = sum(packet.count(tally, "films") for key, tally in one.strata.items() if key.ages in cause.CHILDREN)
    lying = sum(packet.count(tally, "films") for key, tally in one.strata.items() if key.view == "AP")
    shares = (
        (films, packet.count(whole, Outcome.COULD_NOT_ASSESS)),
        (assessed, min(raised, assessed)),
        (read, packet.count(whole, "overridden")),
        (films, children),
        (films, lying),
    )
    n, totals, products = packet.axes(whole)
    return [
        *(packet.moments(whole, stream) for stream in MAIN),
        *((of, some, some) for of, some in shares),
        *(packet.moments(whole, stream) for stream in COLUMNS[CHARTED:]),
        *((n, total, products[axis][axis]) for axis, total in enumerate(totals)),
    ]


def _days(sums: Array) -> Days:
    n, total, squares = np.moveaxis(np.asarray(sums, float), 2, 0)
    mean = np.divide(total, n, out=np.zeros_like(n), where=n > 0)
    return Days(n, mean, np.maximum(squares - n * mean**2, 0))


def reference(days: Days) -> Reference:
    """What these days say is usual: mean, variance within a day, and variance of days (analysis of variance, Searle 1971)."""
    return _reference(np.ones((1, len(days))), days, squeeze=True)


def _reference(times: Array, days: Days, squeeze: bool = False) -> Reference:
    """The same for many draws at once: `times` (draws, days) is how often each day was drawn."""
    films = times @ days.n
    mean = (times @ (days.n * days.mean)) / np.maximum(films, 1)
    drawn = times @ (days.n > 0)
    variance = (times @ days.within) / np.maximum(films - drawn, 1)
    rates = slice(len(MAIN), CHARTED)
    share = np.clip(mean[:, rates], RARE, 1 - RARE)
    variance[:, rates] = share * (1 - share)
    variance = np.maximum(variance, 1 / packet.STEP**2)
    between = times @ (days.n * days.mean**2) - films * mean**2
    spread = films - (times @ days.n**2) / np.maximum(films, 1)
    effect = np.maximum((between - (drawn - 1) * variance) / np.maximum(spread, 1e-9), 0) * (drawn > 1)
    found = mean, variance, effect
    return Reference(*(one[0] if squeeze else one[:, None] for one in found))


class Charts:
    """The charts of one site, or of many drawn ones side by side: (…, charts)."""

    def __init__(self, shape: tuple[int, ...] = ()) -> None:
        self._up, self._down = np.zeros((*shape, CHARTED)), np.zeros((*shape, CHARTED))
        self._smooth = np.zeros((*shape, packet.AXES))

    def step(self, day: Array) -> Array:
        """Take a day's standardized means, and say how high each chart stands: (…, `CHARTS`)."""
        columns, place = day[..., :CHARTED], day[..., len(COLUMNS) :]
        self._up = np.maximum(self._up + columns - SLACK, 0)
        self._down = np.maximum(self._down - columns - SLACK, 0)
        self._smooth = WEIGHT * place + (1 - WEIGHT) * self._smooth
        length = np.sum(self._smooth**2, -1, keepdims=True) * (2 - WEIGHT) / WEIGHT
        return np.concatenate([np.maximum(self._up, self._down), length], -1)


def limits(days: Days, seed: int, draws: int = DRAWS) -> Array:
    """How high each chart may stand, so that e^-1 of the years that this history could have had go by without an alarm.

    Of a short history more of its years have to: what it does not know of the site, drawing from it cannot tell.
    """
    draw, size = np.random.default_rng(seed), len(days)
    times = np.zeros((draws, size))
    np.add.at(times, (np.arange(draws)[:, None], _blocks(draw, draws, size, size)), 1)
    usual = _reference(times, days)
    # a sample's spread around its own mean is too small by this; drawing from it would hand that down
    center = reference(days).mean
    off = (days.mean - center) * math.sqrt(size / (size - 1))
    spread = off.std(0)
    blur = BLUR * size**-0.2
    charts, highest = Charts((draws,)), np.zeros((draws, len(KINDS)))
    chosen = _blocks(draw, draws, YEAR, size)
    narrow = Reference(usual.mean[:, 0], usual.variance[:, 0], usual.effect[:, 0])
    for day in range(YEAR):
        at = chosen[:, day]
        noise = draw.standard_normal(off[at].shape) * spread * blur
        heights = charts.step(narrow.standard(days.n[at], center + (off[at] + noise) / math.sqrt(1 + blur**2)))
        highest = np.maximum(highest, np.maximum.reduceat(heights, STARTS, axis=-1))
    quiet = QUIET_ALL_YEAR ** (1 / (1 + (THIN / size) ** FASTER))
    return np.repeat(_shared(highest, SHARES, quiet), KINDS)


def _blocks(draw: np.random.Generator, draws: int, length: int, size: int) -> npt.NDArray[np.int64]:
    """Which days are drawn: blocks of days that follow each other, the last followed by the first (Politis and Romano 1992)."""
    starts = draw.integers(0, size, (draws, -(-length // BLOCK)))
    return ((starts[:, :, None] + np.arange(BLOCK)) % size).reshape(draws, -1)[:, :length]


def _shared(highest: Array, shares: Array, quiet: float) -> Array:
    """The limits that together let a share `quiet` of the rows of `highest` pass, each chart stopping its share of the others."""
    ranked = np.sort(highest, 0)
    low, high = 0.0, 1 / float(shares.max())
    for _ in range(30):
        middle = (low + high) / 2
        found = _at(ranked, middle * shares)
        low, high = (middle, high) if np.mean(np.all(highest <= found, 1)) > quiet else (low, middle)
    return _at(ranked, low * shares)


def _at(ranked: Array, beyond: Array) -> Array:
    """The value of each column that a share `beyond` of it exceeds."""
    rows = np.clip((1 - beyond) * (len(ranked) - 1), 0, len(ranked) - 1)
    floor = rows.astype(int)
    columns = np.arange(ranked.shape[1])
    upper = ranked[np.minimum(floor + 1, len(ranked) - 1), columns]
    lower = ranked[floor, columns]
    found: Array = lower + (rows - floor) * (upper - lower)
    return found


SHOWN = 60
"""So many days are shown."""


def look(packets: Sequence[Packet]) -> Verdict:
    """What these days, all ended and oldest first, say; the same days always say the same."""
    films = sum(packet.count(one.whole, "films") for one in packets)
    more_days, more_films = max(0, SIZES[0] - len(packets)), max(0, LEAST_FILMS - films)
    if more_days or more_films:
        return Verdict(len(packets), films, more_days, more_films)
    days, alarms = days_of(packets), list[Alarm]()
    size = next(
        size
        for size in range(SIZES[0], len(packets) + 1)
        if days.n[:size, COLUMNS.index("abstained")].sum() >= LEAST_FILMS
    )
    usual, most = _usual(packets, days, size)
    charts, began, since, last, heights = Charts(), size, size, size, np.zeros(len(CHARTS))
    standard = [*usual.standard(days.n[:size], days.mean[:size])]
    for day in range(size, len(days)):
        if not alarms and day in SIZES[1:]:
            usual, most = _usual(packets, days, day)
        standard.append(usual.standard(days.n[day], days.mean[day]))
        heights = charts.step(standard[-1]) / most
        crossed = tuple(name for name, height in zip(CHARTS, heights, strict=True) if height > 1)
        stands = bool(alarms) and alarms[-1].ended is None
        if crossed:
            if not stands:  # else all films since it began to stand tell of its cause, not the latest alone
                since = began
            since += _since(np.array(standard[since:]), CHARTS[int(np.argmax(heights))])
            alarm = _alarm(packets, usual, days, (size, since, day), crossed)
            if stands:
                alarms[-1] = _also(alarms[-1], alarm)
            else:
                alarms.append(alarm)
            charts, began, last = Charts(), day + 1, day
        elif stands and day - last >= QUIET:
            alarms[-1] = replace(alarms[-1], ended=packets[day].day)
    shown = np.array(standard[-SHOWN:])
    return Verdict(
        len(packets),
        films,
        0,
        0,
        tuple(alarms),
        tuple(_chart(name, number, shown, heights) for number, name in enumerate(CHARTS)),
        tuple(one.day for one in packets[-SHOWN:]),
    )


def _usual(packets: Sequence[Packet], days: Days, size: int) -> tuple[Reference, Array]:
    seed = zlib.crc32(f"{packets[0].edges} {packets[0].day} {size}".encode())
    return reference(days[:size]), np.maximum(limits(days[:size], seed), 1e-9)


def _since(standard: Array, chart: str) -> int:
    """When a chart's stream began to move: from there on its mean is farthest from nought for its error (Hinkley 1970)."""
    if chart == PLACE:
        told = np.cumsum(standard[::-1, len(COLUMNS) :], 0)
    else:
        told = np.cumsum(standard[::-1, [CHARTS.index(chart)]], 0)
    likely = np.sum(told**2, 1) / np.arange(1, len(told) + 1)
    return len(standard) - 1 - int(np.argmax(likely))


def _alarm(
    packets: Sequence[Packet], usual: Reference, days: Days, span: tuple[int, int, int], crossed: tuple[str, ...]
) -> Alarm:
    size, since, day = span
    before, after = packet.merge(packets[:size]), packet.merge(packets[since : day + 1])
    told = shifts(usual, days[since : day + 1])
    leading = cause.leading(told)
    return Alarm(
        found=packets[day].day,
        since=packets[since].day,
        charts=crossed,
        cause=cause.likely(told, before, after),
        devices=cause.affected(before, after, leading, "device"),
        views=cause.affected(before, after, leading, "view"),
        ages=cause.affected(before, after, leading, "ages"),
    )


def _also(alarm: Alarm, further: Alarm) -> Alarm:
    """An alarm that stands and has crossed a limit again: its cause is what the films until now tell, if they tell any."""
    if further.cause is Cause.UNCLEAR:
        return alarm
    charts = tuple(name for name in CHARTS if name in {*alarm.charts, *further.charts})
    return replace(further, found=alarm.found, since=alarm.since, charts=charts)


def shifts(usual: Reference, days: Days) -> dict[str, Shift]:
    """By how much each column has moved in these days, in spreads of single films, and how surely."""
    films = days.n.sum(0)
    mean = (days.n * days.mean).sum(0) / np.maximum(films, 1)
    size = (mean - usual.mean) / np.sqrt(usual.variance)
    spread = np.sqrt(usual.variance / np.maximum(films, 1) + usual.effect / len(days))
    surely = np.where(films > 0, (mean - usual.mean) / spread, 0)
    return {name: Shift(float(size[at]), float(surely[at])) for at, name in enumerate(COLUMNS)}


def _chart(name: str, number: int, shown: Array, heights: Array) -> Chart:
    column = shown[:, number] if name != PLACE else np.sqrt(np.mean(shown[:, len(COLUMNS) :] ** 2, 1))
    return Chart(name, tuple(round(float(value), 2) for value in column), round(float(heights[number]), 3))
