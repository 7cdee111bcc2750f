"""Outside: this box's door toward the hub, made of its key, its model and every fixed text that it has.

`stages/deidentify` lets no other free text through, so whatever new sentence a result gets belongs in `words.py`, `vocabulary.py`
or `stages/report/terms.py`; one that stands elsewhere stays home.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

from edge import vocabulary, words
from edge.records import Reason
from edge.stages.deidentify import Door
from edge.stages.report import terms
from edge.stages.report.content import MANUFACTURER
from edge.state import pseudonyms
from models.bundle import Manifest


def door(state: Path, manifest: Manifest, device_uids: frozenset[str]) -> Door:
    """The door of the box with that state and model; `device_uids` are those under which the model speaks."""
    known = {(term.scheme, term.code): term.meaning for term in _terms(manifest)}
    sentences = (*words.OUTCOMES.values(), *(text for pair in words.REASONS.values() for text in pair))
    model = (manifest.id, manifest.version, f"{manifest.id} {manifest.version}")
    points = {point for finding in manifest.findings for point in finding.operating_points}
    texts = {
        MANUFACTURER,
        MANUFACTURER.upper(),
        words.PRELIMINARY,
        *sentences,
        *(f"{outcome}. {words.PRELIMINARY}" for outcome in words.OUTCOMES.values()),
        *model,
        *points,
        *known.values(),
    }
    return Door(
        key=pseudonyms.key(state),
        texts=frozenset(texts),
        terms=known,
        uids=device_uids | {terms.OUTPOST_UID},
    )


def _terms(manifest: Manifest) -> Iterator[terms.Term]:
    """Every concept that a result of this box may name."""
    yield from (term for term in vars(terms).values() if isinstance(term, terms.Term))
    yield from terms.OUTCOMES.values()
    yield from terms.KINDS.values()
    yield terms.Term("RFC5646", "en", "English")
    yield from (terms.why_not(reason) for reason in Reason)
    for choice in (*vocabulary.IMPRESSIONS.values(), *vocabulary.OVERRIDES.values(), vocabulary.NOT_ASSESSED):
        yield terms.Term(choice.scheme, choice.code, choice.text)
        yield terms.chosen(choice.key)
    yield from (terms.Term(finding.scheme, finding.code, finding.label) for finding in manifest.findings)
