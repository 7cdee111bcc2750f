"""The link: what this box tells its hub and hears from it, over whatever network there is; a thread of the courier.

`Link.step` does one thing and says for how long there is nothing to do: an exchange of parcels, or the next bytes of a film. What
goes first is decided anew each time, and while a film is on its way after each few kilobytes, so that what is urgent waits for a
second or so. It has no sockets and no clock of its own: `edge/wire.py` is the connection that a box has. Nothing counts as
sent before the hub has said that it has it durably; whatever is cut off goes on where the hub says that it stopped.
"""

from __future__ import annotations

import base64
import hashlib
import io
import logging
import os
import sqlite3
import threading
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import closing
from dataclasses import dataclass
from datetime import datetime, timedelta
from pathlib import Path
from typing import Protocol
from zoneinfo import ZoneInfo

from edge import config as settings
from edge import fleet
from edge.cards import Lane, ToBox, ToHub
from edge.config import Config
from edge.records import Carried, Receipt, Sha256, Trouble
from edge.stages import parcel
from edge.stages.parcel import Fault, Keys, Opened, Public
from edge.state import device, ordered, queue, results, sync
from edge.state.objects import Objects
from edge.state.outbox import back_off
from edge.state.store import now, open_store, transaction

log = logging.getLogger(__name__)

GRAIN = 4096
"""Bytes that go between two looks at whether something is more urgent; the hub keeps as many durably at a time."""
CHUNKS = 32
"""So many chunks one body has at most; then the hub says how far it has come."""
LEAST, MOST = 8 * 1024, 512 * 1024
"""Bytes of a chunk; in between it is what the link carried in `CHUNK`."""
CHUNK = timedelta(seconds=1.5)
TURN = 16
"""One in so many things is that which has waited longest, whatever its lane, so that nothing starves."""
FIRST = timedelta(seconds=1)
SOON = timedelta(seconds=2)
"""A hub that cannot be reached is tried at least this often while something urgent waits: links are up for seconds."""
SELDOM = timedelta(seconds=15)
"""And this often otherwise: a try is two packets."""
REFUSED = timedelta(minutes=15)
"""One that answers and does not take this box's parcels is asked at least this often."""
AWAY = {Trouble.UNREACHABLE, Trouble.CLOSED, Trouble.HANGS}
STATUS_SECONDS = 60.0
"""So often it is looked how it stands with this box."""
STRANGER = timedelta(seconds=5)
"""So often it is looked whether the box has been enrolled."""


@dataclass(frozen=True)
class Reply:
    """What a hub's server answered."""

    status: int
    headers: Mapping[str, str]
    """By their names in small letters."""
    body: bytes


class Lost(Exception):
    """There is no answer; how much has arrived nobody knows."""

    def __init__(self, trouble: Trouble, detail: str = "") -> None:
        super().__init__(f"{trouble} {detail}".strip())
        self.trouble, self.detail = trouble, detail


class Transport(Protocol):
    """A connection to a hub, made when it is needed and kept for as long as it holds."""

    def post(self, path: str, headers: Mapping[str, str], body: bytes) -> Reply:
        """Hand over a body and wait for the answer. Raises `Lost`."""

    def get(self, path: str, headers: Mapping[str, str]) -> Reply:
        """Ask for something. Raises `Lost`."""

    def patch(self, path: str, headers: Mapping[str, str], parts: Iterator[bytes]) -> Reply:
        """Hand over a body part by part, for as long as there are any, and wait for the answer. Raises `Lost`."""


