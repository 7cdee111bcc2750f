"""Registering a patient where there is no RIS: the X-ray unit finds them on its worklist, and their film keeps its priority."""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Callable
from datetime import date, datetime
from zoneinfo import ZoneInfo

import flask
from flask import Blueprint, abort, render_template, request, url_for

from edge import ordering
from edge.records import Order, Urgency
from edge.state import audit, orders
from edge.state.audit import Event
from edge.state.store import now, transaction
from edge.vocabulary import PROCEDURES
from web import film, here, people
from web.languages import N_
from web.languages import gettext as _

SEXES = {"F": N_("female"), "M": N_("male"), "O": N_("other sex"), "": N_("not known")}
URGENCIES = {Urgency.ROUTINE: N_("Not urgent"), Urgency.HIGH: N_("Urgent"), Urgency.STAT: N_("At once (STAT)")}
FIELDS = ("family", "given", "patient_id", "born", "years", "sex", "urgency", "procedure")

_NAME = 64
"""A person's name in one script (PN, PS3.5 6.2), the caret between its two parts included."""
_ID = 64

pages = Blueprint("register", __name__)


@pages.get("/register")
@people.may(*people.CARERS)
def page() -> str:
    """The form, and the patients whom the X-ray unit finds now."""
    return _page({}, {})


@pages.post("/register")
@people.may(*people.CARERS)
def register() -> flask.typing.ResponseReturnValue:
    """Put a patient on the X-ray unit's worklist; a second tap puts nobody there."""
    key = _key()
    typed = {field: _plain(request.form.get(field, "")) for field in FIELDS}
    at = now()
    errors, order = _order(typed, key, at)
    if order is None:
        return _page(typed, errors), 422
    with transaction(here.store()) as store:
        known = [one for one in orders.listed(store, at) if typed["patient_id"] and one.PatientID == order.PatientID]
        if any(one.procedure == order.procedure and one.AccessionNumber != order.AccessionNumber for one in known):
            again = _("This patient is on the list already, below. Take that entry off first, or leave it as it is.")
            return _page(typed, {"patient_id": again}), 422
        order, new = orders.register(store, order, key)
        orders.forget(store, at)
        if new:
            audit.append(
                store,
                Event.ORDER_REGISTERED,
                order.made_by,
                at,
                order=order.id,
                patient=order.PatientID,
                accession=order.AccessionNumber,
                urgency=order.urgency,
            )
        elif order.made_by != people.who().name:
            abort(400)
    return flask.redirect(url_for("register.page", _anchor=f"order-{order.id}"), 303)


@pages.post("/register/<int:number>/withdraw")
@people.may(*people.CARERS)
def withdraw(number: int) -> flask.typing.ResponseReturnValue:
    """Take a patient off the list; a second tap changes nothing, and no film is touched."""
    with transaction(here.store()) as store:
        try:
            order = orders.get(store, number)
        except (KeyError, OverflowError):
            abort(404)
        if order.source != "tablet":
            abort(404)
        if orders.withdraw(store, number, now()):
            by, patient = people.who().name, order.PatientID
            audit.append(store, Event.ORDER_WITHDRAWN, by, now(), order=number, patient=patient)
    return flask.redirect(url_for("register.page"), 303)


def _page(typed: dict[str, str], errors: dict[str, str]) -> str:
    return render_template(
        "register.html",
        typed={field: typed.get(field, "")[:400] for field in FIELDS},
        errors=errors,
        listed=orders.listed(here.store(), now()),
        sexes=SEXES,
        urgencies=URGENCIES,
        procedures=PROCEDURES,
        kinds=[(choice.key, choice.text) for choice in PROCEDURES.values()],
        today=_today(),
    )


def _order(typed: dict[str, str], key: str, at: datetime) -> tuple[dict[str, str], Order | None]:
    """What is wrong with the form, by field; or the order, where nothing is."""
    errors: dict[str, str] = {}

    def checked(field: str, wrong: Callable[[str], str]) -> None:
        if said := wrong(typed[field]):
            errors[field] = said

    checked("family", _wrong_family)
    checked("given", _wrong_part)
    checked("patient_id", _wrong_id)
    born, age = _day(typed["born"]), film.age_of(typed["years"])
    if typed["born"] and (born is None or not date(1900, 1, 1) < born <= _today()):
        errors["born"] = _("Give the birth date as year-month-day, such as 1984-07-31; it cannot be in the future.")
    elif typed["years"] and age is None:
        errors["years"] = _("Give the age in years, from 0 to 120. For a baby of 3 months write 0.25.")
    elif born is None and age is None:
        errors["years"] = _("Give the birth date or the age. If nobody knows it, give your estimate.")
    elif born is not None and age is not None and abs((_today() - born).days / 365.25 - age) > 1:
        errors["years"] = _("The age and the birth date do not agree. Leave one of them empty.")
    if not errors and len(f"{typed['family']}^{typed['given']}") > _NAME:
        errors["given"] = _("Family and given name together have at most %(num)s characters. Shorten one of them.") % {
            "num": _NAME - 1
        }
    for field, choices in (("sex", SEXES), ("urgency", URGENCIES), ("procedure", PROCEDURES)):
        if typed[field] not in choices:
            errors[field] = _("Choose one of these.")
    if errors:
        return errors, None
    study, number = ordering.identifiers(key)
    return errors, Order(
        id=0,
        source="tablet",
        made_by=people.who().name,
        made_at=at,
        StudyInstanceUID=study,
        AccessionNumber=number,
        RequestedProcedureID=number,
        ScheduledProcedureStepID=number,
        PatientName=f"{typed['family']}^{typed['given']}".rstrip("^"),
        PatientID=typed["patient_id"] or number,
        PatientSex=typed["sex"],
        PatientBirthDate=born,
        age_years=None if born is not None else age,
        urgency=Urgency(typed["urgency"]),
        procedure=typed["procedure"],
        scheduled_at=at,
    )


def _wrong_family(text: str) -> str:
    return _wrong_part(text) if text else _("Give the family name, or what the patient is called.")


def _wrong_part(text: str) -> str:
    if len(text) >= _NAME:
        return _("A name has at most %(num)s characters. Shorten it.") % {"num": _NAME - 1}
    return _("A name cannot hold \\ ^ or =. Leave that character out.") if set(text) & set("\\^=") else ""


def _wrong_id(text: str) -> str:
    if len(text) > _ID:
        return _("A patient ID has at most %(num)s characters. Shorten it.") % {"num": _ID}
    return _("A patient ID cannot hold \\ * or ?. Leave that character out.") if set(text) & set("\\*?") else ""


def _plain(text: str) -> str:
    """The text on one line and without what nobody sees: DICOM allows no control characters in it (PS3.5 6.1.3)."""
    kept = (" " if unicodedata.category(one) == "Cc" else one for one in unicodedata.normalize("NFC", text))
    return " ".join("".join(kept).encode("utf-8", "replace").decode().split())


def _day(text: str) -> date | None:
    try:
        return date.fromisoformat(text) if re.fullmatch(r"\d{4}-\d\d-\d\d", text, re.ASCII) else None
    except ValueError:
        return None


def _today() -> date:
    return now().astimezone(ZoneInfo(here.config().site.timezone)).date()


def _key() -> str:
    key = request.form.get("request", "")
    if not re.fullmatch(r"[\w-]{16,64}", key, re.ASCII):
        abort(400)
    return key
