"""The hashes of dm-verity (kernel.org) behind a system, and behind a bundle: whoever has what they are of can make them.

They are a hundredth of a bundle and change as a whole once a byte is put in anywhere, so a box makes them itself.
"""

from __future__ import annotations

import hashlib
import mmap
import re
import struct
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

BLOCK = 4096
SUPERBLOCK = struct.Struct("<8sII16s32sIIQH6x256s")
"""Signature, version, kind, UUID, hash, sizes of blocks, how many, salt's length, salt (cryptsetup's `verity.h`)."""
SIGNED = struct.Struct(">Q")
"""The last bytes of a RAUC bundle: the length of its signature, which has the manifest in it; the hashes lie before."""


@dataclass(frozen=True)
class Tree:
    """Hashes that lie somewhere in a file."""

    start: int
    of: int
    """Where the blocks begin of which they are, before them in the file."""
    blocks: int
    salt: bytes


def find(path: Path) -> Iterator[tuple[Tree, bytes]]:
    """The trees of hashes in a bundle, in order, and their bytes: what looks like one and is another is none."""
    with path.open("rb") as file, mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ) as data:
        for tree in (*_system(data), *_bundle(data)):
            if tree.of >= 0 and tree.of + tree.blocks * BLOCK <= tree.start:
                made = make(path, tree)
                if data[tree.start : tree.start + len(made)] == made:
                    yield tree, made


def _system(data: mmap.mmap) -> Iterator[Tree]:
    at = data.find(b"verity\0\0")
    while at >= 0:
        if at + SUPERBLOCK.size <= len(data):
            _, version, kind, _, name, *sizes, blocks, length, salt = SUPERBLOCK.unpack_from(data, at)
            if (version, kind, name.rstrip(b"\0"), sizes) == (1, 1, b"sha256", [BLOCK, BLOCK]):
                yield Tree(at + BLOCK, at - blocks * BLOCK, blocks, salt[:length])
        at = data.find(b"verity\0\0", at + 1)


def _bundle(data: mmap.mmap) -> Iterator[Tree]:
    end = len(data) - SIGNED.size
    if end <= 0:
        return
    end -= SIGNED.unpack_from(data, end)[0]
    told = data[max(end, 0) :]
    salt, size = (re.search(rb"^verity-%b=([0-9a-f]+)\s*$" % name, told, re.M) for name in (b"salt", b"size"))
    if salt is not None and size is not None:
        start = end - int(size[1])
        yield Tree(start, 0, start // BLOCK, bytes.fromhex(salt[1].decode()))


def make(path: Path, tree: Tree) -> bytes:
    """A tree, made of the blocks that it is of: its top comes first, and each level fills whole blocks."""
    with path.open("rb") as file:
        file.seek(tree.of)
        level = b"".join(hashlib.sha256(tree.salt + file.read(BLOCK)).digest() for _ in range(tree.blocks))
    levels = [level + bytes(-len(level) % BLOCK)]
    while len(levels[0]) > BLOCK:
        starts = range(0, len(levels[0]), BLOCK)
        level = b"".join(hashlib.sha256(tree.salt + levels[0][at : at + BLOCK]).digest() for at in starts)
        levels.insert(0, level + bytes(-len(level) % BLOCK))
    return b"".join(levels)
