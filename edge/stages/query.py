"""Query: an order as an item of the modality worklist, and whether a modality's query asks for it (PS3.4 K.6 and C.2.2.2)."""

from __future__ import annotations

import unicodedata
from collections.abc import Iterable
from zoneinfo import ZoneInfo

from pydicom import DataElement, Dataset

from edge.records import Order, Station

XRAY = ("DX", "CR")
"""What takes plain films; whichever asks, the film is for it."""

_UNMATCHED = {"SpecificCharacterSet", "TimezoneOffsetFromUTC"}
"""How the query is written, not what it asks for (PS3.4 C.2.2.2)."""
_WILD = {"AE", "CS", "LO", "LT", "PN", "SH", "ST", "UC", "UR", "UT"}
_DIGITS = {"DA": 8, "TM": 12, "DT": 20}
"""Of a value in full precision."""


def item(order: Order, procedure: tuple[str, str, str], station: Station, caller: str, query: Dataset) -> Dataset:
    """An order as a worklist item with every attribute that this box can tell, the unknown ones empty (PS3.4 Table K.6-1).

    A registered film is for whichever X-ray unit takes it, so its station and modality are those of the unit that asks.
    """
    scheme, code, meaning = procedure
    start = order.made_at.astimezone(ZoneInfo(station.timezone))
    coded = Dataset()
    coded.CodeValue, coded.CodingSchemeDesignator, coded.CodeMeaning = code, scheme, meaning
    step = Dataset()
    asked = (query.get("ScheduledProcedureStepSequence") or [Dataset()])[0]
    step.ScheduledStationAETitle = _single(asked, "ScheduledStationAETitle") or caller
    step.Modality = modality if (modality := _single(asked, "Modality")) in XRAY else XRAY[0]
    step.ScheduledProcedureStepStartDate = start.strftime("%Y%m%d")
    step.ScheduledProcedureStepStartTime = start.strftime("%H%M%S")
    step.ScheduledProcedureStepDescription = meaning
    step.ScheduledProtocolCodeSequence = [coded]
    step.ScheduledProcedureStepID = order.ScheduledProcedureStepID
    step.ScheduledProcedureStepStatus = "SCHEDULED"
    for empty in (
        "ScheduledPerformingPhysicianName",
        "ScheduledStationName",
        "ScheduledProcedureStepLocation",
        "ScheduledProcedureStepEndDate",
        "ScheduledProcedureStepEndTime",
        "PreMedication",
        "RequestedContrastAgent",
        "CommentsOnTheScheduledProcedureStep",
    ):
        setattr(step, empty, None)
    made = Dataset()
    made.SpecificCharacterSet = "ISO_IR 192"
    made.TimezoneOffsetFromUTC = start.strftime("%z")
    made.ScheduledProcedureStepSequence = [step]
    made.StudyInstanceUID = order.StudyInstanceUID
    made.AccessionNumber = order.AccessionNumber
    made.RequestedProcedureID = order.RequestedProcedureID
    made.RequestedProcedureDescription = meaning
    made.RequestedProcedureCodeSequence = [coded]
    made.RequestedProcedurePriority = order.urgency.upper()
    made.PatientName, made.PatientID = order.PatientName, order.PatientID
    made.IssuerOfPatientID = order.IssuerOfPatientID or None
    made.PatientBirthDate = "" if order.PatientBirthDate is None else order.PatientBirthDate.strftime("%Y%m%d")
    made.PatientSex = order.PatientSex
    made.PatientAge = "" if order.age_years is None else age_string(order.age_years)
    made.InstitutionName = station.institution
    for empty in (
        "RequestingPhysician",
        "ReferringPhysicianName",
        "RequestedProcedureComments",
        "ReasonForTheRequestedProcedure",
        "PatientTransportArrangements",
        "NamesOfIntendedRecipientsOfResults",
        "AdmissionID",
        "CurrentPatientLocation",
        "OtherPatientIDs",
        "PatientSize",
        "PatientWeight",
        "EthnicGroup",
        "PatientComments",
        "ConfidentialityConstraintOnPatientDataDescription",
        "PatientState",
        "PregnancyStatus",
        "MedicalAlerts",
        "Allergies",
        "SpecialNeeds",
        "AdmittingDiagnosesDescription",
        "ImagingServiceRequestComments",
        "PlacerOrderNumberImagingServiceRequest",
        "FillerOrderNumberImagingServiceRequest",
    ):
        setattr(made, empty, None)
    for empty in ("ReferencedStudySequence", "ReferencedPatientSequence"):
        setattr(made, empty, [])
    return made


def age_string(years: float) -> str:
    """An age as DICOM writes it (AS, PS3.5 6.2): in days up to a month, in months up to two years, else in years."""
    if years < 1 / 12:
        return f"{round(years * 365.25):03}D"
    return f"{round(years * 12):03}M" if years < 2 else f"{int(years):03}Y"


def _single(query: Dataset, keyword: str) -> str:
    """The one value that a query names, or nothing where it names none or a pattern."""
    values = _texts(query[keyword]) if keyword in query else []
    return values[0] if len(values) == 1 and not set("*?") & set(values[0]) else ""


