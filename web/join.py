"""The join page: the only thing that plain HTTP gives. It tells a new tablet, once, to trust this box; then the pages open.

It shows nothing of patients, takes nothing from anybody, and remembers nothing: whatever is asked, by any method, it answers this
page, its style, or the authority's certificate.
"""

from __future__ import annotations

import threading
from collections.abc import Callable
from pathlib import Path

import flask
import segno
from cryptography.hazmat.primitives.serialization import Encoding
from flask import Flask, Response, g, request
from markupsafe import Markup
from werkzeug.exceptions import HTTPException

from edge.config import Config
from edge.state import trust
from edge.state.store import now
from web import languages, server

METHODS = ("GET", "HEAD", "POST", "PUT", "PATCH", "DELETE", "OPTIONS")
HEADERS = {
    "Content-Security-Policy": "default-src 'none'; style-src 'self'; base-uri 'none'; form-action 'none'; frame-ancestors 'none'",
    "X-Content-Type-Options": "nosniff",
    "Referrer-Policy": "no-referrer",
    "Cache-Control": "no-store",
}


def create(config: Config) -> Flask:
    """The join page of a box whose pages are on `config.web.port`."""
    app = Flask(__name__, static_folder=None)
    languages.speak(app, config.site.language)
    app.before_request(_speak)
    app.after_request(_protect)
    static = Path(__file__).parent / "static"

    def page(path: object = "") -> str:
        held = trust.ensure(Path(config.state), config.web.names, None, now())
        host = _host(config)
        here = f"http://{request.host}/"
        drawn = segno.make(here, error="m", micro=False)
        return flask.render_template(
            "join.html",
            here=here,
            square=Markup(drawn.svg_inline(scale=4, border=4, omitsize=True, svgclass="qr", lineclass="dark")),  # noqa: S704
            pages=f"https://{host}:{config.web.port}/",
            fingerprint=held.fingerprint,
            box=held.name,
            LANGUAGES=languages.LANGUAGES,
            language=languages.current,
        )

    def certificate() -> Response:
        held = trust.ensure(Path(config.state), config.web.names, None, now())
        response = Response(held.authority.public_bytes(Encoding.DER), mimetype="application/x-x509-ca-cert")
        response.headers["Content-Disposition"] = "attachment; filename=outpost.crt"
        return response

    app.add_url_rule("/", view_func=page, methods=METHODS, provide_automatic_options=False)
    app.add_url_rule("/<path:path>", view_func=page, methods=METHODS, provide_automatic_options=False)
    app.add_url_rule("/outpost.crt", view_func=certificate, methods=["GET"], provide_automatic_options=False)
    app.add_url_rule(
        "/style.css", "style", lambda: flask.send_from_directory(static, "style.css"), provide_automatic_options=False
    )
    app.register_error_handler(HTTPException, page)
    return app


def run(config: Config, stop: threading.Event, ready: Callable[[int], None]) -> None:
    """Serve the join page until `stop` is set; `ready` gets the port once it can be reached.

    Raises `Misconfigured` when the address cannot be used.
    """
    port = config.web.join_port
    assert port != "none"
    server.serve(create(config), "web.join_port", config.web.host, port, stop, ready)


def _host(config: Config) -> str:
    """The box as this tablet calls it, where its certificate says so too."""
    asked = request.host.rpartition(":")[0] if request.host[-1:] != "]" and ":" in request.host else request.host
    address = trust.address_of(asked)
    return asked if address is not None or asked in (trust.LOCAL, *config.web.names) else config.web.names[0]


def _speak() -> None:
    if (chosen := request.args.get("language")) in languages.LANGUAGES:
        g.language = languages.LANGUAGES[str(chosen)]


def _protect(response: Response) -> Response:
    response.headers.update(HEADERS)
    return response
