"""An image onto a card: written by its block map, read back past every cache, and only then given the block it starts by.

Whatever goes wrong before the end, a card that is pulled out half-written included, leaves one that does not start.
"""

from __future__ import annotations

import errno
import gzip
import hashlib
import lzma
import mmap
import os
import stat
import struct
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import IO, cast

from edge.errors import Misconfigured, Tampered, Unreadable
from firmware.blockmap import BlockMap, Range

HEAD = 64 * 1024
"""Bytes at the beginning that are written last: partition table and boot code."""
CHUNK = 4 * 1024 * 1024
SITE = "outpost-site"
"""The name of the partition that holds the site file, in the partition table (UEFI 5.3.3)."""
MAGIC = b"# outpost site"
"""What the site file's place on the card begins with, filled or not."""
PLACE = 16 * 1024
"""Bytes that are kept for the site file, contiguous, on that partition."""

Progress = Callable[[int], None]
"""Told how many more bytes are done."""


@contextmanager
def unpacked(path: Path) -> Iterator[IO[bytes]]:
    """An image as it will be on the card, whether it lies here as it is, as .gz or as .xz."""
    if path.suffix == ".gz":
        with gzip.open(path) as image:
            yield cast(IO[bytes], image)
    elif path.suffix == ".xz":
        with lzma.open(path) as image:
            yield image
    else:
        with path.open("rb") as image:
            yield image


def check(path: Path, mapped: BlockMap, progress: Progress) -> None:
    """Hold the image to its map before anything is written. Raises `Tampered`."""
    try:
        with unpacked(path) as image:
            for one in mapped.ranges:
                digest = hashlib.sha256()
                for _, content in _pieces(image, one):
                    digest.update(content)
                    progress(len(content))
                if digest.hexdigest() != one.sha256:
                    raise Tampered(f"{path.name} is not what was signed (at {_place(one.start)}). Fetch it again.")
    except (EOFError, gzip.BadGzipFile, lzma.LZMAError) as error:
        raise Tampered(f"{path.name} is damaged ({error}). Fetch it again.") from None


def _pieces(image: IO[bytes], of: Range) -> Iterator[tuple[int, bytes]]:
    image.seek(of.start)
    at, end = of.start, of.start + of.length
    while at < end:
        content = image.read(min(CHUNK, end - at))
        if not content:
            raise EOFError("it ends too early")
        yield at, content
        at += len(content)


@contextmanager
def opened(path: Path, size: int) -> Iterator[int]:
    """A card to write to, for this program alone; an ordinary file is made where there is none.

    Raises `Misconfigured` where it may not be written, is in use, or is smaller than `size` bytes.
    """
    new = not path.exists()
    flags = os.O_RDWR | os.O_CLOEXEC | (os.O_CREAT | os.O_EXCL if new else 0)
    if not new and stat.S_ISBLK(path.stat().st_mode):
        flags |= os.O_EXCL  # the kernel refuses what is mounted, whatever lsblk said
    try:
        card = os.open(path, flags, 0o644)
    except PermissionError:
        raise Misconfigured(f"you may not write to {path}. Put `sudo` before the command.") from None
    except OSError as error:
        words = "is in use: unmount it" if error.errno == errno.EBUSY else f"cannot be opened ({error.strerror})"
        raise Misconfigured(f"{path} {words}.") from None
    try:
        if new:
            os.truncate(card, size)
        room = os.lseek(card, 0, os.SEEK_END)
        if room < size:
            raise Misconfigured(
                f"{path} is too small: it has {room / 1e9:.3f} GB, the image needs {size / 1e9:.3f} GB. Take a larger one."
            )
        yield card
    finally:
        os.close(card)


def write(path: Path, mapped: BlockMap, card: int, progress: Progress) -> bytes:
    """Write everything but the head, which is made empty, and give the head back. Raises `Unreadable` for a bad card."""
    head = bytearray(HEAD)
    since = 0
    try:
        os.pwrite(card, bytes(HEAD), 0)
        os.fsync(card)
        with unpacked(path) as image:
            for one in mapped.ranges:
                for at, content in _pieces(image, one):
                    if at < HEAD:
                        head[at : at + len(content)] = content[: HEAD - at]
                    _put(card, content[max(0, HEAD - at) :], max(at, HEAD))
                    since += len(content)
                    if since >= 4 * CHUNK:  # else the bar shows how fast this computer's memory is
                        os.fdatasync(card)
                        since = 0
                    progress(len(content))
        os.fsync(card)
    except OSError as error:
        raise _bad(error) from None
    return bytes(head[: min(HEAD, mapped.size)])


