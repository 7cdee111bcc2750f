"""`outpost check`: what works, what does not, and what to do about it; one function per check."""

from __future__ import annotations

import socket
from collections.abc import Callable
from contextlib import closing
from datetime import datetime
from pathlib import Path
from typing import TypeVar

import click

from edge import config as settings
from edge import phantom, setup, syslog, words
from edge.cli import config_of
from edge.config import Config, DicomSink, FolderSink, Hl7Sink, Modality, Sink
from edge.errors import Misconfigured, OutpostError, Tampered, Transient
from edge.records import Role
from edge.state import acceptances, accounts, device, forwarding, phantoms, sync, trust
from edge.state import audit as ledger
from edge.state.objects import Objects
from edge.state.store import BUILT, now, open_store
from models.bundle import Mismatch, load

T = TypeVar("T")


def state(config: Config) -> str:
    """The state folder can be written and its database is sound."""
    with closing(open_store(Path(config.state))) as store:
        verdict = store.execute("PRAGMA quick_check").fetchone()[0]
    if verdict != "ok":
        raise Misconfigured(f"the database is damaged ({verdict}). Restore the last backup.")
    return f"{config.state} is sound"


def disk(config: Config) -> str:
    """There is room for films."""
    free, floor = Objects(Path(config.state)).free_mib(), config.intake.disk_floor_mib
    if free < floor:
        raise Misconfigured(f"{free} MiB free, {floor} MiB needed: films are refused. Free some space.")
    return f"{free} MiB free, films are accepted down to {floor} MiB"


def clock(config: Config) -> str:
    """The clock is plausible: not before this version was made, nor before the newest film."""
    with closing(open_store(Path(config.state))) as store:
        newest = store.execute("SELECT MAX(received_at) FROM arrival").fetchone()[0]
    latest = max(BUILT, datetime.fromisoformat(newest)) if newest else BUILT
    if now() < latest:
        raise Misconfigured(f"the clock shows {now():%Y-%m-%d %H:%M}, which has already passed. Set the clock.")
    return f"{now():%Y-%m-%d %H:%M} UTC"


def certificate(config: Config) -> str:
    """The pages can be trusted at the time that the clock shows, under the names of the settings."""
    held = trust.read(Path(config.state))
    if held is None:
        return "made at the first start"
    if not held.believes(now()):
        raise Misconfigured(
            f"the clock shows {now():%Y-%m-%d}, when the box's certificate cannot be renewed. Set the clock."
        )
    for name in config.web.names:
        if not trust.permitted(held.authority, name):
            raise Misconfigured(
                f"{name!r} was not among web.names when the box's authority was made, so it cannot speak for that name. "
                f"Take the name out, or remove {held.file.parent}: then a new one is made, and every tablet joins again."
            )
    begin, end = held.certificate.not_valid_before_utc, held.certificate.not_valid_after_utc
    last = held.authority.not_valid_after_utc
    if last - now() < trust.LEAF:
        raise Misconfigured(
            f"the box's authority ends on {last:%Y-%m-%d}. Remove {held.file.parent} and start the box: then a new one "
            "is made, and every tablet joins again."
        )
    good = "renewed by itself" if begin <= now() < end else "not good at this time; renewed with the next connection"
    return f"good until {end:%Y-%m-%d}, {good}; {held.name}, SHA-256 {held.fingerprint}"


def people(config: Config) -> str:
    """Somebody can let the others in."""
    with closing(open_store(Path(config.state))) as store:
        leads = [one.name for one in accounts.everyone(store) if one.active and one.role is Role.LEAD]
    if leads:
        return f"{len(leads)} who can let others in"
    return f"no lead yet: `outpost serve` prints the code that makes one, and {setup.file(config)} holds it"


def model(config: Config) -> str:
    """The model is what its manifest says and computes what it shall on this device."""
    from edge.reader import open_reader

    with closing(open_store(Path(config.state))) as store:
        reader = open_reader(config, store)
        accepted = acceptances.accepted(store) == reader.device_uid
    use = "accepted here, it ranks" if accepted else "shadow mode: it computes, it does not rank"
    return f"{reader.name}, operating point {reader.operating_point}, self-test passed; {use}"


def daily(config: Config) -> str:
    """The daily test films come out of the whole way, from the DICOM port to the report, as they should."""
    from edge import passport

    try:
        bundle = load(passport.folder(config))
    except (Mismatch, OSError, ValueError):
        return "comes once the model can be used"
    with closing(open_store(Path(config.state))) as store:
        last, found = phantoms.newest(store, bundle.digest), phantoms.verdict(store, bundle.digest)
    if found is not None and found.why:
        raise Tampered(
            f"the AI is stopped: {found.why} ({found.at:%Y-%m-%d %H:%M}). Start the box again; "
            "if that does not help, install the model again or have the board exchanged."
        )
    if last is None:
        return "comes once the box runs"
    if found is None or now() - found.at > phantom.LATE:
        raise Misconfigured(
            f"no test film has come through since {found.at if found else last.made_at:%Y-%m-%d %H:%M}. "
            "Are both intake and worker running?"
        )
    return f"passed {found.at:%Y-%m-%d %H:%M}, off by {found.off:.4f}, {bundle.manifest.self_test.tolerance} allowed"


