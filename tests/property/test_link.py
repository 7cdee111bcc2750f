"""The link as a state machine: whatever is cut, lost, doubled, late, restored or set wrong, the hub has what the box said, once."""

from __future__ import annotations

import hashlib
import random
import shutil
import sqlite3
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest

from edge import link
from edge.cards import PREFIX, Image, Lane, Picture, Read, Seen, ToBox, Void, Want
from edge.config import Config, Hub
from edge.link import Link
from edge.records import Sha256, Trouble, Urgency
from edge.stages.parcel import Keys
from edge.state import arrivals, device, sync
from edge.state.objects import Objects
from edge.state.store import DATABASE, open_store, transaction
from tests import modelhub as peers

NOON = datetime(2026, 11, 23, 12, tzinfo=UTC)


class Killed(Exception):
    """The power went."""


class Box:
    """A box with films, a clock of its own, and a link."""

    def __init__(self, folder: Path, seed: int, loss: float = 0.0, **more: Any) -> None:
        self.folder, self.draw = folder, random.Random(seed)
        self.config = Config(state=str(folder), hub=Hub(url="https://hub.example", **more))
        self.now, self.number = NOON, 0
        self.hub = peers.Hub(self.draw)
        self.wire = peers.Cut(self.hub, self.draw, loss)
        self.store = self.opened()
        self.hub.box = Keys(*device.keys(folder)).public
        with transaction(self.store):
            device.enrol(self.store, self.hub.enrolled(), "", self.now)
            sync.begin_with(self.store, self.hub.held.epoch)
        self.link = self.linked()

    def opened(self) -> sqlite3.Connection:
        store = open_store(self.folder)
        store.execute("PRAGMA synchronous=OFF")  # speed only: no power cut here
        return store

    def again(self, saved: Path | None = None) -> None:
        """The box starts again, after its power went; perhaps with the database of a backup."""
        self.store.close()
        if saved is not None:
            for name in (f"{DATABASE}-wal", f"{DATABASE}-shm"):
                (self.folder / name).unlink(missing_ok=True)
            shutil.copy(saved, self.folder / DATABASE)
        self.store = self.opened()
        self.link = self.linked()

    def linked(self) -> Link:
        return Link(self.config, self.store, self.wire, lambda: self.now, self.draw.randbytes)

    def say(self, lane: Lane = Lane.ROUTINE) -> str:
        self.number += 1
        read = hashlib.sha256(f"{self.number} {self.draw.random()}".encode()).hexdigest()
        with transaction(self.store):
            sync.tell(self.store, Seen(case="2.25.1", read=read), lane, self.now, about=f"seen {read}")
        return read

    def film(self, size: int = 50_000, lane: Lane = Lane.ROUTINE_IMAGE) -> str:
        self.number += 1
        data = self.draw.randbytes(size)
        stored = Objects(self.folder).put(data)
        picture = Picture(
            sha256=stored.sha256, size=size, rows=9, columns=9, windows=(), millimetres=None, at_detector=False
        )
        with transaction(self.store):
            film, _ = arrivals.add(
                self.store, f"1.{self.number}", Sha256(stored.sha256), "t", self.now, Urgency.ROUTINE
            )
            image = Image(case=f"2.25.{self.number}", picture=picture)
            sync.tell(self.store, image, lane, self.now, about=f"image {film}", arrival_id=film)
        return stored.sha256

    def steps(self, count: int) -> None:
        for _ in range(count):
            self.now += max(self.link.step(), timedelta(milliseconds=200))

    def quiet(self) -> None:
        """Let everything arrive over a link that loses nothing."""
        self.wire.loss = 0
        for _ in range(3000):
            self.now += max(self.link.step(), timedelta(milliseconds=200))
            if not self.open():
                return
        raise AssertionError(self.open())

    def open(self) -> list[Any]:
        left: list[Any] = list(sync.events(self.store, self.now, 10**6))
        part = sync.part(self.store, most=Lane.ASKED)
        made, _ = self.hub.numbered()
        stood = sync.standing(self.store)
        missing = len(made) - stood.upto if stood.hub_epoch == self.hub.held.epoch else len(made)
        return [*left, *([part] if part else []), *sync.unknown(self.store), *([missing] if missing else [])]

    def told(self) -> list[str]:
        """What the box has said, as far as it remembers."""
        rows = self.store.execute("SELECT body FROM sync_event WHERE state <> 'moved' ORDER BY id")
        return [row["body"] for row in rows]

    def check(self) -> None:
        bodies = Counter(sync.text(event.body) for event in self.hub.held.events.values())
        assert not [body for body, times in bodies.items() if times > 1], "doubled"
        assert not Counter(self.told()) - bodies, "lost"
        for row in self.store.execute("SELECT sha256, size, asked FROM sync_object"):
            held = bytes(self.hub.held.objects.get(row["sha256"], b""))
            assert len(held) >= min(row["size"], max(PREFIX, row["asked"]))
            assert held == Objects(self.folder).read(Sha256(row["sha256"]))[: len(held)], "torn"
        kept = {row["read"] for row in self.store.execute("SELECT read FROM sync_read")}
        assert {body.read for body in self.hub.held.down if isinstance(body, Read)} <= kept


