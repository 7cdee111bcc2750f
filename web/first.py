"""The first start: whoever can read the one-time code on the box makes the lead; also the way back for one who lost their PIN."""

from __future__ import annotations

import flask
from flask import Blueprint, abort, render_template, request

from edge import pins, setup
from edge.records import Role
from edge.state import accounts, audit, sessions, setup_code, tries
from edge.state.audit import Event
from edge.state.store import now, transaction
from web import here, languages, people, signing
from web.languages import gettext as _

WHOM = "setup code"

pages = Blueprint("first", __name__)


@pages.get("/setup")
@people.anybody
def page() -> str:
    """Ask for the code, the lead's name and a PIN; there is no such page once the code is used."""
    if setup_code.get(here.store()) is None:
        abort(404)
    return render_template("setup.html", errors={}, typed={})


@pages.post("/setup")
@people.anybody
def make() -> flask.typing.ResponseReturnValue:
    """Make the lead, and sign them in."""
    secret = setup_code.get(here.store())
    if secret is None:
        abort(404)
    form = {key: request.form.get(key, "") for key in ("code", "name", "new", "again")}
    name, errors = signing.name_of(form["name"]), {}
    if not name:
        errors["name"] = _("Give your name, 2 to 60 characters.")
    if pins.weak(form["new"], name):
        errors["new"] = signing.weak_sentence()
    elif pins.plain(form["new"]) != pins.plain(form["again"]):
        errors["again"] = _("The two are not the same. Type the new PIN twice.")
    if not errors:
        errors = _wrong_code(form["code"], secret)
    if errors:
        return render_template("setup.html", errors=errors, typed=form), 422
    hashed, known = pins.hashed(form["new"]), signing.find(name)
    with transaction(here.store()) as store:
        if not setup_code.take(store, secret):
            abort(404)
        if known:
            name = known.name
            accounts.set_role(store, name, Role.LEAD)
            accounts.set_active(store, name, True)
            accounts.set_secret(store, name, hashed, one_time=False, digits=pins.digits(form["new"]))
            sessions.end_all(store, name)
            tries.forget_person(store, signing.person(name))
        else:
            digits = pins.digits(form["new"])
            accounts.add(store, name, Role.LEAD, languages.current().code, hashed, now(), digits=digits)
        tries.forget(store, WHOM)
        audit.append(store, Event.ACCOUNT_CHANGED, name, now(), account=name, change="lead by setup code")
    setup.used(here.config())
    response = flask.redirect("/", 303)
    people.start(name, response, Event.SIGNED_IN)
    return response


def _wrong_code(typed: str, secret: str) -> dict[str, str]:
    """What is wrong with a code; five tries are free."""
    with transaction(here.store()) as store:
        left = tries.begin(store, WHOM, now())
    if left:
        return {"code": signing.wait(left)}
    code = pins.plain(typed).upper().replace("-", "").replace(" ", "")
    if pins.fits(f"{code[:5]}-{code[5:]}", secret):
        return {}
    with transaction(here.store()) as store:
        audit.append(store, Event.SIGN_IN_FAILED, WHOM, now())
        imposed = tries.imposed(store, WHOM)
        if imposed:
            audit.append(store, Event.LOCKED_OUT, WHOM, now(), seconds=int(imposed.total_seconds()))
    return {
        "code": _("That is not the code. It is on the box's screen or label: two groups of five letters and digits.")
    }
