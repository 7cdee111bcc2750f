"""The key of this site's pseudonyms: who has it can tell which pseudonym is whose, so it never leaves the box.

Without it nobody can, and films sent later get other pseudonyms than those sent before: it belongs to what is backed up.
"""

from __future__ import annotations

import os
import tempfile
from pathlib import Path

SIZE = 32


def key(state: Path) -> bytes:
    """This box's key for pseudonyms, made durably at its first use beside the database; the same for whoever asks at once."""
    path = state / "pseudonym.key"
    if not path.exists():
        handle, fresh = tempfile.mkstemp(dir=state)  # readable by nobody else
        with os.fdopen(handle, "wb") as file:
            file.write(os.urandom(SIZE))
            file.flush()
            os.fsync(file.fileno())
        try:
            os.link(fresh, path)  # unlike a rename, never over a key that somebody else has just made
        except FileExistsError:
            pass
        finally:
            Path(fresh).unlink()
        folder = os.open(state, os.O_RDONLY | os.O_DIRECTORY)
        try:
            os.fsync(folder)
        finally:
            os.close(folder)
    return path.read_bytes()
