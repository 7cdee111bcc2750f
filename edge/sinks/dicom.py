"""A PACS by C-STORE (PS3.4 B), with storage commitment (PS3.4 J) and TLS (PS3.15 B.9) where the settings ask for it.

One association for each result, with the presentation contexts that it needs and no other. The commitment may be answered on that
association; otherwise the peer calls the box's DICOM port, where intake takes the answer (`edge/sinks/commitment.py`).
"""

from __future__ import annotations

import io
import logging
import socket
import ssl
import struct
import threading
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

from pydicom import Dataset, dcmread
from pydicom.uid import (
    UID,
    Comprehensive3DSRStorage,
    ExplicitVRLittleEndian,
    GrayscaleSoftcopyPresentationStateStorage,
    ImplicitVRLittleEndian,
    SecondaryCaptureImageStorage,
)
from pynetdicom import AE, evt
from pynetdicom.association import Association

from edge.config import DicomSink
from edge.errors import Misconfigured
from edge.records import Delivery, Document, Receipt, Trouble
from edge.sinks import answers, commitment, encryption
from edge.sinks.answers import Answer

logging.getLogger("pynetdicom").setLevel(logging.CRITICAL)  # what it would say is in the receipt

VERIFICATION = "1.2.840.10008.1.1"
PLAIN = (ExplicitVRLittleEndian, ImplicitVRLittleEndian)
"""Every peer takes the second (PS3.5 10.1); the first keeps the bytes as they were made."""

CLASSES = {
    "sr": Comprehensive3DSRStorage,
    "sc": SecondaryCaptureImageStorage,
    "gsps": GrayscaleSoftcopyPresentationStateStorage,
    "assessment": Comprehensive3DSRStorage,
}
"""What each kind is, for the question whether a peer takes it."""

AT_ONCE = 1.0
"""Seconds for a commitment on the same association: a peer that answers so does it at once, the others call back."""

_CONGESTED = {(3, 1), (3, 2)}
"""Source and reason of a rejection that will pass: temporary congestion, local limit exceeded (PS3.8 9.3.4)."""


@dataclass(frozen=True)
class Object:
    """A document as the data set that it is."""

    document: Document
    dataset: Dataset


