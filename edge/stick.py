"""`outpost parcel`: what this box and its hub tell each other, carried on a USB stick: the same parcels, in a file.

A stick may be pulled out too early, come late, twice or not at all: what is whole is taken, what is there already changes nothing,
and nothing counts as sent before the hub's own stick says that it has it.
"""

from __future__ import annotations

import os
import sqlite3
from collections.abc import Iterator
from contextlib import closing
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path

import click

from edge import durable, fleet, words
from edge.cards import Message, Piece, ToBox, ToHub
from edge.cli import config_of
from edge.config import Config
from edge.errors import Misconfigured, Transient, Unreadable
from edge.records import Fault, Sha256
from edge.stages import parcel
from edge.stages.parcel import Keys, Opened, Public
from edge.state import device, ordered, sync
from edge.state.objects import Objects
from edge.state.store import now, open_store, transaction

SUFFIX = ".outpost"
ROOM = 256 * 1024
"""Bytes of the events in one section, before they are deflated."""


@dataclass(frozen=True)
class Written:
    """What was put on a stick."""

    path: Path
    events: int
    films: int
    size: int


@dataclass(frozen=True)
class Taken:
    """What was taken from one."""

    sections: int
    reads: int
    """Teleradiologists' reads that were not here yet."""
    fault: Fault | None


def export(config: Config, to: Path, at: datetime) -> Written:
    """Write what the hub has not got to a file, or into a folder, durably.

    Raises `Misconfigured` where the box has no hub, `Transient` where the stick is full or away; nothing is lost then.
    """
    with closing(open_store(Path(config.state))) as store:
        hub = _hub(store)
        keys = Keys(*device.keys(Path(config.state)))
        identifier = os.urandom(parcel.IDENTIFIER)
        path = to / f"{hub.site}-{at:%Y%m%d}-{identifier.hex()[:8]}{SUFFIX}" if to.is_dir() else to
        batches = list(_batches(store, at))
        with transaction(store):
            for batch in batches:
                sync.leave(store, batch, identifier.hex())
        stood = sync.standing(store)
        parts = sync.parts(store, whole=config.hub.whole_films)
        pieces = [
            (part, offset)
            for part in parts
            for offset in range(part.offset, part.upto, parcel.PIECE)
            if Objects(Path(config.state)).path(Sha256(part.sha256)).exists()
        ]

        def contents() -> Iterator[Message | Piece]:
            for batch in batches or [[]]:
                yield ToHub(
                    events=tuple(one.waited(hub.site, at) for one in batch),
                    hub_epoch=stood.hub_epoch,
                    upto=stood.upto,
                    chain=stood.chain,
                )
            for part, offset in pieces:
                with Objects(Path(config.state)).path(Sha256(part.sha256)).open("rb") as file:
                    file.seek(offset)
                    data = file.read(min(parcel.PIECE, part.upto - offset))
                yield Piece(sha256=part.sha256, size=part.size, offset=offset, data=data)

        count = max(len(batches), 1) + len(pieces)
        receiver = Public(hub.signing, hub.sealing)
        size = _write(path, parcel.seal(contents(), count, keys, receiver, identifier))
        return Written(path, sum(map(len, batches)), len({part.sha256 for part, _ in pieces}), size)


def _batches(store: sqlite3.Connection, at: datetime) -> Iterator[list[sync.Filed]]:
    """All events that the hub has not got, in portions that fit a section."""
    batch: list[sync.Filed] = []
    size = 0
    for one in sync.events(store, at, 2**62):
        length = len(sync.text(one.body))
        if batch and size + length > ROOM:
            yield batch
            batch, size = [], 0
        batch.append(one)
        size += length
    if batch:
        yield batch


def _write(path: Path, parts: Iterator[bytes]) -> int:
    partial = path.with_name(path.name + ".part")
    size = 0
    try:
        try:
            with partial.open("wb") as file:
                for part in parts:
                    size += file.write(part)
                file.flush()
                os.fsync(file.fileno())
            partial.rename(path)
            durable.names(path.parent)
        finally:
            partial.unlink(missing_ok=True)
    except OSError as error:
        raise Transient(
            f"{path}: {error.strerror}. Take a stick with more room, or put this one in again, and export once more; "
            "nothing is lost."
        ) from None
    return size


def take(config: Config, path: Path, at: datetime) -> Taken:
    """Take in what the hub has put into a file; the same again changes nothing.

    Raises `Misconfigured` where the box has no hub, `Unreadable` where nothing of the file could be taken.
    """
    with closing(open_store(Path(config.state))) as store:
        hub = _hub(store)
        known = Public(hub.signing, hub.sealing)
        before = len(sync.reads(store))
        try:
            with path.open("rb") as file:
                opened = Opened(
                    file,
                    Keys(*device.keys(Path(config.state))),
                    lambda who: known if who == known.fingerprint else Fault.UNKNOWN_SENDER,
                )
                for content in opened:
                    if isinstance(content, ToBox):
                        with transaction(store):
                            sync.take(store, content, at, fresh=False)
                    elif (model := ordered.wanted(store)) is not None and isinstance(content, Piece):
                        about = (content.sha256, content.size)
                        if about == (model.order.sha256, model.order.size):
                            fleet.keep(config, store, model, content.offset, content.data)
        except OSError as error:
            raise Unreadable(f"{path}: {error.strerror}. Put the stick in again.") from None
        if opened.fault is not None and not opened.taken:
            raise Unreadable(f"{path.name}: {' '.join(words.FAULTS[opened.fault])}")
        return Taken(opened.taken, len(sync.reads(store)) - before, opened.fault)


def _hub(store: sqlite3.Connection) -> device.Hub:
    hub = device.hub(store)
    if hub is None:
        raise Misconfigured("the box belongs to no hub yet. Enrol it first: outpost enrol CODE")
    return hub


@click.group("parcel")
def commands() -> None:
    """Carry what box and hub tell each other on a USB stick."""


@commands.command("export")
@click.argument("path", type=click.Path(path_type=Path))
@click.pass_context
def export_(ctx: click.Context, path: Path) -> None:
    """Write what the hub has not got to PATH, a stick's folder or a file."""
    made = export(config_of(ctx), path, now())
    click.echo(
        f"{made.path}: {made.events} events, {made.films} films, {made.size / 2**20:.1f} MiB. Wait until the stick is safely"
        " ejected. It counts as sent once the hub's own stick has come back."
    )


@commands.command("import")
@click.argument("path", type=click.Path(path_type=Path, exists=True))
@click.pass_context
def import_(ctx: click.Context, path: Path) -> None:
    """Take in what the hub has put into PATH, a file or a stick's folder; twice changes nothing."""
    config, whole = config_of(ctx), True
    found = sorted(path.glob(f"*{SUFFIX}")) if path.is_dir() else [path]
    if not found:
        raise Unreadable(f"{path}: there is no file *{SUFFIX} on it. Have the hub export one.")
    for file in found:
        try:
            taken = take(config, file, now())
        except Unreadable as error:
            click.echo(f"✘ {error}", err=True)
            whole = False
            continue
        click.echo(f"✔ {file.name}: {taken.sections} sections, {taken.reads} new reads")
        if taken.fault is not None:
            click.echo(f"✘ {file.name}: {' '.join(words.FAULTS[taken.fault])}", err=True)
            whole = False
    ctx.exit(0 if whole else Unreadable.exit_status)
