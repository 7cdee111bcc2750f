"""The conformance statement says what the box does: its tables are read from the page and held against live associations."""

from __future__ import annotations

import re
from collections.abc import Iterator
from contextlib import contextmanager
from io import BytesIO
from itertools import islice
from pathlib import Path

import pytest
from pydicom import Dataset, dcmread
from pydicom._uid_dict import UID_dictionary
from pydicom.uid import ExplicitVRLittleEndian
from pynetdicom import AE, evt
from pynetdicom.presentation import build_context, build_role

from edge import conformance, ris
from edge.config import Config, DicomSink, Intake, Ris
from edge.intake import Intake as Process
from edge.records import Outcome, Read, ReadKind
from edge.sinks.dicom import Dicom
from edge.stages import report
from edge.state.store import now
from tests import results

UIDS = re.compile(r"`([\d.]+)`")
COMMITMENT, WORKLIST = "1.2.840.10008.1.20.1", "1.2.840.10008.5.1.4.31"
PALETTE = "1.2.840.10008.5.1.4.39.2"


def table(name: str) -> list[list[str]]:
    """A table's rows, as the page has them."""
    page = conformance.PAGE.read_text(encoding="utf-8")
    (found,) = re.findall(rf"<!-- table: {name} -->\n(.*?)\n<!-- end -->", page, re.DOTALL)
    return [[cell.strip() for cell in row.strip("|").split("|")] for row in found.splitlines()[2:]]


def uids(name: str) -> set[str]:
    return {uid for row in table(name) for uid in UIDS.findall("|".join(row))}


def test_the_page_is_current() -> None:
    page = conformance.PAGE.read_text(encoding="utf-8")
    assert page == conformance.filled(page), "write it again: .venv/bin/python -m edge.conformance"
    assert {mark[1] for mark in conformance.MARK.findall(page)} == set(conformance.TABLES)
    order = re.findall(r"^## A\.(\d)", page, re.MULTILINE)
    assert order == [str(number) for number in range(1, 9)], "the chapters of PS3.2 Annex A"


@contextmanager
def port(state: Path) -> Iterator[int]:
    """The box's own DICOM port."""
    process = Process(Config(state=str(state), intake=Intake(port=0, disk_floor_mib=0)))
    ae = process.listen()
    try:
        yield int(ae._servers[0].server_address[1])
    finally:
        ae.shutdown()


def accepted(at: int, proposals: list[tuple[str, str]]) -> set[tuple[str, str]]:
    """Which of the pairs of SOP class and transfer syntax a live association accepts, each in a context of its own."""
    taken: set[tuple[str, str]] = set()
    rest = iter(proposals)
    while part := list(islice(rest, 128)):
        roles = [build_role(COMMITMENT, scp_role=True)] if any(uid == COMMITMENT for uid, _ in part) else []
        contexts = [build_context(*pair) for pair in part]
        association = AE("TEST").associate("127.0.0.1", at, contexts=contexts, ext_neg=roles)
        if not association.is_established:
            assert association.is_aborted or association.rejected_contexts  # nothing of it was accepted
            continue
        for context in association.accepted_contexts:
            assert context.abstract_syntax is not None
            taken.add((str(context.abstract_syntax), str(context.transfer_syntax[0])))
        association.release()
    return taken


def test_the_port_accepts_exactly_what_the_tables_say(state: Path) -> None:
    transfers = sorted(uids("transfers"))
    classes = sorted(uid for uid, entry in UID_dictionary.items() if entry[1] == "SOP Class")
    assert len(transfers) > 40 and len(classes) > 300
    told = {(uid, transfer) for uid in uids("classes") | uids("unserved") for transfer in transfers}
    for _, uid, syntaxes, _ in table("acceptance"):
        for served in UIDS.findall(uid):
            told |= {(served, transfer) for transfer in UIDS.findall(syntaxes) or transfers}
    with port(state) as at:
        proposals = [(uid, transfer) for uid in classes for transfer in transfers]
        assert accepted(at, proposals) == told
        private = "1.2.826.0.1.3680043.8.498.1"
        assert accepted(at, [(private, transfers[0])]) == {(private, transfers[0])}


def test_a_query_under_a_class_that_is_no_service_is_refused(state: Path) -> None:
    with port(state) as at:
        association = AE("TEST").associate("127.0.0.1", at, contexts=[build_context(PALETTE), build_context(WORKLIST)])
        assert association.is_established
        query = Dataset()
        query.PatientName = ""
        try:
            assert [status.Status for status, _ in association.send_c_find(query, PALETTE)] == [0x0122]
            assert [status.Status for status, _ in association.send_c_find(query, WORKLIST)] == [0x0000]
        finally:
            association.release()


def test_the_box_proposes_exactly_what_the_table_says() -> None:
    told = {uid: UIDS.findall(syntaxes) for _, cell, syntaxes, _ in table("proposals") for uid in UIDS.findall(cell)}
    heard: dict[str, list[str]] = {}

    def hear(event: evt.Event) -> None:
        for context in event.assoc.requestor.primitive.presentation_context_definition_list:
            heard[str(context.abstract_syntax)] = [str(one) for one in context.transfer_syntax]

    ae = AE("PEER")
    for uid in told:
        ae.add_supported_context(uid, ExplicitVRLittleEndian)
    server = ae.start_server(("127.0.0.1", 0), block=False, evt_handlers=[(evt.EVT_REQUESTED, hear)])
    at = int(server.socket.getsockname()[1])
    try:
        peer = DicomSink(name="PACS", host="127.0.0.1", port=at, ae_title="PEER", commitment=True, seconds=20)
        assert Dicom(peer).probe().trouble is None
        ris.ask(Config(ris=Ris(host="127.0.0.1", port=at, ae_title="PEER", seconds=20)), now())
    finally:
        server.shutdown()
    assert heard == told


def test_nothing_private_is_written_and_each_object_is_of_a_class_that_the_table_names() -> None:
    source = results.example()
    read = Read(1, 1, 1, ReadKind.CONFIRM, "Awa Ndiaye", results.NOON, Outcome.IMMEDIATE, (), "", "")
    made = [*report.documents(source), *report.assessment(source, read)]
    objects = [dcmread(BytesIO(one.data)) for one in made if one.media_type == "application/dicom"]
    classes = {str(one.SOPClassUID) for one in objects}
    assert {one.kind for one in made} >= set(conformance.STORES)
    assert classes == uids("proposals") & uids("classes")
    assert [element.tag for one in objects for element in one.iterall() if element.tag.is_private] == []
    assert {one.SpecificCharacterSet for one in objects} == {
        name.strip("`") for name, _, written in table("charsets") if written == "yes"
    }


@pytest.mark.parametrize("kind", ["user", "provider"])
def test_the_overview_agrees_with_the_tables(kind: str) -> None:
    column = {"user": 2, "provider": 3}[kind]
    said = {uid for row in table("services") for uid in UIDS.findall(row[1]) if row[column] == "yes"}
    if kind == "user":
        assert said == {uid for row in table("proposals") for uid in UIDS.findall(row[1])}
    else:
        served = {uid for row in table("acceptance") for uid in UIDS.findall(row[1])}
        assert said - uids("classes") == served - {COMMITMENT}
