"""What the hub says of its interface is so: schemathesis asks what it allows and what it does not, on both databases."""

from __future__ import annotations

import hashlib
import random
import re
from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import Any
from urllib.parse import unquote

import numpy as np
import pytest
import schemathesis
from flask import Flask
from hypothesis import given
from hypothesis import settings as how
from pydicom import Dataset
from pydicom.datadict import keyword_for_tag
from schemathesis import GenerationMode
from schemathesis.specs.openapi.checks import ignored_auth, positive_data_acceptance

from edge import cards
from edge.records import Outcome
from edge.stages import codestream
from tests import returned, seeds
from tests.hub import PROGRAMME, Archive, Courier, code, result, settings
from tests.integration.test_hub_sync import within
from tests.postgresql import postgresql
from web.hub import app as application
from web.hub import archives, sites, tasks, zoo
from web.hub.config import Database
from web.hub.here import NAME, Hub
from web.hub.openapi import description
from web.hub.records import Finding, Reader
from web.hub.store import now

schemathesis.serializer.alias("multipart/related", "application/octet-stream")  # as it comes

PIXELS = np.random.default_rng(3).integers(0, 2**16, (70, 60), dtype=np.uint16)
STREAM = codestream.encode(PIXELS)
SHA = hashlib.sha256(STREAM).hexdigest()
AWAY = hashlib.sha256(b"a film that is at its clinic").hexdigest()


FOUND = Finding(outcome=Outcome.IMMEDIATE, codes=("consolidation",), advice=("act_now",))
WADO = "/dicom-web/studies/{study}/series/{series}/instances/{instance}"


class Api:
    """A hub, a box that it knows with a film that was read and one that is still at its clinic, and an archive next door."""

    def __init__(self, folder: Path, database: str = "") -> None:
        self.examples = 1 if database else 3
        self.app: Flask = application.create(settings(folder, database=Database(postgresql=database)))
        self.hub: Hub = self.app.extensions[NAME]
        self.box = Courier(within(self.app))
        assert self.box.enrol(code(self.hub.store))[0] == 200
        self.box.tell(*film(1, SHA, len(STREAM)), *film(2, AWAY, 90_000))
        assert self.box.patch(STREAM, 0, sha256=SHA)[0] == 204
        self.archive = Archive(self.app)
        reader = Reader(programme=PROGRAMME, name="Dr Ba")
        with self.hub.store.transaction(PROGRAMME) as db:
            task = tasks.claim(db, reader, 60, now())
            assert task is not None
            assert tasks.finish(db, reader, "Dr Ba", task.id, FOUND, "k" * 16, self.hub.rules, now())
        study = self.archive.get("/dicom-web/studies?ModalitiesInStudy=CR").json[0]
        self.known = {"sha256": SHA, "frame": 1, "kind": "ImagingStudy", "name": "2.25.71"}
        self.known["study"] = value(study, "StudyInstanceUID")
        for one in self.archive.get(f"/dicom-web/studies/{self.known['study']}/instances").json:
            if "Rows" in named(one):
                self.known |= {"series": value(one, "SeriesInstanceUID"), "instance": value(one, "SOPInstanceUID")}


def film(number: int, sha256: str, size: int) -> tuple[cards.Result, cards.Image]:
    """A film of a study of its own."""
    seen = cards.Likelihood(finding="pneumonia", scheme="SCT", code="233604007", probability=0.81, low=0.7, high=0.9)
    said = result(
        number,
        study=f"2.25.{70 + number}",
        patient="P" + "ABC"[number] * 16,
        findings=(seen,),
        model=next(iter(zoo.manifests())) if number == 1 else "programme-own 7",
        operating_point="balanced",
    )
    rows, columns = PIXELS.shape
    picture = cards.Picture(
        sha256=sha256,
        size=size,
        rows=rows,
        columns=columns,
        windows=((32768.0, 65535.0),),
        millimetres=0.2,
        at_detector=True,
    )
    return said, cards.Image(case=said.case, picture=picture)


def named(model: dict[str, Any]) -> dict[str, Any]:
    """An object of the DICOM JSON Model by keywords."""
    return {keyword_for_tag(tag): element for tag, element in model.items()}


def value(model: dict[str, Any], keyword: str) -> Any:
    """The first value of an attribute."""
    return named(model)[keyword]["Value"][0]


@pytest.fixture(scope="module", params=["sqlite", pytest.param("postgresql", marks=pytest.mark.peer)])
def api(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Api]:
    with ExitStack() as keep:
        database = keep.enter_context(postgresql()).database() if request.param == "postgresql" else ""
        made = Api(tmp_path_factory.mktemp("hub"), database)
        keep.callback(made.hub.store.close)
        yield made


