"""`outpost drift`: whether films have changed here, what to do, and how soon a change would be found."""

from __future__ import annotations

import sys
from contextlib import closing
from datetime import datetime
from pathlib import Path

import click

from edge import pins, surveillance, words
from edge.cli import config_of
from edge.errors import Misconfigured
from edge.records import Role
from edge.state import accounts
from edge.state.store import now, open_store, transaction
from edge.validity import packet
from edge.validity.verdict import Alarm


@click.group()
def drift() -> None:
    """Drift: whether the films of late are still such as the AI was accepted with."""


@drift.command()
@click.pass_context
def status(ctx: click.Context) -> None:
    """Say whether anything has moved, since when, why probably, and what to do."""
    with closing(open_store(Path(config_of(ctx).state))) as store:
        verdict = surveillance.current(store)
    if verdict is None:
        click.echo("No day of films has ended yet. Nothing to do.")
    elif verdict.more_days or verdict.more_films:
        click.echo(
            f"Too few to say: {verdict.days} days with {verdict.films} films. "
            f"{verdict.more_days} more days and {verdict.more_films} more films are needed. Nothing to do."
        )
    elif verdict.alarm is None:
        click.echo(f"Nothing has moved in {verdict.days} days with {verdict.films} films. Nothing to do.")
    else:
        click.echo(_words(verdict.alarm))


def _words(alarm: Alarm) -> str:
    sentence, action = words.CAUSES[alarm.cause]
    about = [
        f"{name} {', '.join(some)}"
        for name, some in (("X-ray unit", alarm.devices), ("view", alarm.views), ("ages", alarm.ages))
        if some
    ]
    return "\n".join(
        [
            f"The films are no longer such as they were here: found on {alarm.found}, probably since {alarm.since}.",
            f"  {sentence} {action}",
            f"  Moved: {', '.join(alarm.charts)}." + (f" Only: {'; '.join(about)}." if about else ""),
            "  When this is settled and shall count as usual from now on: outpost drift restart --by NAME",
        ]
    )


@drift.command("packet")
@click.argument("day", type=click.DateTime(["%Y-%m-%d"]))
@click.option(
    "--out", type=click.Path(path_type=Path), help="Write the packet as it would travel, instead of its numbers."
)
@click.pass_context
def packet_(ctx: click.Context, day: datetime, out: Path | None) -> None:
    """Print what a day's packet says: all that a hub would get to know of that day."""
    with closing(open_store(Path(config_of(ctx).state))) as store:
        packets = surveillance.of_day(store, day.date())
    if not packets:
        raise Misconfigured(f"No film was counted on {day:%Y-%m-%d}.")
    for one in packets:
        data = packet.encode(one)
        if out is not None:
            out.write_bytes(data)
        click.echo(f"{one.day} edges {one.edges}: {len(data)} bytes")
        for key, tally in one.strata.items():
            if key.view != packet.ALL:
                counts = {name: packet.count(tally, name) for name in packet.COUNTS}
                told = ", ".join(f"{count} {name}" for name, count in counts.items() if count)
                click.echo(f"  X-ray unit {key.device or '?'}, view {key.view or '?'}, ages {key.ages or '?'}: {told}")
        for stream in packet.STREAMS:
            n, total, _ = packet.moments(one.whole, stream)
            bins = " ".join(map(str, packet.histogram(one.whole, stream)))
            click.echo(f"  {stream:<10} {n} films, mean {total / n if n else 0:+.2f}  {bins}")


