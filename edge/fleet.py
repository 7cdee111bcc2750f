"""Orders of the programme's hub: other settings, another model, back to the model before; carried out or refused, and said why.

They come as all that a hub says, signed with the key of the box's enrolment, by the network or on a stick. A hub cannot make a box
run what its authorities have not signed, nor an older version than it has, nor rank with what the clinic has not accepted: another
model puts the box into shadow mode by its own rules. What fails leaves everything as it was.
"""

from __future__ import annotations

import hashlib
import logging
import os
import re
import shutil
import sqlite3
import subprocess
import sys
import threading
from collections.abc import Callable
from contextlib import closing, suppress
from pathlib import Path

import msgspec

from edge import authorities, cards, durable, outside, passport
from edge import config as settings
from edge.cards import Applied, Lane, What
from edge.config import Config
from edge.errors import Misconfigured, OutpostError, Tampered
from edge.records import Carried
from edge.state import audit, device, installed, ordered, settled, sync
from edge.state.objects import Objects
from edge.state.ordered import Held
from edge.state.store import changes, now, open_store, transaction
from models import bundle as bundles
from models.bundle import Bundle, Mismatch

log = logging.getLogger(__name__)

LOOK_SECONDS = 1.0
TRIES = 3
"""So often an order may take the process that carries it out down with it."""
MOST_SECONDS = 900
"""A self-test takes seconds, on the smallest board a minute; one that never ends fails."""
TIMES = 3
"""As much room as this many times the model's size is needed: it is there as it came, unpacked, and in its place."""
UNPACKED = "ordered"


def keep(config: Config, store: sqlite3.Connection, held: Held, offset: int, data: bytes) -> None:
    """Put bytes of an ordered model durably where those before end; what is here already, or does not follow, changes nothing."""
    order, path = held.order, _part(config, held)
    have = held.have if path.exists() else 0
    end = min(offset + len(data), order.size)
    if offset <= have < end:
        path.parent.mkdir(parents=True, exist_ok=True)
        handle = os.open(path, os.O_WRONLY | os.O_CREAT, 0o600)
        with os.fdopen(handle, "wb") as file:
            file.truncate(have)  # what lies behind was never said to be here
            file.seek(have)
            file.write(data[have - offset : end - offset])
            file.flush()
            os.fdatasync(handle)
        durable.names(path.parent)
        have = end
    if have != held.have:
        with transaction(store):
            ordered.keep(store, order.order, have)


def step(config: Config, store: sqlite3.Connection) -> bool:
    """Carry out the latest order, if all of it is here; says whether anything came of one."""
    pending, latest = ordered.pending(store), ordered.latest(store)
    for held in pending:
        result, about = Carried.OVERTAKEN, ""
        if latest is not None and held.order == latest.order:
            found = _carry_out(config, store, held)
            if found is None:
                continue
            result, about = found
        _settle(config, store, held, result, about)
        return True
    return False


def refuse(config: Config, store: sqlite3.Connection, held: Held, result: Carried) -> None:
    """Refuse an order whose model does not come."""
    _settle(config, store, held, result, "")


def _settle(config: Config, store: sqlite3.Connection, held: Held, result: Carried, about: str) -> None:
    order, at = held.order, now()
    log.warning("order %s of the hub (%s): %s %s", order.order[:12], order.what, result, about)
    with transaction(store):
        ordered.settle(store, order.order, result, about, at)
        what = {"order": order.order, "what": order.what, "result": str(result), "about": about}
        audit.append(store, audit.Event.ORDERED, "hub", at, None, **what)
        if order.what == What.SETTINGS and result is Carried.DONE:
            settled.note(store, settings.ordered(config), at)
        body = Applied(order=order.order, result=result, about=about)
        sync.tell(store, body, Lane.STATE, at, about=f"applied {order.order}")
        outside.tell_status(store, settings.ordered(config), at)
    if result is not Carried.OVERTAKEN:  # else the same model may be ordered again, and goes on where it stopped
        for part in _part(config, held).parent.glob("*.part"):
            part.unlink()
    shutil.rmtree(_unpacked(config), ignore_errors=True)


def _carry_out(config: Config, store: sqlite3.Connection, held: Held) -> tuple[Carried, str] | None:
    """What comes of an order; None while its model is not all here."""
    hub, order = device.hub(store), held.order
    if hub is None or cards.ordered(hub.site, order) != order:
        return Carried.ELSEWHERE, ""
    match order.what:
        case What.KEEP:
            return Carried.DONE, ""
        case What.SETTINGS:
            return _set(config, order.settings)
        case What.MODEL:
            return _model(config, store, held)
        case What.ROLLBACK:
            return _roll_back(config, store, held), ""
    return Carried.UNKNOWN, ""


