"""`outpost hub`: the hub, and what is done with it at its command line."""

from __future__ import annotations

import hashlib
import re
import sys
import threading
from collections.abc import Callable, Iterator
from contextlib import closing
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import click
import msgspec
from flask import Flask

from edge import box
from edge.errors import Misconfigured, Transient, Unreadable
from models import bundle as bundles
from web import server
from web.hub import accounts, app, archives, films, here, keys, ledger, old, rollouts, sites, sqlite, stick, sync, taken
from web.hub.config import Config, load
from web.hub.records import Site
from web.hub.store import PROGRAMME, Store, now, open_store
from web.signing import name_of

BODY_BYTES = 64 << 20
"""No request is longer."""
SITE = re.compile("[A-Za-z0-9][A-Za-z0-9_-]{0,63}")


class Tls(server.Tls):
    """TLS with the certificate of a file, read anew once that has changed."""

    def __init__(self, file: Path) -> None:
        self._file, self.join_port = file, 0
        try:
            self._written, self.context = file.stat().st_mtime_ns, server.context(file)
        except OSError as error:
            raise Misconfigured(f"web.certificate: {file} cannot be used ({error}).") from None

    def wrap(self, sock: Any) -> tuple[Any, dict[str, str]]:
        """Prepare a connection; it is spoken to in its own thread, so that a slow one delays nobody."""
        if (written := self._file.stat().st_mtime_ns) != self._written:
            self._written, self.context = written, server.context(self._file)
        secured = self.context.wrap_socket(sock, server_side=True, do_handshake_on_connect=False)
        return secured, {"wsgi.url_scheme": "https", "HTTPS": "on"}


def run(config: Config, stop: threading.Event, ready: Callable[[int], None]) -> None:
    """Serve the hub over TLS until `stop` is set; `ready` gets the port once it can be reached. Raises `Misconfigured`."""
    made: Flask = app.create(config)
    held = made.extensions[here.NAME]
    with closing(held.store):
        server.serve(
            made,
            "web.port",
            config.web.host,
            config.web.port,
            stop,
            ready,
            Tls(certificate(config)),
            threads=config.web.threads,
            body=BODY_BYTES,
            seconds=config.web.seconds,
        )


def certificate(config: Config) -> Path:
    """The certificate that the hub shows, with its key: that of the settings, else its own."""
    return (
        Path(config.web.certificate)
        if config.web.certificate
        else keys.certificate(Path(config.state), config.web.names)
    )


@click.group()
@click.pass_context
def hub(ctx: click.Context) -> None:
    """Keep what boxes send, let teleradiologists read it, and send their reads back."""
    ctx.obj = load(ctx.obj)


@hub.command()
@click.pass_obj
def serve(config: Config) -> None:
    """Serve boxes and readers until stopped."""
    stop = box.stop_on_signal()

    def ready(port: int) -> None:
        host = config.web.names[0] if config.web.host in ("0.0.0.0", "::") else config.web.host  # noqa: S104  compared only
        click.echo(f"Hub     https://{host}:{port}/")

    for sentence in locked_out(config):
        click.echo(sentence, err=True)
    run(config, stop, ready)


def locked_out(config: Config) -> Iterator[str]:
    """Say of each person whose app the hub cannot check what to do."""
    held = here.open_hub(config)
    with closing(held.store), held.store.reading() as db:
        for name in accounts.unreadable(db, held.seal):
            yield (
                f"{name} cannot sign in: {config.state}/{keys.FILE} is not the file with which their app was set up."
                f" Put that back; if it is lost: outpost hub account code '{name}'"
            )


