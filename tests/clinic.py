"""A clinic under test: films put in by hand, as the worker would have left them, and the pages served for a browser."""

from __future__ import annotations

import io
import threading
from collections.abc import Iterator
from contextlib import closing, contextmanager
from dataclasses import dataclass, replace
from datetime import date, timedelta
from functools import lru_cache
from pathlib import Path
from typing import Any

import msgspec
import numpy as np
from flask import Flask
from PIL import Image

from edge import cards, setup, surveillance, trial, words
from edge.config import Config
from edge.records import (
    Assessment,
    Decision,
    Display,
    Finding,
    Header,
    Order,
    Outcome,
    ReadKind,
    Reason,
    Refusal,
    Role,
    Unit,
    Urgency,
)
from edge.stages.png import film as film_png
from edge.state import acceptances, arrivals, drift, notices, orders, queue, reads, results, sync
from edge.state.objects import Objects
from edge.state.store import now, open_store, transaction
from edge.validity import packet
from edge.validity.verdict import Alarm, Cause, Chart, Verdict
from models import phantom
from tests.box import PATIENCE
from tests.people import cookies, person
from web import clinic, join, server

DEVICE = "2.25.1234567890"
SCRIPTS = "Нгуен ليلى 陳大文 Wolfeschlegelstein "
LONG = (SCRIPTS * 9)[:300]
"""A name of 300 characters in mixed scripts, far beyond what DICOM allows (PS3.5 6.2)."""


@dataclass(frozen=True)
class Pages:
    """The pages of a box, served on loopback."""

    app: Flask
    config: Config
    port: int
    join: str
    """Where a tablet learns to trust the box."""

    @property
    def url(self) -> str:
        """Where they are."""
        return f"https://127.0.0.1:{self.port}"

    def cookies(self, name: str = "Amina", role: Role = Role.CLINICIAN, language: str = "en") -> list[Any]:
        """The session of a person, for a browser's context."""
        held = cookies(Path(self.config.state), name, role, language).items()
        return [{"name": key, "value": value, "url": self.url} for key, value in held]


@contextmanager
def serving(config: Config) -> Iterator[Pages]:
    """Serve the pages of a box as it does itself, until the block ends."""
    app, stop = clinic.create(config), threading.Event()
    threads: list[threading.Thread] = []

    def serve(app: Flask, tls: server.Tls | None) -> int:
        ready, ports = threading.Event(), list[int]()

        def listening(port: int) -> None:
            ports.append(port)
            ready.set()

        where = (app, "web.port", "127.0.0.1", 0, stop, listening, tls)
        threads.append(threading.Thread(target=server.serve, args=where))
        threads[-1].start()
        assert ready.wait(PATIENCE)
        return ports[0]

    try:
        port = serve(app, server.Tls(config))
        joining = serve(join.create(config), None)
        yield Pages(app, config, port, f"http://127.0.0.1:{joining}")
    finally:
        stop.set()
        for thread in threads:
            thread.join()


def film(
    config: Config,
    store: Any,
    outcome: Outcome | None,
    name: str,
    minutes: float = 0,
    probability: float = 0.5,
    reason: Reason | None = None,
    uid: str = "",
    urgency: Urgency = Urgency.ROUTINE,
    patient: str = "CL-00417",
    sex: str = "F",
) -> int:
    """A film that came so many minutes ago, assessed where it has an outcome."""
    objects = Objects(Path(config.state))
    with transaction(store):
        at = now() - timedelta(minutes=minutes)
        sha256 = objects.put(f"{name}{minutes}".encode()).sha256
        number, _ = arrivals.add(store, uid or f"1.2.{int(sha256[:9], 16)}", sha256, "MODALITY", at, urgency)
        queue.add(store, number, urgency, at)
        if outcome is not None:
            decide(objects, store, number, outcome, name, probability, reason, patient=patient, sex=sex)
    return number