@contextmanager
def box(folder: Path, seed: int = 0, loss: float = 0.0, **more: Any) -> Iterator[Box]:
    made = Box(folder, seed, loss, **more)
    try:
        yield made
    finally:
        made.store.close()


def answer(hub: peers.Hub, draw: random.Random) -> None:
    objects = list(hub.held.sizes.items())
    if objects and draw.random() < 0.4:
        sha256, size = draw.choice(objects)
        hub.held.down.append(Want(sha256=sha256, upto=draw.randrange(1, size + 1)))
    else:
        read = draw.randbytes(32).hex()
        hub.held.down.append(
            Read(
                case="2.25.1",
                read=read,
                reader="Dr A",
                outcome="soon",
                codes=("normal",),
                advice=(),
                final=True,
                at="2026-11-23T12:00:00Z",
            )
        )


DEEDS = (
    "say",
    "say",
    "urgent",
    "film",
    "steps",
    "steps",
    "steps",
    "answer",
    "kill",
    "clock",
    "mute",
    "save",
    "hub",
    "box",
)


def lived_through(folder: Path, seed: int) -> None:
    """One box and its hub through forty deeds, each of which may happen at any time; then over a good link."""
    draw = random.Random(seed)
    with box(folder, seed, draw.choice([0.0, 0.1, 0.3])) as made:
        saved_hub, saved_box = made.hub.backup(), folder / "saved.db"
        for deed in draw.choices(DEEDS, k=40):
            match deed:
                case "say":
                    made.say()
                case "urgent":
                    made.say(Lane.URGENT)
                case "film":
                    made.film(draw.randrange(1, 90_000))
                case "steps":
                    made.steps(draw.randrange(1, 8))
                case "answer":
                    answer(made.hub, draw)
                case "kill":
                    made.again()
                case "clock":
                    made.now += draw.choice([-1, 1]) * timedelta(days=365)
                case "mute":
                    made.hub.full = not made.hub.full
                case "save":
                    saved_hub = made.hub.backup()
                    made.store.execute("PRAGMA wal_checkpoint(TRUNCATE)")
                    shutil.copy(folder / DATABASE, saved_box)
                case "hub":
                    made.hub.held = saved_hub
                    saved_hub = made.hub.backup()
                case "box" if saved_box.exists():
                    made.again(saved_box)
        made.hub.full = False
        made.say()  # that something was restored is found out with the next thing that is said or answered
        answer(made.hub, draw)
        made.quiet()
        made.check()


