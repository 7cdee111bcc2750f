"""Content: what every form of a result is made of, as values that are valid in each; and the identifiers derived from it.

A film may say anything of itself. What is no valid value is left out, never cut short: half an identifier may be another
patient's. Nothing here asks a clock, so that what is made twice is the same.
"""

from __future__ import annotations

import hashlib
import re
import unicodedata
import uuid
from dataclasses import dataclass
from datetime import UTC, date, datetime, time, timedelta, timezone, tzinfo
from zoneinfo import ZoneInfo

from edge.records import Decision, Read, Reason, Source

MANUFACTURER = "Outpost"

_UID = re.compile(r"(0|[1-9]\d*)(\.(0|[1-9]\d*))+")
_OFFSET = re.compile(r"([+-])(\d\d)(\d\d)")
_TIME = re.compile(r"([01]\d|2[0-3])([0-5]\d)?([0-5]\d)?(\.\d{1,6})?")


@dataclass(frozen=True)
class Name:
    """A person's name in one script (PS3.5 6.2.1.1)."""

    family: str
    given: str
    middle: str
    prefix: str
    suffix: str

    def __str__(self) -> str:
        return "^".join((self.family, self.given, self.middle, self.prefix, self.suffix)).rstrip("^")


@dataclass(frozen=True)
class Content:
    """One film's result, with values that are valid in every form."""

    patient_names: tuple[Name, ...]
    """Alphabetic, ideographic, phonetic; as many as the film has."""
    patient_id: str
    issuer: str
    birth_date: date | None
    sex: str
    """`M`, `F`, `O` or empty."""
    age_years: float | None
    study_uid: str
    series_uid: str
    instance_uid: str
    class_uid: str
    """Empty where the film's is no UID; no DICOM object can refer to it then."""
    modality: str
    study_id: str
    study_date: date | None
    study_time: time | None
    accession: str
    placer_order: str
    requested_procedure: str
    referring: tuple[Name, ...]
    rows: int
    columns: int
    decision: Decision
    algorithm: str
    version: str
    device_uid: str
    institution: str
    ae_title: str
    decided_at: datetime
    """In the zone of the film's times."""
    key: tuple[str, ...]
    """What the identifiers are derived from: these bytes of this film, this run, this model."""

    def uuid(self, *kind: str) -> uuid.UUID:
        """The identifier of one thing that is made of this result; always the same."""
        digest = hashlib.sha256("\n".join((*self.key, *kind)).encode()).digest()
        return uuid.UUID(bytes=digest[:16], version=5)

    def uid(self, *kind: str) -> str:
        """The same identifier as a UID (PS3.5 B.2)."""
        return f"2.25.{self.uuid(*kind).int}"


def content(source: Source) -> Content | None:
    """What the results of a film are made of.

    None where nothing may be sent: nobody can say whose film it is, or it is no radiograph at all (a CT slice, or one of the
    results of this box that a PACS has sent back to it).
    Raises ValueError before the film has an outcome.
    """
    film, said = source.film, source.film.header
    decision, decided_at = film.decision, film.decided_at
    if decision is None or decided_at is None:
        raise ValueError(f"film {film.arrival.id} has no outcome yet")
    if not said.SOPClassUID or (decision.refusal is not None and decision.refusal.reason is Reason.NOT_A_RADIOGRAPH):
        return None
    digest = film.arrival.sha256
    instance = valid_uid(said.SOPInstanceUID) or valid_uid(film.arrival.sop_instance_uid) or derived_uid(digest)
    algorithm, _, version = decision.model.rpartition(" ")
    return Content(
        patient_names=names(said.PatientName),
        patient_id=plain(said.PatientID),
        issuer=plain(said.IssuerOfPatientID),
        birth_date=said.PatientBirthDate,
        sex=said.PatientSex if said.PatientSex in ("M", "F", "O") else "",
        age_years=said.age_years if film.supplied_age is None else film.supplied_age,
        study_uid=valid_uid(said.StudyInstanceUID) or derived_uid("study", said.StudyInstanceUID or instance),
        series_uid=valid_uid(said.SeriesInstanceUID) or derived_uid("series", said.SeriesInstanceUID or instance),
        instance_uid=instance,
        class_uid=valid_uid(said.SOPClassUID),
        modality=said.Modality if re.fullmatch(r"[A-Z0-9_]{2,16}", said.Modality) else "OT",
        study_id=plain(said.StudyID),
        study_date=said.StudyDate,
        study_time=_time(said.StudyTime),
        accession=plain(said.AccessionNumber),
        placer_order=plain(said.PlacerOrderNumberImagingServiceRequest),
        requested_procedure=plain(said.RequestedProcedureID),
        referring=names(said.ReferringPhysicianName),
        rows=said.Rows,
        columns=said.Columns,
        decision=decision,
        algorithm=algorithm or decision.model or MANUFACTURER,
        version=version if algorithm else "0",
        device_uid=valid_uid(decision.device_uid) or derived_uid("device", decision.model),
        institution=plain(source.station.institution),
        ae_title=plain(source.station.ae_title) or "OUTPOST",
        decided_at=decided_at.astimezone(_zone(said.TimezoneOffsetFromUTC, source.station.timezone)),
        key=(instance, digest, str(film.run), decision.device_uid),
    )


