"""Files that never change, named by the SHA-256 of their bytes: `objects/ab/abcd…`.

A file is put in place by a rename after it was synced, so that a name that exists is whole.
"""

from __future__ import annotations

import hashlib
import os
import shutil
import tempfile
from pathlib import Path

from edge import durable
from edge.errors import Tampered
from edge.records import Sha256, StoredFile


class Objects:
    """The object store of a box, below `state`."""

    def __init__(self, state: Path) -> None:
        self.root = state / "objects"
        self.incoming = state / "incoming"
        """Unfinished files, on the same file system; whatever lies here at start was never acknowledged."""
        for folder in (self.root, self.incoming):
            durable.folder(folder)

    def path(self, sha256: Sha256) -> Path:
        """Where the file of that name lies, whether or not it exists."""
        return self.root / sha256[:2] / sha256

    def put(self, data: bytes) -> StoredFile:
        """Store bytes durably; storing the same bytes again changes nothing."""
        handle, name = tempfile.mkstemp(dir=self.incoming)
        with os.fdopen(handle, "wb") as file:
            file.write(data)
        return self.adopt(Path(name))

    def adopt(self, file: Path) -> StoredFile:
        """Take over a finished file of `incoming` durably: its bytes and its name survive a power cut on return."""
        with file.open("rb") as source:
            sha256 = Sha256(hashlib.file_digest(source, "sha256").hexdigest())
            os.fchmod(source.fileno(), 0o440)
            os.fsync(source.fileno())
            size = os.fstat(source.fileno()).st_size
        target = self.path(sha256)
        durable.folder(target.parent)
        file.rename(target)  # onto itself when it is there already: equal name, equal bytes
        durable.names(target.parent)
        return StoredFile(sha256, target, size)

    def read(self, sha256: Sha256) -> bytes:
        """The bytes of that name. Raises `Tampered` when the file's bytes no longer match it (a failing disk)."""
        data = self.path(sha256).read_bytes()
        if hashlib.sha256(data).hexdigest() != sha256:
            raise Tampered(f"{self.path(sha256)} has changed on disk")
        return data

    def free_mib(self) -> int:
        """Free space on the disk in MiB, as an ordinary user may fill it."""
        disk = os.statvfs(self.root)
        return disk.f_bavail * disk.f_frsize // 2**20

    def free_percent(self) -> int:
        """Of the disk, as much as an ordinary user may fill."""
        disk = os.statvfs(self.root)
        return 100 * disk.f_bavail // max(disk.f_blocks, 1)

    def sweep(self) -> int:
        """Remove what a crash left unfinished and say how many files that were; call before anything is received."""
        leftovers = list(self.incoming.iterdir())
        for file in leftovers:
            shutil.rmtree(file) if file.is_dir() else file.unlink()
        return len(leftovers)
