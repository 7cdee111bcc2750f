"""Scheduled: what to ask a RIS for, and the orders in what it answers (Modality Worklist, PS3.4 K.6.1.2.2)."""

from __future__ import annotations

import warnings
from collections.abc import Iterator
from datetime import date, datetime
from zoneinfo import ZoneInfo

from pydicom import Dataset
from pydicom.valuerep import PersonName

from edge.records import Order, Urgency

_URGENCY = {"STAT": Urgency.STAT, "HIGH": Urgency.HIGH}
"""Requested Procedure Priority (PS3.3 C.4.11): ROUTINE, MEDIUM and LOW are routine, for nothing goes below that."""
_CANCELLED = {"CANCELED", "CANCELLED", "DISCONTINUED"}
_CHARACTERS = 400
"""More of a text is no name and no identifier."""

_KEYS = (
    "SpecificCharacterSet",
    "AccessionNumber",
    "PatientName",
    "PatientID",
    "IssuerOfPatientID",
    "PatientBirthDate",
    "PatientSex",
    "PatientAge",
    "StudyInstanceUID",
    "RequestedProcedureID",
    "RequestedProcedureDescription",
    "RequestedProcedurePriority",
)
_STEP_KEYS = (
    "ScheduledStationAETitle",
    "ScheduledProcedureStepStartTime",
    "ScheduledProcedureStepDescription",
    "ScheduledProcedureStepID",
    "ScheduledProcedureStepStatus",
)


def question(modality: str, first: date, last: date) -> Dataset:
    """The query for what is scheduled on these days for one modality, with the attributes that this box uses."""
    step = Dataset()
    step.Modality = modality
    step.ScheduledProcedureStepStartDate = f"{first:%Y%m%d}-{last:%Y%m%d}"
    asked = Dataset()
    for keyword in _STEP_KEYS:
        setattr(step, keyword, None)
    for keyword in _KEYS:
        setattr(asked, keyword, None)
    asked.SpecificCharacterSet = "ISO_IR 192"
    asked.ScheduledProcedureStepSequence = [step]
    return asked


def read(answer: Dataset, by: str, at: datetime, timezone: str) -> Iterator[tuple[Order, bool]]:
    """The orders in one answer, each with whether it is cancelled; none where no film could ever be found to be its.

    Raises whatever pydicom raises on damaged input.
    """
    with warnings.catch_warnings(action="ignore"):
        for step in answer.get("ScheduledProcedureStepSequence") or [Dataset()]:
            priority = _text(answer, "RequestedProcedurePriority").upper()
            order = Order(
                id=0,
                source="ris",
                made_by=by,
                made_at=at,
                StudyInstanceUID=_text(answer, "StudyInstanceUID"),
                AccessionNumber=_text(answer, "AccessionNumber"),
                RequestedProcedureID=_text(answer, "RequestedProcedureID"),
                ScheduledProcedureStepID=_text(step, "ScheduledProcedureStepID"),
                PatientName=_text(answer, "PatientName"),
                PatientID=_text(answer, "PatientID"),
                IssuerOfPatientID=_text(answer, "IssuerOfPatientID"),
                PatientSex=_text(answer, "PatientSex").upper(),
                PatientBirthDate=_day(answer, "PatientBirthDate"),
                urgency=_URGENCY.get(priority, Urgency.ROUTINE),
                procedure=_text(answer, "RequestedProcedureDescription"),
                scheduled_at=_moment(step, timezone),
            )
            if order.StudyInstanceUID or (order.PatientID and (order.AccessionNumber or order.RequestedProcedureID)):
                yield order, _text(step, "ScheduledProcedureStepStatus").upper() in _CANCELLED


def _text(dataset: Dataset, keyword: str) -> str:
    value = dataset.get(keyword)
    if value is None:
        return ""
    if isinstance(value, PersonName):
        value = str(value).rstrip("^= ")
    elif hasattr(value, "append"):
        value = value[0] if len(value) else ""
    # a lone surrogate is what is left of bytes in no character set; the database takes none
    return str(value).strip("\0 ")[:_CHARACTERS].encode("utf-8", "replace").decode()


def _day(dataset: Dataset, keyword: str) -> date | None:
    digits = _text(dataset, keyword).replace(".", "").replace("-", "")
    try:
        return date(int(digits[:4]), int(digits[4:6]), int(digits[6:8]))
    except ValueError:
        return None


def _moment(step: Dataset, timezone: str) -> datetime | None:
    day, digits = _day(step, "ScheduledProcedureStepStartDate"), _text(step, "ScheduledProcedureStepStartTime")
    if day is None:
        return None
    clock = digits[:4].ljust(4, "0")
    known = clock.isascii() and clock.isdigit() and clock[:2] < "24" and clock[2:] < "60"
    hour, minute = (int(clock[:2]), int(clock[2:])) if known else (0, 0)
    return datetime(day.year, day.month, day.day, hour, minute, tzinfo=ZoneInfo(timezone))
