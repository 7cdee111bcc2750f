"""What the hub says of its interface is so: schemathesis asks what it allows and what it does not, on both databases."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import Any
from urllib.parse import unquote

import pytest
import schemathesis
from flask import Flask
from hypothesis import given
from hypothesis import settings as how
from schemathesis import GenerationMode
from schemathesis.specs.openapi.checks import positive_data_acceptance

from edge import cards
from tests.hub import DATA, SHA, Courier, code, image, result, settings
from tests.integration.test_hub_sync import within
from tests.postgresql import postgresql
from web.hub import app as application
from web.hub.config import Database
from web.hub.here import NAME
from web.hub.openapi import description

KNOWN = {"sha256": SHA}
"""What stands in a path and is there."""


class Api:
    """A hub, and a box that it knows."""

    def __init__(self, folder: Path, database: str) -> None:
        self.app: Flask = application.create(settings(folder, database=Database(postgresql=database)))
        self.hub = self.app.extensions[NAME]
        self.box = Courier(within(self.app))
        assert self.box.enrol(code(self.hub.store))[0] == 200
        self.box.tell(result(1), image(1, DATA, SHA))
        assert self.box.patch(DATA[:5000], 0)[0] == 204


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
    offset = str((case.headers or {}).get("Upload-Offset", ""))
    signed = body if isinstance(body, bytes) and case.method == "POST" else b""
    number = int(offset) if offset.isascii() and offset.isdigit() else None
    case.headers.update(api.box.headers(case.method, unquote(case.formatted_path), number, signed))
    # what means something is signed and sealed: random bytes never do
    return int(case.call_and_validate(excluded_checks=[positive_data_acceptance]).status_code)


def test_the_hub_answers_as_it_says(api: Api) -> None:
    schema = schemathesis.openapi.from_wsgi("/openapi.json", api.app)
    operations = [found.ok() for found in schema.get_all_operations()]
    assert {one.label for one in operations} >= {"POST /sync/enrol", "PATCH /sync/objects/{sha256}"}
    seen = set()

    def held(case: Any) -> None:
        seen.add((case.operation.label, ask(case, api)))

    for operation in operations:
        known = {one.name: KNOWN[one.name] for one in operation.path_parameters}
        strategies = [operation.as_strategy(mode) for mode in GenerationMode]
        for cases in [*strategies, *([operation.as_strategy(path_parameters=known)] if known else [])]:
            how(max_examples=6, database=None)(given(case=cases)(held))()
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


def test_everything_that_boxes_may_ask_is_described(api: Api) -> None:
    paths = description(api.app)["paths"]
    served = {
        rule.rule.replace("<", "{").replace(">", "}")
        for rule in api.app.url_map.iter_rules()
        if rule.endpoint.partition(".")[0] in {module.pages.name for module in application.MACHINES}
    }
    assert set(paths) == served
    assert cards.ToHub.__name__ in description(api.app)["components"]["schemas"]
