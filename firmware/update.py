"""`outpost update`: another system into the other slot, and whether the one that runs may stay, once it has shown that it works;
and a newer model (`model.py`).

Two chains of trust, one rule: TUF decides what may be installed (`releases.py`), RAUC holds the system itself to the authority that
this box was made with (`bundle.py`); a box of the release authority takes nothing from the development authority.
"""

from __future__ import annotations

import os
import re
import sys
from collections.abc import Callable, Iterator
from contextlib import closing, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING
from zoneinfo import ZoneInfo

import click
import msgspec

from edge import check, durable, words
from edge.cli import config_of
from edge.config import Config
from edge.errors import Misconfigured, OutpostError, Tampered
from edge.records import Update
from edge.state import notices, updates
from edge.state.store import alone, now, open_store, transaction
from firmware import blockmap, bundle, card, slots

if TYPE_CHECKING:
    from firmware.releases import Releases

FILE = click.Path(path_type=Path, dir_okay=False)
VARIABLES = Path("/efi/EFI/outpost/grubenv")
COMMAND_LINE = Path("/proc/cmdline")
TRUST = Path("/usr/share/outpost")
"""What the image was made with: its board and version (`release`), TUF's root and RAUC's keyring."""
SLOTS = Path("/dev/disk/by-partlabel")
NEEDED: tuple[Callable[[Config], str], ...] = (check.state, check.clock, check.certificate, check.model)
"""What has to work before a slot is good; not what lies with the site: a full disk, a PACS that is away."""
NUMBERED = re.compile(r"\d+\.\d+\.\d+")

variables = click.option("--variables", type=FILE, default=VARIABLES, hidden=True)
command_line = click.option("--command-line", type=FILE, default=COMMAND_LINE, hidden=True)
trust = click.option("--trust", type=click.Path(path_type=Path), default=TRUST, hidden=True)


class Release(msgspec.Struct, frozen=True):
    """What an image says of itself, in `release`."""

    board: str
    version: str


@dataclass(frozen=True)
class Box:
    """The slots of this box, and what it believes."""

    run: str
    own: Path
    other: Path
    variables: Path
    trust: Path
    state: Path

    @property
    def release(self) -> Release:
        """Which release runs. Raises `Misconfigured` for an image without an authority."""
        try:
            return msgspec.json.decode((self.trust / "release").read_bytes(), type=Release)
        except (OSError, msgspec.DecodeError):
            raise Misconfigured(
                "this system was made without an authority, so it takes no updates. Flash a released image."
            ) from None


@click.group()
def update() -> None:
    """The two slots of this box, and which one runs."""


@update.command()
@variables
@command_line
@click.pass_context
def status(ctx: click.Context, variables: Path, command_line: Path) -> None:
    """Say which slot runs, how the other one is, and what came of the last update."""
    run = slots.running(command_line.read_text())
    told = slots.parse(variables.read_bytes())
    record = updates.read(Path(config_of(ctx).state))
    for slot in slots.NAMES:
        good, tried = told.get(f"{slot}_OK") == "1", told.get(f"{slot}_TRY") == "1"
        how = "good" if good and not tried else "started, not yet shown to work" if good else "not to be started"
        held = f"  {record.slots[slot]}" if slot in record.slots else ""
        click.echo(f"{'*' if slot == run else ' '} {slot}  {how}{held}")
    if record.state is not None:
        click.echo(_sentence(words.UPDATES, record.state, record.version))
    if record.model is not None:
        click.echo(_sentence(words.MODELS, record.model, record.model_version))


