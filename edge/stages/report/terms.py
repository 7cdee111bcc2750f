"""Terms: the codes that results are written in, once for DICOM, FHIR and HL7, so that the three say the same."""

from __future__ import annotations

import math
from dataclasses import dataclass

from edge import words
from edge.records import Finding, Outcome, Read, ReadKind, Reason
from edge.vocabulary import ADVICE, IMPRESSIONS, OVERRIDES

OUTPOST = "99OUTPOST"
"""The designator of this project's own codes (PS3.16 8: private ones begin with 99)."""

OUTPOST_UID = "2.25.43016046925507775937922037983109862027"
"""The same coding scheme as a UID, drawn once."""


@dataclass(frozen=True)
class Term:
    """A coded concept."""

    scheme: str
    code: str
    meaning: str


CHEST_FILM = Term("LN", "30745-4", "XR Chest Views")
IMAGING = Term("SCT", "363679005", "Imaging procedure")
"""What PS3.16 CID 100 has for a plain film in every edition; later ones have a film of an unspecified body region too."""
PROBABILITY = Term("DCM", "122157", "Probability")
PERCENT = Term("UCUM", "%", "%")
PROCESSING = Term("DCM", "109102", "Processing Equipment")
"""What the software is to a result, among the purposes of PS3.16 CID 7005."""
FILM_ASSESSED = Term("DCM", "121322", "Source image for image processing operation")
EVALUATIONS = Term("UMLS", "C0034375", "Qualitative Evaluations")
SOURCE = Term("DCM", "121112", "Source of Measurement")
PRESENCE = Term("DCM", "121052", "Presence of property")
UNDETERMINED = Term("SCT", "373068000", "Undetermined")
"""Neither present nor absent (PS3.16 CID 240)."""

TRIAGE = Term(OUTPOST, "triage", "Triage")
INTERVAL = Term(OUTPOST, "interval95", "95 % interval of the probability")
LOW = Term(OUTPOST, "low95", "Lower end of the 95 % interval")
HIGH = Term(OUTPOST, "high95", "Upper end of the 95 % interval")
LEVEL = Term(OUTPOST, "level", "Probability against the operating point")
BELOW = Term(OUTPOST, "below", "Below the operating point")
UNKNOWN = Term(OUTPOST, "unknown", "Operating point not known here")
REASON = Term(OUTPOST, "reason", "Why the film could not be assessed")
ASSESSMENT = Term(OUTPOST, "assessment", "A person's assessment of the AI result")
IMPRESSION = Term(OUTPOST, "impression", "What a person sees")
ADVISED = Term(OUTPOST, "advice", "What a teleradiologist asks the clinic to do")
NOTE = Term(OUTPOST, "note", "Note")
WHY = Term(OUTPOST, "why", "Why the AI was overridden")
VERDICT = Term(OUTPOST, "verdict", "What became of the AI result")
ACCEPTED = Term(OUTPOST, "accepted", "Accepted")
MODIFIED = Term(OUTPOST, "modified", "Modified")
REJECTED = Term(OUTPOST, "rejected", "Rejected")

OUTCOMES = {outcome: Term(OUTPOST, outcome.value, sentence) for outcome, sentence in words.OUTCOMES.items()}

KINDS = {
    ReadKind.CONFIRM: Term(OUTPOST, "confirm", "Confirmed by a person"),
    ReadKind.OVERRIDE: Term(OUTPOST, "override", "Overridden by a person"),
    ReadKind.REFER: Term(OUTPOST, "refer", "Referred to a teleradiologist"),
    ReadKind.WITHDRAW: Term(OUTPOST, "withdraw", "The person's decision was taken back"),
}

SYSTEMS = {
    "SCT": "http://snomed.info/sct",
    "LN": "http://loinc.org",
    "DCM": "http://dicom.nema.org/resources/ontology/DCM",
    "RADLEX": "http://radlex.org",
    "UCUM": "http://unitsofmeasure.org",
    OUTPOST: f"urn:oid:{OUTPOST_UID}",
}
"""The URIs by which FHIR names the coding schemes of PS3.16 8."""


def of_finding(finding: Finding) -> Term:
    """What was looked for."""
    return Term(finding.scheme, finding.code, finding.label)


def level(finding: Finding) -> Term:
    """Where the probability lies against the thresholds it is held to."""
    if math.isnan(finding.soon):
        return UNKNOWN
    if finding.probability >= finding.immediate:
        return OUTCOMES[Outcome.IMMEDIATE]
    return OUTCOMES[Outcome.SOON] if finding.probability >= finding.soon else BELOW


def evaluated(finding: Finding) -> list[tuple[Term, Term]]:
    """What is said of a finding beside its probability; of its presence only that it is undetermined, where the AI is unsure."""
    said = [(LEVEL, level(finding))]
    return [*said, (PRESENCE, UNDETERMINED)] if finding.unsure else said


def reported(finding: Finding) -> bool:
    """Whether a finding reaches its operating point."""
    return level(finding) not in (BELOW, UNKNOWN)


def why_not(reason: Reason) -> Term:
    """Why a film could not be assessed, in as few characters as DICOM has room for (LO, 64)."""
    return Term(OUTPOST, reason.value, reason.value.replace("_", " ").capitalize())


def chosen(key: str) -> Term:
    """What a person chose from the box's lists, by the code that it has there."""
    choice = IMPRESSIONS.get(key) or OVERRIDES.get(key) or ADVICE.get(key)
    if choice is None:
        return Term(OUTPOST, key, key.replace("_", " ").capitalize())
    return Term(choice.scheme, choice.code, choice.text)


def verdict(read: Read) -> Term | None:
    """Whether a person accepted, modified or rejected the AI's result (IHE AI Result Assessment); None where they decided nothing.

    Rejected is what tells nothing of this patient's film: the AI saw what is not there, on a film too poor, or another's.
    """
    if read.kind is ReadKind.CONFIRM:
        return ACCEPTED
    if read.kind is ReadKind.OVERRIDE:
        return REJECTED if read.reason in ("nothing", "quality", "mixed_up") else MODIFIED
    return None


def percent(probability: float) -> float:
    """A probability as every form gives it: in percent, to a tenth."""
    return round(100 * probability, 1)
