"""Hubs under test, on each of the two backings, and what boxes tell them."""

from __future__ import annotations

import base64
import hashlib
import http.client
import io
import itertools
import os
import re
import signal
import socket
import ssl
import subprocess
import sys
import urllib.request
from collections.abc import Iterator, Sequence
from contextlib import closing, contextmanager
from pathlib import Path
from typing import Any

import msgspec
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from cryptography.hazmat.primitives.asymmetric.x25519 import X25519PrivateKey
from flask import Flask

from edge import cards
from edge.records import Document, Outcome, ReadKind, Urgency
from edge.sinks.dicomweb import multipart
from edge.stages import parcel
from edge.stages.parcel import Keys, Opened, Public
from tests.box import PATIENCE, ROOT, free_port, until
from web.hub import answers, archives, inbox, rollouts, sites
from web.hub import keys as hub_keys
from web.hub.config import Config, Database, Policy, Store
from web.hub.here import NAME, Hub, open_hub
from web.hub.records import Site
from web.hub.store import Store as HubStore
from web.hub.store import now, open_store

PROGRAMME = "lakes"
SITE = Site(programme=PROGRAMME, name="north", title="North clinic", language="en", timezone="UTC", country="MW")
EPOCH = "0" * 16
DATA = bytes(range(256)) * 400
"""Of a picture."""
SHA = hashlib.sha256(DATA).hexdigest()
KEYS = {"AWS_ACCESS_KEY_ID": "test", "AWS_SECRET_ACCESS_KEY": "test"}
"""Of moto's S3 server, which asks for none but wants a signature."""

RESULT = cards.Result(
    case="2.25.1",
    run=1,
    study=None,
    patient="P" + "A" * 16,
    age="050Y",
    sex="F",
    day="2026-01-01",
    view="PA",
    urgency=Urgency.ROUTINE,
    outcome=Outcome.SOON,
    reason=None,
    findings=(),
    model="cxr-lite0 1",
    device_uid="2.25.7",
    operating_point="screening",
    shadow=False,
)


def result(number: int, outcome: Outcome = Outcome.SOON, **other: Any) -> cards.Result:
    """What the AI says of the film of that number."""
    return msgspec.structs.replace(RESULT, case=f"2.25.{number}", outcome=outcome, **other)


def image(number: int, data: bytes, sha256: str) -> cards.Image:
    """That the film of that number has a picture."""
    picture = cards.Picture(
        sha256=sha256, size=len(data), rows=8, columns=8, windows=(), millimetres=None, at_detector=False
    )
    return cards.Image(case=f"2.25.{number}", picture=picture)


def asks(case: str) -> cards.Decided:
    """Somebody at the clinic asks a teleradiologist."""
    return cards.Decided(
        case=case,
        run=1,
        act=ReadKind.REFER,
        outcome=None,
        codes=(),
        reason="",
        reader="R" + "A" * 16,
        before_ai=False,
    )


class Sender:
    """A site's box, as far as the database knows: numbers its events and hands them over."""

    def __init__(self, hub: Hub, site: Site = SITE, epoch: str = EPOCH) -> None:
        self.hub, self.site, self.epoch = hub, site, epoch
        self._numbers = itertools.count(1)
        with hub.store.transaction() as db:
            sites.add_programme(db, site.programme, site.programme)
        with hub.store.transaction(site.programme) as db:
            sites.add(db, site)

    def waited(self, body: cards.Up, seconds: int | None = 0, seq: int | None = None) -> cards.Waited:
        """An event with the next number."""
        number = next(self._numbers) if seq is None else seq
        event = cards.Event(site=self.site.name, epoch=self.epoch, seq=number, body=body)
        return cards.Waited(event=event, seconds=seconds)

    def heard(self, *bodies: cards.Up, at: float) -> tuple[cards.Answer, ...]:
        """The box is heard of, with these events; gives all that it was told until then."""
        with self.hub.store.transaction(self.site.programme) as db:
            events = [self.waited(body) for body in bodies]
            inbox.receive(db, self.site, events, self.hub.rules, at)
            sites.heard(db, self.site.name, at)
            rollouts.advance(db, at, now=any(isinstance(body, cards.Applied) for body in bodies))
            return tuple(answers.since(db, self.site.name, EPOCH, 0, 1000))

    def send(self, *bodies: cards.Up, at: float, seconds: int | None = 0) -> dict[str, list[int]]:
        """Hand events over in one transaction."""
        return self.take(*(self.waited(body, seconds) for body in bodies), at=at)

    def take(self, *events: cards.Waited, at: float) -> dict[str, list[int]]:
        """Hand these over; gives the numbers that are others' at the hub."""
        with self.hub.store.transaction(self.site.programme) as db:
            return inbox.receive(db, self.site, events, self.hub.rules, at)


