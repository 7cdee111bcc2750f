"""Signing in by the programme's own OpenID provider: authorization code with PKCE, state and nonce (OpenID Connect Core 1.0, 3.1).

Who may read stays an account of the hub, which a lead gives; the first time, its one-time code ties it to the provider's subject. A
second factor is the provider's business then.
"""

from __future__ import annotations

import logging
from pathlib import Path
from typing import Any

import flask
import msgspec
import werkzeug
from flask import Blueprint, Flask, abort, current_app, render_template, request, session, url_for

from edge.errors import Misconfigured
from web.hub import accounts, here, people, signing
from web.hub.config import Config
from web.languages import gettext as _
from web.people import local
from web.signing import name_of

log = logging.getLogger(__name__)

pages = Blueprint("oidc", __name__)

CLAIMED = "claimed"
"""In the signed cookie between the provider's answer and the one-time code: issuer and subject."""


def install(app: Flask, config: Config) -> None:
    """Make the provider of the settings known to the application. Raises `Misconfigured` when it cannot be used."""
    if not config.oidc.issuer:
        return
    try:
        from authlib.integrations.flask_client import OAuth
    except ImportError as error:
        raise Misconfigured(f"oidc.issuer: {error}. Install it with pip install 'outpost-cxr[hub]'.") from None
    try:
        secret = Path(config.oidc.secret_file).read_text(encoding="utf-8").strip() if config.oidc.secret_file else None
    except OSError as error:
        raise Misconfigured(f"oidc.secret_file: {error.strerror}. Give a file with the client's secret.") from None
    app.extensions["outpost.oidc"] = OAuth(app).register(
        "provider",
        client_id=config.oidc.client_id,
        client_secret=secret,
        server_metadata_url=f"{config.oidc.issuer.rstrip('/')}/.well-known/openid-configuration",
        client_kwargs={"scope": "openid", "code_challenge_method": "S256", "timeout": 20},
    )


@pages.get("/sign-in/leave")
@people.anybody
def leave() -> flask.typing.ResponseReturnValue:
    """Lead to the provider (by a link: no form of the hub's pages may lead elsewhere)."""
    client = _client()
    session["back"] = local(request.args.get("back", "/"))
    try:
        answer: flask.typing.ResponseReturnValue = client.authorize_redirect(url_for("oidc.come_back", _external=True))
    except _troubles() as error:
        return _failed(error)
    return answer


@pages.get("/sign-in/provider")
@people.anybody
def come_back() -> flask.typing.ResponseReturnValue:
    """Take the provider's answer; its signature, issuer, audience, nonce and times are checked."""
    client = _client()
    try:
        claims = client.authorize_access_token()["userinfo"]
        issuer, subject = str(claims["iss"]), str(claims["sub"])
    except _troubles() as error:
        return _failed(error)
    with here.store().reading() as db:
        account = accounts.elsewhere(db, issuer, subject)
    if account is None:
        session[CLAIMED] = [issuer, subject]
        return render_template("hub/claim.html", wrong="", typed="")
    if not account.active:
        return render_template(
            "hub/error.html", sentence=_("Your account may not do this. Ask whoever gave it to you.")
        ), 403
    page = render_template(
        "hub/in.html", back=session.pop("back", "/")
    )  # the other site's leads could not use the session
    return _in(account.name, flask.make_response(page))


@pages.post("/sign-in/claim")
@people.anybody
def claim() -> flask.typing.ResponseReturnValue:
    """Tie an account to the person whom the provider knows, by its one-time code."""
    if CLAIMED not in session:
        abort(400)
    issuer, subject = session[CLAIMED]
    typed = request.form.get("name", "")
    account, wrong = signing.checked(typed, request.form.get("secret", ""), "")
    if account is not None and not account.one_time:
        account, wrong = None, _("This account has been set up already. Ask your lead for a new code.")
    if account is None:
        return render_template("hub/claim.html", wrong=wrong, typed=name_of(typed)), 422
    with here.store().transaction() as db:
        tied = msgspec.structs.replace(account, secret="", one_time=False, totp="", issuer=issuer, subject=subject)
        if not accounts.put(db, tied, account):
            abort(409)
        accounts.end_all(db, account.name)
    return _in(account.name, flask.redirect(session.pop("back", "/"), 303))


def _in(name: str, response: werkzeug.Response) -> werkzeug.Response:
    session.clear()
    people.start(name, response)
    return response


def _client() -> Any:
    client = current_app.extensions.get("outpost.oidc")
    if client is None:
        abort(404)
    return client


def _troubles() -> tuple[type[Exception], ...]:
    """What may go wrong with a provider: the network, its answers, their signatures."""
    from authlib.common.errors import AuthlibBaseError
    from joserfc.errors import JoseError
    from requests import RequestException

    return AuthlibBaseError, JoseError, RequestException, KeyError, ValueError


def _failed(error: Exception) -> flask.typing.ResponseReturnValue:
    log.warning("the OpenID provider's answer cannot be used: %s: %s", type(error).__name__, error)
    sentence = _("Signing in by %(provider)s did not work. Try again; if it happens again, tell your lead.") % {
        "provider": here.config().oidc.title
    }
    return render_template("hub/error.html", sentence=sentence), 502
