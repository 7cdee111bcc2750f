"""`outpost reset`: a box forgets its clinic, keys first; for the next clinic, or before it is thrown away.

The folder is renamed before anything in it goes, so that a box that loses its power on the way starts as a new one, and goes on
erasing. What is erased is written over once. On flash (cards, sticks, SSDs) that reaches only what the disk still shows: older
copies of a block may be left where no program gets at them but a laboratory does. Whoever types the name is told so. A box
made from an image has its disk encrypted, and the disk's key is the first that goes (`data.py`): old copies are noise then.
"""

from __future__ import annotations

import os
from contextlib import closing
from datetime import datetime
from pathlib import Path

import click

from edge import backup, durable, health
from edge.cli import config_of
from edge.config import Config
from edge.errors import Misconfigured
from edge.health import Level
from edge.records import DISK_KEY
from edge.state import arrivals, device, sync
from edge.state.store import DATABASE, idle, now, open_store
from firmware import data
from firmware.provision import CODE, HELD, LINK, RADIO, SETTINGS, SIGNER

KEYS = (device.FILE, backup.KEY, "pseudonym.key", "ledger.key", "setup-code", "trust")
"""What goes first, in this order: without these the box speaks for nobody, and pseudonyms are nobody's."""
GOING = ".erased"
BLOCK = 2**20


def erase(state: Path) -> int:
    """Forget everything in a box's folder, and what the site file left beside it; how many files that were."""
    done = finish(state)
    if state.exists():
        state.rename(state.with_name(state.name + GOING))
        durable.names(state.parent)
    return done + finish(state)


def finish(state: Path) -> int:
    """Go on where the power went while a box was erased; nothing where it was not."""
    going = state.with_name(state.name + GOING)
    if not going.exists():
        return 0
    database = [f"{DATABASE}{end}" for end in ("", "-wal", "-shm")]
    done = sum(_wipe(going / name) for name in (*KEYS, *database))
    durable.names(going)
    if (state.parent / SIGNER).exists():
        done += sum(_wipe(state.parent / name) for name in (RADIO, CODE, HELD, SETTINGS, LINK, SIGNER))
    done += _wipe(going)
    durable.names(going.parent)
    return done


def _wipe(path: Path) -> int:
    if path.is_dir() and not path.is_symlink():
        done = sum(map(_wipe, sorted(path.iterdir())))
        path.rmdir()
        return done
    if path.is_file() and not path.is_symlink():
        path.chmod(0o600)
        with path.open("r+b") as file:
            for at in range(0, os.fstat(file.fileno()).st_size, BLOCK):
                file.write(bytes(min(BLOCK, os.fstat(file.fileno()).st_size - at)))
            file.flush()
            os.fsync(file.fileno())
    elif not path.is_symlink():
        return 0
    path.unlink()
    return 1


def _known(config: Config, at: datetime) -> tuple[set[str], str]:
    """What this box answers to, and what would be gone; a database that is damaged stands in nobody's way."""
    names = {config.site.name} - {""}
    try:
        with closing(open_store(Path(config.state))) as store:
            idle(store)
            hub = device.hub(store)
            names |= {hub.site} if hub is not None else set()
            films, waits = arrivals.count(store), len(sync.unsent(store)) if hub is not None else 0
            kept = health.backup(store, at)
    except Misconfigured as error:
        if "running" in str(error):
            raise
        return names, f"The database cannot be read ({error}). Whatever is in {config.state} is erased."
    told = [f"{films} films and everything that was said of them are erased from this box."]
    told += [f"{waits} of them have not arrived at the hub."] if waits else []
    if kept.level is not Level.GOOD:
        told.append("The last back-up is old." if "at" in kept.values else "No back-up was ever made.")
    return names, " ".join(told)


@click.command("reset")
@click.pass_context
def reset(ctx: click.Context) -> None:
    """Forget everything on this box, which is stopped: for another clinic, or before it is thrown away."""
    config = config_of(ctx)
    state = Path(config.state)
    if not state.exists() and not state.with_name(state.name + GOING).exists():
        raise Misconfigured(f"there is no box in {state}; nothing was erased.")
    names, told = _known(config, now()) if state.exists() else ({config.site.name} - {""}, "It was begun before.")
    click.echo(f"{told}\nThis cannot be taken back.")
    names = names or {"outpost"}
    typed = click.prompt(f"To erase it, type the site's name{'' if config.site.name else f' ({min(names)})'}")
    if typed.strip().casefold() not in {name.casefold() for name in names}:
        raise Misconfigured("that is not this site's name. Nothing was erased.")
    encrypted = DISK_KEY.exists() and state.is_relative_to("/var")
    if encrypted:
        data.forget()
    click.echo(f"{erase(state)} files are erased, the keys first.")
    click.echo(
        "At its next start it is a new box. Have the hub revoke the old one; destroy its back-ups, if they shall go too.\n"
        + (
            "The disk was encrypted and its key is erased: switch the box off now, and nobody reads it again."
            if encrypted
            else "Outpost did not encrypt this disk: before it leaves the clinic for good, break the card, or erase the disk "
            "with its maker's tool."
        )
    )