@contextmanager
def s3() -> Iterator[str]:
    """The address of moto's S3 server, in a process of its own."""
    port = free_port()
    process = subprocess.Popen(
        [sys.executable, "-m", "moto.server", "-H", "127.0.0.1", "-p", str(port)],
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
    )

    def answers() -> bool:
        assert process.poll() is None, "moto's server ended"
        with closing(socket.socket()) as probe:
            return probe.connect_ex(("127.0.0.1", port)) == 0

    try:
        until(answers, "moto's S3 server answers")
        yield f"http://127.0.0.1:{port}"
    finally:
        process.terminate()
        process.wait()


def make_bucket(endpoint: str, name: str) -> Store:
    """The settings of a new bucket."""
    with urllib.request.urlopen(urllib.request.Request(f"{endpoint}/{name}", method="PUT")):
        pass
    return Store(bucket=f"s3://{name}/outpost", endpoint=endpoint)


def settings(folder: Path, policy: Policy | None = None, **other: Any) -> Config:
    """Of a hub below a folder; second reads and audits are not drawn unless a test asks for it."""
    calm = policy or Policy(second_share=0, audit_share=0)
    return Config(state=str(folder), policy=calm, **other)


@contextmanager
def opened(config: Config) -> Iterator[Hub]:
    """A hub, closed at the end."""
    hub = open_hub(config)
    with closing(hub.store):
        yield hub


def code(store: HubStore, at: float | None = None) -> str:
    """A code for the site, as `outpost hub enrol` makes it."""
    with store.transaction() as db:
        sites.add_programme(db, PROGRAMME, "")
    with store.transaction(PROGRAMME) as db:
        sites.add(db, SITE)
    with store.transaction() as db:
        return sites.invite(db, PROGRAMME, SITE.name, now() if at is None else at)