def check(held: here.Hub) -> Iterator[str]:
    """Hold the pictures against the database, which may be a backup's or have a backup's pictures; gives what was put right.

    Where bytes are missing their number is put right, and their box sends them again.
    """
    with held.store.reading() as db:
        names = sites.programmes(db)
    for name in names:
        after = ""
        while True:
            with held.store.reading(name) as db:
                batch = films.objects(db, after)
            if not batch:
                break
            for after, have in batch:
                if (size := held.blobs.size(f"{name}/{after}")) < have:
                    with held.store.transaction(name) as db:
                        films.moved(db, after, have, size)
                        sites.lose(db)
                    yield f"{after}: {have - size} bytes are missing; its box sends them again."
        uid = ""
        while True:
            with held.store.reading(name) as db:
                came = taken.after(db, uid)
            if not came:
                break
            for one in came:
                uid = one.uid
                if held.blobs.size(f"{name}/{one.sha256}") < one.size:
                    with held.store.transaction(name) as db:
                        taken.forget(db, uid)
                    yield f"{uid}: what {one.archive} sent is gone from the pictures. Have it sent again."


@hub.command("check")
@click.pass_obj
def checked(config: Config) -> None:
    """See whether keys, database and pictures are there and fit together; run it after a restore."""
    for sentence in locked_out(config):
        click.echo(sentence)
    held = here.open_hub(config)
    with closing(held.store):
        wrong = 0
        for sentence in check(held):
            wrong += 1
            click.echo(sentence)
    click.echo(f"Keys, database and pictures are there. {wrong} pictures were put right.")


@hub.command()
@click.argument("file", type=click.Path(path_type=Path, dir_okay=False))
@click.pass_obj
def backup(config: Config, file: Path) -> None:
    """Write the database to a file, while the hub is at work. Keep keys.pem and tls.pem elsewhere, and the pictures too."""
    with closing(open_store(config)) as store:
        store.backup(file)
    click.echo(f"{file} is written. Keep a copy of {config.state}/keys.pem and tls.pem, once, where nobody else comes.")


@hub.command()
@click.argument("file", type=click.Path(path_type=Path, dir_okay=False, exists=True))
@click.pass_obj
def restore(config: Config, file: Path) -> None:
    """Put a backup in the place of the database, while the hub is stopped. Boxes send again what it lacks, by themselves."""
    if config.database.postgresql:
        raise Misconfigured("database.postgresql: restore it with pg_restore, then run: outpost hub check")
    sqlite.restore(Path(config.state), file)
    held = here.open_hub(config)
    with closing(held.store):
        wrong = sum(1 for _ in check(held))
    click.echo(
        f"Restored. {wrong} pictures were put right. Start the hub: every box sends what is missing when it next asks."
    )


programme_option = click.option("--programme", default="", help="The programme; needed where the hub has several.")


@hub.command("drop")
@click.option("--days", type=click.IntRange(min=1), required=True, help="Nothing was said of a film for so many days.")
@click.option("--yes", is_flag=True, help="Do it; without, only say what would go.")
@programme_option
@click.pass_obj
def drop(config: Config, days: int, yes: bool, programme: str) -> None:
    """Let old pictures' bytes go beyond their first 32 KiB; their boxes send them again when somebody asks.

    Only of films that are read, whose reads are at their clinic, and that nobody is to read again. Cut off, it goes on when it is
    called again; the hub may be at work meanwhile.
    """
    held, before = here.open_hub(config), now() - days * 86400
    with closing(held.store):
        of = programme_of(held.store, programme)
        with held.store.reading(of) as db:
            pictures, size = old.count(db, before)
        told = f"{pictures} pictures, {size / 2**20:.1f} MiB beyond their first 32 KiB"
        if not yes:
            click.echo(f"{told}, would go. Nothing has gone yet; add --yes.")
            return
        if pictures:
            with held.store.transaction(of) as db:
                ledger.append(db, ledger.HUB, "drop", now(), days=days, pictures=pictures, bytes=size)
        done = gone = 0
        with click.progressbar(length=pictures, label="Pictures", file=sys.stderr) as bar:
            for number, freed in old.drop(held.store, held.blobs, of, before):
                done, gone = done + number, gone + freed
                bar.update(number)
    click.echo(f"{done} pictures are their first 32 KiB now; {gone / 2**20:.1f} MiB have gone.")


