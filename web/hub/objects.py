"""How an object comes in: appended where it stopped, its bytes durable before anybody is told how many there are."""

from __future__ import annotations

import threading
from collections.abc import Callable
from enum import Enum

from edge.cards import Piece
from web.hub import films, sites
from web.hub.here import Hub
from web.hub.records import Device

PERSISTED = 4096
"""So many bytes are read at a time, and kept while the next are on their way: what a cut costs at most."""
UNKEPT = 1 << 20
"""So many may wait for a disk that is slower than the link; they are kept together."""


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
    keeper = _Keeper(hub, device, name, have, total)
    keeper.start()
    try:
        place = have
        while place < total and (came := read(min(PERSISTED, total - place))) and keeper.put(came):
            place += len(came)
    finally:
        keeper.close()
    if keeper.failure is not None:
        raise keeper.failure
    if keeper.took is Took.ELSEWHERE:  # another connection of this box has moved it
        found = _size(hub, device, sha256)
        return Took.ELSEWHERE, found[1] if found else 0
    return keeper.took, keeper.have


class _Keeper(threading.Thread):
    """Keeps what has come while more is on its way: on a slow link piece by piece, on a fast one whatever came meanwhile."""

    def __init__(self, hub: Hub, device: Device, name: str, have: int, total: int) -> None:
        super().__init__(name="keeper")
        self.took, self.have = Took.KEPT, have
        self.failure: BaseException | None = None
        self._hub, self._device, self._name, self._total = hub, device, name, total
        self._waiting, self._open = bytearray(), True
        self._changed = threading.Condition()

    def put(self, data: bytes) -> bool:
        """Hand bytes over; False where there is no point in more."""
        with self._changed:
            self._waiting += data
            self._changed.notify_all()
            self._changed.wait_for(lambda: len(self._waiting) < UNKEPT or not self._open)
            return self._open

    def close(self) -> None:
        """Wait until all is kept that came."""
        with self._changed:
            self._open = False
            self._changed.notify_all()
        self.join()

    def run(self) -> None:
        """Until there is no more to come, or something stands against it."""
        try:
            while self.took is Took.KEPT and (data := self._next()):
                self._keep(data)
        except BaseException as failure:  # noqa: BLE001  it is the caller's
            self.failure = failure
        with self._changed:
            self._open = False
            self._waiting.clear()
            self._changed.notify_all()

    def _next(self) -> bytes:
        with self._changed:
            self._changed.wait_for(lambda: self._waiting or not self._open)
            data = bytes(self._waiting)
            self._waiting.clear()
            self._changed.notify_all()
            return data

    def _keep(self, data: bytes) -> None:
        """Bytes first, then their number; the last only once all are what their name says."""
        self._hub.blobs.write(self._name, self.have, data)
        end = self.have + len(data)
        if end == self._total and not self._hub.blobs.finish(self._name, end):
            self.took, end = Took.WRONG, 0
        with self._hub.store.transaction(self._device.programme) as db:
            moved = films.moved(db, self._name.partition("/")[2], self.have, end)
            if moved:
                sites.keep(db, self._device.site)
        if not moved:
            self.took = Took.ELSEWHERE
        self.have = end


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
