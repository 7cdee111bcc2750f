"""`outpost backup`: a box on a USB stick, while it runs; and a box that is gone, on another one.

A back-up is made when all of it was read back from the stick: what is new is written, what was there before is read as well. Of
the box's keys those go with it without which films, ledger and tablets would be lost: pseudonyms, seal, authority. The device's own
keys stay: they are what the hub believes, so that whoever has stick and code can read, and still not speak for the box. The new one
is enrolled anew, and the hub then says what it lacks.
"""

from __future__ import annotations

import hashlib
import os
import shutil
import sqlite3
import sys
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, closing, contextmanager
from dataclasses import dataclass
from datetime import datetime
from importlib.metadata import version
from pathlib import Path

import click

from edge import durable, vault
from edge.cli import config_of
from edge.config import Config
from edge.errors import Misconfigured, Tampered, Transient
from edge.state import arrivals, audit, device, store, sync
from edge.state.objects import Objects
from edge.vault import Entry, Snapshot, Vault

KEY = "backup.key"
"""What a code gives; whoever holds the box's disk has what it hides anyway."""
STAYS = {
    device.FILE,
    KEY,
    "setup-code",
    "incoming",
    "backing",
    "restoring",
    "updates",
    "worker.toml",
    "courier.toml",
    "models.toml",
}
"""What of the state folder belongs to this one box, or to this moment."""
KEEP = 2
"""The newest back-up and the one before it."""
FILMS = "objects/"
BAD = "the stick does not give back what was written. Throw it away and take another."
STICK = click.Path(path_type=Path, exists=True, file_okay=False)

Progress = Callable[[int], None]
Bar = Callable[[str, int], AbstractContextManager[Progress]]
"""Shows how far something has come: what it is, and of how many bytes."""


@dataclass(frozen=True)
class Made:
    """A back-up that was read back."""

    files: int
    size: int
    added: int
    """Bytes that were new on the stick."""
    damaged: tuple[str, ...]
    """Files that the box's own disk has spoilt; they cannot be in it."""


@dataclass(frozen=True)
class Restored:
    """What became of a back-up on this box."""

    at: datetime
    films: int
    damaged: int
    """Files that the stick has spoilt: each is a film's picture, or the film itself."""
    enrolled: bool
    """Whether the box that is gone belonged to a hub."""


def make(config: Config, stick: Path, at: datetime, bar: Bar) -> Made:
    """Back the box up and read all of it back.

    Raises `Transient` where the stick fails or is too small: the back-up before it counts.
    """
    state = Path(config.state)
    held = Vault(stick, (state / KEY).read_bytes())
    with _database(state) as copy:
        files = dict([(store.DATABASE, copy), *_files(state)])
        before = {name: entry for name, entry in _before(held).items() if name in files}
        _room(stick, sum(path.stat().st_size for name, path in files.items() if name not in {store.DATABASE, *before}))
        entries: list[Entry] = []
        damaged: list[str] = []
        added = 0
        with bar("writing", sum(path.stat().st_size for path in files.values())) as progress:
            for name, path in files.items():
                entry = before.get(name)
                if entry is None or not all(map(held.has, entry.pieces, _sizes(entry.size))):
                    entry, new, digest = _put(held, name, path, progress)
                    added += new
                    if name.startswith(FILMS) and digest != path.name:
                        damaged.append(name)
                        continue
                else:
                    progress(entry.size)
                entries.append(entry)
        with bar("reading back", sum(entry.size for entry in entries)) as progress:
            for entry in entries:
                _read_back(held, entry, files[entry.path])
                progress(entry.size)
    if not held.whole(held.add(Snapshot(at.isoformat(), version("outpost-cxr"), tuple(entries)))):
        raise Transient(BAD)
    held.prune(KEEP)
    with closing(store.open_store(state)) as opened, store.transaction(opened):
        audit.append(opened, audit.Event.BACKED_UP, "technician", at, None, files=len(entries), damaged=len(damaged))
    return Made(len(entries), sum(entry.size for entry in entries), added, tuple(damaged))


