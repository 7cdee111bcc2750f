"""What leaves toward the hub before validators of other projects: no new error, and no attribute that is not allowed."""

from __future__ import annotations

import re
import subprocess
from pathlib import Path

import pytest

from edge import samples
from edge.outside import door
from edge.records import Document, Read, ReadKind, Refusal
from edge.stages import decode, header, report
from edge.stages.deidentify import Door, deidentify, film
from edge.stages.deidentify.table import allowed
from models import phantom
from models.bundle import SHIPPED, load
from tests import results
from tests.conftest import peer

pytestmark = pytest.mark.peer

SAYS_WHAT_WAS_DONE = {0x00120062, 0x00120063, 0x00120064, 0x00280303, 0x00080005}
"""Patient Identity Removed, De-identification Method (Code Sequence), Longitudinal Temporal Information Modified; and in which
characters, Specific Character Set."""


@pytest.fixture(scope="module")
def way_out(tmp_path_factory: pytest.TempPathFactory) -> Door:
    manifest = load(SHIPPED).manifest
    return door(tmp_path_factory.mktemp("state"), manifest, frozenset({"2.25.314159265358979"}))


def errors(path: Path) -> set[str]:
    told = subprocess.run([peer("dciodvfy", "dicom3tools"), path], capture_output=True, text=True, errors="replace")
    # which attribute, not which value
    return {re.sub(r"= <.*?>|<[^<>]*>$", "", line) for line in told.stderr.splitlines() if line.startswith("Error")}


def pairs(way_out: Door, folder: Path) -> list[tuple[str, bytes, Document]]:
    """What came or was made, and what leaves of it."""
    came = folder / "came.dcm"
    ds = samples.film(phantom.chest(3, (330, 300)), "Ndiaye^Awa", "058Y", "F")
    ds.PatientAddress, ds.PatientTelephoneNumbers, ds.InstitutionName = "4 Baobab Road", "0712 555 0199", "Nord"
    ds.OperatorsName, ds.StationName, ds.DeviceSerialNumber = "Fall^Moussa", "XRAY1", "SN-77"
    ds.private_block(0x0011, "MAKER", create=True).add_new(1, "LO", "Ndiaye Awa")
    ds.save_as(came, enforce_file_format=True)
    parsed = header.read(came)
    assert not isinstance(parsed, Refusal)
    rendition = decode.render(parsed[0])
    assert not isinstance(rendition, Refusal)
    leaves = film(parsed[0], rendition, parsed[1], way_out)
    assert isinstance(leaves, Document)
    found = [("film", came.read_bytes(), leaves)]
    source = results.example()
    read = Read(7, 1, 1, ReadKind.CONFIRM, "Awa Ndiaye", results.NOON, source.film.decision.outcome, (), "", "")  # type: ignore[union-attr]
    kinds = [kind for kind in report.OUTSIDE if kind != "fhir"]
    for one in (*report.documents(source, kinds), *report.assessment(source, read, kinds)):
        leaves = deidentify(one, source.film.header, way_out)
        assert isinstance(leaves, Document)
        found.append((one.kind, one.data, leaves))
    assert [kind for kind, _, _ in found] == ["film", "sr", "banner", "gsps", "assessment"]
    return found


def test_no_validator_finds_more_than_before(tmp_path: Path, way_out: Door) -> None:
    for kind, before, leaves in pairs(way_out, tmp_path):
        came, goes = tmp_path / f"{kind}.came.dcm", tmp_path / f"{kind}.dcm"
        came.write_bytes(before)
        goes.write_bytes(leaves.data)
        assert errors(goes) <= errors(came), kind
        if kind in ("sr", "assessment"):
            told = subprocess.run([peer("dsrdump", "dcmtk"), goes], capture_output=True, text=True)
            assert told.returncode == 0 and "Imaging Measurement Report" in told.stdout, told.stderr


def test_dcmdump_shows_allowed_attributes_only(tmp_path: Path, way_out: Door) -> None:
    for kind, _, leaves in pairs(way_out, tmp_path):
        path = tmp_path / f"{kind}.dcm"
        path.write_bytes(leaves.data)
        told = subprocess.run([peer("dcmdump", "dcmtk"), path], capture_output=True, text=True, errors="replace")
        assert told.returncode == 0, told.stderr
        shown = {
            int(group + element, 16)
            for group, element in re.findall(r"^ *\(([0-9a-f]{4}),([0-9a-f]{4})\)", told.stdout, re.M)
        }
        shown = {tag for tag in shown if tag >> 16 not in (0x0002, 0xFFFE)}
        codes = {0x00080100, 0x00080102, 0x00080104, 0x00080119}
        assert shown - codes - SAYS_WHAT_WAS_DONE - {0x7FE00010} <= set(allowed()), kind
        assert len(shown) > 20
        assert (0x7FE00010 in shown) == (kind in ("film", "banner"))