@pytest.mark.parametrize("first", range(0, 60, 20))
def test_the_hub_has_what_the_box_said_once(tmp_path: Path, first: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("os.fsync", lambda _: None)  # speed only: `tests/fault` has the power cuts
    for seed in range(first, first + 20):
        folder = tmp_path / str(seed)
        folder.mkdir()
        try:
            lived_through(folder, seed)
        except AssertionError as error:
            raise AssertionError(f"seed {seed}") from error
        shutil.rmtree(folder)


def test_after_a_restore_an_event_is_not_taken_for_another_of_its_number(tmp_path: Path) -> None:
    with box(tmp_path) as made:
        made.say()
        made.steps(2)
        made.store.execute("PRAGMA wal_checkpoint(TRUNCATE)")
        shutil.copy(tmp_path / DATABASE, tmp_path / "saved.db")
        gone = [made.say(), made.say()]
        made.quiet()
        made.again(tmp_path / "saved.db")
        ours = [made.say(), made.say(), made.say()]
        made.wire.loss = 1  # they leave, and never arrive
        made.steps(1)
        urgent = made.say(Lane.URGENT)
        made.wire.loss, made.link.chunk = 0, 1  # only the urgent one has room in the next parcel
        made.now += timedelta(minutes=1)
        made.steps(1)
        assert [one.body.read for one in sync.events(made.store, made.now, 10**6)] == ours
        made.quiet()
        made.check()
        assert {event.body.read for event in made.hub.held.events.values()} >= {*gone, *ours, urgent}


def test_a_hub_that_would_have_what_it_had_is_asked_what_it_has(tmp_path: Path) -> None:
    with box(tmp_path) as made:
        sha256 = made.film(20_000)
        made.quiet()
        made.hub.held.objects.clear()  # a bucket of last week
        made.hub.held.down.append(Want(sha256=sha256, upto=5000))
        made.now += timedelta(minutes=1)
        made.quiet()
        assert len(made.hub.held.objects[sha256]) == 20_000


def test_an_answer_before_which_one_is_missing_waits_for_it(tmp_path: Path) -> None:
    with box(tmp_path) as made:
        answer(made.hub, made.draw)
        answer(made.hub, made.draw)
        told, _ = made.hub.numbered()
        for order, upto in (((1,), 0), ((0, 0), 1), ((0,), 1), ((1, 0, 1), 2)):
            said = ToBox(epoch=made.hub.held.epoch, answers=tuple(told[one] for one in order))
            with transaction(made.store):
                sync.take(made.store, said, made.now, fresh=False)
            assert sync.standing(made.store).upto == upto


def test_an_old_stick_does_not_bring_back_an_epoch_that_was_left(tmp_path: Path) -> None:
    with box(tmp_path) as made:
        old = made.hub.held.epoch
        for fresh, said, now_in in (
            (False, "a" * 16, "a" * 16),
            (False, old, "a" * 16),
            (True, "b" * 16, "b" * 16),
            (False, "a" * 16, "b" * 16),
            (True, "a" * 16, "a" * 16),  # what the network says counts
        ):
            with transaction(made.store):
                sync.take(made.store, ToBox(epoch=said), made.now, fresh=fresh)
            assert sync.standing(made.store).hub_epoch == now_in


def order_of(made: Box) -> list[str]:
    """In which order the hub gets what is waiting: events by the first letters of their read, films as bytes."""
    found: list[str] = []
    held = made.hub

    def parcels(body: bytes, then: Any = held.parcels) -> Any:
        before = set(held.held.events)
        reply = then(body)
        new = [event for key, event in held.held.events.items() if key not in before]
        found.extend(
            type(event.body).__name__ if not isinstance(event.body, Seen) else event.body.read[:6] for event in new
        )
        return reply

    def part(sha256: str, offset: int, size: int, data: bytes, whole: bool = True, then: Any = held.bytes) -> Any:
        found.append(f"{sha256[:6]}+{len(data)}")
        return then(sha256, offset, size, data, whole)

    held.parcels, held.bytes = parcels, part  # type: ignore[method-assign]
    return found


def test_what_is_urgent_goes_first_and_in_the_middle_of_what_is_not(tmp_path: Path) -> None:
    with box(tmp_path) as made:
        bulk = made.film(200_000)
        made.steps(3)
        made.hub.held.down.append(Want(sha256=bulk, upto=200_000))
        made.now += timedelta(minutes=1)
        made.steps(1)
        went = order_of(made)
        presses, urgent = sync.presses, ""

        def looked(store: sqlite3.Connection, at: datetime, before: Lane) -> bool:
            nonlocal urgent
            if not urgent and before is Lane.ASKED:
                urgent = made.say(Lane.URGENT)  # while a film is on its way
            return presses(store, at, before)

        sync.presses = looked  # type: ignore[assignment]
        try:
            made.steps(4)
        finally:
            sync.presses = presses
        assert went[0] == f"{bulk[:6]}+{peers.GRAIN}", "it is interrupted after a few kilobytes"
        assert went[1] == urgent[:6]


def test_lanes_are_strict_and_nothing_starves(tmp_path: Path) -> None:
    with box(tmp_path) as made:
        made.film(30_000)
        made.steps(3)
        slow, film = made.say(Lane.ROUTINE), made.film(30_000)
        made.link.chunk = 1
        went = order_of(made)
        for _ in range(40):
            made.say(Lane.URGENT)
            made.say(Lane.URGENT)
            made.steps(1)
        ours = went.index(slow[:6])
        assert 0 < ours <= 20, "what has waited longest has its turn"
        assert went.count(slow[:6]) == 1
        assert not [one for one in went if "+" in one], "the urgent ones come faster than they go"
        made.link.chunk = 8192
        made.quiet()
        made.check()
        assert film in made.hub.held.objects


def test_what_ranks_before_routine_goes_before_it_also_where_that_is_known_late(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(link, "TURN", 10**6)
    with box(tmp_path) as made:
        routine = [made.say(), made.film(20_000)]
        later = made.film(20_000)  # another run of it says more than the first
        soon = [made.say(Lane.SOON), made.film(20_000, Lane.SOON_IMAGE)]
        with transaction(made.store):
            (film,) = made.store.execute("SELECT arrival_id FROM sync_object WHERE sha256 = ?", (later,)).fetchone()
            for lane in (Lane.SOON, Lane.ROUTINE):  # what was raised once stays
                sync.hasten(made.store, film, lane)
                assert sync.lane_of(made.store, film) is Lane.ROUTINE, "it has no result"
        went = order_of(made)
        made.quiet()
        made.check()
    said, image, of_later, routine_said, routine_image = (of[:6] for of in (*soon, later, *routine))
    assert went.index(said) < went.index(routine_said)
    films = [one.partition("+")[0] for one in went if "+" in one]
    assert {*films[:2]} == {image, of_later} and films[-1] == routine_image, went


def test_budget_and_metered_hours_hold_back_all_but_what_is_urgent(tmp_path: Path) -> None:
    with box(tmp_path, metered="08:00-18:00") as made:  # it is noon
        late, now_ = made.say(Lane.ROUTINE), made.say(Lane.URGENT)
        made.film(30_000)
        made.film(30_000, Lane.URGENT_IMAGE)
        made.steps(20)
        reads = {event.body.read for event in made.hub.held.events.values() if isinstance(event.body, Seen)}
        assert reads == {now_}
        assert len(made.hub.held.objects) == 1
        made.now = made.now.replace(hour=18)
        made.quiet()
        assert late in {event.body.read for event in made.hub.held.events.values() if isinstance(event.body, Seen)}
        assert len(made.hub.held.objects) == 2


def test_a_days_budget_ends_with_the_day(tmp_path: Path) -> None:
    with box(tmp_path, daily_mib=1) as made:
        films = [made.film(900_000) for _ in range(3)]
        made.steps(10)
        for sha256 in films:
            made.hub.held.down.append(Want(sha256=sha256, upto=900_000))
        made.now += timedelta(minutes=1)
        made.steps(60)
        held = sum(map(len, made.hub.held.objects.values()))
        assert 1 << 20 <= held < 2 << 20
        assert sync.events(made.store, made.now, 10**6, most=Lane.URGENT) == []
        urgent = made.say(Lane.URGENT)
        made.steps(3)
        assert urgent in {event.body.read for event in made.hub.held.events.values() if isinstance(event.body, Seen)}
        made.now += timedelta(days=1)
        made.steps(30)
        assert sum(map(len, made.hub.held.objects.values())) > held


def test_no_byte_goes_twice_and_little_after_a_cut(tmp_path: Path) -> None:
    with box(tmp_path, loss=0.05) as made:
        sha256 = made.film(400_000)
        made.hub.held.down.append(Want(sha256=sha256, upto=400_000))
        went = order_of(made)
        made.steps(300)
        made.quiet()
        made.check()
        whole = sum(int(one.partition("+")[2]) for one in went if "+" in one)
        assert whole >= 400_000
        assert made.hub.received[sha256] == 400_000, "what the hub had was never taken again"


def test_a_hub_that_is_away_is_asked_seldom_and_at_once_when_it_matters(tmp_path: Path) -> None:
    with box(tmp_path, loss=1.0) as made:
        made.say()
        end, asked = made.now + timedelta(hours=1), made.wire.asked
        while made.now < end:
            made.now += max(made.link.step(), timedelta(milliseconds=200))
        assert 200 <= made.wire.asked - asked <= 330
        asked, end = made.wire.asked, made.now + timedelta(minutes=5)
        made.say(Lane.URGENT)
        while made.now < end:
            made.now += max(min(made.link.step(), timedelta(seconds=1)), timedelta(milliseconds=200))
        assert 130 <= made.wire.asked - asked <= 210
        assert sync.standing(made.store).trouble is Trouble.UNREACHABLE
        made.quiet()
        stood = sync.standing(made.store)
        assert (stood.trouble, stood.failures, stood.since) == (None, 0, None)


@pytest.mark.parametrize(
    ("wrong", "trouble"), [("revoked", Trouble.KEPT_OUT), ("full", Trouble.FULL), ("another", Trouble.GARBLED)]
)
def test_what_a_hub_refuses_is_said_and_kept(tmp_path: Path, wrong: str, trouble: Trouble) -> None:
    with box(tmp_path) as made:
        made.say()
        if wrong == "another":  # somebody has taken the hub's place
            kept, made.hub.keys = made.hub.keys, peers.Hub(made.draw).keys
            made.hub.known = lambda _: made.hub.box  # type: ignore[method-assign, assignment, return-value]
            parcels = made.hub.parcels

            def pretended(body: bytes) -> Any:
                made.hub.keys, own = kept, made.hub.keys
                try:
                    reply = parcels(body)
                finally:
                    made.hub.keys = own
                return type(reply)(200, {}, reply.body[:95] + bytes([reply.body[95] ^ 1]) + reply.body[96:])

            made.hub.parcels = pretended  # type: ignore[method-assign]
        else:
            setattr(made.hub, wrong, True)
        made.steps(3)
        assert sync.standing(made.store).trouble is trouble
        assert sync.waiting(made.store) == 1
        if wrong != "another":
            setattr(made.hub, wrong, False)
            made.now += timedelta(hours=1)
            made.quiet()
            made.check()


def test_a_clock_that_is_set_makes_nothing_wait_longer_than_it_did(tmp_path: Path) -> None:
    with box(tmp_path) as made:
        made.say()
        year = timedelta(days=365)
        with transaction(made.store):
            sync.clock_moved(made.store, -year)
        made.now += timedelta(minutes=5) - year
        (event,) = sync.events(made.store, made.now, 10**6)
        assert event.waited("s", made.now).seconds == 300
        assert event.waited("s", made.now - year).seconds == 0
        assert event.waited("s", made.now + 30 * year).seconds is None


def test_a_decision_that_was_taken_back_in_time_never_left(tmp_path: Path) -> None:
    with box(tmp_path) as made:
        undo = timedelta(seconds=10)
        for number in (1, 2):
            with transaction(made.store):
                body = Seen(case="2.25.1", read=f"{number}" * 64)
                sync.tell(made.store, body, Lane.PEOPLE, made.now, about=f"read {number}", due=made.now + undo)
        made.steps(1)
        assert not made.hub.held.events, "nothing leaves while it can be taken back"
        with transaction(made.store):
            sync.take_back(made.store, "read 1")
        made.now += undo
        made.steps(40)
        kinds = [event.body for event in made.hub.held.events.values()]
        assert kinds == [Void(), Seen(case="2.25.1", read="2" * 64)]
