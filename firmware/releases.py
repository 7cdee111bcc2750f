"""Which release this box may install, by TUF's metadata (theupdateframework.io, specification 1.0): from a mirror or a stick alike.

A mirror, or a stick, has `metadata/` and `targets/`; of each board the release is `targets/BOARD/HASH.outpost.raucb`, and its
version stands in the metadata. Whoever holds the mirror can hand out nothing that was not released, nothing older than this box
has seen, and no mixture of two releases; nor can they show the same old release for longer than it lasts, a year. When that is
over, the box's own clock says: one that is behind lets it last longer, one that is far ahead refuses what is good, and the words
name the clock. A box that was off for years follows the authorities one by one from the one it was made with (5.3), however many
have ended meanwhile; only the newest has to be in force.
"""

from __future__ import annotations

import http.client
import os
import shutil
import urllib.error
import urllib.request
from collections.abc import Callable, Iterator
from pathlib import Path

from tuf.api.exceptions import (
    BadVersionNumberError,
    DownloadError,
    DownloadHTTPError,
    ExpiredMetadataError,
    LengthOrHashMismatchError,
    RepositoryError,
)
from tuf.api.metadata import TargetFile
from tuf.ngclient import FetcherInterface, Updater

from edge import durable
from edge.errors import Transient
from edge.records import Update

BLOCK = 256 * 1024
SECONDS = 60.0
NAME = "outpost.raucb"
VERSION = "outpost-version"
"""What a target says of itself beside its length and hash."""

Progress = Callable[[int], None]


class Source(FetcherInterface):  # type: ignore[misc]
    """A mirror by its URL, or a stick by its folder; what is half here is continued."""

    def __init__(self, where: str) -> None:
        self.where = where.rstrip("/")
        self.remote = where.startswith(("http://", "https://"))

    def opened(self, url: str, begin: int = 0) -> Iterator[bytes]:
        """The bytes of a file from `begin` on, or from its beginning where the mirror knows no ranges: see `begins`."""
        self.begins = begin
        if not self.remote:
            try:
                with Path(url).open("rb") as file:
                    file.seek(begin)
                    while data := file.read(BLOCK):
                        yield data
            except (FileNotFoundError, NotADirectoryError):
                raise DownloadHTTPError("not there", 404) from None
            return
        asked = urllib.request.Request(url, headers={"Range": f"bytes={begin}-"} if begin else {})  # noqa: S310  TUF decides
        try:
            with urllib.request.urlopen(asked, timeout=SECONDS) as answer:  # noqa: S310  as above
                self.begins = begin if answer.status == 206 else 0
                while data := answer.read(BLOCK):
                    yield data
        except urllib.error.HTTPError as error:
            with error:
                raise DownloadHTTPError(str(error), error.code) from None

    def _fetch(self, url: str) -> Iterator[bytes]:
        return self.opened(url)


class Releases:
    """What may be installed, as far as a source says and the box's metadata lets it."""

    def __init__(self, where: str, folder: Path, root: bytes) -> None:
        """`folder` keeps what TUF has seen, and half a bundle; `root` is what this version of the system was made with."""
        self.source, self.folder = Source(where), folder
        self._known, self._targets = folder / "metadata", f"{self.source.where}/targets"
        durable.folder(self._known)
        base = f"{self.source.where}/metadata"
        self._updater = Updater(str(self._known), base, fetcher=self.source, bootstrap=root)
        self._target: TargetFile | None = None

    def newest(self, board: str) -> str | Update:
        """The version that is released for a board; or why nothing can be taken from here. Raises `Transient`."""
        try:
            self._updater.refresh()
            self._target = self._updater.get_targetinfo(f"{board}/{NAME}")
        except ExpiredMetadataError:
            return Update.EXPIRED
        except BadVersionNumberError:
            return Update.OLDER
        except RepositoryError:  # wrongly signed, or of two releases
            return Update.FORGED
        except (DownloadError, OSError, http.client.HTTPException) as error:
            raise self._away(error) from None
        if self._target is None:
            return Update.FORGED
        return str(self._target.unrecognized_fields.get("custom", {}).get(VERSION, ""))

    @property
    def size(self) -> int:
        """Bytes of the bundle."""
        assert self._target is not None
        return int(self._target.length)

    def fetch(self, progress: Progress) -> Path | Update:
        """The bundle, whole and as it was released; one that was half here is continued. Raises `Transient`."""
        target = self._target
        assert target is not None
        ((_, digest),) = target.hashes.items()
        folder, _, name = target.path.rpartition("/")
        part = self.folder / f"{digest[:16]}.part"
        for old in set(self.folder.glob("*.part")) - {part}:
            old.unlink()
        if target.length > (have := part.stat().st_size if part.exists() else 0):
            free = shutil.disk_usage(self.folder).free
            if free < target.length - have:
                raise Transient(
                    f"the box's disk has no room for the update ({target.length / 1e6:.0f} MB). Nothing was changed."
                )
            self._continue(f"{self._targets}/{folder}/{digest}.{name}", part, have, int(target.length), progress)
        try:
            with part.open("rb") as file:
                target.verify_length_and_hashes(file)
        except LengthOrHashMismatchError:
            part.unlink()
            return Update.FORGED
        return part

    def _continue(self, url: str, part: Path, have: int, size: int, progress: Progress) -> None:
        progress(have)
        try:
            with part.open("ab") as file:
                first = True
                for data in self.source.opened(url, have):
                    if first and self.source.begins != have:
                        file.truncate(0)
                    first = False
                    if file.tell() + len(data) > size:
                        break  # what is longer is something else: its hash says so
                    file.write(data)
                    progress(len(data))
                file.flush()
                os.fsync(file.fileno())
        except (DownloadError, OSError, http.client.HTTPException) as error:
            raise self._away(error) from None
        if part.stat().st_size < size and self.source.remote:
            raise self._away(ConnectionError("it ended too early"))

    def _away(self, error: Exception) -> Transient:
        what = "the mirror cannot be reached" if self.source.remote else "the stick failed, or has no update on it"
        return Transient(f"{what} ({error}). Start the same again: what is here already stays.")
