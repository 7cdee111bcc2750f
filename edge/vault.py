"""What a box's back-up is on a USB stick: pieces of files, sealed under a code that only people have.

    outpost-backup-1a2b3c4d/        named by the code, so that a wrong code finds nothing
        0007.snapshot               the seventh: which files a box had, each as a list of pieces
        3f/3fc0…                    a piece, at most 4 MiB, named by a keyed hash of what is in it: it never changes

    snapshot, piece = "OUTPOST-BACKUP 1\\n", nonce (12), ChaCha20-Poly1305 (RFC 8439) under a key of its own name

What is the same in two back-ups is on the stick once. Who finds a stick sees how much there is and when it was written, no more.
"""

from __future__ import annotations

import hashlib
import hmac
import os
import secrets
import zlib
from collections.abc import Collection
from contextlib import suppress
from pathlib import Path

import msgspec
from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives.ciphers.aead import ChaCha20Poly1305
from cryptography.hazmat.primitives.hashes import SHA256
from cryptography.hazmat.primitives.kdf.hkdf import HKDF

from edge import durable
from edge.errors import Misconfigured, Tampered, Transient
from edge.pins import ALPHABET

PIECE = 4 * 2**20
MAGIC = b"OUTPOST-BACKUP 1\n"
FOLDER = "outpost-backup-"
SNAPSHOT = ".snapshot"
DRAWN, CHECKED, GROUP = 28, 2, 5
"""Characters of a code that are drawn (137 bits), that find a slip of the pen, and that are written together."""
_NONCE, _TAG = 12, 16


class Entry(msgspec.Struct, frozen=True, array_like=True):
    """One file of a snapshot."""

    path: str
    mode: int
    size: int
    pieces: tuple[str, ...]


class Snapshot(msgspec.Struct, frozen=True):
    """What a box had at one moment."""

    at: str
    version: str
    """Of the Outpost that made it."""
    entries: tuple[Entry, ...]


def code() -> str:
    """A new recovery code, as people write it down."""
    drawn = "".join(secrets.choice(ALPHABET) for _ in range(DRAWN))
    written = drawn + _check(drawn)
    return "-".join(written[at : at + GROUP] for at in range(0, len(written), GROUP))


def key(typed: str) -> bytes:
    """The key behind a code, however it was typed. Raises `Misconfigured` where it was not typed as it was written."""
    plain = "".join(one for one in typed.upper() if one.isalnum())
    if len(plain) != DRAWN + CHECKED or plain[DRAWN:] != _check(plain[:DRAWN]):
        raise Misconfigured(
            "this is no recovery code. Compare it with the paper: six groups of five letters and digits."
        )
    return _derived(plain.encode(), "code")


def _check(drawn: str) -> str:
    digest = hashlib.sha256(drawn.encode()).digest()
    return "".join(ALPHABET[one % len(ALPHABET)] for one in digest[:CHECKED])


def _derived(secret: bytes, what: str) -> bytes:
    return HKDF(SHA256(), 32, None, f"outpost backup 1 {what}".encode()).derive(secret)