class Dicom:
    """A PACS."""

    def __init__(self, settings: DicomSink) -> None:
        self.settings = settings

    def deliver(self, documents: Sequence[Document], delivery: Delivery) -> Receipt:
        """Store each object, then ask for the commitment where it is wanted.

        Another object goes first at each attempt, so that one over which the peer fails does not keep the others from it.
        """
        if not documents:
            return Receipt()
        first = (delivery.attempts - 1) % len(documents)
        objects = [
            Object(document, dcmread(io.BytesIO(document.data)))
            for document in (*documents[first:], *documents[:first])
        ]
        contexts: dict[str, tuple[UID, ...]] = {str(one.dataset.SOPClassUID): _syntaxes(one.dataset) for one in objects}
        if self.settings.commitment:
            contexts[commitment.CLASS] = PLAIN
        reports = _Reports()
        with self.associated(contexts, reports) as association:
            if isinstance(association, Receipt):
                return association
            found = list(self._store(association, objects))
            receipt = answers.receipt(found)
            if self.settings.commitment and receipt.trouble in (None, Trouble.WARNED):
                kept = [one.dataset for one in objects if one.document.uid in receipt.taken]
                return self._commit(association, kept, delivery, receipt, reports)
            return receipt

    def probe(self) -> Receipt:
        """C-ECHO, and which of the kinds it is sent the peer takes."""
        wanted = {str(CLASSES[kind]): PLAIN for kind in self.settings.send}
        if self.settings.commitment:
            wanted[commitment.CLASS] = PLAIN
        with self.associated({VERIFICATION: PLAIN, **wanted}) as association:
            if isinstance(association, Receipt):
                return association
            taken = {str(context.abstract_syntax) for context in association.accepted_contexts}
            if VERIFICATION in taken:
                began = time.monotonic()
                if association.send_c_echo().get("Status") != 0x0000:
                    return self.ended(began)
            refused = [kind for kind in self.settings.send if str(CLASSES[kind]) not in taken]
            if self.settings.send and len(refused) == len(self.settings.send):
                return Receipt(Trouble.UNSUPPORTED, f"takes none of {', '.join(refused)}")
            if self.settings.commitment and commitment.CLASS not in taken:
                return Receipt(Trouble.NOT_COMMITTED, "does not offer storage commitment")
            return Receipt(detail=f"does not take {', '.join(refused)}" if refused else "takes every kind it is sent")

    @contextmanager
    def associated(
        self, contexts: Mapping[str, Sequence[UID]], reports: _Reports | None = None
    ) -> Iterator[Association | Receipt]:
        """An association for the length of the block, or why there is none."""
        settings = self.settings
        ae = AE(settings.calling_ae_title)
        ae.acse_timeout = ae.dimse_timeout = ae.network_timeout = ae.connection_timeout = settings.seconds
        for syntax, transfer in contexts.items():
            ae.add_requested_context(syntax, list(transfer))
        wire = _Wire(settings.seconds)
        began = time.monotonic()
        try:
            secure = (wire.encrypted(encryption.context(settings)), settings.host) if settings.tls else None
            association = ae.associate(
                settings.host,
                settings.port,
                ae_title=settings.ae_title,
                tls_args=secure,
                evt_handlers=[(evt.EVT_CONN_OPEN, wire.opened), (evt.EVT_N_EVENT_REPORT, (reports or _Reports()).take)],
            )
        except Misconfigured as error:
            yield Receipt(Trouble.NOT_CONFIGURED, str(error))
            return
        except OSError as error:  # the name has no address
            yield Receipt(Trouble.UNREACHABLE, type(error).__name__)
            return
        try:
            established = association.is_established
            yield association if established else self._not_established(association, wire, began)
        finally:
            if association.is_established:
                association.release()
            wire.close()

    def _not_established(self, association: Association, wire: _Wire, began: float) -> Receipt:
        if wire.failure is not None:
            return Receipt(Trouble.TLS, encryption.failed(wire.failure))
        if not wire.connected:
            if not wire.handshaking:
                return Receipt(Trouble.UNREACHABLE)
            hangs = time.monotonic() - began >= self.settings.seconds
            return Receipt(Trouble.HANGS) if hangs else Receipt(Trouble.TLS, encryption.ENDED)
        if association.is_rejected:
            said = association.acceptor.primitive
            assert said is not None
            why = (said.result_source, said.diagnostic)
            busy = why in _CONGESTED
            detail = f"association rejected, source {why[0]}, reason {why[1]}"
            return Receipt(Trouble.BUSY if busy else Trouble.KEPT_OUT, detail)
        if association.rejected_contexts:
            return Receipt(Trouble.UNSUPPORTED, "accepts none of the presentation contexts")
        return self.ended(began)

    def ended(self, began: float) -> Receipt:
        """An answer did not come: for too long, or because the peer ended the association."""
        hangs = time.monotonic() - began >= self.settings.seconds
        return Receipt(Trouble.HANGS if hangs else Trouble.CLOSED)

    def _store(self, association: Association, objects: Sequence[Object]) -> Iterator[Answer]:
        accepted = {str(context.abstract_syntax) for context in association.accepted_contexts}
        for place, one in enumerate(objects):
            if str(one.dataset.SOPClassUID) not in accepted:
                yield Answer(one.document, Trouble.UNSUPPORTED, "not taken")
                continue
            began = time.monotonic()
            try:
                status = association.send_c_store(one.dataset, msg_id=place + 1).get("Status")
            except RuntimeError:  # the peer has ended the association since the last answer
                status = None
            except ValueError:  # the peer accepted the class, not the encoding
                yield Answer(one.document, Trouble.UNSUPPORTED, "not taken in this encoding")
                continue
            if status is None:
                ended = self.ended(began)
                yield Answer(one.document, ended.trouble)
                return
            trouble = answers.of_status(status)
            yield Answer(one.document, trouble, "" if trouble is None else f"{status:04X}")
            if trouble in answers.STOPS:
                return

    def _commit(
        self,
        association: Association,
        objects: Sequence[Dataset],
        delivery: Delivery,
        stored: Receipt,
        reports: _Reports,
    ) -> Receipt:
        if not any(str(one.abstract_syntax) == commitment.CLASS for one in association.accepted_contexts):
            return Receipt(Trouble.NOT_COMMITTED, "does not offer storage commitment", stored.taken)
        began = time.monotonic()
        asked = commitment.request(delivery.transaction_uid, objects)
        try:
            answer, _ = association.send_n_action(asked, commitment.REQUEST, commitment.CLASS, commitment.INSTANCE)
        except RuntimeError:
            answer = Dataset()
        status = answer.get("Status")
        if status is None:
            return Receipt(self.ended(began).trouble, "asked for commitment", stored.taken)
        if status != 0x0000:
            return Receipt(Trouble.NOT_COMMITTED, f"{status:04X}", stored.taken)
        missing = reports.wait(delivery.transaction_uid)
        if missing:
            return Receipt(Trouble.NOT_COMMITTED, missing, stored.taken)
        return Receipt(stored.trouble, stored.detail, stored.taken, awaits=missing is None)


