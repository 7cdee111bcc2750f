"""The forms of a result: they say the same, keep every name, and are the same, byte for byte, whenever they are made."""

from __future__ import annotations

import hashlib
import json
import os
import subprocess
import sys
from dataclasses import replace
from pathlib import Path
from typing import Any

import msgspec
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from edge.records import Document, Header, Outcome, Read, ReadKind, Reason, Refusal, Source, Station
from edge.stages import decide, report
from tests import results
from tests.box import ROOT


def by_kind(documents: tuple[Document, ...]) -> dict[str, Document]:
    return {document.kind: document for document in documents}


def resources(document: Document, kind: str) -> list[dict[str, Any]]:
    entries = json.loads(document.data)["entry"]
    return [entry["resource"] for entry in entries if entry["resource"]["resourceType"] == kind]


def texts(value: str) -> str:
    """What an HL7 text says, unescaped (HL7 v2.5.1 2.7)."""
    for escaped, one in (("\\F\\", "|"), ("\\S\\", "^"), ("\\T\\", "&"), ("\\R\\", "~")):
        value = value.replace(escaped, one)
    return value.replace("\\E\\", "\\")


def fields(document: Document, segment: str) -> list[list[str]]:
    lines = document.data.decode().split("\r")
    found = [line.split("|") for line in lines if line.startswith(f"{segment}|")]
    return [[*line, *[""] * (40 - len(line))] for line in found]


@settings(max_examples=60)
@given(results.sources())
def test_the_forms_of_a_result_say_the_same(source: Source) -> None:
    made = by_kind(report.documents(source))
    decision = source.film.decision
    assert decision is not None
    observations = {one["code"]["coding"][0]["code"]: one for one in resources(made["fhir"], "Observation")}
    rows = {(row[3].split("^")[0], row[4]): row for row in fields(made["oru"], "OBX")}
    assert observations["triage"]["valueCodeableConcept"]["coding"][0]["code"] == decision.outcome
    assert rows["triage", ""][5].split("^")[0] == decision.outcome
    for place, finding in enumerate(decision.findings, 1):
        quantity = observations[finding.code]["valueQuantity"]
        bounds = observations[finding.code]["component"][0]["valueRange"]
        assert quantity["value"] == float(rows[finding.code, str(place)][5]) == round(100 * finding.probability, 1)
        low, high = rows["interval95", str(place)][5].split("^")[1::2]
        assert bounds["low"]["value"] == float(low) <= quantity["value"] <= float(high) == bounds["high"]["value"]
        assert quantity["code"] == rows[finding.code, str(place)][6].split("^")[0] == "%"
    if decision.refusal is not None:
        assert rows["reason", ""][5].split("^")[0] == decision.refusal.reason
        component = observations["triage"]["component"][0]
        assert component["valueCodeableConcept"]["coding"][0]["code"] == decision.refusal.reason
    assert {one["status"] for one in observations.values()} == {"preliminary"}
    assert [one["status"] for one in resources(made["fhir"], "DiagnosticReport")] == ["preliminary"]
    assert {row[11] for row in rows.values()} == {"P"}
    assert fields(made["oru"], "OBR")[0][25] == "P"


@settings(max_examples=100)
@given(results.sources())
def test_every_name_and_identifier_survives(source: Source) -> None:
    made = by_kind(report.documents(source))
    said = source.film.header
    (patient,) = fields(made["oru"], "PID")
    assert texts(patient[3].split("^")[0]) == said.PatientID
    groups = [group.split("^") for group in said.PatientName.split("=")]
    for group, repeated in zip([one for one in groups if any(one)], patient[5].split("~"), strict=True):
        family, given_, middle, suffix, prefix = (texts(part) for part in repeated.split("^")[:5])
        assert [family, given_, middle, prefix, suffix][: len(group)] == group
    (study,) = resources(made["fhir"], "ImagingStudy")
    assert study["subject"]["identifier"]["value"] == said.PatientID
    for part in {part for group in groups for part in group[:2]}:
        assert part in study["subject"]["display"]
    assert texts(fields(made["oru"], "OBR")[0][18]) == said.AccessionNumber
    orders = [one["identifier"]["value"] for one in study.get("basedOn", [])]
    assert orders == ([said.AccessionNumber] if said.AccessionNumber else [])


