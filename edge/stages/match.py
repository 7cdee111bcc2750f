"""Match: which order a film is the one of, what the order tells of the patient, and whose earlier films are the same person's.

Pure, and never by a name: a name finds nobody here, it can only contradict. What is not certain is no match: a film without its
order keeps its place in the order of arrival; a film with another patient's would take theirs.
"""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Iterable
from dataclasses import replace
from datetime import date

from edge.records import Header, Order, Urgency

_NO_ID = re.compile(r"[0\W_]*|x+|n/?a|none|null|nil|test|temp|unknown|unk|anon\w*|no ?id", re.IGNORECASE)
"""What people type where there is no patient ID, and so no ID of anybody."""
_NOBODY_BORN = date(1900, 1, 1)
"""This day or an earlier one is what systems write when they do not know."""
_YEARS_APART = 1.5
"""By so much may two ages of the same person disagree: each is rounded down to a whole year."""


def is_id(patient_id: str) -> bool:
    """Whether a patient ID names somebody."""
    return _NO_ID.fullmatch(patient_id) is None


def order_of(film: Header, orders: Iterable[Order]) -> Order | None:
    """The order that this film was taken for, or None where none is certain.

    The worklist gives the X-ray unit the Study Instance UID, which is unique in the world and comes back in the film
    (PS3.4 K.6.1.2.2). An accession number, or a requested procedure's ID, is unique in one department only: it counts together
    with the same patient ID. Whatever both say of the patient must agree. Of several, the most urgent.
    """
    own = [order for order in orders if not _contradicts(film, order)]
    for shares in (_study, _accession, _procedure):
        if found := [order for order in own if shares(film, order)]:
            return min(found, key=lambda order: (list(Urgency).index(order.urgency), order.id))
    return None


def _study(film: Header, order: Order) -> bool:
    return bool(film.StudyInstanceUID) and film.StudyInstanceUID == order.StudyInstanceUID


def _accession(film: Header, order: Order) -> bool:
    return bool(film.AccessionNumber) and film.AccessionNumber == order.AccessionNumber and _patient(film, order)


def _procedure(film: Header, order: Order) -> bool:
    return (
        bool(film.RequestedProcedureID)
        and film.RequestedProcedureID == order.RequestedProcedureID
        and _patient(film, order)
    )


def _patient(film: Header, order: Order) -> bool:
    return is_id(film.PatientID) and film.PatientID == order.PatientID


def _contradicts(film: Header, order: Order) -> bool:
    return (
        _differ(film.AccessionNumber, order.AccessionNumber)
        or _differ(film.PatientID, order.PatientID)
        or _differ(film.IssuerOfPatientID, order.IssuerOfPatientID)
        or _differ(_sex(film.PatientSex), _sex(order.PatientSex))
        or _differ(_born(film.PatientBirthDate), _born(order.PatientBirthDate))
    )


def _differ(one: object, other: object) -> bool:
    """Both say something, and not the same."""
    return bool(one) and bool(other) and one != other


def _sex(code: str) -> str:
    return code.upper() if code.upper() in {"M", "F", "O"} else ""


def _born(day: date | None) -> date | None:
    return None if day is None or day <= _NOBODY_BORN else day


def complete(film: Header, order: Order | None) -> Header:
    """What a film says of itself, with the age and the sex that its order gives where the film has none; and which these are."""
    if order is None:
        return film
    given: dict[str, object] = {}
    if not _sex(film.PatientSex) and _sex(order.PatientSex):
        given["PatientSex"] = _sex(order.PatientSex)
    if film.age_years is None and (age := _age(film, order)) is not None:
        given["age_years"] = age
        if _born(film.PatientBirthDate) is None and _born(order.PatientBirthDate):
            given["PatientBirthDate"] = order.PatientBirthDate
    return replace(film, **given, from_order=tuple(given)) if given else film  # type: ignore[arg-type]


def _age(film: Header, order: Order) -> float | None:
    """The age when the film was taken."""
    taken = film.StudyDate or (order.scheduled_at or order.made_at).date()
    born = _born(order.PatientBirthDate)
    if born is None or born > taken:
        return order.age_years
    return (taken - born).days / 365.25


def same_person(one: Header, other: Header) -> bool:
    """Whether two films are certainly of the same person: the same ID of the same issuer, and nothing that speaks against it.

    An ID is typed by hand in many clinics. So birth dates, sexes and ages must not disagree, and where no birth date confirms the
    ID, the names must have at least one word in common.
    """
    if not is_id(one.PatientID) or one.PatientID != other.PatientID:
        return False
    if one.IssuerOfPatientID != other.IssuerOfPatientID:
        return False
    if _differ(_sex(one.PatientSex), _sex(other.PatientSex)):
        return False
    born, also = _born(one.PatientBirthDate), _born(other.PatientBirthDate)
    if _differ(born, also):
        return False
    years, others = _year_of_birth(one), _year_of_birth(other)
    if years is not None and others is not None and abs(years - others) > _YEARS_APART:
        return False
    return (born is not None and born == also) or _names_meet(one.PatientName, other.PatientName)


def _year_of_birth(film: Header) -> float | None:
    if film.StudyDate is None or film.age_years is None:
        return None
    return film.StudyDate.toordinal() / 365.25 - film.age_years


def _names_meet(one: str, other: str) -> bool:
    """Two names have a word in common, or one of the films has no name."""
    mine, theirs = _words(one), _words(other)
    return not mine or not theirs or bool(mine & theirs)


def _words(name: str) -> set[str]:
    plain = unicodedata.normalize("NFKD", name)
    folded = "".join(letter for letter in plain if not unicodedata.combining(letter)).casefold()
    return set(re.findall(r"[^\W\d_]{2,}", folded)) or set(folded.replace("^", " ").replace("=", " ").split())