@hub.command("import")
@click.argument("file", type=click.Path(path_type=Path, dir_okay=False, exists=True))
@click.pass_obj
def take(config: Config, file: Path) -> None:
    """Take in what a box has put on a stick; the same again changes nothing."""
    held = here.open_hub(config)
    with closing(held.store):
        came = stick.take(held, file)
    click.echo(
        f"{came.events} events and {came.pieces} pieces of pictures from {came.site}, of which {came.new} bytes are new."
    )
    click.echo(f"Take the answer back: outpost hub export {came.site} FILE")
    if came.fault is not None:
        raise Unreadable(f"{file}: {sync.SENTENCES[came.fault]} What was whole is taken.")


@hub.command("export")
@click.argument("site")
@click.argument("file", type=click.Path(path_type=Path, dir_okay=False))
@programme_option
@click.pass_obj
def give(config: Config, site: str, file: Path, programme: str) -> None:
    """Put what a site's box shall be told into a file, for a stick: reads, and what the hub has."""
    held = here.open_hub(config)
    with closing(held.store):
        number = stick.give(held, programme_of(held.store, programme), site, file)
    click.echo(f"{file}: {number} answers for {site}. On the box: outpost parcel import FILE")


def programme_of(store: Store, name: str) -> str:
    """The programme of that name, or the only one there is. Raises `click.UsageError`."""
    with store.reading() as db:
        known = sites.programmes(db)
    if name in known:
        return name
    if name or len(known) != 1:
        listed = f"There are: {', '.join(known)}." if known else "Make one: outpost hub programme NAME."
        raise click.UsageError(f"Which programme? Say it with --programme. {listed}")
    return known[0]


@hub.command("model")
@click.argument("folder", type=click.Path(path_type=Path, file_okay=False, exists=True), required=False)
@click.option("--remove", "gone", metavar="NAME", help="Let go of the model of that name, or whose SHA-256 begins so.")
@programme_option
@click.pass_obj
def model(config: Config, folder: Path | None, gone: str | None, programme: str) -> None:
    """Have a signed model bundle at the hub, so that it can be rolled out; its boxes prove it each for itself.

    One that a roll-out or a box waits for is not removed.
    """
    if folder is not None and gone is None:
        _add_model(config, folder, programme)
    elif gone and folder is None:
        _remove_model(config, gone, programme)
    else:
        raise click.UsageError("Name the folder of a model, or one to --remove.")


def _remove_model(config: Config, name: str, programme: str) -> None:
    held = here.open_hub(config)
    with closing(held.store):
        of = programme_of(held.store, programme)
        with held.store.transaction(of) as db:
            known = rollouts.models(db)
            found = [one for one in known if one.name == name or (len(name) > 7 and one.sha256.startswith(name))]
            if len(found) != 1:
                listed = "; ".join(f"{one.name} ({one.sha256[:12]})" for one in known)
                raise click.UsageError(f"Which model? There are: {listed}." if listed else "There is no model here.")
            if needed := rollouts.needed(db, found[0].sha256):
                raise click.UsageError(f"{found[0].name} is waited for by {needed}. Nothing was removed.")
            rollouts.remove_model(db, found[0].sha256, now())
            ledger.append(db, ledger.HUB, "no_model", now(), name=found[0].name, sha256=found[0].sha256)
            held.blobs.remove(
                f"{of}/{found[0].sha256}"
            )  # where this fails nothing was removed, and it can be tried again
    click.echo(f"{found[0].name} is gone from the hub; boxes that have it keep it.")


def _add_model(config: Config, folder: Path, programme: str) -> None:
    bundle = rollouts.signed(folder)
    held, data = here.open_hub(config), bundles.packed(folder)
    with closing(held.store):
        of = programme_of(held.store, programme)
        name = f"{of}/{hashlib.sha256(data).hexdigest()}"
        held.blobs.write(name, 0, data)
        if not held.blobs.finish(name, len(data)):
            raise Transient("The model could not be kept. Try again.")
        with held.store.transaction(of) as db:
            found = rollouts.add_model(db, data, bundle, now())
            ledger.append(db, ledger.HUB, "model", now(), name=found.name, sha256=found.sha256)
    click.echo(f"{found.name} ({found.size / 2**20:.1f} MiB) can be rolled out: on the hub's page of boxes.")


