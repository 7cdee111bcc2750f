"""Values as a person reads them in the request's language: names, ages, times, probabilities. Each is a filter of the templates."""

from __future__ import annotations

import re
from datetime import date, datetime, timedelta

from edge.records import Film, Finding, Outcome, Urgency
from web.languages import N_, current, digits, ngettext
from web.languages import gettext as _

SHAPES = {
    Outcome.IMMEDIATE: "▲",
    Outcome.SOON: "◆",
    Outcome.ROUTINE: "●",
    Outcome.COULD_NOT_ASSESS: "?",
    None: "…",
}
"""So that an outcome is never told by colour alone."""

ORDERED = {Urgency.STAT: N_("Ordered as STAT"), Urgency.HIGH: N_("Ordered as urgent"), Urgency.ROUTINE: ""}

_SEXES = {"M": N_("male"), "F": N_("female"), "O": N_("other sex")}

_LIKELIHOODS = (
    (0.10, N_("very unlikely")),
    (0.33, N_("unlikely")),
    (0.66, N_("as likely as not")),
    (0.90, N_("likely")),
    (2.00, N_("very likely")),
)
"""The scale that the IPCC's guidance note of 2010 fixed, in the middle of its categories."""


def person(name: str) -> str:
    """A DICOM person name (PS3.5 6.2.1) as family, given; a second script follows in brackets."""
    groups = [_group(group) for group in name.split("=")[:2]]
    written = [group for group in groups if group]
    return " ".join([*written[:1], *(f"({group})" for group in written[1:])]) or _("Name not given")


def _group(group: str) -> str:
    family, given, middle, prefix, suffix = [part.strip() for part in (group.split("^") + [""] * 5)[:5]]
    first = " ".join(part for part in (prefix, given, middle, suffix) if part)
    comma = "، " if re.search("[\u0600-\u06ff]", family + first) else ", "
    return comma.join(part for part in (family, first) if part)


def sex(code: str) -> str:
    """The sex in words, whatever the film says of it."""
    return _(_SEXES.get(code.upper(), N_("sex not given")))


def age(film: Film) -> str:
    """The age in words: what a person entered here, else what the film says, else its order."""
    years = film.header.age_years if film.supplied_age is None else film.supplied_age
    if years is None:
        return _("age unknown")
    if years < 1 / 12:
        said = _count("%(num)s day", "%(num)s days", round(years * 365.25))
    elif years < 2:
        said = _count("%(num)s month", "%(num)s months", round(years * 12))
    else:
        said = _count("%(num)s year", "%(num)s years", int(years))
    if film.supplied_age is not None:
        return _("%(age)s (entered here)") % {"age": said}
    return _("%(age)s (from the order)") % {"age": said} if "age_years" in film.header.from_order else said


def _count(one: str, many: str, count: int) -> str:
    return ngettext(one, many, count) % {"num": number(count)}


def duration(wait: timedelta) -> str:
    """A waiting time: 12 min, 4 h, 3 h 05 min, 2 days 4 h."""
    minutes = int(wait.total_seconds() // 60)
    if minutes < 1:
        return _whole(_("under %(num)s min") % {"num": number(1)})
    if minutes < 60:
        return _whole(_("%(num)s min") % {"num": number(minutes)})
    hours = _whole(_("%(num)s h") % {"num": number(minutes // 60)})
    if minutes < 48 * 60:
        rest = _whole(_("%(num)s min") % {"num": digits(f"{minutes % 60:02}")})
        return f"{hours} {rest}" if minutes % 60 else hours
    hours = _whole(_("%(num)s h") % {"num": number(minutes % 1440 // 60)})
    return f"{_whole(_count('%(num)s day', '%(num)s days', minutes // 1440))} {hours}"


def _whole(text: str) -> str:
    """A number and its unit, which no end of a line parts."""
    return text.replace(" ", "\xa0")


def clock(at: datetime) -> str:
    """A moment as the box's clock shows it."""
    return f"{day(at)} {hour(at)}"


def day(at: date) -> str:
    """A day as the box's clock has it; the month in letters, so that nobody takes it for the day."""
    local = at.astimezone() if isinstance(at, datetime) else at
    return digits(f"{local.day} {current().months.split()[local.month - 1]} {local.year}")


def month(at: date) -> str:
    """A month of a year."""
    return digits(f"{current().months.split()[at.month - 1]} {at.year}")


def hour(at: datetime) -> str:
    """A time of today."""
    return digits(at.astimezone().strftime("%H:%M"))


def number(value: float) -> str:
    """A number; whole from 10 up, with one decimal below."""
    language = current()
    text = f"{value:,.0f}" if value >= 10 or value == int(value) else f"{value:.1f}"
    return digits(text.translate({ord(","): language.group, ord("."): language.decimal}))


def taken(film: Film) -> str:
    """The day a film was taken, else when it came."""
    return day(film.header.StudyDate or film.arrival.received_at)


def likelihood(probability: float) -> str:
    """A probability in words, from a fixed scale."""
    return _(next(said for limit, said in _LIKELIHOODS if probability < limit))


def percent(probability: float) -> str:
    """A probability in figures; never 0 % or 100 %, which no model knows."""
    if probability < 0.01:
        return _("under %(share)s") % {"share": _share(1)}
    return _("over %(share)s") % {"share": _share(99)} if probability > 0.99 else _share(round(probability * 100))


def interval(finding: Finding) -> str:
    """The 95 % interval of a finding's probability in figures."""
    low, high = round(max(finding.low, 0) * 100), round(min(finding.high, 1) * 100)
    return _("%(low)s to %(high)s") % {"low": number(low), "high": _share(high)}


def _share(hundredths: int) -> str:
    return current().percent.format(number(hundredths))


def frequency(probability: float) -> str:
    """A probability as a natural frequency, which people judge better than a percentage."""
    tenths = round(probability * 10)
    if tenths == 0:
        return _("fewer than 1 of 10 such films")
    if tenths == 10:
        return _("nearly all such films")
    return _("about %(num)s of 10 such films") % {"num": number(tenths)}


FILTERS = (person, sex, age, duration, clock, day, month, hour, number, taken, likelihood, percent, interval, frequency)
