"""The clinic's pages: the worklist and its films, served by the box itself.

Every page is complete without JavaScript; two small modules keep it live. Nothing is loaded from anywhere else.
"""

from __future__ import annotations

import hashlib
import logging
import re
import sqlite3
import threading
from collections.abc import Callable
from datetime import timedelta
from pathlib import Path

import flask
from cheroot.wsgi import Server
from flask import Blueprint, Flask, Response, abort, current_app, g, render_template, request, url_for
from werkzeug.exceptions import HTTPException

from edge import words
from edge.config import Config
from edge.errors import Misconfigured, OutpostError
from edge.records import Film
from edge.state import acceptances, arrivals, notices, queue, results
from edge.state.objects import Objects
from edge.state.store import files_of, now, open_store, transaction
from web import phrases, worklist

log = logging.getLogger(__name__)

THREADS = 4
BODY_BYTES = 16 * 1024
"""No form of the box is larger."""

SETTLED = timedelta(milliseconds=100)
"""Two commits closer together than this may carry the same time on disk."""

PICTURE_PATIENCE = timedelta(seconds=60)
"""A picture that is not there this long after the outcome will probably not come."""

HEADERS = {
    "Content-Security-Policy": (
        "default-src 'none'; img-src 'self'; style-src 'self'; script-src 'self'; connect-src 'self'; "
        "form-action 'self'; base-uri 'none'; frame-ancestors 'none'"
    ),
    "X-Content-Type-Options": "nosniff",
    # not no-referrer: with that browsers send `Origin: null` with the box's own forms, and over plain HTTP nothing else
    "Referrer-Policy": "same-origin",
    "Cross-Origin-Opener-Policy": "same-origin",
    "Cross-Origin-Resource-Policy": "same-origin",
}

SENTENCES = {
    403: "This request did not come from a page of this box, so nothing was changed. Open the film and try again.",
    404: "There is no such page or film on this box.",
    405: "This page cannot be used that way.",
    409: "The age of this film is known already, so nothing was changed.",
    413: "That was too much text. Go back and shorten it.",
    500: "Something went wrong on this box. The films are safe; tell the technician if it happens again.",
}

pages = Blueprint("pages", __name__)


def create(config: Config) -> Flask:
    """The clinic's application on the state that `config` names."""
    app = Flask(__name__)
    app.config["MAX_CONTENT_LENGTH"] = BODY_BYTES
    app.jinja_env.trim_blocks = app.jinja_env.lstrip_blocks = True
    app.extensions["outpost"] = config
    app.extensions["objects"] = Objects(Path(config.state))
    for phrase in phrases.FILTERS:
        app.add_template_filter(phrase)
    app.jinja_env.globals.update(
        OUTCOMES=words.OUTCOMES,
        REASONS=words.REASONS,
        PRELIMINARY=words.PRELIMINARY,
        SHAPES=phrases.SHAPES,
        ORDERED=phrases.ORDERED,
        leading=worklist.leading,
        mapped=worklist.mapped,
        notices=_notices,
        needs_age=worklist.needs_age,
        runs_again=worklist.runs_again,
    )
    app.register_blueprint(pages)
    app.before_request(_refuse_foreign_forms)
    app.after_request(_protect)
    app.teardown_appcontext(_close_store)
    app.register_error_handler(HTTPException, _error_page)
    app.register_error_handler(OutpostError, _box_page)
    return app


@pages.get("/")
def home() -> str:
    """The worklist."""
    return render_template("worklist.html", **_worklist())


@pages.get("/worklist")
def rows() -> Response:
    """The worklist's part that changes, for the page to fetch; 304 while nothing has."""
    stamp = _stamp()
    if stamp is not None and request.if_none_match.contains(stamp):
        response = Response(status=304)
    else:
        response = flask.make_response(render_template("rows.html", **_worklist()))
    if stamp is not None:
        response.set_etag(stamp)
    return response


@pages.get("/films/<int:number>")
def film(number: int) -> str:
    """A film with everything known of it."""
    return render_template("film.html", **_shown(_film(number)))


@pages.get("/films/<int:number>/sections")
def sections(number: int) -> str:
    """The film page's sections, for a page that waits for some of them."""
    return render_template("sections.html", **_shown(_film(number)))


@pages.get("/films/<int:number>/film.png")
def film_png(number: int) -> Response:
    """The film as people look at it."""
    sha256 = _film(number).rendition
    if sha256 is None:
        abort(404)
    objects = current_app.extensions["objects"]
    return _png(sha256, lambda: objects.read(sha256))


@pages.get("/films/<int:number>/map.png")
def map_png(number: int) -> Response:
    """The map of where the most probable finding's score comes from."""
    saliency = _film(number).saliency
    if saliency is None:
        abort(404)
    return _png(hashlib.sha256(saliency).hexdigest(), lambda: saliency)