@drift.command()
@click.option("--by", required=True, help="The name of the lead's account.")
@click.password_option(
    "--pin", confirmation_prompt=False, prompt="PIN of that account", help="Asked for when not given."
)
@click.pass_context
def restart(ctx: click.Context, by: str, pin: str) -> None:
    """Take the films from now on as what is usual here. Only a lead can; it is written into the ledger."""
    with closing(open_store(Path(config_of(ctx).state))) as store:
        account = accounts.get(store, by)
        if account is None or not account.active or account.role is not Role.LEAD or not pins.fits(pin, account.secret):
            raise Misconfigured(f"{by!r} is no lead on this box, or the PIN is wrong. Nothing was changed.")
        with transaction(store):
            stood = surveillance.begin_anew(store, account.name, now())
    ended = f" The alarm of {stood.found} has ended." if stood is not None else ""
    click.echo(f"The watch begins anew with the next film.{ended}")


@drift.command()
@click.option(
    "--films", multiple=True, type=click.IntRange(2, 1000), default=(10, 30, 100), show_default=True, help="A day."
)
@click.option("--shift", multiple=True, type=click.FloatRange(0.05, 5), default=(0.3, 0.5, 1.0), show_default=True)
@click.option(
    "--effect", multiple=True, type=click.FloatRange(0, 1), default=(0.0, 0.2), show_default=True, help="Of days."
)
@click.option("--history", type=click.IntRange(30, 365), default=180, show_default=True, help="Days learnt from.")
@click.option(
    "--sites", type=click.IntRange(20, 5000), default=100, show_default=True, help="Simulated, for each line."
)
@click.option(
    "--years", type=click.IntRange(0, 5000), default=0, show_default=True, help="Quiet years, to count alarms."
)
@click.option("--seed", type=int, default=1, show_default=True)
def simulate(
    films: tuple[int, ...],
    shift: tuple[float, ...],
    effect: tuple[float, ...],
    history: int,
    sites: int,
    years: int,
    seed: int,
) -> None:
    """Simulate how many days a change goes unnoticed, beside what others watch with; shifts are in spreads of single films."""
    from edge.validity import planning
    from edge.validity.sensitivity import BAD, GOOD

    clinics = [planning.Clinic(number, spread, history) for number in films for spread in effect]
    steps = len(clinics) * (len(shift) + 1)
    with click.progressbar(length=steps, label="Simulating", file=sys.stderr) as bar:
        rows = list(planning.table(clinics, list(shift), seed, sites, lambda: bar.update(1)))
    head = "".join(f"{f'{one:g} sd':>12}" for one in shift)
    click.echo(f"{'films a day, spread of days':<28}{'':<12}{head}   days until found, median (90 %)")
    for clinic, name, found in rows:
        told = "".join(f"{f'{one.median:g} ({one.percentile90:g})':>12}" for one in found)
        click.echo(f"{f'{clinic.films_per_day}, {clinic.effect:g} sd':<28}{name:<12}{told}")
    click.echo(f"{planning.PATIENCE} stands for: not found by then.")
    fall = GOOD - BAD
    for pooled in (planning.Programme(1), planning.Programme(10)):
        one = planning.Found(fall, tuple(planning.days_to_find_misses(pooled, iter(range(seed, seed + sites)))))
        click.echo(
            f"{pooled.clinics} x {pooled.films_per_day} films a day, {pooled.abnormal:.0%} abnormal, {pooled.share:.0%} of the "
            f"others read: sensitivity {GOOD:.2f} to {BAD:.2f} found in {one.median:g} ({one.percentile90:g})."
        )
    if years:
        clinic = planning.Clinic(history=history)
        with click.progressbar(
            planning.quiet_years(clinic, iter(range(seed, seed + years))), years, "Quiet years"
        ) as told_:
            quiet = planning.Quiet(tuple(told_))
        low, high = quiet.interval
        click.echo(
            f"{clinic.films_per_day} films a day, spread of days {clinic.effect:g} sd, {years} years without a change: "
            f"{sum(quiet.alarms)} alarms, {sum(quiet.alarms) / years:.2f} a year [{low:.2f} to {high:.2f}]; "
            f"{sum(not one for one in quiet.alarms)} years without any (e^-1 of them is {years / 2.718281828:.0f})"
        )
