"""The commands that are one process of the box: intake, worker, courier."""

from __future__ import annotations

import click

from edge.box import recorded, safe_mode, stop_on_signal, tell_systemd
from edge.cli import config_of
from edge.errors import Misconfigured, Tampered


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
    try:
        process.run(config, stop_on_signal(), tell_systemd("READY=1"), tell_systemd("WATCHDOG=1"))
    except (Misconfigured, Tampered):
        safe_mode(config)
        raise


@click.command()
@click.pass_context
def courier(ctx: click.Context) -> None:
    """Send results to the ways out of the settings until stopped."""
    from edge import courier as process

    process.run(config_of(ctx), stop_on_signal())