def _room(stick: Path, size: int) -> None:
    disk = os.statvfs(stick)
    if size > disk.f_bavail * disk.f_frsize:
        raise Transient(
            f"the stick is too small: {size / 1e6:.0f} MB are new, {disk.f_bavail * disk.f_frsize / 1e6:.0f} MB are free."
            " Take a larger one; nothing on it was changed."
        )


def _put(held: Vault, name: str, path: Path, progress: Progress) -> tuple[Entry, int, str]:
    """Write a file's pieces; gives its entry, how many bytes were new, and its SHA-256."""
    pieces, added, size, digest = [], 0, 0, hashlib.sha256()
    with path.open("rb") as file:
        while data := file.read(vault.PIECE):
            digest.update(data)
            size += len(data)
            added += 0 if held.has(held.name(data), len(data)) else len(data)
            pieces.append(held.put(data))
            progress(len(data))
    return Entry(name, path.stat().st_mode & 0o777, size, tuple(pieces)), added, digest.hexdigest()


def _read_back(held: Vault, entry: Entry, path: Path) -> None:
    """Read a file's pieces from the stick, and write once more what it does not give back."""
    for number, piece in enumerate(entry.pieces):
        if held.whole(piece):
            continue
        with path.open("rb") as file:
            file.seek(number * vault.PIECE)
            data = file.read(vault.PIECE)
        if held.name(data) == piece:
            held.mend(piece, data)
        if not held.whole(piece):
            raise Transient(BAD)


def _before(held: Vault) -> dict[str, Entry]:
    """The files that never change, as the newest snapshot that can be read has them."""
    for name in held.snapshots():
        try:
            return {one.path: one for one in held.snapshot(name).entries if one.path.startswith(FILMS)}
        except Tampered:
            continue
    return {}


@contextmanager
def _database(state: Path) -> Iterator[Path]:
    """The database as it is at one moment, whoever writes to it meanwhile."""
    folder = state / "backing"
    shutil.rmtree(folder, ignore_errors=True)
    if (state / store.DATABASE).stat().st_size > Objects(state).free_mib() * 2**20:
        raise Transient("the box's disk has no room for a copy of its database. Call the technician: the disk is full.")
    durable.folder(folder)
    copy = folder / store.DATABASE
    try:
        with closing(store.open_store(state)) as source, closing(sqlite3.connect(copy)) as target:
            source.backup(target)
            target.execute("PRAGMA journal_mode=DELETE")
        yield copy
    finally:
        shutil.rmtree(folder, ignore_errors=True)


def _files(state: Path) -> Iterator[tuple[str, Path]]:
    """What else a box is: listed after the database, which names no file that was not there before it."""
    for path in sorted(state.rglob("*")):
        name = path.relative_to(state)
        its_own = name.parts[0] in STAYS or name.name.startswith(store.DATABASE) or path.suffix == ".new"
        if path.is_file() and not its_own:
            yield name.as_posix(), path


def _sizes(size: int) -> Iterator[int]:
    """Of the pieces of a file of that size."""
    return (min(vault.PIECE, size - at) for at in range(0, size, vault.PIECE))


