"""A trial of the AI's order against order of arrival: a lead registers it, ends it, and then, not before, sees what came of it."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import date, timedelta

import flask
from flask import Blueprint, abort, render_template, request, url_for

from edge import evidence, trial, words
from edge.records import Arm, Reason, Role, Unit
from edge.state import audit, trials
from edge.state.store import now, transaction
from edge.state.trials import Trial
from edge.trial import Exclusion, Obstacle
from edge.validity import randomize
from edge.validity.fairness import Wait
from edge.validity.trial import Told, gained
from edge.vocabulary import OVERRIDES
from web import fairness, here, people, phrases, signing
from web.fairness import Line
from web.languages import N_
from web.languages import gettext as _

pages = Blueprint("trial", __name__)

ARMS = {Arm.AI_RANKED: N_("The AI’s order"), Arm.ARRIVAL_ORDER: N_("Order of arrival")}
UNITS = {Unit.DAY: N_("Days: all films of one day have the same order"), Unit.FILM: N_("Films: each film by itself")}
OBSTACLES = {
    Obstacle.RUNNING: N_("Another trial is running. End it first."),
    Obstacle.NOT_ACCEPTED: N_("No AI model ranks here, so there is nothing to compare. Accept one first."),
    Obstacle.TITLE: N_("Give the trial a title of at most 200 letters."),
    Obstacle.END: N_("Say how many films or days are planned, or the last day."),
    Obstacle.SIZE: N_("Plan at least four films or days."),
    Obstacle.DAY: N_("The last day is over already."),
}
EXCLUSIONS = {
    Exclusion.MODEL: N_("Another AI model was in use"),
    Exclusion.TWICE: N_("The film was here before"),
}
TIMES = {
    "to_look": N_("Until somebody opened the film"),
    "to_decision": N_("Until somebody decided"),
    "to_decision_urgent": N_("Until somebody decided, films that are immediate or soon"),
    "to_decision_routine": N_("Until somebody decided, routine films"),
}
INTERACTION = {
    "looks": N_("Films opened"),
    "revealed": N_("Answers of the AI shown"),
    "taken_back": N_("Decisions taken back"),
    "alerts_acknowledged": N_("Alerts taken note of"),
    "ages_supplied": N_("Ages entered"),
}


@dataclass(frozen=True)
class Shown:
    """One arm, as the page shows it."""

    name: str
    told: Told
    refused: list[tuple[str, int]]
    overrides: list[tuple[str, int]]
    interaction: list[tuple[str, int]]


@pages.get("/trial")
@people.may(Role.LEAD)
def page() -> str:
    """The trial that runs, or what came of the last one, and the form for a new one."""
    return _page()


@pages.post("/trial")
@people.may(Role.LEAD)
def register() -> flask.typing.ResponseReturnValue:
    """Begin a trial; the PIN is asked for, because this changes the order for everybody."""
    lead, form = people.who(), request.form
    wrong = signing.unproven(form.get("pin", ""))
    if wrong:
        return _page(wrong), 422
    title = " ".join(form.get("title", "").split())
    unit = Unit(form["unit"]) if form.get("unit") in list(Unit) else Unit.DAY
    try:
        size = int(form["size"]) if form.get("size", "").strip() else None
        last_day = date.fromisoformat(form["last_day"]) if form.get("last_day", "").strip() else None
    except ValueError:
        return _page(_("Write the number with digits, and the day as 2027-01-31.")), 422
    with transaction(here.store()) as store:
        found = trial.obstacle(here.config(), store, title, size, last_day, now())
        if found is None:
            trial.register(here.config(), store, title, unit, size, last_day, lead.name, now())
    if found is not None:
        return _page(_(OBSTACLES[found])), 409 if found in (Obstacle.RUNNING, Obstacle.NOT_ACCEPTED) else 422
    return flask.redirect(url_for("trial.page"), 303)


@pages.post("/trial/end")
@people.may(Role.LEAD)
def end() -> flask.typing.ResponseReturnValue:
    """End the trial at once, planned or not: the AI ranks every film again."""
    lead = people.who()
    wrong = signing.unproven(request.form.get("pin", ""))
    if wrong:
        return _page(wrong), 422
    with transaction(here.store()) as store:
        running = trials.running(store)
        if running is not None and str(running.id) == request.form.get("trial"):
            trial.end(here.config(), store, lead.name, now())
    return flask.redirect(url_for("trial.page"), 303)


@pages.post("/trial/export")
@people.may(Role.LEAD)
def export() -> flask.Response:
    """The data of the last trial without names, as a file; who took it is in the ledger."""
    store, kind = here.store(), request.form.get("kind", "")
    found = trials.latest(store)
    if found is None or found.ended_at is None or kind not in ("csv", "json"):
        abort(404)
    gathered = evidence.gather(here.config(), store, found)
    with transaction(store):
        audit.append(store, audit.Event.TRIAL_EXPORTED, people.who().name, now(), trial=found.id, to=kind)
    text, of = (
        (evidence.table(gathered), "text/csv") if kind == "csv" else (evidence.summary(gathered), "application/json")
    )
    headers = {"Content-Disposition": f"attachment; filename=trial-{found.id}.{kind}"}
    return flask.Response(text, mimetype=of, headers=headers)


def _page(wrong: str = "") -> str:
    store, config = here.store(), here.config()
    found = trials.latest(store)
    came, excluded = evidence.counts(store, found) if found else (0, {})
    ended = found if found is not None and found.ended_at is not None else None
    return render_template(
        "trial.html",
        wrong=wrong,
        trial=found,
        running=found is not None and ended is None,
        complete=found is not None and trial.complete(config, store, found, now()),
        commitment=randomize.commitment(found.seed) if found else "",
        seed=ended.seed.hex() if ended else "",
        came=came,
        randomized=came - sum(excluded.values()),
        excluded=[(_(EXCLUSIONS[Exclusion(why)]), number) for why, number in excluded.items()],
        accepted=trial.at_work(store) is not None,
        always=config.policy.immediate_always_raised,
        units=UNITS,
        typed=request.form,
        **(_results(ended) if ended else {}),
    )


def _results(ended: Trial) -> dict[str, object]:
    gathered = evidence.gather(here.config(), here.store(), ended)
    arms = gathered.arms
    return {
        "arms": [
            Shown(
                _(ARMS[one.arm]),
                one,
                [(_(words.REASONS[Reason(why)][0]), number) for why, number in one.refused.items()],
                [
                    (_(OVERRIDES[why].text) if why else _("no reason given"), number)
                    for why, number in one.overrides.items()
                ],
                [(_(INTERACTION[name]), number) for name, number in one.interaction.items()],
            )
            for one in arms
        ],
        "times": [(_(title), _lines(arms, name)) for name, title in TIMES.items()],
        "sentence": _sentence(gained(gathered.films)),
    }


def _lines(arms: list[Told], name: str) -> list[Line]:
    waits = [(one.arm, wait) for one in arms if isinstance(wait := getattr(one, name), Wait)]
    longest = max((wait.percentile90 for _arm, wait in waits), default=0.0) * 1.2 or 1.0
    return [fairness.line(_(ARMS[arm]), "", wait, longest) for arm, wait in waits]


def _sentence(difference: tuple[float, float] | None) -> str:
    """Whether films wait less when the AI ranks, as far as the trial can tell."""
    if difference is None:
        return _("Too few films to tell whether they wait less in the AI’s order.")
    low, high = difference
    if low > 0:
        least = phrases.duration(timedelta(minutes=low))
        return _("In the AI’s order half of the films are decided at least %(time)s earlier.") % {"time": least}
    if high < 0:
        least = phrases.duration(timedelta(minutes=-high))
        return _("In the AI’s order half of the films are decided at least %(time)s later.") % {"time": least}
    return _("Whether all films together wait less in the AI’s order cannot be told from this trial.")
