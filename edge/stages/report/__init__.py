"""Report: from a film's outcome to the documents that leave the box, each the same, byte for byte, however often it is made.

Every AI result is preliminary; only what a named person says makes one final.
"""

from __future__ import annotations

from edge.records import Document, Read, ReadKind, Source
from edge.stages.report import fhir, oru
from edge.stages.report.content import content


def documents(source: Source) -> tuple[Document, ...]:
    """What the AI says of a film, in every form; nothing where nobody could say whose film it is.

    Raises ValueError before the film has an outcome.
    """
    said = content(source)
    return () if said is None else (fhir.document(said), oru.document(said))


def assessment(source: Source, read: Read) -> tuple[Document, ...]:
    """What a person decided of what the AI said, in every form; nothing for an impression, which precedes the AI.

    Raises ValueError before the film has an outcome.
    """
    said = content(source)
    if said is None or read.kind is ReadKind.IMPRESSION:
        return ()
    return fhir.document(said, read), oru.document(said, read)
