"""The hub's application: what boxes and readers ask of it, and what protects it. It keeps nothing between two requests.

Any number of processes may serve it on one database and one store of pictures.
"""

from __future__ import annotations

import logging
from contextlib import suppress

import flask
from flask import Flask, Response, abort, request
from werkzeug.exceptions import HTTPException

from edge.errors import OutpostError, Transient
from web.hub import dicomweb, fhir, here, openapi, pages, people, stow, sync
from web.hub.config import Config

log = logging.getLogger(__name__)

HEADERS = {
    "Content-Security-Policy": (
        "default-src 'none'; img-src 'self'; style-src 'self'; script-src 'self' 'wasm-unsafe-eval'; connect-src 'self';"
        " font-src 'self'; worker-src 'self'; form-action 'self'; base-uri 'none'; frame-ancestors 'none'"
    ),
    "X-Content-Type-Options": "nosniff",
    "Referrer-Policy": "same-origin",
    "Cross-Origin-Opener-Policy": "same-origin",
    "Cross-Origin-Resource-Policy": "same-origin",
    "Strict-Transport-Security": "max-age=31536000",
    "Permissions-Policy": (
        "camera=(), microphone=(), geolocation=(), payment=(), usb=(), serial=(), midi=(), display-capture=()"
    ),
}

BODY_BYTES = 16 * 1024
"""No form is larger; what boxes send has limits of its own."""

MACHINES = (sync, openapi, dicomweb, stow, fhir)
"""Asked by boxes and by other systems, which prove who they are with each request."""


def create(config: Config) -> Flask:
    """The hub of these settings. Raises `Misconfigured` or `Tampered`."""
    app = Flask("web")
    app.config["MAX_CONTENT_LENGTH"] = BODY_BYTES
    app.extensions[here.NAME] = held = here.open_hub(config)
    for module in MACHINES:
        app.register_blueprint(module.pages)
    app.before_request(_refuse_foreign_forms)
    app.before_request(_refuse_nul)
    pages.install(app, held)
    app.after_request(_protect)
    app.after_request(_to_its_end)
    app.register_error_handler(HTTPException, _refused)
    app.register_error_handler(OutpostError, _failed)
    return app


def _refuse_foreign_forms() -> None:
    """Only the hub's own pages may change anything of people; boxes sign what they send."""
    if request.method in {"GET", "HEAD", "OPTIONS"} or _machine():
        return
    site = request.headers.get("Sec-Fetch-Site")
    own = site == "same-origin" if site else request.headers.get("Origin") == request.host_url.rstrip("/")
    if not own:
        abort(403)


def _refuse_nul() -> None:
    """No text has this character, and PostgreSQL takes none that does."""
    texts = [
        request.path,
        request.query_string.decode(errors="replace").replace("%00", "\0"),
        *request.headers.values(),
    ]
    if not _machine():
        texts += [text for _, values in request.form.lists() for text in values]
    if any("\0" in text for text in texts):
        abort(400)


def _machine() -> bool:
    return request.blueprint in people.MACHINES or request.path.startswith(people.MACHINE_PATHS)


def _to_its_end(response: Response) -> Response:
    """A body in chunks is read to its end, also where it was refused: else its rest would be taken for the next request."""
    if request.environ.get("wsgi.input_terminated") or "chunked" in request.headers.get("Transfer-Encoding", ""):
        with suppress(OSError, ValueError):
            while request.environ["wsgi.input"].read(1 << 20):
                pass
    return response


def _protect(response: Response) -> Response:
    response.headers.extend(HEADERS)
    if request.endpoint != "static":
        response.headers.setdefault("Cache-Control", "no-store")
    return response


def _refused(error: HTTPException) -> flask.typing.ResponseReturnValue:
    if error.response is not None:
        return error.response
    if not _machine():
        return pages.wrong(error)
    answer = error.get_response()
    answer.data, answer.content_type = f"{error.description}\n".encode(), "text/plain; charset=utf-8"
    return answer


def _failed(error: OutpostError) -> flask.typing.ResponseReturnValue:
    """Nothing was committed: whoever asked may ask again."""
    log.error("%s: %s", error.key, error)
    if not _machine():
        return pages.wrong(error)
    return f"{error}\n", 507 if isinstance(error, Transient) else 503, {"Content-Type": "text/plain; charset=utf-8"}
