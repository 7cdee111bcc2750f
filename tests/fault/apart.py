"""A box and its hub with everything between them that may go wrong, in one process and on one clock: the same seed, the same day.

The real `edge.link.Link` on the box's real database talks to the real hub, whose application is called as a server would call it.
What is made up is the air (`Air`): requests that never arrive, bodies that are cut, answers that are lost, requests that arrive
twice or much later; and `tests/fault/power.py` is both disks. After any day `settle` lets the link be good, and `check` holds what
the hub has against what the box has, to the byte.
"""

from __future__ import annotations

import hashlib
import logging
import multiprocessing
import os
import random
import shutil
import sys
import tempfile
from collections import Counter
from collections.abc import Callable, Iterator, Mapping
from contextlib import ExitStack, closing, suppress
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from functools import cache
from pathlib import Path
from typing import Any
from unittest import mock

import click
import msgspec
from flask import Flask
from werkzeug.test import EnvironBuilder, run_wsgi_app

from edge import cards
from edge.cards import Decided, Image, Lane, Picture, Result
from edge.config import Config
from edge.config import Hub as HubSettings
from edge.link import GRAIN, Link, Lost, Reply
from edge.records import Outcome, ReadKind, Sha256, Trouble, Urgency
from edge.stages.parcel import Keys
from edge.state import arrivals, device, sync
from edge.state.objects import Objects
from edge.state.store import open_store, transaction
from tests.fault.power import Data, Disk, Names
from web.hub import answers, app, films, here, sites
from web.hub import config as hub_config
from web.hub.records import Site

PROGRAMME, SITE = "north", "ndele"
BEGIN = datetime(2026, 11, 1, 8, tzinfo=UTC)
BOX, HUB = "box", "hub"
PATIENCE = 4000
"""So many steps of the link bring over whatever a day made; more, and something never arrives."""


class PowerCut(BaseException):
    """The power went at one side; nothing after it happens there."""


@dataclass
class Fate:
    """What the air does to a request."""

    arrives: bool = True
    cut: int | None = None
    """After so many bytes of its body."""
    ends: bool = False
    """A cut looks to the hub as if the body had ended, not as a broken connection."""
    answered: bool = True
    twice: bool = False
    later: bool = False
    """It arrives once more, after others that were sent after it."""


class Air:
    """`edge.link.Transport` without sockets, at the mercy of a `World`."""

    def __init__(self, world: World) -> None:
        self.world = world

    def post(self, path: str, headers: Mapping[str, str], body: bytes) -> Reply:
        """Hand over a body."""
        return self._carry("POST", path, {**headers, "Content-Length": str(len(body))}, iter([body]))

    def get(self, path: str, headers: Mapping[str, str]) -> Reply:
        """Ask for something."""
        return self._carry("GET", path, {**headers, "Content-Length": "0"}, iter([b""]))

    def patch(self, path: str, headers: Mapping[str, str], parts: Iterator[bytes]) -> Reply:
        """Hand over a body part by part."""
        return self._carry("PATCH", path, headers, parts)

    def _carry(self, method: str, path: str, headers: Mapping[str, str], parts: Iterator[bytes]) -> Reply:
        world, fate = self.world, self.world.fate(method)
        world.deliver_late()
        if not fate.arrives:
            next(parts, None)
            raise Lost(Trouble.UNREACHABLE)
        body = Body(parts, fate)
        try:
            reply = world.ask_hub(method, path, headers, body)
        except PowerCut:
            world.begin_again(HUB)
            raise Lost(Trouble.CLOSED) from None
        if method == "PATCH":
            world.read += body.read_bytes
        if body.failure is not None:
            raise body.failure
        again = (method, path, dict(headers), b"".join(body.given))
        if fate.twice:
            world.deliver(again)
        if fate.later:
            world.late.append(again)
        if body.was_cut or not fate.answered:
            world.cuts += 1
            raise Lost(Trouble.HANGS)
        return reply


