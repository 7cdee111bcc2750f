"""Report: from a film's outcome to the documents that leave the box, each the same, byte for byte, however often it is made.

Every AI result is preliminary; only what a named person says makes one final.
"""

from __future__ import annotations

from collections.abc import Collection, Iterator

from edge.records import Document, Finding, Read, ReadKind, Source
from edge.stages.report import fhir, oru, terms
from edge.stages.report.content import Content, content

KINDS = ("sr", "sc", "gsps", "assessment", "fhir", "oru")
OUTSIDE = ("sr", "banner", "gsps", "assessment", "fhir")
"""What is made for the hub: a banner stands for the picture, and HL7 v2 is for the clinic's own systems."""


def documents(source: Source, kinds: Collection[str] = KINDS) -> tuple[Document, ...]:
    """What the AI says of a film, in every form asked for; nothing where nobody could say whose film it is.

    Raises ValueError before the film has an outcome.
    """
    said = content(source)
    return () if said is None else tuple(_documents(source, said, kinds))


def assessment(source: Source, read: Read, kinds: Collection[str] = KINDS) -> tuple[Document, ...]:
    """What a person decided of what the AI said, in every form asked for; nothing for an impression, which precedes the AI.

    Raises ValueError before the film has an outcome.
    """
    said = content(source)
    if said is None or read.kind is ReadKind.IMPRESSION:
        return ()
    return tuple(_assessment(said, read, kinds))


def _documents(source: Source, said: Content, kinds: Collection[str]) -> Iterator[Document]:
    # DICOM can only refer to a film that has a class
    if said.class_uid and {"sr", "sc", "banner", "gsps"} & set(kinds):
        yield from _objects(source, said, kinds)
    if "fhir" in kinds:
        yield fhir.document(said)
    if "oru" in kinds:
        yield oru.document(said)


def _objects(source: Source, said: Content, kinds: Collection[str]) -> Iterator[Document]:
    # slow to import, and many a way out needs none of them
    from edge.stages.report import gsps, region, sc, sr

    first, grays = leading(said), source.film.header.grays
    saliency = None if source.triage_only or first is None else source.film.saliency
    outline = () if saliency is None else region.outline(saliency, said.rows, said.columns)
    if "sr" in kinds:
        yield sr.document(said, first, outline)
    if "sc" in kinds:
        yield sc.document(said, source.preview, saliency if outline and source.preview else None)
    if "banner" in kinds:
        yield sc.banner(said)
    if "gsps" in kinds and first is not None and outline and grays is not None:
        yield gsps.document(said, grays, first, outline)


def leading(said: Content) -> Finding | None:
    """The finding that the outcome comes from, and of which the heat map is; None where none reaches its operating point."""
    reported = [finding for finding in said.decision.findings if terms.reported(finding)]
    return max(reported, key=lambda one: (one.probability >= one.immediate, one.probability), default=None)


def _assessment(said: Content, read: Read, kinds: Collection[str]) -> Iterator[Document]:
    if said.class_uid and "assessment" in kinds:
        from edge.stages.report import verdict

        yield verdict.document(said, read)
    if "fhir" in kinds:
        yield fhir.document(said, read)
    if "oru" in kinds:
        yield oru.document(said, read)
