"""The forms of a result: they say the same, keep every name, and are the same, byte for byte, whenever they are made."""

from __future__ import annotations

import hashlib
import io
import json
import os
import subprocess
import sys
from dataclasses import replace
from pathlib import Path
from typing import Any

import msgspec
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from pydicom import Dataset, config, dcmread

from edge.records import Document, Header, Outcome, Read, ReadKind, Reason, Refusal, Source, Station
from edge.stages import decide, report
from tests import results
from tests.box import ROOT

# pydicom counts the character that pads a value to an even length (PS3.5 6.2) among those that there is room for
config.settings.reading_validation_mode = config.IGNORE


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


def read_back(document: Document) -> Dataset:
    return dcmread(io.BytesIO(document.data))


def items(ds: Dataset, scheme_and_code: tuple[str, str], kind: str) -> list[Dataset]:
    """The content items of that name anywhere below."""
    found = []
    for item in ds.get("ContentSequence", []):
        name = item.get("ConceptNameCodeSequence")
        if name and item.ValueType == kind and coded(name[0]) == scheme_and_code:
            found.append(item)
        found += items(item, scheme_and_code, kind)
    return found


def coded(item: Dataset) -> tuple[str, str]:
    return str(item.CodingSchemeDesignator), str(item.get("CodeValue") or item.LongCodeValue)


def value(ds: Dataset, name: str) -> str | None:
    """What this project's own code of that name is said to be."""
    found = [coded(item.ConceptCodeSequence[0])[1] for item in items(ds, ("99OUTPOST", name), "CODE")]
    assert len(found) < 2
    return found[0] if found else None


def number(ds: Dataset, scheme: str, code: str) -> float:
    (item,) = items(ds, (scheme, code), "NUM")
    (measured,) = item.MeasuredValueSequence
    assert coded(measured.MeasurementUnitsCodeSequence[0]) == ("UCUM", "%")
    return float(measured.NumericValue)


GROUP, FINDING, REGION = ("DCM", "125007"), ("DCM", "121071"), ("DCM", "111030")


@settings(max_examples=60)
@given(results.sources())
def test_the_forms_of_a_result_say_the_same(source: Source) -> None:
    made = by_kind(report.documents(source, ("sr", "fhir", "oru")))
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
        undetermined = "373068000" if finding.unsure else None
        assert rows.get(("121052", str(place)), [""] * 6)[5].split("^")[0] == (undetermined or "")
        components = {one["code"]["coding"][0]["code"]: one for one in observations[finding.code]["component"]}
        flags = [one["coding"][0]["code"] for one in observations[finding.code].get("interpretation", [])]
        assert ("121052" in components) == ("IND" in flags) == finding.unsure
        if finding.unsure:
            (presence,) = components["121052"]["valueCodeableConcept"]["coding"]
            assert (presence["system"], presence["code"]) == ("http://snomed.info/sct", undetermined)
    if decision.refusal is not None:
        assert rows["reason", ""][5].split("^")[0] == decision.refusal.reason
        component = observations["triage"]["component"][0]
        assert component["valueCodeableConcept"]["coding"][0]["code"] == decision.refusal.reason
    assert {one["status"] for one in observations.values()} == {"preliminary"}
    assert [one["status"] for one in resources(made["fhir"], "DiagnosticReport")] == ["preliminary"]
    assert {row[11] for row in rows.values()} == {"P"}
    assert fields(made["oru"], "OBR")[0][25] == "P"
    sr = read_back(made["sr"])
    assert (sr.PreliminaryFlag, sr.VerificationFlag, sr.CompletionFlag) == ("PRELIMINARY", "UNVERIFIED", "COMPLETE")
    assert value(sr, "triage") == decision.outcome
    assert value(sr, "reason") == (None if decision.refusal is None else decision.refusal.reason)
    groups = items(sr, GROUP, "CONTAINER")
    assert len(groups) == len(decision.findings)
    for group, finding in zip(groups, decision.findings, strict=True):
        ((scheme, code),) = (coded(item.ConceptCodeSequence[0]) for item in items(group, FINDING, "CODE"))
        assert (scheme, code) == (finding.scheme, finding.code)
        observation = observations[code]
        bounds = observation["component"][0]["valueRange"]
        assert number(group, "DCM", "122157") == observation["valueQuantity"]["value"]
        assert number(group, "99OUTPOST", "low95") == bounds["low"]["value"]
        assert number(group, "99OUTPOST", "high95") == bounds["high"]["value"]
        told = [coded(item.ConceptCodeSequence[0]) for item in items(group, ("DCM", "121052"), "CODE")]
        assert told == ([("SCT", "373068000")] if finding.unsure else [])
        assert value(group, "level") == observation["component"][1]["valueCodeableConcept"]["coding"][0]["code"]