class Body:
    """A request's body as the hub's server reads it."""

    def __init__(self, parts: Iterator[bytes], fate: Fate) -> None:
        self._parts, self._fate, self._rest = parts, fate, b""
        self.given: list[bytes] = []
        self.read_bytes = 0
        self.was_cut = False
        self.failure: BaseException | None = None
        """What happened to the box meanwhile."""

    def read(self, size: int = -1) -> bytes:
        """So many bytes at most; none at the end. Raises OSError where the connection is gone."""
        self._rest = self._rest or self._next()
        most = len(self._rest) if size < 0 else size
        data, self._rest = self._rest[:most], self._rest[most:]
        self.read_bytes += len(data)
        return data

    def _next(self) -> bytes:
        if not self.was_cut:
            try:
                part = next(self._parts, b"")
            except PowerCut as cut:
                self.failure, self.was_cut = cut, True
                return self._broken()
            self.given.append(part)
            over = sum(map(len, self.given)) - self._fate.cut if self._fate.cut is not None else 0
            if over <= 0:
                return part
            self.was_cut = True
            if over < len(part):
                return part[:-over]
        return self._broken()

    def _broken(self) -> bytes:
        if self._fate.ends:
            return b""
        raise ConnectionResetError


@dataclass
class Weather:
    """How often what goes wrong, as shares of requests."""

    lost: float = 0.0
    cut: float = 0.0
    unanswered: float = 0.0
    twice: float = 0.0
    later: float = 0.0

    def fate(self, method: str, chance: random.Random) -> Fate:
        """What happens to a request."""
        if chance.random() < self.lost:
            return Fate(arrives=False)
        most = 80_000 if method == "PATCH" else 1500
        return Fate(
            cut=chance.randrange(most) if chance.random() < self.cut else None,
            ends=chance.random() < 0.5,
            answered=chance.random() >= self.unanswered,
            twice=chance.random() < self.twice,
            later=chance.random() < self.later,
        )


GOOD = Weather()


