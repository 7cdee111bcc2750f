"""A folder: each document a file, which is there whole or not at all; its name says nothing of the patient."""

from __future__ import annotations

import errno
import os
from collections.abc import Sequence
from pathlib import Path

from edge.config import FolderSink
from edge.records import Delivery, Document, Receipt, Trouble

_ENDINGS = {"fhir": "json", "oru": "hl7"}

_TROUBLES = {
    errno.ENOSPC: Trouble.FULL,
    errno.EDQUOT: Trouble.FULL,
    errno.EFBIG: Trouble.REJECTED,
    errno.EACCES: Trouble.KEPT_OUT,
    errno.EPERM: Trouble.KEPT_OUT,
    errno.EROFS: Trouble.KEPT_OUT,
    errno.ETIMEDOUT: Trouble.HANGS,
}


class Folder:
    """A share, or a disk."""

    def __init__(self, settings: FolderSink) -> None:
        self.folder = Path(settings.path)

    def deliver(self, documents: Sequence[Document], delivery: Delivery) -> Receipt:
        """Write what is not there yet; a file has its name only once its bytes are on the disk."""
        taken: list[str] = []
        try:
            for document in documents:
                self._put(document)
                taken.append(document.uid)
            if documents:
                _sync(self.folder)
        except OSError as error:
            return _failed(error, tuple(taken))
        return Receipt(taken=tuple(taken))

    def probe(self) -> Receipt:
        """The folder is there and a file can be made in it."""
        probe = self.folder / ".outpost-probe"
        try:
            probe.write_bytes(b"")
            probe.unlink()
        except OSError as error:
            return _failed(error)
        return Receipt(detail="can be written")

    def _put(self, document: Document) -> None:
        target = self.folder / name(document)
        if target.exists() and target.read_bytes() == document.data:
            return
        # after a power cut the next attempt writes the same unfinished file again: none is left behind
        unfinished = self.folder / f".{target.name}.part"
        with unfinished.open("wb") as file:
            file.write(document.data)
            file.flush()
            os.fsync(file.fileno())
        os.rename(unfinished, target)  # noqa: PTH104  a step that the fault tests count


def name(document: Document) -> str:
    """The name of a document's file: its kind and what it is identified by, which was derived and tells nothing."""
    return f"{document.kind}-{document.uid.removeprefix('urn:uuid:')}.{_ENDINGS.get(document.kind, 'dcm')}"


def _sync(folder: Path) -> None:
    """Make the names durable, where the file system can (some of the network cannot, and say EINVAL)."""
    handle = os.open(folder, os.O_RDONLY | os.O_DIRECTORY)
    try:
        os.fsync(handle)
    except OSError as error:
        if error.errno != errno.EINVAL:
            raise
    finally:
        os.close(handle)


def _failed(error: OSError, taken: tuple[str, ...] = ()) -> Receipt:
    """A folder that is away is a disk or a share that is away."""
    trouble = _TROUBLES.get(error.errno or 0, Trouble.UNREACHABLE)
    return Receipt(trouble, os.strerror(error.errno) if error.errno else type(error).__name__, taken)
