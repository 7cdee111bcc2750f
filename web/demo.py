"""`outpost demo`: a temporary box that is sent real and synthesized films over its own DICOM port, and shows what comes of them."""

from __future__ import annotations

import sys
import tempfile
import time
from contextlib import closing
from pathlib import Path

import click

from edge import box, intake, pins
from edge.config import Config, Intake, Web, Worker
from edge.errors import Misconfigured
from edge.reader import open_reader
from edge.records import Film, Role
from edge.samples import Sample, samples
from edge.sending import send
from edge.state import acceptances, accounts, results
from edge.state.store import now, open_store, transaction
from edge.triage import table
from web.serve import pages

POLL_SECONDS = 0.02


@click.command()
@click.option("--once", is_flag=True, help="Print the ranked list and exit.")
@click.option(
    "--hub", is_flag=True, help="With a hub behind a bad link, where a film is read and comes back; needs root."
)
def demo(once: bool, hub: bool) -> None:
    """Show a box at work: films in over DICOM, a ranked worklist out."""
    if hub:
        from web.hub.demo import show

        show(once)
        return
    with tempfile.TemporaryDirectory(prefix="outpost-demo-") as folder:
        config = Config(
            state=folder,
            intake=Intake(port=0, disk_floor_mib=0),
            web=Web(port=0, join_port=0),
            worker=Worker(runtime="onnx"),
        )
        accept_for_demonstration(config)
        pin = people_for_demonstration(config)
        with (
            box.service(intake.run, config) as dicom,
            pages(config) as shown,
            box.worker(config) as worker,
        ):
            click.echo(f"A box for demonstration: DICOM port {dicom}\n{shown}")
            films = send_and_wait(config, dicom, worker)
            click.echo(table(films, stages=True))
            if not once:
                click.echo(f"\n{shown}\nOpen the first in a browser, which warns of a box that it does not know;")
                click.echo("the second tells how it gets to know it. Ctrl-C ends the demonstration.")
                roles = ", ".join(role.capitalize() for role in Role)
                click.echo(f"Sign in as {roles}; the PIN is {pin}, drawn for this box alone.")
                box.stop_on_signal().wait()


def accept_for_demonstration(config: Config) -> None:
    """Take this box out of shadow mode, as a site's signed acceptance would; a temporary box only."""
    with closing(open_store(Path(config.state))) as store, transaction(store):
        reader = open_reader(config)
        acceptances.sign(store, reader.device_uid, reader.operating_point, "demonstration", now())


def people_for_demonstration(config: Config) -> str:
    """Give a temporary box one person of each role, and say the PIN that was drawn for them."""
    while pins.weak(pin := pins.one_time_pin(), ""):
        pass
    secret = pins.hashed(pin)
    with closing(open_store(Path(config.state))) as store, transaction(store):
        for role in Role:
            accounts.add(store, role.capitalize(), role, "en", secret, now())
    return pin


def send_and_wait(config: Config, port: int, worker: box.WorkerProcess) -> list[tuple[Path, Film]]:
    """Send the sample films by C-STORE, wait for their outcomes, and give each with its sample's name."""
    with tempfile.TemporaryDirectory(dir=config.state) as folder:
        sent: list[Sample] = []
        with click.progressbar(samples(Path(folder)), label="Sending films   ", file=sys.stderr) as bar:
            for sample in bar:
                send(config.intake.host, port, config.intake.ae_title, sample.path)
                sent.append(sample)
    names = {index: Path(sample.name) for index, sample in enumerate(sent, 1)}
    with (
        closing(open_store(Path(config.state))) as store,
        click.progressbar(length=len(sent), label="Assessing films ", file=sys.stderr) as bar,
    ):
        done = 0
        while done < len(sent):
            if worker.failed:
                raise Misconfigured(worker.failed)
            decided = [film for film in results.films(store) if film.decision is not None]
            bar.update(len(decided) - done)
            done = len(decided)
            time.sleep(POLL_SECONDS)
    return [(names[film.arrival.id], film) for film in decided]
