"""The worker: takes films off the queue and assesses them. Open this file first; `assess` is the whole stage line.

It is the only process that decodes pixels, and it talks to no network. Whatever happens to it, a film's job is leased,
not popped: the next worker tries again, and after three attempts the film ends as *could not assess*.
"""

from __future__ import annotations

import logging
import resource
import sqlite3
import threading
import time
from collections.abc import Callable
from contextlib import closing
from datetime import timedelta
from pathlib import Path
from zoneinfo import ZoneInfo

from pydicom import Dataset

from edge import acceptance, memory, ordering, outside, passport, phantom, surveillance
from edge import config as settings
from edge.box import orphaned
from edge.config import Config
from edge.errors import Tampered
from edge.reader import Reader, open_reader, settle
from edge.records import (
    Assessment,
    Concern,
    Header,
    Job,
    Order,
    Reason,
    Refusal,
    Rendition,
    Signals,
    StoredFile,
    Withheld,
)
from edge.stages import codestream, decide, decode, gate, header, match, png
from edge.stages.deidentify import telling
from edge.state import arrivals, audit, notices, orders, outbox, phantoms, queue, results, scores
from edge.state.objects import Objects
from edge.state.store import changes, now, open_store, transaction

log = logging.getLogger(__name__)

POLL_SECONDS = 0.1
RETRY_DELAY = timedelta(seconds=2)
NO_PICTURE = Withheld(Concern.UNREADABLE)
TEST_SECONDS = 60.0
"""So often it is asked whether the daily test is due."""


def assess(path: Path, reader: Reader, supplied_age: float | None = None, order: Order | None = None) -> Assessment:
    """The stage line, one film: header → gate → decode → prepare → infer → doubt → calibrate → decide.

    An age that a person supplied goes before the film's own, and that before its order's.
    """
    lap = Stopwatch()
    said, signals = Header(), None
    model = reader.model

    def ends(refusal: Refusal) -> Assessment:
        refused = decide.refuse(refusal, reader.name, reader.device_uid)
        return Assessment(said, refused, None, lap.milliseconds, signals)

    parsed = header.read(path)
    lap("header")
    if isinstance(parsed, Refusal):
        return ends(parsed)
    dataset, said = parsed
    said = match.complete(said, order)
    if (refusal := gate.admit(said)) is not None:
        return ends(refusal)
    film = decode.decode(dataset)
    lap("decode")
    if isinstance(film, Refusal):
        return ends(film)
    if min(film.rows, film.columns) < model.manifest.minimum_size:
        return ends(Refusal(Reason.TOO_SMALL, f"{film.rows} x {film.columns} pixels"))
    tensor = model.prepare(film.gray)
    lap("prepare")
    scores = model.infer(tensor)
    lap("infer")
    seen, place = model.signals(film.gray, tensor, scores)
    signals = Signals(**seen, place=place)
    lap("signals")
    doubt = model.doubt(film.gray, tensor, scores)
    lap("gate")
    if doubt is not None:
        return ends(Refusal(Reason(doubt), "by the picture"))
    # only now: nobody shall be asked for the age of a film that could not be assessed anyway
    age = said.age_years if supplied_age is None else supplied_age
    if age is None:
        return ends(Refusal(Reason.AGE_UNKNOWN, "no PatientAge, PatientBirthDate or supplied age"))
    domain = model.domain_of(age)
    if domain is None:
        return ends(Refusal(Reason.AGE_OUT_OF_SCOPE, f"{age:.1f} years"))
    findings = [reader.finding(probability) for probability in model.calibrate(scores, domain)]
    decision = decide.decide(findings, reader.name, reader.device_uid)
    # the map is of the finding that the outcome comes from: the one furthest along its own thresholds
    leading = decide.leading(findings)
    assert leading is not None
    saliency = png.heat_map(model.saliency(scores, leading.finding))
    lap("decide")
    return Assessment(said, decision, saliency, lap.milliseconds, signals, model.logit(scores, leading.finding))


