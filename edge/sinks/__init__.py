"""Sinks: the ways out of the box, one file each; what another library or the network says ends here as a `Receipt`.

A sink is an extension point. It gives what it is handed to one peer and says what became of it; it knows neither the database nor
how a result is made, and it never waits or tries again by itself: the outbox decides when it is asked next.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Protocol

from edge import config
from edge.records import Delivery, Document, Receipt


class Sink(Protocol):
    """One way out, made of its settings; used by one thread at a time."""

    def deliver(self, documents: Sequence[Document], delivery: Delivery) -> Receipt:
        """Give the peer every form of one result that it is to have, and say what became of that.

        documents: only kinds that the settings name, in the order in which a person would want them; there may be none, and then
            nothing is to be done. The same result is the same bytes under the same UIDs each time, so that what the peer has
            already counts as taken.
        delivery: which attempt this is, and the `transaction_uid` under which to ask for storage commitment.

        Never raises for what a peer or the network does: that is the receipt's trouble. `taken` holds the UIDs that are safe with
        the peer, also where others are not. `detail` is for a technician: codes, never what a peer wrote, which may name a patient.
        Returns within the `seconds` of the settings for each answer that it waits for.
        """

    def probe(self) -> Receipt:
        """Say whether the peer would take a result now, without giving it any; `detail` says what it is or does not take."""


def open_sink(settings: config.Sink) -> Sink:
    """The way out that these settings describe; a library that it needs is imported only now."""
    match settings:
        case config.DicomSink():
            from edge.sinks.dicom import Dicom

            return Dicom(settings)
        case config.DicomwebSink():
            from edge.sinks.dicomweb import Dicomweb

            return Dicomweb(settings)
        case config.FhirSink():
            from edge.sinks.fhir import Fhir

            return Fhir(settings)
        case config.Hl7Sink():
            from edge.sinks.mllp import Mllp

            return Mllp(settings)
        case config.FolderSink():
            from edge.sinks.folder import Folder

            return Folder(settings)


def kinds(settings: config.Sink) -> tuple[str, ...]:
    """Which kinds of document go this way."""
    match settings:
        case config.FhirSink():
            return ("fhir",)
        case config.Hl7Sink():
            return ("oru",)
        case _:
            return settings.send
