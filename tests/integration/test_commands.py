"""The commands as people type them."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import msgspec
import pytest
from pydicom import dcmread

from edge import config as settings
from edge.box import wait_for_port
from edge.config import Worker
from edge.samples import film, jpeg2000, real_films
from edge.sending import send
from models import phantom
from models.bundle import SHIPPED
from tests.box import ROOT, Box, until
from tests.conftest import peer

FIELDS = {"file", "sop_instance_uid", "outcome", "reason", "findings", "model", "device_uid", "ms"}
OUTCOMES = {"immediate", "soon", "routine", "could_not_assess"}


def outpost(*arguments: str, status: int = 0, before: tuple[str, ...] = ()) -> subprocess.CompletedProcess[str]:
    """Run `outpost` and see that it ends as expected."""
    done = subprocess.run(
        [*before, sys.executable, "-m", "edge", *arguments], capture_output=True, text=True, cwd=ROOT, env=os.environ
    )
    assert done.returncode == status, done.stderr
    return done


def triage(*paths: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in outpost("triage", "--json", *map(str, paths)).stdout.splitlines()]


def test_triage_gives_one_object_per_film(tmp_path: Path) -> None:
    film(phantom.chest(1), "Test^One", "050Y", "F").save_as(tmp_path / "a film.dcm", enforce_file_format=True)
    shutil.copy(tmp_path / "a film.dcm", tmp_path / "the same again.dcm")
    (tmp_path / "notes.txt").write_text("no film")
    (tmp_path / "empty").touch()
    found = triage(tmp_path, real_films()[0][1])
    assert [Path(one["file"]).name for one in found] == [
        "a film.dcm",
        "empty",
        "notes.txt",
        "the same again.dcm",
        "RG1_J2KR.dcm",
    ]
    for one in found:
        assert set(one) >= FIELDS
        assert one["outcome"] in OUTCOMES
        assert (one["reason"] is None) == (one["outcome"] != "could_not_assess")
        for finding in one["findings"]:
            low, high = finding["interval"]
            assert 0 <= low <= finding["probability"] <= high <= 1
            assert isinstance(finding["unsure"], bool)
    assert found[1]["reason"] == found[2]["reason"] == "not_dicom"
    assert found[0]["findings"] == found[3]["findings"]


@pytest.mark.peer
def test_every_transfer_syntax_that_the_readme_promises(tmp_path: Path) -> None:
    """Written by dcmtk, assessed in the worker's own process, where codecs are imported when a film needs them."""
    plain, shallow = tmp_path / "plain.dcm", tmp_path / "8 bit.dcm"
    dataset = film(phantom.chest(1, (1024, 896)), "Test^One", "050Y", "F")
    dataset.save_as(plain, enforce_file_format=True)
    jpeg2000(dataset).save_as(tmp_path / "JPEG 2000.dcm", enforce_file_format=True)
    dataset = film(phantom.chest(1, (1024, 896)), "Test^One", "050Y", "F")
    dataset.PixelData = (dataset.pixel_array >> 4).astype("u1").tobytes()
    dataset.BitsAllocated, dataset.BitsStored, dataset.HighBit = 8, 8, 7
    dataset.WindowCenter, dataset.WindowWidth = 128, 256
    dataset.save_as(shallow, enforce_file_format=True)
    for name, program, option, source in (
        ("implicit", "dcmconv", "+ti", plain),
        ("big endian", "dcmconv", "+tb", plain),
        ("deflated", "dcmconv", "+td", plain),
        ("RLE", "dcmcrle", "--fragment-per-frame", plain),
        ("JPEG lossless", "dcmcjpeg", "+el", plain),
        ("JPEG lossless SV1", "dcmcjpeg", "+e1", plain),
        ("JPEG-LS", "dcmcjpls", "+el", plain),
        ("JPEG-LS near", "dcmcjpls", "+en", plain),
        ("JPEG baseline", "dcmcjpeg", "+eb", shallow),
    ):
        subprocess.run([peer(program, "dcmtk"), option, str(source), str(tmp_path / f"{name}.dcm")], check=True)
    found = {Path(one["file"]).stem: one for one in triage(tmp_path)}
    assert len(found) == 12
    assert {name: one["reason"] for name, one in found.items() if not one["findings"]} == {}
    probabilities = {name: one["findings"][0]["probability"] for name, one in found.items()}
    exact = ("implicit", "big endian", "deflated", "RLE", "JPEG lossless", "JPEG lossless SV1", "JPEG-LS")
    assert {probabilities[name] for name in exact} == {probabilities["plain"]}


def test_triage_shows_a_ranked_list_and_writes_maps(tmp_path: Path) -> None:
    path = tmp_path / "film.dcm"
    film(phantom.chest(4, opacity=True), "Test^One", "002Y", "F").save_as(path, enforce_file_format=True)
    shown = outpost("triage", "--out", str(tmp_path / "out"), str(path)).stdout
    assert "film.dcm" in shown and "Preliminary: a person decides." in shown
    made = {file.name.removeprefix("film.dcm."): file for file in (tmp_path / "out").iterdir()}
    assert set(made) == {"json", "map.png", "sr.dcm", "sc.dcm", "gsps.dcm", "fhir.json"}
    assert json.loads(made["fhir.json"].read_bytes())["resourceType"] == "Bundle"
    picture = dcmread(made["sc.dcm"])
    assert picture.SamplesPerPixel == 3 and picture.Rows > 1024, "the film with its heat map stands above the words"
    assert dcmread(made["sr.dcm"]).StudyInstanceUID == dcmread(path).StudyInstanceUID


