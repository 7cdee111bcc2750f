"""The people who read at the hub: who asks, and what they may do.

Every page says who may see it, by `may` or `anybody`; one that says nothing is for readers. A page that is only part of another is
marked `part`: it answers 401 instead of leading to the sign-in page, and is no sign that somebody is there.
"""

from __future__ import annotations

import secrets
from collections.abc import Callable
from typing import TypeVar
from urllib.parse import urlencode

import flask
import werkzeug
from flask import current_app, g, render_template, request, url_for

from web.hub import accounts, here
from web.hub.accounts import Account, Role
from web.hub.records import Reader
from web.hub.store import now
from web.languages import gettext as _
from web.people import local, set_cookie

READERS = (Role.READER, Role.LEAD)
"""Who may see films."""
EVERYONE = tuple(Role)
MACHINES = frozenset({"sync", "openapi", "dicomweb", "stow", "fhir"})
"""Blueprints that boxes and other systems ask, which say with each request who they are."""
MACHINE_PATHS = ("/sync/", "/openapi.json", "/dicom-web/", "/fhir/")
"""Where these are."""

SESSION, BROWSER = "reader", "browser"
"""The cookies: who is signed in, and which browser this is."""
NOTED_SECONDS = 20
"""A person who works is not written down at each touch."""
KEPT_SECONDS = 30 * 86400

Page = TypeVar("Page", bound=Callable[..., object])


def may(*roles: Role, part: bool = False) -> Callable[[Page], Page]:
    """A page for people of these roles only."""

    def decorate(page: Page) -> Page:
        page.roles, page.part = roles, part  # type: ignore[attr-defined]
        return page

    return decorate


def anybody(page: Page) -> Page:
    """A page for everyone, signed in or not."""
    page.roles, page.part = None, True  # type: ignore[attr-defined]
    return page


def load() -> None:
    """Before each request: who asks. `g.account` is the person, or None."""
    g.account = g.session = None
    token = request.cookies.get(SESSION, "")
    if not token or request.blueprint in MACHINES or request.endpoint == "static":
        return
    with here.store().reading() as db:
        found = accounts.session(db, token)
    if found is None or not found[1].active:
        return
    held, at, limits = found[0], now(), here.config().readers
    if at - held.created_at <= limits.signed_in_hours * 3600 and at - held.seen_at <= limits.idle_minutes * 60:
        g.session, g.account = found


def guard() -> flask.typing.ResponseReturnValue | None:
    """Before each request: whether this person may see this page."""
    if request.endpoint is None or request.endpoint == "static" or request.blueprint in MACHINES:
        return None
    page = current_app.view_functions[request.endpoint]
    roles: tuple[Role, ...] | None = getattr(page, "roles", READERS)
    part = getattr(page, "part", False)
    if roles is None:
        return None
    if g.account is None:
        return flask.Response(status=401) if part else flask.redirect(url_for("signing.page", back=wanted()), 303)
    if unfinished(g.account) and request.endpoint != "signing.own":
        return flask.Response(status=401) if part else flask.redirect(url_for("signing.own", back=wanted()), 303)
    if g.account.role not in roles:
        if request.endpoint == "queue.page":
            return flask.redirect(url_for("staff.page"), 303)
        return render_template(
            "hub/error.html", sentence=_("Your account may not do this. Ask whoever gave it to you.")
        ), 403
    if not part and "Outpost-Again" not in request.headers:  # a list that looks again by itself is nobody
        note()
    return None


def unfinished(account: Account) -> bool:
    """Whether the person has to choose a pass phrase, or set their authenticator up, before anything else."""
    return bool(account.secret) and (account.one_time or not account.totp)


def note() -> None:
    """The person is there."""
    at = now()
    if abs(at - g.session.seen_at) > NOTED_SECONDS:
        with here.store().transaction() as db:
            accounts.seen(db, g.session, at)


def who() -> Account:
    """The person who asks; only where one has signed in."""
    account = g.account
    assert isinstance(account, Account)
    return account


def reader() -> Reader:
    """The person as the queue knows them: the languages they read for, and the sites where they may."""
    account = who()
    return Reader(
        programme=account.programme,
        name=account.name,
        languages=account.languages,
        kinds=frozenset(account.kinds),
        sites=account.sites,
        countries=account.countries,
    )


def start(name: str, response: werkzeug.Response) -> None:
    """Sign a person in, in place of whoever was; the browser gets a new token each time."""
    mark, at = request.cookies.get(BROWSER) or secrets.token_urlsafe(32), now()
    with here.store().transaction() as db:
        if g.session:
            accounts.end(db, g.session)
        accounts.end_older(db, at - KEPT_SECONDS)
        accounts.remember(db, mark, name)
        token = accounts.start(db, name, at)
    set_cookie(response, SESSION, token)
    set_cookie(response, BROWSER, mark)


def wanted() -> str:
    """The page that was asked for, to come back to; the first page where a form was sent."""
    if request.method not in {"GET", "HEAD"}:
        return "/"
    return local(f"{request.path}?{urlencode(request.args)}" if request.args else request.path)