def _set(config: Config, values: dict[str, bool | int | float | str]) -> tuple[Carried, str]:
    """Set all of them or none."""
    for key, value in values.items():
        if key not in settings.ORDERABLE:
            return Carried.NOT_ORDERABLE, key
        try:
            config = settings.with_setting(config, key, value)
        except Misconfigured:
            return Carried.BAD_VALUE, key
    before: dict[str, bool | int | float | str] = {}
    with suppress(Misconfigured):  # damaged: what is ordered now mends it
        before = settings.by_hub(config)
    durable.write(Path(config.state) / settings.ORDERED, msgspec.json.encode(before | values))
    return Carried.DONE, ""


def _model(config: Config, store: sqlite3.Connection, held: Held) -> tuple[Carried, str] | None:
    order, path, folder = held.order, _part(config, held), _unpacked(config)
    if config.worker.bundle:
        return Carried.LOCAL_CHOICE, ""
    if held.tries >= TRIES:
        return Carried.SELF_TEST, ""
    room = Objects(Path(config.state)).free_mib() - config.intake.disk_floor_mib
    if room * 2**20 < TIMES * order.size - held.have:
        return Carried.NO_ROOM, ""
    if held.have < order.size:
        return None
    if not path.exists():
        with transaction(store):
            ordered.keep(store, order.order, 0)
        return None
    with path.open("rb") as file:
        if hashlib.file_digest(file, "sha256").hexdigest() != order.sha256:
            return Carried.DAMAGED, ""

    def noted(bundle: Bundle) -> None:
        with transaction(store):
            ordered.try_(store, order.order, bundle.digest)

    return put(config, store, path, folder, noted), ""


def put(
    config: Config, store: sqlite3.Connection, file: Path, folder: Path, before: Callable[[Bundle], Carried | None]
) -> Carried:
    """Put a model that came in one file into use, once it is proven; what comes of it.

    It is unpacked in `folder`, which the caller takes away; `before` is told of it before it is tried, and may refuse it.
    """
    shutil.rmtree(folder, ignore_errors=True)
    try:
        bundles.unpack(file, folder)
    except Mismatch:
        return Carried.NOT_A_BUNDLE
    except OSError:
        return Carried.NO_ROOM
    try:
        bundle = bundles.load(folder)
    except (Mismatch, OSError, ValueError):
        return Carried.NOT_A_BUNDLE
    try:
        authorities.signer(bundle, config)
    except (Mismatch, Misconfigured):
        return Carried.UNSIGNED
    with suppress(Tampered, OSError):  # what is in use cannot be read: any that is proven is better
        used, _uid = passport.at_work(config, store)
        if used.manifest.id == bundle.manifest.id and numbers(bundle.manifest.version) < numbers(used.manifest.version):
            return Carried.OLDER
    if (refused := before(bundle)) is not None:
        return refused
    return Carried.DONE if _run(config, "activate", str(folder)) else Carried.SELF_TEST


def _roll_back(config: Config, store: sqlite3.Connection, held: Held) -> Carried:
    """Once, though the power goes in the middle: a second time would lead forward again."""
    state, shipped = Path(config.state), "shipped"
    if config.worker.bundle:
        return Carried.LOCAL_CHOICE
    choice = installed.choice(state)
    if held.aim and held.aim == (choice.current or shipped):
        return Carried.DONE
    if choice.previous is None:
        return Carried.NOTHING_BEFORE
    if held.tries >= TRIES:
        return Carried.SELF_TEST
    with transaction(store):
        ordered.try_(store, held.order.order, choice.previous or shipped)
    return Carried.DONE if _run(config, "rollback") else Carried.SELF_TEST


def _run(config: Config, *command: str) -> bool:
    """`outpost models …` in a process of its own: a model that brings a runtime down shall not end the courier."""
    file = Path(config.state) / "models.toml"
    settings.save(config, file)
    try:
        done = subprocess.run(
            [sys.executable, "-m", "edge", "--config", str(file), "models", *command],
            stdin=subprocess.DEVNULL,
            capture_output=True,
            timeout=MOST_SECONDS,
            check=False,
        )
    except subprocess.TimeoutExpired:
        log.error("the self-test of a model that was ordered does not end")
        return False
    if done.returncode:
        log.error("the model that was ordered is not used: %s", done.stderr.decode(errors="replace")[-500:])
    return done.returncode == 0


def numbers(version: str) -> tuple[int, ...]:
    """A model's version, to compare."""
    return tuple(map(int, re.findall("[0-9]+", version)))


def _part(config: Config, held: Held) -> Path:
    return Path(config.state) / "models" / f"{held.order.sha256 or 'none'}.part"


def _unpacked(config: Config) -> Path:
    return Path(config.state) / "models" / UNPACKED


def run(config: Config, stop: threading.Event) -> None:
    """Carry out orders until `stop` is set. Whatever goes wrong is tried again."""
    with closing(open_store(Path(config.state))) as store:
        seen = -1
        while not stop.is_set():
            try:
                if (at := changes(store)) != seen:
                    seen = at
                    while step(config, store):
                        pass
            except (OSError, sqlite3.Error, OutpostError):  # a full disk, a lock held for too long
                log.exception("an order of the hub could not be carried out; it is tried again")
                seen = -1
            stop.wait(LOOK_SECONDS)
