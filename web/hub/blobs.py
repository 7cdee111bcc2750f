"""Where pictures are kept: each under the name of its SHA-256, growing byte by byte while its box sends it.

A write is durable when it returns; only then may a caller say so. A name that is whole has been checked against its hash.
"""

from __future__ import annotations

import abc
import hashlib
import os
import re
import shutil
from pathlib import Path

from edge import durable
from edge.errors import Misconfigured, Transient
from web.hub.config import Config

NAME = re.compile("[a-z0-9_-]{1,63}/[0-9a-f]{64}")
"""Programme and hash."""


class Blobs(abc.ABC):
    """A store of objects; any number of threads may use it."""

    @abc.abstractmethod
    def write(self, name: str, offset: int, data: bytes) -> None:
        """Put bytes durably where those before them end; the same again changes nothing. Raises `Transient`."""

    @abc.abstractmethod
    def finish(self, name: str, size: int) -> bool:
        """Check the bytes so far against the hash, and seal them; False where they are not what their name says: they are gone."""

    @abc.abstractmethod
    def shorten(self, name: str, size: int) -> None:
        """Let go what lies behind the first bytes; the same again changes nothing. Raises `Transient`."""

    @abc.abstractmethod
    def remove(self, name: str) -> None:
        """Let go of an object; one that is not here changes nothing. Raises `Transient`."""

    @abc.abstractmethod
    def size(self, name: str) -> int:
        """How many bytes are here from the beginning on without a gap."""

    @abc.abstractmethod
    def read(self, name: str, start: int, stop: int) -> bytes:
        """The bytes from one offset to another, as far as they are here."""


class Files(Blobs):
    """Objects as files below a folder: `ab/abcd…`, and `ab/abcd….part` before they are whole."""

    def __init__(self, root: Path) -> None:
        self.root = root
        durable.folder(root, 0o700)

    def write(self, name: str, offset: int, data: bytes) -> None:
        """Bytes, then the file's own name, synced."""
        path = self._path(name)
        if path.exists():
            return
        part = path.with_suffix(".part")
        first = offset == 0 or not part.exists()
        try:
            if first:
                durable.folder(part.parent, 0o700)
            handle = os.open(part, os.O_WRONLY | os.O_CREAT, 0o600)
            try:
                while data:
                    written = os.pwrite(handle, data, offset)
                    offset, data = offset + written, data[written:]
                os.fdatasync(handle)
            finally:
                os.close(handle)
            if first:
                durable.names(part.parent)
        except OSError as error:
            raise Transient(f"A picture cannot be kept now ({error.strerror}).") from error

    def finish(self, name: str, size: int) -> bool:
        """Give the file the name of what is whole."""
        path = self._path(name)
        if path.exists():
            return True
        part = path.with_suffix(".part")
        try:
            with part.open("r+b") as file:
                file.truncate(size)  # what lies behind was never said to be here
                if hashlib.file_digest(file, "sha256").hexdigest() != path.name:
                    part.unlink()
                    durable.names(part.parent)
                    return False
                os.fsync(file.fileno())
            part.rename(path)
            durable.names(path.parent)
        except FileNotFoundError:
            return path.exists()  # another connection of the same box was faster
        except OSError as error:
            raise Transient(f"A picture cannot be kept now ({error.strerror}).") from error
        return True

    def shorten(self, name: str, size: int) -> None:
        """The beginning in a file of its own, then the whole is gone."""
        path = self._path(name)
        part = path.with_suffix(".part")
        try:
            if path.exists():
                durable.write(part, self.read(name, 0, size), 0o600)
                path.unlink()
                durable.names(path.parent)
            elif part.exists() and part.stat().st_size > size:
                with part.open("r+b") as file:
                    file.truncate(size)
                    os.fsync(file.fileno())
        except OSError as error:
            raise Transient(f"A picture cannot be shortened now ({error.strerror}).") from error

    def remove(self, name: str) -> None:
        """The whole file, and its beginning."""
        path = self._path(name)
        try:
            for one in (path, path.with_suffix(".part")):
                one.unlink(missing_ok=True)
            if path.parent.exists():
                durable.names(path.parent)
        except OSError as error:
            raise Transient(f"An object cannot be removed now ({error.strerror}).") from error

    def size(self, name: str) -> int:
        """Of the whole file, or of its beginning."""
        path = self._path(name)
        for one in (path, path.with_suffix(".part"), path):
            try:
                return one.stat().st_size
            except FileNotFoundError:
                continue
        return 0

    def read(self, name: str, start: int, stop: int) -> bytes:
        """Of the whole file, or of its beginning."""
        path = self._path(name)
        for one in (path, path.with_suffix(".part"), path):  # it may be sealed in between
            try:
                with one.open("rb") as file:
                    return os.pread(file.fileno(), max(0, stop - start), start)
            except FileNotFoundError:
                continue
        return b""

    def free_mib(self) -> int:
        """Free space on the disk in MiB."""
        return shutil.disk_usage(self.root).free // 2**20

    def _path(self, name: str) -> Path:
        if not NAME.fullmatch(name):
            raise ValueError(name)
        programme, _, sha256 = name.partition("/")
        return self.root / programme / sha256[:2] / sha256


def open_blobs(config: Config) -> Blobs:
    """The store that the settings name. Raises `Misconfigured` when it cannot be used."""
    if not config.store.bucket:
        return Files(Path(config.state) / "objects")
    try:
        from web.hub.bucket import Bucket
    except ImportError as error:
        raise Misconfigured(f"store.bucket: {error}. Install it with pip install 'outpost-cxr[hub]'.") from None
    return Bucket(config.store)
