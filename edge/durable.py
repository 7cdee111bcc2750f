"""What a power cut leaves: a file's bytes once they were synced, and a name once the folder that it stands in was (fsync(2))."""

from __future__ import annotations

import os
import tempfile
from pathlib import Path


def names(folder: Path) -> None:
    """Make durable which names a folder has."""
    handle = os.open(folder, os.O_RDONLY | os.O_DIRECTORY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)


def folder(path: Path, mode: int = 0o777) -> None:
    """Make a folder unless it is there, with those above it, and their names durable; `mode` as for `Path.mkdir`."""
    if not path.exists():
        folder(path.parent)
        path.mkdir(mode, exist_ok=True)
        names(path.parent)


def write(file: Path, data: bytes, mode: int = 0o600) -> None:
    """Put a file in place, whole and durably, at no moment readable by more people than `mode` says."""
    fresh = file.with_name(f"{file.name}.new")
    fresh.unlink(missing_ok=True)
    handle = os.open(fresh, os.O_WRONLY | os.O_CREAT | os.O_EXCL, mode)
    with os.fdopen(handle, "wb") as opened:
        opened.write(data)
        opened.flush()
        os.fsync(handle)
    fresh.rename(file)
    names(file.parent)


def create(file: Path, data: bytes) -> None:
    """Put a file in place as `write` does, readable by nobody else, unless somebody else has just made one: then theirs stays."""
    handle, fresh = tempfile.mkstemp(dir=file.parent)
    with os.fdopen(handle, "wb") as opened:
        opened.write(data)
        opened.flush()
        os.fsync(handle)
    try:
        os.link(fresh, file)  # unlike a rename, never over what is there
    except FileExistsError:
        pass
    finally:
        Path(fresh).unlink()
    names(file.parent)
