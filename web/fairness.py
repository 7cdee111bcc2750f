"""Fairness in pictures, for leads: whose films wait long, whose the AI cannot assess, and whose it misses."""

from __future__ import annotations

import math
from dataclasses import dataclass
from datetime import datetime, timedelta

from flask import Blueprint, render_template, request

from edge.records import Film, Outcome, Role
from edge.state import reads, results
from edge.state.store import now
from edge.validity.accuracy import RAISED
from edge.validity.fairness import SMALL, By, Measure, Panel, Seen, Told, Verdict, Wait, counts, panel, tell
from edge.vocabulary import IMPRESSIONS, Sight
from web import commission, here, people, phrases
from web.languages import N_
from web.languages import gettext as _

DAYS = (30, 90, 365)

pages = Blueprint("fairness", __name__)

TITLES = {
    Measure.WAIT: N_("How long films wait for a person’s decision"),
    Measure.ABSTAINED: N_("Films that the AI could not assess"),
    Measure.FOUND: N_("Abnormal films that the AI puts first"),
}
MEANS = {
    Measure.WAIT: N_(
        "From the film’s arrival until a person decided. A film that nobody has decided counts with what it has waited so far."
    ),
    Measure.ABSTAINED: N_("Of all films that the AI has tried."),
    Measure.FOUND: N_("Of the films that a person read as abnormal before they were shown what the AI says."),
}
BY = {By.SEX: N_("Women and men"), By.AGE: N_("By age"), By.DEVICE: N_("By X-ray unit")}

WOMEN = {
    (Measure.WAIT, Verdict.MORE): N_("Women wait longer than men."),
    (Measure.WAIT, Verdict.LESS): N_("Women wait less long than men."),
    (Measure.WAIT, Verdict.SAME): N_("Women wait about as long as men."),
    (Measure.WAIT, Verdict.UNSURE): N_("Too few films to tell whether women wait as long as men."),
    (Measure.ABSTAINED, Verdict.MORE): N_("The AI fails to assess women’s films more often than men’s."),
    (Measure.ABSTAINED, Verdict.LESS): N_("The AI fails to assess women’s films less often than men’s."),
    (Measure.ABSTAINED, Verdict.SAME): N_("The AI can assess women’s films about as often as men’s."),
    (Measure.ABSTAINED, Verdict.UNSURE): N_(
        "Too few films to tell whether the AI can assess women’s as often as men’s."
    ),
    (Measure.FOUND, Verdict.MORE): N_("The AI finds more of women’s abnormal films than of men’s."),
    (Measure.FOUND, Verdict.LESS): N_("The AI misses more of women’s abnormal films than of men’s."),
    (Measure.FOUND, Verdict.SAME): N_("The AI finds about as many of women’s abnormal films as of men’s."),
    (Measure.FOUND, Verdict.UNSURE): N_(
        "Too few films to tell whether the AI finds women’s abnormal films as often as men’s."
    ),
}
GROUPS = {
    (Measure.WAIT, Verdict.MORE): N_("These wait longer than the others: %(groups)s."),
    (Measure.WAIT, Verdict.LESS): N_("These wait less long than the others: %(groups)s."),
    (Measure.WAIT, Verdict.SAME): N_("The groups that are shown wait about as long as each other."),
    (Measure.WAIT, Verdict.UNSURE): N_("Too few films to tell whether all groups wait as long as each other."),
    (Measure.ABSTAINED, Verdict.MORE): N_("The AI fails to assess these more often than the others: %(groups)s."),
    (Measure.ABSTAINED, Verdict.LESS): N_("The AI fails to assess these less often than the others: %(groups)s."),
    (Measure.ABSTAINED, Verdict.SAME): N_("The AI can assess the groups that are shown about equally often."),
    (Measure.ABSTAINED, Verdict.UNSURE): N_(
        "Too few films to tell whether the AI can assess all groups equally often."
    ),
    (Measure.FOUND, Verdict.MORE): N_("The AI finds more of these than of the others: %(groups)s."),
    (Measure.FOUND, Verdict.LESS): N_("The AI misses more of these than of the others: %(groups)s."),
    (Measure.FOUND, Verdict.SAME): N_("The AI finds about as many in each of the groups that are shown."),
    (Measure.FOUND, Verdict.UNSURE): N_("Too few films to tell whether the AI finds as many in all groups."),
}


@dataclass(frozen=True)
class Line:
    """One group in words and as a bar; places on the bar go from 0 to 100."""

    name: str
    """Empty for a film's own words, which are in `said`."""
    said: str
    told: Told
    bars: tuple[tuple[float, float, float], ...]
    """From, to and mark."""


@dataclass(frozen=True)
class Picture:
    """One panel as the page shows it."""

    title: str
    sentence: str
    verdict: Verdict
    lines: list[Line]
    hidden: int