@hub.command("ledger")
@programme_option
@click.pass_obj
def fleet_ledger(config: Config, programme: str) -> None:
    """Print who did what to the fleet, the oldest first, and whether the ledger is whole; ends with 1 where it is not."""
    with closing(open_store(config)) as store:
        of = programme_of(store, programme)
        with store.reading(of) as db:
            acts, wrong = ledger.acts(db), ledger.broken(db)
    for one in reversed(acts):
        at = datetime.fromtimestamp(one.at, UTC).isoformat(timespec="seconds")
        detail = msgspec.json.encode(one.detail, order="sorted").decode()
        click.echo(f"{one.seq:6} {at} {one.actor or 'hub'}: {one.act} {detail}")
    if wrong is not None:
        click.echo(f"Line {wrong} is not as it was written, or one before it is missing.", err=True)
        sys.exit(1)
    click.echo(f"{len(acts)} lines, each chained to the one before: the ledger is whole.")


@hub.command()
@click.argument("name")
@click.option("--title", default="", help="What people call it.")
@click.pass_obj
def programme(config: Config, name: str, title: str) -> None:
    """Make a programme: sites and readers of one know nothing of another."""
    if not PROGRAMME.fullmatch(name):
        raise click.UsageError("A programme's name has small letters, digits, - and _ only.")
    with closing(open_store(config)) as store, store.transaction() as db:
        sites.add_programme(db, name, title or name)
    click.echo(f"Programme {name}. Next: outpost hub enrol SITE --programme {name}")


@hub.command()
@click.argument("site")
@click.option("--title", default="", help="What people call the clinic.")
@click.option("--language", default="", help="The language its people read: en, fr, es, pt, sw, ar.")
@click.option("--timezone", default="", help="The time its clocks show, such as Africa/Lagos.")
@click.option(
    "--country", default="", help="Its country, two letters (ISO 3166-1): where a reader's licence must hold."
)
@programme_option
@click.pass_obj
def enrol(config: Config, site: str, title: str, language: str, timezone: str, country: str, programme: str) -> None:
    """Make a one-time code that joins a clinic's box to this hub; type it there: outpost enrol CODE.

    Options that are left out stay as they are. A box that is enrolled takes the place of the site's earlier one.
    """
    if not SITE.fullmatch(site):
        raise click.UsageError("A site's name has letters, digits, - and _ only.")
    pin = keys.pin(certificate(config))
    with closing(open_store(config)) as store:
        of = programme_of(store, programme)
        with store.transaction(of) as db:
            known = sites.get(db, site) or Site(programme=of, name=site, title=site, language="en", timezone="UTC")
            said = Site(
                programme=of,
                name=site,
                title=title or known.title,
                language=language or known.language,
                timezone=timezone or known.timezone,
                country=country.upper() or known.country,
            )
            sites.add(db, said)
        with store.transaction() as db:
            code = sites.invite(db, of, site, now())
    click.echo(f"{code}.{pin}" if pin else code)
    click.echo(f"Good for {sites.CODE_SECONDS // 86400} days and one box. On the box: outpost enrol CODE", err=True)


@hub.command("sites")
@programme_option
@click.pass_obj
def listed(config: Config, programme: str) -> None:
    """List the sites, and when their boxes were last heard of."""
    with closing(open_store(config)) as store:
        of = programme_of(store, programme)
        with store.reading(of) as db:
            contacts = sites.contacts(db)
    for one in contacts:
        since = "never" if one.heard_at is None else f"{(now() - one.heard_at) / 60:.0f} min ago"
        unsent = "" if one.status is None else f", {one.status.unsent} unsent"
        click.echo(f"{one.site.name:20} {one.site.title:30} {since}{unsent}")


