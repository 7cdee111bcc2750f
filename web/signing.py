"""Signing in, locking, changing the person on a shared tablet, signing out, and choosing one's own PIN.

To unlock is to sign in again: one way, one lock-out, a new session each time. The answer to a wrong try is the same for names that
nobody has, and takes as long.
"""

from __future__ import annotations

import hashlib
import unicodedata
from datetime import timedelta

import flask
from flask import Blueprint, Response, g, render_template, request, url_for

from edge import pins
from edge.records import Account
from edge.state import accounts, audit, sessions, setup_code, tries
from edge.state.audit import Event
from edge.state.store import now, transaction
from web import here, people, phrases
from web.languages import gettext as _

NAME_CHARACTERS = 60
STRANGER = "stranger "
ELSEWHERE, ELSEWHERE_FREE, ELSEWHERE_LONGEST = "new tablets", 50, timedelta(minutes=1)
"""Tablets on which nobody has signed in yet share a lock-out of their own, so that no flood of names fills the box."""

pages = Blueprint("signing", __name__)


def name_of(text: str) -> str:
    """A name as it is kept: one form of each letter, single spaces, nothing invisible; empty where it is none."""
    name = " ".join(unicodedata.normalize("NFC", text).split())
    return name if name.isprintable() and 2 <= len(name) <= NAME_CHARACTERS else ""


def find(name: str) -> Account | None:
    """The account of a name, however its letters are capitalized."""
    sought = name_of(name).casefold()
    return next((one for one in accounts.everyone(here.store()) if one.name.casefold() == sought), None)


@pages.get("/sign-in")
@people.anybody
def page() -> str:
    """Who are you? The people of this tablet, or a name; where the screen was locked, only the PIN of who locked it."""
    return _page()


@pages.post("/sign-in")
@people.anybody
def sign_in() -> flask.typing.ResponseReturnValue:
    """Let a person in."""
    typed, back = request.form.get("name") or request.form.get("typed", ""), people.local(request.form.get("back", "/"))
    quiet = "quiet" in request.form
    account, wrong = checked(typed, request.form.get("pin", ""))
    if account is None:
        return (
            (wrong, 422, {"Content-Type": "text/plain; charset=utf-8"}) if quiet else (_page(wrong, typed, back), 422)
        )
    if g.session and g.session.account != account.name:
        back = back.partition("?")[0]  # what one person was about to do is not offered to another
    response = Response(status=204) if quiet else Response(status=303, headers={"Location": back})
    people.start(account.name, response, Event.SIGNED_IN)
    return response


@pages.post("/lock")
@people.may(*people.EVERYONE)
def lock() -> flask.typing.ResponseReturnValue:
    """Blank the screen until the PIN is given."""
    with transaction(here.store()) as store:
        sessions.lock(store, g.session)
    return flask.redirect(url_for("signing.page", back=people.local(request.form.get("back", "/"))), 303)


@pages.post("/sign-out")
@people.anybody
def sign_out() -> flask.typing.ResponseReturnValue:
    """End the session on this tablet."""
    if g.session:
        with transaction(here.store()) as store:
            sessions.end(store, g.session)
            audit.append(store, Event.SIGNED_OUT, g.session.account, now())
    response = flask.redirect(url_for("signing.page"), 303)
    response.delete_cookie(people.SESSION, httponly=True, samesite="Strict", secure=request.is_secure)
    return response


@pages.post("/present")
@people.may(*people.EVERYONE, part=True)
def present() -> Response:
    """Somebody touches the tablet, without asking for a page."""
    people.note()
    return Response(status=204)


