"""The clinic's application: what its pages have in common, and what protects them.

Every page is complete without JavaScript; two small modules keep it live. Nothing is loaded from anywhere else.
"""

from __future__ import annotations

import logging
import threading
from collections.abc import Callable
from pathlib import Path

from flask import Flask, Response, abort, render_template, request
from werkzeug.exceptions import HTTPException

from edge import words
from edge.config import Config
from edge.errors import OutpostError
from edge.state.objects import Objects
from edge.state.store import now
from edge.vocabulary import ADVICE, IMPRESSIONS, OVERRIDES
from web import (
    alerts,
    choice,
    commission,
    connections,
    drift,
    fairness,
    film,
    first,
    handoff,
    here,
    languages,
    ledger,
    limits,
    people,
    phrases,
    pictures,
    ranking,
    reads,
    register,
    server,
    signing,
    staff,
    status,
    tablet,
    trial,
    worklist,
)
from web.languages import N_, translated

log = logging.getLogger(__name__)

HEADERS = {
    "Content-Security-Policy": (
        "default-src 'none'; img-src 'self'; style-src 'self'; script-src 'self'; connect-src 'self'; font-src 'self'; "
        "worker-src 'self'; manifest-src 'self'; form-action 'self'; base-uri 'none'; frame-ancestors 'none'"
    ),
    "X-Content-Type-Options": "nosniff",
    # not no-referrer: with that browsers send `Origin: null` with the box's own forms, and over plain HTTP nothing else
    "Referrer-Policy": "same-origin",
    "Cross-Origin-Opener-Policy": "same-origin",
    "Cross-Origin-Resource-Policy": "same-origin",
    "Permissions-Policy": (
        "camera=(self), microphone=(), geolocation=(), payment=(), usb=(), serial=(), midi=(), display-capture=()"
    ),
}

SENTENCES = {
    400: N_("The box did not understand that, so nothing was changed. Load the page again."),
    403: N_("This request did not come from a page of this box, so nothing was changed. Open the film and try again."),
    404: N_("There is no such page or film on this box."),
    405: N_("This page cannot be used that way."),
    409: N_("The age of this film is known already, so nothing was changed."),
    413: N_("That was too much text. Go back and shorten it."),
    500: N_("Something went wrong on this box. The films are safe; tell the technician if it happens again."),
}

MODULES = (
    worklist,
    film,
    pictures,
    reads,
    handoff,
    ledger,
    alerts,
    status,
    connections,
    choice,
    register,
    signing,
    first,
    staff,
    tablet,
    commission,
    fairness,
    drift,
    trial,
)
"""Each has a blueprint `pages`; a module is a page, or a few that belong together."""


def create(config: Config) -> Flask:
    """The clinic's application on the state that `config` names."""
    app = Flask(__name__)
    app.config["MAX_CONTENT_LENGTH"] = server.BODY_BYTES
    languages.speak(app, config.site.language)
    app.extensions["outpost"] = config
    app.extensions["objects"] = Objects(Path(config.state))
    for phrase in (*phrases.FILTERS, commission.share, fairness.between, fairness.waited):
        app.add_template_filter(phrase)
    app.jinja_env.globals.update(
        OUTCOMES=words.OUTCOMES,
        REASONS=words.REASONS,
        CONCERNS=words.CONCERNS,
        PRELIMINARY=words.PRELIMINARY,
        SHAPES=phrases.SHAPES,
        ORDERED=phrases.ORDERED,
        ADVICE=ADVICE,
        IMPRESSIONS=IMPRESSIONS,
        OVERRIDES=OVERRIDES,
        DECIDED=reads.DECIDED,
        LANGUAGES=languages.LANGUAGES,
        language=languages.current,
        limits=limits.sentences,
        hides=reads.hides,
        key=reads.key,
        moment=now,
        leading=ranking.leading,
        notices=here.current_notices,
        SHOWN=ranking.SHOWN,
        calling=alerts.calling,
        sound_untested=alerts.untested,
        needs_age=ranking.needs_age,
        runs_again=ranking.runs_again,
        again=people.again,
        lock_seconds=config.people.lock_minutes * 60,
    )
    for module in MODULES:
        app.register_blueprint(module.pages)
    for step in (people.load, _refuse_foreign_forms, people.guard):
        app.before_request(step)
    app.after_request(_protect)
    app.teardown_appcontext(here.close_store)
    app.register_error_handler(HTTPException, _error_page)
    app.register_error_handler(OutpostError, _box_page)
    return app


def _refuse_foreign_forms() -> None:
    """Only the box's own pages may change anything (browsers of old send no Sec-Fetch-Site, and none over plain HTTP)."""
    if request.method in {"GET", "HEAD", "OPTIONS"}:
        return
    site = request.headers.get("Sec-Fetch-Site")
    own = site == "same-origin" if site else request.headers.get("Origin") == request.host_url.rstrip("/")
    if not own:
        abort(403)


def _protect(response: Response) -> Response:
    response.headers.extend(HEADERS)
    if request.endpoint != "static":
        response.headers.setdefault("Cache-Control", "no-store")
    return response


def _error_page(error: HTTPException) -> tuple[str, int]:
    status = error.code or 500
    return render_template("error.html", sentence=translated(SENTENCES.get(status, SENTENCES[500]))), status


def _box_page(error: OutpostError) -> tuple[str, int]:
    log.error("%s: %s", error.key, error)
    return render_template("error.html", sentence=str(error)), 503


def run(config: Config, stop: threading.Event, ready: Callable[[int], None]) -> None:
    """Serve the pages over TLS until `stop` is set; `ready` gets the port once they can be reached.

    Raises `Misconfigured` when the address cannot be used.
    """
    server.serve(create(config), "web.port", config.web.host, config.web.port, stop, ready, server.Tls(config))