@hub.command()
@click.argument("site")
@programme_option
@click.pass_obj
def revoke(config: Config, site: str, programme: str) -> None:
    """Refuse a site's box from now on: it was lost or stolen. A new code enrols another."""
    with closing(open_store(config)) as store:
        of = programme_of(store, programme)
        with store.transaction() as db:
            number = sites.revoke(db, of, site, now())
    if not number:
        raise click.UsageError(f"No box is enrolled at {site}.")
    click.echo(f"The box of {site} is refused from now on.")


@hub.group()
def archive() -> None:
    """Let an archive next door, such as Orthanc, read a programme's films and reads, and send back what is made of them there."""


@archive.command("add")
@click.argument("name")
@programme_option
@click.pass_obj
def archive_add(config: Config, name: str, programme: str) -> None:
    """Make a token, which is shown once; the archive sends it with each request (Authorization: Bearer TOKEN)."""
    if not SITE.fullmatch(name):
        raise click.UsageError("An archive's name has letters, digits, - and _ only.")
    with closing(open_store(config)) as store:
        of = programme_of(store, programme)
        with store.transaction(of) as db:
            token = archives.add(db, name)
            if token is not None:
                ledger.append(db, ledger.HUB, "archive", now(), name=name)
    if token is None:
        raise click.UsageError(
            f"There is an archive called {name} already. Another token: outpost hub archive remove {name}"
        )
    click.echo(token)
    click.echo("DICOMweb is at /dicom-web of the hub, FHIR at /fhir; /openapi.json says what may be asked.", err=True)


@archive.command("remove")
@click.argument("name")
@programme_option
@click.pass_obj
def archive_remove(config: Config, name: str, programme: str) -> None:
    """Refuse an archive from now on."""
    with closing(open_store(config)) as store:
        of = programme_of(store, programme)
        with store.transaction(of) as db:
            removed = archives.remove(db, name)
            if removed:
                ledger.append(db, ledger.HUB, "no_archive", now(), name=name)
    if not removed:
        raise click.UsageError(f"There is no archive called {name}: outpost hub archive list")
    click.echo(f"{name} is refused from now on.")


@archive.command("list")
@programme_option
@click.pass_obj
def archive_list(config: Config, programme: str) -> None:
    """List the archives that may read."""
    with closing(open_store(config)) as store:
        of = programme_of(store, programme)
        with store.reading(of) as db:
            for name in archives.listed(db):
                click.echo(name)


@hub.group()
def account() -> None:
    """Give people their accounts; leads and admins do the same on the hub's pages."""


@account.command("add")
@click.argument("name")
@click.option("--role", type=click.Choice([one.value for one in accounts.Role]), default="reader", show_default=True)
@programme_option
@click.pass_obj
def account_add(config: Config, name: str, role: str, programme: str) -> None:
    """Make an account and a one-time code, with which the person signs in the first time."""
    known = name_of(name)
    if not known:
        raise click.UsageError("A name has 2 to 60 characters.")
    with closing(open_store(config)) as store:
        of = programme_of(store, programme)
        with store.transaction() as db:
            code = accounts.invite(db, accounts.Account(name=known, programme=of, role=accounts.Role(role)))
    if code is None:
        raise click.UsageError(f"There is somebody called {known} already: outpost hub account code NAME")
    click.echo(code)


@account.command("code")
@click.argument("name")
@click.pass_obj
def account_code(config: Config, name: str) -> None:
    """Make a new one-time code for somebody who has lost phone or pass phrase."""
    with closing(open_store(config)) as store, store.transaction() as db:
        known = accounts.get(db, name)
        if known is None:
            raise click.UsageError(f"There is nobody called {name}: outpost hub account list")
        accounts.end_all(db, known.name)
        click.echo(accounts.reset(db, known))


@account.command("list")
@programme_option
@click.pass_obj
def account_list(config: Config, programme: str) -> None:
    """List who may use the hub's pages."""
    with closing(open_store(config)) as store:
        of = programme_of(store, programme)
        with store.reading() as db:
            everyone = accounts.everyone(db, of)
    for one in everyone:
        click.echo(f"{one.name:30} {one.role:8} {'' if one.active else 'may not sign in'}".rstrip())
