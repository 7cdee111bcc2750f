"""An archive next door to the hub: what it finds and fetches by DICOMweb, and a real Orthanc that does so."""

from __future__ import annotations

import hashlib
import io
import random
import re
import subprocess
from collections.abc import Iterator
from contextlib import closing
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
from edge.errors import Transient
from tests import hub as hubs
from tests import returned, seeds
from tests.conftest import peer
from tests.integration.test_hub_api import AWAY, PIXELS, SHA, STREAM, WADO, Api, film, named, value
from tests.orthanc import Orthanc
from web.hub import answers, archives, serve, stow
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


def found_by(api: Api, query: str) -> list[str]:
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
        assert found_by(api, query) == expected, query
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


def the_film(api: Api) -> Dataset:
    return dcmread(io.BytesIO(parts(api.archive.get(WADO.format(**api.known)))[0]))


def reason(answer: Any) -> int:
    """Why an object was not stored."""
    return int(value(value(answer.json, "FailedSOPSequence"), "FailureReason"))


WHO = seeds.person(random.Random(7), "Latin")


def test_what_is_made_of_a_film_next_door_comes_back_without_a_name(api: Api, tmp_path: Path) -> None:
    study, film_ = "2.25.71", the_film(api)
    before = len(parts(api.archive.get(f"/dicom-web/studies/{study}")))
    for make in returned.TAKEN:
        sent = returned.file(make(film_, WHO))
        assert len(seeds.hunt(sent, WHO)) > 5
        answers_ = [api.archive.stow(sent, study=study) for _ in range(2)]
        assert [one.status_code for one in answers_] == [202, 202]
        assert answers_[0].json == answers_[1].json, "the same again changes nothing"
        item = value(answers_[0].json, "ReferencedSOPSequence")
        assert value(item, "WarningReason") == 0xB000
        (kept,) = parts(api.archive.get(value(item, "RetrieveURL").removeprefix("http://localhost")))
        assert seeds.hunt(kept, WHO) == set()
        ds = dcmread(io.BytesIO(kept))
        whose = [str(ds[one].value) for one in ("PatientID", "PatientName", "StudyDate", "StudyInstanceUID")]
        assert whose == [str(film_[one].value) for one in ("PatientID", "PatientName", "StudyDate", "StudyInstanceUID")]
        assert any(one.value == film_.SOPInstanceUID for one in ds.iterall()), "it speaks of the film"
        found = api.archive.get(f"/dicom-web/studies/{study}/instances?SOPInstanceUID={ds.SOPInstanceUID}").json
        assert [value(one, "SOPClassUID") for one in found] == [ds.SOPClassUID]
        (model,) = api.archive.get(f"{value(item, 'RetrieveURL').removeprefix('http://localhost')}/metadata").json
        assert Dataset.from_json(model) == Dataset(ds)
        assert api.archive.stow(kept).status_code == 200, "what was fetched here comes back as it is"
    everything = parts(api.archive.get(f"/dicom-web/studies/{study}"))
    assert len(everything) == before + 3
    assert api.archive.stow(*everything).status_code == 200
    marks = next(one for one in map(dcmread, map(io.BytesIO, everything)) if one.Modality == "PR")
    assert [one.GraphicLayer for one in marks.GraphicAnnotationSequence] == ["LAYER1"], "the other mark was words"
    assert marks.SoftcopyVOILUTSequence[0].WindowCenter == 30000, "the grays are those of this film"
    (listed,) = api.archive.get(f"/dicom-web/studies?StudyInstanceUID={study}").json
    assert named(listed)["ModalitiesInStudy"]["Value"] == ["CR", "KO", "PR", "SR"]
    assert found_by(api, "?ModalitiesInStudy=KO") == [study]
    resource = api.archive.get(f"/fhir/ImagingStudy/{study}").json
    assert resource["numberOfInstances"] == len(everything)
    files = b"".join(one.read_bytes() for one in Path(api.hub.config.state).rglob("*") if one.is_file())
    assert seeds.hunt(files, WHO) == set(), "the whole store"


