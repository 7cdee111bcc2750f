"""The model bundles put on this box: `models/DIGEST/` holds one, `models/active` says which is in use and which was before.

A bundle is copied, synced and proven under another name before it gets its own, and comes into use by the rename of one small file:
a power cut at any moment leaves the one bundle or the other in use, whole.
"""

from __future__ import annotations

import os
import shutil
from collections.abc import Callable
from pathlib import Path

import msgspec

from edge import durable
from edge.errors import Misconfigured, Tampered
from edge.state.store import alone

SHIPPED = ""
"""In the place of a digest: the bundle that comes with Outpost."""
INCOMING = "incoming"
DIGEST = 64
"""Digits of a digest."""


class Choice(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """Digests of the bundle in use and of the one to go back to."""

    current: str = SHIPPED
    previous: str | None = None
    """None where there was no other."""


def choice(state: Path) -> Choice:
    """What is in use; the shipped bundle where nothing was ever activated. Raises `Tampered` where it cannot be told."""
    try:
        return msgspec.json.decode((state / "models" / "active").read_bytes(), type=Choice)
    except FileNotFoundError:
        return Choice()
    except msgspec.DecodeError as error:
        raise Tampered(f"{state / 'models' / 'active'}: {error}. Activate the model again.") from error


def runtime(state: Path, digest: str) -> str | None:
    """The runtime that was found to be the one for a bundle on this box; None where none was tried yet."""
    try:
        known = msgspec.json.decode((state / "models" / "runtimes").read_bytes(), type=dict[str, str])
    except (FileNotFoundError, msgspec.DecodeError):
        return None
    return known.get(digest)


def remember(state: Path, digest: str, runtime: str) -> None:
    """Keep the runtime for a bundle; only that of one bundle is kept, for trying again costs seconds."""
    root = state / "models"
    root.mkdir(parents=True, exist_ok=True)
    new = root / "runtimes.new"
    new.write_bytes(msgspec.json.encode({digest: runtime}))
    new.rename(root / "runtimes")


def folder(state: Path, digest: str) -> Path:
    """Where an installed bundle lies."""
    return state / "models" / digest


def activate(state: Path, source: Path, prove: Callable[[Path], str]) -> bool:
    """Put a bundle on the box and into use; False where it is in use already.

    `prove` gets a folder, gives the digest of the bundle in it, or raises: then nothing has changed.
    """
    root = state / "models"
    root.mkdir(parents=True, exist_ok=True)
    with alone(root):
        incoming = root / INCOMING
        shutil.rmtree(incoming, ignore_errors=True)
        incoming.mkdir()
        for path in sorted(source.iterdir()):
            if path.is_file():
                _copy(path, incoming / path.name)
        durable.names(incoming)
        digest = prove(incoming)
        shutil.rmtree(root / digest, ignore_errors=True)  # the same bundle, perhaps damaged since
        incoming.rename(root / digest)
        durable.names(root)
        at = choice(state)
        if at.current == digest:
            return False
        _choose(root, Choice(digest, at.current))
        return True


def roll_back(state: Path, prove: Callable[[Path], str], shipped: Path) -> str:
    """Go back to the bundle that was in use before, and say its digest. Raises `Misconfigured` where there is none."""
    root = state / "models"
    root.mkdir(parents=True, exist_ok=True)
    with alone(root):
        at = choice(state)
        if at.previous is None:
            raise Misconfigured("No other model was in use before; there is nothing to go back to.")
        prove(shipped if at.previous == SHIPPED else root / at.previous)
        _choose(root, Choice(at.previous, at.current))
        return at.previous


def _choose(root: Path, chosen: Choice) -> None:
    """Make the choice durable, then forget the bundles that are neither in use nor the way back."""
    durable.write(root / "active", msgspec.json.encode(chosen), 0o644)
    for path in root.iterdir():
        old = path.is_dir() and path.name not in (chosen.current, chosen.previous)
        if old and len(path.name) == DIGEST:  # what else is here is somebody's who is at work on it
            shutil.rmtree(path, ignore_errors=True)


def _copy(source: Path, target: Path) -> None:
    with source.open("rb") as old, target.open("wb") as new:
        shutil.copyfileobj(old, new)
        new.flush()
        os.fsync(new.fileno())
