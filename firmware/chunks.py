"""Content-defined chunks: which pieces of a bundle lie already in the system that a box runs, wherever they have moved to.

A chunk ends where the 32 bytes before its end hash to a fixed pattern (the gear hash of FastCDC, Xia et al. 2016), so a byte put
in or taken out changes the chunk that it is in and the next one meets the old ends again. Maker and box cut by the same rule; the
maker publishes lengths and hashes, the box finds what it has by the hash alone. The hashes of dm-verity are a piece of their own,
of which the maker says how the box makes it (`verity.py`).
"""

from __future__ import annotations

import hashlib
import struct
from collections.abc import Iterable, Iterator
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO

import msgspec
import numpy as np
import numpy.typing as npt

from edge.errors import Unreadable
from firmware import verity
from firmware.verity import Tree

LEAST, MOST, BITS = 4096, 65536, 14
"""Bytes of a chunk, but for the last one; 2 ** BITS bytes after `LEAST` is the usual one."""
MAGIC = b"outpost chunks 2\n"
"""Of an index: another rule of cutting is another format, and a box that does not know it fetches the whole."""
_ENTRY = struct.Struct(">I16s")
_GEAR = np.array([int.from_bytes(hashlib.sha256(bytes([value])).digest()[:4]) for value in range(256)], np.uint32)
_PIECE = 1024 * 1024


@dataclass(frozen=True)
class Chunk:
    """Bytes of a file."""

    start: int
    length: int
    digest: bytes
    """16 bytes of its SHA-256: they only say where to look, the whole is held to its own hash afterwards."""
    tree: Tree | None = None
    """What the box makes itself; then it may be of any length."""


def pieces(bundle: Path) -> Iterator[Chunk]:
    """All that a bundle consists of, in order."""
    with bundle.open("rb") as file:
        for tree, made in verity.find(bundle):
            yield from cut(file, tree.start)
            yield Chunk(tree.start, len(made), digest(made), tree)
            file.seek(tree.start + len(made))
        yield from cut(file)


def cut(file: BinaryIO, end: int | None = None) -> Iterator[Chunk]:
    """The chunks of a file from where it stands to `end`, or to its own."""
    held, at = b"", file.tell()
    while True:
        data = file.read(_PIECE if end is None else min(_PIECE, end - at - len(held)))
        held += data
        ends, begin = _ends(held), 0
        while len(held) - begin > MOST or (not data and begin < len(held)):
            place = int(np.searchsorted(ends, begin + LEAST))
            last = min(int(ends[place]) if place < len(ends) else len(held), begin + MOST, len(held))
            yield Chunk(at + begin, last - begin, digest(held[begin:last]))
            begin = last
        held, at = held[begin:], at + begin
        if not data:
            return


def find(own: Path, wanted: Iterable[Chunk]) -> dict[bytes, int]:
    """Where in a slot those chunks lie that are wanted; what cannot be read there is not there."""
    digests, found = {one.digest for one in wanted}, {}
    with suppress(OSError), own.open("rb") as slot:
        for one in cut(slot):
            if one.digest in digests:
                found[one.digest] = one.start
    return found


def take(own: Path, at: int, one: Chunk, part: Path) -> bytes:
    """A piece that was found there, or is made of what `part` has already; nothing where it is not what it shall be."""
    try:
        if one.tree is not None:
            data = verity.make(part, one.tree)
        else:
            with own.open("rb") as slot:
                slot.seek(at)
                data = slot.read(one.length)
    except OSError:
        return b""
    return data if digest(data) == one.digest else b""


def joined(run: Iterable[Chunk]) -> Chunk:
    """Chunks that follow on each other, as one, of which nobody knows the hash."""
    first, *others = run
    return Chunk(first.start, first.length + sum(one.length for one in others), b"")


def digest(data: bytes) -> bytes:
    """What a chunk is known by."""
    return hashlib.sha256(data).digest()[: _ENTRY.size - 4]


def _ends(data: bytes) -> npt.NDArray[np.int64]:
    """Where a chunk may end: the gear hash of the last 32 bytes, for all places at once."""
    hashed = _GEAR[np.frombuffer(data, np.uint8)]
    for step in (1, 2, 4, 8, 16):  # of 2 bytes each, of 4, … of 32
        hashed[step:] += hashed[:-step] << np.uint32(step)
    return np.flatnonzero(hashed >> np.uint32(32 - BITS) == 0) + 1


def write(chunks: Iterable[Chunk]) -> bytes:
    """An index, as it is published: what it is, the trees in one line of JSON, and of each piece length and digest."""
    told = list(chunks)
    trees = msgspec.json.encode([one.tree for one in told if one.tree is not None])
    return MAGIC + trees + b"\n" + b"".join(_ENTRY.pack(one.length, one.digest) for one in told)


def read(index: bytes, size: int) -> list[Chunk]:
    """The pieces of a file of `size` bytes. Raises `Unreadable` where an index is none, or not of such a file."""
    told, _, entries = index.removeprefix(MAGIC).partition(b"\n")
    if not index.startswith(MAGIC) or len(entries) % _ENTRY.size:
        raise Unreadable("this is no index of chunks")
    try:
        trees = {tree.start: tree for tree in msgspec.json.decode(told, type=list[Tree])}
    except msgspec.DecodeError:
        raise Unreadable("this is no index of chunks") from None
    chunks, at = [], 0
    for length, known in _ENTRY.iter_unpack(entries):
        tree = trees.get(at)
        fits = 0 < length <= MOST if tree is None else 0 <= tree.of <= tree.of + tree.blocks * verity.BLOCK <= at
        if not fits:
            raise Unreadable("the index contradicts itself")
        chunks.append(Chunk(at, length, known, tree))
        at += length
    if at != size:
        raise Unreadable("the index is not of this bundle")
    return chunks
