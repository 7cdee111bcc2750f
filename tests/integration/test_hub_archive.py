"""An archive next door to the hub: what it finds and fetches by DICOMweb, and a real Orthanc that does so."""

from __future__ import annotations

import io
import subprocess
from collections.abc import Iterator
from email import message_from_bytes
from email.policy import HTTP
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from click.testing import CliRunner
from pydicom import Dataset, dcmread
from pydicom.encaps import get_frame
from pydicom.uid import ExplicitVRLittleEndian, HTJ2KLossless

from edge.cli import main
from tests import hub as hubs
from tests.conftest import peer
from tests.integration.test_hub_api import AWAY, PIXELS, SHA, STREAM, WADO, Api, film, named, value
from tests.orthanc import Orthanc
from web.hub import answers, archives, sites
from web.hub.config import Config
from web.hub.store import open_store

HTJ2K = 'multipart/related; type="application/dicom"; transfer-syntax=1.2.840.10008.1.2.4.201'
FRAMES = "multipart/related; type=application/octet-stream; transfer-syntax=*"


@pytest.fixture(scope="module")
def api(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Api]:
    made = Api(tmp_path_factory.mktemp("hub"))
    yield made
    made.hub.store.close()


def parts(answer: Any) -> list[bytes]:
    """The bodies of a multipart answer, by Python's own reader of mail."""
    whole = message_from_bytes(
        b"Content-Type: " + answer.content_type.encode() + b"\r\n\r\n" + answer.data, policy=HTTP
    )
    return [part.get_payload(decode=True) for part in whole.iter_parts()]  # type: ignore[attr-defined]


def found(api: Api, query: str) -> list[str]:
    """The studies that a search finds."""
    answer = api.archive.get(f"/dicom-web/studies{query}")
    assert answer.status_code == 200, answer.data
    return [value(study, "StudyInstanceUID") for study in answer.json]


def test_studies_are_found_by_what_is_known_of_them(api: Api) -> None:
    one, two = "2.25.71", "2.25.72"
    for query, expected in {
        "": [one, two],
        "?PatientID=PBBBBBBBBBBBBBBBB": [one],
        "?00100020=PB*": [one],
        "?PatientName=P%25": [],
        "?PatientID=?CCCCCCCCCCCCCCCC": [two],
        f"?StudyInstanceUID={two},2.25.9": [two],
        "?StudyDate=20260101": [one, two],
        "?StudyDate=20251231-": [one, two],
        "?StudyDate=-20251231": [],
        "?ModalitiesInStudy=CR&AccessionNumber=": [one, two],
        "?ModalitiesInStudy=CT": [],
        "?AccessionNumber=7": [],
        "?limit=1": [one],
        "?limit=1&offset=1": [two],
    }.items():
        assert found(api, query) == expected, query
    assert "offset" in api.archive.get("/dicom-web/studies?limit=1").headers["Warning"]
    assert "BodyPartExamined" in api.archive.get("/dicom-web/studies?BodyPartExamined=CHEST").headers["Warning"]
    assert api.archive.get("/dicom-web/studies?StudyDate=yesterday").status_code == 400
    first, second = api.archive.get("/dicom-web/studies").json
    assert [value(study, "InstanceAvailability") for study in (first, second)] == ["ONLINE", "NEARLINE"]
    assert named(first)["ModalitiesInStudy"]["Value"] == ["CR", "SR"]
    assert value(first, "NumberOfStudyRelatedInstances") == 3, "the film, what the AI says, what a reader says"
    series = api.archive.get(f"/dicom-web/studies/{one}/series?Modality=SR").json
    assert [value(each, "SeriesDescription") for each in series] == [
        "Pneumonia: AI triage, preliminary",
        "A teleradiologist's read",
    ]


def test_a_film_is_fetched_plain_or_as_stored_to_the_last_gray(api: Api) -> None:
    path = WADO.format(**api.known)
    (plain,) = map(io.BytesIO, parts(api.archive.get(path)))
    (stored,) = map(io.BytesIO, parts(api.archive.get(path, Accept=HTJ2K)))
    for file, syntax in ((plain, ExplicitVRLittleEndian), (stored, HTJ2KLossless)):
        ds = dcmread(file)
        assert ds.file_meta.TransferSyntaxUID == syntax
        assert np.array_equal(ds.pixel_array, PIXELS)
    assert get_frame(ds.PixelData, 0).rstrip(b"\0") == STREAM.rstrip(b"\0"), "not coded anew"
    assert parts(api.archive.get(f"{path}/frames/1", Accept=FRAMES)) == [PIXELS.astype("<u2").tobytes()]
    assert api.archive.get(f"{path}/frames/1", Accept="image/jphc").data == STREAM
    (model,) = api.archive.get(f"{path}/metadata").json
    plain.seek(0)
    assert Dataset.from_json(model) == Dataset({tag: one for tag, one in dcmread(plain).items() if tag != 0x7FE00010})
    assert parts(api.archive.get(path)) == parts(api.archive.get(path)), "the same each time"
    for wrong in ("application/dicom+xml", "image/jpeg", "multipart/related; type=image/jpeg"):
        assert api.archive.get(path, Accept=wrong).status_code == 406
    for away in (f"{path}/frames/2", path[:-1], "/dicom-web/studies/2.25.9"):
        assert api.archive.get(away).status_code == 404, away


