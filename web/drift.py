"""Whether the films have changed: one sentence and one action, and a picture of each thing that is watched; no patient's data."""

from __future__ import annotations

from dataclasses import dataclass

import flask
from flask import Blueprint, render_template, request, url_for

from edge import surveillance, words
from edge.health import Level
from edge.records import Role
from edge.state.store import now, transaction
from edge.validity.verdict import Alarm, Chart, Verdict
from web import here, people, phrases, signing
from web.languages import N_
from web.languages import gettext as _

pages = Blueprint("drift", __name__)

NAMES = {
    "logit": N_("How abnormal the AI finds the films"),
    "level": N_("How bright the films are"),
    "contrast": N_("How strong their contrast is"),
    "sharpness": N_("How sharp the AI sees them"),
    "noise": N_("How grainy they are"),
    "distance": N_("How unusual they are for the AI"),
    "place": N_("What the AI sees in them"),
    "abstained": N_("How many the AI could not assess"),
    "raised": N_("How many the AI puts first"),
    "overridden": N_("How often people change the AI’s outcome"),
    "children": N_("How many children come"),
    "lying": N_("How many are taken from the front (AP)"),
}


@dataclass(frozen=True)
class Told:
    """The watch in words."""

    level: Level
    sentence: str
    action: str


def told() -> Told:
    """What has moved, since when, and what to do."""
    verdict = surveillance.current(here.store())
    nothing = _("Nothing to do.")
    if verdict is None:
        return Told(Level.UNKNOWN, _("No day of films has ended yet."), nothing)
    if verdict.more_days or verdict.more_films:
        sentence = _("Too few films to say: %(days)s more days and %(films)s more films are needed.") % {
            "days": phrases.number(verdict.more_days),
            "films": phrases.number(verdict.more_films),
        }
        return Told(Level.UNKNOWN, sentence, nothing)
    if (alarm := verdict.alarm) is None:
        return Told(Level.GOOD, _("The films are such as they always were here."), nothing)
    sentence, action = words.CAUSES[alarm.cause]
    since = _("The films have changed since about %(day)s.") % {"day": phrases.day(alarm.since)}
    return Told(Level.ACT, f"{since} {_(sentence)}", _(action))


def place(chart: Chart) -> str:
    """The days of a chart as the points of a picture of 120 by 40; four spreads up or down are its edge."""
    step = 120 / max(len(chart.days) - 1, 1)
    return " ".join(f"{step * at:.1f},{20 - 5 * min(max(value, -4), 4):.1f}" for at, value in enumerate(chart.days))


def moved(verdict: Verdict, chart: Chart) -> bool:
    """Whether this is part of the alarm that stands."""
    return verdict.alarm is not None and chart.stream in verdict.alarm.charts


@pages.get("/drift")
@people.may(Role.LEAD, Role.TECHNICIAN)
def page() -> str:
    """Every stream as a picture, those that moved first."""
    return _page()


@pages.post("/drift/restart")
@people.may(Role.LEAD)
def restart() -> flask.typing.ResponseReturnValue:
    """End the alarm that the lead was shown: the films from now on are what is usual here."""
    lead = people.who()
    wrong = signing.unproven(request.form.get("pin", ""))
    if wrong:
        return _page(wrong), 422
    with transaction(here.store()) as store:
        alarm = standing()
        if alarm is not None and alarm.found.isoformat() == request.form.get("found"):
            surveillance.begin_anew(store, lead.name, now())
    return flask.redirect(url_for("drift.page"), 303)


def standing() -> Alarm | None:
    """The alarm that stands."""
    verdict = surveillance.current(here.store())
    return None if verdict is None else verdict.alarm


def _page(wrong: str = "") -> str:
    verdict = surveillance.current(here.store())
    charts = [] if verdict is None else sorted(verdict.charts, key=lambda one: (not moved(verdict, one), -one.height))
    return render_template(
        "drift.html",
        told=told(),
        verdict=verdict,
        alarm=standing(),
        charts=charts,
        wrong=wrong,
        NAMES=NAMES,
        place=place,
        moved=moved,
    )