class World:
    """A clinic's box, its hub, and whatever happens to them; `chance` decides everything that is left to it."""

    def __init__(self, folder: Path, chance: random.Random, weather: Weather = GOOD, whole_films: bool = True) -> None:
        self.folder, self.chance, self.weather, self.whole_films = folder, chance, weather, whole_films
        self.at = BEGIN
        self.late: list[tuple[str, str, dict[str, str], bytes]] = []
        self.read = 0
        """Bytes of objects that the hub was handed and read."""
        self.cuts = 0
        self.restored: set[str] = set()
        self.ever: set[bytes] = set()
        """Everything that the box ever said, and the hub."""
        self.bytes: dict[str, bytes] = {}
        self.places = {BOX: folder / "box", HUB: folder / "hub"}
        self.backups: dict[str, Path] = {}
        self.fuse: tuple[str, int] | None = None
        """Which side loses its power after so many more durable steps."""
        self._generation = 0
        self._counter = 0
        self._open = ExitStack()

    def __enter__(self) -> World:
        template = enrolled()
        for side, place in self.places.items():
            place.parent.mkdir(parents=True, exist_ok=True)
            shutil.copytree(template[side], place)
        self.disk = Disk(self.folder, self._step_of_disk)
        self._open.enter_context(self.disk.installed())
        self._open.enter_context(mock.patch("web.hub.sync.now", lambda: self.at.timestamp()))
        self._open.enter_context(mock.patch("web.hub.objects.UNKEPT", 1))  # as over a link slower than the disk
        self._begin_box()
        self._begin_hub()
        return self

    def __exit__(self, *error: object) -> None:
        self.fuse = None
        self.store.close()
        self.hub.store.close()
        self._open.close()

    # --- both machines

    def _begin_box(self) -> None:
        config = Config(
            state=str(self.places[BOX]), hub=HubSettings(url="https://hub.example", whole_films=self.whole_films)
        )
        self.store = open_store(self.places[BOX])
        self.objects = Objects(self.places[BOX])
        self.link = Link(config, self.store, Air(self), lambda: self.at, self.chance.randbytes)

    def _begin_hub(self) -> None:
        self.hub = here.open_hub(hub_config.Config(state=str(self.places[HUB])))
        application().extensions[here.NAME] = self.hub

    def _move(self, side: str, to: Path) -> None:
        """Begin a machine again on another folder."""
        before, self.fuse = self.places[side], None
        (self.store if side == BOX else self.hub.store).close()
        self.places[side] = to
        self.disk.settle(to)
        self._begin_box() if side == BOX else self._begin_hub()
        shutil.rmtree(before)

    def begin_again(self, side: str) -> None:
        """After a power cut."""
        self._move(side, self._after)

    def _place(self, side: str) -> Path:
        self._generation += 1
        return self.folder / f"{side}{self._generation}"

    def _step_of_disk(self, step: str, file: Path) -> None:
        if self.fuse is None or not file.is_relative_to(self.places[self.fuse[0]]):
            return
        side, left = self.fuse
        self.fuse = (side, left - 1) if left else None
        if not left:
            how = self.chance.choice(list(Data)), self.chance.choice(list(Names))
            seed, of = self.chance.randrange(1 << 32), self.places[side]
            self._after = self.disk.after_cut(self._place(side), *how, seed, of)
            self.cuts += 1 + (side == HUB)  # one piece is being kept while the next comes in
            raise PowerCut(side)

    def blow(self, side: str, after: int) -> None:
        """Let the power of a side go after so many durable steps, whenever these are."""
        self.fuse = (side, after)

    def back_up(self, side: str) -> None:
        """Keep a side as it is now."""
        self.backups[side] = self._place(f"backup-{side}")
        shutil.copytree(self.places[side], self.backups[side])

    def restore(self, side: str, database_only: bool = False) -> None:
        """Put a side back to what it was when it was backed up, or only its database."""
        if side not in self.backups:
            return
        to = self._place(side)
        shutil.copytree(self.backups[side], to)
        if database_only:
            shutil.rmtree(to / "objects")
            shutil.copytree(self.places[side] / "objects", to / "objects")
        self.restored.add(side)
        self.late.clear()  # to put a backup back takes longer than any packet lives
        self._move(side, to)
        if side == BOX and self.chance.random() < 0.5:  # by `outpost backup restore`; else somebody has copied the disk
            with transaction(self.store):
                sync.begin_anew(self.store)

    # --- the air

    def fate(self, method: str) -> Fate:
        """What happens to the next request."""
        return self.weather.fate(method, self.chance)

    def ask_hub(self, method: str, path: str, headers: Mapping[str, str], body: Any) -> Reply:
        """Have the hub's application answer, as a server would."""
        environ = EnvironBuilder(path, method=method, headers=dict(headers)).get_environ()
        environ["wsgi.input"] = body
        if "Content-Length" in headers:
            environ["CONTENT_LENGTH"] = headers["Content-Length"]
        with suppress(ConnectionResetError):
            parts, status, named = run_wsgi_app(application(), environ, buffered=True)
            return Reply(int(status.split()[0]), {name.lower(): value for name, value in named}, b"".join(parts))
        return Reply(500, {}, b"")

    def deliver(self, request: tuple[str, str, dict[str, str], bytes]) -> None:
        """A request arrives once more; nobody hears the answer."""
        *what, body = request
        try:
            self.ask_hub(*what, Body(iter([body]), Fate()))  # type: ignore[arg-type]
        except PowerCut:
            self.begin_again(HUB)

    def deliver_late(self) -> None:
        """Some of what was held up arrives."""
        while self.late and self.chance.random() < 0.5:
            self.deliver(self.late.pop(self.chance.randrange(len(self.late))))

    # --- what happens

    def step(self) -> timedelta:
        """The box does the next thing; the clock goes on for as long as there is nothing else."""
        pause = self._at_box(self.link.step) or timedelta(0)
        self.at += max(pause, timedelta(milliseconds=10))
        return pause

    def _at_box(self, what: Callable[[], Any]) -> Any:
        try:
            return what()
        except PowerCut:
            return self.begin_again(BOX)

    def film(self, urgent: bool, size: int) -> None:
        """A film is assessed at the clinic."""
        self._counter += 1
        number, data = self._counter, self.chance.randbytes(size)

        def assessed() -> None:
            stored = self.objects.put(data)
            with transaction(self.store):
                film, _ = arrivals.add(self.store, f"1.{number}", Sha256(stored.sha256), "test", self.at)
                sync.case(self.store, film, name := f"2.25.{number}")
                self._tell(result(name, 1, urgent), Lane.URGENT if urgent else Lane.ROUTINE, film, "result")
                picture = Picture(
                    sha256=stored.sha256, size=size, rows=100, columns=100, windows=((32768.0, 65536.0),),
                    millimetres=None, at_detector=False,
                )  # fmt: skip
                lane = Lane.URGENT_IMAGE if urgent else Lane.ROUTINE_IMAGE
                self._tell(Image(case=name, picture=picture), lane, film, "image")
            self.bytes[stored.sha256] = data

        self.bytes[hashlib.sha256(data).hexdigest()] = data
        self._at_box(assessed)

    def _films(self) -> list[tuple[int, str]]:
        rows = self.store.execute("SELECT arrival_id, name FROM sync_case ORDER BY arrival_id")
        return [(row["arrival_id"], row["name"]) for row in rows]

    def _tell(self, body: cards.Up, lane: Lane, film: int, about: str) -> None:
        self.ever.add(cards.canonical(body))
        sync.tell(self.store, body, lane, self.at, about=f"{about} {film}", arrival_id=film)

    def assess_again(self) -> None:
        """One of the films gets another run, with another outcome."""
        if not (known := self._films()):
            return
        film, name = self.chance.choice(known)
        last = max(one.run for one in self.told(Result) if one.case == name)
        body = result(name, last + 1, self.chance.random() < 0.5, self.chance.random())

        def told() -> None:
            with transaction(self.store):
                self._tell(body, Lane.ROUTINE, film, "result")

        self._at_box(told)

    def say(self) -> None:
        """Somebody at the clinic says something of a film."""
        if not (known := self._films()):
            return
        film, name = self.chance.choice(known)
        self._counter += 1
        body = Decided(
            case=name, run=self._counter, act=self.chance.choice([ReadKind.CONFIRM, ReadKind.REFER]), outcome=None,
            codes=(), reason="", reader="R" + "A" * 16, before_ai=False,
        )  # fmt: skip

        def told() -> None:
            with transaction(self.store):
                self._tell(body, Lane.PEOPLE, film, f"read {body.run}")

        self._at_box(told)

    def answer(self) -> None:
        """A teleradiologist reads a film that is at the hub, or would have more of it."""
        try:
            self._answer()
        except PowerCut:
            self.begin_again(HUB)

    def _answer(self) -> None:
        with self.hub.store.reading(PROGRAMME) as db:
            cases = films.cases(db, list(range(1, self._counter + 1)))
        if not cases:
            return
        case = self.chance.choice(list(cases.values()))
        self._counter += 1
        if case.picture is not None and self.chance.random() < 0.3:
            body: cards.Down = cards.Want(sha256=case.picture.sha256, upto=self.chance.randrange(case.picture.size) + 1)
        else:
            body = cards.Read(
                case=case.result.case, read=hashlib.sha256(b"%d" % self._counter).hexdigest(), reader="Dr Ba",
                outcome=Outcome.ROUTINE, codes=(), advice=(), final=True, at="2026-11-01T08:00:00Z",
            )  # fmt: skip
        self.ever.add(cards.canonical(body))
        with self.hub.store.transaction(PROGRAMME) as db:
            answers.give(db, SITE, body, self.at.timestamp())

    # --- what came of it

    def told(self, kind: Any) -> list[Any]:
        """What the box has told of a kind, each once, in order."""
        rows = self.store.execute("SELECT body FROM sync_event WHERE state <> 'moved' ORDER BY id")
        bodies = [msgspec.json.decode(row["body"], type=cards.Up) for row in rows]
        return [body for body in bodies if isinstance(body, kind)]

    def settle(self) -> None:
        """The link is good from now on, until both sides have all that there is."""
        self.weather, self.fuse = GOOD, None
        while self.late:
            self.deliver_late()
        quiet = 0
        for _ in range(PATIENCE):
            self.step()
            quiet = quiet + 1 if self.is_settled() else 0
            if quiet > 3:
                return
        raise AssertionError(f"it never ends: {self.link.store.execute('SELECT * FROM sync').fetchone()[:]}")

    def is_settled(self) -> bool:
        """Whether both sides have all that there is."""
        stood = sync.standing(self.store)
        with self.hub.store.reading(PROGRAMME) as db:
            row = db.row("SELECT epoch, answers FROM site WHERE programme = :programme")
            assert row is not None
        most = Lane.BULK if self.whole_films else Lane.ASKED
        left = sync.waiting(self.store) or sync.part(self.store, most=most) or sync.unknown(self.store)
        return not left and (stood.hub_epoch, stood.upto) == (row["epoch"], row["answers"]) and stood.trouble is None

    def check(self) -> None:
        """The hub has what the box has, each once and whole, and the box what the hub has said."""
        exactly = not self.restored
        with self.hub.store.reading(PROGRAMME) as db:
            said = Counter(
                row["body"].encode() for row in db.rows("SELECT body FROM said WHERE programme = :programme")
            )
            found = db.rows("SELECT case_uid, run, card FROM film WHERE programme = :programme")
            images = db.rows("SELECT * FROM image WHERE programme = :programme")
            objects = db.rows("SELECT * FROM object WHERE programme = :programme")
            given = [row["body"].encode() for row in db.rows("SELECT body FROM answer WHERE programme = :programme")]
        assert [body for body, times in said.items() if times > 1] == [], "doubled at the hub"
        people = set(map(cards.canonical, self.told(Decided)))
        self._holds(set(said), people, exactly, "reads at the hub")
        latest = {one.case: one for one in sorted(self.told(Result), key=lambda one: one.run)}
        at_hub = {row["case_uid"]: row for row in found}
        assert set(latest) <= set(at_hub), "lost at the hub"
        for case, one in latest.items():
            assert at_hub[case]["run"] >= one.run, "an old run at the hub"
            if at_hub[case]["run"] == one.run:
                assert at_hub[case]["card"].encode() == cards.canonical(one), "another result at the hub"
        newest = {cards.canonical(one) for case, one in latest.items() if at_hub[case]["run"] == one.run}
        self._holds({row["card"].encode() for row in found}, newest, exactly, "films")
        have = {row["sha256"]: row["have"] for row in objects}
        for image in self.told(Image):
            picture = image.picture
            assert [row["sha256"] for row in images if row["case_uid"] == image.case] == [picture.sha256]
            need = picture.size if self.whole_films else min(picture.size, cards.PREFIX)
            assert have[picture.sha256] >= need, "a film is not whole at the hub"
        for sha256, bytes_of in have.items():
            held = self.hub.blobs.read(f"{PROGRAMME}/{sha256}", 0, bytes_of)
            assert held == self.bytes[sha256][:bytes_of], "torn at the hub"
        if exactly and self.read:
            assert self.read - sum(have.values()) <= GRAIN * self.cuts, "too much was sent again"
        taken = Counter(row["body"].encode() for row in self.store.execute("SELECT body FROM sync_read"))
        assert [body for body, times in taken.items() if times > 1] == [], "doubled at the box"
        reads = {body for body in given if b'"kind":"read"' in body}
        self._holds(set(taken), reads, exactly, "reads at the box")
        assert sync.waiting(self.store) == 0
        assert not self.whole_films or sync.unsent(self.store) == {}

    def _holds(self, there: set[bytes], must: set[bytes], exactly: bool, what: str) -> None:
        assert must <= there, f"lost: {what}"
        assert there <= (must if exactly else self.ever), f"made up: {what}"


