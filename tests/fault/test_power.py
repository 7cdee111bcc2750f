"""The power goes at any durable step, and the disk shows the worst that it may: nothing acknowledged is lost, nothing is torn."""

from __future__ import annotations

import hashlib
import os
import sqlite3
from collections.abc import Callable
from contextlib import closing
from pathlib import Path

import pytest

from edge import durable
from edge.records import Sha256
from edge.state.objects import Objects
from edge.state.store import open_store, transaction
from tests.fault.power import WORST, Data, Disk, Names, remove

CHUNKS = [b"x" * 5000, bytes(range(256)) * 40]


def whole(folder: Path) -> set[str]:
    """The objects in a box's folder; each is whole, or this fails."""
    found = [path for path in (folder / "objects").rglob("*") if path.is_file()]
    torn = [path for path in found if hashlib.sha256(path.read_bytes()).hexdigest() != path.name]
    assert torn == []
    return {path.name for path in found}


def cuts(disk: Disk, to: Path, look: Callable[[Path, str], None]) -> None:
    """At every durable step from now on, put the disk in each state that it may be in and look at it."""

    def at(step: str, file: Path) -> None:
        for number, (data, names) in enumerate(WORST):
            look(disk.after_cut(to, data, names, number), f"{step} of {file.name}, data {data}, names {names}")
            remove(to)

    disk.at = at


def test_files_in_folders_that_were_not_there(tmp_path: Path) -> None:
    disk = tmp_path / "disk"
    disk.mkdir()
    folder = disk / "srv" / "state"
    acknowledged: dict[str, set[bytes]] = {}
    seen: list[str] = []

    def look(after: Path, when: str) -> None:
        seen.append(when)
        for name, may in acknowledged.items():
            file = after / folder.relative_to(disk) / name
            assert file.exists() and file.read_bytes() in may, when

    with (power := Disk(disk)).installed():
        cuts(power, tmp_path / "after", look)
        durable.folder(folder)
        durable.write(folder / "written", b"first")
        acknowledged["written"] = {b"first", b"second"}
        durable.write(folder / "written", b"second")
        acknowledged["written"] = {b"second"}
        durable.create(folder / "created", b"first")
        acknowledged["created"] = {b"first"}
        durable.create(folder / "created", b"second")
    assert len(seen) >= len(WORST) * 2 * (2 + 2 * 3 + 2 * 2)


def test_the_box_s_objects(tmp_path: Path) -> None:
    state = tmp_path / "box"
    state.mkdir()
    acknowledged: set[str] = set()
    seen: list[str] = []

    def look(after: Path, when: str) -> None:
        seen.append(when)
        assert acknowledged <= whole(after), when

    with (disk := Disk(state)).installed():
        cuts(disk, tmp_path / "after", look)
        objects = Objects(state)
        for data in CHUNKS:
            acknowledged.add(objects.put(data).sha256)
    assert len(seen) >= len(CHUNKS) * len(WORST) * 6  # sync, rename, sync of the folder: before and after each
    assert acknowledged == {hashlib.sha256(data).hexdigest() for data in CHUNKS}


def test_the_box_s_database(tmp_path: Path) -> None:
    state = tmp_path / "box"
    open_store(state).close()
    with closing(sqlite3.connect(state / "outpost.db")) as made:
        made.execute("CREATE TABLE kept (number INTEGER PRIMARY KEY, text BLOB)")
        made.commit()
    committed: list[int] = []

    def look(after: Path, when: str) -> None:
        with closing(open_store(after)) as store:
            found = [row["number"] for row in store.execute("SELECT number FROM kept ORDER BY number")]
            assert found[: len(committed)] == committed, when
            assert len(found) <= len(committed) + 1
            assert store.execute("PRAGMA integrity_check").fetchone()[0] == "ok"

    with (disk := Disk(state)).installed(), closing(open_store(state)) as store:
        cuts(disk, tmp_path / "after", look)
        for number in range(6):
            with transaction(store):
                store.execute("INSERT INTO kept VALUES (?, ?)", (number, os.urandom(20_000)))
                look(disk.after_cut(tmp_path / "within", Data.RUBBISH, Names.LOST), "within a transaction")
                remove(tmp_path / "within")
            committed.append(number)


@pytest.mark.parametrize("fault", ["no sync of the bytes", "no sync of the folder"])
def test_what_is_not_synced_is_seen_to_be_lost(tmp_path: Path, fault: str) -> None:
    state = tmp_path / "box"
    Objects(state)
    with (disk := Disk(state)).installed():
        data = b"bytes"
        name = Sha256(hashlib.sha256(data).hexdigest())
        file = state / "incoming/new"
        file.write_bytes(data)
        if fault != "no sync of the bytes":
            with file.open("rb") as opened:
                os.fsync(opened.fileno())
        target = Objects(state).path(name)
        target.parent.mkdir()
        file.rename(target)
        if fault != "no sync of the folder":
            for folder in (target.parent, state / "objects"):
                descriptor = os.open(folder, os.O_RDONLY)
                os.fsync(descriptor)
                os.close(descriptor)
        states = [disk.after_cut(tmp_path / str(number), *how, number) for number, how in enumerate(WORST)]
    kept = [(after / "objects" / name[:2] / name) for after in states]
    left = [file.read_bytes() if file.exists() else None for file in kept]
    if fault == "no sync of the bytes":
        assert {bytes(5), b""} <= set(left)
    else:
        assert None in left
    assert data in left
