"""Many sites together: their packets add up exactly, and of many sites those are named in which films have changed.

For each site, and for each kind of X-ray unit with one model over all sites that have it, the days of late are held against those
before by an e-value: what a sceptic would have won who bet a coin on the change. It is the likelihood ratio of the t statistic
of the day means when the shift is drawn from a normal distribution (Gönen 2005), so days may differ by more than their films do;
the mean over what is watched is an e-value again, however the streams hang together. Which sites are named is the e-BH procedure
(Wang and Ramdas 2022): of those named at a time, on average at most one in ten is named without cause. It was chosen over Benjamini
and Hochberg's because it holds whatever the sites have in common, as an update of the model for all on one day.
"""

from __future__ import annotations

import math
from collections.abc import Hashable, Iterable, Mapping, Sequence
from typing import TypeVar

import numpy as np
import numpy.typing as npt

from edge.validity import cause, packet, watch
from edge.validity.packet import Packet
from edge.validity.verdict import Cause, Chart

Array = npt.NDArray[np.float64]
Name = TypeVar("Name", bound=Hashable)

RECENT = 14
"""Days of late."""
LEAST = 30
"""Days before those, at least."""
PRIOR = 2.0
"""Variance of the shift that is bet on, in variances of a day's mean."""
WRONGLY = 0.1
"""Of those named, at most this share is named without cause, on average."""


def by_day(packets: Iterable[Packet]) -> list[Packet]:
    """The packets of many sites and one model as one a day, oldest first: equal to those that all their films together had made."""
    days: dict[object, list[Packet]] = {}
    for one in packets:
        days.setdefault(one.day, []).append(one)
    return [packet.merge(some) for _, some in sorted(days.items(), key=lambda day: str(day[0]))]


def by_unit(packets: Iterable[Packet]) -> dict[tuple[str, str], list[Packet]]:
    """By model and kind of X-ray unit, what the packets say of its films alone; nothing of films that name none."""
    found: dict[tuple[str, str], list[Packet]] = {}
    for one in packets:
        for device in sorted({key.device for key in one.strata if key.device}):
            strata = {key: tally for key, tally in one.strata.items() if key.device == device}
            found.setdefault((one.edges, device), []).append(Packet(one.edges, one.day, strata))
    return found


def evidence(before: Sequence[float] | Array, after: Sequence[float] | Array) -> float:
    """The e-value of a change between two rows of numbers; 1 where they tell nothing."""
    old, new = np.asarray(before, float), np.asarray(after, float)
    free = len(old) + len(new) - 2
    if min(len(old), len(new)) < 1 or free < 1:
        return 1.0
    variance = (np.square(old - old.mean()).sum() + np.square(new - new.mean()).sum()) / free
    if variance < 1e-12:
        return 1.0
    weight = len(old) * len(new) / (len(old) + len(new))
    square = (new.mean() - old.mean()) ** 2 / variance * weight / free
    wider = 1 + weight * PRIOR
    power = (free + 1) / 2 * (math.log1p(square) - math.log1p(square / wider)) - math.log(wider) / 2
    return math.exp(min(power, 500.0))


def change(packets: Sequence[Packet]) -> float | None:
    """The e-value that the latest days of a site, or of several by day, differ from those before; None where there are too few."""
    if len(packets) < LEAST + RECENT:
        return None
    days = watch.days_of(packets)
    usual = watch.reference(days[:-RECENT])
    standard = usual.standard(days.n, days.mean)[:, : watch.CHARTED]
    seen = days.n[:, : watch.CHARTED] > 0
    rows = [standard[seen[:, column], column] for column in range(watch.CHARTED)]
    late = [int(seen[-RECENT:, column].sum()) for column in range(watch.CHARTED)]
    return float(
        np.mean(
            [evidence(row[: len(row) - some], row[len(row) - some :]) for row, some in zip(rows, late, strict=True)]
        )
    )


def likely(packets: Sequence[Packet]) -> Cause:
    """The likely cause of a change between the latest days and those before; see `cause.likely`."""
    days = watch.days_of(packets)
    told = watch.shifts(watch.reference(days[:-RECENT]), days[-RECENT:])
    return cause.likely(told, packet.merge(packets[:-RECENT]), packet.merge(packets[-RECENT:]))


def picture(packets: Sequence[Packet]) -> Chart | None:
    """What moved most in the latest days, a day after the other, in units of what it varied by before; None for too few days."""
    if len(packets) < LEAST + RECENT:
        return None
    days = watch.days_of(packets)
    standard = watch.reference(days[:-RECENT]).standard(days.n, days.mean)[:, : watch.CHARTED]
    most = int(np.argmax(np.abs(standard[-RECENT:].mean(0))))
    shown = tuple(round(float(value), 2) for value in standard[-watch.SHOWN :, most])
    return Chart(watch.CHARTS[most], shown, 0.0)


def named(found: Mapping[Name, float], wrongly: float = WRONGLY) -> set[Name]:
    """Those that have changed, by e-BH: as many as possible, whose e-values are all at least everybody / (wrongly x so many)."""
    ranked = sorted(found, key=lambda name: found[name], reverse=True)
    most = max((at for at, name in enumerate(ranked, 1) if found[name] * wrongly * at >= len(ranked)), default=0)
    return set(ranked[:most])
