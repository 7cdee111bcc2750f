"""`outpost update`: which slot of the box runs, and whether it may stay: it is good once it has shown on this box that it works."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import closing
from pathlib import Path

import click

from edge import check, words
from edge.cli import config_of
from edge.config import Config
from edge.errors import OutpostError
from edge.state import notices
from edge.state.store import now, open_store, transaction
from firmware import slots

FILE = click.Path(path_type=Path, dir_okay=False)
VARIABLES = Path("/efi/EFI/outpost/grubenv")
COMMAND_LINE = Path("/proc/cmdline")
NEEDED: tuple[Callable[[Config], str], ...] = (check.state, check.clock, check.certificate, check.model)
"""What has to work before a slot is good; not what lies with the site: a full disk, a PACS that is away."""

variables = click.option("--variables", type=FILE, default=VARIABLES, hidden=True)
command_line = click.option("--command-line", type=FILE, default=COMMAND_LINE, hidden=True)


@click.group()
def update() -> None:
    """The two slots of this box, and which one runs."""


@update.command()
@variables
@command_line
def status(variables: Path, command_line: Path) -> None:
    """Say which slot runs, and how the other one is."""
    run = slots.running(command_line.read_text())
    told = slots.parse(variables.read_bytes())
    for slot in slots.NAMES:
        good, tried = told.get(f"{slot}_OK") == "1", told.get(f"{slot}_TRY") == "1"
        how = "good" if good and not tried else "started, not yet shown to work" if good else "not to be started"
        click.echo(f"{'*' if slot == run else ' '} {slot}  {how}")


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
    if fallen:  # the other slot was tried before this one, in vain: never again, until something else is put there
        values |= {f"{other}_OK": "0", f"{other}_TRY": "0", "ORDER": f"{run} {other}"}
        with closing(open_store(Path(config.state))) as store, transaction(store):
            notices.post(store, "update", words.FALLEN_BACK, now())
    slots.change(variables, **values)
    click.echo(f"slot {run} is good" + (f"; slot {other} was not, and is not started again" if fallen else ""))
