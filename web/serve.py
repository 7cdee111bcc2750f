"""`outpost serve` and `outpost web`: the whole box in one command, or its pages alone."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

import click
import msgspec

from edge import box, intake, setup
from edge.cli import config_of
from edge.config import Config
from web import clinic, join


@click.command()
@click.pass_context
def serve(ctx: click.Context) -> None:
    """Run the whole box until stopped: DICOM port, worker, courier and pages."""
    config = config_of(ctx)
    stop = box.stop_on_signal()
    with (
        box.recorded(config),
        box.service(intake.run, config) as dicom,
        pages(config) as shown,
        box.worker(config),
        box.courier(config),
    ):
        click.echo(f"DICOM   {config.intake.ae_title} at {config.intake.host}:{dicom}")
        click.echo(shown)
        _say_code(config)
        stop.wait()


@click.command()
@click.pass_context
def web(ctx: click.Context) -> None:
    """Serve the clinic's pages until stopped."""
    config = config_of(ctx)
    stop = box.stop_on_signal()
    with pages(config) as shown:
        click.echo(shown, err=True)
        _say_code(config)
        stop.wait()


@contextmanager
def pages(config: Config) -> Iterator[str]:
    """The pages over TLS and the join page without, for the length of the block; gives their addresses for people."""
    host = config.web.names[0] if config.web.host in ("0.0.0.0", "::") else config.web.host  # noqa: S104  compared only
    with box.service(clinic.run, config) as port:
        shown = f"Pages   https://{host}:{port}/"
        if config.web.join_port == "none":
            yield shown
            return
        opened = msgspec.structs.replace(config, web=msgspec.structs.replace(config.web, port=port))
        with box.service(join.run, opened) as plain:
            yield f"{shown}\nJoin    http://{host}:{plain}/ (for a tablet that does not know this box yet)"


def _say_code(config: Config) -> None:
    """On a box without a lead: the one-time code that makes one, for whoever stands before it."""
    if code := setup.code(config):
        click.echo(f"Setup   code {code} on the page /setup makes the box's lead; also in {setup.file(config)}")