class Vault:
    """The back-ups of one code on one stick; whatever the stick does ends as one of the four errors."""

    def __init__(self, stick: Path, key: bytes) -> None:
        self.key, self._names = key, _derived(key, "names")
        self.stick = stick
        self.folder = stick / f"{FOLDER}{_derived(key, 'folder').hex()[:8]}"

    def snapshots(self) -> list[str]:
        """The names of what was backed up whole, the newest first."""
        return sorted((path.name for path in self.folder.glob(f"[0-9][0-9][0-9][0-9]{SNAPSHOT}")), reverse=True)

    def read(self, name: str) -> bytes:
        """What is in a piece or a snapshot, from the stick itself. Raises `Tampered` where it is not what was written."""
        try:
            handle = os.open(self._path(name), os.O_RDONLY)
            try:
                os.posix_fadvise(handle, 0, 0, os.POSIX_FADV_DONTNEED)  # not what this computer still remembers of it
                with os.fdopen(handle, "rb", closefd=False) as file:
                    sealed = file.read()
            finally:
                os.close(handle)
        except FileNotFoundError:
            raise Tampered(f"{name}: is missing on the stick") from None
        except OSError as error:
            raise self.failed(error) from None
        if not sealed.startswith(MAGIC):
            if sealed.startswith(MAGIC[:-2]) and sealed[: len(MAGIC)].endswith(b"\n"):
                raise Misconfigured("this back-up is of a newer Outpost. Restore it with that version.")
            raise Tampered(f"{name}: is damaged")
        nonce, text = sealed[len(MAGIC) :][:_NONCE], sealed[len(MAGIC) + _NONCE :]
        try:
            return self._cipher(name).decrypt(nonce, text, MAGIC)
        except (InvalidTag, ValueError):
            raise Tampered(f"{name}: is damaged") from None

    def whole(self, name: str) -> bool:
        """Whether a piece is on the stick and is what was written."""
        try:
            self.read(name)
        except Tampered:
            return False
        return True

    def put(self, data: bytes) -> str:
        """Write a piece durably unless it is there; its name."""
        name = self.name(data)
        if not self.has(name, len(data)):
            self._write(name, data)
        return name

    def name(self, data: bytes) -> str:
        """What a piece of these bytes is called."""
        return hmac.new(self._names, hashlib.sha256(data).digest(), hashlib.sha256).hexdigest()

    def has(self, name: str, size: int) -> bool:
        """Whether a piece of that many bytes seems to be there."""
        try:
            return self._path(name).stat().st_size == len(MAGIC) + _NONCE + size + _TAG
        except OSError:
            return False

    def mend(self, name: str, data: bytes) -> None:
        """Write a piece once more, because the stick does not give it back."""
        self._write(name, data)

    def add(self, snapshot: Snapshot) -> str:
        """Write what a box had, once all pieces are there; until then there is no such back-up."""
        last = next((int(one.removesuffix(SNAPSHOT)) for one in self.snapshots()), 0)
        name = f"{last + 1:04}{SNAPSHOT}"  # numbered, not dated: clocks go back
        self._write(name, zlib.compress(msgspec.json.encode(snapshot)))
        return name

    def snapshot(self, name: str) -> Snapshot:
        """A snapshot. Raises `Tampered`."""
        try:
            return msgspec.json.decode(zlib.decompress(self.read(name)), type=Snapshot)
        except (zlib.error, msgspec.DecodeError):
            raise Tampered(f"{name}: is damaged") from None

    def prune(self, keep: int) -> None:
        """Take away what the newest `keep` snapshots do not need. Raises `Tampered` where one of them cannot be read."""
        kept, older = self.snapshots()[:keep], self.snapshots()[keep:]
        needed = {piece for name in kept for entry in self.snapshot(name).entries for piece in entry.pieces}
        for name in older:
            self._path(name).unlink()
        for path in self.folder.glob("??/*"):
            if path.name not in needed:
                path.unlink()

    def failed(self, error: OSError) -> Transient:
        """Say in words that the stick failed."""
        return Transient(
            f"the stick failed ({error.strerror}). It is full, or was pulled out. Put it in again, or take a larger one, and start"
            " the same again: what is on it already stays."
        )

    def _cipher(self, name: str) -> ChaCha20Poly1305:
        return ChaCha20Poly1305(_derived(self.key, name))

    def _path(self, name: str) -> Path:
        return self.folder / name if name.endswith(SNAPSHOT) else self.folder / name[:2] / name

    def _write(self, name: str, data: bytes) -> None:
        path, nonce = self._path(name), os.urandom(_NONCE)
        try:
            durable.folder(path.parent)
            try:
                durable.write(path, MAGIC + nonce + self._cipher(name).encrypt(nonce, data, MAGIC))
            except OSError:
                with suppress(OSError):
                    path.with_name(f"{path.name}.new").unlink(missing_ok=True)
                raise
        except OSError as error:
            raise self.failed(error) from None


def others(stick: Path, besides: Collection[Path] = ()) -> int:
    """How many back-ups under other codes are on a stick."""
    return len(set(stick.glob(f"{FOLDER}*")) - set(besides))
