"""`outpost demo --hub`: a clinic's box and a hub with a bad link between them, on one machine.

Films are sent to the box; what is urgent reaches the hub first, each result with the first bytes of its film; one is
read there, and the read comes back to the tablet. What happens is said as it happens; then clinic and hub stay open, for people
to go on.
"""

from __future__ import annotations

import base64
import json
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import ExitStack, closing, contextmanager
from dataclasses import dataclass
from pathlib import Path

import click

from edge import box, cards, config, intake, netem
from edge.config import Config, Intake, Web
from edge.errors import Misconfigured, Transient
from edge.netem import ADDRESSES, FAR, NEAR, Link, Profile
from edge.pins import hashed, one_time_code
from edge.records import Outcome
from edge.state import sync
from edge.state.store import open_store
from edge.triage import SHAPES, table
from web.demo import accept_for_demonstration, people_for_demonstration, send_and_wait
from web.hub import accounts, here, sites, tasks, totp
from web.hub import config as hub_config
from web.hub.accounts import Account, Role
from web.hub.keys import certificate, pin
from web.hub.records import Finding, Reader, Site
from web.hub.store import now
from web.serve import pages

PROGRAMME, SITE, READER = "demonstration", "clinic", "Reader"
PORT = 8443
LINK = netem.TWO_G
PATIENCE_SECONDS = 600.0
POLL_SECONDS = 0.2
TRIES = 20
"""So often the box asks to be enrolled, each time over the bad link."""


@dataclass
class Joined:
    """A box's settings and a hub that know each other, and the link between them."""

    link: Link
    config: Config
    hub: here.Hub
    phrase: str
    """Of the reader's account."""
    secret: str
    """Of the reader's authenticator app (base32)."""

    @property
    def url(self) -> str:
        """Where the hub's pages are, for a browser on this machine: beside the bad link."""
        return f"https://{self.link.beside}:{PORT}/"


@contextmanager
def joined(folder: Path, profile: Profile = LINK) -> Iterator[Joined]:
    """A hub that serves at the far end of a bad link, and a box that was enrolled there over it, for the length of the block.

    Raises `Misconfigured` where no such link can be had.
    """
    with ExitStack() as stack:
        link = stack.enter_context(Link(profile, door=True))
        settings = hub_config.Config(
            state=str(folder / "hub"),
            web=hub_config.Web(host="0.0.0.0", port=PORT, names=("localhost",)),  # noqa: S104  in a namespace of its own
        )
        hub = here.open_hub(settings)
        stack.callback(hub.store.close)
        code, phrase, secret = _people(hub)
        file = folder / "hub.toml"
        web = f"host = {json.dumps(settings.web.host)}\nport = {PORT}\n"
        file.write_text(f"state = {json.dumps(settings.state)}\n[web]\n{web}", encoding="utf-8")
        serving = subprocess.Popen(
            link.command(FAR, sys.executable, "-m", "edge", "--config", str(file), "hub", "serve"),
            stdout=subprocess.DEVNULL,
        )
        stack.callback(serving.wait)
        stack.callback(serving.terminate)
        box.wait_for_port(PORT, link.beside)
        made = Config(
            state=str(folder / "box"),
            intake=Intake(port=0, disk_floor_mib=0),
            web=Web(port=0, join_port=0),
            hub=config.Hub(url=f"https://{ADDRESSES[FAR]}:{PORT}", poll_seconds=5),
        )
        _enrol(link, made, folder / "box.toml", f"{code}.{pin(certificate(Path(settings.state), settings.web.names))}")
        yield Joined(link, made, hub, phrase, secret)


def _people(hub: here.Hub) -> tuple[str, str, str]:
    """A programme, its clinic and a reader: the clinic's code, the reader's pass phrase, and the secret of their app."""
    phrase, secret = one_time_code(), totp.new_secret()
    with hub.store.transaction() as db:
        sites.add_programme(db, PROGRAMME, "Demonstration")
        sealed = hub.seal.close(secret, accounts.folded(READER))
        accounts.add(db, Account(name=READER, programme=PROGRAMME, role=Role.LEAD, secret=hashed(phrase), totp=sealed))
    with hub.store.transaction(PROGRAMME) as db:
        sites.add(db, Site(programme=PROGRAMME, name=SITE, title="Clinic", language="en", timezone="UTC"))
    with hub.store.transaction() as db:
        return sites.invite(db, PROGRAMME, SITE, now()), phrase, secret


