"""The table: `table.tsv`, what may leave the box, attribute by attribute; and the concepts that a code may name."""

from __future__ import annotations

import functools
from dataclasses import dataclass
from importlib import resources


@dataclass(frozen=True)
class Row:
    """What PS3.15 says of an attribute, and what this box does with it."""

    tag: str
    """Eight hexadecimal digits; with X where a whole group is meant."""
    keyword: str
    standard: str
    option: str
    action: str
    values: str


def rows() -> tuple[Row, ...]:
    """The whole table, those that are dropped as well, in its order."""
    text = resources.files(__package__).joinpath("table.tsv").read_text("utf-8")
    return tuple(Row(*line.split("\t")) for line in text.splitlines() if not line.startswith("#"))


@functools.cache
def allowed() -> dict[int, Row]:
    """The attributes that leave in some form, by tag; every other one is dropped."""
    return {int(row.tag, 16): row for row in rows() if row.action != "X"}


@functools.cache
def concepts() -> dict[tuple[str, str], tuple[str, str, str]]:
    """The concepts of PS3.16 by scheme and code, each as code, scheme and meaning; SNOMED's old codes give the present ones."""
    from pydicom.sr._snomed_dict import mapping  # not public there, and nowhere else
    from pydicom.sr.codedict import codes

    found: dict[tuple[str, str], tuple[str, str, str]] = {}
    for scheme in codes.schemes():
        for concept in getattr(codes, scheme).concepts.values():
            found[concept.scheme_designator, concept.value] = (
                concept.value,
                concept.scheme_designator,
                concept.meaning,
            )
    for old, new in mapping["SRT"].items():
        if ("SCT", new) in found:
            found["SRT", old] = found["SCT", new]
    return found
