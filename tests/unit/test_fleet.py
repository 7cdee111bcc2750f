"""Orders of a hub at a box: what is carried out, what is refused and with which word; nothing that fails changes anything."""

from __future__ import annotations

import hashlib
import io
import re
import sqlite3
import tarfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import msgspec
import pytest

from edge import cards, fleet, passport, words
from edge import config as settings
from edge.cards import Applied, Order, Status, What
from edge.config import Worker
from edge.errors import Misconfigured
from edge.records import Carried
from edge.state import acceptances, installed, ordered
from edge.state.store import transaction
from models import bundle as bundles
from tests import bundles as signed
from tests.modelhub import SITE
from tests.property.test_link import Box

SHIPPED = bundles.load(bundles.SHIPPED).manifest.version


def version(text: str, number: str) -> str:
    """A manifest of another version."""
    return re.sub('version = "[^"]*"', f'version = "{number}"', text, count=1)


@pytest.fixture
def box(tmp_path: Path) -> Iterator[Box]:
    made = Box(tmp_path / "box", 7)
    worker = Worker(runtime="onnx", authorities=(str(signed.authority(tmp_path)),))
    made.config = made.link.config = msgspec.structs.replace(made.config, worker=worker)
    made.link.chunk = 128 * 1024
    yield made
    made.store.close()


class Programme:
    """The hub's side of one box."""

    def __init__(self, box: Box, folder: Path) -> None:
        self.box, self.folder, self.number = box, folder, 0

    def order(self, what: str, site: str = SITE, **said: Any) -> Order:
        self.number += 1
        made = cards.ordered(site, Order(order="0" * 64, number=said.pop("number", self.number), what=what, **said))
        self.box.hub.held.down.append(made)
        return made

    def model(self, data: bytes, **said: Any) -> Order:
        sha256 = hashlib.sha256(data).hexdigest()
        self.box.hub.models[sha256] = data
        return self.order(What.MODEL, sha256=sha256, size=len(data), **said)

    def packed(self, number: str, change: Any = lambda folder: None, whole: bool = True) -> bytes:
        folder = signed.copied(self.folder / number, lambda text: version(text, number))
        if not whole:
            signed.replaced(folder, "model.onnx", b"never run")
        change(folder)
        return bundles.packed(folder)

    def carried(self) -> list[tuple[str, str]]:
        """Let the orders come and be carried out; what the box then says of each, in order."""
        for _ in range(3000):
            self.box.steps(1)
            while fleet.step(settings.ordered(self.box.config), self.box.store):
                pass
            if not ordered.pending(self.box.store) and not self.box.open():
                break
        else:
            raise AssertionError("it does not come to an end")
        bodies = [event.body for event in self.box.hub.held.events.values()]
        return [(body.result, body.about) for body in bodies if isinstance(body, Applied)]

    def last(self) -> str:
        return self.carried()[-1][0]


@pytest.fixture
def hub(box: Box, tmp_path: Path) -> Programme:
    return Programme(box, tmp_path)


def used(box: Box) -> str:
    return passport.at_work(box.config, box.store)[0].manifest.version


def test_settings_that_a_hub_may_set_are_set_all_or_none_and_any_other_is_refused(box: Box, hub: Programme) -> None:
    hub.order(What.SETTINGS, settings={"hub.daily_mib": 20, "hub.metered": "08:00-16:00"})
    assert hub.carried() == [("done", "")]
    now = settings.ordered(box.config)
    assert (now.hub.daily_mib, now.hub.metered) == (20, "08:00-16:00")
    (record,) = box.store.execute("SELECT detail FROM audit WHERE event = 'ordered'")
    assert msgspec.json.decode(record["detail"])["result"] == "done"
    for bad, word, about in (
        ({"hub.daily_mib": 30, "hub.url": "https://other.example"}, Carried.NOT_ORDERABLE, "hub.url"),
        ({"hub.daily_mib": 30, "policy.impression_first": False}, Carried.NOT_ORDERABLE, "policy.impression_first"),
        ({"hub.daily_mib": 30, "worker.authorities": "x"}, Carried.NOT_ORDERABLE, "worker.authorities"),
        ({"hub.daily_mib": 30, "hub.metered": "all day"}, Carried.BAD_VALUE, "hub.metered"),
        ({"hub.daily_mib": -1}, Carried.BAD_VALUE, "hub.daily_mib"),
        ({"hub.daily_mib": "30"}, Carried.BAD_VALUE, "hub.daily_mib"),
        ({"hub.poll_seconds": True}, Carried.BAD_VALUE, "hub.poll_seconds"),
    ):
        hub.order(What.SETTINGS, settings=bad)
        assert hub.carried()[-1] == (word, about)
        assert settings.ordered(box.config) == now, "all or none"
    (box.folder / settings.ORDERED).write_bytes(b"{")
    assert settings.ordered(box.config) == box.config, "a damaged file stops no clinic"
    with pytest.raises(Misconfigured, match="Remove it"):
        settings.by_hub(box.config)
    hub.order(What.SETTINGS, settings={"hub.daily_mib": 20, "hub.metered": ""})
    assert hub.last() == "done"
    assert (settings.ordered(box.config).hub.daily_mib, settings.ordered(box.config).hub.metered) == (20, "")


