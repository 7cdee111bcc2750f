"""The choice of a language: kept with the person where one has signed in, else in this browser."""

from __future__ import annotations

import flask
from flask import Blueprint, abort, g, request

from edge.state import accounts
from edge.state.store import transaction
from web import here, languages, people

pages = Blueprint("choice", __name__)

YEAR_SECONDS = 365 * 24 * 3600


@pages.post("/language")
@people.anybody
def language() -> flask.typing.ResponseReturnValue:
    """Take the language and lead back to the page that it was chosen on."""
    code, back = request.form.get("code", ""), request.form.get("back", "/")
    if code not in languages.LANGUAGES:
        abort(400)
    if g.account:
        with transaction(here.store()) as store:
            accounts.set_language(store, g.account.name, code)
    local = back if back.startswith("/") and not back.startswith(("//", "/\\")) else "/"
    response = flask.redirect(local, 303)
    response.set_cookie(
        languages.COOKIE, code, max_age=YEAR_SECONDS, httponly=True, samesite="Strict", secure=request.is_secure
    )
    return response
