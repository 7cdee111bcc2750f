"""Signatures in the format of minisign, so that anybody can check them with a program of somebody else.

A signature is Ed25519 over the BLAKE2b-512 of the file, then once more over itself and its trusted comment, which says what the
file is: a good signature on another file, renamed, is found by that.
"""

from __future__ import annotations

import base64
import binascii
import hashlib
import secrets
from dataclasses import dataclass

from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey, Ed25519PublicKey

from edge.errors import Tampered, Unreadable

KEY, FILE = b"Ed", b"ED"
"""The two algorithms as minisign calls them: a public key, and a signature over a hash."""
COMMENT, TRUSTED = "untrusted comment: ", "trusted comment: "


@dataclass(frozen=True)
class PublicKey:
    """Whom to believe."""

    id: bytes
    """Eight bytes that only tell keys apart."""
    raw: bytes
    """32 bytes."""

    def __str__(self) -> str:
        """As in minisign's own file, and as people compare it."""
        return base64.b64encode(KEY + self.id + self.raw).decode()


@dataclass(frozen=True)
class SecretKey:
    """What signs; made for one development image and kept nowhere, or read from a file that is nobody else's."""

    id: bytes
    private: Ed25519PrivateKey

    @classmethod
    def generate(cls) -> SecretKey:
        """A new one."""
        return cls(secrets.token_bytes(8), Ed25519PrivateKey.generate())

    @property
    def public(self) -> PublicKey:
        """What to believe its signatures by."""
        return PublicKey(self.id, self.private.public_key().public_bytes_raw())


def public_key(text: str) -> PublicKey:
    """Read a public key as minisign writes it: one line, or two with a comment above. Raises `Unreadable`."""
    lines = [line for line in text.splitlines() if line.strip() and not line.startswith(COMMENT)]
    raw = _decoded(lines[0] if lines else "", 42)
    if raw is None or raw[:2] != KEY:
        raise Unreadable("this is no public key of minisign. Ask for the .pub file of whoever made the image.")
    return PublicKey(raw[2:10], raw[10:])


def write_public(key: PublicKey) -> str:
    """The public key as minisign's own file."""
    return f"{COMMENT}minisign public key {key.id[::-1].hex().upper()}\n{key}\n"


def sign(content: bytes, key: SecretKey, comment: str) -> str:
    """Sign a file's content; `comment` is signed too and is one line."""
    signed = key.private.sign(hashlib.blake2b(content).digest())
    lines = [
        f"{COMMENT}signature of Outpost",
        base64.b64encode(FILE + key.id + signed).decode(),
        f"{TRUSTED}{comment}",
        base64.b64encode(key.private.sign(signed + comment.encode())).decode(),
    ]
    return "\n".join(lines) + "\n"


def verify(content: bytes, signature: str, key: PublicKey) -> str:
    """The trusted comment of a good signature. Raises `Tampered` for any other, `Unreadable` for what is none."""
    lines = signature.splitlines()
    raw = _decoded(lines[1], 74) if len(lines) >= 4 else None
    whole = _decoded(lines[3], 64) if len(lines) >= 4 else None
    if raw is None or whole is None or raw[:2] != FILE or not lines[2].startswith(TRUSTED):
        raise Unreadable("this is no signature of minisign. Fetch the image again, with all its files.")
    comment = lines[2].removeprefix(TRUSTED)
    if raw[2:10] != key.id:
        raise Tampered("it is signed with another key than the one you gave. Ask who made it.")
    public = Ed25519PublicKey.from_public_bytes(key.raw)
    try:
        public.verify(raw[10:], hashlib.blake2b(content).digest())
        public.verify(whole, raw[10:] + comment.encode())
    except InvalidSignature:
        raise Tampered("the signature does not fit: it was changed after it was signed. Fetch it again.") from None
    return comment


def _decoded(text: str, size: int) -> bytes | None:
    try:
        raw = base64.b64decode(text.strip(), validate=True)
    except (binascii.Error, ValueError):
        return None
    return raw if len(raw) == size else None