@settings(max_examples=100)
@given(results.sources())
def test_every_name_and_identifier_survives(source: Source) -> None:
    made = by_kind(report.documents(source, ("sr", "fhir", "oru")))
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
    sr = read_back(made["sr"])
    assert sr.StudyInstanceUID == said.StudyInstanceUID and sr.SeriesInstanceUID != said.SeriesInstanceUID
    assert (sr.PatientID, sr.AccessionNumber, sr.StudyID) == (said.PatientID, said.AccessionNumber, said.StudyID)
    for group, written in zip(groups, str(sr.PatientName).split("="), strict=False):
        assert written.split("^") == group or len("^".join(group)) > 64


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
    assessed = read_back(made["assessment"])
    assert (assessed.PreliminaryFlag == "FINAL") == (assessed.VerificationFlag == "VERIFIED") == decided
    assert value(assessed, "assessment") == read.kind and value(assessed, "triage") == read.outcome
    assert (value(assessed, "verdict") is not None) == decided
    seen = [coded(one.ConceptCodeSequence[0])[1] for one in items(assessed, ("99OUTPOST", "impression"), "CODE")]
    (person,) = [one for one in resources(made["fhir"], "Observation") if "performer" in one] or [{}]
    by_code = {part["code"]["coding"][0]["code"]: [] for part in person.get("component", [])}
    for part in person.get("component", []):
        by_code[part["code"]["coding"][0]["code"]].append(part["valueCodeableConcept"]["coding"][0]["code"])
    assert seen == by_code.get("impression", [])
    assert [one for one in [value(assessed, "why")] if one] == by_code.get("why", [])
    if decided:
        (verifier,) = assessed.VerifyingObserverSequence
        assert str(verifier.VerifyingObserverName) == f"{read.reader}^"
    (referred,) = items(assessed, ("DCM", "121112"), "COMPOSITE")
    (by_ai,) = report.documents(source, ("sr",))
    assert referred.ReferencedSOPSequence[0].ReferencedSOPInstanceUID == by_ai.uid
    if read.kind is ReadKind.OVERRIDE:  # nobody shall take what a person did not share for their result
        assert len(shown["result"]) == 1
        first = by_kind(report.documents(source))["fhir"]
        assert resources(first, "DiagnosticReport")[0]["identifier"] == shown["identifier"]


@settings(max_examples=100)
@given(results.sources())
def test_a_region_is_of_a_reported_finding_inside_the_film_and_never_where_the_ai_only_triages(source: Source) -> None:
    made = by_kind(report.documents(source, ("sr", "sc", "gsps")))
    decision, film = source.film.decision, source.film.header
    assert decision is not None
    regions = items(read_back(made["sr"]), REGION, "SCOORD")
    sc = read_back(made["sc"])
    shown = decision.outcome in (Outcome.IMMEDIATE, Outcome.SOON) and not source.triage_only and source.film.saliency
    assert len(regions) <= bool(shown)
    assert (sc.SamplesPerPixel == 3) == (bool(regions) and source.preview is not None)
    assert ("gsps" in made) == (bool(regions) and film.grays is not None)
    for region in regions:
        points = np.array(region.GraphicData).reshape(-1, 2)
        assert region.GraphicType == "POLYLINE" and len(points) > 3 and (points[0] == points[-1]).all()
        assert (points >= 0).all() and (points <= np.array([film.Columns, film.Rows])).all()
        (on,) = region.ContentSequence
        assert on.ReferencedSOPSequence[0].ReferencedSOPInstanceUID == film.SOPInstanceUID
        if "gsps" in made:
            (annotation,) = read_back(made["gsps"]).GraphicAnnotationSequence
            assert np.allclose(annotation.GraphicObjectSequence[0].GraphicData, points.ravel())


def test_the_region_is_where_the_map_is_strong_around_its_top() -> None:
    made = by_kind(report.documents(results.example(), ("sr",)))
    (region,) = items(read_back(made["sr"]), REGION, "SCOORD")
    # of 3 x 3 cells the last of the second and third row; 90 of 200 is less than half
    corners = {tuple(point) for point in np.array(region.GraphicData).reshape(-1, 2).round().tolist()}
    assert corners == {(600, 341), (900, 341), (900, 1024), (600, 1024)}


def test_a_film_whose_class_is_no_uid_has_no_dicom_objects() -> None:
    source = results.example()
    odd = replace(source, film=replace(source.film, header=replace(source.film.header, SOPClassUID="unknown")))
    assert set(by_kind(report.documents(odd))) == {"fhir", "oru"}
    read = Read(7, 1, 1, ReadKind.CONFIRM, "Awa", results.NOON, Outcome.IMMEDIATE, (), "", "")
    assert set(by_kind(report.assessment(odd, read))) == {"fhir", "oru"}


def test_only_the_forms_that_are_asked_for_are_made() -> None:
    assert set(by_kind(report.documents(results.example()))) == {"sr", "sc", "gsps", "fhir", "oru"}
    assert set(by_kind(report.documents(results.example(), ("fhir",)))) == {"fhir"}


def test_forms_without_dicom_do_not_load_what_makes_it() -> None:
    script = (
        "import sys\nfrom edge.stages import report\nfrom tests import results\n"
        "assert report.documents(results.example(), ('fhir', 'oru'))\nassert 'highdicom' not in sys.modules"
    )
    subprocess.run([sys.executable, "-c", script], cwd=ROOT, check=True)


@settings(max_examples=60)
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
