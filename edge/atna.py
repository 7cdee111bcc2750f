"""A record of the ledger as an audit message: XML by PS3.15 A.5, in a syslog frame by RFC 5424 and RFC 5425 (IHE ITI-20).

Each message also carries its record as the ledger has it, number, hash and all, as a participant object: whoever has the messages
can check the chain without the box, and drop what came twice.
"""

from __future__ import annotations

import base64
import json
import re
import socket
from dataclasses import dataclass
from enum import StrEnum
from importlib.metadata import version
from xml.etree import ElementTree as ET

from edge.records import Header, Station
from edge.state.audit import Event, Record

PRIORITY = 10 * 8 + 5
"""Security and authorization messages, normal but significant (PS3.15 A.6)."""
APPLICATION = "outpost"
MESSAGE = "DICOM+RFC3881"
OWN = "OUTPOST"
"""The coding scheme of this box's own event types: the names of the ledger's events."""

DCM = {
    "110100": "Application Activity",
    "110101": "Audit Log Used",
    "110103": "DICOM Instances Accessed",
    "110106": "Export",
    "110109": "Order Record",
    "110110": "Patient Record",
    "110111": "Procedure Record",
    "110113": "Security Alert",
    "110114": "User Authentication",
    "110120": "Application Start",
    "110121": "Application Stop",
    "110122": "Login",
    "110123": "Logout",
    "110131": "Software Configuration",
    "110132": "Use of Restricted Function",
    "110135": "Object Security Attributes Changed",
    "110137": "User Security Attributes Changed",
    "110141": "Local Service Operation Started",
    "110142": "Local Service Operation Stopped",
    "110150": "Application",
    "110153": "Source Role ID",
    "110154": "Destination Media",
    "110037": "URI",
    "110038": "Paper Document",
    "110180": "Study Instance UID",
}
"""The codes of PS3.16 that the messages use, with their meanings."""


class Family(StrEnum):
    """The messages of PS3.15 A.5.3 that the box writes, by their EventID."""

    APPLICATION_ACTIVITY = "110100"
    AUDIT_LOG_USED = "110101"
    INSTANCES_ACCESSED = "110103"
    EXPORT = "110106"
    ORDER_RECORD = "110109"
    PATIENT_RECORD = "110110"
    PROCEDURE_RECORD = "110111"
    SECURITY_ALERT = "110113"
    USER_AUTHENTICATION = "110114"


@dataclass(frozen=True)
class Kind:
    """How an event of the ledger is told."""

    family: Family
    action: str
    """Create, Read, Update, Delete or Execute."""
    says: str
    """The event in English, for whoever reads the repository."""
    type: str = ""
    """EventTypeCode of PS3.16, where the family asks for one."""
    outcome: int = 0
    """0 success, 4 minor, 8 serious, 12 major failure."""
    person: bool = True
    """A person did it, not a process of the box."""
    medium: str = ""
    """Of an export: the code of what it went to."""


