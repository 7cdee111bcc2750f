"""A USB stick carries the same day with the network off, both ways: twice, half, late, full or to the wrong hub."""

from __future__ import annotations

import random
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner

from edge import config as settings
from edge import stick
from edge.cards import Read, Seen
from edge.cli import main
from edge.config import Config
from edge.errors import Misconfigured, Transient, Unreadable
from edge.records import Fault
from edge.state import sync
from edge.state.store import DATABASE
from tests import modelhub
from tests.property.test_link import Box, answer, box


@pytest.fixture
def made(tmp_path: Path) -> Iterator[Box]:
    (tmp_path / "box").mkdir()
    with box(tmp_path / "box") as one:
        yield one


def carry(made: Box, folder: Path) -> bytes:
    """To the hub."""
    data = stick.export(made.config, folder, made.now).path.read_bytes()
    assert made.hub.take_stick(data) is None
    return data


def back(made: Box, folder: Path) -> stick.Taken:
    """From the hub."""
    file = folder / "hub.outpost"
    file.write_bytes(made.hub.stick())
    return stick.take(made.config, file, made.now)


def test_a_day_goes_there_and_back_and_twice_changes_nothing(made: Box, tmp_path: Path) -> None:
    said = [made.say() for _ in range(5)]
    films = [made.film(700_000), made.film(20_000)]
    data = carry(made, tmp_path)
    assert sync.waiting(made.store) == 7, "nothing counts as sent before the hub says so"
    answer(made.hub, random.Random(2))
    assert made.hub.take_stick(data) is None
    assert len(made.hub.held.events) == 7
    assert [len(made.hub.held.objects[one]) for one in films] == [32 * 1024, 20_000]
    taken = back(made, tmp_path)
    assert (taken.fault, taken.reads) == (None, sum(isinstance(one, Read) for one in made.hub.held.down))
    assert sync.waiting(made.store) == 0
    assert sync.unsent(made.store) == {}
    before = "\n".join(made.store.iterdump())
    assert back(made, tmp_path).reads == 0
    assert "\n".join(made.store.iterdump()) == before
    again = stick.export(made.config, tmp_path, made.now)
    assert (again.events, again.films) == (0, 0)
    assert {event.body.read for event in made.hub.held.events.values() if isinstance(event.body, Seen)} == set(said)


def test_network_and_stick_may_take_turns(made: Box, tmp_path: Path) -> None:
    made.say()
    old = stick.export(made.config, tmp_path, made.now).path.read_bytes()
    made.say()
    made.film()
    made.quiet()
    assert made.hub.take_stick(old) is None
    late = made.hub.stick()
    made.say()
    made.quiet()
    (tmp_path / "late.outpost").write_bytes(late)
    stick.take(made.config, tmp_path / "late.outpost", made.now)
    made.quiet()
    made.check()


def test_of_half_a_stick_the_whole_sections_are_taken_and_the_rest_is_said(made: Box, tmp_path: Path) -> None:
    made.say()
    made.film(32_000)
    written = stick.export(made.config, tmp_path, made.now)
    data = written.path.read_bytes()
    assert made.hub.take_stick(data[: len(data) // 2]) is Fault.CUT
    assert len(made.hub.held.events) == 2
    assert not made.hub.held.objects
    back(made, tmp_path)
    assert sync.waiting(made.store) == 0
    again = stick.export(made.config, tmp_path, made.now)
    assert (again.events, again.films) == (0, 1), "only what was not whole goes again"
    assert made.hub.take_stick(again.path.read_bytes()) is None
    back(made, tmp_path)
    assert sync.unsent(made.store) == {}
    made.check()


def test_a_box_that_was_restored_loses_nothing_on_sticks_either(made: Box, tmp_path: Path) -> None:
    made.say()
    made.store.execute("PRAGMA wal_checkpoint(TRUNCATE)")
    shutil.copy(made.folder / DATABASE, tmp_path / "saved.db")
    gone = made.say()
    carry(made, tmp_path)
    made.again(tmp_path / "saved.db")
    ours = made.say()
    carry(made, tmp_path)
    back(made, tmp_path)
    assert sync.waiting(made.store) == 1
    carry(made, tmp_path)
    back(made, tmp_path)
    assert sync.waiting(made.store) == 0
    made.check()
    reads = {event.body.read for event in made.hub.held.events.values() if isinstance(event.body, Seen)}
    assert {gone, ours} <= reads


def test_a_full_stick_is_said_and_leaves_no_half_file(
    made: Box, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    made.say()
    (tmp_path / "stick").mkdir()

    def full(*_: Any) -> None:
        raise OSError(28, "No space left on device")

    with monkeypatch.context() as patched:
        patched.setattr("os.fsync", full)
        with pytest.raises(Transient, match=r"No space left on device.*nothing is lost"):
            stick.export(made.config, tmp_path / "stick", made.now)
    assert list((tmp_path / "stick").iterdir()) == []
    with pytest.raises(Transient, match="No such file"):
        stick.export(made.config, tmp_path / "away" / "file", made.now)
    carry(made, tmp_path)
    back(made, tmp_path)
    assert sync.waiting(made.store) == 0


def test_what_is_not_for_this_box_is_refused_in_words(made: Box, tmp_path: Path) -> None:
    other = modelhub.Hub(random.Random(9))
    own, made.hub.keys = made.hub.keys, other.keys
    file = tmp_path / "other.outpost"
    file.write_bytes(made.hub.stick())
    with pytest.raises(Unreadable, match="sender is not known"):
        stick.take(made.config, file, made.now)
    made.hub.keys = own
    whole = made.hub.stick()
    for data, said in (
        (b"", "no parcel"),
        (whole[:50], "pulled out too early"),
        (whole[:-1] + bytes([whole[-1] ^ 1]), "changed on the way"),
        (whole[:40] + bytes(32) + whole[72:], "another receiver"),
    ):
        file.write_bytes(data)
        with pytest.raises(Unreadable, match=said):
            stick.take(made.config, file, made.now)
    with pytest.raises(Misconfigured, match="outpost enrol"):
        (tmp_path / "new").mkdir()
        stick.export(Config(state=str(tmp_path / "new")), tmp_path, made.now)


def test_the_commands_say_what_they_did(made: Box, tmp_path: Path) -> None:
    settings.save(made.config, tmp_path / "outpost.toml")
    (tmp_path / "stick").mkdir()

    def run(*words: str) -> Any:
        return CliRunner().invoke(main, ["--config", str(tmp_path / "outpost.toml"), "parcel", *words])

    made.say()
    told = run("export", str(tmp_path / "stick"))
    assert told.exit_code == 0, told.output
    assert "1 events, 0 films" in told.output
    (file,) = (tmp_path / "stick").iterdir()
    assert file.name.startswith("clinic-1-") and file.suffix == ".outpost"
    assert made.hub.take_stick(file.read_bytes()) is None
    file.unlink()
    assert run("import", str(tmp_path / "stick")).exit_code == Unreadable.exit_status
    (tmp_path / "stick" / "a.outpost").write_bytes(made.hub.stick())
    (tmp_path / "stick" / "b.outpost").write_bytes(b"nothing")
    told = run("import", str(tmp_path / "stick"))
    assert told.exit_code == Unreadable.exit_status
    assert "a.outpost: 1 sections, 0 new reads" in told.output
    assert "b.outpost: This is no parcel" in told.output
    assert sync.waiting(made.store) == 0
