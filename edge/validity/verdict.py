"""What the watch says of the days, as it is kept and shown; plain values, so that pages need no arithmetic."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import date
from enum import StrEnum


class Cause(StrEnum):
    """What probably changed."""

    POLARITY = "polarity"
    DETECTOR = "detector"
    POPULATION = "population"
    MODEL = "model"
    """How films are brought to the model, or the model itself."""
    PREVALENCE = "prevalence"
    EXPOSURE = "exposure"
    UNCLEAR = "unclear"


@dataclass(frozen=True)
class Alarm:
    """Films are no longer such as they were."""

    found: date
    since: date
    """When it probably began."""
    charts: tuple[str, ...]
    """Those that crossed their limits on the day it was found."""
    cause: Cause
    devices: tuple[str, ...]
    """Which X-ray units, views and ages it is about; empty where it is about all."""
    views: tuple[str, ...]
    ages: tuple[str, ...]
    ended: date | None = None


@dataclass(frozen=True)
class Chart:
    """One stream, for people to look at."""

    stream: str
    days: tuple[float, ...]
    """The latest days' means, in units of what they vary by here."""
    height: float
    """How high its chart stands now, as a share of its limit."""


@dataclass(frozen=True)
class Verdict:
    """What the days say."""

    days: int
    films: int
    more_days: int
    """So many more are needed before anything can be said; 0 where there are enough."""
    more_films: int
    alarms: tuple[Alarm, ...] = ()
    """Oldest first; only the last can be without an end."""
    charts: tuple[Chart, ...] = ()
    latest: tuple[date, ...] = ()
    """The days of the charts."""

    @property
    def alarm(self) -> Alarm | None:
        """The alarm that stands."""
        return self.alarms[-1] if self.alarms and self.alarms[-1].ended is None else None
