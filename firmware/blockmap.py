"""Block maps in the format of bmaptool (2.0): which blocks of an image hold something, and the SHA-256 of each range of them.

What is signed is the map; the map vouches for the image, while it is written and again when it is read back.
"""

from __future__ import annotations

import hashlib
import os
import re
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO
from xml.etree import ElementTree

from edge.errors import Unreadable

BLOCK = 4096
LONGEST = 4 * 1024 * 1024
"""Bytes of a range, so that one fits into memory and a fault can be told where it is."""
_ZERO = "0" * 64


@dataclass(frozen=True)
class Range:
    """Bytes of the image that hold something."""

    start: int
    length: int
    """Bytes; at most `LONGEST` in a map that is made here."""
    sha256: str


@dataclass(frozen=True)
class BlockMap:
    """What an image holds."""

    size: int
    """Bytes of the whole image, holes included."""
    ranges: tuple[Range, ...]
    """In order, none over another."""

    @property
    def mapped(self) -> int:
        """Bytes that have to be written."""
        return sum(one.length for one in self.ranges)


def extents(image: BinaryIO) -> Iterator[tuple[int, int]]:
    """Where a sparse file holds something: start and end in bytes."""
    end, at = os.fstat(image.fileno()).st_size, 0
    while at < end:
        try:
            at = os.lseek(image.fileno(), at, os.SEEK_DATA)
        except OSError:  # ENXIO: only a hole is left
            return
        hole = os.lseek(image.fileno(), at, os.SEEK_HOLE)
        yield at, hole
        at = hole


def make(path: Path, held: Iterable[tuple[int, int]] | None = None) -> BlockMap:
    """Map an image by where it says it holds something (`held`: starts and ends in bytes), or by the file's own holes."""
    ranges: list[Range] = []
    with path.open("rb") as image:
        size = os.fstat(image.fileno()).st_size
        for start, end in extents(image) if held is None else held:
            first, last = start // BLOCK * BLOCK, min(-(-end // BLOCK) * BLOCK, size)
            if ranges:
                first = max(first, ranges[-1].start + ranges[-1].length)
            for at in range(first, last, LONGEST):
                image.seek(at)
                content = image.read(min(LONGEST, last - at))
                ranges.append(Range(at, len(content), hashlib.sha256(content).hexdigest()))
    return BlockMap(size, tuple(ranges))


def write(mapped: BlockMap) -> bytes:
    """The map as bmaptool reads it."""
    rows = []
    for one in mapped.ranges:
        first, last = one.start // BLOCK, (one.start + one.length - 1) // BLOCK
        blocks = str(first) if first == last else f"{first}-{last}"
        rows.append(f'        <Range chksum="{one.sha256}"> {blocks} </Range>')
    count = -(-mapped.size // BLOCK)
    held = sum(-(-one.length // BLOCK) for one in mapped.ranges)
    text = "\n".join(
        [
            '<?xml version="1.0" ?>',
            '<bmap version="2.0">',
            f"    <ImageSize> {mapped.size} </ImageSize>",
            f"    <BlockSize> {BLOCK} </BlockSize>",
            f"    <BlocksCount> {count} </BlocksCount>",
            f"    <MappedBlocksCount> {held} </MappedBlocksCount>",
            "    <ChecksumType> sha256 </ChecksumType>",
            f"    <BmapFileChecksum> {_ZERO} </BmapFileChecksum>",
            "    <BlockMap>",
            *rows,
            "    </BlockMap>",
            "</bmap>",
            "",
        ]
    )
    return text.replace(_ZERO, hashlib.sha256(text.encode()).hexdigest(), 1).encode()


def read(content: bytes) -> BlockMap:
    """Read a map whose signature was checked. Raises `Unreadable` for what is none, or for one that contradicts itself."""
    try:
        root = ElementTree.fromstring(content)  # noqa: S314  only a map whose signature fits is parsed
        block, size = int(_text(root, "BlockSize")), int(_text(root, "ImageSize"))
        ranges = []
        for row in root.findall("BlockMap/Range"):
            first, _, last = (row.text or "").strip().partition("-")
            start = int(first) * block
            ranges.append(Range(start, min((int(last or first) + 1) * block, size) - start, row.attrib["chksum"]))
        sound = bool(root.tag == "bmap" and _text(root, "ChecksumType") == "sha256" and block > 0 and ranges)
    except (ElementTree.ParseError, ValueError, KeyError) as error:
        raise Unreadable(
            f"the block map cannot be read ({error}). Fetch the image again, with all its files."
        ) from None
    end = 0
    for one in ranges:
        sound = sound and one.start >= end and one.length > 0 and bool(re.fullmatch("[0-9a-f]{64}", one.sha256))
        end = one.start + one.length
    if not sound or end > size:
        raise Unreadable("the block map contradicts itself. Fetch the image again, with all its files.")
    return BlockMap(size, tuple(ranges))


def _text(root: ElementTree.Element, tag: str) -> str:
    found = root.findtext(tag)
    if found is None:
        raise ValueError(f"no {tag}")
    return found.strip()
