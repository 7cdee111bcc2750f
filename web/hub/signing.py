"""Signing in at the hub with a pass phrase and a code of an authenticator app; choosing both; signing out; the language.

The answer to a wrong try is the same for names that nobody has, and takes as long. A try is counted before it is checked.
"""

from __future__ import annotations

import hashlib
from datetime import timedelta

import flask
import msgspec
import segno
from flask import Blueprint, abort, g, render_template, request
from markupsafe import Markup

from edge import pins
from web import languages
from web.hub import accounts, drafts, here, people, tasks, totp
from web.hub.accounts import Account
from web.hub.store import now
from web.languages import gettext as _
from web.people import YEAR_SECONDS, local
from web.phrases import duration
from web.signing import NAME_CHARACTERS, name_of

pages = Blueprint("signing", __name__)
choice = Blueprint("choice", __name__)

ELSEWHERE, ELSEWHERE_FREE, ELSEWHERE_LONGEST = "new browsers", 200, timedelta(minutes=1)
"""Browsers that a person has not signed in on yet share a lock-out of their own, so that no flood of names fills the hub."""


@pages.get("/sign-in")
@people.anybody
def page() -> str:
    """Who are you?"""
    return _page()


@pages.post("/sign-in")
@people.anybody
def sign_in() -> flask.typing.ResponseReturnValue:
    """Let a person in."""
    typed, back = request.form.get("name", ""), local(request.form.get("back", "/"))
    account, wrong = checked(typed, request.form.get("secret", ""), request.form.get("code", ""))
    if account is None:
        return _page(wrong, typed, back), 422
    response = flask.redirect(back, 303)
    people.start(account.name, response)
    return response


@pages.post("/sign-out")
@people.anybody
def sign_out() -> flask.typing.ResponseReturnValue:
    """End the session in this browser: what was sent leaves, and the film that the person has goes back to the queue."""
    if g.session:
        reader = people.reader()
        with here.store().transaction(reader.programme) as db:
            drafts.flush(db, here.hub().rules, now(), reader)
            tasks.release_all(db, reader)
        with here.store().transaction() as db:
            accounts.end(db, g.session)
    response = flask.redirect("/sign-in", 303)
    response.delete_cookie(people.SESSION, httponly=True, samesite="Strict", secure=request.is_secure)
    return response


@pages.route("/own", methods=["GET", "POST"])
@people.may(*people.EVERYONE)
def own() -> flask.typing.ResponseReturnValue:
    """Choose one's own pass phrase and set the authenticator app up; afterwards this is the only place that is signed in."""
    account, back = people.who(), local(request.values.get("back", "/"))
    if not account.secret:
        abort(404)  # another provider signs this person in
    secret = request.form.get("totp", "")
    if not totp.SECRET.fullmatch(secret):
        secret = totp.new_secret()
    if request.method == "GET":
        return _own(account, secret, back, {})
    errors, new = {}, request.form.get("new", "")
    if not account.one_time:
        _again, wrong = checked(account.name, request.form.get("secret", ""), request.form.get("now", ""))
        if wrong:
            errors["secret"] = wrong
    if len(pins.plain(new)) < pins.CHARACTERS or pins.weak(new, account.name) or pins.fits(new, account.secret):
        errors["new"] = weak_sentence()
    elif pins.plain(new) != pins.plain(request.form.get("again", "")):
        errors["again"] = _("The two are not the same. Type the new pass phrase twice.")
    step = totp.matched(secret, pins.plain(request.form.get("code", "")), now(), 0)
    if step is None:
        errors["code"] = _("That is not the code that the app shows now. Scan the square, then type the six digits.")
    if errors or step is None:
        return _own(account, secret, back, errors), 422
    hashed = pins.hashed(new)
    with here.store().transaction() as db:
        sealed = here.hub().seal.close(secret, accounts.folded(account.name))
        changed = msgspec.structs.replace(account, secret=hashed, one_time=False, totp=sealed)
        if not accounts.put(db, changed, account):
            abort(409)
        accounts.use_code(db, account.name, step)
        accounts.end_all(db, account.name)
        accounts.forget(db, accounts.person(account.name))
    response = flask.redirect(back, 303)
    people.start(account.name, response)
    return response


