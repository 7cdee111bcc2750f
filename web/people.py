"""The people who use the pages: who asks, on which tablet, and what they may do.

Every page says who may see it, by `may` or `anybody`; one that says nothing is for carers. A page that is only part of another, or
is asked for again and again, is marked `part`: it answers 401 instead of the sign-in page, and is no sign that somebody is there.
"""

from __future__ import annotations

from collections.abc import Callable
from datetime import datetime, timedelta
from typing import TypeVar
from urllib.parse import urlencode, urlsplit

import flask
import werkzeug
from flask import current_app, g, render_template, request, url_for

from edge.records import Account, Role, Session
from edge.state import accounts, audit, sessions, setup_code
from edge.state.audit import Event
from edge.state.store import now, transaction
from web import here
from web.languages import gettext as _

CARERS = (Role.CLINICIAN, Role.LEAD)
"""Who may see patients."""
EVERYONE = tuple(Role)

SESSION, TABLET = "signed_in", "tablet"
"""The cookies: who is signed in, and which tablet this is."""
YEAR_SECONDS = 365 * 24 * 3600
NOTED_EVERY = timedelta(seconds=20)
"""A person who works is not written down at each touch."""
JITTER = timedelta(minutes=1)
"""A clock that is corrected by less does not ask for a PIN."""
OFFERED_AGAIN = ("act", "outcome", "reason", "years", "request")
"""What a form that came too late is filled in with when it is offered again."""

Page = TypeVar("Page", bound=Callable[..., object])


def may(*roles: Role, part: bool = False, locked: bool = False) -> Callable[[Page], Page]:
    """A page for people of these roles only; with `locked` it answers on a locked screen too, and names nobody there."""

    def decorate(page: Page) -> Page:
        page.roles, page.part, page.locked = roles, part, locked  # type: ignore[attr-defined]
        return page

    return decorate


def anybody(page: Page) -> Page:
    """A page for everyone, signed in or not."""
    page.roles, page.part = None, True  # type: ignore[attr-defined]
    return page


def load() -> None:
    """Before each request: who asks. `g.account` is the person, or None; `g.locked` the person whose PIN is asked for."""
    g.account = g.locked = g.session = None
    session = sessions.get(here.store(), request.cookies.get(SESSION, ""))
    account = accounts.get(here.store(), session.account) if session else None
    if session is None or account is None or not account.active:
        return
    g.session, at = session, now()
    if over(session, at):
        return
    if session.locked or away(session, at):
        g.locked = account
        if not session.locked:  # a clock that is set back unlocks nothing
            with transaction(here.store()) as store:
                sessions.lock(store, session)
    else:
        g.account = account


def over(session: Session, at: datetime) -> bool:
    """Whether somebody has been signed in for too long, or away for too long."""
    settings = here.config().people
    return (
        at - session.created_at > timedelta(hours=settings.signed_in_hours)
        or at - session.seen_at > timedelta(hours=settings.idle_hours)
    )  # fmt: skip


def away(session: Session, at: datetime) -> bool:
    """Whether nobody has touched the tablet for so long that the PIN is asked for; a clock that was set back asks too."""
    return not -JITTER <= at - session.seen_at <= timedelta(minutes=here.config().people.lock_minutes)


def guard() -> flask.typing.ResponseReturnValue | None:
    """Before each request: whether this person may see this page."""
    if request.endpoint is None or request.endpoint == "static":
        return None
    page = current_app.view_functions[request.endpoint]
    roles: tuple[Role, ...] | None = getattr(page, "roles", CARERS)
    part = getattr(page, "part", False)
    if roles is None:
        return None
    if g.locked and g.locked.role in roles and getattr(page, "locked", False):
        return None
    if g.account is None:
        return flask.Response(status=401) if part else _sign_in_first()
    if g.account.one_time and request.endpoint != "signing.own_pin":
        return flask.Response(status=401) if part else flask.redirect(url_for("signing.own_pin", back=wanted()), 303)
    if g.account.role not in roles:
        if request.endpoint == "worklist.home":
            return flask.redirect(url_for("status.page"), 303)
        return render_template("error.html", sentence=_("Your account may not do this. Ask the clinic's lead.")), 403
    if not part and "still" not in request.args:
        note()
    return None


def note() -> None:
    """The person is there."""
    at = now()
    if abs(at - g.session.seen_at) > NOTED_EVERY:
        with transaction(here.store()) as store:
            sessions.seen(store, g.session, at)


def who() -> Account:
    """The person who asks; only where one has signed in."""
    account = g.account
    assert isinstance(account, Account)
    return account


def tablet() -> str:
    """What this tablet is kept by, empty where it is new here."""
    token = request.cookies.get(TABLET, "")
    return sessions.hash_of(token) if token else ""


def known() -> list[Account]:
    """The people of this tablet, the latest first."""
    names = sessions.people_of(here.store(), tablet())
    found = [accounts.get(here.store(), name) for name in names]
    return [account for account in found if account is not None and account.active]


def start(name: str, response: werkzeug.Response, event: Event | None = None) -> None:
    """Sign a person in on this tablet, in place of whoever was; the browser gets a new token each time."""
    mark, at = request.cookies.get(TABLET) or sessions.token(), now()
    with transaction(here.store()) as store:
        if g.session:
            sessions.end(store, g.session)
        sessions.end_older(store, at - timedelta(days=30))
        if event:
            audit.append(store, event, name, at)
        token = sessions.start(store, name, sessions.hash_of(mark), at)
    set_cookie(response, SESSION, token)
    set_cookie(response, TABLET, mark)


def set_cookie(response: werkzeug.Response, name: str, value: str) -> None:
    """A cookie that no script and no other site sees."""
    response.set_cookie(
        name, value, max_age=YEAR_SECONDS, httponly=True, samesite="Strict", secure=request.is_secure, path="/"
    )


def local(back: str) -> str:
    """The page of this box to go back to; the first page where it is none."""
    plain = back.isprintable() and "\\" not in back
    return back if plain and back.startswith("/") and not back.startswith("//") else "/"


def wanted() -> str:
    """The page that was asked for, to come back to; the page with the form, filled in again, where one was sent."""
    if request.method in {"GET", "HEAD"}:
        path, asked = request.path, {key: value for key, value in request.args.items() if key != "still"}
    else:
        number = (request.view_args or {}).get("number")
        source = urlsplit(request.headers.get("Referer", ""))
        path = url_for("film.page", number=number) if number else local(source.path or "/")
        asked = {key: request.form[key][:64] for key in OFFERED_AGAIN if key in request.form}
    return local(f"{path}?{urlencode(asked)}" if asked else path)


def again(**extra: object) -> str:
    """This page, or the page that a form was sent from."""
    path = wanted()
    return f"{path}{'&' if '?' in path else '?'}{urlencode(extra)}" if extra else path


def _sign_in_first() -> flask.typing.ResponseReturnValue:
    """The sign-in page, or on a box that nobody has an account on yet its first page."""
    store = here.store()
    first = setup_code.get(store) is not None and not any(one.active for one in accounts.everyone(store))
    page = "first.page" if first else "signing.page"
    return flask.redirect(url_for(page, back=None if first else wanted()), 303)
