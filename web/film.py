"""The film page: everything known of one film, and the age that nobody else could tell the box."""

from __future__ import annotations

import re
from datetime import date, timedelta
from typing import Any

import flask
from flask import Blueprint, abort, render_template, request, url_for

from edge import outside
from edge.records import Film
from edge.stages import match
from edge.state import acceptances, arrivals, queue, results, sync
from edge.state.store import now, transaction
from web import here, ledger, people, ranking, reads
from web.languages import gettext as _

PICTURE_PATIENCE = timedelta(seconds=60)
"""A picture that is not there this long after the outcome will probably not come."""

pages = Blueprint("film", __name__)


@pages.get("/films/<int:number>")
@people.may(*people.CARERS)
def page(number: int) -> str:
    """A film with everything known of it."""
    shown = _shown(here.film_or_404(number))
    _look(shown)
    return render_template("film.html", **shown)


@pages.get("/films/<int:number>/sections")
@people.may(*people.CARERS, part=True)
def sections(number: int) -> str:
    """The film page's sections, for a page that waits for some of them."""
    shown = _shown(here.film_or_404(number))
    _look(shown)
    return render_template("sections.html", **shown)


@pages.post("/films/<int:number>/age")
@people.may(*people.CARERS)
def supply_age(number: int) -> tuple[str, int] | flask.typing.ResponseReturnValue:
    """Take a missing age from the person who is signed in and have the film assessed again; a second tap changes nothing."""
    years, name = request.form.get("years", ""), people.who().name
    age = age_of(years)
    if age is None:
        errors = {"years": _("Give the age in years, from 0 to 120. For a baby of 3 months write 0.25.")}
        typed = {"errors": errors, "years": years[:20]}
        return render_template("film.html", **_shown(here.film_or_404(number)) | typed), 422
    with transaction(here.store()) as store:
        known = here.film_or_404(number)
        if ranking.needs_age(known) or (ranking.runs_again(known) and known.supplied_age is None):
            arrivals.supply_age(store, number, age, name, now())
            queue.add(store, number, known.arrival.urgency, now(), run=queue.next_run(store, number))
        elif known.supplied_age != age and not ranking.runs_again(known):
            abort(409)
    return flask.redirect(url_for("film.page", number=number), 303)


def _look(shown: dict[str, Any]) -> None:
    """Record that a person was shown the film, the earlier one beside it, and what a teleradiologist said of it."""
    for film in (shown["film"], shown["beside"]):
        if isinstance(film, Film):
            ledger.look(film.arrival.id)
    for one in shown["returned"] if not shown["said"].hidden else ():
        if one.seen_at is None:
            with transaction(here.store()) as store:
                outside.tell_seen(store, here.config(), one, people.who().name, now())


def _shown(film: Film) -> dict[str, Any]:
    accepted = acceptances.accepted(here.store())
    return {
        "film": film,
        "wait": now() - film.arrival.received_at,
        "mode": ranking.mode_of(film, accepted),
        "twins": results.same_instance(here.store(), film.arrival),
        "picture_late": film.decided_at is not None and now() - film.decided_at > PICTURE_PATIENCE,
        "said": reads.said(film),
        "returned": sync.returned(here.store(), film.arrival.id),
        "stays_home": sync.stays_home(here.store(), film.arrival.id) if here.config().hub.url else None,
        "triage_only": here.config().policy.triage_only,
        "priors": (earlier := priors(film)),
        "beside": next((one for one in earlier if str(one.arrival.id) == request.args.get("beside")), None),
        "errors": {},
        "years": request.args.get("years", "")[:20],
    }


def priors(film: Film) -> list[Film]:
    """The earlier films of certainly the same person that have a picture, the latest first; those of its own study are none."""
    found = [
        one
        for one in results.of_patient(here.store(), film.header)
        if one.rendition is not None and _moment(one) < _moment(film) and match.same_person(film.header, one.header)
    ]
    own = film.header.StudyInstanceUID
    return sorted((one for one in found if one.header.StudyInstanceUID != own or not own), key=_moment, reverse=True)


def _moment(film: Film) -> tuple[date, str, int]:
    """When a film was taken, as far as it says; films that say the same day and time come in order of arrival."""
    return film.header.StudyDate or film.arrival.received_at.date(), film.header.StudyTime, film.arrival.id


def age_of(text: str) -> float | None:
    """The age that a person typed, in years; None where it is none."""
    if not re.fullmatch(r"\s*\d{1,3}([.,٫]\d{1,3})?\s*", text):
        return None
    years = float(text.replace(",", ".").replace("٫", "."))
    return years if years <= 120 else None
