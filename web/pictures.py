"""The pictures of a film: the film itself, and the map of where its score comes from."""

from __future__ import annotations

import hashlib
from collections.abc import Callable

from flask import Blueprint, Response, abort, request

from edge.records import Sha256
from web import here, ledger, people, reads

pages = Blueprint("pictures", __name__)


@pages.get("/films/<int:number>/film.png")
@people.may(*people.CARERS, part=True)
def film(number: int) -> Response:
    """The film at its full depth: 16-bit gray, neutral, for the page to put a window on."""
    picture = here.film_or_404(number).rendition
    ledger.look(number)
    return _object(picture)


@pages.get("/films/<int:number>/preview.png")
@people.may(*people.CARERS, part=True)
def preview(number: int) -> Response:
    """The film small and in its own window."""
    picture = here.film_or_404(number).preview
    ledger.look(number)
    return _object(picture)


@pages.get("/films/<int:number>/map.png")
@people.may(*people.CARERS, part=True)
def saliency(number: int) -> Response:
    """The map of where the most probable finding's score comes from."""
    film = here.film_or_404(number)
    picture = film.saliency
    if picture is None or here.config().policy.triage_only or reads.hides(film):
        abort(404)
    return _png(hashlib.sha256(picture).hexdigest(), lambda: picture)


def _object(sha256: Sha256 | None) -> Response:
    if sha256 is None:
        abort(404)
    return _png(sha256, lambda: here.objects().read(sha256))


def _png(etag: str, read: Callable[[], bytes]) -> Response:
    known = request.if_none_match.contains(etag)
    response = Response(status=304) if known else Response(read(), mimetype="image/png")
    response.set_etag(etag)
    response.headers["Cache-Control"] = (
        "private, no-cache"  # kept, but asked for each time: the name is the film's number
    )
    return response
