"""Parcel: what travels between a box and its hub, sealed to the receiver and signed by the sender, section by section.

One form for the network and for a USB stick. Each section stands by itself: of a stick that was pulled out too early, the whole
sections are taken. A parcel that arrives twice, or late, changes nothing, because nothing in it depends on when it comes.

    parcel  = header, sections
    header  = "OUTPOST1", sender (32), receiver (32), identifier (16), number of sections (4)
    section = length (4), HPKE(receiver; info = header and index; Ed25519 signature (64) over header, index and content, content)
    content = 0, deflated JSON of a message | 1, SHA-256 (32), size (8), offset (8), bytes of an object

Numbers are big-endian. HPKE is RFC 9180's base mode with X25519, HKDF-SHA256 and ChaCha20-Poly1305, which is fast without AES
instructions; who a sender is says the signature. Sealing draws a fresh key for each section: it alone is not repeatable.
"""

from __future__ import annotations

import hashlib
import struct
import zlib
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, field
from typing import BinaryIO

import msgspec
from cryptography.exceptions import InvalidSignature, InvalidTag
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey, Ed25519PublicKey
from cryptography.hazmat.primitives.asymmetric.x25519 import X25519PrivateKey, X25519PublicKey
from cryptography.hazmat.primitives.hpke import AEAD, KDF, KEM, Suite

from edge.cards import Message, Piece, canonical
from edge.records import Fault

__all__ = ["Fault", "Keys", "Opened", "Public", "request", "seal"]

MAGIC = b"OUTPOST1"
IDENTIFIER = 16
MOST_SECTION = 1 << 20
"""Bytes; no section is longer, sealed or not, so that a parcel of gigabytes needs little memory."""
MOST_MESSAGE = 4 << 20
"""Bytes of a message that is no longer deflated."""
PIECE = 256 * 1024
"""Bytes of an object in one section of a stick."""

_SUITE = Suite(KEM.X25519, KDF.HKDF_SHA256, AEAD.CHACHA20_POLY1305)
_HEADER = struct.Struct(f">8s32s32s{IDENTIFIER}sI")
_LENGTH = struct.Struct(">I")
_OBJECT = struct.Struct(">32sQQ")
_SIGNATURE = 64
_MESSAGE, _PIECE = b"\0", b"\1"


@dataclass(frozen=True)
class Public:
    """What others need to know of a device or a hub."""

    signing: bytes
    """Ed25519, 32 bytes."""
    sealing: bytes
    """X25519, 32 bytes."""

    def __post_init__(self) -> None:
        if len(self.signing) != 32 or len(self.sealing) != 32:
            raise ValueError("a key has 32 bytes")

    @property
    def fingerprint(self) -> str:
        """By what it is known: the SHA-256 of the signing key, in hexadecimal."""
        return hashlib.sha256(self.signing).hexdigest()

    def signed(self, signature: bytes, text: bytes) -> bool:
        """Whether this signature over that text is theirs."""
        try:
            Ed25519PublicKey.from_public_bytes(self.signing).verify(signature, text)
        except (InvalidSignature, ValueError):
            return False
        return True


@dataclass(frozen=True)
class Keys:
    """The keys of one side; they never leave the machine on which they were made."""

    signing: Ed25519PrivateKey = field(repr=False)
    sealing: X25519PrivateKey = field(repr=False)

    @property
    def public(self) -> Public:
        """What others may know."""
        return Public(self.signing.public_key().public_bytes_raw(), self.sealing.public_key().public_bytes_raw())


@dataclass(frozen=True)
class Header:
    """What a parcel says on its outside."""

    sender: str
    receiver: str
    identifier: str
    """32 hexadecimal digits."""
    sections: int

    def packed(self) -> bytes:
        """Its bytes."""
        parts = map(bytes.fromhex, (self.sender, self.receiver, self.identifier))
        return _HEADER.pack(MAGIC, *parts, self.sections)


def request(method: str, path: str, offset: int | None = None, body: bytes = b"") -> bytes:
    """What a device signs of an HTTP request; `body` stays empty where it is streamed, as an object's own hash vouches for it."""
    digest = hashlib.sha256(body).hexdigest() if body else ""
    return "\n".join((method, path, "" if offset is None else str(offset), digest)).encode()