@update.command()
@click.argument("source", default="")
@variables
@command_line
@trust
@click.option("--slots", "devices", type=click.Path(path_type=Path), default=SLOTS, hidden=True)
@click.pass_context
def install(ctx: click.Context, source: str, variables: Path, command_line: Path, trust: Path, devices: Path) -> None:
    """Put the release of SOURCE, a stick's folder or a mirror's address, into the other slot. It starts when the box does.

    A newer model is tried and put into use at once; it ranks once it has been accepted here.
    Without SOURCE the mirror of the settings is asked, outside the hours in which the link is kept for what is urgent.
    Cut at any point, the box runs as before; started again it goes on where it was.
    """
    config = config_of(ctx)
    state = Path(config.state)
    if not source:
        if not config.update.mirror:
            click.echo("the settings name no mirror (update.mirror): releases come by stick")
            return
        if config.hub.is_metered(now().astimezone(ZoneInfo(config.site.timezone)).time()):
            click.echo("not now: in these hours the link is kept for what is urgent (hub.metered)")
            return
        source = config.update.mirror
    run = slots.running(command_line.read_text())
    own, other = (devices / f"outpost-{one.lower()}" for one in (run, slots.other(run)))
    box = Box(run, own, other, variables, trust, state)
    durable.folder(state / updates.FOLDER)
    try:
        with alone(state / updates.FOLDER):  # a stick and the mirror at once
            refused = _install(config, box, source)
    except OutpostError:
        _is_cut(state)
        raise
    if refused:
        raise Tampered(" ".join(refused))


def _install(config: Config, box: Box, source: str) -> list[str]:
    """Take what a source has for this box; what was refused of it, in words. Raises `Transient` where something did not come."""
    from firmware import model
    from firmware.releases import Releases  # TUF is heavy, and a box that only says how it is needs none

    mine, folder = box.release, box.state / updates.FOLDER
    late: OutpostError | None = None
    came, version = None, ""
    with closing(Releases(source, folder, (box.trust / "root.json").read_bytes())) as found:
        if (trouble := found.look()) is not None:
            return _settle(box, trouble, "")
        try:
            came, version = _system(box, found)
            refused = _settle(box, came, version)
        except OutpostError as error:  # the model may come all the same
            late = error
        model_came, model_version = model.take(config, found, mine.version, _bar)
    if late is not None:
        raise late
    if not version and not model_version:
        return _settle(box, Update.FORGED, "")
    return refused + _said(words.MODELS, model_came, model_version, Update.GOOD)


def _is_cut(state: Path) -> None:
    """Note that what was begun has not come to its end."""
    record = updates.read(state)
    if record.state is Update.BEGUN:
        record = msgspec.structs.replace(record, state=Update.CUT, at=now())
    if record.model is Update.BEGUN:
        record = msgspec.structs.replace(record, model=Update.CUT)
    if Update.CUT in (record.state, record.model):
        updates.write(state, record)


def _settle(box: Box, came: Update | None, version: str) -> list[str]:
    """Note what came of the system, and say it; gives back what was refused, in words."""
    record = updates.read(box.state)
    if came is None and version:
        click.echo(f"version {version} runs already: nothing to do")
        if record.state not in (None, Update.READY, Update.FALLEN):
            updates.write(box.state, msgspec.structs.replace(record, state=Update.GOOD, version=version))
    elif came is not None:
        kept = msgspec.structs.replace(record, state=came, version=version, at=now())
        if came is Update.READY:
            held = {**record.slots, slots.other(box.run): version, box.run: box.release.version}
            kept = msgspec.structs.replace(kept, slots=held)
        if came is Update.READY or record.state is not Update.READY:  # what waits for the next start is not forgotten
            updates.write(box.state, kept)
    return _said(words.UPDATES, came, version, Update.READY)


def _said(said: dict[Update, tuple[str, str]], came: Update | None, version: str, well: Update) -> list[str]:
    """Say what went well; gives back what did not, in words."""
    if came is None:
        return []
    sentence = _sentence(said, came, version)
    if came is not well:
        return [sentence]
    click.echo(f"✔ {sentence}")
    return []


