"""Which release this box may install, by TUF's metadata (theupdateframework.io, specification 1.0): from a mirror or a stick alike.

A mirror, or a stick, has `metadata/` and `targets/`; of each board the release is `targets/BOARD/HASH.outpost.raucb`, of each
model `targets/models/ID/HASH.outpost.model`, and their versions stand in the metadata. Whoever holds the mirror can hand out
nothing that was not released, nothing older than this box has seen, and no mixture of two releases; nor can they show the same old
release for longer than it lasts, a year. When that is over, the box's own clock says: one that is behind lets it last longer, one
that is far ahead refuses what is good, and the words name the clock. A box that was off for years follows the authorities one by
one from the one it was made with (5.3), however many have ended meanwhile; only the newest has to be in force.

From a mirror a box fetches only those pieces of a bundle that do not lie in the system it runs: `HASH.outpost.chunks`, which is
released with it, names them (`chunks.py`). It is a shortcut and nothing more: what it leads to is held to the bundle's own hash,
and where it leads nowhere the whole bundle is fetched.
"""

from __future__ import annotations

import http.client
import os
import shutil
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from itertools import groupby
from pathlib import Path
from typing import BinaryIO

from tuf.api.exceptions import (
    BadVersionNumberError,
    DownloadError,
    DownloadHTTPError,
    ExpiredMetadataError,
    LengthOrHashMismatchError,
    RepositoryError,
)
from tuf.api.metadata import TargetFile
from tuf.ngclient import Updater

from edge import durable
from edge.errors import Transient, Unreadable
from edge.records import Update
from firmware import chunks
from firmware.chunks import Chunk
from firmware.source import Source

SYSTEM, INDEX, MODEL = "outpost.raucb", "outpost.chunks", "outpost.model"
VERSION = "outpost-version"
"""What a target says of itself beside its length and hash."""

Progress = Callable[[int], None]


@dataclass(frozen=True)
class Offer:
    """What is released, and under which version."""

    target: TargetFile
    version: str

    @property
    def size(self) -> int:
        """Bytes of it."""
        return int(self.target.length)


