"""The key of this site's pseudonyms: who has it can tell which pseudonym is whose, so it never leaves the box.

Without it nobody can, and films sent later get other pseudonyms than those sent before: it belongs to what is backed up.
"""

from __future__ import annotations

import os
from pathlib import Path

from edge import durable

SIZE = 32


def key(state: Path) -> bytes:
    """This box's key for pseudonyms, made durably at its first use beside the database; the same for whoever asks at once."""
    path = state / "pseudonym.key"
    if not path.exists():
        durable.create(path, os.urandom(SIZE))
    return path.read_bytes()
