"""The command line: one lazy group, name → function as text, so that a command imports only what it needs."""

from __future__ import annotations

import importlib
import logging
import sys
from pathlib import Path
from typing import Any

import click

from edge import codecs
from edge import config as settings
from edge.errors import OutpostError

COMMANDS = {
    "demo": "web.demo:demo",
    "triage": "edge.triage:triage",
    "serve": "web.serve:serve",
    "intake": "edge.commands:intake",
    "worker": "edge.commands:worker",
    "courier": "edge.commands:courier",
    "web": "web.serve:web",
    "check": "edge.check:check",
    "enrol": "edge.enrol:command",
    "models": "edge.bundles:models",
    "audit": "edge.ledger:commands",
    "commission": "edge.commission:commission",
    "drift": "edge.drift:drift",
    "hub": "web.hub.serve:hub",
    "parcel": "edge.stick:commands",
    "backup": "edge.backup:commands",
    "bench": "edge.bench:bench",
    "reset": "firmware.reset:reset",
    "update": "firmware.update:update",
    "publish": "firmware.publish:publish",
    "flash": "firmware.flash:flash",
    "provision": "firmware.provision:provision",
}

PICTURELESS = {"serve", "intake", "web"}
"""Commands whose process moves films without looking at them."""


class Lazy(click.Group):
    """A group whose commands are imported when they are called."""

    def list_commands(self, ctx: click.Context) -> list[str]:
        """The names, in the order of the table."""
        return list(COMMANDS)

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:
        """Import the command of that name."""
        if cmd_name not in COMMANDS:
            return None
        module, _, function = COMMANDS[cmd_name].partition(":")
        command = getattr(importlib.import_module(module), function)
        assert isinstance(command, click.Command)
        return command

    def resolve_command(
        self, ctx: click.Context, args: list[str]
    ) -> tuple[str | None, click.Command | None, list[str]]:
        """Before the one command that will run is imported, say what its process can do without."""
        codecs.defer(pictures=args[0] not in PICTURELESS)
        return super().resolve_command(ctx, args)

    def invoke(self, ctx: click.Context) -> Any:
        """Run, and turn the four errors into one sentence and an exit status of their own."""
        try:
            return super().invoke(ctx)
        except OutpostError as error:
            click.echo(f"{error.key}: {error}", err=True)
            sys.exit(error.exit_status)


@click.group(cls=Lazy, context_settings={"help_option_names": ["-h", "--help"]})
@click.option(
    "--config", "path", type=click.Path(path_type=Path, dir_okay=False), help="Settings file (TOML); defaults without."
)
@click.version_option(package_name="outpost-cxr", prog_name="outpost")
@click.pass_context
def main(ctx: click.Context, path: Path | None) -> None:
    """Outpost ranks chest X-ray films where there is no radiologist. Preliminary: a person decides."""
    logging.basicConfig(
        level=logging.WARNING, format="%(asctime)s %(levelname)s %(name)s: %(message)s", stream=sys.stderr
    )
    ctx.obj = path


def config_of(ctx: click.Context) -> settings.Config:
    """The settings the command was given. Raises `Misconfigured`."""
    return settings.load(ctx.obj)
