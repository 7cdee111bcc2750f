"""HL7 v2.5.1 ORU^R01: one OBR, an OBX for the outcome and two for each finding, three where the AI is unsure of it.

It is in UTF-8, whatever script a name is in.
"""

from __future__ import annotations

import base64
from collections.abc import Iterator
from datetime import datetime

from edge import words
from edge.records import Document, Outcome, Read, ReadKind
from edge.stages.report import terms
from edge.stages.report.content import MANUFACTURER, Content, Name, act, plain
from edge.stages.report.terms import Term

_ESCAPES = str.maketrans({"\\": "\\E\\", "|": "\\F\\", "^": "\\S\\", "&": "\\T\\", "~": "\\R\\"})
_FLAGS = {Outcome.IMMEDIATE.value: "AA", Outcome.SOON.value: "A"}
_SCRIPTS = ("A", "I", "P")
"""Name Representation Code (table 0465) in the order of DICOM's component groups."""


def document(content: Content, read: Read | None = None) -> Document:
    """The message of a result; with a person's decision, the one that makes it final."""
    kind = content.uuid("oru", *([act(read)] if read else []))
    # MSH-10 has room for 20 characters
    control = base64.b32encode(kind.bytes)[:20].decode()
    decided = read is not None and read.kind in (ReadKind.CONFIRM, ReadKind.OVERRIDE)
    at = content.decided_at if read is None else read.at.astimezone(content.decided_at.tzinfo)
    segments = [
        _header(content, control, at),
        _patient(content),
        _request(content, "F" if decided else "P", at, read if decided else None),
        *_observations(content, read),
    ]
    data = "".join(segment + "\r" for segment in segments).encode()
    return Document("oru", "x-application/hl7-v2+er7; charset=utf-8", control, data)


def _segment(name: str, fields: dict[int, str]) -> str:
    """A segment of its numbered fields, each encoded already."""
    return "|".join([name, *(fields.get(number, "") for number in range(1, max(fields) + 1))]).rstrip("|")


def _header(content: Content, control: str, at: datetime) -> str:
    rest = {
        3: _text(content.ae_title),
        4: _text(content.institution),
        7: _moment(at),
        9: "ORU^R01^ORU_R01",
        10: control,
        11: "P",
        12: "2.5.1",
        18: "UNICODE UTF-8",
    }
    # MSH-1 is the separator itself, so that MSH-2 is the first of the fields
    return "MSH|^~\\&|" + _segment("", rest).lstrip("|")


def _patient(content: Content) -> str:
    names = [_name(name, script) for name, script in zip(content.patient_names, _SCRIPTS, strict=False)]
    return _segment(
        "PID",
        {
            1: "1",
            3: _components(content.patient_id, "", "", content.issuer, "MR") if content.patient_id else "",
            5: "~".join(filter(None, names)),
            7: "" if content.birth_date is None else f"{content.birth_date:%Y%m%d}",
            8: content.sex or "U",
        },
    )


def _request(content: Content, status: str, at: datetime, read: Read | None) -> str:
    performed = "" if content.study_date is None else f"{content.study_date:%Y%m%d}"
    if performed and content.study_time is not None:
        performed += f"{content.study_time:%H%M%S}"
    referring = content.referring[0] if content.referring else None
    return _segment(
        "OBR",
        {
            1: "1",
            2: _text(content.placer_order),
            3: _components(content.accession or content.uuid("report").hex, content.ae_title),
            4: _coded(terms.CHEST_FILM),
            7: performed,
            16: "" if referring is None else "^" + _components(referring.family, referring.given, referring.middle),
            18: _text(content.accession),
            22: _moment(at),
            24: "RX",
            25: status,
            # NDL: the name is the first component, its parts are subcomponents
            32: "" if read is None else "&" + _text(plain(read.reader)),
        },
    )