def test_what_is_still_at_the_clinic_is_asked_for_once(api: Api) -> None:
    path = "/dicom-web/studies/2.25.72"
    for _ in range(2):
        answer = api.archive.get(path)
        assert answer.status_code == 206
        (said,) = [dcmread(io.BytesIO(part)) for part in parts(answer)]
        assert said.Modality == "SR"
        assert "Operating point not known here" in str(said), "a model that the hub does not have"
    film_of = next(one for one in api.archive.get(f"{path}/instances").json if "Rows" in named(one))
    answer = api.archive.get(path + f"/series/{value(film_of, 'SeriesInstanceUID')}")
    assert answer.status_code == 503 and int(answer.headers["Retry-After"]) > 0
    with api.hub.store.reading(hubs.PROGRAMME) as db:
        _, told = answers.after(db, hubs.SITE.name, "", 0, "")
    assert [one.body.upto for one in told if getattr(one.body, "sha256", "") == AWAY] == [90_000]


def test_another_programme_s_archive_sees_nothing(api: Api) -> None:
    with api.hub.store.transaction() as db:
        sites.add_programme(db, "hills", "")
        api_of = {"Authorization": f"Bearer {archives.add(db, 'theirs', 'hills')}"}
    assert api.archive.get("/dicom-web/studies", **api_of).json == []
    assert api.archive.get(WADO.format(**api.known), **api_of).status_code == 404


@pytest.mark.peer
def test_validators_of_other_projects_find_nothing_wrong(api: Api, tmp_path: Path) -> None:
    for place, data in enumerate(parts(api.archive.get("/dicom-web/studies/2.25.71"))):
        file = tmp_path / f"{place}.dcm"
        file.write_bytes(data)
        told = subprocess.run([peer("dciodvfy", "dicom3tools"), file], capture_output=True, text=True)
        assert [line for line in told.stderr.splitlines() if line.startswith("Error")] == [], place
        if place:
            said = subprocess.run([peer("dsrdump", "dcmtk"), file], capture_output=True, text=True)
            assert said.returncode == 0, said.stderr


def test_a_token_is_told_once_and_refused_once_it_is_removed(tmp_path: Path) -> None:
    file = tmp_path / "hub.toml"
    file.write_text(f'state = "{tmp_path}/hub"\n')

    def run(*command: str) -> Any:
        return CliRunner().invoke(main, ["--config", str(file), "hub", *command])

    run("programme", "lakes")
    token = run("archive", "add", "orthanc").stdout.strip()
    assert len(token) > 40
    assert token.encode() not in b"".join(one.read_bytes() for one in (tmp_path / "hub").iterdir() if one.is_file())
    assert run("archive", "list").stdout == "orthanc\n"
    assert run("archive", "add", "orthanc").exit_code == 2
    assert run("archive", "remove", "orthanc").exit_code == 0
    assert run("archive", "remove", "orthanc").exit_code == 2
    assert run("archive", "list").stdout == ""


@pytest.mark.peer
def test_orthanc_pulls_films_and_reports_and_nothing_twice(tmp_path: Path) -> None:
    with hubs.Served(tmp_path) as served:
        box = hubs.Courier(hubs.over(served.connect()))
        assert box.enrol(served.code())[0] == 200
        box.tell(*film(1, SHA, len(STREAM)))
        assert box.patch(STREAM[:900], 0, sha256=SHA)[0] == 204
        store = open_store(Config(state=str(served.state)))
        with store.transaction() as db:
            token = archives.add(db, "orthanc", hubs.PROGRAMME)
        store.close()
        near = {
            "Url": f"https://localhost:{served.port}/dicom-web/",
            "HttpHeaders": {"Authorization": f"Bearer {token}"},
        }
        more = {
            "DicomWeb": {"Enable": True, "Root": "/dicom-web/", "Servers": {"hub": near}},
            "HttpsCACertificates": str(served.state / "tls.pem"),
        }
        with Orthanc(tmp_path, more=more) as pacs:

            def pull() -> list[dict[str, Any]]:
                studies = pacs.post("/dicom-web/servers/hub/qido", {"Uri": "/studies"})
                uids = [study["0020000D"]["Value"] for study in studies]
                pacs.post("/dicom-web/servers/hub/retrieve", {"Resources": [{"Study": uid} for uid in uids]})
                return pacs.instances()

            assert [one["Modality"] for one in pull()] == ["SR"], "the film is not all here"
            assert box.patch(STREAM[900:], 900, sha256=SHA)[0] == 204
            kept = pull()
            assert sorted(one["Modality"] for one in kept) == ["CR", "SR"]
            assert {one["PatientID"] for one in kept} == {"P" + "B" * 16}
            assert pull() == kept
            (shown,) = [dcmread(io.BytesIO(pacs.file(one["ID"]))) for one in kept if one["Modality"] == "CR"]
            assert np.array_equal(shown.pixel_array, PIXELS)
