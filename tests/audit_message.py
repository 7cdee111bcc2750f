"""What PS3.15 A.5 asks of an audit message, written down from the standard's schema (RELAX NG) and tables, not from the box."""

from __future__ import annotations

import base64
import binascii
import re
from datetime import datetime
from xml.etree import ElementTree as ET

CODED = ({"csd-code", "codeSystemName", "originalText"}, {"displayName"})
"""Attributes that must be there, and that may."""

ELEMENTS: dict[str, tuple[set[str], set[str], str]] = {
    "AuditMessage": (
        set(),
        set(),
        "EventIdentification (ActiveParticipant )+AuditSourceIdentification (ParticipantObjectIdentification )*",
    ),
    "EventIdentification": (
        {"EventDateTime", "EventOutcomeIndicator"},
        {"EventActionCode"},
        "EventID (EventTypeCode )*(EventOutcomeDescription )?",
    ),
    "ActiveParticipant": (
        {"UserID", "UserIsRequestor"},
        {"AlternativeUserID", "UserName", "NetworkAccessPointID", "NetworkAccessPointTypeCode"},
        "(RoleIDCode )*(MediaIdentifier )?",
    ),
    "MediaIdentifier": (set(), set(), "MediaType "),
    "AuditSourceIdentification": ({"AuditSourceID"}, {"AuditEnterpriseSiteID"}, "(AuditSourceTypeCode )*"),
    "ParticipantObjectIdentification": (
        {"ParticipantObjectID"},
        {
            "ParticipantObjectTypeCode",
            "ParticipantObjectTypeCodeRole",
            "ParticipantObjectDataLifeCycle",
            "ParticipantObjectSensitivity",
        },
        r"ParticipantObjectIDTypeCode ParticipantObject(Name|Query) (ParticipantObjectDetail )*(ParticipantObjectDescription )*",
    ),
    "ParticipantObjectDetail": ({"type", "value"}, set(), ""),
    "ParticipantObjectDescription": (
        set(),
        set(),
        "(MPPS )*(Accession )*(SOPClass )*(ParticipantObjectContainsStudy )?(Encrypted )?(Anonymized )?",
    ),
    "Accession": ({"Number"}, set(), ""),
    "SOPClass": ({"NumberOfInstances"}, {"UID"}, "(Instance )*"),
    "Instance": ({"UID"}, set(), ""),
    "AuditSourceTypeCode": ({"csd-code"}, {"codeSystemName", "displayName", "originalText"}, ""),
    "ParticipantObjectName": (set(), set(), ""),
    "EventOutcomeDescription": (set(), set(), ""),
    **{
        name: (*CODED, "")
        for name in ("EventID", "EventTypeCode", "RoleIDCode", "MediaType", "ParticipantObjectIDTypeCode")
    },
}
TEXT = {"ParticipantObjectName", "EventOutcomeDescription"}
VALUES = {
    "EventActionCode": r"[CRUDE]",
    "EventOutcomeIndicator": r"0|4|8|12",
    "UserIsRequestor": r"true|false|1|0",
    "NetworkAccessPointTypeCode": r"[1-5]",
    "ParticipantObjectTypeCode": r"[1-4]",
    "ParticipantObjectTypeCodeRole": r"[1-9]|1\d|2[0-6]",
    "ParticipantObjectDataLifeCycle": r"[1-9]|1[0-5]",
    "NumberOfInstances": r"\d+",
    "UID": r"[0-2](\.(0|[1-9]\d*))+",
}
TOKENS = {"AuditSourceID", "AuditEnterpriseSiteID", "NetworkAccessPointID", "ParticipantObjectID", "originalText"}

STUDY, PATIENT, LEDGER = ("110180", "DCM", "2", "3"), ("2", "RFC-3881", "1", "1"), ("12", "RFC-3881", "2", "13")

FAMILIES: dict[str, tuple[str, set[str], list[str], set[tuple[str, str, str, str]]]] = {
    # EventID: actions, types (one of them is needed), the roles of the participants, objects that are needed
    "110100": ("E", {"110120", "110121"}, ["110150"], set()),
    "110101": ("R", set(), [""], {LEDGER}),
    "110103": ("CRUD", set(), [""], {STUDY, PATIENT}),
    "110106": ("R", set(), ["110153", "110154"], {PATIENT}),
    "110109": ("CRUD", set(), [""], {PATIENT}),
    "110110": ("CRUD", set(), [""], {PATIENT}),
    "110111": ("CRUD", set(), [""], {PATIENT}),
    "110113": ("E", {str(number) for number in range(110126, 110143)}, [""], set()),
    "110114": ("E", {"110122", "110123"}, [""], set()),
}


def check(message: bytes) -> ET.Element:
    """The message, parsed; an assertion fails where the standard is not kept."""
    root = ET.fromstring(message.decode())
    assert root.tag == "AuditMessage"
    for element in root.iter():
        _schema(element)
    _family(root)
    return root


def _schema(element: ET.Element) -> None:
    needed, possible, children = ELEMENTS[element.tag]
    names = set(element.attrib)
    assert needed <= names <= needed | possible, (element.tag, names)
    order = "".join(f"{child.tag} " for child in element)
    assert re.fullmatch(children, order), (element.tag, order)
    assert element.tag in TEXT or not (element.text or "").strip()
    for name, value in element.attrib.items():
        assert re.fullmatch(VALUES.get(name, ".*"), value, re.DOTALL), (name, value)
        assert name not in TOKENS or value == " ".join(value.split()), (name, value)
    if element.tag == "EventIdentification":
        assert datetime.fromisoformat(element.attrib["EventDateTime"]).tzinfo is not None  # A.5.2.5
    if element.tag == "AuditSourceTypeCode":
        assert re.fullmatch("[1-9]", element.attrib["csd-code"]) or "codeSystemName" in element.attrib
    if element.tag == "ParticipantObjectDetail":
        try:
            base64.b64decode(element.attrib["value"], validate=True)
        except binascii.Error:
            raise AssertionError(element.attrib) from None


def _family(root: ET.Element) -> None:
    """The tables of A.5.3."""
    event = root[0]
    family = event[0].attrib["csd-code"]
    actions, types, roles, objects = FAMILIES[family]
    assert event.attrib["EventActionCode"] in actions
    assert not types or types & {code.attrib["csd-code"] for code in event.iterfind("EventTypeCode")}
    people = root.findall("ActiveParticipant")
    assert [_role(person) for person in people] == roles
    asking = [person.attrib["UserIsRequestor"] for person in people]
    assert asking.count("true") == (0 if family == "110100" else 1)
    kinds = set()
    for found in root.iterfind("ParticipantObjectIdentification"):
        code = found[0].attrib
        role = (found.attrib["ParticipantObjectTypeCode"], found.attrib["ParticipantObjectTypeCodeRole"])
        kinds.add((code["csd-code"], code["codeSystemName"], *role))
    assert objects <= kinds, (family, kinds)
    if family == "110114":
        assert {"NetworkAccessPointID", "NetworkAccessPointTypeCode"} <= set(people[0].attrib)
    if family == "110113":
        details = [detail.attrib["type"] for detail in root.iter("ParticipantObjectDetail")]
        assert "Alert Description" in details
    if family == "110106":
        assert people[1].find("MediaIdentifier/MediaType") is not None


def _role(person: ET.Element) -> str:
    role = person.find("RoleIDCode")
    return "" if role is None else role.attrib["csd-code"]
