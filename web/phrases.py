"""Values as a person reads them: names, ages, waiting times, probabilities. Each is a filter of the templates."""

from __future__ import annotations

from datetime import datetime, timedelta

from edge.records import Film, Finding, Outcome, Urgency

SHAPES = {
    Outcome.IMMEDIATE: "▲",
    Outcome.SOON: "◆",
    Outcome.ROUTINE: "●",
    Outcome.COULD_NOT_ASSESS: "?",
    None: "…",
}
"""So that an outcome is never told by colour alone."""

ORDERED = {Urgency.STAT: "Ordered as STAT", Urgency.HIGH: "Ordered as urgent", Urgency.ROUTINE: ""}

_SEXES = {"M": "male", "F": "female", "O": "other sex"}

_LIKELIHOODS = ((0.10, "very unlikely"), (0.33, "unlikely"), (0.66, "as likely as not"), (0.90, "likely"))
"""The scale that the IPCC's guidance note of 2010 fixed, in the middle of its categories."""


def person(name: str) -> str:
    """A DICOM person name (PS3.5 6.2.1) as family, given; a second script follows in brackets."""
    groups = [_group(group) for group in name.split("=")[:2]]
    written = [group for group in groups if group]
    return " ".join([*written[:1], *(f"({group})" for group in written[1:])]) or "Name not given"


def _group(group: str) -> str:
    family, given, middle, prefix, suffix = [part.strip() for part in (group.split("^") + [""] * 5)[:5]]
    first = " ".join(part for part in (prefix, given, middle, suffix) if part)
    return ", ".join(part for part in (family, first) if part)


def sex(code: str) -> str:
    """The sex in words, whatever the film says of it."""
    return _SEXES.get(code.upper(), "sex not given")


def age(film: Film) -> str:
    """The age in words: what a person entered here, else what the film says."""
    years = film.header.age_years if film.supplied_age is None else film.supplied_age
    if years is None:
        return "age unknown"
    if years < 1 / 12:
        days = round(years * 365.25)
        words = f"{days} day{'' if days == 1 else 's'}"
    elif years < 2:
        months = round(years * 12)
        words = f"{months} month{'' if months == 1 else 's'}"
    else:
        words = f"{int(years)} years"
    return words if film.supplied_age is None else f"{words} (entered here)"


def duration(wait: timedelta) -> str:
    """A waiting time: 12 min, 4 h, 3 h 05 min, 2 days 4 h."""
    minutes = int(wait.total_seconds() // 60)
    if minutes < 1:
        return "under 1 min"
    if minutes < 60:
        return f"{minutes} min"
    if minutes < 48 * 60:
        return f"{minutes // 60} h" + (f" {minutes % 60:02} min" if minutes % 60 else "")
    return f"{minutes // 1440} days {minutes % 1440 // 60} h"


def clock(at: datetime) -> str:
    """A moment as the box's clock shows it."""
    return at.astimezone().strftime("%Y-%m-%d %H:%M")


def day(at: datetime) -> str:
    """A day as the box's clock has it."""
    return at.astimezone().strftime("%Y-%m-%d")


def hour(at: datetime) -> str:
    """A time of today."""
    return at.astimezone().strftime("%H:%M")


def number(value: float) -> str:
    """A number; whole from 10 up, with one decimal below."""
    return f"{value:,.0f}" if value >= 10 or value == int(value) else f"{value:.1f}"


def taken(film: Film) -> str:
    """The day a film was taken, else when it came."""
    return day(film.arrival.received_at) if film.header.StudyDate is None else film.header.StudyDate.isoformat()


def likelihood(probability: float) -> str:
    """A probability in words, from a fixed scale."""
    return next((words for limit, words in _LIKELIHOODS if probability < limit), "very likely")


def percent(probability: float) -> str:
    """A probability in figures; never 0 % or 100 %, which no model knows."""
    if probability < 0.01:
        return "under 1 %"
    return "over 99 %" if probability > 0.99 else f"{probability * 100:.0f} %"


def interval(finding: Finding) -> str:
    """The 95 % interval of a finding's probability in figures."""
    return f"{max(finding.low, 0) * 100:.0f} to {min(finding.high, 1) * 100:.0f} %"


def frequency(probability: float) -> str:
    """A probability as a natural frequency, which people judge better than a percentage."""
    tenths = round(probability * 10)
    if tenths == 0:
        return "fewer than 1 of 10 such films"
    return "nearly all such films" if tenths == 10 else f"about {tenths} of 10 such films"


FILTERS = (person, sex, age, duration, clock, day, hour, number, taken, likelihood, percent, interval, frequency)
