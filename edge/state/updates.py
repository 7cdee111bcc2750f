"""How it stands with updates: which system each slot holds, which did not work here, and what came of the last, the model's too.

A file beside the database, not in it: it is about this one box, so it neither goes with a back-up nor comes with one.
"""

from __future__ import annotations

from datetime import datetime
from pathlib import Path

import msgspec

from edge import durable
from edge.records import Update

FOLDER = "updates"
"""Below the state: the record, what TUF knows, and what is fetched as far as it has come."""


class Record(msgspec.Struct, frozen=True):
    """The file."""

    state: Update | None = None
    version: str = ""
    at: datetime | None = None
    slots: dict[str, str] = {}
    rejected: tuple[str, ...] = ()
    """Versions that did not work on this box."""
    model: Update | None = None
    model_version: str = ""
    models: dict[str, str] = {}
    """Models that were tried, by name and version: on which system one was refused, or nothing where it was put into use."""


def read(state: Path) -> Record:
    """What is known; nothing, where nothing was ever updated or the file is damaged."""
    try:
        return msgspec.json.decode((state / FOLDER / "record.json").read_bytes(), type=Record)
    except (OSError, msgspec.DecodeError):
        return Record()


def write(state: Path, record: Record) -> None:
    """Keep it durably."""
    durable.folder(state / FOLDER)
    durable.write(state / FOLDER / "record.json", msgspec.json.encode(record), 0o640)
