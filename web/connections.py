"""The box and its neighbours: both ways between the box and each X-ray unit, and where results go, tested when a person asks."""

from __future__ import annotations

import socket
from collections.abc import Iterator
from datetime import timedelta

import flask
from flask import Blueprint, render_template, request, url_for

from edge import connections as neighbours
from edge import words
from edge.config import Modality
from edge.health import Level
from edge.records import Role
from edge.state import arrivals, audit, connections
from edge.state.audit import Event
from edge.state.connections import Caller, Tested
from edge.state.store import now, transaction
from web import here, people, phrases
from web.languages import gettext as _
from web.status import Line, levels

PATIENCE = timedelta(minutes=2)
"""A test that takes longer has been forgotten by a courier that does not run."""

pages = Blueprint("connections", __name__)


@pages.get("/connections")
@people.may(Role.TECHNICIAN, Role.LEAD)
def page() -> str:
    """Each neighbour, both ways, with what came of the last test."""
    tests = connections.tests(here.store())
    lines = [*_units(tests), *_others(), *_ways(tests)]
    return render_template(
        "connections.html",
        own=_own(),
        lines=lines,
        LEVELS=levels(),
        pending=any(_pending(tested) for tested in tests.values()),
        testable=bool(neighbours.peers(here.config())),
    )


@pages.post("/connections/test")
@people.may(Role.TECHNICIAN, Role.LEAD)
def test() -> flask.typing.ResponseReturnValue:
    """Have the courier call everyone whom the box can call; who is being called is not called twice."""
    at = now()
    with transaction(here.store()) as store:
        known = connections.tests(store)
        asked = [peer for peer in neighbours.peers(here.config()) if not (peer in known and _pending(known[peer]))]
        for peer in asked:
            connections.ask(store, peer, at)
        if asked:
            audit.append(store, Event.CONNECTIONS_TESTED, people.who().name, at, peers=len(asked))
    return flask.redirect(url_for("connections.page"), 303)


def _pending(tested: Tested) -> bool:
    return tested.ended_at is None and abs(now() - tested.asked_at) < PATIENCE


def _own() -> tuple[str, str, int] | None:
    """What has to be typed at an X-ray unit: AE title, address and port; None where the port is another at each start."""
    config = here.config().intake
    return (config.ae_title, _address(config.host), config.port) if config.port else None


def _address(host: str) -> str:
    """Where the box listens; where that is everywhere, its address in the network of whoever asks. Nothing is sent to find out."""
    if host not in ("0.0.0.0", "::"):  # noqa: S104  nothing is opened here
        return host
    asks = request.remote_addr or "127.0.0.1"
    with socket.socket(socket.AF_INET6 if ":" in asks else socket.AF_INET, socket.SOCK_DGRAM) as probe:
        try:
            probe.connect((asks, 9))
        except OSError:
            return request.host.rpartition(":")[0] or request.host
        return str(probe.getsockname()[0])


def _units(tests: dict[str, Tested]) -> Iterator[Line]:
    called = {caller.ae_title: caller for caller in connections.callers(here.store())}
    for unit in here.config().modalities:
        title = _("From the box to %(name)s") % {"name": unit.ae_title}
        if unit.host:
            yield _line(title, tests.get(neighbours.unit(unit)))
        else:
            sentence = _("The settings have no address of it, so the box cannot call it.")
            yield Line("unit", title, Level.UNKNOWN, sentence, "")
        yield _heard(unit, called.get(unit.ae_title))


def _heard(unit: Modality, caller: Caller | None) -> Line:
    """Whether an X-ray unit reaches the box: its last echo and its last film."""
    title = _("From %(name)s to the box") % {"name": unit.ae_title}
    film = arrivals.last_from(here.store(), unit.ae_title)
    if caller is not None and caller.refused:
        if film is None or film < caller.at:
            return _refused(title, caller)
        caller = None
    if film is None and caller is None:
        sentence = _("It has not called this box yet.")
        action = _("Start a verification (C-ECHO) at the X-ray unit, then load this page again.")
        return Line("unit", title, Level.LOOK, sentence, action)
    told = []
    if caller is not None:
        told.append(_("It called at %(moment)s.") % {"moment": phrases.clock(caller.at)})
    if film is not None:
        told.append(_("Its last film came at %(moment)s.") % {"moment": phrases.clock(film)})
    return Line("unit", title, Level.GOOD, " ".join(told), _("Nothing to do."))


def _refused(title: str, caller: Caller) -> Line:
    sentence = _("It called at %(moment)s from %(address)s and was refused: it is not among those that may send.") % {
        "moment": phrases.clock(caller.at),
        "address": caller.address,
    }
    action = _("If it is one of yours, have its AE title added to the box’s settings, exactly as it is written here.")
    return Line("caller", title, Level.ACT, sentence, action)


def _others() -> Iterator[Line]:
    """Who has called without being named in the settings: most often an AE title with a letter too many."""
    named = {unit.ae_title for unit in here.config().modalities}
    for caller in connections.callers(here.store()):
        if caller.ae_title in named:
            continue
        title = _("From %(name)s to the box") % {"name": caller.ae_title}
        if caller.refused:
            yield _refused(title, caller)
        else:
            sentence = _("It called at %(moment)s from %(address)s.") % {
                "moment": phrases.clock(caller.at),
                "address": caller.address,
            }
            yield Line("caller", title, Level.GOOD, sentence, _("Nothing to do."))


def _ways(tests: dict[str, Tested]) -> Iterator[Line]:
    for sink in here.config().sinks:
        yield _line(_("From the box to %(name)s") % {"name": sink.name}, tests.get(neighbours.way(sink.name)))


def _line(title: str, tested: Tested | None) -> Line:
    """What came of a test that the box makes."""
    if tested is None:
        return Line("test", title, Level.UNKNOWN, _("Not tested yet."), _("Touch “Test the connections”, below."))
    if tested.ended_at is None:
        if _pending(tested):
            return Line("test", title, Level.UNKNOWN, _("Being tested …"), "")
        return Line("test", title, Level.LOOK, _("The test has not ended."), _("Start the box again, then test again."))
    moment = phrases.clock(tested.ended_at)
    if tested.trouble is None:
        sentence = _("It answered at %(moment)s.") % {"moment": moment}
        return Line("test", title, Level.GOOD, sentence, _("Nothing to do."))
    told, action = words.TROUBLES[tested.trouble]
    sentence = _("Tested at %(moment)s:") % {"moment": moment}
    return Line("test", title, Level.ACT, f"{sentence} {_(told)}", _(action), tested.detail)