@choice.post("/language")
@people.anybody
def language() -> flask.typing.ResponseReturnValue:
    """Take the language of the pages and lead back to the page that it was chosen on."""
    code, back = request.form.get("code", ""), local(request.form.get("back", "/"))
    if code not in languages.LANGUAGES:
        abort(400)
    if g.account:
        with here.store().transaction() as db:
            accounts.speak(db, g.account.name, code)
    response = flask.redirect(back, 303)
    response.set_cookie(
        languages.COOKIE, code, max_age=YEAR_SECONDS, httponly=True, samesite="Strict", secure=request.is_secure
    )
    return response


def checked(typed: str, secret: str, code: str) -> tuple[Account | None, str]:
    """The person of that name, pass phrase and code, or what to say."""
    name, mark, at = name_of(typed), request.cookies.get(people.BROWSER, ""), now()
    with here.store().transaction() as db:
        account = accounts.get(db, name) if name else None
        known = account is not None and bool(mark) and accounts.knows(db, mark, account.name)
        if account:
            whom = accounts.person(account.name) + (f" on {accounts.hash_of(mark)[:16]}" if known else "")
        else:
            whom = accounts.STRANGER + hashlib.sha256(typed.casefold().encode("utf-8", "surrogatepass")).hexdigest()
        left = timedelta(0) if known else accounts.begin_try(db, ELSEWHERE, at, ELSEWHERE_FREE, ELSEWHERE_LONGEST)
        left = left or accounts.begin_try(db, whom, at)
    if left:
        return None, wait(left)
    usable = account is not None and account.active and bool(account.secret)
    right = pins.fits(secret, account.secret if account and usable else pins.nobodys())
    step: int | None = 0
    if account and account.totp and not account.one_time:
        shared = here.hub().seal.open(account.totp, accounts.folded(account.name))
        if shared is None and usable and right:
            return None, _("The hub can no longer check your app. Ask your lead for a new code.")
        step = totp.matched(shared, pins.plain(code), at, account.totp_step) if shared else None
    with here.store().transaction() as db:
        if (
            account
            and usable
            and right
            and step is not None
            and (step == 0 or accounts.use_code(db, account.name, step))
        ):
            accounts.forget(db, whom)
            accounts.forget(db, ELSEWHERE)
            return account, ""
        accounts.forget_strangers(db, at)
        imposed = accounts.imposed(db, whom)
    if imposed:
        return None, wait(imposed)
    return None, _(
        "That name, pass phrase and code do not fit together. Each code works once: wait for the next, then try again."
    )


def wait(left: timedelta) -> str:
    """How long to wait, and what else to do."""
    return _("Too many wrong tries. Wait %(time)s, then try again; or ask your lead for a new code.") % {
        "time": duration(left + timedelta(seconds=59))
    }


def weak_sentence() -> str:
    """What a new pass phrase must be."""
    return _("Choose at least 10 characters that nobody guesses, not your name and not what you were given.")


def _page(wrong: str = "", typed: str = "", back: str = "") -> str:
    provider = here.config().oidc
    return render_template(
        "hub/signin.html",
        wrong=wrong,
        typed=typed[:NAME_CHARACTERS],
        back=back or local(request.args.get("back", "/")),
        provider=provider.title if provider.issuer else "",
    )


def _own(account: Account, secret: str, back: str, errors: dict[str, str]) -> str:
    drawn = segno.make(totp.uri(secret, account.name), error="m", micro=False)
    return render_template(
        "hub/own.html",
        back=back,
        errors=errors,
        totp=secret,
        grouped=" ".join(secret[at : at + 4] for at in range(0, len(secret), 4)),
        square=Markup(drawn.svg_inline(scale=4, border=4, omitsize=True, svgclass="qr", lineclass="dark")),  # noqa: S704
    )
