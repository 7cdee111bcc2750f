"""The courier: the only process that talks out. Takes results that are due, makes their documents, and gives them to each way out.

Each way out has a thread and a connection of its own, so that a peer that hangs delays no other. What is due, and when a peer is
asked again, the outbox says; whatever happens to the courier, an attempt was counted before it was made and is made again.
"""

from __future__ import annotations

import gc
import logging
import math
import os
import sqlite3
import sys
import threading
import time
from collections.abc import Callable
from contextlib import closing
from functools import cached_property
from pathlib import Path

from edge import config as settings
from edge import connections, memory, syslog
from edge.box import orphaned
from edge.config import Config
from edge.records import Delivery, Document, Read, Receipt, Source, Trouble
from edge.sinks import Sink, kinds, open_sink
from edge.state import outbox, reads, results
from edge.state.objects import Objects
from edge.state.store import changes, now, open_store, transaction

log = logging.getLogger(__name__)

POLL_SECONDS = 0.2
LOOK_SECONDS = 1.0
"""A delivery that falls due makes no change in the database."""
AFRESH_SECONDS = 300.0
"""Idle for so long, a courier that has made DICOM objects starts afresh: Python gives no library back, and these are 50 MiB."""
PATIENCE_SECONDS = 3.0
"""How long an attempt may go on when the courier stops; cut off, it is made again at the next start."""


class Desk:
    """Where documents are made, one result at a time; all ways out ask for the same ones at about the same moment."""

    def __init__(self, config: Config) -> None:
        self.config = config
        self.objects = Objects(Path(config.state))
        self.kinds = {kind for sink in config.sinks for kind in kinds(sink)}
        self.idle_since = math.inf
        """When the last attempt ended; infinity while one is made, and before the first."""
        self._one = threading.Lock()
        self._made: tuple[Source, Read | None, tuple[Document, ...]] | None = None

    def documents(self, store: sqlite3.Connection, delivery: Delivery) -> tuple[Document, ...]:
        """Every form of what is to be delivered that some way out takes. Raises whatever the making of one raises."""
        from edge.stages import report  # brings in highdicom: only where there is something to send

        film = results.film(store, delivery.arrival_id, delivery.run)
        preview = None if film.preview is None else self.objects.read(film.preview)
        head = results.letterhead(store, delivery.arrival_id, delivery.run) or settings.letterhead(self.config)
        source = Source(film, preview, head.station, head.triage_only)
        read = None if delivery.read_id is None else reads.get(store, delivery.read_id)
        with self._one:
            if self._made is None or self._made[:2] != (source, read):
                asked = self.kinds
                made = report.documents(source, asked) if read is None else report.assessment(source, read, asked)
                self._made = (source, read, made)
            return self._made[2]

    def clear(self) -> None:
        """Forget what was made last."""
        with self._one:
            self._made = None


class Courier:
    """One way out of a box: its deliveries, one after the other."""

    def __init__(self, sink: settings.Sink, store: sqlite3.Connection, desk: Desk) -> None:
        self.name = sink.name
        self.kinds = kinds(sink)
        self.store = store
        self.desk = desk
        self.sink = sink

    @cached_property
    def out(self) -> Sink:
        """The way out itself, whose library is imported when there is something to send."""
        return open_sink(self.sink)

    def step(self) -> bool:
        """Make one attempt if one is due, and say whether there was one."""
        if not outbox.due(self.store, {self.name}, now()):
            return False
        with transaction(self.store):
            delivery = outbox.claim(self.store, {self.name}, now())
        if delivery is None:
            return False
        receipt = self._attempt(delivery)
        # one result may be what a peer hangs or breaks over: it shall not hold back the others
        well = receipt.trouble in (Trouble.HANGS, Trouble.CLOSED) and self.out.probe().trouble is None
        with transaction(self.store):
            outbox.settle(self.store, delivery, receipt, now(), peer_is_well=well)
        return True

    def _attempt(self, delivery: Delivery) -> Receipt:
        self.desk.idle_since = math.inf
        try:
            documents = self.desk.documents(self.store, delivery)
            chosen = [document for document in documents if document.kind in self.kinds]
            return self.out.deliver(chosen, delivery)
        except Exception as error:  # whatever the film or a library brings, it costs this result and no other
            log.exception("film %d: its result could not be made for %s", delivery.arrival_id, self.name)
            return Receipt(Trouble.NOT_MADE, type(error).__name__)
        finally:
            self.desk.idle_since = time.monotonic()


def _serve(config: Config, sink: settings.Sink, desk: Desk, stop: threading.Event) -> None:
    """One way out, until `stop` is set. Whatever goes wrong costs this attempt and is tried again."""
    with closing(open_store(Path(config.state))) as store:
        courier = Courier(sink, store, desk)
        seen, looked, idle = -1, 0.0, True
        while not stop.is_set():
            try:
                if (at := changes(store)) != seen or time.monotonic() - looked >= LOOK_SECONDS:
                    seen, looked = at, time.monotonic()
                    if courier.step():
                        seen, idle = -1, False
                        continue
            except sqlite3.Error:  # a full disk, a lock held for too long: the attempt is made again
                log.exception("the way out %s could not use the state; it goes on", sink.name)
                stop.wait(LOOK_SECONDS)
            if not idle:
                idle = True
                desk.clear()
                gc.collect()
                memory.give_back()
            stop.wait(POLL_SECONDS)


def run(config: Config, stop: threading.Event, ready: Callable[[], None] = lambda: None) -> None:
    """Deliver results and the ledger, ask the RIS, and talk with the hub, until `stop` is set or the parent process is gone."""
    open_store(Path(config.state)).close()
    desk = Desk(config)
    threads = [
        threading.Thread(target=_serve, args=(config, sink, desk, stop), name=f"way out {sink.name}", daemon=True)
        for sink in config.sinks
    ]
    if config.audit.host:
        threads.append(threading.Thread(target=syslog.run, args=(config, stop), name="ledger", daemon=True))
    if config.sinks or config.modalities:
        threads.append(threading.Thread(target=connections.run, args=(config, stop), name="connections", daemon=True))
    if config.ris.host:
        from edge import ris

        threads.append(threading.Thread(target=ris.run, args=(config, stop), name="ris", daemon=True))
    if config.hub.url:
        from edge import fleet, link

        threads.append(threading.Thread(target=link.run, args=(config, stop), name="hub", daemon=True))
        threads.append(threading.Thread(target=fleet.run, args=(config, stop), name="orders", daemon=True))
    for thread in threads:
        thread.start()
    ready()
    while not orphaned() and not stop.wait(LOOK_SECONDS):
        if time.monotonic() - desk.idle_since > AFRESH_SECONDS and "highdicom" in sys.modules:
            # should an attempt begin just now, it is one that was interrupted
            os.execv(sys.executable, [sys.executable, *sys.orig_argv[1:]])  # noqa: S606  itself
    stop.set()
    end = time.monotonic() + PATIENCE_SECONDS
    for thread in threads:
        thread.join(max(0.0, end - time.monotonic()))
    if any(thread.is_alive() for thread in threads):
        os._exit(0)  # a thread of pynetdicom's would keep this process for as long as its peer hangs
