"""`outpost enrol`: joins this box to its programme's hub with a one-time code; its keys are made here and stay here."""

from __future__ import annotations

import base64
import re
from contextlib import closing
from datetime import datetime, timedelta
from importlib.metadata import version
from pathlib import Path
from typing import Protocol

import click
import msgspec

from edge import words
from edge.cards import Enrol, Enrolled
from edge.cli import config_of
from edge.config import Config
from edge.errors import Misconfigured, Transient
from edge.link import Lost, Reply
from edge.records import Trouble
from edge.stages import parcel
from edge.stages.parcel import Keys
from edge.state import audit, device, sync
from edge.state.store import now, open_store, transaction

CODE = re.compile(r"\s*([0-9A-Za-z][0-9A-Za-z-]{3,63}?)\s*(?:\.\s*([a-z2-7]{20})\s*)?")
PATH = "/sync/enrol"
EARLIER = timedelta(days=7)
"""How old films may be that the hub is told of though they came before it; of an older one once somebody asks for its read."""


class Asked(Protocol):
    """What carries the question: `edge/wire.py`, or a test."""

    def post(self, path: str, headers: dict[str, str], body: bytes) -> Reply:
        """Hand over a body and wait for the answer. Raises `Lost`."""


def parts(code: str) -> tuple[str, str]:
    """The code as the hub knows it, and the pin of the hub's TLS key, which may be empty. Raises ValueError where it is none."""
    found = CODE.fullmatch(code)
    if found is None:
        raise ValueError("that is no code")
    return found[1], found[2] or ""


def enrol(config: Config, code: str, pin: str, wire: Asked, at: datetime) -> tuple[Enrolled, int]:
    """Ask the hub to know this box, remember what it answers, and file what it shall know of films that came before; says how many.

    Raises `Misconfigured` where the hub refuses the code, `Transient` where it cannot be reached.
    """
    from edge import outside  # brings in pydicom

    state = Path(config.state)
    with closing(open_store(state)) as store:
        keys = Keys(*device.keys(state))
        public = keys.public
        asked = Enrol(code=code, signing=public.signing, sealing=public.sealing, version=version("outpost-cxr"))
        body = msgspec.json.encode(asked)
        headers = {
            "Outpost-Device": public.fingerprint,
            "Outpost-Signature": base64.b64encode(keys.signing.sign(parcel.request("POST", PATH, None, body))).decode(),
        }
        try:
            reply = wire.post(PATH, headers, body)
        except Lost as error:
            sentence, action = words.HUB[error.trouble]
            raise Transient(f"{sentence} ({config.hub.url} {error.detail}) {action}") from None
        if reply.status != 200:
            said = reply.body[:300].decode(errors="replace").strip()
            raise Misconfigured(f"the hub does not take the code (HTTP {reply.status}). {said}")
        try:
            told = msgspec.json.decode(reply.body, type=Enrolled)
        except (msgspec.DecodeError, UnicodeDecodeError):
            raise Misconfigured(" ".join(words.HUB[Trouble.GARBLED])) from None
        with transaction(store):
            device.enrol(store, told, pin, at)
            sync.begin_with(store, told.epoch)
            audit.append(store, audit.Event.ENROLLED, "technician", at, None, site=told.site, hub=config.hub.url)
            earlier = outside.tell_earlier(store, config, at - EARLIER, at)
    return told, earlier


@click.command("enrol")
@click.argument("code")
@click.pass_context
def command(ctx: click.Context, code: str) -> None:
    """Join this box to the hub of the settings (hub.url) with a one-time code; the hub makes one with `outpost hub enrol SITE`."""
    from edge.wire import Wire

    config = config_of(ctx)
    if not config.hub.url:
        raise Misconfigured('no hub in the settings. Write it down first: [hub] url = "https://…"')
    try:
        plain, pin = parts(code)
    except ValueError:
        raise click.BadParameter("type it as the hub printed it, all of it", param_hint="CODE") from None
    with closing(Wire(config.hub, lambda: pin)) as wire:
        told, earlier = enrol(config, plain, pin, wire, now())
    click.echo(f"This box is {told.site} of {told.programme}. What it finds goes there without names, by itself.")
    if earlier:
        click.echo(f"Films of the last {EARLIER.days} days that nobody here has decided go there too: {earlier}.")
