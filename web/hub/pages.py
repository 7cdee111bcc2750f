"""The readers' pages of the hub: what they have in common, and what guards them. `app.py` puts them beside what boxes ask.

Every page is complete without JavaScript but for the film itself. Nothing is loaded from anywhere else; what never changes is
loaded once, because a reader's link may be slow too.
"""

from __future__ import annotations

import gzip
import hashlib
import secrets
from functools import cache, lru_cache
from pathlib import Path

from flask import Flask, Response, render_template, request
from werkzeug.exceptions import HTTPException

from edge import words
from edge.errors import OutpostError
from edge.vocabulary import ADVICE, IMPRESSIONS
from web import languages, phrases
from web.hub import drift, fleet, here, oidc, people, queue, read, signing, staff, turnaround
from web.languages import N_, ngettext, translated
from web.languages import gettext as _

MODULES = (queue, read, turnaround, drift, fleet, staff, signing, oidc)
"""Each has a blueprint `pages`; a module is a page, or a few that belong together."""

STATIC = Path(__file__).parent.parent / "static"
YEAR_SECONDS = 365 * 24 * 3600
ZIPPED = ("text/", "application/javascript", "application/wasm", "image/svg")
LEAST_ZIPPED = 1000

SENTENCES = {
    400: N_("The hub did not understand that, so nothing was changed. Load the page again."),
    403: N_("This request did not come from a page of this hub, so nothing was changed. Load the page again."),
    404: N_("There is no such page or film on this hub."),
    405: N_("This page cannot be used that way."),
    410: N_("You do not have this film any more: it went back to the queue, or somebody else has read it."),
    409: N_("That was changed in the meantime, so nothing was done. Load the page again."),
    413: N_("That was too much text. Go back and shorten it."),
    500: N_("Something went wrong on the hub. The films are safe; tell your lead if it happens again."),
}


def install(app: Flask, held: here.Hub) -> None:
    """Put the readers' pages into the application of a hub. Raises `Misconfigured` when the OpenID provider cannot be used."""
    config = held.config
    app.secret_key = hashlib.sha256(b"outpost cookie" + held.keys.signing.private_bytes_raw()).digest()
    app.config.update(SESSION_COOKIE_SAMESITE="Lax", SESSION_COOKIE_SECURE=True, SESSION_COOKIE_HTTPONLY=True)
    languages.speak(app)
    for phrase in (*phrases.FILTERS, turnaround.seconds, queue.at, patient_age):
        app.add_template_filter(phrase)
    app.jinja_env.globals.update(
        OUTCOMES=words.OUTCOMES,
        REASONS=words.REASONS,
        CONCERNS=words.CONCERNS,
        PRELIMINARY=words.PRELIMINARY,
        SHAPES=phrases.SHAPES,
        IMPRESSIONS=IMPRESSIONS,
        ADVICE=ADVICE,
        DECIDED=read.DECIDED,
        LANGUAGES=languages.LANGUAGES,
        KEYS=read.KEYS,
        impression_first=config.policy.impression_first,
        language=languages.current,
        key=lambda: secrets.token_urlsafe(18),
        notices=tuple,
        again=people.wanted,
        unfinished=people.unfinished,
    )
    oidc.install(app, config)
    for module in MODULES:
        app.register_blueprint(module.pages)
    app.register_blueprint(signing.choice)
    app.before_request(people.load)
    app.before_request(people.guard)
    app.after_request(_answer)
    app.url_defaults(_versioned)


def patient_age(text: str) -> str:
    """An Age String (PS3.5 6.2) in words."""
    if not text:
        return _("age unknown")
    count, unit = int(text[:3]), text[3]
    said = {
        "Y": ngettext("%(num)s year", "%(num)s years", count),
        "M": ngettext("%(num)s month", "%(num)s months", count),
        "D": ngettext("%(num)s day", "%(num)s days", count),
    }[unit]
    return said % {"num": phrases.number(count)}


def _answer(response: Response) -> Response:
    if request.blueprint in people.MACHINES:
        return response
    if request.endpoint == "static" and response.status_code == 200:
        known = request.args.get("v") == _version()
        response.headers["Cache-Control"] = f"public, max-age={YEAR_SECONDS if known else 3600}, immutable"
    if "Outpost-Form" in request.headers and response.status_code == 303:
        response.status_code = 204
        response.headers["Outpost-Next"] = response.headers.pop("Location")
        response.set_data(b"")
    return _smaller(response)


def _smaller(response: Response) -> Response:
    """Compress what is worth it: pages hold no secret that lasts (a form's key is drawn anew), so its length tells nothing."""
    if not response.mimetype or not response.mimetype.startswith(ZIPPED) or response.status_code != 200:
        return response
    response.headers.add("Vary", "Accept-Encoding")
    if "gzip" not in request.headers.get("Accept-Encoding", ""):
        return response
    response.direct_passthrough = False
    data = response.get_data()
    if len(data) >= LEAST_ZIPPED:
        response.set_data(_zipped(data) if request.endpoint == "static" else gzip.compress(data, 6, mtime=0))
        response.headers["Content-Encoding"] = "gzip"
        response.headers.pop("ETag", None)
    return response


@lru_cache(maxsize=64)
def _zipped(data: bytes) -> bytes:
    return gzip.compress(data, 9, mtime=0)


@cache
def _version() -> str:
    """Names the static files as they are now."""
    seen = hashlib.sha256()
    for file in sorted(file for file in STATIC.rglob("*") if file.is_file()):
        seen.update(file.name.encode() + file.read_bytes())
    return seen.hexdigest()[:12]


def _versioned(endpoint: str, values: dict[str, object]) -> None:
    """A static file that has changed has another address."""
    if endpoint == "static":
        values.setdefault("v", _version())


def wrong(error: HTTPException | OutpostError) -> tuple[str, int]:
    """The page that says what did not work."""
    if isinstance(error, OutpostError):
        return render_template("hub/error.html", sentence=str(error)), 503
    status = error.code or 500
    return render_template("hub/error.html", sentence=translated(SENTENCES.get(status, SENTENCES[500]))), status