def result(case: str, run: int, urgent: bool, share: float = 0.5) -> Result:
    """What the AI says of a film; with another `share`, something else."""
    return Result(
        case=case, run=run, study=None, patient="P" + "A" * 16, age="044Y", sex="F", day="2026-11-01", view="PA",
        urgency=Urgency.ROUTINE, outcome=Outcome.IMMEDIATE if urgent else Outcome.ROUTINE, reason=None,
        findings=(cards.Likelihood(finding="any", scheme="99", code="1", probability=share, low=0.0, high=1.0),),
        model="m 1", device_uid="2.25.1", operating_point="balanced", shadow=False,
    )  # fmt: skip


@cache
def application() -> Flask:
    """The hub's application: it keeps nothing itself, so that one is enough for all hubs."""
    return app.create(hub_config.Config(state=str(enrolled()[HUB])))


@cache
def enrolled() -> dict[str, Path]:
    """A box and a hub that know each other, to be copied."""
    folder = Path(tempfile.mkdtemp(prefix="outpost-apart-"))
    enrol(folder, hub_config.Config(state=str(folder / HUB)))
    return {BOX: folder / BOX, HUB: folder / HUB}


def enrol(folder: Path, config: hub_config.Config, pin: str = "") -> None:
    """Make a box in a folder, and a hub, that know each other."""
    hub = here.open_hub(config)
    with closing(open_store(folder / BOX)) as box:
        public = Keys(*device.keys(folder / BOX)).public
        with hub.store.transaction(PROGRAMME) as db:
            sites.add(db, Site(programme=PROGRAMME, name=SITE, title="Ndele", language="fr", timezone="UTC"))
        with hub.store.transaction() as db:
            sites.add_programme(db, PROGRAMME, "North")
            code = sites.invite(db, PROGRAMME, SITE, 0)
            assert sites.enrol(db, code, PROGRAMME, SITE, public, 0) is sites.CodeState.GOOD
        with hub.store.reading(PROGRAMME) as db:
            epoch = sites.epoch(db, SITE)
        own = hub.keys.public
        said = cards.Enrolled(site=SITE, programme=PROGRAMME, signing=own.signing, sealing=own.sealing, epoch=epoch)
        with transaction(box):
            device.enrol(box, said, pin, BEGIN)
            sync.begin_with(box, epoch)
    hub.store.close()


