"""The commands that are one process or one look at the box: intake, worker, courier, models."""

from __future__ import annotations

from pathlib import Path

import click

from edge.box import recorded, stop_on_signal
from edge.cli import config_of
from edge.errors import Tampered


@click.command()
@click.pass_context
def intake(ctx: click.Context) -> None:
    """Accept films over DICOM and from watched folders until stopped."""
    from edge import intake as process

    config = config_of(ctx)
    stop = stop_on_signal()
    with recorded(config):
        process.run(config, stop, lambda port: click.echo(f"DICOM {config.intake.ae_title} on port {port}", err=True))


@click.command()
@click.pass_context
def worker(ctx: click.Context) -> None:
    """Assess the films that were accepted until stopped."""
    from edge import worker as process

    config = config_of(ctx)
    process.limit_memory(config.worker.memory_mib)
    process.run(config, stop_on_signal())


@click.command()
@click.pass_context
def courier(ctx: click.Context) -> None:
    """Send results to the ways out of the settings until stopped."""
    from edge import courier as process

    process.run(config_of(ctx), stop_on_signal())


@click.group()
def models() -> None:
    """The model bundles on this box."""


@models.command("list")
@click.pass_context
def list_models(ctx: click.Context) -> None:
    """List the bundles that come with Outpost and the one in use."""
    from models.bundle import SHIPPED, Mismatch, load

    used = Path(config_of(ctx).worker.bundle or SHIPPED)
    for folder in sorted({used, *(path.parent for path in SHIPPED.parent.glob("*/manifest.toml"))}):
        try:
            manifest = load(folder).manifest
            words = f"{manifest.version}  {', '.join(finding.label for finding in manifest.findings)}"
        except (Mismatch, OSError, ValueError) as error:
            words = f"cannot be used: {error}"
        click.echo(f"{'*' if folder == used else ' '} {folder.name}  {words}")


@models.command()
@click.argument("bundle", required=False, type=click.Path(path_type=Path, file_okay=False, exists=True))
@click.pass_context
def verify(ctx: click.Context, bundle: Path | None) -> None:
    """Check a bundle's hashes and that it computes what it shall on this device."""
    from models.bundle import SHIPPED, Mismatch, load
    from models.model import Model

    folder = bundle or Path(config_of(ctx).worker.bundle or SHIPPED)
    try:
        Model(load(folder)).self_test()
    except (Mismatch, OSError, ValueError) as error:
        raise Tampered(f"{folder.name}: {error}") from error
    click.echo(f"{folder.name}: hashes and self-test agree")