class Courier:
    """A box as the hub meets it: its keys, and requests that it signs."""

    def __init__(self, ask: Any) -> None:
        self.keys = Keys(Ed25519PrivateKey.generate(), X25519PrivateKey.generate())
        self.ask = ask
        self.hub: Public | None = None
        self.site = SITE.name
        self._parcels = 0

    def headers(self, method: str, path: str, offset: int | None = None, body: bytes = b"") -> dict[str, str]:
        """Who asks, signed."""
        signature = self.keys.signing.sign(parcel.request(method, path, offset, body))
        return {
            "Outpost-Device": self.keys.public.fingerprint,
            "Outpost-Signature": base64.b64encode(signature).decode(),
        }

    def enrol(self, code: str) -> tuple[int, bytes]:
        """Use a code; remembers the hub."""
        own = self.keys.public
        asked = cards.Enrol(code=code, signing=own.signing, sealing=own.sealing, version="0.1.0")
        body = cards.canonical(asked)
        status, _, said = self.ask("POST", "/sync/enrol", self.headers("POST", "/sync/enrol", None, body), body)
        if status == 200:
            enrolled = msgspec.json.decode(said, type=cards.Enrolled)
            self.hub = Public(enrolled.signing, enrolled.sealing)
        return status, said

    def sealed(self, *messages: cards.ToHub | cards.Piece, to: Public | None = None) -> bytes:
        """A parcel."""
        self._parcels += 1
        receiver = to or self.hub
        assert receiver is not None
        return b"".join(
            parcel.seal(messages, len(messages), self.keys, receiver, self._parcels.to_bytes(parcel.IDENTIFIER))
        )

    def post(self, body: bytes) -> tuple[int, bytes]:
        """Hand a parcel over."""
        status, _, said = self.ask("POST", "/sync/parcels", self.headers("POST", "/sync/parcels", None, body), body)
        return status, said

    def opened(self, said: bytes) -> cards.ToBox:
        """What the hub answers."""
        assert self.hub is not None
        (message,) = Opened(io.BytesIO(said), self.keys, lambda _: self.hub)  # type: ignore[arg-type,return-value]
        assert isinstance(message, cards.ToBox)
        return message

    def tell(self, *bodies: cards.Up, first: int = 1, **other: Any) -> cards.ToBox:
        """Send events with numbers from `first` on."""
        events = tuple(
            cards.Waited(event=cards.Event(site=self.site, epoch=EPOCH, seq=seq, body=body), seconds=1)
            for seq, body in enumerate(bodies, first)
        )
        status, said = self.post(self.sealed(cards.ToHub(events=events, **other)))
        assert status == 200, said
        return self.opened(said)

    def have(self, sha256: str = SHA) -> tuple[int, int]:
        """Status, and how many bytes the hub has."""
        path = f"/sync/objects/{sha256}"
        status, headers, _ = self.ask("HEAD", path, self.headers("HEAD", path), b"")
        return status, int(headers.get("Upload-Offset", -1))

    def patch(
        self, data: bytes | Iterator[bytes], offset: int, size: int | None = None, sha256: str = SHA
    ) -> tuple[int, int]:
        """Send bytes, in chunks where they come one by one; status, and how many the hub has then."""
        path = f"/sync/objects/{sha256}"
        headers = self.headers("PATCH", path, offset) | {"Upload-Offset": str(offset)}
        headers |= {} if size is None else {"Upload-Length": str(size)}
        headers |= {} if isinstance(data, bytes) else {"Transfer-Encoding": "chunked"}
        status, answer, _ = self.ask("PATCH", path, headers, data)
        return status, int(answer.get("Upload-Offset", -1))


class Archive:
    """An archive next door, which asks for everything that it may have."""

    def __init__(self, app: Flask, name: str = "next-door") -> None:
        self.app = app
        with app.extensions[NAME].store.transaction(PROGRAMME) as db:
            self.token = archives.add(db, name)

    def get(self, path: str, **headers: str) -> Any:
        """An answer."""
        return self.app.test_client().get(path, headers={"Authorization": f"Bearer {self.token}"} | headers)

    def stow(self, *files: bytes, study: str = "", **headers: str) -> Any:
        """The answer to these objects."""
        body, kind = multipart([Document("sent", "application/dicom", "", one) for one in files])
        given = {"Authorization": f"Bearer {self.token}", "Content-Type": kind, "Accept": "application/dicom+json"}
        path = f"/dicom-web/studies/{study}".rstrip("/")
        return self.app.test_client().post(path, data=body, headers=given | headers)

    def everything(self) -> Iterator[Any]:
        """Every answer on every path that an archive may ask, for every study, series and instance that is named in one."""
        known: list[dict[str, str]] = [
            {"kind": one} for one in ("ImagingStudy", "DiagnosticReport", "Observation", "Device")
        ]
        tags = {"0020000D": "study", "0020000E": "series", "00080018": "instance"}
        rules = [one for one in self.app.url_map.iter_rules() if one.rule.startswith(("/dicom-web/", "/fhir/"))]
        for rule in sorted(rules, key=lambda one: (len(one.arguments), one.endpoint)):
            if "GET" not in (rule.methods or ()):
                continue
            path, names = re.sub(r"<(\w+)>", r"{\1}", rule.rule), sorted(rule.arguments - {"frame"})
            asked = {tuple(one[name] for name in names) for one in known if one.keys() >= {*names}}
            for values in sorted(asked):
                answer = self.get(path.format(frame="1", **dict(zip(names, values, strict=True))))
                assert answer.status_code in (200, 206, 404, 503), (path, answer.data)
                yield answer
                if rule.rule == "/fhir/<kind>":
                    known += [
                        {"kind": values[0], "name": one["resource"]["id"]} for one in answer.json.get("entry", ())
                    ]
                for one in answer.json if isinstance(answer.json, list) else ():
                    known.append({kind: one[tag]["Value"][0] for tag, kind in tags.items() if tag in one})