class Link:
    """The talk of one box with its hub."""

    def __init__(
        self,
        config: Config,
        store: sqlite3.Connection,
        transport: Transport,
        clock: Callable[[], datetime] = now,
        draw: Callable[[int], bytes] = os.urandom,
    ) -> None:
        """`draw` gives so many random bytes."""
        self.config, self.store, self.transport, self.clock, self.draw = config, store, transport, clock, draw
        state = Path(config.state)
        self.objects = Objects(state)
        self.keys = Keys(*device.keys(state))
        self.chunk = LEAST
        """Bytes that the link carries in about `CHUNK`, as far as it was measured."""
        self._turn = 0

    def step(self) -> timedelta:
        """Do the next thing, if there is one; says for how long nothing else will be due. Never raises for what a hub does."""
        hub, at = device.hub(self.store), self.clock()
        if hub is None:
            return STRANGER
        stood = sync.standing(self.store)
        if (rest := self._barred(stood, at)) > timedelta(0):
            return rest
        most = self._most(stood, at)
        self._turn += 1
        oldest = self._turn % TURN == 0
        events = sync.events(self.store, at, self.chunk, most=most, oldest=oldest)
        part = sync.part(self.store, most=most, oldest=oldest)
        asked = [(sha256, lane) for sha256, lane in sync.unknown(self.store) if lane <= most]
        model = ordered.wanted(self.store) if most > Lane.URGENT_IMAGE else None
        poll = timedelta(seconds=self.config.hub.poll_seconds)
        rest = timedelta(0) if stood.next_at is None else stood.next_at - at
        due = not timedelta(0) < rest <= poll
        if model is not None and not (events or asked or due) and (part is None or part.lane is Lane.BULK or oldest):
            self._attempt(lambda: self._download(model, at), None)
            return timedelta(0)
        if part is not None:
            lanes = [one.lane for one in events[:1]] + [lane for _, lane in asked[:1]] + [Lane.PEOPLE] * due
            before = oldest and (not events or part.made_at < events[0].made_at)
            if before or part.lane < min(lanes, default=part.lane + 1):
                self._attempt(lambda: self._upload(part, at, oldest), None)
                return timedelta(0)
        if events or asked or due:
            self._attempt(lambda: self._exchange(hub, events, [sha256 for sha256, _ in asked], at), poll)
            return timedelta(0)
        return rest

    def _barred(self, stood: sync.Standing, at: datetime) -> timedelta:
        """How long a hub that failed is left alone yet; less where something urgent waits."""
        if not stood.failures or stood.next_at is None:
            return timedelta(0)
        end = stood.next_at
        if stood.trouble in AWAY and not sync.presses(self.store, at, Lane.PEOPLE):
            end += self._pause(stood.failures, SELDOM) - self._pause(stood.failures, SOON)
        return end - at if at < end <= at + REFUSED else timedelta(0)

    def _pause(self, failures: int, cap: timedelta) -> timedelta:
        return back_off(failures, FIRST, cap, self.keys.public.fingerprint)

    def _most(self, stood: sync.Standing, at: datetime) -> Lane:
        """The last lane that may go now: urgent things whenever, the rest within the day's budget and outside metered hours."""
        settings, here = self.config.hub, at.astimezone(ZoneInfo(self.config.site.timezone))
        spent = stood.spent if stood.day == here.date().isoformat() else 0
        over = settings.daily_mib > 0 and spent >= settings.daily_mib * 2**20
        if over or settings.is_metered(here.time()):
            return Lane.URGENT_IMAGE
        return Lane.BULK if settings.whole_films else Lane.ASKED

    def _attempt(self, what: Callable[[], Receipt], pause: timedelta | None) -> None:
        try:
            receipt = what()
        except Lost as error:
            receipt = Receipt(error.trouble, error.detail)
        if receipt.trouble is not None:
            failures = sync.standing(self.store).failures + 1
            pause = self._pause(failures, SOON if receipt.trouble in AWAY else REFUSED)
        elif receipt.awaits:
            pause = timedelta(0)
        with transaction(self.store):
            sync.settle(self.store, receipt.trouble, receipt.detail, self.clock(), pause)

    def probe(self) -> Receipt:
        """Whether the hub lets this box in now; nothing is told and nothing taken."""
        hub = device.hub(self.store)
        if hub is None:
            return Receipt(Trouble.NOT_CONFIGURED, "not enrolled")
        identifier = self.draw(parcel.IDENTIFIER)
        try:
            heard = self._ask(Public(hub.signing, hub.sealing), ToHub(), identifier)
        except Lost as error:
            return Receipt(error.trouble, error.detail)
        return heard if isinstance(heard, Receipt) else Receipt(detail=hub.site)

    def _ask(self, to: Public, said: ToHub, identifier: bytes) -> list[ToBox] | Receipt:
        """Send a parcel of one section; gives what it is answered. Raises `Lost`."""
        body = b"".join(parcel.seal([said], 1, self.keys, to, identifier))
        reply = self.transport.post("/sync/parcels", self._signed("POST", "/sync/parcels", body=body), body)
        self._spend(len(body), self.clock())
        if reply.status != 200:
            return refused(reply)
        opened = Opened(
            io.BytesIO(reply.body), self.keys, lambda who: to if who == to.fingerprint else Fault.UNKNOWN_SENDER
        )
        heard = [one for one in opened if isinstance(one, ToBox)]
        if opened.fault is not None:
            return Receipt(Trouble.GARBLED, opened.fault)
        if not all(identifier.hex() in one.answers_to for one in heard) or not heard:
            return Receipt(Trouble.GARBLED, "it answers something else")
        return heard

    def _exchange(self, hub: device.Hub, events: list[sync.Filed], asked: list[str], at: datetime) -> Receipt:
        """Send events, and take what the hub answers."""
        identifier, to = self.draw(parcel.IDENTIFIER), Public(hub.signing, hub.sealing)
        with transaction(self.store):
            sync.leave(self.store, events, identifier.hex())
        stood = sync.standing(self.store)
        said = ToHub(
            events=tuple(one.waited(hub.site, at) for one in events),
            hub_epoch=stood.hub_epoch,
            upto=stood.upto,
            chain=stood.chain,
            objects=tuple(asked),
        )
        heard = self._ask(to, said, identifier)
        if isinstance(heard, Receipt):
            return heard
        with transaction(self.store):
            for one in heard:
                sync.take(self.store, one, self.clock(), fresh=True)
        revoked = device.hub(self.store)
        if revoked is not None and revoked.revoked:
            return Receipt(Trouble.KEPT_OUT, Fault.REVOKED)
        return Receipt(awaits=any(one.answers for one in heard))

    def _download(self, model: ordered.Held, at: datetime) -> Receipt:
        """Take the next bytes of a model that the hub has ordered; they go on where they end here."""
        path, length = f"/sync/bundles/{model.order.sha256}", min(self.chunk, model.order.size - model.have)
        asked = {"Outpost-Offset": str(model.have), "Outpost-Length": str(length)}
        began = self.clock()
        reply = self.transport.get(path, self._signed("GET", path, offset=model.have) | asked)
        self._measure(len(reply.body), self.clock() - began)
        self._spend(len(reply.body), at)
        if reply.status == 200 and 0 < len(reply.body) <= length:
            fleet.keep(self.config, self.store, model, model.have, reply.body)
            return Receipt()
        if reply.status in (404, 416):
            fleet.refuse(self.config, self.store, model, Carried.GONE)
            return Receipt()
        return refused(reply)

    def _upload(self, part: sync.Part, at: datetime, oldest: bool) -> Receipt:
        """Send bytes of a film, until something is more urgent, or what shall go has gone."""
        path = f"/sync/objects/{part.sha256}"
        headers = self._signed("PATCH", path, offset=part.offset)
        headers |= {"Upload-Offset": str(part.offset), "Upload-Length": str(part.size)}
        try:
            file = self.objects.path(Sha256(part.sha256)).open("rb")
        except OSError as error:
            return self._damaged(part, f"{type(error).__name__} {error.errno}")
        sent = 0

        def parts() -> Iterator[bytes]:
            nonlocal sent
            file.seek(part.offset)
            most = min(part.upto - part.offset, self.chunk * (1 if oldest else CHUNKS))
            before = min(part.lane, Lane.PEOPLE) if oldest else part.lane
            while sent < most and (sent == 0 or not sync.presses(self.store, self.clock(), before)):
                data = file.read(min(GRAIN, most - sent))
                if not data:
                    return
                yield data
                sent += len(data)

        began = self.clock()
        with file:
            with transaction(self.store):
                sync.arrived(self.store, part.sha256, None)  # until the hub says so
            reply = self.transport.patch(path, headers, parts())
        self._measure(sent, self.clock() - began)
        self._spend(sent, at)
        offset = reply.headers.get("upload-offset", "")
        if reply.status in (200, 204, 409) and offset.isdigit():
            with transaction(self.store):
                for kept in reply.headers.get("outpost-kept", "").split():  # before these bytes, and with them
                    if kept.isdigit():
                        sync.has_kept(self.store, int(kept))
                sync.arrived(self.store, part.sha256, int(offset))
            if reply.status == 409 or int(offset) > part.offset:
                return Receipt()
            return Receipt(Trouble.REJECTED, "takes no byte")
        if reply.status == 460:
            return self._doubted(part)
        return refused(reply)

    def _doubted(self, part: sync.Part) -> Receipt:
        """The hub has all bytes and they are not those that were announced: it begins anew, unless it is this box that errs."""
        digest = hashlib.sha256()
        with self.objects.path(Sha256(part.sha256)).open("rb") as file:
            while data := file.read(2**20):
                digest.update(data)
        if digest.hexdigest() != part.sha256:
            return self._damaged(part, "its hash is another")
        with transaction(self.store):
            sync.arrived(self.store, part.sha256, 0)
        return Receipt(Trouble.REJECTED, "HTTP 460")

    def _damaged(self, part: sync.Part, detail: str) -> Receipt:
        """A film's file is damaged here: it is rendered again."""
        log.error("the picture %s for the hub is damaged (%s); it is made again", part.sha256[:12], detail)
        with transaction(self.store):
            number = sync.remake(self.store, part.sha256)
            self.objects.path(Sha256(part.sha256)).unlink(missing_ok=True)
            queue.add_render(self.store, number, results.runs(self.store, number), self.clock(), again=True)
        return Receipt()

    def _signed(self, method: str, path: str, offset: int | None = None, body: bytes = b"") -> dict[str, str]:
        signature = self.keys.signing.sign(parcel.request(method, path, offset, body))
        return {
            "Outpost-Device": self.keys.public.fingerprint,
            "Outpost-Signature": base64.b64encode(signature).decode(),
        }

    def _measure(self, sent: int, took: timedelta) -> None:
        if sent >= GRAIN and took > timedelta(0):
            carried = int(sent * (CHUNK / took)) // GRAIN * GRAIN
            self.chunk = min(max(LEAST, (self.chunk + carried) // 2 // GRAIN * GRAIN), MOST)

    def _spend(self, size: int, at: datetime) -> None:
        day = at.astimezone(ZoneInfo(self.config.site.timezone)).date().isoformat()
        with transaction(self.store):
            sync.spend(self.store, day, size)


def refused(reply: Reply) -> Receipt:
    """What a hub's status means that is no success."""
    said = f"HTTP {reply.status} {reply.body[:200].decode(errors='replace')}".strip()
    match reply.status:
        case 401 | 403:
            return Receipt(Trouble.KEPT_OUT, said)
        case 507:
            return Receipt(Trouble.FULL, said)
        case 429 | 502 | 503 | 504:
            return Receipt(Trouble.BUSY, said)
        case 404 | 405:
            return Receipt(Trouble.NOT_CONFIGURED, said)
        case _ if 300 <= reply.status < 400:
            return Receipt(Trouble.NOT_CONFIGURED, said)
    return Receipt(Trouble.REJECTED, said)


def run(config: Config, stop: threading.Event) -> None:
    """Talk with the hub until `stop` is set. Whatever goes wrong costs this time and is tried again."""
    from edge import outside  # brings in pydicom: only where there is a hub
    from edge.wire import Wire

    with closing(open_store(Path(config.state))) as store, closing(Wire(config.hub, lambda: _pin(store))) as wire:
        link = Link(config, store, wire)
        before, told = (now(), time.monotonic()), -STATUS_SECONDS
        while not stop.is_set():
            at = (now(), time.monotonic())
            stepped = at[0] - before[0] - timedelta(seconds=at[1] - before[1])
            before = at
            try:
                link.config = settings.ordered(config)
                if abs(stepped) > sync.JITTER:
                    with transaction(store):
                        sync.clock_moved(store, stepped)
                if at[1] - told >= STATUS_SECONDS:
                    told = at[1]
                    with transaction(store):
                        outside.tell_status(store, config, now())
                pause = link.step()
            except (OSError, sqlite3.Error):  # a full disk, a lock held for too long
                log.exception("the box could not talk with its hub; it tries again")
                pause = FIRST
            stop.wait(min(pause.total_seconds(), 1.0))


def _pin(store: sqlite3.Connection) -> str:
    hub = device.hub(store)
    return "" if hub is None else hub.pin