def restore(config: Config, held: Vault, at: datetime, bar: Bar, agree: Callable[[str], bool]) -> Restored:
    """Make this box what another one was; a box that has films of its own stays as it is.

    Nothing changes before all was read; a cut on the way is made good by the same again. `agree` is asked where something is lost.
    Raises `Misconfigured` where this box must not or cannot become that one, `Tampered` where nothing on the stick can be used.
    """
    state = Path(config.state)
    durable.folder(state)
    _vacant(state)
    fresh = state / "restoring"
    shutil.rmtree(fresh, ignore_errors=True)
    durable.folder(fresh)
    try:
        snapshot = _newest(held, fresh, agree)
        damaged = _lay(held, snapshot, state, fresh, bar)
        if damaged and not agree(
            f"{damaged} files of films are damaged on the stick. Everything else can be restored. Go on without them?"
        ):
            raise Tampered("nothing was restored. Try another stick with a back-up of this box.")
        with closing(store.open_store(fresh)) as opened:
            enrolled = device.hub(opened) is not None
            with store.transaction(opened):
                device.forget(opened)
                sync.begin_anew(opened)
                audit.append(opened, audit.Event.RESTORED, "technician", at, None, made=snapshot.at, damaged=damaged)
            films = arrivals.count(opened)
            opened.execute("PRAGMA journal_mode=DELETE")
        durable.write(state / KEY, held.key)
        for path in sorted(fresh.rglob("*"), key=lambda path: path.name == store.DATABASE):
            if path.is_file():
                target = state / path.relative_to(fresh)
                durable.folder(target.parent)
                path.rename(target)
                durable.names(target.parent)
    finally:
        shutil.rmtree(fresh, ignore_errors=True)
    return Restored(datetime.fromisoformat(snapshot.at), films, damaged, enrolled)


def _vacant(state: Path) -> None:
    """Make sure that nothing is lost here, and that nobody is at work. Raises `Misconfigured`."""
    with closing(store.open_store(state)) as opened:
        if films := arrivals.count(opened):
            raise Misconfigured(
                f"this box has {films} films of its own; they would be gone. Restore on a new box, or reset this one first."
            )
        store.idle(opened)


def _newest(held: Vault, fresh: Path, agree: Callable[[str], bool]) -> Snapshot:
    """The newest snapshot of which database and keys are whole, laid into `fresh`. Raises `Tampered`."""
    for number, name in enumerate(held.snapshots()):
        try:
            snapshot = held.snapshot(name)
            for entry in snapshot.entries:
                if not entry.path.startswith(FILMS):
                    _write(held, entry, fresh / _within(entry.path))
        except Tampered:
            shutil.rmtree(fresh)
            durable.folder(fresh)
            continue
        if number and not agree(f"The newest back-up is damaged; the one of {snapshot.at} is whole. Take that one?"):
            raise Tampered("nothing was restored. Try another stick with a back-up of this box.")
        return snapshot
    raise Tampered("no back-up on this stick is whole. Try another stick with a back-up of this box.")


def _lay(held: Vault, snapshot: Snapshot, state: Path, fresh: Path, bar: Bar) -> int:
    """Put the films of a snapshot in place; says how many are damaged: of those an empty file says that it is not theirs."""
    objects, damaged = Objects(state), 0
    films = [entry for entry in snapshot.entries if entry.path.startswith(FILMS)]
    with bar("reading", sum(entry.size for entry in films)) as progress:
        for entry in films:
            target = state / _within(entry.path)
            if not target.exists() or target.stat().st_size != entry.size:
                part = objects.incoming / "restored"
                try:
                    _write(held, entry, part)
                    if objects.adopt(part).path != target:
                        raise Tampered(f"{entry.path}: is damaged")
                except Tampered:
                    damaged += 1
                    durable.folder(target.parent)
                    durable.write(target, b"", 0o440)
            progress(entry.size)
    return damaged


def _write(held: Vault, entry: Entry, to: Path) -> None:
    durable.folder(to.parent, 0o700)
    with os.fdopen(os.open(to, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, entry.mode), "wb") as file:
        for piece in entry.pieces:
            file.write(held.read(piece))
        file.flush()
        os.fsync(file.fileno())


def _within(name: str) -> Path:
    path = Path(name)
    if path.is_absolute() or ".." in path.parts:
        raise Tampered(f"{name}: no file of a box")
    return path


@contextmanager
def _bar(label: str, length: int) -> Iterator[Progress]:
    with click.progressbar(length=length, label=f"{label:<13}", file=sys.stderr, show_pos=False) as bar:
        yield bar.update


def _new(state: Path) -> str:
    """Draw a code, and keep what it gives."""
    durable.folder(state)
    drawn = vault.code()
    durable.write(state / KEY, vault.key(drawn))
    return drawn


