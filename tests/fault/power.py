"""A power cut: what a disk may show after it, which is worse than what `kill -9` leaves, as the page cache is gone.

While `Disk` is installed it sees every fsync, fdatasync, rename and commit of this process. At any moment `after_cut` makes a copy
of the folder as a disk may have it then: bytes that were not synced are missing, zeros or rubbish; names that were not synced
with their folder are missing. SQLite's own order of syncs is trusted (it is tested so by its makers, with `synchronous=FULL`);
of its log, only what was there at the last commit is kept for certain.
"""

from __future__ import annotations

import os
import random
import shutil
import sqlite3
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from enum import StrEnum
from pathlib import Path
from typing import Any

import pytest


class Data(StrEnum):
    """What becomes of bytes that were written and not synced."""

    KEPT = "kept"
    LOST = "lost"
    ZEROS = "zeros"
    RUBBISH = "rubbish"


class Names(StrEnum):
    """What becomes of names that were made, moved or removed without a sync of their folder."""

    KEPT = "kept"
    LOST = "lost"


@dataclass
class Disk:
    """What of a folder is durable for certain."""

    root: Path
    at: Callable[[str, Path], None] = lambda step, file: None
    """Called before and after each durable step, with its name and the file that it is about."""
    _bytes: dict[int, bytes] = field(default_factory=dict)
    """By inode, a file as it was when it was last synced."""
    _names: dict[Path, dict[str, int]] = field(default_factory=dict)
    """By folder, what was in it when it was last synced."""

    def __post_init__(self) -> None:
        self.settle(self.root)

    def settle(self, of: Path) -> None:
        """Everything in a folder is durable by now."""
        for folder in (of, *(path for path in of.rglob("*") if path.is_dir())):
            self._sync_folder(folder)
        for file in _files(of).values():
            self._sync_file(file)

    @contextmanager
    def installed(self) -> Iterator[Disk]:
        """See what this process makes durable, for the length of the block."""
        disk = self

        class Connection(sqlite3.Connection):
            def __init__(self, file: Any, *values: Any, **named: Any) -> None:
                super().__init__(file, *values, **named)
                self.file = Path(file)

            def execute(self, statement: str, *values: Any) -> sqlite3.Cursor:
                run = super().execute
                if not statement.startswith("COMMIT"):
                    return run(statement, *values)
                return disk._step(
                    "commit", self.file, lambda: run(statement, *values), lambda: disk._committed(self.file)
                )

            def commit(self) -> None:
                disk._step("commit", self.file, super().commit, lambda: disk._committed(self.file))

        fsync, fdatasync, rename, replace, connect = os.fsync, os.fdatasync, os.rename, os.replace, sqlite3.connect

        def synced(sync: Callable[[int], None]) -> Callable[[Any], None]:
            def run(descriptor: Any) -> None:
                number = descriptor if isinstance(descriptor, int) else descriptor.fileno()
                path = Path(f"/proc/self/fd/{number}").readlink()
                self._step("sync", path, lambda: sync(number), lambda: self._synced(path))

            return run

        def moved(move: Callable[..., None]) -> Callable[..., None]:
            return lambda *names, **named: self._step(
                "rename", Path(names[1]), lambda: move(*names, **named), lambda: None
            )

        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(os, "fsync", synced(fsync))
            patch.setattr(os, "fdatasync", synced(fdatasync))
            patch.setattr(os, "rename", moved(rename))
            patch.setattr(os, "replace", moved(replace))
            patch.setattr(
                sqlite3, "connect", lambda *names, **named: connect(*names, **{"factory": Connection} | named)
            )
            yield self

    def _step(self, name: str, file: Path, run: Callable[[], Any], durable: Callable[[], None]) -> Any:
        if not file.is_relative_to(self.root):
            return run()
        self.at(f"before {name}", file)
        result = run()
        durable()
        self.at(f"after {name}", file)
        return result

    def _synced(self, path: Path) -> None:
        if path.is_dir():
            self._sync_folder(path)
        else:
            self._sync_file(path)

    def _sync_file(self, path: Path) -> None:
        self._bytes[path.stat().st_ino] = path.read_bytes()

    def _sync_folder(self, folder: Path) -> None:
        self._names[folder] = {entry.name: entry.stat().st_ino for entry in folder.iterdir()}

    def _committed(self, file: Path) -> None:
        """A commit has synced SQLite's log."""
        log = file.with_name(file.name + "-wal")
        if log.exists():
            self._sync_file(log)

    def after_cut(self, to: Path, data: Data, names: Names, seed: int = 0, of: Path | None = None) -> Path:
        """The folder, or one within it, as the disk may have it if the power went now, as a copy at `to`."""
        files, chance = _files(self.root), random.Random(seed)
        named = {number for held in self._names.values() for number in held.values()}
        for number in set(self._bytes) - set(files) - named:  # it may be given to another file
            del self._bytes[number]
        self._lay(of or self.root, to, files, data, names, chance)
        return to

    def _lay(
        self, folder: Path, to: Path, files: dict[int, Path], data: Data, names: Names, chance: random.Random
    ) -> None:
        to.mkdir(parents=True)
        now = {entry.name: entry.stat().st_ino for entry in folder.iterdir()} if folder.exists() else {}
        held = now if names is Names.KEPT else self._names.get(folder, {})
        held = held | {name: number for name, number in now.items() if _of_sqlite(Path(name))}
        for name, number in held.items():
            if (folder / name).is_dir():
                self._lay(folder / name, to / name, files, data, names, chance)
            elif name.endswith("-shm"):
                continue  # SQLite makes it again from the log
            elif number in files or number in self._bytes:
                written = files[number].read_bytes() if number in files else self._bytes[number]
                kept = written if name.endswith(".db") else self._left(number, written, data, chance)
                (to / name).write_bytes(kept)

    def _left(self, number: int, written: bytes, data: Data, chance: random.Random) -> bytes:
        """A file's bytes after the cut: what was synced for certain, the rest as `data` says."""
        synced = self._bytes.get(number, b"")
        if data is Data.KEPT or written == synced:
            return written
        if data is Data.LOST:
            return synced
        same = next(
            (at for at, (one, other) in enumerate(zip(written, synced, strict=False)) if one != other),
            min(len(written), len(synced)),
        )
        rest = len(written) - same
        return written[:same] + (bytes(rest) if data is Data.ZEROS else chance.randbytes(rest))


def _files(folder: Path) -> dict[int, Path]:
    return {path.stat().st_ino: path for path in folder.rglob("*") if path.is_file()}


def _of_sqlite(file: Path) -> bool:
    return file.name.endswith((".db", ".db-wal"))


WORST = [(data, names) for names in Names for data in Data]
"""Every state that a disk is put in."""


def remove(folder: Path) -> None:
    """Make room for the next state."""
    shutil.rmtree(folder, ignore_errors=True)
