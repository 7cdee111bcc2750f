"""A hub under test: clinics, films and readers put in by hand, and its pages served for a browser."""

from __future__ import annotations

import base64
import hashlib
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from functools import lru_cache
from typing import Any

import msgspec
import numpy as np
from cryptography import x509
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat
from flask import Flask

from edge import cards
from edge.records import Concern, Outcome, Reason
from models import phantom
from tests.hub import RESULT, asks
from tests.people import PIN as PIN
from tests.people import SECRET
from web import server
from web.hub import accounts, app, films, here, inbox, instances, people, serve, sites, taken, totp
from web.hub.accounts import Account, Role
from web.hub.config import Config
from web.hub.records import Case, Site, Taken, TaskKind
from web.hub.store import now

PROGRAMME = "lakes"
EPOCH = "00000000000000aa"
KINDS = (TaskKind.FIRST, TaskKind.SECOND, TaskKind.ARBITRATION, TaskKind.AUDIT)
SITES = (
    Site(programme=PROGRAMME, name="north", title="North clinic", language="en", timezone="UTC", country="KE"),
    Site(programme=PROGRAMME, name="south", title="عيادة الجنوب", language="ar", timezone="UTC", country="SD"),
)
TOTP = totp.new_secret()
PATIENT = "PA234567A234567AA"
"""One with two films."""
STATUS = cards.Status(
    version="0.1.0",
    model="demonstrator 1.0",
    bundle="ab" * 32,
    device_uid="2.25.1",
    accepted=True,
    runtime="onnx",
    drift="quiet",
    disk_free_mib=90_000,
    disk_free_percent=70,
    films=400,
    unsent=3,
    unsent_hours=2,
    clock="synchronized",
    degrees=55,
    backup_days=3,
    notices=(),
)
"""Of a box with which all is well."""