def _told(drawn: str) -> str:
    return (
        f"\n    {drawn}\n\nThis is the recovery code of this box. Write it on paper now: it is shown only this once, and\n"
        "without it nobody can read the back-up. Keep it where the programme keeps such things, never with the stick.\n"
    )


def _held(stick: Path) -> Vault:
    """The back-ups of a code that is asked for. Raises `Misconfigured` where there are none."""
    held = Vault(stick, vault.key(click.prompt("Recovery code", err=True)))
    if not held.snapshots():
        left = vault.others(stick)
        raise Misconfigured(
            f"this stick has no back-up of that code{f', but {left} of other codes' if left else ''}. Is it the right stick?"
        )
    return held


@click.group("backup")
def commands() -> None:
    """Back this box up to a USB stick, and make a new box what another one was."""


@commands.command()
@click.argument("stick", type=STICK)
@click.pass_context
def to(ctx: click.Context, stick: Path) -> None:
    """Back up to the folder STICK while the box runs: what is new is written, and everything read back."""
    config = config_of(ctx)
    state = Path(config.state)
    if not (state / KEY).exists():
        click.echo(_told(_new(state)))
    made = make(config, stick, store.now(), _bar)
    click.echo(
        f"✔ {made.files} files, {made.size / 1e6:.1f} MB, of them {made.added / 1e6:.1f} MB new, all read back and right."
    )
    if made.damaged:
        click.echo(
            f"✘ {len(made.damaged)} files are damaged on the box's own disk and not in it. The disk fails: change it."
        )
        ctx.exit(Tampered.exit_status)
    click.echo("Eject the stick safely, and keep it somewhere else than the box.")


@commands.command()
@click.pass_context
def code(ctx: click.Context) -> None:
    """Draw a new recovery code, where the paper is lost; what was backed up under the old one still needs the old one."""
    click.echo(_told(_new(Path(config_of(ctx).state))))


@commands.command()
@click.argument("stick", type=STICK)
def verify(stick: Path) -> None:
    """Read every back-up of a recovery code on STICK, on any computer; exit status 76 where something is damaged."""
    held = _held(stick)
    bad: set[str] = set()
    for name in held.snapshots():
        try:
            snapshot = held.snapshot(name)
        except Tampered:
            click.echo(f"✘ {name}: is damaged")
            bad.add(name)
            continue
        broken = set()
        with _bar("reading", sum(entry.size for entry in snapshot.entries)) as progress:
            for entry in snapshot.entries:
                if not all(map(held.whole, entry.pieces)):
                    broken.add(entry.path)
                progress(entry.size)
        bad |= broken
        films = sum(entry.size for entry in snapshot.entries) / 1e6
        click.echo(
            f"{'✘' if broken else '✔'} {snapshot.at}: {len(snapshot.entries)} files, {films:.1f} MB, {len(broken)} damaged"
        )
    if bad:
        raise Tampered("the stick is failing. Back the box up again now, to this stick and then to a new one.")


@commands.command("restore")
@click.argument("stick", type=STICK)
@click.option("--yes", is_flag=True, help="Also where the stick has spoilt something: take what is whole.")
@click.pass_context
def restore_(ctx: click.Context, stick: Path, yes: bool) -> None:
    """Make this box, which is stopped and has no films, what the box on STICK was."""
    became = restore(
        config_of(ctx), _held(stick), store.now(), _bar, lambda question: yes or click.confirm(question, err=True)
    )
    click.echo(
        f"✔ {became.films} films, as of {became.at:%Y-%m-%d %H:%M} UTC. Start the box; the tablets know it again."
    )
    if became.damaged:
        click.echo(
            f"✘ {became.damaged} files were damaged on the stick: those pictures are gone, what was said of them is not."
        )
    if became.enrolled:
        click.echo(
            "Have the hub revoke the old box, and enrol this one: outpost enrol CODE. What the hub lacks it gets then."
        )
