"""The door: this site's pseudonyms, and the box's own texts, codes and UIDs, which say nothing of anybody.

Every pseudonym is a keyed hash (HMAC-SHA256): the same here whenever it is made, meaningless to who has not the key, and another
one at another site.
"""

from __future__ import annotations

import base64
import hashlib
import hmac
import unicodedata
import uuid
from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import date, timedelta

from edge.records import Header

DAYS = 3650
"""A patient's dates are moved back by one to so many days."""
OLDEST = 89
"""Years; whoever is older is said to be of this age (Retain Patient Characteristics)."""


@dataclass(frozen=True)
class Door:
    """What decides how everything that leaves one site looks."""

    key: bytes = field(repr=False)
    """Of this site, at least 32 random bytes."""
    texts: frozenset[str] = frozenset()
    """The box's own fixed texts; no other free text leaves."""
    terms: Mapping[tuple[str, str], str] = field(default_factory=dict)
    """The box's own concepts: scheme and code to meaning."""
    uids: frozenset[str] = frozenset()
    """UIDs that name a model or a coding scheme, alike on every box."""

    def __post_init__(self) -> None:
        if len(self.key) < 32:
            raise ValueError("the key of the pseudonyms has less than 32 bytes")

    def digest(self, kind: str, *what: str) -> bytes:
        """The keyed hash that a pseudonym of that kind is made of."""
        text = "\n".join((kind, *(unicodedata.normalize("NFC", one).strip() for one in what)))
        return hmac.new(self.key, text.encode("utf-8", "surrogatepass"), hashlib.sha256).digest()

    def uid(self, original: str) -> str:
        """Another UID in the place of one (PS3.5 B.2); what names a model stays."""
        if not original or original in self.uids:
            return original
        return f"2.25.{uuid.UUID(bytes=self.digest('uid', original)[:16], version=5).int}"

    def uuid(self, original: str) -> str:
        """Another UUID in the place of one."""
        return str(uuid.UUID(bytes=self.digest("uuid", original.lower())[:16], version=5))

    def name(self, kind: str, *what: str) -> str:
        """A short pseudonym: 80 bits, 16 capitals and digits behind a letter that says of what."""
        return kind[0].upper() + base64.b32encode(self.digest(kind, *what)[:10]).decode()

    def person(self, name: str) -> str:
        """The pseudonym of somebody who reads or decides."""
        plain = " ".join(name.replace("^", " ").replace("=", " ").split())  # alike in DICOM and in FHIR
        return self.name("reader", plain) if plain else ""

    def patient(self, header: Header) -> Patient:
        """Who a film's patient is outside of the site."""
        who: tuple[str, ...]
        if header.PatientID:
            who = ("id", header.IssuerOfPatientID, header.PatientID)
        elif header.PatientName:
            who = ("name", header.PatientName, str(header.PatientBirthDate or ""))
        else:
            who = ("study", header.StudyInstanceUID or header.SOPInstanceUID)
        moved = 1 + int.from_bytes(self.digest("dates", *who)[:8]) % DAYS
        sex = header.PatientSex if header.PatientSex in ("M", "F", "O") else ""
        return Patient(self.name("patient", *who), timedelta(days=moved), sex, age(header.age_years))


@dataclass(frozen=True)
class Patient:
    """A patient as the hub knows them."""

    pseudonym: str
    moved: timedelta = field(repr=False)
    """By how much all dates of this patient are moved back: what lies between them stays."""
    sex: str
    age: str
    """As DICOM has it (AS)."""

    def day(self, original: date) -> date | None:
        """A date of this patient, moved."""
        try:
            return original - self.moved
        except OverflowError:
            return None


def age(years: float | None) -> str:
    """An age in years, of small children in months or days, of the very old the cap."""
    if years is None or years < 0:
        return ""
    if years >= 2:
        return f"{min(int(years), OLDEST):03}Y"
    return f"{int(years * 12):03}M" if years >= 0.25 else f"{int(years * 365.25):03}D"
