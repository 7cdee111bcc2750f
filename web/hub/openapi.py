"""`/openapi.json`: what other systems may ask of the hub, as OpenAPI 3.1, made of the code itself.

Paths and methods are those that the application serves, values those of `edge/cards.py`; what else there is to say of a request
stands at its function, by `operation`. A test holds the description against the hub. What the readers' own pages ask for
(`/read/N/film`, `/read/N/hold` and the like) is not here: it goes by a person's session, is asked by scripts of this very version
alone, and changes with them.
"""

from __future__ import annotations

import inspect
import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from http import HTTPStatus
from importlib.metadata import version
from typing import Any, TypeVar

import flask
import msgspec
from flask import Blueprint, Response, current_app

from edge import cards

pages = Blueprint("openapi", __name__)

REFERENCE = "#/components/schemas/{name}"
VALUES: tuple[Any, ...] = (cards.Enrol, cards.Enrolled, cards.ToHub, cards.ToBox)
"""What is sent, or sealed in what is sent."""
BY: dict[str, tuple[dict[str, list[str]], str]] = {
    "box": ({"device": [], "signature": []}, "What boxes ask"),
    "archive": ({"token": []}, "What an archive next door asks"),
    "anybody": ({}, "What anybody may ask"),
}
"""Who may ask, and under which heading."""
SECURITY = {
    "device": {
        "type": "apiKey",
        "in": "header",
        "name": "Outpost-Device",
        "description": "Fingerprint of the box's key.",
    },
    "token": {"type": "http", "scheme": "bearer", "description": "Of an archive: outpost hub archive add NAME."},
    "signature": {
        "type": "apiKey",
        "in": "header",
        "name": "Outpost-Signature",
        "description": "Base64 of the box's Ed25519 signature over method, path, Upload-Offset or Outpost-Offset, and the body's"
        " SHA-256, one a line; the third is empty where there is none, the last where there is no body or an object's bytes"
        " are sent.",
    },
}
STATUS = {460: "Not what the name says"}
"""Those that HTTP has no words for."""


@dataclass(frozen=True)
class Media:
    """A body of that media type; of anything where there is no schema."""

    media_type: str
    schema: Mapping[str, Any]
    description: str = ""


TEXT = Media("text/plain; charset=utf-8", {"type": "string"}, "One sentence for a technician.")
NOTHING = Media("", {})
DIGEST = msgspec.json.schema(cards.Digest)
COUNT = msgspec.json.schema(cards.Count)


def binary(description: str, inside: type | None = None) -> Media:
    """Bytes; a sealed parcel of what is `inside`."""
    more = {} if inside is None else {"contentSchema": {"$ref": REFERENCE.format(name=inside.__name__)}}
    return Media("application/octet-stream", more, description)


def json(value: type) -> Media:
    """A value as JSON."""
    return Media("application/json", {"$ref": REFERENCE.format(name=value.__name__)})


Page = TypeVar("Page", bound=Callable[..., object])


@dataclass(frozen=True)
class _Operation:
    by: str
    answers: Mapping[int, Media]
    takes: Media | None
    headers: Mapping[str, bool]
    gives: Mapping[str, Mapping[str, Any]]
    query: Mapping[str, Mapping[str, Any]]


def operation(
    by: str,
    answers: Mapping[int, Media],
    *,
    takes: Media | None = None,
    headers: Mapping[str, bool] | None = None,
    gives: Mapping[str, Mapping[str, Any]] | None = None,
    query: Mapping[str, Mapping[str, Any]] | None = None,
) -> Callable[[Page], Page]:
    """Say of a function who may ask it, what it takes and what it answers.

    `headers` are numbers of bytes that the request has, True where it must; `gives` are headers of the first answer.
    """

    def decorate(page: Page) -> Page:
        page.operation = _Operation(by, answers, takes, headers or {}, gives or {}, query or {})  # type: ignore[attr-defined]
        return page

    return decorate


@pages.get("/openapi.json")
@operation("anybody", {200: Media("application/json", {"type": "object"})})
def page() -> Response:
    """This description."""
    return flask.jsonify(description(current_app))


def description(app: flask.Flask) -> dict[str, Any]:
    """The OpenAPI document of an application."""
    paths: dict[str, dict[str, Any]] = {}
    for rule in app.url_map.iter_rules():
        view = app.view_functions[rule.endpoint]
        said = getattr(view, "operation", None)
        if said is None:
            continue
        entry = paths.setdefault(re.sub(r"<(?:\w+:)?(\w+)>", r"{\1}", rule.rule), {})
        if rule.arguments:
            entry["parameters"] = [_parameter("path", name, True, PATH[name]) for name in sorted(rule.arguments)]
        for method in sorted((rule.methods or set()) - {"HEAD", "OPTIONS"}):
            name = ".".join((method.lower(), rule.endpoint, *sorted(rule.arguments)))
            entry[method.lower()] = _described(name, inspect.getdoc(view) or "", said)
    _, schemas = msgspec.json.schema_components(VALUES, ref_template=REFERENCE)
    return {
        "openapi": "3.1.0",
        "info": {
            "title": "Outpost hub",
            "version": version("outpost-cxr"),
            "license": {"name": "Apache-2.0", "identifier": "Apache-2.0"},
        },
        "servers": [{"url": "/"}],
        "tags": [{"name": name} for _, name in BY.values()],
        "paths": paths,
        "components": {"schemas": schemas, "securitySchemes": SECURITY},
    }


PATH: dict[str, Mapping[str, Any]] = {"sha256": DIGEST}
"""What stands in a path."""


def _described(name: str, doc: str, said: _Operation) -> dict[str, Any]:
    first, _, rest = doc.partition("\n\n")
    who, tag = BY[said.by]
    found: dict[str, Any] = {
        "operationId": name,
        "tags": [tag],
        "summary": first,
        "responses": {str(status): _answer(status, media) for status, media in said.answers.items()},
    }
    if rest:
        found["description"] = rest
    if who:
        found["security"] = [who]
    parameters = [_parameter("header", name, needed, COUNT) for name, needed in said.headers.items()]
    parameters += [_parameter("query", name, False, schema) for name, schema in said.query.items()]
    if parameters:
        found["parameters"] = parameters
    if said.takes is not None:
        found["requestBody"] = {
            "required": True,
            "description": said.takes.description,
            "content": {said.takes.media_type: {"schema": said.takes.schema}},
        }
    first_status = str(next(iter(said.answers)))
    if said.gives:
        found["responses"][first_status]["headers"] = {
            name: {"schema": schema, "required": True} for name, schema in said.gives.items()
        }
    return found


def _answer(status: int, media: Media) -> dict[str, Any]:
    words = STATUS.get(status) or HTTPStatus(status).phrase
    answer: dict[str, Any] = {"description": f"{words}. {media.description}".strip()}
    if media.media_type:
        answer["content"] = {media.media_type: {"schema": media.schema} if media.schema else {}}
    return answer


def _parameter(where: str, name: str, needed: bool, schema: Mapping[str, Any]) -> dict[str, Any]:
    return {"in": where, "name": name, "required": needed, "schema": schema}