def act(read: Read) -> str:
    """What tells one act of a person from their others, on every box alike."""
    return "\n".join((read.kind.value, read.reader, read.at.astimezone(UTC).isoformat()))


def valid_uid(text: str) -> str:
    """A UID as it is (PS3.5 9.1), or nothing where it is none."""
    return text if len(text) <= 64 and _UID.fullmatch(text) else ""


def derived_uid(*parts: str) -> str:
    """A UID for something that has none; always the same."""
    digest = hashlib.sha256("\n".join(parts).encode(errors="replace")).digest()
    return f"2.25.{uuid.UUID(bytes=digest[:16], version=5).int}"


def plain(text: str) -> str:
    """Text without what no form can carry: control characters, lone surrogates, and the backslash that parts DICOM's values."""
    kept = "".join(" " if unicodedata.category(one) in ("Cc", "Cs") else one for one in text.replace("\\", "/"))
    return kept.strip()


def within(text: str, limit: int) -> str:
    """The text where DICOM has room for it, else nothing."""
    return text if len(text) <= limit else ""


def names(text: str) -> tuple[Name, ...]:
    """A person's name in each of its scripts."""
    found = []
    for group in plain(text).split("=")[:3]:
        parts = [part.strip() for part in group.split("^")]
        family, given, middle, prefix, *suffixes = parts + [""] * (5 - len(parts))
        found.append(Name(family, given, middle, prefix, " ".join(filter(None, suffixes))))
    while found and not str(found[-1]):
        found.pop()
    return tuple(found)


def spoken(scripts: tuple[Name, ...]) -> str:
    """A name as people say it, in each of its scripts; those after the first have the family first."""
    said = []
    for place, name in enumerate(scripts):
        given = (name.given, name.middle)
        order = (name.prefix, *given, name.family, name.suffix) if place == 0 else (name.family, *given)
        said.append(" ".join(filter(None, order)))
    return " / ".join(filter(None, said))


def _time(text: str) -> time | None:
    match = _TIME.fullmatch(text.replace(":", ""))
    if match is None:
        return None
    hour, minute, second, fraction = match.groups()
    return time(int(hour), int(minute or 0), int(second or 0), int((fraction or ".")[1:].ljust(6, "0")))


def _zone(offset: str, name: str) -> tzinfo:
    """The zone of the film's own times (PS3.3 C.12.1.1.8), else of the clinic's clocks."""
    if match := _OFFSET.fullmatch(offset):
        sign, hours, minutes = match.groups()
        shift = timedelta(hours=int(hours), minutes=int(minutes))
        if shift < timedelta(hours=15):
            return timezone(-shift if sign == "-" else shift)
    return UTC if name == "UTC" else ZoneInfo(name)