@pages.post("/films/<int:number>/age")
def supply_age(number: int) -> tuple[str, int] | flask.typing.ResponseReturnValue:
    """Take a missing age from a named person and have the film assessed again; a second tap changes nothing."""
    years, name = request.form.get("years", ""), " ".join(request.form.get("name", "").split())
    age = _years(years)
    errors = {}
    if age is None:
        errors["years"] = "Give the age in years, from 0 to 120. For a baby of 3 months write 0.25."
    if not 2 <= len(name) <= 80:
        errors["name"] = "Give your own name, so that others know who entered the age."
    if age is None or errors:
        typed = {"errors": errors, "years": years[:20], "name": name[:80]}
        return render_template("film.html", **_shown(_film(number)) | typed), 422
    with transaction(_store()) as store:
        known = _film(number)
        if worklist.needs_age(known):
            arrivals.supply_age(store, number, age, name, now())
            queue.add(store, number, known.arrival.urgency, now(), run=results.runs(store, number) + 1)
        elif not worklist.runs_again(known):
            abort(409)
    return flask.redirect(url_for("pages.film", number=number), 303)


@pages.get("/model")
def model() -> str:
    """What the model is and is not: the card of the bundle in use."""
    card = _bundle() / "card.md"
    text = card.read_text(encoding="utf-8") if card.is_file() else "This model came without a card."
    return render_template("model.html", blocks=re.split(r"\n\s*\n", text.strip()))


@pages.get("/health")
def health() -> flask.typing.ResponseReturnValue:
    """Whether the pages reach the box's state, for the box to watch itself."""
    return {"status": "ok", "to_assess": queue.open_jobs(_store(), "assess")}


def _config() -> Config:
    config = current_app.extensions["outpost"]
    assert isinstance(config, Config)
    return config


def _store() -> sqlite3.Connection:
    """This request's connection."""
    if "store" not in g:
        g.store = open_store(Path(_config().state))
    store = g.store
    assert isinstance(store, sqlite3.Connection)
    return store


def _close_store(_error: BaseException | None) -> None:
    if (store := g.pop("store", None)) is not None:
        store.close()


def _notices() -> list[str]:
    """What is wrong with the box, for every page; nothing on the page that says that the state cannot be opened."""
    try:
        return notices.current(_store())
    except OutpostError:
        return []


def _worklist() -> dict[str, object]:
    everything = "all" in request.args
    limit = None if everything else worklist.FIRST
    wait_cap = timedelta(minutes=_config().worklist.wait_cap_minutes)
    return {"list": worklist.build(_store(), now(), wait_cap, limit), "everything": everything, "wait_cap": wait_cap}


def _stamp() -> str | None:
    """Names what `/worklist` would say now; None while a commit is so fresh that another could look the same.

    Taken from the database's files, because a poll every second from every tablet must not read 5,000 films each time.
    """
    written = files_of(Path(_config().state))
    at = now()
    if not written or at.timestamp() - max(status.st_mtime for status in written) < SETTLED.total_seconds():
        return None
    parts = [part for status in written for part in (status.st_mtime_ns, status.st_size)]
    tick = int(at.timestamp() // 20)  # waiting times go on while nothing is written
    return "-".join(str(part) for part in [*parts, tick, int("all" in request.args)])


def _film(number: int) -> Film:
    try:
        return results.film(_store(), number)
    except (KeyError, OverflowError):
        abort(404)


def _shown(film: Film) -> dict[str, object]:
    accepted = acceptances.accepted(_store())
    return {
        "film": film,
        "wait": now() - film.arrival.received_at,
        "mode": worklist.mode([film], accepted),
        "twins": results.same_instance(_store(), film.arrival),
        "picture_late": film.decided_at is not None and now() - film.decided_at > PICTURE_PATIENCE,
        "errors": {},
    }


def _png(etag: str, read: Callable[[], bytes]) -> Response:
    known = request.if_none_match.contains(etag)
    response = Response(status=304) if known else Response(read(), mimetype="image/png")
    response.set_etag(etag)
    response.headers["Cache-Control"] = (
        "private, no-cache"  # kept, but asked for each time: the name is the film's number
    )
    return response


def _years(text: str) -> float | None:
    if not re.fullmatch(r"\s*\d{1,3}([.,]\d{1,3})?\s*", text):
        return None
    years = float(text.replace(",", "."))
    return years if years <= 120 else None


def _bundle() -> Path:
    if _config().worker.bundle:
        return Path(_config().worker.bundle)
    from models.bundle import SHIPPED

    return SHIPPED


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
    return render_template("error.html", sentence=SENTENCES.get(status, error.description)), status


def _box_page(error: OutpostError) -> tuple[str, int]:
    log.error("%s: %s", error.key, error)
    return render_template("error.html", sentence=str(error)), 503


def run(config: Config, stop: threading.Event, ready: Callable[[int], None]) -> None:
    """Serve the pages until `stop` is set; `ready` gets the port once they can be reached.

    Raises `Misconfigured` when the address cannot be used.
    """
    server = Server((config.web.host, config.web.port), create(config), numthreads=THREADS, server_name="Outpost")
    server.max_request_body_size = BODY_BYTES
    try:
        server.prepare()
    except OSError as error:
        raise Misconfigured(
            f"web.port: {config.web.host}:{config.web.port} cannot be used ({error}). Choose another port in the settings."
        ) from None
    serving = threading.Thread(target=server.serve, name="web")
    serving.start()
    try:
        ready(int(server.bind_addr[1]))
        stop.wait()
    finally:
        server.stop()
        serving.join()