def start(card: int, head: bytes) -> None:
    """Give a card that was read back the block that it starts by. Raises `Unreadable` for a bad card."""
    try:
        _put(card, head, 0)
        os.fsync(card)
    except OSError as error:
        raise _bad(error) from None


def spoil(card: int) -> None:
    """Take away the block that a bad card would start by; it may be too bad even for that."""
    with suppress(OSError):
        os.pwrite(card, bytes(HEAD), 0)
        os.fsync(card)


def _put(card: int, content: bytes, at: int) -> None:
    rest = memoryview(content)
    while rest:
        done = os.pwrite(card, rest, at)
        rest, at = rest[done:], at + done


def read_back(path: Path, ranges: tuple[Range, ...], progress: Progress) -> None:
    """Hold what the card gives back to the map. Raises `Unreadable` where it differs."""
    with _uncached(path) as read:
        for one in ranges:
            digest = hashlib.sha256()
            for at in range(one.start, one.start + one.length, CHUNK):
                content = read(at, min(CHUNK, one.start + one.length - at))
                digest.update(content)
                progress(len(content))
            if digest.hexdigest() != one.sha256:
                raise Unreadable(
                    f"the card does not give back what was written to it (at {_place(one.start)}). It is bad, or not as "
                    "large as it says. Throw it away and take another."
                )


@contextmanager
def _uncached(path: Path) -> Iterator[Callable[[int, int], bytes]]:
    """A way to read what is on the card, not what this computer remembers of it."""
    try:
        card = os.open(path, os.O_RDONLY | os.O_DIRECT | os.O_CLOEXEC)
    except OSError:  # a filesystem that knows no direct reading
        card = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
    buffer = mmap.mmap(-1, CHUNK)  # aligned, as direct reading asks
    view = memoryview(buffer)

    def read(at: int, length: int) -> bytes:
        os.posix_fadvise(card, at, length, os.POSIX_FADV_DONTNEED)
        part = view[: -(-length // mmap.PAGESIZE) * mmap.PAGESIZE]
        try:
            done = os.preadv(card, [part], at)
        except OSError as error:
            raise _bad(error) from None
        finally:
            part.release()
        return bytes(buffer[: min(done, length)])

    try:
        yield read
    finally:
        view.release()
        buffer.close()
        os.close(card)


def place_of_site(card: int) -> int:
    """Where on the card the site file goes, in bytes from its beginning. Raises `Unreadable` where the image has no place."""
    for name, begin, end in partitions(card):
        if name == SITE:
            content = os.pread(card, min(end - begin, 16 * CHUNK), begin)
            at = content.find(MAGIC)
            while at >= 0 and at % 512:  # a file begins with a sector; what is elsewhere is in the middle of another
                at = content.find(MAGIC, at + 1)
            if at >= 0 and at + PLACE <= len(content):
                return begin + at
    raise Unreadable(
        "this image has no place for a site file. Bring it on a USB stick, or type the settings at the box."
    )


def partitions(card: int) -> Iterator[tuple[str, int, int]]:
    """Name, start and end in bytes of every partition of a card with a GUID partition table (UEFI 5.3)."""
    header = os.pread(card, 512, 512)
    if header[:8] != b"EFI PART":
        return
    first, count, size = struct.unpack_from("<QII", header, 72)
    table = os.pread(card, min(count, 1024) * size, first * 512)
    for at in range(0, len(table), size):
        entry = table[at : at + size]
        begin, last = struct.unpack_from("<QQ", entry, 32)
        if entry[:16].strip(b"\0"):
            yield entry[56:128].decode("utf-16-le", "replace").rstrip("\0"), begin * 512, (last + 1) * 512


def write_site(path: Path, card: int, content: bytes) -> None:
    """Put a site file into its place on the card and read it back. Raises `Unreadable`."""
    if not content.startswith(MAGIC) or len(content) > PLACE:
        raise Unreadable(f"this is no site file: it begins with {MAGIC.decode()!r} and is at most {PLACE} bytes long.")
    at = place_of_site(card)
    padded = content.ljust(PLACE, b"\n")
    try:
        _put(card, padded, at)
        os.fsync(card)
    except OSError as error:
        raise _bad(error) from None
    with _uncached(path) as read:
        begin = at // mmap.PAGESIZE * mmap.PAGESIZE
        if read(begin, at - begin + PLACE)[at - begin :] != padded:
            raise Unreadable("the card does not give back the site file. Throw it away and take another.")


def _place(at: int) -> str:
    return f"{at / 1e6:.1f} MB"


def _bad(error: OSError) -> Unreadable:
    return Unreadable(f"the card failed: {error.strerror}. It is bad, or was pulled out. Try again, else take another.")