def well_formed(query: Dataset) -> bool:
    """No sequence of the query has more than one item (PS3.4 C.2.2.2.6)."""
    return all(len(key.value or ()) <= 1 and all(map(well_formed, key.value or ())) for key in query if key.VR == "SQ")


def matches(query: Dataset, answer: Dataset) -> bool:
    """Whether an item is what the query asks for; keys that the item does not have ask for nothing (PS3.4 C.2.2.1.3)."""
    return all(
        _fits(key, answer[key.tag])
        for key in query
        if key.tag in answer and key.keyword not in _UNMATCHED and _asks(key)
    )


def supports(query: Dataset, answer: Dataset) -> bool:
    """Whether every key with a value could be matched; where not, the modality is told so with each item (status FF01)."""
    for key in query:
        if key.keyword in _UNMATCHED or key.tag.element == 0 or not _asks(key):
            continue
        if key.VR == "SQ":
            within = (answer[key.tag].value if key.tag in answer else None) or [Dataset()]
            if not all(supports(nested, within[0]) for nested in key.value):
                return False
        elif key.tag not in answer:
            return False
    return True


def _fits(key: DataElement, held: DataElement) -> bool:
    if key.VR == "SQ":
        return any(matches(key.value[0], one) for one in held.value)
    values = _texts(held)
    return any(_equal(key.VR, asked, value) for asked in _texts(key) for value in values or [""])


def _asks(key: DataElement) -> bool:
    """Whether a key has a value; without one it matches everything and is only to be returned (PS3.4 C.2.2.2.3)."""
    if key.VR == "SQ":
        return any(_asks(nested) for one in key.value or () for nested in one)
    return bool(_texts(key))


def _texts(element: DataElement) -> list[str]:
    """The element's values without the padding that says nothing."""
    value = element.value
    if value is None:
        return []
    many = value if hasattr(value, "append") or isinstance(value, (list, tuple)) else [value]
    texts = [str(one).strip("\0 ") for one in many]
    return [text for text in texts if text]


def _equal(vr: str, asked: str, value: str) -> bool:
    """Single value, range and wild card matching of one value (PS3.4 C.2.2.2.1 to C.2.2.2.5)."""
    if vr in _DIGITS:
        return in_range(asked, value, _DIGITS[vr])
    if vr == "PN":
        return any(like(_folded(asked), one) for one in [_folded(value), *map(_folded, value.split("="))])
    return like(asked, value) if vr in _WILD else asked == value


def _folded(name: str) -> str:
    """A name as it is compared: without regard to case, and to the empty components at its end."""
    groups = unicodedata.normalize("NFC", name).casefold().split("=")
    return "=".join(group.rstrip("^ ") for group in groups).rstrip("=")


def in_range(asked: str, value: str, digits: int) -> bool:
    """Whether a date or time is the one asked for, or within the range asked for; one that is not known is in none.

    A time to the minute stands for every second of it.
    """
    if asked == "*":
        return True
    first, hyphen, last = asked.partition("-")
    low, high = (_plain(first), _plain(last)) if hyphen else (_plain(first), _plain(first))
    known = _plain(value)
    if not known or not (low or high) or not all(part.isascii() and part.isdigit() for part in (low + high, known)):
        return False
    if digits == _DIGITS["DA"] and any(len(part) not in (0, digits) for part in (low, high)):
        return False
    known = known.ljust(digits, "0")
    return low.ljust(digits, "0") <= known <= (high or "9").ljust(digits, "9")


def _plain(text: str) -> str:
    """The digits, also of the dates and times of the standard's predecessor (2026.11.25, 08:00)."""
    return text.strip().replace(".", "").replace(":", "")


def like(pattern: str, text: str) -> bool:
    """Whether a text is what a pattern of * and ? describes, in a time that no pattern makes long."""
    at = back = 0
    star = -1
    for_star = 0
    while at < len(text):
        if back < len(pattern) and pattern[back] == "*":
            star, for_star = back, at
            back += 1
        elif back < len(pattern) and pattern[back] in ("?", text[at]):
            back, at = back + 1, at + 1
        elif star >= 0:
            for_star += 1
            back, at = star + 1, for_star
        else:
            return False
    return all(letter == "*" for letter in pattern[back:])


def answer(query: Dataset, whole: Dataset) -> Dataset:
    """The attributes that the query asks for and no others; those that this box does not know are empty (PS3.4 C.2.2.1.3)."""
    made = _picked(query, whole)
    made.SpecificCharacterSet = whole.SpecificCharacterSet
    return made


def _picked(query: Dataset, whole: Dataset) -> Dataset:
    made = Dataset()
    for key in query:
        if key.tag.group <= 0x0002 or key.tag.element == 0:
            continue
        held: DataElement | None = whole.get(key.tag)
        if key.VR != "SQ":
            made.add(DataElement(key.tag, key.VR, None) if held is None else held)
            continue
        items: Iterable[Dataset] = () if held is None else held.value
        asked = key.value[0] if key.value and len(key.value[0]) else None
        made.add(DataElement(key.tag, "SQ", [one if asked is None else _picked(asked, one) for one in items]))
    return made
