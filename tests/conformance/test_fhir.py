"""FHIR by programs of other projects: a validator that knows the value sets, and models that know every field."""

from __future__ import annotations

import json

import pytest
from fhir.resources.R4B.bundle import Bundle
from hypothesis import Phase, given, settings
from hypothesis import strategies as st

from edge.records import Document, Read, Source
from edge.stages import report
from tests import results
from tests.fhir import validated


def bundles(source: Source, read: Read) -> list[Document]:
    made = report.documents(source) + report.assessment(source, read)
    return [document for document in made if document.kind == "fhir"]


@pytest.mark.peer
@settings(max_examples=4, phases=[Phase.generate])  # each example is many already, and starts the validator
@given(st.lists(st.tuples(results.sources(), results.reads()), min_size=1, max_size=20))
def test_every_bundle_is_valid_with_its_value_sets(drawn: list[tuple[Source, Read]]) -> None:
    made = [document.data for source, read in drawn for document in bundles(source, read)]
    assert validated(made) == [[] for _ in made]


@pytest.mark.peer
@pytest.mark.parametrize(
    ("right", "wrong", "told"),
    [
        ('"status":"preliminary"', '"status":"bogus"', "not found in value set"),
        ('"resourceType":"Device"', '"resourceType":"Device","colour":"red"', "unexpected"),
    ],
)
def test_the_validator_sees_what_is_wrong(right: str, wrong: str, told: str) -> None:
    (document, *_) = bundles(results.example(), results.confirmed())
    broken = document.data.decode().replace(right, wrong, 1)
    ((message, *_),) = validated([broken.encode()])
    assert told in message["message"].lower()


@settings(max_examples=25)
@given(results.sources(), results.reads())
def test_every_bundle_has_known_fields_only(source: Source, read: Read) -> None:
    for document in bundles(source, read):
        Bundle.model_validate(json.loads(document.data))