def day(folder: Path, seed: int) -> World:
    """A day that is the same for the same seed; what is wrong with it, `check` raises."""
    chance = random.Random(seed)

    def often() -> float:
        return chance.choice([0, 0, 0.1, 0.3])

    weather = Weather(often(), often(), often(), often(), often())
    with World(folder, chance, weather, whole_films=chance.random() < 0.7) as world:
        acts: list[tuple[float, Callable[[], None]]] = [
            (4, lambda: world.film(chance.random() < 0.4, chance.choice([700, 5_000, 33_000, 70_000]))),
            (3, world.say),
            (2, world.assess_again),
            (3, world.answer),
            (2, lambda: world.blow(chance.choice([BOX, HUB]), chance.randrange(30))),
            (1.5, lambda: world.back_up(chance.choice([BOX, HUB]))),
            (1.2, lambda: world.restore(BOX)),
            (1.2, lambda: world.restore(HUB, chance.random() < 0.5)),
        ]
        weights, calls = zip(*acts, strict=True)
        for _ in range(chance.randrange(4, 14)):
            chance.choices(calls, weights)[0]()
            for _ in range(chance.choice([0, 1, 3, 8])):
                world.step()
        world.settle()
        world.check()
    return world


def judged(seed: int) -> str:
    """What is wrong after the day of that seed, in one line; empty where nothing is."""
    folder = Path(tempfile.mkdtemp(prefix="outpost-apart-", dir="/dev/shm" if Path("/dev/shm").is_dir() else None))
    logging.disable(logging.CRITICAL)
    try:
        day(folder, seed)
    except Exception as error:  # noqa: BLE001  whatever it is, it is what is wrong
        return f"seed {seed}: {type(error).__name__}: {error}"
    finally:
        shutil.rmtree(folder, ignore_errors=True)
    return ""


def main() -> None:
    """`python -m tests.fault.apart COUNT [FIRST]`: so many days, one for each seed from FIRST; says what was wrong."""
    count, first = int(sys.argv[1]), int(sys.argv[2]) if len(sys.argv) > 2 else 0
    wrong = []
    application()
    with (
        multiprocessing.get_context("fork").Pool(os.cpu_count()) as pool,
        click.progressbar(length=count, label="Days", file=sys.stderr) as bar,
    ):
        for said in pool.imap_unordered(judged, range(first, first + count)):
            bar.update(1)
            if said:
                wrong.append(said)
                print(said, flush=True)
            if bar.pos % 500 == 0:
                print(f"{bar.pos} days, {len(wrong)} wrong", flush=True)
    sys.exit(bool(wrong))


if __name__ == "__main__":
    main()