class Stopwatch:
    """Milliseconds per stage, in the order the stages were called."""

    def __init__(self) -> None:
        self.milliseconds: dict[str, float] = {}
        self._last = time.perf_counter()

    def __call__(self, stage: str) -> None:
        """Note what has passed since the last call as the time of this stage."""
        at = time.perf_counter()
        self.milliseconds[stage] = round((at - self._last) * 1000, 2)
        self._last = at


class Worker:
    """Takes one job at a time off the queue of a box and commits what came of it."""

    def __init__(self, config: Config, store: sqlite3.Connection) -> None:
        self.config = config
        self.store = store
        self.objects = Objects(Path(config.state))
        self.reader = open_reader(config, store)
        self._tested = False
        """Whether this process has made a test of its own, beside those of each night."""

    def step(self) -> bool:
        """Do one job if one is due, and say whether there was one."""
        with transaction(self.store):
            but = "score" if self._stopped() else ""
            job = queue.claim(self.store, now(), self.config.worker.lease_seconds, but)
        if job is None:
            return False
        if job.attempts > queue.ATTEMPTS:
            self._bury(job)
            return True
        try:
            if job.kind == "render":
                self._render(job)
            elif job.kind == "score":
                self._score(job)
            else:
                self._assess(job)
        except (MemoryError, OSError, RuntimeError, ValueError, sqlite3.Error) as error:
            log.exception("film %d: attempt %d failed", job.arrival_id, job.attempts)
            with transaction(self.store):
                queue.retry(self.store, job, f"{type(error).__name__}: {error}", now() + RETRY_DELAY)
        return True

    def _assess(self, job: Job) -> None:
        row = arrivals.get(self.store, job.arrival_id)
        path = self.objects.path(arrivals.read(row).sha256)
        order = orders.of_film(self.store, job.arrival_id)
        assessment = assess(path, self.reader, row["supplied_age"], order)
        if self._stopped() and assessment.decision.refusal is None:
            refusal = Refusal(Reason.AI_STOPPED, "the daily test has failed: `outpost check` says how")
            refused = decide.refuse(refusal, self.reader.name, self.reader.device_uid)
            assessment = Assessment(assessment.header, refused, None, assessment.milliseconds)
        self._commit(job, assessment, render=outside.has_picture(assessment.decision))

    def _commit(self, job: Job, assessment: Assessment, render: bool) -> None:
        """The outcome, the end of its job and the wish for a picture, in one transaction."""
        with transaction(self.store):
            if queue.finish(self.store, job):
                self._record(job, assessment, render)
                if render:
                    queue.add_render(self.store, job.arrival_id, job.run, now())

    def _render(self, job: Job) -> None:
        path = self.objects.path(arrivals.read(arrivals.get(self.store, job.arrival_id)).sha256)
        parsed = header.read(path)
        film = parsed if isinstance(parsed, Refusal) else decode.render(parsed[0])
        if isinstance(film, Refusal):
            with transaction(self.store):
                if queue.finish(self.store, job):
                    outside.tell_withheld(self.store, self.config, job.arrival_id, NO_PICTURE, now())
            return
        rendition = self.objects.put(png.film(film.values)).sha256
        preview = self.objects.put(png.preview(film)).sha256
        leaves = self._leaves(parsed, film)
        with transaction(self.store):
            if queue.finish(self.store, job):
                results.add_rendition(self.store, job.arrival_id, rendition, preview, film.display)
                if isinstance(leaves, Withheld):
                    outside.tell_withheld(self.store, self.config, job.arrival_id, leaves, now())
                elif leaves is not None:
                    shape = film.values.shape
                    outside.tell_image(self.store, self.config, job.arrival_id, leaves, shape, film.display, now())

    def _leaves(self, parsed: Refusal | tuple[Dataset, Header], film: Rendition) -> StoredFile | Withheld | None:
        """The picture that may leave toward the hub, stored; None where there is no hub."""
        if not self.config.hub.url or isinstance(parsed, Refusal):
            return None
        seen = telling.cleaned(film, parsed[0])
        return seen if isinstance(seen, Withheld) else self.objects.put(codestream.encode(seen.values))

    def _score(self, job: Job) -> None:
        """What this model says of a film that was read here; its result stays what its reader was shown."""
        row = arrivals.get(self.store, job.arrival_id)
        said = assess(self.objects.path(arrivals.read(row).sha256), self.reader, row["supplied_age"])
        with transaction(self.store):
            if queue.finish(self.store, job):
                scores.add(self.store, job.arrival_id, said.decision, now())

    def _bury(self, job: Job) -> None:
        """Give a job up; an assessment ends as *could not assess*, with the patient's name if the header can be read."""
        refusal = Refusal(Reason.PROCESSING_FAILED, f"given up after {queue.ATTEMPTS} attempts")
        decision = decide.refuse(refusal, self.reader.name, self.reader.device_uid)
        if job.kind != "assess":
            with transaction(self.store):
                if queue.bury(self.store, job, refusal.detail):
                    if job.kind == "score":
                        scores.add(self.store, job.arrival_id, decision, now())
                    else:
                        outside.tell_withheld(self.store, self.config, job.arrival_id, NO_PICTURE, now())
            return
        said = Header()
        if (
            job.attempts == queue.ATTEMPTS + 1
        ):  # should the header itself be what kills the worker, do without next time
            row = arrivals.get(self.store, job.arrival_id)
            parsed = header.read(self.objects.path(arrivals.read(row).sha256))
            said = Header() if isinstance(parsed, Refusal) else parsed[1]
        with transaction(self.store):
            if queue.bury(self.store, job, refusal.detail):
                self._record(job, Assessment(said, decision, None, {}), pictured=False)

    def _record(self, job: Job, assessment: Assessment, pictured: bool) -> None:
        """The outcome, its record in the ledger, and the wish to send it, inside the caller's transaction."""
        at, decision = now(), assessment.decision
        results.add(self.store, job.arrival_id, job.run, assessment, at, settings.letterhead(self.config))
        detail = {"run": job.run, "outcome": decision.outcome, "device_uid": decision.device_uid}
        if decision.refusal is not None:
            detail["reason"] = decision.refusal.reason
        if assessment.header.from_order:
            detail["from_order"] = assessment.header.from_order
        audit.append(self.store, audit.Event.ASSESSED, "worker", at, job.arrival_id, **detail)
        film = arrivals.read(arrivals.get(self.store, job.arrival_id))
        if film.source != arrivals.FOR_ACCEPTANCE:
            if decision.refusal is None or decision.refusal.reason is not Reason.AI_STOPPED:
                surveillance.count_film(self.store, self.config, film.received_at, job.run, assessment)
            outbox.of_result(self.store, self.config, job.arrival_id, job.run, decision.outcome, at)
            ordering.meet(self.store, job.arrival_id, assessment.header, "worker", at)
            manifest = self.reader.model.bundle.manifest
            outside.tell_result(self.store, self.config, manifest, job.arrival_id, job.run, assessment, pictured, at)

    def test(self) -> bool:
        """Judge a film of the daily test that came in, or make those of the next where it is due; says whether it did."""
        store, bundle = self.store, self.reader.model.bundle
        with transaction(store):
            film = phantoms.claim(store, bundle.digest, now(), self.config.worker.lease_seconds)
        if film is None:
            return self._make_test()
        said = None
        if film.attempts <= queue.ATTEMPTS:
            assert film.sha256 is not None
            try:
                said = assess(self.objects.path(film.sha256), self.reader)
            except (MemoryError, OSError, RuntimeError, ValueError):
                log.exception("test film %d: attempt %d failed", film.id, film.attempts)
                return True
        phantom.conclude(self.config, store, bundle, film, said, now())
        return True

    def _make_test(self) -> bool:
        store, bundle, zone = self.store, self.reader.model.bundle, ZoneInfo(self.config.site.timezone)
        last = phantoms.newest(store, bundle.digest)
        if self._tested and not phantom.due(last.made_at if last else None, self._stopped(), now(), zone):
            return False
        phantom.make(store, bundle, now())
        self._tested = True
        return True

    def _stopped(self) -> bool:
        return phantom.stopped(self.store, self.reader.model.bundle)

    def follow(self) -> None:
        """Take the model in use as this site has accepted it, look for drift once a day, try a new model on the films read here."""
        bundle = self.reader.model.bundle
        if passport.folder(self.config) != bundle.path or passport.in_use(self.store, bundle) != (
            self.reader.operating_point,
            self.reader.calibration,
        ):
            settle(self.config)
            self.reader = open_reader(self.config, self.store)
            bundle, self._tested = self.reader.model.bundle, False
            with transaction(self.store):
                phantom.tell(self.store, bundle, now())
        surveillance.look(self.store, self.config, self.reader.device_uid, now())
        with transaction(self.store):
            changed = audit.latest(self.store, audit.Event.MODEL_CHANGED)
            if changed is not None and changed.detail["device_uid"] == self.reader.device_uid:
                return
            acceptance.ask_again(self.store, passport.devices(self.store, bundle), now())
            audit.append(
                self.store,
                audit.Event.MODEL_CHANGED,
                "worker",
                now(),
                model=self.reader.name,
                operating_point=self.reader.operating_point,
                device_uid=self.reader.device_uid,
            )