def _enrol(link: Link, made: Config, file: Path, code: str) -> None:
    """Join the box to the hub as a technician does, over the bad link."""
    config.save(made, file)
    command = link.command(NEAR, sys.executable, "-m", "edge", "--config", str(file), "enrol", code)
    with click.progressbar(range(TRIES), label="Joining the hub ", file=sys.stderr) as bar:
        for _ in bar:
            done = subprocess.run(command, capture_output=True, text=True, check=False)
            if done.returncode == 0:
                return
            if done.returncode != Transient.exit_status:
                raise Misconfigured(done.stderr.strip())
    raise Transient(done.stderr.strip())


def show(once: bool) -> None:
    """Run the demonstration."""
    with tempfile.TemporaryDirectory(prefix="outpost-demo-") as name, joined(Path(name)) as both:
        accept_for_demonstration(both.config)
        pin_of_clinic = people_for_demonstration(both.config)
        with (
            box.service(intake.run, both.config) as dicom,
            pages(both.config) as shown,
            box.worker(both.config) as worker,
            box.courier(both.config, both.link.command(NEAR)),
        ):
            profile = both.link.profile
            click.echo(
                f"The link: {profile.rate / 1000:.0f} kbit/s, {2000 * profile.delay:.0f} ms, {profile.loss:.0%} lost each way,"
                f" {profile.up:.0f} s up and {profile.down:.0f} s down, again and again"
            )
            click.echo("The link is down while the films come.")
            both.link.cut()
            told = send_and_wait(both.config, dicom, worker)
            click.echo(table(told, stages=False))
            both.link.restore()
            began = time.monotonic()
            click.echo("\nThe link is let up. Seconds since then:")
            names = {film.arrival.id: str(path) for path, film in told}
            for line in story(both, names):
                click.echo(f"{time.monotonic() - began:6.1f} s  {line}")
            if once:
                return
            click.echo(f"\nClinic: {shown}\nSign in as Lead; the PIN is {pin_of_clinic}.")
            click.echo(f"Hub     {both.url}\nSign in as {READER}; the pass phrase is {both.phrase}")
            click.echo("Both browsers warn of a machine that they do not know. Ctrl-C ends the demonstration.")
            stop = box.stop_on_signal()
            while not stop.wait(1):
                code = totp.code(base64.b32decode(both.secret), int(now() // totp.STEP_SECONDS))
                click.echo(f"\rThe code of the authenticator app: {code} ", nl=False)


def story(both: Joined, names: dict[int, str]) -> Iterator[str]:
    """What happens to films that the box has assessed: each at the hub, its first bytes, a read there, and the read back here."""
    reader = Reader(programme=PROGRAMME, name=READER)
    with closing(open_store(Path(both.config.state))) as store:
        # what is no film of a person's body is nothing for a teleradiologist: it has no case
        film_of = {uid: film for film in names if (uid := sync.case_of(store, film))}
        arrived, seen = set[str](), set[str]()
        read, is_back = "", False
        end = time.monotonic() + PATIENCE_SECONDS
        while time.monotonic() < end:
            with both.hub.store.reading(PROGRAMME) as db:
                queue = tasks.queue(db, reader, now(), limit=len(names))
            for case in (entry.case for entry in queue):
                what = f"{SHAPES[case.result.outcome]} {names[film_of[case.result.case]]}"
                if case.result.case not in arrived:
                    arrived.add(case.result.case)
                    yield f"at the hub, {len(arrived)} of {len(film_of)}: {what}"
                if case.result.case not in seen and case.picture and case.have >= min(cards.PREFIX, case.picture.size):
                    seen.add(case.result.case)
                    yield f"its film can be seen there, {case.have // 1024} kB of {case.picture.size // 1024}: {what}"
            first = queue[0] if queue else None
            if not read and first is not None and first.case.result.case in seen:
                what, read = names[film_of[first.case.result.case]], first.case.result.case
                _read(both, reader, first.task.id)
                yield f"read at the hub by {READER}: {what}"
            if read and not is_back and sync.returned(store, film_of[read]):
                is_back = True
                yield f"the read is on the tablet, in the film's page: {names[film_of[read]]}"
            if is_back and len(arrived) == len(film_of):
                return
            time.sleep(POLL_SECONDS)
    raise Transient("the demonstration has not come to its end; the link is very bad")


def _read(both: Joined, reader: Reader, task: int) -> None:
    """Say of a film what a teleradiologist might."""
    finding = Finding(outcome=Outcome.SOON, codes=("consolidation",))
    with both.hub.store.transaction(PROGRAMME) as db:
        claimed = tasks.claim(db, reader, 60, now(), task)
        assert claimed is not None
        tasks.finish(db, reader, READER, claimed.id, finding, "demonstration", both.hub.rules, now())
