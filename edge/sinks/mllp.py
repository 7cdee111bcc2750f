"""HL7 v2 over MLLP: a message out, its acknowledgement back (HL7 v2.5.1 2.9.2; Transmission Specifications: MLLP, Release 1)."""

from __future__ import annotations

import re
import socket
import ssl
import time
from collections.abc import Sequence
from contextlib import AbstractContextManager

from edge.config import Hl7Sink
from edge.errors import Misconfigured
from edge.records import Delivery, Document, Receipt, Trouble
from edge.sinks import encryption

START, END = b"\x0b", b"\x1c\r"
LONGEST = 2**20
"""No acknowledgement is longer."""

_ACCEPTED, _REFUSED = {"AA", "CA"}, {"AE", "AR", "CE", "CR"}  # table 0008
_UNSUPPORTED = {"200", "201", "202", "203"}  # table 0357: of message type, event, processing id, version


class Mllp:
    """An EHR or an integration engine."""

    def __init__(self, settings: Hl7Sink) -> None:
        self.settings = settings

    def deliver(self, documents: Sequence[Document], delivery: Delivery) -> Receipt:
        """Send each message and wait for its own acknowledgement before the next."""
        taken: list[str] = []
        try:
            if documents:
                with self._connect() as peer:
                    for document in documents:
                        answer = self._exchange(peer, document)
                        if answer.trouble is not None:
                            return Receipt(answer.trouble, answer.detail, tuple(taken))
                        taken.append(document.uid)
        except (OSError, Misconfigured) as error:
            return _failed(error, tuple(taken))
        return Receipt(taken=tuple(taken))

    def probe(self) -> Receipt:
        """Somebody accepts the connection; HL7 has no question that is no message."""
        try:
            with self._connect():
                return Receipt(detail="accepts connections")
        except (OSError, Misconfigured) as error:
            return _failed(error)

    def _connect(self) -> AbstractContextManager[socket.socket]:
        settings = self.settings
        secure = encryption.context(settings) if settings.tls else None
        try:
            plain = socket.create_connection((settings.host, settings.port), settings.seconds)
        except OSError as error:
            raise _Unreachable(type(error).__name__) from None
        if secure is None:
            return plain
        try:
            return secure.wrap_socket(plain, server_hostname=settings.host)
        except OSError as error:
            plain.close()
            if isinstance(error, TimeoutError):
                raise
            raise _Unencrypted(
                encryption.failed(error) if isinstance(error, ssl.SSLError) else encryption.ENDED
            ) from None

    def _exchange(self, peer: socket.socket, document: Document) -> Receipt:
        peer.settimeout(self.settings.seconds)
        peer.sendall(START + document.data + END)
        deadline = time.monotonic() + self.settings.seconds
        buffer = b""
        while True:
            message, found, rest = buffer.partition(END)
            if found:
                buffer = rest
                if (receipt := _acknowledged(message, document.uid)) is not None:
                    return receipt
                continue  # of another message: late, and no news of this one
            if len(buffer) > LONGEST:
                return Receipt(Trouble.NOT_CONFIGURED, "what answers there does not speak MLLP")
            left = deadline - time.monotonic()
            if left <= 0:
                raise TimeoutError
            peer.settimeout(left)
            received = peer.recv(65536)
            if not received:
                raise ConnectionResetError
            buffer += received


class _Unreachable(OSError):
    """No connection came about; before a connection there is no hanging and no closing."""


class _Unencrypted(OSError):
    """The handshake failed."""


def _acknowledged(message: bytes, control: str) -> Receipt | None:
    """What an acknowledgement says of the message with this control id; None where it is of another."""
    _, found, body = message.partition(START)
    segments = [line.split(b"|") for line in body.replace(b"\n", b"\r").split(b"\r")]
    said = next((fields for fields in segments if fields[0] == b"MSA" and len(fields) > 2), None)
    if not found or said is None:
        return Receipt(Trouble.NOT_CONFIGURED, "the answer is no acknowledgement")
    if said[2].decode(errors="replace").strip() != control:
        return None
    code = said[1].decode(errors="replace").strip().upper()
    if code in _ACCEPTED:
        return Receipt()
    if code not in _REFUSED:
        return Receipt(Trouble.NOT_CONFIGURED, "the acknowledgement has no known code")
    errors = _error_codes(segments)
    trouble = Trouble.UNSUPPORTED if code.endswith("R") and errors & _UNSUPPORTED else Trouble.REJECTED
    return Receipt(trouble, " ".join([code, *sorted(errors)]))


def _error_codes(segments: list[list[bytes]]) -> set[str]:
    """The numbers of table 0357 in ERR-3, and of older versions in ERR-1; its texts may name a patient."""
    fields = [field for one in segments if one[0] == b"ERR" for field in (*one[1:2], *one[3:4])]
    parts = (part.decode(errors="replace") for field in fields for part in re.split(rb"[\^&~]", field))
    return {part for part in parts if re.fullmatch(r"[12]\d\d", part)}


def _failed(error: Exception, taken: tuple[str, ...] = ()) -> Receipt:
    match error:
        case Misconfigured():
            return Receipt(Trouble.NOT_CONFIGURED, str(error), taken)
        case _Unreachable():
            return Receipt(Trouble.UNREACHABLE, str(error), taken)
        case _Unencrypted():
            return Receipt(Trouble.TLS, str(error), taken)
        case ssl.SSLError() if not isinstance(error, ssl.SSLEOFError):  # TLS 1.3: a refused certificate of ours
            return Receipt(Trouble.TLS, encryption.failed(error), taken)
        case TimeoutError():
            return Receipt(Trouble.HANGS, "", taken)
        case _:
            return Receipt(Trouble.CLOSED, type(error).__name__, taken)