class Releases:
    """What may be installed, as far as a source says and the box's metadata lets it."""

    def __init__(self, where: str, folder: Path, root: bytes) -> None:
        """`folder` keeps what TUF has seen, and what is half here; `root` is what this version of the system was made with."""
        self.source, self.folder = Source(where), folder
        self._known, self._targets = folder / "metadata", f"{self.source.where}/targets"
        durable.folder(self._known)
        base = f"{self.source.where}/metadata"
        self._updater = Updater(str(self._known), base, fetcher=self.source, bootstrap=root)

    def close(self) -> None:
        """End the links to a mirror."""
        self.source.close()

    def look(self) -> Update | None:
        """Why nothing can be taken from here; None where it can. Raises `Transient`."""
        try:
            self._updater.refresh()
        except ExpiredMetadataError:
            return Update.EXPIRED
        except BadVersionNumberError:
            return Update.OLDER
        except RepositoryError:  # wrongly signed, or of two releases
            return Update.FORGED
        except (DownloadError, OSError, http.client.HTTPException) as error:
            raise self._away(error) from None
        return None

    def system(self, board: str) -> Offer | None:
        """The system that is released for a board."""
        return self._offer(f"{board}/{SYSTEM}")

    def model(self, name: str) -> Offer | None:
        """The model that is released under a name."""
        return self._offer(f"models/{name}/{MODEL}")

    def _offer(self, path: str) -> Offer | None:
        target = self._updater.get_targetinfo(path)
        if target is None:
            return None
        return Offer(target, str(target.unrecognized_fields.get("custom", {}).get(VERSION, "")))

    def fetch(self, offer: Offer, progress: Progress, own: Path | None = None) -> Path | Update:
        """What is offered, whole and as it was released; what was half here is continued. Raises `Transient`.

        `own` is the slot that runs: what lies there of a system is not fetched from a mirror.
        """
        target = offer.target
        index = self._updater.get_targetinfo(target.path.replace(SYSTEM, INDEX)) if own is not None else None
        part, whole = self._part(target), self._part(target, ".whole")
        kept = {part, whole} if index is None else {part, whole, self._part(index)}
        for one in (target,) if index is None else (target, index):
            for old in set(self.folder.glob(f"*.{_name(one)}.part")) - kept:
                old.unlink()
        path = whole if whole.exists() else part
        if shutil.disk_usage(self.folder).free < target.length - _size(path):
            raise Transient(
                f"the box's disk has no room for the update ({target.length / 1e6:.0f} MB). Nothing was changed."
            )
        progress(_size(path))
        with self._reached():
            if (
                self.source.remote
                and own is not None
                and index is not None
                and path == part
                and _size(part) < target.length
            ):
                self._gather(target, self._pieces(index, int(target.length)), own, progress)
                if _size(part) == target.length and not _is(target, part):  # the index lies: from here on without it
                    os.truncate(part, 0)
                    path = part.rename(whole)
            self._continue(target, path, progress)
            if self.source.remote and _size(path) < target.length:
                raise ConnectionError("it ended too early")
        for done in kept - {path}:
            done.unlink(missing_ok=True)
        if _is(target, path):
            return path
        path.unlink()
        return Update.FORGED

    def _part(self, target: TargetFile, how: str = "") -> Path:
        """A file as far as it has come."""
        return self.folder / f"{_digest(target)[:16]}{how}.{_name(target)}.part"

    def _url(self, target: TargetFile) -> str:
        return f"{self._targets}/{target.path.removesuffix(_name(target))}{_digest(target)}.{_name(target)}"

    def _pieces(self, index: TargetFile, size: int) -> list[Chunk]:
        """The pieces of the bundle; none where nobody says them, or wrongly. Raises `Transient`."""
        path = self._part(index)
        with suppress(DownloadHTTPError, Unreadable):
            self._continue(index, path, lambda _: None)
            if _is(index, path):
                return chunks.read(path.read_bytes(), size)
        path.unlink(missing_ok=True)
        return []

    def _gather(self, target: TargetFile, pieces: list[Chunk], own: Path, progress: Progress) -> None:
        """Continue the bundle with what the box runs and what is missing there, as far as that goes. Raises `Transient`."""
        there = chunks.find(own, pieces)
        if not there:
            return
        part = self._part(target)
        with suppress(DownloadHTTPError), part.open("ab") as file:  # to a range; it may still give the whole
            for here, run in groupby(pieces, lambda one: one.tree is not None or one.digest in there):
                for one in run if here else (chunks.joined(run),):
                    have, end = file.tell(), one.start + one.length
                    if have >= end:
                        continue
                    file.flush()
                    if here and (data := chunks.take(own, there.get(one.digest, 0), one, part)):
                        file.write(data[have - one.start :])
                        progress(end - have)
                    elif not self._range(self._url(target), end, file, progress):
                        return
            file.flush()
            os.fsync(file.fileno())

    def _range(self, url: str, end: int, file: BinaryIO, progress: Progress) -> bool:
        """Fetch what follows in a file up to `end`; False where the mirror knows no ranges."""
        begin = file.tell()
        for data in self.source.opened(url, begin, end):
            if self.source.begins != begin:
                return False
            progress(file.write(data[: end - file.tell()]))
            if file.tell() == end:
                return True
        raise ConnectionError("it ended too early")

    def _continue(self, target: TargetFile, part: Path, progress: Progress) -> None:
        """Fetch what is missing of a file, from where it stops."""
        have, size = _size(part), int(target.length)
        with part.open("ab") as file:
            for data in self.source.opened(self._url(target), have) if have < size else ():
                if self.source.begins != have:
                    file.truncate(0)
                    have = self.source.begins
                if file.tell() + len(data) > size:
                    break  # what is longer is something else: its hash says so
                progress(file.write(data))
            file.flush()
            os.fsync(file.fileno())

    @contextmanager
    def _reached(self) -> Iterator[None]:
        try:
            yield
        except (DownloadError, OSError, http.client.HTTPException) as error:
            raise self._away(error) from None

    def _away(self, error: Exception) -> Transient:
        what = "the mirror cannot be reached" if self.source.remote else "the stick failed, or has no update on it"
        return Transient(f"{what} ({error}). Start the same again: what is here already stays.")


def _digest(target: TargetFile) -> str:
    ((_, digest),) = target.hashes.items()
    return str(digest)


def _name(target: TargetFile) -> str:
    return str(target.path.rpartition("/")[2])


def _size(path: Path) -> int:
    return path.stat().st_size if path.exists() else 0


def _is(target: TargetFile, path: Path) -> bool:
    """Whether a file is what was released."""
    try:
        with path.open("rb") as file:
            target.verify_length_and_hashes(file)
    except LengthOrHashMismatchError:
        return False
    return True