@pages.route("/pin", methods=["GET", "POST"])
@people.may(*people.EVERYONE)
def own_pin() -> flask.typing.ResponseReturnValue:
    """Choose one's own PIN; afterwards this is the only place where the person is signed in."""
    account, back = people.who(), people.local(request.values.get("back", "/"))
    if request.method == "GET":
        return render_template("pin.html", back=back, errors={})
    errors, new = {}, request.form.get("new", "")
    if not account.one_time:
        wrong = unproven(request.form.get("pin", ""))
        if wrong:
            errors["pin"] = wrong
    if pins.weak(new, account.name) or pins.fits(new, account.secret):
        errors["new"] = weak_sentence()
    elif pins.plain(new) != pins.plain(request.form.get("again", "")):
        errors["again"] = _("The two are not the same. Type the new PIN twice.")
    if errors:
        return render_template("pin.html", back=back, errors=errors), 422
    secret = pins.hashed(new)
    with transaction(here.store()) as store:
        accounts.set_secret(store, account.name, secret, one_time=False, digits=pins.digits(new))
        sessions.end_all(store, account.name)
        audit.append(store, Event.ACCOUNT_CHANGED, account.name, now(), account=account.name, change="own PIN")
    response = flask.redirect(back, 303)
    people.start(account.name, response)
    return response


def weak_sentence() -> str:
    """What a new PIN must be."""
    return _(
        "Choose at least 6 digits that nobody guesses: no 123456, no 111111, not the PIN you were given."
        " Or a pass phrase of at least 10 characters."
    )


def _page(wrong: str = "", typed: str = "", back: str = "") -> str:
    other, friends = "other" in request.args or "typed" in request.form, people.known()
    locked = None if other or "switch" in request.args else g.locked
    return render_template(
        "signin.html",
        wrong=wrong,
        typed=typed[:NAME_CHARACTERS],
        back=back or people.local(request.args.get("back", "/")),
        locked=locked,
        other=other,
        known=[] if other or locked else friends,
        others=any(one != locked for one in friends),
        latest=g.session.account if g.session and not g.account else "",
        words="words" in request.args or (locked is not None and not locked.digits),
        setup=setup_code.get(here.store()) is not None,
        nobody=not any(account.active for account in accounts.everyone(here.store())),
    )


def person(name: str) -> str:
    """What a person's wrong tries are counted under; those on a tablet of their own are counted apart.

    So whoever guesses from elsewhere keeps nobody out on the tablet that they work on.
    """
    return f"person {name}"


def checked(typed: str, pin: str) -> tuple[Account | None, str]:
    """The person of that name and PIN, or what to say. A try is counted before it is checked (`edge.state.tries`)."""
    account, mark = find(typed), people.tablet()
    name, friends = account.name if account else "", sessions.people_of(here.store(), mark)
    if account:
        whom = person(name) + (f" on {mark}" if name in friends else "")
    else:
        digest = hashlib.sha256(typed.casefold().encode("utf-8", "surrogatepass")).hexdigest()
        whom = f"{STRANGER}{digest}"
    with transaction(here.store()) as store:
        left = timedelta(0) if friends else tries.begin(store, ELSEWHERE, now(), ELSEWHERE_FREE, ELSEWHERE_LONGEST)
        left = left or tries.begin(store, whom, now())
    if left:
        return None, wait(left)
    right = pins.fits(pin, account.secret if account and account.active else pins.nobodys())
    with transaction(here.store()) as store:
        if right and account:
            tries.forget(store, whom)
            if not friends:
                tries.forget(store, ELSEWHERE)
            return account, ""
        audit.append(store, Event.SIGN_IN_FAILED, name or "unknown", now())
        imposed = tries.imposed(store, whom)
        if imposed:
            audit.append(store, Event.LOCKED_OUT, name or "unknown", now(), seconds=int(imposed.total_seconds()))
        tries.forget_strangers(store, STRANGER)
    if imposed:
        return None, wait(imposed)
    if g.session is None or g.session.account != name:
        return None, _("That name and PIN do not fit together. Try again.")
    digits = account is not None and account.digits
    return None, _("That PIN is wrong. Try again.") if digits else _("That pass phrase is wrong. Try again.")


def unproven(pin: str) -> str:
    """What to say to the person who is signed in and was asked for the PIN once more; empty where it is theirs."""
    return checked(people.who().name, pin)[1]


def wait(left: timedelta) -> str:
    """How long to wait, and what else to do."""
    return _(
        "Too many wrong tries. Wait %(time)s, then try again; or ask the clinic's lead for a new PIN.",
    ) % {"time": phrases.duration(left + timedelta(seconds=59))}
