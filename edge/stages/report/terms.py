"""Terms: the codes that results are written in, once for DICOM, FHIR and HL7, so that the three say the same."""

from __future__ import annotations

from dataclasses import dataclass

from edge import words
from edge.records import Finding, Outcome, ReadKind

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
ANY_FILM = Term("LN", "43468-8", "XR unspecified body region")
"""The plain film among the procedures that PS3.16 CID 100 lists."""
PROBABILITY = Term("DCM", "122157", "Probability")
ALGORITHMS = Term("DCM", "111017", "CAD Processing and Findings Summary")
WITH_FINDINGS = Term("DCM", "111242", "All algorithms succeeded; with findings")
WITHOUT_FINDINGS = Term("DCM", "111241", "All algorithms succeeded; without findings")
FAILED = Term("DCM", "111245", "No algorithms succeeded; without findings")
PERCENT = Term("UCUM", "%", "%")

TRIAGE = Term(OUTPOST, "triage", "Triage")
INTERVAL = Term(OUTPOST, "interval95", "95 % interval of the probability")
LOW = Term(OUTPOST, "low95", "Lower end of the 95 % interval")
HIGH = Term(OUTPOST, "high95", "Upper end of the 95 % interval")
LEVEL = Term(OUTPOST, "level", "Probability against the operating point")
BELOW = Term(OUTPOST, "below", "Below the operating point")
REASON = Term(OUTPOST, "reason", "Why the film could not be assessed")
ASSESSMENT = Term(OUTPOST, "assessment", "A person's assessment of the AI result")
IMPRESSION = Term(OUTPOST, "impression", "What a person sees")
NOTE = Term(OUTPOST, "note", "Note")
WHY = Term(OUTPOST, "why", "Why the AI was overridden")

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
    if finding.probability >= finding.immediate:
        return OUTCOMES[Outcome.IMMEDIATE]
    return OUTCOMES[Outcome.SOON] if finding.probability >= finding.soon else BELOW


def chosen(code: str) -> Term:
    """A code that a person chose from the box's own lists."""
    return Term(OUTPOST, code, code.replace("_", " ").capitalize())


def percent(probability: float) -> float:
    """A probability as every form gives it: in percent, to a tenth."""
    return round(100 * probability, 1)
