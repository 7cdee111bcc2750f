"""Fields: FHIR bundles and packets, made anew of what `fields.tsv` allows, path by path."""

from __future__ import annotations

import functools
import json
import math
import re
from datetime import date
from importlib import resources
from typing import Any

from pydicom.uid import UID

from edge.records import Concern, Document, Header, Withheld
from edge.stages.deidentify.door import Door, Patient
from edge.stages.deidentify.table import concepts

SYSTEMS = {
    "http://snomed.info/sct": "SCT",
    "http://loinc.org": "LN",
    "http://dicom.nema.org/resources/ontology/DCM": "DCM",
    "http://radlex.org": "RADLEX",
    "http://unitsofmeasure.org": "UCUM",
}
"""The schemes of PS3.16 8 by FHIR's names for them."""

_URN = re.compile(r"urn:(uuid|oid):([0-9A-Fa-f.-]+)")
_UID = re.compile(r"\d+(\.\d+)+")
_DAY = re.compile(r"(\d{4}-\d\d-\d\d)(T([01]\d|2[0-3]):[0-5]\d:[0-5]\d(\.\d{1,6})?(Z|[+-][01]\d:[0-5]\d))?")


def bundle(document: Document, header: Header, door: Door) -> Document | Withheld:
    """A FHIR bundle; its references lead to one another as before."""
    return _made(document, "Bundle", door.patient(header), door)


def packet(document: Document, door: Door) -> Document | Withheld:
    """A site's sums of a day."""
    return _made(document, "Packet", None, door)


def _made(document: Document, root: str, patient: Patient | None, door: Door) -> Document | Withheld:
    try:
        value = json.loads(document.data)
    except ValueError:
        return Withheld(Concern.UNREADABLE, "it is no JSON")
    if not isinstance(value, dict):
        return Withheld(Concern.UNREADABLE, "it is no JSON object")
    made = _Walk(patient, door).object(root, value)
    data = json.dumps(made, ensure_ascii=False, separators=(",", ":")).encode()
    return Document(document.kind, document.media_type, _moved_names(document.uid, door), data)


@functools.cache
def rules() -> dict[str, tuple[str, str]]:
    """Action and values by path."""
    lines = resources.files(__package__).joinpath("fields.tsv").read_text("utf-8").splitlines()
    parts = (line.split("\t") for line in lines if not line.startswith("#"))
    return {path: (action, values) for path, action, values in parts}


@functools.cache
def _folders() -> frozenset[str]:
    return frozenset(path[:end] for path in rules() for end in range(len(path)) if path[end] == ".")


class _Walk:
    """One document on its way through the door."""

    def __init__(self, patient: Patient | None, door: Door) -> None:
        self.patient, self.door = patient, door

    def object(self, path: str, value: dict[str, Any]) -> dict[str, Any]:
        """What may leave of an object; nothing that is empty."""
        made = {key: self._any(f"{path}.{key}", inner) for key, inner in value.items()}
        return {key: inner for key, inner in made.items() if inner not in (None, "", [], {})}

    def _any(self, path: str, value: Any) -> Any:
        if isinstance(value, list):
            kept = [self._any(path, one) for one in value]
            return [one for one in kept if one not in (None, "", [], {})]
        if path == "Bundle.entry.resource":
            kind = value.get("resourceType") if isinstance(value, dict) else None
            return self.object(kind, value) if isinstance(kind, str) and f"{kind}.resourceType" in rules() else None
        action, values = rules().get(path, ("", ""))
        if action == "coding":
            return self._coding(value) if isinstance(value, dict) else None
        if isinstance(value, dict):
            return self.object(path, value) if path in _folders() else None
        return self._leaf(action, values, value)

    def _leaf(self, action: str, values: str, value: Any) -> Any:
        if action == "K" and values == "number":
            number = isinstance(value, (int, float)) and math.isfinite(value) and abs(value) < 1e6
            return round(value, 6) if number else None
        if not isinstance(value, str):
            return None
        if action == "K":
            return value if self._allowed(values, value) else None
        if action == "U":
            return self._renamed(values, value)
        if action == "C":
            return self._moved(value)
        if action == "P":
            return None if self.patient is None else self.patient.pseudonym
        return self.door.person(value) if action == "R" else None

    def _allowed(self, values: str, value: str) -> bool:
        if values == "texts":
            return value in self.door.texts
        return value in self.door.uids if values == "uids" else re.fullmatch(values, value) is not None

    def _coding(self, value: dict[str, Any]) -> dict[str, Any] | None:
        system, code = str(value.get("system", "")), str(value.get("code", ""))
        action, pattern = rules().get(system, ("", ""))
        if action == "system":
            return {"system": system, "code": code} if re.fullmatch(pattern, code) else None
        own = [scheme for scheme, _ in self.door.terms if f"urn:x-dicom:{scheme}" == system]
        if _URN.fullmatch(system) and system.removeprefix("urn:oid:") in self.door.uids:
            own = ["99OUTPOST"]
        scheme = SYSTEMS.get(system) or (own[0] if own else "")
        meaning = self.door.terms.get((scheme, code)) or concepts().get((scheme, code), ("", "", ""))[2]
        return {"system": system, "code": code, "display": meaning} if meaning else None

    def _renamed(self, pattern: str, value: str) -> str | None:
        """The same with other UUIDs and UIDs; what else is in it must be what the table says (@ stands for the URN)."""
        if pattern == "-":
            whole = _URN.fullmatch(value) or _UID.fullmatch(value)
        else:
            whole = re.fullmatch(pattern, _URN.sub("@", value))
        return _moved_names(value, self.door) if whole else None

    def _moved(self, value: str) -> str | None:
        match = _DAY.fullmatch(value)
        if match is None or self.patient is None:
            return None
        try:
            moved = self.patient.day(date.fromisoformat(match[1]))
        except ValueError:
            return None
        return None if moved is None else moved.isoformat() + (match[2] or "")


def _moved_names(value: str, door: Door) -> str:
    if _UID.fullmatch(value):
        return _uid(value, door)

    def another(match: re.Match[str]) -> str:
        kind, name = match.groups()
        return f"urn:uuid:{door.uuid(name)}" if kind == "uuid" else f"urn:oid:{_uid(name, door)}"

    return _URN.sub(another, value)


def _uid(name: str, door: Door) -> str:
    """A UID of the standard names a class, not a thing."""
    return name if UID(name).name != name else door.uid(name)
