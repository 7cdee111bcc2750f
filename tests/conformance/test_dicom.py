"""The DICOM results before validators of other projects: dicom3tools' dciodvfy, pixelmed's DicomSRValidator, dcmtk."""

from __future__ import annotations

import os
import subprocess
from collections.abc import Iterator
from dataclasses import replace
from datetime import date
from pathlib import Path

import pytest
from pydicom import dcmread

from edge.config import DicomSink, DicomwebSink
from edge.records import Decision, Delivery, Document, Grays, Header, Outcome, Read, ReadKind, Reason, Refusal, Source
from edge.sinks import open_sink
from edge.stages import decide, report
from edge.vocabulary import IMPRESSIONS, OVERRIDES
from tests import results
from tests.conftest import peer
from tests.orthanc import Orthanc

pytestmark = pytest.mark.peer

KINDS = ("sr", "sc", "banner", "gsps", "assessment")

ODD: dict[str, Header] = {
    "nothing known": Header(SOPInstanceUID="1.2.3.4", SOPClassUID="1.2.840.10008.5.1.4.1.1.1", Rows=1024, Columns=900),
    "identifiers that are none": Header(
        SOPInstanceUID="1.02.3",
        SOPClassUID="1.2.840.10008.5.1.4.1.1.7",
        StudyInstanceUID="my study",
        SeriesInstanceUID="1." + "9" * 70,
        PatientSex="?",
        StudyTime="8 o'clock",
        TimezoneOffsetFromUTC="+1459",
        Rows=1024,
        Columns=900,
    ),
    "too long for its place": Header(
        SOPInstanceUID="1.2.3.4",
        SOPClassUID="1.2.840.10008.5.1.4.1.1.1.1",
        StudyInstanceUID="1.2.3",
        SeriesInstanceUID="1.2.3.1",
        PatientName="Ñ" * 300 + "=山田^太郎",
        PatientID="9" * 300,
        IssuerOfPatientID="i" * 300,
        StudyID="s" * 300,
        AccessionNumber="a" * 300,
        ReferringPhysicianName="r" * 300,
        PatientBirthDate=date(1, 1, 1),
        StudyDate=date(800, 1, 1),
        Rows=2,
        Columns=65535,
        grays=Grays(True, (-1024.123456789012345, 1 / 3), (1e-7, 123456789.123456789), "SIGMOID", (3, 4)),
    ),
    **{
        f"a name in {script}": replace(results.example().film.header, PatientName=name, ReferringPhysicianName=name)
        for script, name in {
            "Latin": "Núñez^Ødegård^^Dr",
            "Cyrillic": "Диалло^Фату",
            "Ethiopic": "ዓለሙ^ተስፋዬ",
            "Arabic": "عبد الله^محمد",
            "three scripts": "Yamada^Tarou=山田^太郎=やまだ^たろう",
        }.items()
    },
}


def of(header: Header, source: Source) -> Source:
    """The same result of another film."""
    return replace(source, film=replace(source.film, header=header))


def outcomes() -> Iterator[tuple[str, Source]]:
    """Every outcome and reason, with and without what may be missing, of ordinary films and odd ones."""
    example = results.example()
    plain = example.film.header
    yield "immediate", example
    unsure = replace(results.PNEUMONIA, unsure=True)
    yield "one finding, unsure, with its region", _decided(example, decide.decide((unsure,), "m 1", "2.25.1"))
    yield "triage only", replace(example, triage_only=True)
    yield "no picture", replace(example, preview=None)
    yield "no map", replace(example, film=replace(example.film, saliency=None))
    findings = (replace(results.PNEUMONIA, probability=0.7), replace(results.OPACITY, probability=0.75))
    yield "soon, two findings", _decided(example, decide.decide(findings, "m 1", "2.25.1"))
    findings = (replace(results.PNEUMONIA, probability=0.0, low=0.0), results.OPACITY)
    yield "routine", _decided(example, decide.decide(findings, "", ""))
    for reason in Reason:
        if reason not in (Reason.NOT_A_RADIOGRAPH, Reason.NOT_DICOM):
            refused = decide.refuse(Refusal(reason), "cxr-lite0 0.1.0", "2.25.314159265358979")
            yield reason, replace(_decided(example, refused), preview=None)
    for name, header in ODD.items():
        yield name, of(header, example)
    for turned in (True, False):
        grays = Grays(turned, (0, 1) if turned else None, None, "", (1, 1))
        yield f"no window, inverted {turned}", of(replace(plain, grays=grays), example)


def _decided(source: Source, decision: Decision) -> Source:
    return replace(source, film=replace(source.film, decision=decision))


def reads() -> Iterator[tuple[str, Read]]:
    """Everything that a person may decide, for every reason."""
    at = results.NOON
    yield "confirmed", Read(1, 1, 1, ReadKind.CONFIRM, "Awa Ndiaye", at, Outcome.IMMEDIATE, (), "", "")
    yield "referred", Read(2, 1, 1, ReadKind.REFER, "ዓለሙ", at, None, tuple(IMPRESSIONS), "", "")
    yield "taken back", Read(3, 1, 1, ReadKind.WITHDRAW, "Awa^=\\" + "n" * 80, at, None, (), "", "")
    for number, reason in enumerate([*OVERRIDES, "not_assessed"], 4):
        yield f"for {reason}", Read(number, 1, 1, ReadKind.OVERRIDE, "Фату", at, Outcome.SOON, ("heart",), reason, "")