KINDS: dict[Event, Kind] = {
    Event.ASSESSED: Kind(Family.INSTANCES_ACCESSED, "R", "The AI assessed a film", person=False),
    Event.VIEWED: Kind(Family.INSTANCES_ACCESSED, "R", "A person opened a film"),
    Event.REVEALED: Kind(Family.INSTANCES_ACCESSED, "R", "A person was shown what the AI says"),
    Event.SEALED: Kind(Family.PROCEDURE_RECORD, "C", "A person said what they see before the AI was shown"),
    Event.CONFIRMED: Kind(Family.PROCEDURE_RECORD, "U", "A person confirmed the AI's outcome"),
    Event.OVERRIDDEN: Kind(Family.PROCEDURE_RECORD, "U", "A person chose another outcome"),
    Event.REFERRED: Kind(Family.PROCEDURE_RECORD, "U", "A person asked a teleradiologist"),
    Event.WITHDRAWN: Kind(Family.PROCEDURE_RECORD, "D", "A person took a decision back"),
    Event.AGE_SUPPLIED: Kind(Family.PATIENT_RECORD, "U", "A person entered the patient's age"),
    Event.ORDER_REGISTERED: Kind(Family.ORDER_RECORD, "C", "A person put a patient on the modality's worklist"),
    Event.ORDER_WITHDRAWN: Kind(Family.ORDER_RECORD, "D", "A person took a patient off the modality's worklist"),
    Event.ORDER_MET: Kind(Family.PROCEDURE_RECORD, "U", "A film was found to be an order's", person=False),
    Event.ALERT_ACKNOWLEDGED: Kind(Family.PROCEDURE_RECORD, "R", "A person took note of an immediate film"),
    Event.ALERT_TESTED: Kind(Family.SECURITY_ALERT, "E", "The sound alert was tested", "110141"),
    Event.CONNECTIONS_TESTED: Kind(Family.SECURITY_ALERT, "E", "The box's neighbours were tested", "110141"),
    Event.HANDED_OFF: Kind(Family.EXPORT, "R", "A hand-off sheet was printed or shown", medium="110038"),
    Event.EXPORTED: Kind(Family.EXPORT, "R", "A result was sent", person=False, medium="110037"),
    Event.EXPORT_REFUSED: Kind(Family.EXPORT, "R", "A result was refused", outcome=4, person=False, medium="110037"),
    Event.SIGNED_IN: Kind(Family.USER_AUTHENTICATION, "E", "A person signed in", "110122"),
    Event.SIGN_IN_FAILED: Kind(Family.USER_AUTHENTICATION, "E", "A sign-in failed", "110122", 4),
    Event.SIGNED_OUT: Kind(Family.USER_AUTHENTICATION, "E", "A person signed out", "110123"),
    Event.LOCKED_OUT: Kind(Family.USER_AUTHENTICATION, "E", "An account was locked for a time", "110122", 8),
    Event.ACCOUNT_CHANGED: Kind(Family.SECURITY_ALERT, "E", "An account was made or changed", "110137"),
    Event.CONFIGURED: Kind(Family.SECURITY_ALERT, "E", "The settings changed", "110131", person=False),
    Event.MODEL_CHANGED: Kind(Family.SECURITY_ALERT, "E", "Another model is in use", "110131", person=False),
    Event.CALIBRATION_PROPOSED: Kind(Family.SECURITY_ALERT, "E", "A calibration of this site was proposed", "110132"),
    Event.ACCEPTED: Kind(Family.SECURITY_ALERT, "E", "A model was accepted for this site", "110132"),
    Event.TEST_PASSED: Kind(Family.SECURITY_ALERT, "E", "A film of the daily test passed", "110141", person=False),
    Event.TEST_FAILED: Kind(
        Family.SECURITY_ALERT, "E", "A film of the daily test failed, so the AI stopped", "110142", 8, person=False
    ),
    Event.DRIFT_FOUND: Kind(
        Family.SECURITY_ALERT, "E", "Films are no longer such as they were", "110142", 4, person=False
    ),
    Event.DRIFT_ENDED: Kind(Family.SECURITY_ALERT, "E", "An alarm about changed films ended", "110141", person=False),
    Event.TRIAL_REGISTERED: Kind(Family.SECURITY_ALERT, "E", "A trial of the order was registered", "110131"),
    Event.RANDOMIZED: Kind(Family.PROCEDURE_RECORD, "U", "A film was given to an arm of the trial", person=False),
    Event.NOT_RANDOMIZED: Kind(Family.PROCEDURE_RECORD, "U", "A film was left out of the trial", person=False),
    Event.TRIAL_ENDED: Kind(Family.SECURITY_ALERT, "E", "The trial was ended as planned", "110131"),
    Event.TRIAL_STOPPED: Kind(Family.SECURITY_ALERT, "E", "The trial was stopped", "110131"),
    Event.TRIAL_EXPORTED: Kind(Family.SECURITY_ALERT, "E", "The de-identified data of a trial were exported", "110132"),
    Event.STARTED: Kind(Family.APPLICATION_ACTIVITY, "E", "The box started", "110120", person=False),
    Event.STOPPED: Kind(Family.APPLICATION_ACTIVITY, "E", "The box was stopped", "110121", person=False),
    Event.TAMPERED: Kind(
        Family.SECURITY_ALERT, "E", "Something is not what its hash or signature says", "110135", 12, person=False
    ),
    Event.ENROLLED: Kind(Family.SECURITY_ALERT, "E", "The box was enrolled with a hub", "110132"),
    Event.ORDERED: Kind(
        Family.SECURITY_ALERT, "E", "An order of the hub was carried out or refused", "110131", person=False
    ),
    Event.BACKED_UP: Kind(Family.SECURITY_ALERT, "E", "A back-up was made", "110142"),
    Event.RESTORED: Kind(Family.SECURITY_ALERT, "E", "The box was restored from a back-up", "110142"),
    Event.READ_OUT: Kind(Family.AUDIT_LOG_USED, "R", "The ledger was exported"),
}
"""Each event of the ledger; a test holds the two sets together."""


