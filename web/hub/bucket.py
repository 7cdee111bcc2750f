"""Pictures in an S3 bucket, for any number of workers.

No object of a bucket can grow, so what has come of a picture lies in pieces, `name.part/offset`, each durable once it is put; now
and then the small ones are put together, and when all is here and right it becomes one object, `name`. Credentials are no settings:
they come from the environment (AWS_ACCESS_KEY_ID, AWS_SECRET_ACCESS_KEY, or a role).
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterator
from contextlib import contextmanager
from urllib.parse import urlsplit

import obstore
from obstore.exceptions import BaseError, NotFoundError
from obstore.store import S3Store

from edge.errors import Misconfigured, Transient
from web.hub.blobs import NAME, Blobs
from web.hub.config import Store

STEP = 256 * 1024
"""Where a picture grows over a multiple of this, its pieces since the last are put together."""
MISSING = (FileNotFoundError, NotFoundError)


class Bucket(Blobs):
    """The bucket of the settings."""

    def __init__(self, config: Store) -> None:
        where = urlsplit(config.bucket)
        plain = config.endpoint.startswith("http://")
        try:
            self._store = S3Store(
                where.netloc,
                prefix=where.path.strip("/") or None,
                region=config.region,
                client_options={"allow_http": plain, "timeout": "30s"},
                **({"endpoint": config.endpoint, "virtual_hosted_style_request": False} if config.endpoint else {}),
            )
            obstore.list(self._store, prefix="outpost").collect()
        except (BaseError, ValueError) as error:
            raise Misconfigured(f"store.bucket: {config.bucket} cannot be used ({error}).") from None

    def write(self, name: str, offset: int, data: bytes) -> None:
        """Put one more piece, and put the pieces of a whole step together."""
        _check(name)
        with _reached():
            self._put(_piece(name, offset), data)
            end = offset + len(data)
            start = offset - offset % STEP
            if end // STEP > offset // STEP and offset > start:
                together = [(at, size) for at, size in self._pieces(name) if start <= at <= offset]
                if together and together[0][0] == start:
                    self._put(_piece(name, start), self._joined(name, together, start, end))
                    obstore.delete(self._store, [_piece(name, at) for at, _ in together[1:]])

    def finish(self, name: str, size: int) -> bool:
        """Put all pieces together as one object."""
        _check(name)
        with _reached():
            pieces = self._pieces(name)
            if not pieces and self._whole(name):
                return True
            data = self._joined(name, pieces, 0, size)
            right = hashlib.sha256(data).hexdigest() == name.partition("/")[2]
            if right:
                self._put(name, data)
            obstore.delete(self._store, [_piece(name, at) for at, _ in pieces])
            return right or self._whole(name)  # another connection of the same box was faster

    def shorten(self, name: str, size: int) -> None:
        """The beginning as one piece, then all else is gone."""
        _check(name)
        with _reached():
            if self.size(name) <= size:
                return
            pieces, begins = self._pieces(name), self.read(name, 0, size)
            self._put(_piece(name, 0), begins)
            obstore.delete(self._store, [_piece(name, at) for at, _ in pieces if at])
            if self._whole(name):
                obstore.delete(self._store, name)

    def remove(self, name: str) -> None:
        """The whole object, and its pieces."""
        _check(name)
        with _reached():
            gone = [_piece(name, at) for at, _ in self._pieces(name)] + ([name] if self._whole(name) else [])
            if gone:
                obstore.delete(self._store, gone)

    def size(self, name: str) -> int:
        """Of the whole object, or of its pieces."""
        _check(name)
        with _reached():
            try:
                return int(obstore.head(self._store, name)["size"])
            except MISSING:
                end = 0
                for at, size in self._pieces(name):
                    if at > end:
                        break
                    end = max(end, at + size)
                return end

    def read(self, name: str, start: int, stop: int) -> bytes:
        """Of the whole object, or of its pieces."""
        _check(name)
        with _reached():
            for _ in range(2):  # it may become whole in between
                try:
                    size = obstore.head(self._store, name)["size"]
                    stop = min(stop, size)
                    return bytes(obstore.get_range(self._store, name, start=start, end=stop)) if start < stop else b""
                except MISSING:
                    pass
                try:
                    return self._joined(name, self._pieces(name), start, stop)
                except MISSING:
                    continue
            return b""

    def _put(self, path: str, data: bytes) -> None:
        obstore.put(self._store, path, data, use_multipart=False)

    def _whole(self, name: str) -> bool:
        try:
            obstore.head(self._store, name)
        except MISSING:
            return False
        return True

    def _pieces(self, name: str) -> list[tuple[int, int]]:
        """Offset and size of each piece, in order."""
        found = obstore.list(self._store, prefix=f"{name}.part").collect()
        return sorted((int(one["path"].rpartition("/")[2]), int(one["size"])) for one in found)

    def _joined(self, name: str, pieces: list[tuple[int, int]], start: int, stop: int) -> bytes:
        """The bytes from `start` to `stop`, as far as the pieces have them without a gap."""
        parts, place = [], start
        for at, size in pieces:
            if at > place or place >= stop:
                break
            if (end := min(at + size, stop)) > place:
                parts.append(bytes(obstore.get_range(self._store, _piece(name, at), start=place - at, end=end - at)))
                place = end
        return b"".join(parts)


def _piece(name: str, offset: int) -> str:
    return f"{name}.part/{offset:012}"


def _check(name: str) -> None:
    if not NAME.fullmatch(name):
        raise ValueError(name)


@contextmanager
def _reached() -> Iterator[None]:
    """Whatever the bucket or the network says against it, whoever asked may ask again."""
    try:
        yield
    except (*MISSING, PermissionError, BaseError) as error:
        raise Transient(f"The pictures' bucket cannot be used now ({type(error).__name__}).") from error