def ports(config: Config) -> str:
    """The ports are this box's to use, or its services are on them."""
    answers = []
    for name, host, port in (
        ("DICOM", config.intake.host, config.intake.port),
        ("pages", config.web.host, config.web.port),
        ("join page", config.web.host, config.web.join_port),
    ):
        if port == "none":
            continue
        with closing(socket.socket()) as probe:
            probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            try:
                probe.bind((host, port))
                answers.append(f"{name} {port} free")
            except PermissionError:
                raise Misconfigured(f"{name} port {port} needs root. Choose one above 1023.") from None
            except OSError:
                answers.append(f"{name} {port} in use (by this box, if it runs)")
    return ", ".join(answers)


def audit(config: Config) -> str:
    """The ledger is whole, and the audit record repository, if there is one, lets the box in."""
    with closing(open_store(Path(config.state))) as store:
        broken = ledger.verify(store)
        number, _ = ledger.head(store)
        stood = forwarding.standing(store, syslog.repository(config.audit))
    if broken is not None:
        raise Tampered(f"the ledger is broken at record {broken.id}. {' '.join(words.BREAKS[broken.why])}")
    if not config.audit.host:
        return f"{number} records, whole; they are sent nowhere"
    receipt = syslog.probe(config)
    if receipt.trouble is not None:
        where = syslog.repository(config.audit)
        raise Transient(_trouble("repository", where, words.CHECKED[receipt.trouble], receipt.detail))
    return f"{number} records, whole; the repository lets the box in and has {stood.id}"


def way_out(sink: Sink) -> str:
    """A way out would take a result now."""
    from edge.sinks import open_sink

    receipt = open_sink(sink).probe()
    if receipt.trouble is None:
        return f"{sink.name}: {receipt.detail}"
    raise Transient(_trouble(sink.name, _place(sink), words.CHECKED[receipt.trouble], receipt.detail))


def unit(modality: Modality, ae_title: str) -> str:
    """An X-ray unit answers an echo of the box."""
    from edge.connections import echo

    receipt = echo(modality, ae_title)
    if receipt.trouble is None:
        return f"{modality.ae_title} answers"
    place = f"{modality.host}:{modality.port}"
    raise Transient(_trouble(modality.ae_title, place, words.CHECKED[receipt.trouble], receipt.detail))


def _place(sink: Sink) -> str:
    if isinstance(sink, FolderSink):
        return sink.path
    return f"{sink.host}:{sink.port}" if isinstance(sink, DicomSink | Hl7Sink) else sink.url


def _trouble(name: str, place: str, said: tuple[str, str], detail: str) -> str:
    """What is wrong, where exactly, and what to do: whoever stands before it has to find the cable or the line in the settings."""
    sentence, action = said
    return f"{name}: {sentence} ({', '.join(filter(None, (place, detail)))}) {action}"


def orders(config: Config) -> str:
    """The RIS gives its orders now."""
    if not config.ris.host:
        return "no RIS in the settings: patients are registered on the tablet"
    from edge.ris import ask

    answer = ask(config, now())
    if answer.trouble is None:
        return f"{config.ris.ae_title} gives {len(answer.orders)}, from yesterday to tomorrow"
    place = f"{config.ris.host}:{config.ris.port}"
    raise Transient(_trouble(config.ris.ae_title, place, words.RIS[answer.trouble], answer.detail))


def hub(config: Config) -> str:
    """The hub lets the box in now."""
    if not config.hub.url:
        return "none in the settings: nothing leaves toward one"
    with closing(open_store(Path(config.state))) as store:
        known = device.hub(store)
        if known is None:
            raise Misconfigured(f"{config.hub.url}: the box is not enrolled yet. Type: outpost enrol CODE")
        from edge.link import Link
        from edge.wire import Wire

        with closing(Wire(config.hub, lambda: known.pin)) as wire:
            receipt = Link(config, store, wire).probe()
        waits = len(sync.unsent(store))
    if receipt.trouble is not None:
        raise Transient(_trouble("hub", config.hub.url, words.HUB[receipt.trouble], receipt.detail))
    return f"lets the box in as {receipt.detail}; {waits} films have not arrived there yet"


CHECKS: tuple[Callable[[Config], str], ...] = (
    state,
    disk,
    clock,
    certificate,
    people,
    model,
    daily,
    ports,
    audit,
    orders,
    hub,
)


@click.command()
@click.option(
    "--setup-code", is_flag=True, help="The only lead has lost their PIN: print a new one-time code for /setup."
)
@click.pass_context
def check(ctx: click.Context, setup_code: bool) -> None:
    """Check settings, state, clock, people, model, ports, RIS, X-ray units, ways out: what works, what does not, what to do."""
    config = config_of(ctx)
    if setup_code:
        click.echo(
            f"{setup.renew(config)} on the page /setup makes a lead, or gives a person of that name a new PIN; once"
        )
        return
    theirs = ", ".join(settings.by_hub(config))
    click.echo(f"✔ settings    read{f'; the hub has set {theirs}' if theirs else ''}")
    failed = False
    for one in CHECKS:
        failed |= not _says(one.__name__, one, config)
    for modality in config.modalities:
        if modality.host:
            failed |= not _says("X-ray unit", lambda one: unit(one, config.intake.ae_title), modality)
    for sink in config.sinks:
        failed |= not _says("way out", way_out, sink)
    ctx.exit(1 if failed else 0)


def _says(name: str, one: Callable[[T], str], of: T) -> bool:
    """Print what a check says, and whether it is well."""
    try:
        click.echo(f"✔ {name:<11} {one(of)}")
    except OutpostError as error:
        click.echo(f"✘ {name:<11} {error}")
        return False
    return True