class _Reports:
    """What a peer says of commitments on the association on which it was asked."""

    def __init__(self) -> None:
        self._said: dict[str, str] = {}
        self._new = threading.Condition()

    def take(self, event: evt.Event) -> tuple[int, None]:
        """Answer an N-EVENT-REPORT (PS3.4 J.3.3)."""
        answer = commitment.answer(event.event_information)
        with self._new:
            self._said[answer.transaction_uid] = answer.missing
            self._new.notify_all()
        return 0x0000, None

    def wait(self, transaction_uid: str) -> str | None:
        """What is not kept of this transaction, empty for nothing; None where the peer will call back."""
        with self._new:
            self._new.wait_for(lambda: transaction_uid in self._said, AT_ONCE)
            return self._said.get(transaction_uid)


class _Wire:
    """What pynetdicom does not tell of a connection: whether it came about, and how its encryption failed."""

    def __init__(self, seconds: float) -> None:
        self.seconds = seconds
        self.connected = False
        self.handshaking = False
        self.failure: ssl.SSLError | None = None
        self._connection: socket.socket | None = None

    def opened(self, event: evt.Event) -> None:
        """Bound every send and receive: pynetdicom's own timeouts do not end one that the kernel holds."""
        self.connected = True
        assert event.assoc.dul.socket is not None
        connection = event.assoc.dul.socket.socket
        assert connection is not None
        self._connection = connection
        limit = struct.pack("@ll", int(self.seconds), int(self.seconds % 1 * 1e6))
        for option in (socket.SO_SNDTIMEO, socket.SO_RCVTIMEO):
            connection.setsockopt(socket.SOL_SOCKET, option, limit)

    def close(self) -> None:
        """Close what pynetdicom leaves open where the peer was the first to close."""
        if self._connection is not None:
            self._connection.close()

    def encrypted(self, context: ssl.SSLContext) -> ssl.SSLContext:
        """The same context, telling this wire of its failures: a handshake's, or with TLS 1.3 those of the first answer."""
        wire = self

        class Told(ssl.SSLSocket):
            def connect(self, addr: Any) -> None:
                try:
                    super().connect(addr)
                except OSError:  # pynetdicom would leave it to the garbage collector
                    self.close()
                    raise

            def do_handshake(self, block: bool = False) -> None:
                wire.handshaking = True
                try:
                    super().do_handshake(block)
                except ssl.SSLError as error:
                    wire.failure = error
                    raise

            def recv(self, buflen: int = 1024, flags: int = 0) -> bytes:
                try:
                    return super().recv(buflen, flags)
                except ssl.SSLError as error:
                    if not isinstance(error, ssl.SSLWantReadError):
                        wire.failure = error
                    raise

        context.sslsocket_class = Told
        return context


def _syntaxes(dataset: Dataset) -> tuple[UID, ...]:
    own = UID(dataset.file_meta.TransferSyntaxUID)
    return (own,) if own.is_compressed else PLAIN