def test_what_another_site_was_ordered_what_is_old_and_what_nobody_knows_is_refused(box: Box, hub: Programme) -> None:
    other = hub.order(What.SETTINGS, site="clinic-2", settings={"hub.daily_mib": 1})
    assert hub.carried() == [(Carried.ELSEWHERE, "")]
    box.hub.held.down.append(other)
    hub.order(What.SETTINGS, settings={"hub.daily_mib": 5})
    assert hub.carried() == [(Carried.ELSEWHERE, ""), ("done", "")], "the same again is nothing new"
    hub.order(What.SETTINGS, settings={"hub.daily_mib": 6}, number=1)
    assert hub.last() == Carried.OVERTAKEN, "an order of before that comes late"
    hub.order("reboot")
    assert hub.last() == Carried.UNKNOWN
    hub.order(What.ROLLBACK)
    assert hub.last() == Carried.NOTHING_BEFORE
    hub.order(What.SETTINGS, settings={"hub.daily_mib": 7})
    hub.order(What.KEEP)
    assert [result for result, _ in hub.carried()[-2:]] in (["done", "overtaken"], ["overtaken", "done"])
    assert settings.ordered(box.config).hub.daily_mib == 5


def test_a_model_that_is_not_what_it_should_be_never_comes_into_use(
    box: Box, hub: Programme, monkeypatch: pytest.MonkeyPatch
) -> None:
    before = used(box)

    def packed(number: str, change: Any = lambda folder: None) -> bytes:
        return hub.packed(number, change, whole=False)

    good = packed("9.2.0")

    def fails(data: bytes, word: Carried) -> None:
        hub.model(data)
        assert hub.last() == word
        assert used(box) == before and installed.choice(box.folder) == installed.Choice()
        assert not [*(box.folder / "models").glob("*.part")], "nothing is left lying"

    fails(packed("0.0.9"), Carried.OLDER)
    fails(packed("9.3.0", lambda folder: (folder / "manifest.sig").write_bytes(bytes(64))), Carried.UNSIGNED)
    fails(packed("9.4.0", lambda folder: (folder / "manifest.sig").unlink()), Carried.UNSIGNED)
    fails(packed("9.5.0", lambda folder: (folder / "card.md").write_text("another")), Carried.NOT_A_BUNDLE)
    fails(b"no tar at all", Carried.NOT_A_BUNDLE)
    for about in (
        {"name": "../a.md"},
        {"name": "a.md", "type": tarfile.SYMTYPE, "linkname": "/etc/passwd"},
        {"name": "a.md", "type": tarfile.DIRTYPE},
        {
            "name": "a.md",
            "pax_headers": {"GNU.sparse.major": "1", "GNU.sparse.minor": "0", "GNU.sparse.realsize": str(2**50)},
        },
    ):
        fails(tar(good, **about), Carried.NOT_A_BUNDLE)
    sha256 = hashlib.sha256(good).hexdigest()
    box.hub.models[sha256] = good[:-1] + b"x"
    hub.order(What.MODEL, sha256=sha256, size=len(good))
    assert hub.last() == Carried.DAMAGED
    hub.order(What.MODEL, sha256="ab" * 32, size=100)
    assert hub.last() == Carried.GONE
    hub.order(What.MODEL, sha256="ab" * 32, size=2**50)
    assert hub.last() == Carried.NO_ROOM
    chosen = msgspec.structs.replace(box.config.worker, bundle=str(bundles.SHIPPED))
    with monkeypatch.context() as changed:
        changed.setattr(box, "config", msgspec.structs.replace(box.config, worker=chosen))
        hub.model(good)
        assert hub.last() == Carried.LOCAL_CHOICE
    assert used(box) == before