def ask(case: Any, api: Api) -> int:
    """As the box does, and hold the answer against the description; gives its status."""
    body = case.as_transport_kwargs().get("data", b"")
    sent = case.headers or {}
    offset = str(sent.get("Upload-Offset", sent.get("Outpost-Offset", "")))
    signed = body if isinstance(body, bytes) and case.method == "POST" else b""
    number = int(offset) if offset.isascii() and offset.isdigit() else None
    case.headers.update(api.box.headers(case.method, unquote(case.formatted_path), number, signed))
    case.headers["Authorization"] = f"Bearer {api.archive.token}"
    # what means something is signed and sealed: random bytes never do; and here each has what it needs
    excluded = [positive_data_acceptance, ignored_auth]
    return int(case.call_and_validate(excluded_checks=excluded).status_code)


def test_the_hub_answers_as_it_says(api: Api) -> None:
    schema = schemathesis.openapi.from_wsgi("/openapi.json", api.app)
    operations = [found.ok() for found in schema.get_all_operations()]
    assert {one.label for one in operations} >= {"POST /sync/enrol", "PATCH /sync/objects/{sha256}"}
    seen = set()

    def held(case: Any) -> None:
        seen.add((case.operation.label, ask(case, api)))

    for operation in operations:
        known = {one.name: api.known[one.name] for one in operation.path_parameters}
        asked = [*operation.iter_parameters(), *operation.body]
        modes = GenerationMode if asked else [GenerationMode.POSITIVE]  # who asks nothing can ask nothing wrong
        strategies = [operation.as_strategy(mode) for mode in modes]
        for cases in [*strategies, *([operation.as_strategy(path_parameters=known)] if known else [])]:
            how(max_examples=api.examples, database=None)(given(case=cases)(held))()
    assert seen >= {("GET /fhir/{kind}", 200), ("GET /fhir/{kind}/{name}", 200), ("GET /fhir/metadata", 200)}
    assert seen >= {
        ("GET /sync/objects/{sha256}", 204),
        ("PATCH /sync/objects/{sha256}", 409),
        ("POST /sync/parcels", 422),
    }


def test_a_text_that_no_database_takes_is_refused(api: Api) -> None:
    client = api.app.test_client()
    path = "/sync/objects/\0"
    assert client.get("/sync/objects/%00", headers=api.box.headers("GET", path)).status_code == 400
    form = {"name": "Dr\0", "secret": "x", "code": "1"}
    assert client.post("/sign-in", data=form, headers={"Sec-Fetch-Site": "same-origin"}).status_code == 400
    assert client.get("/openapi.json?a=%00").status_code == 400


def test_what_an_archive_sends_is_kept_once_for_its_programme_alone(api: Api) -> None:
    study = api.archive.get(f"/dicom-web/studies?StudyInstanceUID={api.known['study']}").json[0]
    film_ = Dataset.from_json(api.archive.get(f"{WADO.format(**api.known)}/metadata").json[0])
    who = seeds.person(random.Random(3), "Cyrillic")
    first, other = returned.key_objects(film_, who), returned.key_objects(film_, who)
    other.ContentSequence[0].TextValue = other.ContentTime = "111111"
    assert [api.archive.stow(returned.file(one)).status_code for one in (first, first, other)] == [202, 202, 409]
    number = value(study, "NumberOfStudyRelatedInstances") + 1
    assert len(api.archive.get(f"/dicom-web/studies/{api.known['study']}/instances").json) == number
    with api.hub.store.transaction() as db:
        sites.add_programme(db, "hills", "")
    with api.hub.store.transaction("hills") as db:
        api_of = {"Authorization": f"Bearer {archives.add(db, 'theirs')}"}
    assert api.archive.stow(returned.file(first), **api_of).status_code == 409
    assert api.archive.get("/dicom-web/studies", **api_of).json == []
    assert api.archive.get(WADO.format(**api.known), **api_of).status_code == 404


def test_nobody_asks_without_saying_who(api: Api) -> None:
    for path, entry in description(api.app)["paths"].items():
        for method in entry.keys() - {"parameters"}:
            if path in ("/openapi.json", "/fhir/metadata"):
                continue
            for headers in ({}, {"Authorization": "Bearer x", "Outpost-Device": "x", "Outpost-Signature": "eA=="}):
                asked = re.sub(r"{(\w+)}", lambda name: str(api.known[name[1]]), path)
                given = {**headers, **dict.fromkeys(("Upload-Offset", "Outpost-Offset", "Outpost-Length"), "0")}
                answer = api.app.test_client().open(asked, method=method, headers=given, data=b"{}")
                assert answer.status_code == (400 if path == "/sync/enrol" else 401), path


def test_everything_that_boxes_may_ask_is_described(api: Api) -> None:
    paths = description(api.app)["paths"]
    served = {
        rule.rule.replace("<", "{").replace(">", "}")
        for rule in api.app.url_map.iter_rules()
        if rule.endpoint.partition(".")[0] in {module.pages.name for module in application.MACHINES}
    }
    assert set(paths) == served
    assert cards.ToHub.__name__ in description(api.app)["components"]["schemas"]