@settings(max_examples=60)
@given(results.sources(), results.reads())
def test_only_a_person_makes_a_result_final(source: Source, read: Read) -> None:
    made = by_kind(report.assessment(source, read))
    decided = read.kind in (ReadKind.CONFIRM, ReadKind.OVERRIDE)
    (shown,) = resources(made["fhir"], "DiagnosticReport")
    assert shown["status"] == ("final" if decided else "preliminary")
    assert fields(made["oru"], "OBR")[0][25] == ("F" if decided else "P")
    if decided:
        assert read.outcome is not None
        assert shown["conclusionCode"][0]["coding"][0]["code"] == read.outcome
        assert shown["resultsInterpreter"][0]["display"] == read.reader
        outcomes = [row for row in fields(made["oru"], "OBX") if row[3].startswith("triage^")]
        assert [(row[5].split("^")[0], row[11]) for row in outcomes] == [(read.outcome, "F")]
        assert texts(outcomes[0][16].removeprefix("^")) == read.reader
    if read.kind is ReadKind.OVERRIDE:  # nobody shall take what a person did not share for their result
        assert len(shown["result"]) == 1
        first = by_kind(report.documents(source))["fhir"]
        assert resources(first, "DiagnosticReport")[0]["identifier"] == shown["identifier"]


@settings(max_examples=100)
@given(results.sources(st.one_of(results.uids, results.broken)), results.reads())
def test_a_resend_is_the_same_byte_for_byte_and_every_thing_has_its_own_name(source: Source, read: Read) -> None:
    made = report.documents(source) + report.assessment(source, read)
    again = report.documents(source) + report.assessment(source, read)
    assert made == again
    assert len({document.uid for document in made}) == len(made)


def test_a_resend_by_another_process_is_the_same(tmp_path: Path) -> None:
    source = results.example()
    file = tmp_path / "source"
    file.write_bytes(msgspec.json.encode(source))
    script = (
        "import hashlib, msgspec, pathlib, sys\n"
        "from edge.records import Source\n"
        "from edge.stages import report\n"
        "source = msgspec.json.decode(pathlib.Path(sys.argv[1]).read_bytes(), type=Source)\n"
        "print(*(hashlib.sha256(one.data).hexdigest() for one in report.documents(source)))"
    )
    for zone, seed in (("UTC", "1"), ("Asia/Tokyo", "2")):
        other = subprocess.run(
            [sys.executable, "-c", script, str(file)], cwd=ROOT, env={**os.environ, "TZ": zone, "PYTHONHASHSEED": seed},
            capture_output=True, text=True, check=True,
        ).stdout.split()  # fmt: skip
        assert other == [hashlib.sha256(one.data).hexdigest() for one in report.documents(source)]


@pytest.mark.parametrize("refused", [Reason.NOT_A_RADIOGRAPH, Reason.NOT_DICOM])
def test_nothing_is_sent_of_what_is_no_film_or_nobodys(refused: Reason) -> None:
    header = Header() if refused is Reason.NOT_DICOM else results.example().film.header
    film = results.film(header, decide.refuse(Refusal(refused)))
    assert report.documents(Source(film, None, Station())) == ()


def test_a_film_without_an_outcome_has_no_result() -> None:
    source = results.example()
    waiting = replace(source, film=replace(source.film, decision=None, decided_at=None))
    with pytest.raises(ValueError, match="no outcome yet"):
        report.documents(waiting)


def test_an_impression_is_nobodys_business_but_the_boxs() -> None:
    read = Read(1, 1, 1, ReadKind.IMPRESSION, "Awa", results.NOON, Outcome.ROUTINE, (), "", "seal")
    assert report.assessment(results.example(), read) == ()