@dataclass
class Hub:
    """A hub, and what was put into it."""

    app: Flask
    config: Config
    url: str = ""
    seq: int = 0

    @property
    def held(self) -> here.Hub:
        held = self.app.extensions[here.NAME]
        assert isinstance(held, here.Hub)
        return held

    def says(self, site: str, *bodies: Any, waited: int = 0) -> None:
        """A clinic's box sends events."""
        events = []
        for body in bodies:
            self.seq += 1
            event = cards.Event(site=site, epoch=EPOCH, seq=self.seq, body=body)
            events.append(cards.Waited(event=event, seconds=waited))
        with self.held.store.transaction(PROGRAMME) as db:
            found = sites.get(db, site)
            assert found is not None
            inbox.receive(db, found, events, self.held.rules, now())

    def film(
        self,
        outcome: Outcome = Outcome.ROUTINE,
        site: str = "north",
        waited: int = 600,
        have: int | None = None,
        stream: bytes | None = None,
        shape: tuple[int, int] = (720, 600),
        concern: Concern | None = None,
        **changes: Any,
    ) -> int:
        """A film that a clinic sent, of whose picture so many bytes are here; all of them unless it is said."""
        uid = f"2.25.{100_000 + self.seq}"
        result = msgspec.structs.replace(
            RESULT,
            case=uid,
            patient="P" + base64.b32encode(uid.encode()).decode()[-16:].replace("=", "A"),
            age="034Y",
            day="2026-11-20",
            outcome=outcome,
            reason=Reason.NOT_FRONTAL if outcome is Outcome.COULD_NOT_ASSESS else None,
            findings=()
            if outcome is Outcome.COULD_NOT_ASSESS
            else (
                cards.Likelihood(
                    finding="pneumonia", scheme="SCT", code="233604007", probability=0.81, low=0.7, high=0.9
                ),
            ),
            model="demonstrator 1.0",
            device_uid="2.25.1",
            operating_point="balanced",
            saliency=cards.Saliency(finding="pneumonia", columns=3, cells=bytes([0, 0, 90, 0, 200, 90, 0, 0, 0])),
        )
        picture: Any = cards.StaysHome(case=uid, concern=concern) if concern else None
        if stream is not None:
            sha256 = hashlib.sha256(stream + uid.encode()).hexdigest()  # the same film twice is two objects here
            picture = cards.Image(
                case=uid,
                picture=cards.Picture(
                    sha256=sha256,
                    size=len(stream),
                    rows=shape[0],
                    columns=shape[1],
                    windows=((32768.0, 65535.0),),
                    millimetres=0.2,
                    at_detector=True,
                ),
            )
        self.says(site, msgspec.structs.replace(result, **changes), *([picture] if picture else []), waited=waited)
        with self.held.store.reading(PROGRAMME) as db:
            row = db.row("SELECT id FROM film WHERE programme = :programme AND case_uid = :uid", uid=uid)
        assert row is not None
        if stream is not None:
            self.more(int(row["id"]), stream, len(stream) if have is None else have)
        return int(row["id"])

    def more(self, film: int, stream: bytes, upto: int) -> None:
        """The clinic has sent the film's picture up to this byte."""
        with self.held.store.transaction(PROGRAMME) as db:
            case = films.case(db, film)
            assert case is not None and case.picture is not None
            self.held.blobs.write(f"{PROGRAMME}/{case.picture.sha256}", case.have, stream[case.have : upto])
            films.moved(db, case.picture.sha256, case.have, upto)

    def task(self, film: int, kind: TaskKind = TaskKind.FIRST) -> int:
        """The number of a film's task."""
        with self.held.store.reading(PROGRAMME) as db:
            row = db.row(
                "SELECT id FROM task WHERE programme = :programme AND film = :film AND kind = :kind",
                film=film,
                kind=kind.value,
            )
        assert row is not None
        return int(row["id"])

    def person(self, name: str = "Dr Ba", role: Role = Role.READER, language: str = "en", **rights: Any) -> Account:
        """An account with the pass phrase of the tests, if there is none of that name."""
        account = Account(
            name=name, programme=PROGRAMME, role=role, language=language, kinds=KINDS, secret=SECRET, totp=TOTP
        )
        account = msgspec.structs.replace(account, **rights)
        if account.totp:
            sealed = self.held.seal.close(account.totp, accounts.folded(name))
            account = msgspec.structs.replace(account, totp=sealed)
        with self.held.store.transaction() as db:
            accounts.add(db, account)
        return account

    def token(self, name: str = "Dr Ba", role: Role = Role.READER, language: str = "en", **rights: Any) -> str:
        """The session of a person."""
        self.person(name, role, language, **rights)
        with self.held.store.transaction() as db:
            return accounts.start(db, name, now())

    def came(self, case: Case, *modalities: str) -> None:
        """An archive sends something of each of these kinds about a film."""
        with self.held.store.transaction(PROGRAMME) as db:
            for one in modalities:
                sent = Taken(
                    uid=f"2.25.{case.id}{ord(one[0])}",
                    study=instances.study(case),
                    series="2.25.9",
                    class_uid="",
                    modality=one,
                    sha256="0" * 64,
                    size=1,
                    came=one,
                    archive="next-door",
                    received_at=now(),
                )
                assert taken.keep(db, sent)

    def client(self, name: str = "Dr Ba", role: Role = Role.READER, **rights: Any) -> Any:
        """A browser without its looks, in which a person is signed in."""
        client = self.app.test_client()
        client.set_cookie(people.SESSION, self.token(name, role, **rights))
        return client

    def cookies(self, name: str = "Dr Ba", role: Role = Role.READER, language: str = "en", **rights: Any) -> list[Any]:
        """The session of a person, for a browser's context."""
        return [{"name": people.SESSION, "value": self.token(name, role, language, **rights), "url": self.url}]