def message(record: Record, header: Header | None, station: Station) -> bytes:
    """The record as an AuditMessage (PS3.15 A.5.1); `header` is what its film says of itself, if it is of a film."""
    kind = KINDS[record.event]
    root = ET.Element("AuditMessage")
    event = ET.SubElement(
        root,
        "EventIdentification",
        EventActionCode=kind.action,
        EventDateTime=record.at.isoformat(timespec="milliseconds"),
        EventOutcomeIndicator=str(kind.outcome),
    )
    _code(event, "EventID", kind.family)
    if kind.type:
        _code(event, "EventTypeCode", kind.type)
    _code(event, "EventTypeCode", record.event, OWN, kind.says)
    _participants(root, record, kind, station)
    site = {"AuditEnterpriseSiteID": _token(station.institution)} if station.institution else {}
    source = ET.SubElement(root, "AuditSourceIdentification", site, AuditSourceID=_token(station.ae_title))
    ET.SubElement(source, "AuditSourceTypeCode", {"csd-code": "4"})
    if record.arrival_id is not None:
        _film(root, record.arrival_id, header or Header())
    elif kind.family is Family.ORDER_RECORD:  # before there is a film
        patient = str(record.detail.get("patient", ""))
        _object(root, patient, "1", "1", ("2", "RFC-3881", "Patient Number"), "")
    _ledger(root, record, kind)
    return str(ET.tostring(root, encoding="unicode")).encode()


def _participants(root: ET.Element, record: Record, kind: Kind, station: Station) -> None:
    """Who took part: the requestor first (A.5.2.1 to A.5.2.4); a single one is marked as such."""
    who = {"UserID": _text(f"{record.actor}@{station.ae_title}"), "UserName": _text(record.actor)}
    process = {"UserID": f"outpost-{_token(record.actor)}", "AlternativeUserID": f"AETITLES={station.ae_title}"}
    host = {"NetworkAccessPointID": _token(record.detail.get("address") or socket.gethostname())}
    host["NetworkAccessPointTypeCode"] = "2" if record.detail.get("address") else "1"
    match kind.family:
        case Family.APPLICATION_ACTIVITY:
            _participant(root, "110150", {**process, "UserIsRequestor": "false", **host})
        case Family.EXPORT:
            _participant(root, "110153", {**(who if kind.person else process), "UserIsRequestor": "true", **host})
            target = _token(record.detail.get("sink") or "paper")
            reached = (
                {"NetworkAccessPointID": target, "NetworkAccessPointTypeCode": "5"} if "sink" in record.detail else {}
            )
            medium = _participant(root, "110154", {"UserID": target, "UserIsRequestor": "false", **reached})
            _code(ET.SubElement(medium, "MediaIdentifier"), "MediaType", kind.medium)
        case _:
            _participant(root, "", {**(who if kind.person else process), "UserIsRequestor": "true", **host})


def _participant(root: ET.Element, role: str, said: dict[str, str]) -> ET.Element:
    participant = ET.SubElement(root, "ActiveParticipant", said)
    if role:
        _code(participant, "RoleIDCode", role)
    return participant


