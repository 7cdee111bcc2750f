"""The people page, for leads: who may use the box, as what, and a new PIN for whoever has forgotten theirs."""

from __future__ import annotations

import hashlib

import flask
from flask import Blueprint, abort, render_template, request

from edge import pins
from edge.records import Account, Role
from edge.state import accounts, audit, sessions, tries
from edge.state.audit import Event
from edge.state.store import now, transaction
from web import here, languages, people, signing
from web.languages import N_
from web.languages import gettext as _

ROLES = {
    Role.CLINICIAN: N_("Clinician: sees films and decides"),
    Role.TECHNICIAN: N_("Technician: sees the box, no patients"),
    Role.LEAD: N_("Lead: a clinician who also manages people"),
}

pages = Blueprint("staff", __name__)


@pages.get("/people")
@people.may(Role.LEAD)
def page() -> str:
    """Everybody who has an account."""
    return _page()


@pages.post("/people/add")
@people.may(Role.LEAD)
def add() -> flask.typing.ResponseReturnValue:
    """Give a person an account and show, once, the PIN they sign in with the first time."""
    name, role = signing.name_of(request.form.get("name", "")), request.form.get("role", "")
    if not name:
        return _page(wrong=_("Give the person's name, 2 to 60 characters."), typed=request.form.get("name", "")), 422
    if role not in list(Role):
        abort(400)
    if signing.find(name):
        return _page(wrong=_("There is somebody of that name already. Add a letter or a second name."), typed=name), 409
    pin = pins.one_time_pin()
    secret = pins.hashed(pin)
    with transaction(here.store()) as store:
        if not accounts.add(store, name, Role(role), languages.current().code, secret, now(), one_time=True):
            abort(409)
        _changed(name, "added", role=role)
    return _page(given=(name, pin))


@pages.post("/people/change")
@people.may(Role.LEAD)
def change() -> flask.typing.ResponseReturnValue:
    """Change one person's account. A page that is out of date, or a form sent twice, changes nothing."""
    account, act = signing.find(request.form.get("name", "")), request.form.get("act", "")
    if account is None or act not in {"reset", "off", "on", "role"}:
        abort(400)
    role = request.form.get("role", account.role) if act == "role" else account.role
    if role not in list(Role):
        abort(400)
    pin = pins.one_time_pin()
    secret = pins.hashed(pin) if act == "reset" else ""
    with transaction(here.store()) as store:
        account = accounts.get(store, account.name)
        if account is None or request.form.get("version") != version(account):
            return _page(
                wrong=_("That was changed in the meantime, so nothing was done. This is how it stands now.")
            ), 409
        if (act == "off" or role != Role.LEAD) and _leads() == [account.name]:
            return _page(wrong=_("This is the only lead. Make somebody else a lead first.")), 409
        if act == "reset":
            accounts.set_secret(store, account.name, secret, one_time=True)
            tries.forget_person(store, signing.person(account.name))
        elif act == "role":
            accounts.set_role(store, account.name, Role(role))
        else:
            accounts.set_active(store, account.name, act == "on")
            if act == "off":
                sessions.forget_person(store, account.name)
        sessions.end_all(store, account.name)
        _changed(account.name, act, role if act == "role" else None)
    if account.name == people.who().name:
        return flask.redirect("/", 303)
    return _page(given=(account.name, pin) if act == "reset" else None)


def version(account: Account) -> str:
    """Names an account as it stands, so that a form sent twice acts once."""
    return hashlib.sha256(f"{account.secret} {account.role} {account.active}".encode()).hexdigest()[:16]


def _leads() -> list[str]:
    return [one.name for one in accounts.everyone(here.store()) if one.active and one.role is Role.LEAD]


def _changed(name: str, change: str, role: str | None = None) -> None:
    actor = people.who().name
    audit.append(here.store(), Event.ACCOUNT_CHANGED, actor, now(), account=name, change=change, role=role)


def _page(wrong: str = "", typed: str = "", given: tuple[str, str] | None = None) -> str:
    latest = {session.account: session.seen_at for session in reversed(sessions.everyones(here.store()))}
    return render_template(
        "people.html",
        everyone=accounts.everyone(here.store()),
        latest=latest,
        version=version,
        ROLES=ROLES,
        wrong=wrong,
        typed=typed[: signing.NAME_CHARACTERS],
        given=given,
    )
