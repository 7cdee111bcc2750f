"""Hubs under test, on each of the two backings, and what boxes tell them."""

from __future__ import annotations

import itertools
import socket
import subprocess
import sys
import urllib.request
from collections.abc import Iterator
from contextlib import closing, contextmanager
from pathlib import Path
from typing import Any

import msgspec

from edge import cards
from edge.records import Outcome, Urgency
from tests.box import free_port, until
from web.hub import inbox, sites
from web.hub.config import Config, Policy, Store
from web.hub.here import Hub, open_hub
from web.hub.records import Site

PROGRAMME = "lakes"
SITE = Site(programme=PROGRAMME, name="north", title="North clinic", language="en", timezone="UTC", country="MW")
EPOCH = "0" * 16
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
