"""`outpost audit`: whether the ledger is whole, and the ledger as audit messages for whoever keeps them."""

from __future__ import annotations

import getpass
import sqlite3
from contextlib import closing
from pathlib import Path

import click

from edge import atna, syslog, words
from edge.cli import config_of
from edge.config import Config, station
from edge.errors import Misconfigured, Transient
from edge.records import Breakage
from edge.state import audit, forwarding
from edge.state.store import now, open_store, transaction


@click.group("audit")
def commands() -> None:
    """The ledger: who decided, saw, changed or exported what, and when."""


@commands.command()
@click.option(
    "--noted", help="NUMBER:HASH of a record, as `verify` printed it earlier; it must still be in the ledger."
)
@click.pass_context
def verify(ctx: click.Context, noted: str | None) -> None:
    """Check that no record was changed, dropped, reordered or cut off; exit status 1 where one was."""
    with closing(open_store(Path(config_of(ctx).state))) as store:
        broken = audit.verify(store)
        number, digest = audit.head(store)
        if broken is None and noted is not None and not _holds(store, noted):
            broken = audit.Break(int(noted.partition(":")[0]), Breakage.FOREIGN)
    if broken is not None:
        sentence, meaning = words.BREAKS[broken.why]
        click.echo(f"The ledger is broken at record {broken.id}. {sentence} {meaning}", err=True)
        ctx.exit(1)
    click.echo(f"The ledger is whole: {number} records.")
    click.echo(f"{number}:{digest}")
    click.echo("Note this line outside the box: with it, `outpost audit verify --noted` finds even a ledger made anew.")


def _holds(store: sqlite3.Connection, noted: str) -> bool:
    number, _, digest = noted.partition(":")
    if not number.isdigit() or len(digest) != len(audit.ORIGIN):
        raise click.UsageError("--noted needs NUMBER:HASH, the line that `outpost audit verify` prints.")
    record = next(audit.records(store, after=int(number) - 1), None)
    return int(number) == 0 or (record is not None and (record.id, record.hash) == (int(number), digest))


@commands.command()
@click.option(
    "--out", type=click.Path(path_type=Path), help="Folder for one XML file a record, or - for one line each."
)
@click.option("--after", type=click.IntRange(min=0), default=0, show_default=True, help="Only records after this one.")
@click.pass_context
def export(ctx: click.Context, out: Path | None, after: int) -> None:
    """Write the ledger as DICOM audit messages, or send what was not sent yet to the audit record repository.

    The messages name patients, as PS3.15 A.5 asks: keep them like patient records.
    """
    config = config_of(ctx)
    if out is None and not config.audit.host:
        raise Misconfigured("audit.host: no repository is set. Set it, or give --out FOLDER.")
    with closing(open_store(Path(config.state))) as store:
        with transaction(store):
            to = syslog.repository(config.audit) if out is None else "file"
            audit.append(store, audit.Event.READ_OUT, getpass.getuser(), now(), None, to=to, after=after)
        if out is None:
            _send(config, store)
        else:
            _write(config, store, out, after)


def _send(config: Config, store: sqlite3.Connection) -> None:
    while syslog.step(config, store):
        pass
    stood = forwarding.standing(store, syslog.repository(config.audit))
    number, _ = audit.head(store)
    if stood.id < number:
        sentence, step = words.TROUBLES[stood.trouble] if stood.trouble else ("It is busy.", "")
        raise Transient(f"{syslog.repository(config.audit)}: {sentence} {step} {stood.detail}".strip())
    click.echo(f"The repository has read all records up to {number}.")


def _write(config: Config, store: sqlite3.Connection, out: Path, after: int) -> None:
    count = 0
    for record, header in syslog.told(store, audit.records(store, after=after)):
        message = atna.message(record, header, station(config))
        if str(out) == "-":
            click.echo(message)
        else:
            out.mkdir(parents=True, exist_ok=True)
            (out / f"{record.id:09}.xml").write_bytes(message)
        count += 1
    click.echo(f"{count} records exported.", err=True)