def decide(
    objects: Objects,
    store: Any,
    number: int,
    outcome: Outcome,
    name: str,
    probability: float,
    reason: Reason | None,
    run: int = 1,
    patient: str = "CL-00417",
    sex: str = "F",
) -> None:
    """What the worker would have committed, inside the caller's transaction."""
    low, high = max(probability - 0.14, 0), min(probability + 0.1, 1)
    finding = Finding(
        "pneumonia", "Pneumonia", "SCT", "233604007", probability, low, high, "balanced", 0.3, 0.7,
        unsure=0.4 < probability < 0.6,
    )  # fmt: skip
    effusion = replace(
        finding,
        finding="effusion",
        label="Pleural effusion",
        code="60046008",
        probability=0.03,
        low=0.01,
        high=0.07,
        unsure=False,
    )
    decision = Decision(
        outcome,
        () if reason else (finding, effusion),
        "demonstrator 1.0",
        DEVICE,
        Refusal(reason, "for the technician") if reason else None,
    )
    header = Header(
        PatientName=name,
        PatientID=patient,
        PatientSex=sex,
        StudyDate=date(2026, 11, 20),
        age_years=None if reason is Reason.AGE_UNKNOWN else 34.0,
    )
    stages = {"header": 3.1, "decode": 41.2, "infer": 66.0}
    results.add(store, number, run, Assessment(header, decision, None if reason else heat(), stages), now())
    store.execute("UPDATE job SET state = 'done' WHERE arrival_id = ?", (number,))
    picture, preview = pictures(number % 4)
    display = Display(((32768, 65535),), None, True)
    results.add_rendition(store, number, objects.put(picture).sha256, objects.put(preview).sha256, display)


@lru_cache(maxsize=4)
def pictures(seed: int) -> tuple[bytes, bytes]:
    """A film at its 16 bits, and its preview."""
    gray = np.clip(phantom.chest(seed, (720, 600), opacity=seed % 2 == 0), 0, 1)
    return film_png(np.rint(gray * 65535).astype(np.uint16)), png(np.rint(gray * 255).astype(np.uint8))


def heat() -> bytes:
    """A map that is red in one place."""
    rgba = np.zeros((7, 7, 4), np.uint8)
    rgba[..., 0] = 255
    rgba[3:5, 1:3, 3] = 200
    return png(rgba)


def png(pixels: Any) -> bytes:
    """The pixels as a PNG."""
    file = io.BytesIO()
    Image.fromarray(pixels).save(file, "PNG", compress_level=1)
    return file.getvalue()


@dataclass(frozen=True)
class Filled:
    """A clinic's day: films in every state, by what is special about them, and the decision just made."""

    films: dict[str, int]
    done: int


def fill(config: Config) -> Filled:
    """A box with a film in every state that a page can show; Amina, who is a lead, has said what she saw on some, and decided.

    A trial has ended, the films of late have changed, and enough films came to tell whether everybody is served alike.
    """
    ready(config)
    person(Path(config.state), "Brahim")
    with closing(open_store(Path(config.state))) as store:

        def put(outcome: Outcome | None, name: str, minutes: float, probability: float = 0.5, **more: Any) -> int:
            return film(config, store, outcome, name, minutes, probability, **more)

        tried(config, store, 24)
        with transaction(store):
            trial.end(config, store, "Amina", now())
            watched(store, Verdict(45, 1350, 0, 0, (ALARM,), CHARTS))
        refused = Outcome.COULD_NOT_ASSESS
        films = {
            "immediate": put(Outcome.IMMEDIATE, "DIALLO^Mariama", 12, 0.86, patient="CL-00411"),
            "routine": put(Outcome.ROUTINE, "OKAFOR^Chinedu", 41, 0.04, patient="CL-00412"),
            "arabic": put(Outcome.SOON, "حسن^ليلى", 305, 0.43, patient="CL-00413"),
            "no-age": put(refused, "MWANGI^Joseph", 25, reason=Reason.AGE_UNKNOWN, patient="CL-00414"),
            "refused": put(refused, "<script>alert(1)</script>", 9, reason=Reason.NOT_FRONTAL, patient="CL-00415"),
            "long-name": put(Outcome.ROUTINE, LONG, 3, 0.2, urgency=Urgency.STAT, patient="CL-00416"),
            "waiting": put(None, "", 1),
            "twin": put(Outcome.ROUTINE, "KAMAU^Grace", 7, 0.1, uid="1.2.3.4"),
            "other": put(Outcome.ROUTINE, "KAMAU^Grace", 6, 0.1, uid="1.2.3.4"),
            "sealed": put(Outcome.SOON, "BA^Awa", 55, 0.61, patient="CL-00418"),
            "decided": put(Outcome.SOON, "SOW^Fatou", 62, 0.55, patient="CL-00419"),
            "asked": put(Outcome.IMMEDIATE, "TRAORE^Ibrahim", 70, 0.91, patient="CL-00420"),
        }
        done = 0
        with transaction(store):
            order = Order(0, "tablet", "Amina", now(), PatientName="DIOP^Awa", PatientID="CL-00421", age_years=51.0)
            orders.register(store, replace(order, procedure="chest_pa", urgency=Urgency.STAT), "registers-a-patient")
            for key in ("sealed", "decided", "asked"):
                reads.add(store, films[key], 1, ReadKind.IMPRESSION, "Amina", now(), f"seen-{key}", codes=("normal",))
            for key, kind, outcome, reason in (
                ("asked", ReadKind.REFER, None, ""),
                ("decided", ReadKind.OVERRIDE, Outcome.ROUTINE, "known"),
            ):
                read, _ = reads.add(
                    store, films[key], 1, kind, "Amina", now(), f"does-{key}", outcome=outcome, reason=reason
                )
                done = read.id
            for key, codes, advice in (
                ("asked", ("pneumothorax",), ("act_now", "send")),
                ("immediate", ("unsure",), ()),
            ):
                returned(store, films[key], codes, advice)
    return Filled(films, done)


