"""Alerts: an *immediate* film calls on every page, by sight and sound, until a person says that they know of it."""

from __future__ import annotations

from datetime import datetime, timedelta

import flask
from flask import Blueprint, Response, g, render_template, request, url_for

from edge.records import Film, Outcome, Role
from edge.state import acceptances, alerts, audit, reads, results
from edge.state.audit import Event
from edge.state.store import now, transaction
from web import here, people, worklist

AT_ONCE = 3
"""More alerts than this only hide the page."""

TEST_EVERY = timedelta(hours=24)

pages = Blueprint("alerts", __name__)


@pages.get("/alerts")
@people.may(*people.CARERS, part=True, locked=True)
def current() -> Response:
    """The part of every page that calls; 304 while nothing has changed."""
    stamp = worklist.stamp_of("alerts")
    if stamp is not None and request.if_none_match.contains(stamp):
        response = Response(status=304)
    else:
        response = flask.make_response(render_template("alerts.html"))
    if stamp is not None:
        response.set_etag(stamp)
    return response


@pages.post("/films/<int:number>/alert")
@people.may(*people.CARERS)
def acknowledge(number: int) -> flask.typing.ResponseReturnValue:
    """Take note that a person knows of an immediate film; a second tap, or a second person, changes nothing."""
    film = here.film_or_404(number)
    with transaction(here.store()) as store:
        if alerts.acknowledge(store, number, film.run, people.who().name, now()):
            audit.append(store, Event.ALERT_ACKNOWLEDGED, people.who().name, now(), number, run=film.run)
    return flask.redirect(
        (request.form.get("film") and url_for("film.page", number=number)) or url_for("worklist.home"), 303
    )


@pages.post("/alerts/test")
@people.may(*people.EVERYONE)
def tested() -> flask.typing.ResponseReturnValue:
    """Take note of whether a person heard the test alert."""
    heard = request.form.get("heard") == "yes"
    with transaction(here.store()) as store:
        audit.append(store, Event.ALERT_TESTED, people.who().name, now(), heard=heard)
    return flask.redirect(url_for("status.page"), 303)


def calling(opened: int = 0) -> tuple[list[Film], int]:
    """The first immediate films that nobody has acknowledged yet, that which is open before all, and how many more there are;
    none for people who may not see films, none in shadow mode."""
    store = here.store()
    accepted = acceptances.accepted(store)
    person = g.get("account") or g.get("locked")
    if person is None or person.role is Role.TECHNICIAN or accepted is None:
        return [], 0
    immediate = results.latest(store, Outcome.IMMEDIATE, accepted)
    if not immediate:
        return [], 0
    known, standing = alerts.acknowledged(store), reads.standing(store)
    unknown = [
        number
        for number, run in immediate
        if (number, run) not in known and not (number in standing and standing[number].run >= run)
    ]
    unknown.sort(key=lambda number: number != opened)
    return [results.film(store, number) for number in unknown[:AT_ONCE]], max(0, len(unknown) - AT_ONCE)


def last_test() -> tuple[datetime, bool] | None:
    """When the alert was last tested, and whether it was heard."""
    record = audit.latest(here.store(), Event.ALERT_TESTED)
    return None if record is None else (record.at, bool(record.detail["heard"]))


def untested() -> bool:
    """Whether somebody has to try the alert: nobody has heard it since a day."""
    last = last_test()
    return last is None or not last[1] or now() - last[0] > TEST_EVERY