class Served:
    """`outpost hub serve` on a folder; killed and started again the folder stays."""

    def __init__(self, folder: Path, postgresql: str = "") -> None:
        """`postgresql` is the connection string of its database where that is not a file in the folder."""
        self.folder = folder
        self.port = free_port()
        self.config = folder / "hub.toml"
        self.state = folder / "hub"
        self.settings = Config(state=str(self.state), database=Database(postgresql=postgresql))
        self.config.write_text(
            f'state = "{self.state}"\n[web]\nport = {self.port}\n[database]\npostgresql = "{postgresql}"\n'
        )
        self.process: subprocess.Popen[bytes] | None = None
        self._connections: list[http.client.HTTPSConnection] = []

    def start(self, *killer: str) -> None:
        """Start it, under the killer where that is asked for, and wait until it answers or was killed."""
        program: Sequence[str] = ["-m", "edge"]
        if killer:
            program = [str(ROOT / "tests/fault/killer.py"), *killer, "--"]
        self.process = subprocess.Popen(
            [sys.executable, *program, "--config", str(self.config), "hub", "serve"],
            cwd=ROOT,
            env={**os.environ, "PYTHONPATH": str(ROOT)},
            stdout=subprocess.DEVNULL,
        )
        process = self.process

        def answers() -> bool:
            try:
                self.connect().close()
            except OSError:
                return process.poll() is not None
            return True

        until(answers, "the hub answers")

    def connect(self) -> http.client.HTTPSConnection:
        """A connection of a box that knows the hub by its key."""
        trusting = ssl.create_default_context(cafile=self.state / hub_keys.TLS)
        connection = http.client.HTTPSConnection("127.0.0.1", self.port, timeout=PATIENCE, context=trusting)
        self._connections.append(connection)
        connection.connect()
        return connection

    def stop(self, how: int = signal.SIGTERM) -> None:
        """End it."""
        assert self.process is not None
        for connection in self._connections:
            connection.close()
        self.process.send_signal(how)
        self.process.wait(PATIENCE)

    def code(self) -> str:
        """A code for the site."""
        with closing(open_store(self.settings)) as store:
            return code(store)

    def __enter__(self) -> Served:
        self.start()
        return self

    def __exit__(self, *_: object) -> None:
        if self.process is not None and self.process.poll() is None:
            self.stop()


def over(connection: http.client.HTTPSConnection) -> Any:
    """Ask over one connection, which is kept."""

    def ask(method: str, path: str, headers: dict[str, str], body: bytes | Iterator[bytes]) -> tuple[int, Any, bytes]:
        connection.request(method, path, body or None, headers, encode_chunked=not isinstance(body, bytes))
        answer = connection.getresponse()
        return answer.status, answer.headers, answer.read()

    return ask


def replaced(box: Courier, served: Served) -> Courier:
    """The same box on a new connection."""
    other = Courier(over(served.connect()))
    other.keys, other.hub = box.keys, box.hub
    return other