def test_a_model_comes_over_a_link_that_cuts_is_proven_here_and_leads_into_shadow_mode_and_back(
    box: Box, hub: Programme
) -> None:
    with transaction(box.store):
        acceptances.sign(box.store, passport.at_work(box.config, box.store)[1], "balanced", "Amina", box.now)
    box.wire.loss = 0.3
    good = hub.packed("9.2.0")
    hub.model(good)
    offsets = []
    while (model := ordered.wanted(box.store)) is None or model.have < len(good) // 2:
        box.steps(1)
        offsets += [model.have] if model else []
    assert offsets == sorted(offsets), "it goes on where it was cut"
    (part,) = (box.folder / "models").glob("*.part")
    with part.open("ab") as file:
        file.write(b"what a power cut left behind")
    hub.model(good)
    while len(ordered.pending(box.store)) < 2:
        box.steps(1)
    again = ordered.wanted(box.store)
    assert again is not None and again.have >= len(good) // 2, "what is here counts for the same model, ordered again"
    box.wire.loss = 0.0
    assert sorted(hub.carried()) == [("done", ""), ("overtaken", "")]
    assert used(box) == "9.2.0"
    states = [event.body for event in box.hub.held.events.values() if isinstance(event.body, Status)]
    assert states[-1].model == "cxr-lite0 9.2.0" and not states[-1].accepted and states[-1].before

    wrong = hub.packed("9.3.0", lambda folder: signed.replaced(folder, "golden.npz", shifted(folder / "golden.npz")))
    hub.model(wrong)
    assert hub.last() == Carried.SELF_TEST
    assert used(box) == "9.2.0"
    order = hub.order(What.ROLLBACK)
    assert hub.last() == "done"
    assert used(box) == SHIPPED and passport.at_work(box.config, box.store)[1] == acceptances.accepted(box.store)
    box.store.execute("UPDATE ordered SET result = NULL WHERE name = ?", (order.order,))
    while fleet.step(box.config, box.store):
        pass
    assert used(box) == SHIPPED, "the power went before it was noted: it does not lead forward again"


def tar(good: bytes, **about: Any) -> bytes:
    """A bundle in one file, and one more entry."""
    made = io.BytesIO(good)
    with tarfile.open(fileobj=made, mode="a", format=tarfile.PAX_FORMAT) as file:
        entry = tarfile.TarInfo(about.pop("name"))
        for key, value in about.items():
            setattr(entry, key, value)
        data = b"1\n0\n1\n".ljust(512, b"\0")
        entry.size = len(data) if entry.isreg() else 0
        file.addfile(entry, io.BytesIO(data))
    return made.getvalue()


def shifted(golden: Path) -> bytes:
    """Golden films whose answers are others."""
    import numpy as np

    with np.load(golden) as kept:
        files = {name: kept[name] for name in kept.files}
    files["probabilities"] = 1 - files["probabilities"]
    out = io.BytesIO()
    np.savez_compressed(out, **files)
    return out.getvalue()


def test_every_result_has_its_words() -> None:
    assert set(words.ORDERS) == set(Carried)


class Cut(Exception):
    """The power went."""


def test_the_power_goes_before_something_is_noted_and_it_is_done_once(
    box: Box, hub: Programme, monkeypatch: pytest.MonkeyPatch
) -> None:
    @contextmanager
    def dies(store: sqlite3.Connection) -> Iterator[sqlite3.Connection]:
        with transaction(store):
            yield store
            raise Cut

    def cut(what: Callable[[], object]) -> None:
        with monkeypatch.context() as power, pytest.raises(Cut):
            power.setattr(fleet, "transaction", dies)
            what()

    hub.order(What.SETTINGS, settings={"hub.daily_mib": 20})
    while not ordered.pending(box.store):
        box.steps(1)
    cut(lambda: fleet.step(box.config, box.store))
    assert ordered.pending(box.store) and settings.ordered(box.config).hub.daily_mib == 20
    assert hub.carried() == [("done", "")]
    assert box.store.execute("SELECT COUNT(*) FROM audit WHERE event = 'ordered'").fetchone()[0] == 1
    data = hub.packed("9.2.0", whole=False)
    hub.model(data)
    while (model := ordered.wanted(box.store)) is None:
        box.steps(1)
    held, half = model, len(data) // 2
    cut(lambda: fleet.keep(box.config, box.store, held, held.have, data[held.have : half]))
    assert ordered.wanted(box.store) == held, "bytes that are here and not noted are not here"
    box.hub.models.clear()
    for first, last in ((held.have, half), (held.have, half), (half + 5, len(data)), (half - 9, len(data))):
        now = ordered.wanted(box.store)
        assert now is not None
        fleet.keep(box.config, box.store, now, first, data[first:last])
    assert ordered.wanted(box.store) is None
    (part,) = (box.folder / "models").glob("*.part")
    assert part.read_bytes() == data