OUTCOMES = dict(outcomes())
READS = dict(reads())
ASSESSED = {
    **{name: (results.example(), read) for name, read in READS.items()},
    **{f"{name}, confirmed": (of(header, results.example()), READS["confirmed"]) for name, header in ODD.items()},
}


def written(documents: tuple[Document, ...], folder: Path) -> list[Path]:
    paths = []
    for document in documents:
        path = folder / f"{document.kind}.dcm"
        path.write_bytes(document.data)
        paths.append(path)
    return paths


def vetted(paths: list[Path]) -> None:
    """Neither dciodvfy nor dcmtk finds an error (dciodvfy counts the bytes of a name that may have 64 characters)."""
    for path in paths:
        told = subprocess.run([peer("dciodvfy", "dicom3tools"), path], capture_output=True, text=True, errors="replace")
        assert [line for line in told.stderr.splitlines() if line.startswith("Error")] == [], path.name
        assert told.returncode == 0
        programs = ["dsrdump", "dcmdump"] if path.stem in ("sr", "assessment") else ["dcmdump"]
        for program in programs:
            told = subprocess.run([peer(program, "dcmtk"), path], capture_output=True, text=True, errors="replace")
            assert told.returncode == 0 and told.stdout, told.stderr
            assert not [line for line in told.stderr.splitlines() if line.startswith(("E:", "F:"))], told.stderr


@pytest.mark.parametrize("name", OUTCOMES)
def test_every_result_is_valid(name: str, tmp_path: Path) -> None:
    source = OUTCOMES[name]
    made = written(report.documents(source, KINDS), tmp_path)
    assert {path.stem for path in made} >= {"sr", "sc"}
    vetted(made)


@pytest.mark.parametrize("name", ASSESSED)
def test_every_assessment_is_valid(name: str, tmp_path: Path) -> None:
    source, read = ASSESSED[name]
    (made,) = written(report.assessment(source, read, KINDS), tmp_path)
    vetted([made])


def test_the_validator_of_these_tests_finds_what_is_wrong(tmp_path: Path) -> None:
    (made,) = written(report.documents(results.example(), ("sr",)), tmp_path)
    made.write_bytes(made.read_bytes().replace(b"PRELIMINARY", b"WHATEVER..."))
    with pytest.raises(AssertionError, match="Error"):
        vetted([made])


def test_a_name_of_64_letters_stays_whole_although_dciodvfy_counts_their_bytes(tmp_path: Path) -> None:
    """PS3.5 6.2: a component group of PN may have 64 characters, whatever bytes each takes; dciodvfy allows so many bytes."""
    for letter, complains in (("N", False), ("Д", True)):
        named = of(replace(results.example().film.header, PatientName=letter * 64), results.example())
        (made,) = written(report.documents(named, ("sr",)), tmp_path)
        assert dcmread(made).PatientName == letter * 64
        told = subprocess.run([peer("dciodvfy", "dicom3tools"), made], capture_output=True, text=True, errors="replace")
        errors = [line for line in told.stderr.splitlines() if line.startswith("Error")]
        assert bool(errors) is complains
        assert all("128, expected <= 64" in line or "dataset contains invalid" in line for line in errors), errors


@pytest.mark.parametrize("name", ["one finding, unsure, with its region", "damaged", "for missed"])
def test_pixelmed_knows_every_template(name: str, tmp_path: Path) -> None:
    """TID 1500 with 1501, 1410 and 4019 (PS3.16), by somebody else's reading of it.

    It takes a group without a region for a wrong one as soon as another has one, so no report here has both.
    """
    if name in OUTCOMES:
        documents = report.documents(OUTCOMES[name], ("sr",))
    else:
        documents = report.assessment(*ASSESSED[name], ("assessment",))
    (made,) = written(documents, tmp_path)
    limits = " ".join(f"-Djdk.xml.xpath{limit}Limit=0" for limit in ("TotalOp", "ExprOp", "ExprGrp"))
    told = subprocess.run(
        [peer("DicomSRValidator", "pixelmed-apps"), made],
        capture_output=True,
        text=True,
        env={**os.environ, "JAVA_TOOL_OPTIONS": limits},  # its rules are longer than what Java 17 lets through
    )
    lines = (told.stdout + told.stderr).splitlines()
    assert "Found Root Template TID_1500 (MeasurementReport)" in lines and "IOD validation complete" in lines, lines
    assert [line for line in lines if line.startswith("Error") or "xception" in line] == []


def test_orthanc_takes_every_object_by_both_doors_and_keeps_it_once(tmp_path: Path) -> None:
    source, read = results.example(), READS["confirmed"]
    made = report.documents(source, KINDS) + report.assessment(source, read, KINDS)
    delivery = Delivery(1, "PACS", 1, 1, None, 1, results.NOON, "2.25.9")
    with Orthanc(tmp_path) as orthanc:
        for sink in (
            DicomSink(name="PACS", host="127.0.0.1", port=orthanc.port, ae_title="ORTHANC"),
            DicomwebSink(name="PACS", url=f"{orthanc.url}/dicom-web"),
        ):
            receipt = open_sink(sink).deliver(list(made), delivery)
            assert receipt.trouble is None and set(receipt.taken) == {document.uid for document in made}
            kept = orthanc.instances()
            assert sorted(one["Modality"] for one in kept) == ["OT", "OT", "PR", "SR", "SR"]
            assert {one["SOPInstanceUID"] for one in kept} == {document.uid for document in made}
            assert {one["StudyInstanceUID"] for one in kept} == {source.film.header.StudyInstanceUID}
            assert len({one["SeriesInstanceUID"] for one in kept}) == len(made)