@pytest.mark.peer
def test_a_validator_finds_no_more_in_what_is_kept_than_in_what_came(api: Api, tmp_path: Path) -> None:
    def errors(data: bytes) -> set[str]:
        file = tmp_path / "one.dcm"
        file.write_bytes(data)
        told = subprocess.run([peer("dciodvfy", "dicom3tools"), file], capture_output=True, text=True, errors="replace")
        return {
            re.sub(r"= <.*?>|<[^<>]*>$|[0-9.]+$", "", one) for one in told.stderr.splitlines() if one[:5] == "Error"
        }

    for make in returned.TAKEN:
        came = returned.file(make(the_film(api), WHO))
        item = value(api.archive.stow(came).json, "ReferencedSOPSequence")
        (kept,) = parts(api.archive.get(value(item, "RetrieveURL").removeprefix("http://localhost")))
        assert errors(kept) <= errors(came), make


def test_what_may_not_come_in_is_refused_with_its_reason_and_nothing_of_it_is_kept(
    api: Api, monkeypatch: pytest.MonkeyPatch
) -> None:
    film_ = the_film(api)
    elsewhere, other, large = (returned.report(film_, WHO, number) for number in (11, 12, 13))
    elsewhere.StudyInstanceUID = "2.25.999"
    large.add_new(0x00420011, "OB", bytes(stow.OBJECT_BYTES))
    pixels = dcmread(io.BytesIO(parts(api.archive.get(WADO.format(**api.known)))[0]))
    pixels.PixelData = bytes(len(pixels.PixelData))
    first, changed = returned.report(film_, WHO, 14), returned.report(film_, WHO, 14)
    changed.ContentSequence[3].ConceptCodeSequence[0].CodeValue = "36118008"
    assert api.archive.stow(returned.file(first)).status_code == 202
    before = api.archive.get("/dicom-web/studies/2.25.71/instances").json
    for ds, expected in (
        (returned.segmentation(film_, WHO), stow.CLASS),
        (returned.words_alone(film_, WHO), stow.NOTHING),
        (elsewhere, stow.NO_STUDY),
        (large, stow.LARGE),
        (changed, stow.THERE),
        (pixels, stow.THERE),
    ):
        answer = api.archive.stow(returned.file(ds))
        assert (answer.status_code, reason(answer)) == (409, expected)
        assert stow.REASONS[expected] in answer.headers["Warning"]
    assert reason(api.archive.stow(returned.file(other), study="2.25.72")) == stow.OTHER_STUDY
    deflated = returned.file(returned.report(film_, WHO, 15)).replace(
        b"1.2.840.10008.1.2.1\0", b"1.2.840.10008.1.2.1.9"
    )
    for rubbish in (b"", b"rubbish", deflated, returned.file(other)[:300]):
        answer = api.archive.stow(rubbish)
        assert (answer.status_code, "OtherFailuresSequence" in named(answer.json)) == (400, True)
    both = api.archive.stow(returned.file(first), returned.file(elsewhere), b"rubbish")
    assert both.status_code == 202
    assert {"ReferencedSOPSequence", "FailedSOPSequence", "OtherFailuresSequence"} < named(both.json).keys()
    ask = api.app.test_client().post
    of = {"Authorization": f"Bearer {api.archive.token}"}
    whole = 'multipart/related; type="application/dicom"; boundary=b'
    for kind, body, status in (
        ("application/dicom", b"", 415),
        ('multipart/related; type="application/dicom+json"; boundary=b', b"--b\r\n\r\n{}\r\n--b--", 415),
        (whole, b"--b\r\nContent-Type: text/plain\r\n\r\nx\r\n--b--", 415),
        ("multipart/related", b"", 400),
        (whole, b"", 400),
        (whole, b"--b\r\n\r\nx\r\n", 400),
        (whole, b"--b\r\nx\r\n--b--", 400),
        (whole, b"--b--", 400),
        (whole, bytes(stow.BODY_BYTES + 1), 413),
    ):
        assert ask("/dicom-web/studies", data=body, content_type=kind, headers=of).status_code == status, (
            kind,
            body[:30],
        )
    assert api.archive.stow(returned.file(other), Accept="application/dicom+xml").status_code == 406

    def full(*_: object) -> None:
        raise Transient("The disk is full.")

    with monkeypatch.context() as patched:
        patched.setattr(api.hub.blobs, "write", full)
        assert api.archive.stow(returned.file(other)).status_code == 507
    assert api.archive.get("/dicom-web/studies/2.25.71/instances").json == before
    assert api.archive.stow(returned.file(other)).status_code == 202


