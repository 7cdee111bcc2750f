"""Each event of the ledger as an audit message, held against PS3.15 A.5 and against pydicom's dictionary of codes."""

from __future__ import annotations

import base64
import json
from datetime import UTC, datetime
from typing import Any
from xml.etree import ElementTree as ET

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydicom.sr._concepts_dict import concepts

from edge import atna
from edge.records import Header, Station
from edge.state.audit import Event, Record
from tests.audit_message import check

AT = datetime(2026, 3, 4, 5, 6, 7, 890123, UTC)
STATION = Station("OUTPOST", "Clinic  of\tTest", "Africa/Lagos")
HEADER = Header(
    SOPInstanceUID="1.2.3.4",
    SOPClassUID="1.2.840.10008.5.1.4.1.1.1.1",
    StudyInstanceUID="1.2.3",
    PatientID="P 1",
    PatientName="Test^One",
    AccessionNumber="A1",
)


def record(event: Event, arrival_id: int | None = None, actor: str = "Amina", **detail: Any) -> Record:
    return Record(12, AT, event, actor, arrival_id, detail, "ab" * 32)


OF_A_FILM = {
    atna.Family.INSTANCES_ACCESSED,
    atna.Family.EXPORT,
    atna.Family.PATIENT_RECORD,
    atna.Family.PROCEDURE_RECORD,
}


def example(event: Event) -> Record:
    film = 7 if atna.KINDS[event].family in OF_A_FILM else None
    return record(event, film, sink="PACS") if event in {Event.EXPORTED, Event.EXPORT_REFUSED} else record(event, film)


def test_every_event_of_the_ledger_is_told() -> None:
    assert set(atna.KINDS) == set(Event)
    assert len({kind.says for kind in atna.KINDS.values()}) == len(Event)


@pytest.mark.parametrize("event", Event)
def test_each_event_is_what_the_standard_asks(event: Event) -> None:
    root = check(atna.message(example(event), HEADER, STATION))
    assert root[0].attrib["EventDateTime"] == "2026-03-04T05:06:07.890+00:00"
    assert root[0][-1].attrib == {
        "csd-code": event.value, "codeSystemName": "OUTPOST", "originalText": atna.KINDS[event].says,
    }  # fmt: skip
    source = root.find("AuditSourceIdentification")
    assert source is not None and source.attrib == {
        "AuditSourceID": "OUTPOST",
        "AuditEnterpriseSiteID": "Clinic of Test",
    }


def test_the_codes_mean_what_they_say() -> None:
    known = {code: meaning for entry in concepts["DCM"].values() for code, (meaning, _) in entry.items()}
    assert {code: known[code] for code in atna.DCM} == atna.DCM
    used = {kind.family.value for kind in atna.KINDS.values()} | {kind.type for kind in atna.KINDS.values()} - {""}
    assert used <= set(atna.DCM)


def test_a_film_is_told_by_study_patient_and_instance() -> None:
    root = check(atna.message(record(Event.VIEWED, 7), HEADER, STATION))
    study, patient, ledger = root.findall("ParticipantObjectIdentification")
    assert study.attrib["ParticipantObjectID"] == "1.2.3"
    assert (patient.attrib["ParticipantObjectID"], patient[1].text) == ("P 1", "Test^One")
    assert [element.attrib for element in study[2]] == [
        {"Number": "A1"}, {"UID": HEADER.SOPClassUID, "NumberOfInstances": "1"},
    ]  # fmt: skip
    assert ledger.attrib["ParticipantObjectID"] == "outpost:ledger/12"
    person = root.find("ActiveParticipant")
    assert (
        person is not None and person.attrib["UserID"] == "Amina@OUTPOST" and person.attrib["UserIsRequestor"] == "true"
    )


def test_a_film_that_says_nothing_of_itself_goes_by_its_number() -> None:
    root = ET.fromstring(atna.message(record(Event.ASSESSED, 7, "worker"), None, STATION))
    study, patient, _ = root.findall("ParticipantObjectIdentification")
    assert study.attrib["ParticipantObjectID"] == "outpost:film/7"
    assert patient.attrib["ParticipantObjectID"] == ""
    person = root.find("ActiveParticipant")
    assert person is not None and person.attrib["UserID"] == "outpost-worker"


def test_an_export_names_where_it_went() -> None:
    root = check(atna.message(record(Event.EXPORT_REFUSED, 7, "courier", sink="Dr. Sow's  PACS"), HEADER, STATION))
    medium = root.findall("ActiveParticipant")[1]
    assert medium.attrib["UserID"] == "Dr. Sow's PACS" and medium.attrib["UserIsRequestor"] == "false"
    assert root[0].attrib["EventOutcomeIndicator"] == "4"


def test_the_syslog_message_has_its_length_before_it_and_stays_small() -> None:
    line = atna.line(record(Event.OVERRIDDEN, 7), HEADER, STATION)
    assert line.startswith(b"<85>1 2026-03-04T05:06:07.890Z ")
    head, mark, body = line.partition(b"\xef\xbb\xbf")
    assert mark and head.decode("ascii").split(" ")[3:6] == ["outpost", "-", "DICOM+RFC3881"]
    check(body)
    assert atna.framed(line) == str(len(line)).encode() + b" " + line
    assert max(len(atna.line(example(event), HEADER, STATION)) for event in Event) < 8192, "RFC 5425 4.3.1"


@given(
    st.sampled_from(Event),
    st.text(),
    st.dictionaries(st.text(), st.text()),
    st.builds(
        Header, PatientID=st.text(), PatientName=st.text(), StudyInstanceUID=st.just("1.2"), AccessionNumber=st.text()
    ),
)
def test_whatever_is_in_a_record_the_message_is_whole(
    event: Event, actor: str, detail: dict[str, str], header: Header
) -> None:
    told = record(event, example(event).arrival_id, actor, said=detail)
    line = atna.line(told, header, STATION)
    assert b"\n" not in line and b"\x00" not in line
    root = check(line.partition(b"\xef\xbb\xbf")[2])
    kept = {
        found.attrib["type"]: base64.b64decode(found.attrib["value"]).decode("utf-8", "surrogatepass")
        for found in root.iter("ParticipantObjectDetail")
    }
    assert kept["actor"] == actor
    assert json.loads(kept["detail"]) == {"said": detail}
