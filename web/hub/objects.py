"""How an object comes in: appended where it stopped, its bytes durable before anybody is told how many there are."""

from __future__ import annotations

import time
from collections.abc import Callable
from enum import Enum

from edge.cards import Piece
from web.hub import films
from web.hub.here import Hub
from web.hub.records import Device

PERSISTED = 4096
"""So many bytes are kept at the latest as they come over a slow link: what a cut costs at most."""
PERSISTED_FAST = 64 * 1024
"""So many over a link that gives the former in less than `FAST_SECONDS`."""
FAST_SECONDS = 0.02


class Took(Enum):
    """What became of bytes."""

    KEPT = "kept"
    UNKNOWN = "unknown"
    """No event of this site has announced the object."""
    ELSEWHERE = "elsewhere"
    """The bytes do not follow on those that are here."""
    WRONG = "wrong"
    """All bytes are here and are not what the object's name says: they are gone, and it begins anew."""


def append(
    hub: Hub, device: Device, sha256: str, offset: int, size: int | None, read: Callable[[int], bytes]
) -> tuple[Took, int]:
    """Take bytes from `read` until it gives none or fails; gives how many the hub has then.

    Whatever came before a failure is kept, and the failure is the caller's. Raises `Transient` when nothing can be kept.
    """
    name = f"{device.programme}/{sha256}"
    found = _size(hub, device, sha256)
    if found is None:
        return Took.UNKNOWN, 0
    total, have = found
    if offset != have or size not in (None, total):
        return Took.ELSEWHERE, have
    held, reading = b"", have < total
    while reading:
        began = time.monotonic()
        try:
            came = read(min(PERSISTED, total - have - len(held)))
        except BaseException:
            _keep(hub, device, name, have, held)
            raise
        held, reading = held + came, bool(came) and have + len(held) + len(came) < total
        fast = time.monotonic() - began < FAST_SECONDS and len(held) < PERSISTED_FAST
        if fast and reading:
            continue
        if have + len(held) == total:
            return _complete(hub, device, name, have, held)
        if not _keep(hub, device, name, have, held):
            found = _size(hub, device, sha256)  # another connection of this box has moved it
            return Took.ELSEWHERE, found[1] if found else 0
        have, held = have + len(held), b""
    return Took.KEPT, have


def piece(hub: Hub, device: Device, part: Piece) -> tuple[Took, int]:
    """Take a piece from a stick; what of it is here already is passed over."""
    found = _size(hub, device, part.sha256)
    if found is None or found[0] != part.size:
        return Took.UNKNOWN, 0
    have = found[1]
    if not part.offset <= have <= part.offset + len(part.data) or have == part.size:
        return Took.ELSEWHERE, have
    rest = memoryview(part.data)[have - part.offset :]
    place = 0

    def read(most: int) -> bytes:
        nonlocal place
        place += most
        return bytes(rest[place - most : place])

    return append(hub, device, part.sha256, have, part.size, read)


def _size(hub: Hub, device: Device, sha256: str) -> tuple[int, int] | None:
    with hub.store.reading(device.programme) as db:
        return films.size(db, device.site, sha256)


def _keep(hub: Hub, device: Device, name: str, have: int, data: bytes) -> bool:
    """Bytes first, then their number."""
    if not data:
        return True
    hub.blobs.write(name, have, data)
    return _moved(hub, device, name, have, have + len(data))


def _complete(hub: Hub, device: Device, name: str, have: int, data: bytes) -> tuple[Took, int]:
    total = have + len(data)
    if data:
        hub.blobs.write(name, have, data)
    if hub.blobs.finish(name, total):
        return (Took.KEPT, total) if _moved(hub, device, name, have, total) else (Took.ELSEWHERE, total)
    _moved(hub, device, name, have, 0)
    return Took.WRONG, 0


def _moved(hub: Hub, device: Device, name: str, before: int, have: int) -> bool:
    with hub.store.transaction(device.programme) as db:
        return films.moved(db, name.partition("/")[2], before, have)
