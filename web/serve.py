"""`outpost serve` and `outpost web`: the whole box in one command, or its pages alone."""

from __future__ import annotations

import click

from edge import box, intake
from edge.cli import config_of
from web import clinic


@click.command()
@click.pass_context
def serve(ctx: click.Context) -> None:
    """Run the whole box until stopped: DICOM port, worker and pages."""
    config = config_of(ctx)
    stop = box.stop_on_signal()
    with box.service(intake.run, config) as dicom, box.service(clinic.run, config) as pages, box.worker(config):
        click.echo(f"DICOM   {config.intake.ae_title} at {config.intake.host}:{dicom}")
        click.echo(f"Pages   http://{config.web.host}:{pages}/")
        stop.wait()


@click.command()
@click.pass_context
def web(ctx: click.Context) -> None:
    """Serve the clinic's pages until stopped."""
    config = config_of(ctx)
    clinic.run(
        config, box.stop_on_signal(), lambda port: click.echo(f"Pages   http://{config.web.host}:{port}/", err=True)
    )
