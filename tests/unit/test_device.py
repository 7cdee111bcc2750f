"""A box's keys: made on the box, readable by nobody else, and the same for whoever asks at once."""

from __future__ import annotations

import stat
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing
from pathlib import Path

import pytest

from edge.cards import Enrolled
from edge.errors import Tampered
from edge.stages.parcel import Keys
from edge.state import device, sync
from edge.state.store import now, open_store, transaction


def test_they_are_made_once_and_nobody_else_can_read_them(tmp_path: Path) -> None:
    with ThreadPoolExecutor(4) as pool:
        found = {keys.public for keys in (Keys(*one) for one in pool.map(device.keys, [tmp_path] * 8))}
    assert len(found) == 1
    (file,) = tmp_path.iterdir()
    assert stat.S_IMODE(file.stat().st_mode) == 0o600
    other = tmp_path / "other"
    other.mkdir()
    assert Keys(*device.keys(other)).public not in found


@pytest.mark.parametrize("damage", [b"", b"nothing", b"-----BEGIN PRIVATE KEY-----\n"])
def test_damaged_ones_are_not_replaced_without_a_word(tmp_path: Path, damage: bytes) -> None:
    device.keys(tmp_path)
    whole = (tmp_path / device.FILE).read_bytes()
    for data in (damage, whole[: len(whole) // 2], whole[:40] + damage + whole[60:]):
        (tmp_path / device.FILE).write_bytes(data)
        with pytest.raises(Tampered, match="outpost enrol"):
            device.keys(tmp_path)
        assert (tmp_path / device.FILE).read_bytes() == data


def test_another_hub_is_told_everything_again(tmp_path: Path) -> None:
    from edge.cards import Had, Lane, Seen, ToBox

    with closing(open_store(tmp_path)) as store:
        for hub in ("a", "b"):
            told = Enrolled(site=hub, programme="p", signing=bytes(32), sealing=bytes(32), epoch=hub * 16)
            with transaction(store):
                device.enrol(store, told, "", now())
                sync.begin_with(store, told.epoch)
                sync.tell(store, Seen(case="2.25.1", read="c" * 64), Lane.PEOPLE, now(), about="x")
            assert sync.waiting(store) == 1
            with transaction(store):
                sync.leave(store, sync.events(store, now(), 1), "d" * 32)
                epoch = sync.standing(store).epoch
                said = ToBox(epoch=hub * 16, answers_to=("d" * 32,), had={epoch: Had(upto=1)})
                sync.take(store, said, now(), fresh=True)
            assert sync.waiting(store) == 0
        known = device.hub(store)
        assert known is not None and known.site == "b" and not known.revoked