def run(
    config: Config,
    stop: threading.Event,
    ready: Callable[[], None] = lambda: None,
    alive: Callable[[], None] = lambda: None,
) -> None:
    """Assess films until `stop` is set, the parent process is gone, or a lease of this process is beyond repair.

    `ready` is called once, `alive` before each film and while there is none: whoever hears it no longer may end this process.
    """
    with closing(open_store(Path(config.state))) as store:
        with transaction(store):
            queue.release(store, "the worker stopped before it was done")
            phantoms.release(store)
        try:
            settle(config)
            worker = Worker(config, store)
            with transaction(store):
                notices.clear(store, "worker")
                phantom.tell(store, worker.reader.model.bundle, now())
            worker.follow()
            ready()
            _work(worker, stop, alive)
        except Tampered as error:
            with transaction(store):
                audit.append(store, audit.Event.TAMPERED, "worker", now(), why=str(error))
            raise


def _work(worker: Worker, stop: threading.Event, alive: Callable[[], None]) -> None:
    store, seen, idle, look = worker.store, -1, False, 0.0
    while not stop.is_set() and not orphaned():
        alive()
        if passport.folder(worker.config) != worker.reader.model.bundle.path:
            worker.follow()  # not even the films that wait already shall still be judged by the model before
        if worker.step():
            idle = False
            continue
        at = changes(store)
        if at != seen or time.monotonic() >= look:
            look = time.monotonic() + TEST_SECONDS
            if worker.test():
                idle = False
                continue
        if not idle:
            memory.give_back()
            idle = True
        if at == seen:
            stop.wait(POLL_SECONDS)
            # a job whose retry is due makes no change in the database: look again every so often
            waiting = store.execute("SELECT 1 FROM job WHERE state IN ('ready', 'leased') LIMIT 1").fetchone()
            seen = -1 if waiting else at
        else:
            seen = at
            worker.follow()


def limit_memory(mebibytes: int) -> None:
    """Stop this process rather than the box when a film asks for absurd memory."""
    if mebibytes:
        resource.setrlimit(resource.RLIMIT_AS, (mebibytes * 2**20, mebibytes * 2**20))