def _observations(content: Content, read: Read | None) -> Iterator[str]:
    """What the AI says, preliminary; what a person says stands in its place where they said something else."""
    decision = content.decision
    status = "F" if read is not None and read.kind is ReadKind.CONFIRM else "P"
    rows: list[dict[int, str]] = []
    if read is not None and read.kind is not ReadKind.WITHDRAW:
        rows += _person(content, read)
    if read is None or read.kind is not ReadKind.OVERRIDE:
        if read is None or read.outcome is None:
            rows.append(_outcome(decision.outcome) | {11: status})
        if decision.refusal is not None:
            sentence, step = words.REASONS[decision.refusal.reason]
            why = Term(terms.OUTPOST, decision.refusal.reason.value, f"{sentence} {step}")
            rows.append({2: "CWE", 3: _coded(terms.REASON), 5: _coded(why), 11: status})
        for place, finding in enumerate(decision.findings, 1):
            low, value, high = (_number(one) for one in (finding.low, finding.probability, finding.high))
            flag = _FLAGS.get(terms.level(finding).code, "")
            unit, of = _coded(terms.PERCENT), _coded(terms.of_finding(finding))
            rows.append({2: "NM", 3: of, 4: str(place), 5: value, 6: unit, 8: flag, 11: status})
            rows.append({2: "SN", 3: _coded(terms.INTERVAL), 4: str(place), 5: f"^{low}^-^{high}", 6: unit, 11: status})
            if finding.unsure:
                presence, undetermined = _coded(terms.PRESENCE), _coded(terms.UNDETERMINED)
                rows.append({2: "CWE", 3: presence, 4: str(place), 5: undetermined, 11: status})
    if read is None:
        rows.append({2: "ST", 3: _coded(terms.NOTE), 5: _text(words.PRELIMINARY), 11: "P"})
    for number, row in enumerate(rows, 1):
        device = _components(content.algorithm, MANUFACTURER, content.device_uid, "ISO") if 16 not in row else ""
        yield _segment("OBX", {1: str(number), 14: _moment(content.decided_at), 18: device} | row)


def _person(content: Content, read: Read) -> list[dict[int, str]]:
    who = {16: _reader(read), 14: _moment(read.at.astimezone(content.decided_at.tzinfo))}
    status = {11: "P" if read.kind is ReadKind.REFER else "F"}
    rows = [{2: "CWE", 3: _coded(terms.ASSESSMENT), 5: _coded(terms.KINDS[read.kind])}]
    if read.outcome is not None:
        rows.append(_outcome(read.outcome))
    for place, code in enumerate(read.codes, 1):
        rows.append({2: "CWE", 3: _coded(terms.IMPRESSION), 4: str(place), 5: _coded(terms.chosen(code))})
    if read.reason:
        rows.append({2: "CWE", 3: _coded(terms.WHY), 5: _coded(terms.chosen(read.reason))})
    return [row | who | status for row in rows]


def _reader(read: Read) -> str:
    return _components("", plain(read.reader))


def _outcome(outcome: Outcome) -> dict[int, str]:
    return {2: "CWE", 3: _coded(terms.TRIAGE), 5: _coded(terms.OUTCOMES[outcome]), 8: _FLAGS.get(outcome.value, "")}


def _number(probability: float) -> str:
    return str(terms.percent(probability))


def _text(value: str) -> str:
    return value.translate(_ESCAPES)


def _components(*values: str) -> str:
    return "^".join(_text(value) for value in values).rstrip("^")


def _coded(term: Term) -> str:
    return _components(term.code, term.meaning, term.scheme)


def _name(name: Name, script: str) -> str:
    """XPN: family, given, middle, suffix, prefix; legal name; in which script."""
    if not str(name):
        return ""
    return _components(name.family, name.given, name.middle, name.suffix, name.prefix, "", "L", script)


def _moment(at: datetime) -> str:
    return f"{at:%Y%m%d%H%M%S%z}"