def _system(box: Box, found: Releases) -> tuple[Update | None, str]:
    """What comes of the system that is released, and its version; None where there is nothing new for this box."""
    mine = box.release
    offer = found.system(mine.board)
    if offer is None:
        return None, ""
    version = offer.version
    if NUMBERED.fullmatch(version) is None:
        return Update.FORGED, ""
    if version == mine.version:
        return None, version
    if _number(version) < _number(mine.version):
        return Update.OLDER, version
    record = updates.read(box.state)
    if version in record.rejected:
        return Update.FAILED_BEFORE, version
    if record.state is Update.READY and record.version == version:
        return Update.READY, version
    updates.write(box.state, msgspec.structs.replace(record, state=Update.BEGUN, version=version, at=now()))
    with _bar("Fetching", offer.size) as progress:
        path = found.fetch(offer, progress, box.own)
    if isinstance(path, Update):
        return path, version
    with bundle.unpacked(path, box.trust / "keyring.pem") as content:
        if content is None or content.told != bundle.Told(f"outpost-{mine.board}", version):
            path.unlink()
            return Update.FORGED, version
        other = slots.other(box.run)
        slots.change(box.variables, **{f"{other}_OK": "0", f"{other}_TRY": "0", "ORDER": f"{box.run} {other}"})
        _write(content, box.other)
    path.unlink()
    slots.change(box.variables, **{f"{other}_OK": "1", f"{other}_TRY": "0", "ORDER": f"{other} {box.run}"})
    return Update.READY, version


def _write(content: bundle.Content, slot: Path) -> None:
    """Write a system into a slot and read it back; the block that says what is there comes last."""
    size = content.system.stat().st_size
    mapped = blockmap.make(content.system, [(0, size)])  # what a hole stands for has to be written too
    with card.opened(slot, size + bundle.BLOCK) as handle:
        end = os.lseek(handle, 0, os.SEEK_END) - bundle.BLOCK
        os.pwrite(handle, bytes(bundle.BLOCK), end)
        with _bar("Writing", size) as progress:
            head = card.write(content.system, mapped, handle, progress)
        card.start(handle, head)
        with _bar("Reading back", size) as progress:
            card.read_back(slot, mapped.ranges, progress)
        os.pwrite(handle, content.last, end)
        os.fsync(handle)


def _number(version: str) -> tuple[int, ...]:
    return tuple(map(int, version.split(".")))


def _sentence(said: dict[Update, tuple[str, str]], state: Update, version: str) -> str:
    sentence, action = said[state]
    return f"{sentence % {'version': version or '?'}} {action}"


@contextmanager
def _bar(label: str, length: int) -> Iterator[card.Progress]:
    with click.progressbar(length=length, label=f"{label:<13}", file=sys.stderr, show_pos=False) as bar:
        yield bar.update


@update.command()
@variables
@command_line
@click.pass_context
def good(ctx: click.Context, variables: Path, command_line: Path) -> None:
    """See whether this slot works on this box, the model's self-test included, and keep it if it does.

    Where it does not, the exit status is 1 and the slot stays on trial: the next start is from the other slot.
    """
    config, run = config_of(ctx), slots.running(command_line.read_text())
    other, told = slots.other(run), slots.parse(variables.read_bytes())
    for one in NEEDED:
        try:
            click.echo(f"✔ {one.__name__:<11} {one(config)}")
        except OutpostError as error:
            click.echo(f"✘ {one.__name__:<11} {error}")
            ctx.exit(1)
    fallen = told.get(f"{other}_OK") == "1" and told.get(f"{other}_TRY") == "1"
    values = {f"{run}_OK": "1", f"{run}_TRY": "0"}
    state = Path(config.state)
    if fallen:  # the other slot was tried before this one, in vain: never again, until something else is put there
        values |= {f"{other}_OK": "0", f"{other}_TRY": "0", "ORDER": f"{run} {other}"}
        with closing(open_store(state)) as store, transaction(store):
            notices.post(store, "update", words.FALLEN_BACK, now())
    _remember(state, run, other if fallen else None)
    slots.change(variables, **values)
    click.echo(f"slot {run} is good" + (f"; slot {other} was not, and is not started again" if fallen else ""))


def _remember(state: Path, run: str, fallen: str | None) -> None:
    """Note what came of what was installed; a version that did not work is never installed here again."""
    _is_cut(state)
    record = updates.read(state)
    version = record.slots.get(fallen or run, "")
    if fallen is not None and version:
        rejected = tuple(dict.fromkeys((*record.rejected, version)))
        updates.write(
            state, msgspec.structs.replace(record, state=Update.FALLEN, version=version, at=now(), rejected=rejected)
        )
    elif record.state is Update.READY and record.version == version:
        with closing(open_store(state)) as store, transaction(store):
            notices.clear(store, "update")
        updates.write(state, msgspec.structs.replace(record, state=Update.GOOD, at=now()))