def returned(store: Any, number: int, codes: tuple[str, ...], advice: tuple[str, ...]) -> None:
    """A teleradiologist's read of a film has come back, inside the caller's transaction."""
    body = cards.Read(
        case=sync.case(store, number, f"2.25.{number}"),
        read=f"{number:064x}",
        reader="Dr Grace Banda",
        outcome=Outcome.IMMEDIATE if advice else Outcome.COULD_NOT_ASSESS,
        codes=codes,
        advice=advice,
        final=not advice,
        at="2026-11-25T10:00:00Z",
    )
    answer = cards.Answer(epoch="a" * 16, seq=sync.standing(store).upto + 1, body=body)
    sync.take(store, cards.ToBox(epoch="a" * 16, answers=(answer,)), now(), fresh=True)


def ready(config: Config) -> None:
    """A box on its first day: Amina is its lead, no film has come."""
    person(Path(config.state), role=Role.LEAD)
    setup.renew(config)


def fill_little(config: Config) -> None:
    """A box in its first days: a trial runs, and there are too few films to tell anything else."""
    ready(config)
    with closing(open_store(Path(config.state))) as store:
        tried(config, store, 3)
        with transaction(store):
            watched(store, Verdict(3, 12, 27, 288))


def tried(config: Config, store: Any, count: int) -> None:
    """A trial that runs, after so many films; every third has not been decided."""
    with transaction(store):
        acceptances.sign(store, DEVICE, "balanced", "Dr Ba", now())
        trial.register(config, store, "Does the AI’s order help?", Unit.FILM, 40, None, "Amina", now())
    for number in range(count):
        at, uid = now(), f"1.4.{number}"
        sex, outcome = "FM"[number % 2], (Outcome.SOON, Outcome.ROUTINE)[number % 4 // 2]
        came = film(
            config, store, outcome, f"NDIAYE^{number}", 90 + 7 * number, 0.3, uid=uid, patient=f"CL-1{number}", sex=sex
        )
        with transaction(store):
            trial.allocate(config, store, came, uid, at)
            if number % 3:
                seen = at - timedelta(minutes=30 if sex == "M" else 80)
                codes = ("consolidation",)
                reads.add(store, came, 1, ReadKind.IMPRESSION, "Amina", seen, f"saw-{number}", codes=codes, seal="s")
                reads.add(store, came, 1, ReadKind.CONFIRM, "Amina", seen, f"did-{number}", outcome=outcome)


DAY = date(2026, 11, 20)
ALARM = Alarm(DAY, DAY - timedelta(days=3), ("noise", "sharpness"), Cause.DETECTOR, ("One",), (), ())
CHARTS = (
    Chart("noise", (0.1, -0.4, 0.6, 0.2, 2.4, 2.9, 3.4), 1.8),
    Chart("sharpness", (-0.2, 0.5, 0.0, 0.3, 1.4, 1.9, 1.6), 1.2),
    *(Chart(stream, (0.3, -0.6, 0.2, 0.7, -0.1, 0.4, 0.0), 0.2) for stream in ("logit", "level", "contrast", "place")),
)


def watched(store: Any, found: Verdict) -> None:
    """What the watch has made of the days, inside the caller's transaction; the latest has not ended."""
    edges = packet.edges(DEVICE)
    drift.add(store, DAY, edges, {("One", "PA", "adult"): packet.of_read(False)})
    drift.keep(store, edges, DAY, now(), msgspec.json.encode(found).decode())
    if found.alarm is not None:
        notices.post(store, surveillance.PROCESS, words.DRIFT, now())
