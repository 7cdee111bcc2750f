"""The people page, for admins and leads: who may read here, which films, and a new code for whoever has lost theirs."""

from __future__ import annotations

import hashlib
import re
from collections.abc import Mapping

import flask
import msgspec
from flask import Blueprint, abort, render_template, request

from web import languages
from web.hub import accounts, here, people, sites
from web.hub.accounts import Account, Role
from web.hub.records import TaskKind
from web.languages import N_
from web.languages import gettext as _
from web.signing import name_of

ROLES = {
    Role.READER: N_("Reader: reads films"),
    Role.LEAD: N_("Lead: a reader who also sees waiting times, boxes and people"),
    Role.ADMIN: N_("Admin: gives accounts, sees no films"),
}
KINDS = {
    TaskKind.FIRST: N_("First reads"),
    TaskKind.SECOND: N_("Second reads"),
    TaskKind.ARBITRATION: N_("Arbitration where two readers differ"),
    TaskKind.AUDIT: N_("Samples of what the AI calls routine"),
}
COUNTRY = re.compile("[A-Z]{2}")

pages = Blueprint("staff", __name__)


@pages.get("/people")
@people.may(Role.LEAD, Role.ADMIN)
def page() -> str:
    """Everybody who has an account."""
    return _page()


@pages.post("/people/add")
@people.may(Role.LEAD, Role.ADMIN)
def add() -> flask.typing.ResponseReturnValue:
    """Give a person an account and show, once, the code that they sign in with the first time."""
    name, role = name_of(request.form.get("name", "")), request.form.get("role", "")
    if not name:
        return _page(wrong=_("Give the person's name, 2 to 60 characters."), typed=request.form.get("name", "")), 422
    if role not in list(Role) or (role == Role.ADMIN and people.who().role is not Role.ADMIN):
        abort(400)
    plain = Account(name=name, programme=people.who().programme, role=Role(role), language=languages.current().code)
    account = _with_rights(plain, _sites())
    with here.store().transaction() as db:
        code = accounts.invite(db, account)
    if code is None:
        return _page(wrong=_("There is somebody of that name already. Add a letter or a second name."), typed=name), 409
    return _page(given=(name, code))


@pages.post("/people/change")
@people.may(Role.LEAD, Role.ADMIN)
def change() -> flask.typing.ResponseReturnValue:
    """Change one person's account. A page that is out of date, or a form sent twice, changes nothing."""
    act, code = request.form.get("act", ""), ""
    if act not in {"reset", "off", "on", "rights"}:
        abort(400)
    wrong, known = "", _sites()
    with here.store().transaction() as db:
        account = accounts.get(db, request.form.get("name", ""))
        if account is None or account.programme != people.who().programme:
            abort(400)
        if account.role is Role.ADMIN and people.who().role is not Role.ADMIN:
            abort(400)
        if request.form.get("version") != version(account):
            wrong = _("That was changed in the meantime, so nothing was done. This is how it stands now.")
        elif act == "off" and account.name == people.who().name:
            wrong = _("You cannot shut yourself out. Ask another lead.")
        elif act == "reset":
            code = accounts.reset(db, account)
        else:
            changed = (
                _with_rights(account, known)
                if act == "rights"
                else msgspec.structs.replace(account, active=act == "on")
            )
            accounts.put(db, changed, account)
        if not wrong and act in ("reset", "off"):
            accounts.end_all(db, account.name)
    if wrong:
        return _page(wrong=wrong), 409
    return _page(given=(account.name, code) if code else None)


def version(account: Account) -> str:
    """Names an account as it stands, so that a form sent twice acts once."""
    return hashlib.sha256(msgspec.json.encode(account)).hexdigest()[:16]


def _with_rights(account: Account, known: Mapping[str, str]) -> Account:
    """The account with what the form says that the person may read."""
    countries = request.form.get("countries", "").upper().replace(",", " ").split()
    return msgspec.structs.replace(
        account,
        languages=tuple(code for code in languages.LANGUAGES if code in request.form.getlist("languages")),
        kinds=tuple(kind for kind in TaskKind if kind in request.form.getlist("kinds")),
        sites=tuple(site for site in known if site in request.form.getlist("sites")),
        countries=tuple(country for country in countries if COUNTRY.fullmatch(country)),
    )


def _sites() -> dict[str, str]:
    programme = people.who().programme
    with here.store().reading(programme) as db:
        return {one.site.name: one.site.title for one in sites.contacts(db)}


def _page(wrong: str = "", typed: str = "", given: tuple[str, str] | None = None) -> str:
    with here.store().reading() as db:
        everyone = accounts.everyone(db, people.who().programme)
    roles = ROLES if people.who().role is Role.ADMIN else {key: ROLES[key] for key in (Role.READER, Role.LEAD)}
    return render_template(
        "hub/people.html",
        everyone=everyone,
        roles=roles,
        ROLES=ROLES,
        KINDS=KINDS,
        sites=_sites(),
        version=version,
        wrong=wrong,
        typed=typed,
        given=given,
    )
