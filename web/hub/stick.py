"""The courier without a network: what a box has put on a stick is taken in, and what it shall be told is put on one."""

from __future__ import annotations

import os
import secrets
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import msgspec

from edge import durable
from edge.cards import Piece, ToBox, ToHub
from edge.errors import Misconfigured
from edge.stages import parcel
from edge.stages.parcel import Fault, Opened, Public
from web.hub import answers, films, inbox, objects, rollouts, sites, sync
from web.hub.here import Hub
from web.hub.records import Device
from web.hub.store import now

MOST = 10_000
"""Answers on one stick."""


@dataclass(frozen=True)
class Came:
    """What was on a stick."""

    site: str
    events: int
    pieces: int
    new: int
    """Bytes of pictures that were not here yet."""
    fault: Fault | None
    """Why not all of it was taken."""


def take(hub: Hub, file: Path) -> Came:
    """Take a box's parcel in, section by section; of half a stick, the whole sections. Raises `Misconfigured` where nothing is."""
    device: Device | None = None

    def known(fingerprint: str) -> Public | Fault:
        nonlocal device
        with hub.store.reading() as db:
            device = sites.device(db, fingerprint)
        if device is None:
            return Fault.UNKNOWN_SENDER
        return Fault.REVOKED if device.revoked_at is not None else device.public

    events = pieces = new = 0
    differs: dict[str, tuple[int, ...]] = {}
    spoken: set[str] = set()
    with file.open("rb") as opened_file:
        opened = Opened(opened_file, hub.keys, known)
        if opened.fault is not None or device is None or opened.header is None:
            raise Misconfigured(f"{file}: {sync.SENTENCES[opened.fault or Fault.NOT_A_PARCEL]}")
        identifier = opened.header.identifier
        for content in opened:
            if isinstance(content, ToHub):
                if any(one.event.site != device.site for one in content.events):
                    raise Misconfigured(f"{file}: it speaks for another site than its box belongs to.")
                told = sync.take(hub, device, [content], identifier)
                differs |= {epoch: (*differs.get(epoch, ()), *seqs) for epoch, seqs in told.differs.items()}
                events += len(content.events)
                spoken |= {*told.objects}
            elif isinstance(content, Piece):
                before = _have(hub, device, content.sha256)
                _, after = objects.piece(hub, device, content)
                pieces, new = pieces + 1, new + max(0, after - before)
                spoken.add(content.sha256)
    with hub.store.transaction(device.programme) as db:
        sites.took_stick(db, device.site, identifier, differs, spoken, now())
    return Came(device.site, events, pieces, new, opened.fault)


def give(hub: Hub, programme: str, site: str, file: Path) -> int:
    """Write a parcel for a site's box, durably and whole; gives how many answers are in it. Raises `Misconfigured`."""
    with hub.store.reading() as db:
        device = next((one for one in sites.devices(db, programme, site) if one.revoked_at is None), None)
    if device is None:
        raise Misconfigured(f"No box is enrolled at {site}. `outpost hub sites` lists them.")
    with hub.store.reading(programme) as db:
        epoch = sites.epoch(db, site)
        told_epoch, upto = sites.was_told(db, site)
        identifiers, differs, spoken = sites.sticks(db, site)
        said = ToBox(
            epoch=epoch,
            answers_to=identifiers,
            had=inbox.had(db, site),
            differs=differs,
            objects={sha256: (films.size(db, site, sha256) or (0, 0))[1] for sha256 in spoken},
        )
        told = answers.since(db, site, epoch, upto if told_epoch == epoch else 0, MOST)
        model = rollouts.wanted(db, site)
    batches = [tuple(told[start : start + answers.AT_ONCE]) for start in range(0, len(told), answers.AT_ONCE)]
    messages = [msgspec.structs.replace(said, answers=batch) for batch in batches or [()]]
    starts = range(0, 0 if model is None else model.size, parcel.PIECE)

    def contents() -> Iterator[ToBox | Piece]:
        yield from messages
        for start in starts:
            assert model is not None
            data = hub.blobs.read(f"{programme}/{model.sha256}", start, min(start + parcel.PIECE, model.size))
            yield Piece(sha256=model.sha256, size=model.size, offset=start, data=data)

    fresh = file.with_name(f"{file.name}.new")
    try:
        with fresh.open("wb") as written:
            identifier = secrets.token_bytes(parcel.IDENTIFIER)
            for part in parcel.seal(contents(), len(messages) + len(starts), hub.keys, device.public, identifier):
                written.write(part)
            written.flush()
            os.fsync(written.fileno())
        fresh.rename(file)
        durable.names(file.parent)
    except OSError as error:
        raise Misconfigured(f"{file} cannot be written ({error.strerror}).") from None
    return len(told)


def _have(hub: Hub, device: Device, sha256: str) -> int:
    with hub.store.reading(device.programme) as db:
        return (films.size(db, device.site, sha256) or (0, 0))[1]