def seal(
    contents: Iterable[Message | Piece], count: int, sender: Keys, receiver: Public, identifier: bytes
) -> Iterator[bytes]:
    """The bytes of a parcel of `count` sections, part by part; `identifier` has 16 bytes and is never used twice.

    Raises ValueError where a section is too long, or there are not as many as were promised.
    """
    header = Header(sender.public.fingerprint, receiver.fingerprint, identifier.hex(), count).packed()
    yield header
    to, index = X25519PublicKey.from_public_bytes(receiver.sealing), 0
    for index, content in enumerate(contents, 1):
        plain, about = _packed(content), header + _LENGTH.pack(index)
        sealed = _SUITE.encrypt(sender.signing.sign(about + plain) + plain, to, about)
        if len(sealed) > MOST_SECTION:
            raise ValueError(f"a section has {len(sealed)} bytes, more than {MOST_SECTION}")
        yield _LENGTH.pack(len(sealed)) + sealed
    if index != count:
        raise ValueError(f"{count} sections were promised, and there are {index}")


class Opened:
    """A parcel as it is read: its header, then its sections one by one, until its end or a fault."""

    def __init__(self, file: BinaryIO, receiver: Keys, known: Callable[[str], Public | Fault]) -> None:
        """`known` has the keys behind a sender's fingerprint, or why there are none: `UNKNOWN_SENDER`, `REVOKED`."""
        self._file, self._receiver = file, receiver
        self.taken = 0
        """How many sections were whole and authentic."""
        self.fault: Fault | None = None
        self.header: Header | None = None
        packed = file.read(_HEADER.size)
        if len(packed) < _HEADER.size or not packed.startswith(MAGIC):
            self.fault = Fault.CUT if packed and MAGIC.startswith(packed[:8]) else Fault.NOT_A_PARCEL
            return
        _, sender, to, identifier, sections = _HEADER.unpack(packed)
        self.header = Header(sender.hex(), to.hex(), identifier.hex(), sections)
        self._packed = packed
        if to.hex() != receiver.public.fingerprint:
            self.fault = Fault.NOT_FOR_US
            return
        found = known(sender.hex())
        if isinstance(found, Fault):
            self.fault = found
        elif found.fingerprint != sender.hex():
            self.fault = Fault.UNKNOWN_SENDER
        else:
            self._sender = found

    def __iter__(self) -> Iterator[Message | Piece]:
        """What is in the sections, in order; after the last one `fault` says why there are no more, if not all were taken."""
        while self.fault is None and self.header is not None and self.taken < self.header.sections:
            content = self._next(self.taken + 1)
            if isinstance(content, Fault):
                self.fault = content
                return
            self.taken += 1
            yield content

    def _next(self, index: int) -> Message | Piece | Fault:
        length = self._file.read(_LENGTH.size)
        if len(length) < _LENGTH.size:
            return Fault.CUT
        (size,) = _LENGTH.unpack(length)
        if size > MOST_SECTION:
            return Fault.DAMAGED
        sealed = self._file.read(size)
        if len(sealed) < size:
            return Fault.CUT
        about = self._packed + _LENGTH.pack(index)
        try:
            opened = _SUITE.decrypt(sealed, self._receiver.sealing, about)
        except (InvalidTag, ValueError):
            return Fault.DAMAGED
        signature, plain = opened[:_SIGNATURE], opened[_SIGNATURE:]
        if not self._sender.signed(signature, about + plain):
            return Fault.DAMAGED
        return _unpacked(plain)


def _packed(content: Message | Piece) -> bytes:
    if isinstance(content, Piece):
        head = _OBJECT.pack(bytes.fromhex(content.sha256), content.size, content.offset)
        return _PIECE + head + content.data
    return _MESSAGE + zlib.compress(canonical(content), 9)


def _unpacked(plain: bytes) -> Message | Piece | Fault:
    try:
        if plain[:1] == _PIECE:
            sha256, size, offset = _OBJECT.unpack_from(plain, 1)
            data = plain[1 + _OBJECT.size :]
            if offset + len(data) > size:
                return Fault.UNREADABLE
            return Piece(sha256=sha256.hex(), size=size, offset=offset, data=data)
        if plain[:1] == _MESSAGE:
            inflate = zlib.decompressobj()
            said = inflate.decompress(plain[1:], MOST_MESSAGE)
            if inflate.eof and not inflate.unused_data:
                message: Message = msgspec.json.decode(said, type=Message)
                return message
    except (struct.error, zlib.error, msgspec.DecodeError, UnicodeDecodeError):
        pass
    return Fault.UNREADABLE
