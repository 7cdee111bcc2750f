"""FHIR at the hub, before programs of other projects: what an archive reads of films and reads, page by page, and nothing else."""

from __future__ import annotations

import json
from collections.abc import Iterator
from typing import Any
from urllib.parse import urlsplit

import msgspec
import pytest
from fhir.resources.R4B import get_fhir_model_class

from edge.records import Outcome, Reason
from tests.fhir import validated
from tests.hub import PROGRAMME, result
from tests.integration.test_hub_api import Api, film
from web.hub import tasks
from web.hub.records import Finding, Reader
from web.hub.store import now


@pytest.fixture(scope="module")
def api(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Api]:
    """Four films: read at once, waiting, not assessed, and read by one who asks for another read."""
    made = Api(tmp_path_factory.mktemp("hub"))
    said, image = film(1, "ab" * 32, 70_000)
    read = msgspec.structs.replace(said, case="2.25.3", patient="P" + "D" * 16, study=None)
    refused = result(4, Outcome.COULD_NOT_ASSESS, reason=Reason.NOT_FRONTAL, study="2.25.71", patient=said.patient)
    made.box.tell(read, msgspec.structs.replace(image, case="2.25.3"), refused, first=5)
    second = Finding(outcome=Outcome.SOON, codes=("effusion",), second=True)
    with made.hub.store.transaction(PROGRAMME) as db:
        task = next(one for one in tasks.queue(db, READER, now()) if one.case.result.case == "2.25.3").task
        assert tasks.claim(db, READER, 60, now(), task.id)
        assert tasks.finish(db, READER, "Dr Ba", task.id, second, "k" * 16, made.hub.rules, now())
    yield made
    made.hub.store.close()


READER = Reader(programme=PROGRAMME, name="Dr Ba")


def pages(api: Api, path: str) -> list[list[dict[str, Any]]]:
    """The resources of a search, as its links lead on."""
    found = []
    while path:
        answer = api.archive.get(path)
        assert answer.status_code == 200, answer.data
        bundle = answer.json
        found.append([entry["resource"] for entry in bundle.get("entry", [])])
        following = [urlsplit(link["url"]) for link in bundle["link"] if link["relation"] == "next"]
        path = f"{following[0].path}?{following[0].query}" if following else ""
    return found


def everything(api: Api, path: str) -> list[dict[str, Any]]:
    return [one for page in pages(api, path) for one in page]


def test_reports_are_preliminary_until_a_read_is_final(api: Api) -> None:
    reports = {one["identifier"][0]["value"]: one for one in everything(api, "/fhir/DiagnosticReport")}
    assert {uid.rpartition(".")[2]: one["status"] for uid, one in reports.items()} == {
        "1": "final",
        "2": "preliminary",
        "3": "preliminary",
        "4": "preliminary",
    }
    read = reports["urn:oid:2.25.1"]
    assert read["resultsInterpreter"][0]["display"] == "Dr Ba"
    assert read["subject"]["identifier"]["value"] == "P" + "B" * 16
    observed = [api.archive.get(f"/fhir/{one['reference']}").json for one in read["result"]]
    assert [one["status"] for one in observed] == ["final"], "the AI said soon, the person immediate"
    said = json.dumps(observed)
    assert "Act now" in said and "95436008" in said
    for one in everything(api, "/fhir/DiagnosticReport?status=final"):
        assert one["id"] == read["id"]
    assert [
        one["id"] for one in everything(api, "/fhir/DiagnosticReport?identifier=urn:ietf:rfc:3986|urn:oid:2.25.1")
    ] == [read["id"]]
    (study,) = everything(api, "/fhir/ImagingStudy?identifier=urn:dicom:uid|urn:oid:2.25.71")
    assert study["numberOfInstances"] == 4, "two films of a study, one of them without its picture"
    uids = {one["00080018"]["Value"][0] for one in api.archive.get("/dicom-web/studies/2.25.71/instances").json}
    assert {one["instance"][0]["uid"] for one in study["series"]} == uids


@pytest.mark.parametrize("kind", ["ImagingStudy", "DiagnosticReport", "Observation"])
def test_pages_give_everything_once_and_only_what_is_new(api: Api, kind: str) -> None:
    whole = [one["id"] for one in everything(api, f"/fhir/{kind}")]
    assert len(whole) == len({*whole}) >= 3
    for count in (1, 2, 3):
        by_page = pages(api, f"/fhir/{kind}?_count={count}")
        assert all(len(page) <= count for page in by_page)
        assert [one["id"] for page in by_page for one in page] == whole
    newest = everything(api, f"/fhir/{kind}")[-1]["meta"]["lastUpdated"].replace("+", "%2B")
    assert whole[-1] in [one["id"] for one in everything(api, f"/fhir/{kind}?_lastUpdated=ge{newest}")]
    assert everything(api, f"/fhir/{kind}?_lastUpdated=lt2020-01-01") == []


@pytest.mark.peer
def test_every_resource_is_valid(api: Api) -> None:
    kinds = ("ImagingStudy", "DiagnosticReport", "Observation", "Device")
    bundles = [api.archive.get(f"/fhir/{kind}").data for kind in kinds]
    made = [*bundles, api.archive.get("/fhir/metadata").data, api.archive.get("/fhir/Observation/0").data]
    for one in made:
        resource = json.loads(one)
        get_fhir_model_class(resource["resourceType"]).model_validate(resource)
    assert validated(made) == [[] for _ in made]


def test_what_cannot_be_answered_is_said_in_fhir(api: Api) -> None:
    for path, status in {
        "/fhir/Patient": 404,
        "/fhir/DiagnosticReport/999": 404,
        "/fhir/DiagnosticReport?_lastUpdated=soon": 400,
        "/fhir/DiagnosticReport?_count=0": 400,
        "/fhir/Observation?page=x": 400,
    }.items():
        answer = api.archive.get(path)
        assert (answer.status_code, answer.json["resourceType"]) == (status, "OperationOutcome"), path
    assert api.archive.get("/fhir/Device", Accept="application/fhir+xml").status_code == 406
    assert api.app.test_client().get("/fhir/Device").status_code == 401