def test_what_an_archive_sent_and_is_lost_can_be_sent_again(api: Api) -> None:
    sent = returned.file(returned.report(the_film(api), WHO, 21))
    url = value(value(api.archive.stow(sent).json, "ReferencedSOPSequence"), "RetrieveURL").removeprefix(
        "http://localhost"
    )
    (kept,) = parts(api.archive.get(url))
    name = hashlib.sha256(kept).hexdigest()
    (Path(api.hub.config.state) / "objects" / hubs.PROGRAMME / name[:2] / name).unlink()
    assert api.archive.get(url).status_code == 507
    assert ["sent is gone" in one for one in serve.check(api.hub)] == [True]
    assert api.archive.get(url).status_code == 404
    assert api.archive.stow(sent).status_code == 202
    assert parts(api.archive.get(url)) == [kept]


@pytest.mark.peer
def test_validators_of_other_projects_find_nothing_wrong(api: Api, tmp_path: Path) -> None:
    for place, data in enumerate(parts(api.archive.get("/dicom-web/studies/2.25.71"))[:3]):
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
    told = run("ledger")
    assert told.exit_code == 0 and "the ledger is whole" in told.stdout
    assert [line.split()[2:5] for line in told.stdout.splitlines()[:-1]] == [
        ["hub:", what, '{"name":"orthanc"}'] for what in ("archive", "no_archive")
    ]
    with closing(open_store(Config(state=str(tmp_path / "hub")))) as store, store.transaction("lakes") as db:
        db.run("UPDATE act SET detail = '{}' WHERE programme = :programme AND seq = 1")
    told = run("ledger")
    assert told.exit_code == 1 and "Line 1" in told.stderr and "whole" not in told.stdout


def shown_of(pacs: Orthanc, instance: str) -> Dataset:
    return dcmread(io.BytesIO(pacs.file(instance)))


@pytest.mark.peer
def test_orthanc_pulls_films_and_reports_sends_back_and_nothing_is_there_twice(tmp_path: Path) -> None:
    with hubs.Served(tmp_path) as served:
        box = hubs.Courier(hubs.over(served.connect()))
        assert box.enrol(served.code())[0] == 200
        box.tell(*film(1, SHA, len(STREAM)))
        assert box.patch(STREAM[:900], 0, sha256=SHA)[0] == 204
        store = open_store(Config(state=str(served.state)))
        with store.transaction(hubs.PROGRAMME) as db:
            token = archives.add(db, "orthanc")
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
            # what is made of it there goes back, by Orthanc's own client
            box_of = {one["Modality"]: one["ID"] for one in kept}
            local = pacs.post("/instances", returned.file(returned.key_objects(shown_of(pacs, box_of["CR"]), WHO)))[
                "ID"
            ]
            for _ in range(2):
                assert pacs.post("/dicom-web/servers/hub/stow", {"Resources": [local], "Synchronous": True})
            assert pacs.post("/dicom-web/servers/hub/stow", {"Resources": list(box_of.values()), "Synchronous": True})
            (back,) = [one for one in pull() if one["Modality"] == "KO" and one["ID"] != local]
            assert seeds.hunt(pacs.file(back["ID"]), WHO) == set() != seeds.hunt(pacs.file(local), WHO)
            (shown,) = [shown_of(pacs, one["ID"]) for one in kept if one["Modality"] == "CR"]
            assert np.array_equal(shown.pixel_array, PIXELS)