def test_results_of_files_with_the_same_name_do_not_overwrite_each_other(tmp_path: Path) -> None:
    for folder, age in (("a", "002Y"), ("b", "003Y")):
        (tmp_path / folder).mkdir()
        film(phantom.chest(4), f"Test^{folder}", age, "F").save_as(
            tmp_path / folder / "film.dcm", enforce_file_format=True
        )
    (tmp_path / "b" / "FILM.dcm").write_bytes(b"no film")
    outpost("triage", "--out", str(tmp_path / "out"), str(tmp_path / "a"), str(tmp_path / "b"))
    whose = {
        one.name: json.loads(one.read_bytes())["file"]
        for one in (tmp_path / "out").glob("*.json")
        if "fhir" not in one.name
    }
    assert set(whose) == {"film.dcm.json", "FILM-2.dcm.json", "film-3.dcm.json"} and len(set(whose.values())) == 3


def test_a_site_that_only_triages_shows_no_map(tmp_path: Path) -> None:
    path, file = tmp_path / "film.dcm", tmp_path / "outpost.toml"
    film(phantom.chest(4, opacity=True), "Test^One", "002Y", "F").save_as(path, enforce_file_format=True)
    file.write_text("[policy]\ntriage_only = true\n")
    outpost("--config", str(file), "triage", "--out", str(tmp_path / "out"), str(path))
    made = {one.name.removeprefix("film.dcm.") for one in (tmp_path / "out").iterdir()}
    assert made == {"json", "sr.dcm", "sc.dcm", "fhir.json"}
    assert dcmread(tmp_path / "out" / "film.dcm.sc.dcm").SamplesPerPixel == 1


def test_usage_errors_have_status_2() -> None:
    outpost("triage", status=2)
    outpost("triage", "/no/such/file", status=2)
    outpost("fly", status=2)


@pytest.mark.peer
def test_the_demo_needs_no_network() -> None:
    """In a network namespace of its own, with nothing but loopback."""
    unshare = peer("unshare", "util-linux")
    ip = peer("ip", "iproute2")
    script = f'{ip} link set lo up && {ip} -o link | grep -qv "lo:" && exit 9; exec "$@"'
    done = outpost("demo", "--once", before=(unshare, "--map-root-user", "--net", "sh", "-c", script, "sh"))
    assert "Preliminary: a person decides." in done.stdout
    assert "chest CR, JPEG 2000 lossless" in done.stdout


def test_check_says_what_works_and_what_to_do(tmp_path: Path) -> None:
    box = Box(tmp_path)
    shown = outpost("--config", str(box.file), "check").stdout
    assert shown.count("✔") == 12 and "shadow mode" in shown
    settings.save(msgspec.structs.replace(box.config, worker=Worker(bundle=str(tmp_path / "none"))), box.file)
    shown = outpost("--config", str(box.file), "check", status=1).stdout
    assert "✘ model" in shown and "worker.bundle" in shown


def test_settings_that_are_wrong_name_their_key(tmp_path: Path) -> None:
    path = tmp_path / "outpost.toml"
    path.write_text("[intake]\nportt = 1\n")
    assert "portt" in outpost("--config", str(path), "check", status=78).stderr


def test_models_are_listed_and_verified(tmp_path: Path) -> None:
    assert f"* {SHIPPED.name}" in outpost("models", "list").stdout
    assert "agree" in outpost("models", "verify").stdout
    bundle = Path(shutil.copytree(SHIPPED, tmp_path / "bundle"))
    (bundle / "model.onnx").write_bytes(b"something else")
    assert "model.onnx" in outpost("models", "verify", str(bundle), status=76).stderr


def test_with_a_tampered_model_films_are_still_accepted_and_the_screen_says_why(tmp_path: Path) -> None:
    bundle = Path(shutil.copytree(SHIPPED, tmp_path / "bundle"))
    (bundle / "gate.npz").write_bytes(b"something else")
    box = Box(tmp_path)
    settings.save(msgspec.structs.replace(box.config, worker=Worker(bundle=str(bundle))), box.file)
    path = tmp_path / "film.dcm"
    film(phantom.chest(1, (256, 256)), "Test^One", "050Y", "F").save_as(path, enforce_file_format=True)

    with box:
        send("127.0.0.1", box.port, "OUTPOST", path)
        wait_for_port(box.config.web.port)
        until(lambda: "The AI is stopped" in box.page(), "the page says that the AI is stopped")
    assert len(box.films()) == 1


@pytest.mark.needs_data
def test_real_films_of_every_kind() -> None:
    """Only with the real films beside the repository: nothing but a frontal chest gets a finding."""
    data = ROOT.parent / "shared" / "data" / "dicom"
    if not data.is_dir():
        pytest.skip("needs the real films in shared/data beside the repository")
    found = triage(data)
    assert len(found) == sum(path.is_file() for path in data.rglob("*"))
    with_findings = {Path(one["file"]).name.split("_")[0] for one in found if one["findings"]}
    assert with_findings == {"RG1", "rsna"}
