"""The pages as an app on a tablet: its manifest, what is kept for when the box does not answer, and forms that wait."""

from __future__ import annotations

import hashlib
import json
from functools import cache
from pathlib import Path

from flask import Blueprint, Response, g, render_template, request, url_for

from web import here, languages, people
from web.languages import gettext as _

STATIC = Path(__file__).parent / "static"
ELSEWHERE = frozenset({"worker.js", "paper.css", "paper.js", "pictograms.svg"})
"""What a tablet needs only while the box answers."""

pages = Blueprint("tablet", __name__)


@cache
def files() -> dict[str, str]:
    """The static files that a tablet keeps, with the hashes of their contents."""
    found = (file for file in STATIC.iterdir() if file.is_file() and file.name not in ELSEWHERE)
    return {file.name: hashlib.sha256(file.read_bytes()).hexdigest() for file in sorted(found)}


@cache
def version() -> str:
    """Names the static files as they are now."""
    return hashlib.sha256(json.dumps(files()).encode()).hexdigest()[:12]


@pages.app_url_defaults
def versioned(endpoint: str, values: dict[str, object]) -> None:
    """A static file that has changed has another address, so that no tablet mixes old files with new pages."""
    if endpoint == "static":
        values.setdefault("v", version())


@pages.get("/manifest.webmanifest")
@people.anybody
def manifest() -> Response:
    """What a tablet shows of the app on its home screen."""
    language = languages.current()
    icons = [
        {"src": url_for("static", filename=f"icon-{side}.png"), "sizes": f"{side}x{side}", "type": "image/png"}
        for side in (192, 512)
    ]
    told = {
        "id": "/",
        "name": _("Outpost: chest X-ray worklist"),
        "short_name": "Outpost",
        "lang": language.code,
        "dir": language.direction,
        "start_url": "/",
        "scope": "/",
        "display": "standalone",
        "background_color": "#eef1f4",
        "theme_color": "#10243a",
        "icons": [icon | {"purpose": purpose} for icon in icons for purpose in ("any", "maskable")],
    }
    return Response(json.dumps(told, ensure_ascii=False), mimetype="application/manifest+json")


@pages.get("/worker.js")
@people.anybody
def worker() -> Response:
    """The service worker, with the version of the files that it keeps and how long a tablet stays open untouched."""
    known = {
        "VERSION": version(),
        "STATIC": [url_for("static", filename=name) for name in files()],
        "LOCK_MS": int(here.config().people.lock_minutes * 60_000),
    }
    head = "".join(f"const {name} = {json.dumps(value)};\n" for name, value in known.items())
    return Response(head + (STATIC / "worker.js").read_text(encoding="utf-8"), mimetype="text/javascript")


@pages.get("/away")
@people.anybody
def away() -> str:
    """What a tablet shows while the box does not answer and it has nothing else to show."""
    return render_template("away.html")


@pages.after_app_request
def tell(response: Response) -> Response:
    """Say for whom an answer is, so that a tablet keeps nothing of anybody else; and where a form that is waited for leads."""
    if request.endpoint != "static" and g.get("account"):
        whose = f"{g.account.name} {languages.current().code}"
        response.headers["Outpost-Person"] = hashlib.sha256(whose.encode()).hexdigest()[:16]
    if "Outpost-Form" in request.headers and response.status_code == 303:
        response.status_code = 204
        response.headers["Outpost-Next"] = response.headers.pop("Location")
        response.set_data(b"")
    return response
