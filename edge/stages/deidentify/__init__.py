"""De-identify: the one door through which everything comes to the hub, from a box or from an archive next to it (PS3.15 Annex E).

What may leave is an allow-list: `table.tsv` for DICOM, `fields.tsv` for the rest. Each document is made anew of what is allowed;
what nobody allowed cannot be in it. A document that might say whose film it is stays home, which is a value, not an exception.
"""

from __future__ import annotations

from edge.records import Concern, Document, Header, Withheld
from edge.stages.deidentify import datasets, fields
from edge.stages.deidentify.datasets import film, returned
from edge.stages.deidentify.door import Door, Patient

__all__ = ["Door", "Patient", "deidentify", "film", "returned"]


def deidentify(document: Document, header: Header, door: Door) -> Document | Withheld:
    """A result of the film with that header, as it may leave; a film itself goes through `film`, with its rendition,
    and what others made of it elsewhere through `returned`.

    The picture that the clinic's PACS gets stays home: film, day and words are one there. In its place goes the banner, which is
    made without film and day. HL7 v2 is for the clinic's own systems.
    """
    if document.kind in ("sr", "assessment", "gsps"):
        return datasets.structured(document, header, door)
    if document.kind == "banner":
        return datasets.banner(document, header, door)
    if document.kind == "fhir":
        return fields.bundle(document, header, door)
    if document.kind == "packet":
        return fields.packet(document, door)
    return Withheld(Concern.NO_FORM, document.kind)