def _film(root: ET.Element, number: int, header: Header) -> None:
    """The film's study and patient; a film that does not say of which study it is goes by its number here."""
    if header.StudyInstanceUID:
        identity, scheme, code, name = header.StudyInstanceUID, "DCM", "110180", "Study Instance UID"
    else:
        identity, scheme, code, name = f"outpost:film/{number}", "RFC-3881", "12", "URI"
    study = _object(root, identity, "2", "3", (code, scheme, name), f"Film {number}")
    if header.StudyInstanceUID and header.SOPClassUID:
        description = ET.SubElement(study, "ParticipantObjectDescription")
        if header.AccessionNumber:
            ET.SubElement(description, "Accession", Number=_token(header.AccessionNumber))
        sop = ET.SubElement(description, "SOPClass", UID=_token(header.SOPClassUID), NumberOfInstances="1")
        ET.SubElement(sop, "Instance", UID=_token(header.SOPInstanceUID))
    _object(root, header.PatientID, "1", "1", ("2", "RFC-3881", "Patient Number"), header.PatientName)


def _ledger(root: ET.Element, record: Record, kind: Kind) -> None:
    """The record as the ledger has it; for a security alert this is its subject (A.5.3.11)."""
    name = "Security Audit Log" if kind.family is Family.AUDIT_LOG_USED else f"Ledger record {record.id}"
    entry = _object(root, f"outpost:ledger/{record.id}", "2", "13", ("12", "RFC-3881", "URI"), name)
    told = {
        "Alert Description": kind.says,
        "number": record.id,
        "at": record.at.isoformat(),
        "event": record.event,
        "actor": record.actor,
        "film": record.arrival_id,
        "detail": json.dumps(record.detail, ensure_ascii=False, sort_keys=True, separators=(",", ":")),
        "hash": record.hash,
    }
    for key, value in told.items():
        if value is not None:
            raw = base64.b64encode(str(value).encode("utf-8", "surrogatepass")).decode()
            ET.SubElement(entry, "ParticipantObjectDetail", type=key, value=raw)


def _object(root: ET.Element, identity: str, kind: str, role: str, code: tuple[str, str, str], name: str) -> ET.Element:
    found = ET.SubElement(
        root,
        "ParticipantObjectIdentification",
        ParticipantObjectID=_token(identity),
        ParticipantObjectTypeCode=kind,
        ParticipantObjectTypeCodeRole=role,
    )
    _code(found, "ParticipantObjectIDTypeCode", *code)
    ET.SubElement(found, "ParticipantObjectName").text = _token(name)
    return found


def _code(parent: ET.Element, tag: str, code: str, scheme: str = "DCM", meaning: str = "") -> None:
    attributes = {"csd-code": str(code), "codeSystemName": scheme, "originalText": meaning or DCM[code]}
    ET.SubElement(parent, tag, attributes)


_NOT_XML = re.compile("[^\t\n\r\u0020-\ud7ff\ue000-\ufffd\U00010000-\U0010ffff]")


def _text(value: str) -> str:
    """The text with what XML 1.0 (2.2) cannot hold replaced; the ledger's own words are kept in its participant object."""
    return _NOT_XML.sub("\ufffd", value)


def _token(value: str) -> str:
    return " ".join(_text(value).split())


def line(record: Record, header: Header | None, station: Station) -> bytes:
    """The message as a syslog message (RFC 5424 6): UTF-8, marked as such."""
    at = record.at.isoformat(timespec="milliseconds").replace("+00:00", "Z")
    host = re.sub(r"[^!-~]", "", socket.gethostname())[:255] or "-"
    number = f'[meta sequenceId="{min(record.id, 2**31 - 1)}"][origin software="Outpost" swVersion="{_version()}"]'
    head = f"<{PRIORITY}>1 {at} {host} {APPLICATION} - {MESSAGE} {number} "
    return head.encode("ascii") + b"\xef\xbb\xbf" + message(record, header, station)


def _version() -> str:
    return version("outpost-cxr")


def framed(line: bytes) -> bytes:
    """The syslog message with its length before it (RFC 5425 4.3)."""
    return b"%d %b" % (len(line), line)