@dataclass(frozen=True)
class Section:
    """One measure as the page shows it."""

    title: str
    means: str
    all: Line | None
    """None where too few films tell anything."""
    pictures: list[Picture]


@pages.get("/fairness")
@people.may(Role.LEAD)
def page() -> str:
    """Who waits, who cannot be assessed and who is missed."""
    asked = request.args.get("days", type=int)
    days = asked if asked in DAYS else DAYS[0]
    films = seen(now(), days)
    return render_template(
        "fairness.html",
        days=days,
        periods=DAYS,
        films=len(films) if len(films) >= SMALL else None,
        sections=[_section(films, measure) for measure in Measure],
        Verdict=Verdict,
    )


def seen(at: datetime, days: int) -> list[Seen]:
    """The films that came in so many days before a moment, and what became of them."""
    store = here.store()
    films = list(results.came(store, at - timedelta(days=days)))
    decided = {number: acts[0].at for number, acts in reads.decisions(store).items()}
    blind = {read.arrival_id: IMPRESSIONS[read.codes[0]].sight for read in reads.blind(store, 2**31)}
    return [_seen(film, decided.get(film.arrival.id), blind.get(film.arrival.id), at) for film in films]


def _seen(film: Film, decided: datetime | None, sight: Sight | None, at: datetime) -> Seen:
    outcome = film.decision.outcome if film.decision else None
    assessed = outcome not in (None, Outcome.COULD_NOT_ASSESS)
    return Seen(
        sex=film.header.PatientSex,
        age_years=film.header.age_years if film.supplied_age is None else film.supplied_age,
        device=f"{film.header.Manufacturer} {film.header.ManufacturerModelName}",
        waited=max(((decided or at) - film.arrival.received_at).total_seconds() / 60, 0.0),
        waiting=decided is None,
        abstained=None if outcome is None else not assessed,
        found=outcome in RAISED if assessed and sight is Sight.ABNORMAL else None,
    )


def _section(films: list[Seen], measure: Measure) -> Section:
    some = [film for film in films if counts(measure, film)]
    panels = [panel(films, by, measure) for by in By]
    whole = tell(measure, some) if len(some) >= SMALL else None
    told = [one.told for drawn in panels for one in drawn.groups] + ([whole] if whole else [])
    longest = max((one.percentile90 for one in told if isinstance(one, Wait)), default=0.0) * 1.2 or 1.0
    return Section(
        _(TITLES[measure]),
        _(MEANS[measure]),
        None if whole is None else line(_("All films"), "", whole, longest),
        [_picture(drawn, longest) for drawn in panels],
    )


def _picture(drawn: Panel, longest: float) -> Picture:
    verdict, names = drawn.verdict
    known = [_named(name, drawn.by) or name for name in names]
    table = WOMEN if drawn.by is By.SEX else GROUPS
    sentence = _(table[drawn.measure, verdict])
    if "%(groups)s" in sentence:
        sentence %= {"groups": ", ".join(known)}
    lines = []
    for one in drawn.groups:
        name = _named(one.name, drawn.by)
        lines.append(line(name, "" if name else one.name, one.told, longest))
    return Picture(_(BY[drawn.by]), sentence, verdict, lines, drawn.hidden)


def _named(name: str, by: By) -> str:
    """The group in words; empty where its own name is all there is."""
    match by:
        case By.SEX:
            return phrases.sex(name)
        case By.AGE:
            low, dash, high = name.partition("-")
            return commission.band(int(low), int(high)) if dash else _("age unknown")
        case By.DEVICE:
            return "" if name else _("X-ray unit not named")


def line(name: str, said: str, told: Told, longest: float) -> Line:
    """A group, or an arm of a trial, as a line of the page; waits up to `longest` minutes fit its bar."""

    def on(minutes: float) -> float:
        return min(100 * minutes / longest, 100.0)

    if isinstance(told, Wait):
        pairs = ((told.interval, told.median), (told.interval90, told.percentile90))
        return Line(name, said, told, tuple((on(low), on(high), on(mark)) for (low, high), mark in pairs))
    low, high = told.interval
    return Line(name, said, told, ((100 * low, 100 * high, 100 * told.value),))


def between(interval: tuple[float, float]) -> str:
    """What a waiting time may really be."""
    low, high = (_minutes(one) for one in interval)
    return (
        _("it may be %(low)s to %(high)s") % {"low": low, "high": high}
        if high
        else _("it may be over %(low)s") % {"low": low}
    )


def _minutes(minutes: float) -> str:
    return "" if math.isinf(minutes) else phrases.duration(timedelta(minutes=minutes))


def waited(minutes: float) -> str:
    """A waiting time in minutes, in words."""
    return _minutes(minutes)