def made(config: Config) -> Hub:
    """A hub with two clinics."""
    hub = Hub(app.create(config), config)
    with hub.held.store.transaction() as db:
        sites.add_programme(db, PROGRAMME, "Lakes")
    with hub.held.store.transaction(PROGRAMME) as db:
        for site in SITES:
            sites.add(db, site)
    return hub


def trusted(config: Config) -> str:
    """By what a browser trusts a hub that no authority vouches for: the hash of its TLS key."""
    read = x509.load_pem_x509_certificate(serve.certificate(config).read_bytes())
    key = read.public_key().public_bytes(Encoding.DER, PublicFormat.SubjectPublicKeyInfo)
    return base64.b64encode(hashlib.sha256(key).digest()).decode()


@contextmanager
def serving(hub: Hub) -> Iterator[Hub]:
    """Serve a hub's pages as it does itself, until the block ends."""
    stop, ready, ports = threading.Event(), threading.Event(), list[int]()

    def listening(port: int) -> None:
        ports.append(port)
        ready.set()

    tls = serve.Tls(serve.certificate(hub.config))
    where = (hub.app, "web.port", "127.0.0.1", 0, stop, listening, tls)
    thread = threading.Thread(target=server.serve, args=where, kwargs={"threads": 8})
    thread.start()
    try:
        assert ready.wait(60)
        hub.url = f"https://127.0.0.1:{ports[0]}"
        yield hub
    finally:
        stop.set()
        thread.join()


def pages(app: Flask) -> list[str]:
    """Every page of its own that a lead may open, found from the application itself."""
    found = []
    for rule in app.url_map.iter_rules():
        page = app.view_functions[rule.endpoint]
        own = "GET" in (rule.methods or ()) and not rule.arguments and not getattr(page, "part", True)
        if own and Role.LEAD in getattr(page, "roles", ()):
            found.append(rule.rule)
    return sorted(found)


def code(at: float | None = None) -> str:
    """What the authenticator app of every person of the tests shows."""
    return totp.code(base64.b32decode(TOTP), int((time.time() if at is None else at) // totp.STEP_SECONDS))


@lru_cache(maxsize=8)
def stream(seed: int = 0, shape: tuple[int, int] = (720, 600)) -> bytes:
    """A film's codestream, as a box makes it."""
    import imagecodecs

    gray = np.clip(phantom.chest(seed, shape, opacity=seed % 2 == 0), 0, 1) * 60000
    noise = np.random.default_rng(seed).normal(0, 60, shape)
    return bytes(imagecodecs.htj2k_encode(np.clip(np.rint(gray + noise), 0, 65535).astype(np.uint16)))


def fill(hub: Hub) -> dict[str, int]:
    """A film in every state that a page can show; Dr Ba has read some."""
    picture = stream(0)
    found = {
        "immediate": hub.film(Outcome.IMMEDIATE, waited=900, stream=picture, patient=PATIENT),
        "earlier": hub.film(
            waited=50_000, stream=stream(2, (600, 500)), shape=(600, 500), patient=PATIENT, day="2026-10-16"
        ),
        "routine": hub.film(Outcome.ROUTINE, waited=40_000, stream=stream(1)),
        "refused": hub.film(Outcome.COULD_NOT_ASSESS, waited=5_000, stream=picture),
        "prefix": hub.film(Outcome.SOON, waited=2_000, stream=picture, have=32 * 1024),
        "home": hub.film(Outcome.SOON, waited=1_500, concern=Concern.TEXT_REMAINS),
        "coming": hub.film(Outcome.SOON, site="south", waited=700),
        "asked": hub.film(Outcome.ROUTINE, site="south", waited=300, stream=stream(1)),
    }
    with hub.held.store.reading(PROGRAMME) as db:
        asked = films.case(db, found["asked"])
        shown = films.case(db, found["immediate"])
    assert asked is not None and shown is not None
    hub.came(shown, "SR", "KO", "PR")
    hub.says("south", asks(asked.result.case))
    hub.says("north", STATUS)
    return found
