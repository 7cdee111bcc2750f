"""`outpost commission`: what it takes to let the AI rank at this site, and what it would change."""

from __future__ import annotations

import json
import math
import sqlite3
import sys
from contextlib import closing
from dataclasses import asdict
from datetime import timedelta
from pathlib import Path
from typing import Any

import click

from edge import acceptance, evidence, passport, pins, readings
from edge.acceptance import Proposal
from edge.cli import config_of
from edge.config import Config
from edge.errors import Misconfigured, Tampered, Unreadable
from edge.records import Outcome, Role
from edge.stages import decide
from edge.state import accounts, arrivals, audit, calibrations, reads, results, trials
from edge.state.store import now, open_store, transaction
from edge.validity import simulate
from edge.validity.accuracy import RAISED, Accuracy, Difference, Share, accuracy, needed, strata, thresholds
from edge.validity.calibration import Fitted
from edge.validity.doubt import doubt
from models.bundle import load

REPLAYED = 30
"""Fewer films of this site than this are no picture of its days."""


@click.group()
def commission() -> None:
    """Site acceptance: films read here, what the AI says of them, and a lead's signature."""


@commission.command()
@click.option("--json", "as_json", is_flag=True, help="Print the figures as JSON.")
@click.option("--thresholds", "every", is_flag=True, help="Also the cost at every threshold.")
@click.pass_context
def show(ctx: click.Context, as_json: bool, every: bool) -> None:
    """Show how the AI does on the films that were read here, and how many more are needed."""
    config = config_of(ctx)
    with closing(open_store(Path(config.state))) as store:
        proposed = acceptance.proposals(config, store)
    if as_json:
        click.echo(json.dumps([_figures(one) for one in proposed], ensure_ascii=False, indent=2))
        return
    for one in proposed:
        click.echo(_words(one, every))


@commission.command("import")
@click.argument("file", type=click.Path(path_type=Path, exists=True, dir_okay=False))
@click.option("--films", type=click.Path(path_type=Path, exists=True, file_okay=False), help="Folder of the films.")
@click.option("--by", required=True, help="Your name, for the ledger.")
@click.pass_context
def import_readings(ctx: click.Context, file: Path, films: Path | None, by: str) -> None:
    """Take in films that were read elsewhere: a CSV with the columns film, reading, and if you like reader, read_at."""
    from edge.intake import Intake

    config = config_of(ctx)
    listed, wrong = readings.parse(file, now())
    if wrong:
        raise Unreadable(_list(wrong))
    files: dict[str, int] = {}
    with closing(open_store(Path(config.state))) as store:
        wanted = {reading.film for reading in listed}
        known = {name for name in wanted if arrivals.of_instance(store, name)}
        if films is not None:
            intake = Intake(config)
            with (
                closing(intake.store),
                click.progressbar(list(readings.files_of(films)), label="Films", file=sys.stderr) as bar,
            ):
                for path in bar:
                    files |= _taken(intake, path, str(path.relative_to(films)), wanted - known)
        placed, wrong = readings.place(store, listed, files)
        if wrong:
            raise Unreadable(_list(wrong))
        new = readings.keep(store, placed, by, now())
    click.echo(
        f"{new} readings were taken in, {len(placed) - new} were here already. The AI assesses the films by itself."
    )


def _taken(intake: Any, path: Path, name: str, wanted: set[str]) -> dict[str, int]:
    """Take in a film that a reading names, by its file or by its identifier."""
    from edge.intake import sop_instance_uid

    if name not in wanted and sop_instance_uid(path) not in wanted:
        return {}
    return {name: intake.accept_copy(path, arrivals.FOR_ACCEPTANCE)[0]}


def _list(wrong: list[str]) -> str:
    shown = "\n  ".join(wrong[:50])
    more = f"\n  … and {len(wrong) - 50} more" if len(wrong) > 50 else ""
    return f"nothing was taken in:\n  {shown}{more}"


@commission.command()
@click.option("--by", required=True, help="Your name, for the ledger.")
@click.pass_context
def recalibrate(ctx: click.Context, by: str) -> None:
    """Propose a calibration of the model from the films read here; nothing changes before a lead signs it."""
    from edge import recalibration

    config = config_of(ctx)
    with closing(open_store(Path(config.state))) as store:
        made, lacking = recalibration.propose(config, store, by, now())
    for key, fitted in made.findings.items():
        click.echo("\n".join(_held(key, fitted)))
    for one in lacking:
        click.echo(f"  {recalibration.too_few(one)} It keeps the model's own calibration.")
    click.echo(
        f"Proposed as {made.digest[:12]}. Nothing has changed yet. Look at it with `outpost commission show` or on the page\n"
        "/commission; a lead signs it with: outpost commission sign --calibration proposed --by NAME"
    )


@commission.command()
@click.option("--by", required=True, help="The name of the lead's account.")
@click.password_option(
    "--pin", confirmation_prompt=False, prompt="PIN of that account", help="Asked for when not given."
)
@click.pass_context
def revert(ctx: click.Context, by: str, pin: str) -> None:
    """Go back to the calibration and operating point that were accepted here before the present ones. Only a lead can."""
    from edge import recalibration

    config = config_of(ctx)
    with closing(open_store(Path(config.state))) as store:
        lead = _lead(store, by, pin)
        _sign(store, recalibration.before(config, store), lead)


@commission.command()
@click.option("--by", required=True, help="The name of the lead's account.")
@click.option(
    "--calibration",
    type=click.Choice(["present", "own", "proposed"]),
    default="present",
    show_default=True,
    help="The one in use, the model's own, or the newest that `recalibrate` proposed.",
)
@click.option("--operating-point", help="One of those that `show` names; else the default one.")
@click.password_option(
    "--pin", confirmation_prompt=False, prompt="PIN of that account", help="Asked for when not given."
)
@click.pass_context
def sign(ctx: click.Context, by: str, calibration: str, operating_point: str | None, pin: str) -> None:
    """Accept the model for this site: from now on it ranks here. Only a lead can."""
    config = config_of(ctx)
    with closing(open_store(Path(config.state))) as store:
        lead = _lead(store, by, pin)
        proposed = acceptance.proposals(config, store)
        wanted = _calibration(store, config, calibration)
        chosen = [
            one
            for one in proposed
            if operating_point in (None, one.operating_point) and passport.digest(one.calibration) == wanted
        ]
        if not chosen:
            raise Misconfigured(f"No operating point {operating_point!r}; `outpost commission show` names them.")
        _sign(store, chosen[0], lead)


def _lead(store: sqlite3.Connection, by: str, pin: str) -> str:
    account = accounts.get(store, by)
    if account is None or not account.active or account.role is not Role.LEAD or not pins.fits(pin, account.secret):
        raise Misconfigured(f"{by!r} is no lead on this box, or the PIN is wrong. Nothing was signed.")
    return account.name


def _sign(store: sqlite3.Connection, chosen: Proposal, lead: str) -> None:
    with transaction(store):
        acceptance.sign(store, chosen, lead, now())
    click.echo(
        f"Accepted by {lead}: {chosen.model}, {_calibrated(chosen)}, operating point {chosen.operating_point}. It ranks now."
    )


def _calibration(store: sqlite3.Connection, config: Config, named: str) -> str:
    """The digest of the calibration that is meant; empty for the model's own."""
    bundle = load(passport.folder(config))
    if named == "own":
        return passport.OWN
    if named == "present":
        return passport.digest(passport.in_use(store, bundle)[1])
    if not (known := calibrations.of_bundle(store, bundle.digest)):
        raise Misconfigured("No calibration was proposed. Make one: outpost commission recalibrate --by NAME")
    return known[-1].digest


@commission.command()
@click.option("--films-per-day", type=click.FloatRange(1), help="Describe a clinic instead of replaying this one.")
@click.option(
    "--minutes-per-film", type=click.FloatRange(0.1), default=3.0, show_default=True, help="A person's time for a film."
)
@click.option("--hours", type=click.FloatRange(1, 24), default=8.0, show_default=True, help="Open hours a day.")
@click.option(
    "--abnormal", type=click.FloatRange(0, 1), default=0.1, show_default=True, help="Share of abnormal films."
)
@click.option("--sensitivity", type=click.FloatRange(0, 1), default=0.9, show_default=True)
@click.option("--specificity", type=click.FloatRange(0, 1), default=0.8, show_default=True)
@click.option("--readers", type=click.IntRange(1, 50), default=1, show_default=True)
@click.option("--days", type=click.IntRange(1, 1000), default=100, show_default=True)
@click.option("--seed", type=int, default=1, show_default=True)
@click.pass_context
def queue(
    ctx: click.Context,
    films_per_day: float | None,
    minutes_per_film: float,
    hours: float,
    abnormal: float,
    sensitivity: float,
    specificity: float,
    readers: int,
    days: int,
    seed: int,
) -> None:
    """Simulate how long films wait with and without the AI's order: this site's own arrivals, or a described clinic."""
    config = config_of(ctx)
    if films_per_day is None:
        visits = own_arrivals(config, minutes_per_film, seed)
        click.echo(f"The {len(visits)} films that came to this box, each read in {minutes_per_film:g} min on average.")
    else:
        described = simulate.Clinic(films_per_day, hours, minutes_per_film, abnormal, sensitivity, specificity)
        if films_per_day * minutes_per_film / (hours * 60 * readers) >= 1:
            raise Misconfigured("More films come than can be read. Give more readers or hours, or fewer films.")
        visits = simulate.describe(described, days, seed)
        click.echo(f"{len(visits)} films of a clinic as you describe it, in {days} days.")
    cap = timedelta(minutes=config.worklist.wait_cap_minutes)
    orders = {
        "in order of arrival": lambda waiting, at: decide.rank(waiting, at, cap, ranking=False),
        "in the AI's order": lambda waiting, at: decide.rank(waiting, at, cap, ranking=True),
    }
    click.echo(f"{'minutes waited':<34}{'mean':>8}{'90 %':>8}{'longest':>9}{'films':>8}")
    waits = {name: simulate.summary(visits, simulate.replay(visits, order, readers)) for name, order in orders.items()}
    for kind in waits["in order of arrival"]:
        for name in orders:
            told = waits[name][kind]
            if told.films:
                click.echo(
                    f"{kind.replace('_', ' ') + ', ' + name:<34}{told.mean:>8.1f}{told.percentile90:>8.1f}"
                    f"{told.longest:>9.1f}{told.films:>8}"
                )


def own_arrivals(config: Config, minutes_per_film: float, seed: int) -> list[simulate.Visit]:
    """The films that came to this box, as the AI sees them; what nobody has read is taken as the AI has it.

    Raises `Misconfigured` where there are too few.
    """
    import random

    draw = random.Random(seed)
    with closing(open_store(Path(config.state))) as store:
        standing = reads.standing(store)
        films = [film for film in results.films(store) if film.decision is not None]
        if len(films) < REPLAYED:
            raise Misconfigured(
                f"Only {len(films)} films have come; {REPLAYED} are needed. Describe the clinic with --films-per-day."
            )
        first = films[0].arrival.received_at
        return [
            simulate.Visit(
                arrival=max((film.arrival.received_at - first).total_seconds() / 60, 0.0),
                reading=draw.expovariate(1 / minutes_per_film),
                abnormal=(read.outcome if (read := standing.get(film.arrival.id)) else film.decision.outcome)
                is not Outcome.ROUTINE,
                outcome=film.decision.outcome,
                urgency=film.arrival.urgency,
            )
            for film in sorted(films, key=lambda film: film.arrival.received_at)
            if film.decision is not None
        ]


@commission.group()
def trial() -> None:
    """The trial of the AI's order against order of arrival, which a lead registers on the tablet."""


@trial.command("show")
@click.pass_context
def show_trial(ctx: click.Context) -> None:
    """Show how many films came and were randomized; once the trial has ended, its counts and times as JSON."""
    config = config_of(ctx)
    with closing(open_store(Path(config.state))) as store:
        found = _trial(store)
        if found.ended_at is not None:
            click.echo(evidence.summary(evidence.gather(config, store, found)))
            return
        came, excluded = evidence.counts(store, found)
    out = ", ".join(f"{number} {why}" for why, number in excluded.items()) or "0"
    click.echo(
        f"{found.protocol.title}: it runs. {came} films came; left out: {out}. Results are told when it has ended."
    )


@trial.command("export")
@click.option(
    "--out", required=True, type=click.Path(path_type=Path, file_okay=False), help="Folder for the two files."
)
@click.option("--by", required=True, help="Your name, for the ledger.")
@click.pass_context
def export_trial(ctx: click.Context, out: Path, by: str) -> None:
    """Write the trial that has ended as trial.csv and trial.json: pseudonyms, codes and minutes, no names and no dates."""
    config = config_of(ctx)
    with closing(open_store(Path(config.state))) as store:
        found = _ended(store)
        gathered = evidence.gather(config, store, found)
        with transaction(store):
            audit.append(store, audit.Event.TRIAL_EXPORTED, by, now(), trial=found.id)
    try:
        out.mkdir(parents=True, exist_ok=True)
        (out / "trial.csv").write_text(evidence.table(gathered), encoding="utf-8")
        (out / "trial.json").write_text(evidence.summary(gathered), encoding="utf-8")
    except OSError as error:
        raise Misconfigured(f"{out}: {error.strerror}. Give a folder that can be written to.") from error
    click.echo(f"{len(gathered.films)} randomized films written to {out}.")


@trial.command("verify")
@click.pass_context
def verify_trial(ctx: click.Context) -> None:
    """Check that every film's arm follows from the seed that was committed to before the first film."""
    config = config_of(ctx)
    with closing(open_store(Path(config.state))) as store:
        found = _ended(store)
        if wrong := evidence.proof(store, found):
            raise Tampered("\n  ".join(["the arms are not those of the seed:", *wrong[:50]]))
    click.echo("Every arm follows from the seed, and the seed from what was written down at the registration.")


def _trial(store: sqlite3.Connection) -> trials.Trial:
    found = trials.latest(store)
    if found is None:
        raise Misconfigured("No trial was registered on this box. A lead does so on the tablet, under Trial.")
    return found


def _ended(store: sqlite3.Connection) -> trials.Trial:
    found = _trial(store)
    if found.ended_at is None:
        raise Misconfigured("The trial runs. A lead ends it on the tablet first; nothing is told before.")
    return found


def _words(one: Proposal, every: bool) -> str:
    told = accuracy(one.films)
    head = f"{one.model}, {_calibrated(one)}, operating point {one.operating_point}"
    lines = [f"{head}: {len(one.films)} films that were read here"]
    for key, fitted in {} if one.calibration is None else one.calibration.findings.items():
        lines += _held(key, fitted)
    lines += _shares("all", told)
    for name, some in strata(one.films).items():
        lines += _shares(name, some)
    for name, compared in (("sensitivity", one.sensitivity), ("specificity", one.specificity)):
        if compared is not None:
            lines.append(f"  {name} against the accepted model  {_difference(compared)}")
    if every:
        for finding in sorted({film.finding for film in one.films if film.finding}):
            lines.append(f"  {finding}: from    found          right to leave  raised  missed of 100")
            for at in thresholds(one.films, finding):
                lines.append(
                    f"    {at.at:.3f}  {_share(at.sensitivity):<26}  {_share(at.specificity):<26}"
                    f"  {at.raised:>5.1f}  {at.missed:>5.1f}"
                )
    for finding in sorted({film.finding for film in one.films if film.finding}):
        if (unsure := doubt(one.films, finding)) is not None:
            lines.append(
                f"  {finding}: neither abnormal nor normal from {unsure.low:.3f} to {unsure.high:.3f} "
                f"({unsure.undecided.count} of {unsure.undecided.of} films), if of 100 films of either kind 95 shall not be "
                f"called the other. From so few films it may be {100 * unsure.least:.0f} of 100."
            )
    more = needed(one.films)
    if (promised := _promised(one)) is not None:
        lines.append(
            f"  If the calibration still holds, {promised:.0f} of 100 abnormal films are raised. That proves nothing."
        )
    lines.append(f"  {f'{more} more films are needed to know this to ten points.' if more else 'Enough films.'}")
    lines.append(f"  {one.obstacle or 'A lead can sign it, by name: outpost commission sign'}")
    return "\n".join(lines)


def _calibrated(one: Proposal) -> str:
    return "the model's own calibration" if one.calibration is None else f"calibration {one.calibration.digest[:12]}"


def _held(key: str, fitted: Fitted) -> list[str]:
    """How a finding's calibration did on the films that it was not made from."""
    held = fitted.held
    before, after = (math.sqrt(one) for one in held.brier)
    found = ", ".join(f"{point} {old} to {new} of {held.abnormal}" for point, (old, new) in held.found.items())
    return [
        f"  {key}: {held.reads} films of {held.patients} patients read without seeing the AI, {held.abnormal} abnormal",
        f"    held out by patient: the probability is off by {before:.3f} before, {after:.3f} after (root mean square)",
        f"    abnormal films put first, before to after: {found}",
    ]


def _promised(one: Proposal) -> float | None:
    """The sensitivity that the probabilities themselves promise, of 100."""
    raised = sum(film.probability for film in one.films if film.outcome in RAISED)
    total = sum(film.probability for film in one.films)
    return 100 * raised / total if total else None


def _shares(name: str, told: Accuracy) -> list[str]:
    named = {"sensitivity": told.sensitivity, "specificity": told.specificity, "PPV": told.ppv, "NPV": told.npv}
    named["could not assess"] = told.abstained
    return [f"  {name:<6} {kind:<17} {_share(share)}" for kind, share in named.items()]


def _share(share: Share) -> str:
    if not share.of:
        return "no film"
    low, high = share.interval
    return f"{share.value:.2f} [{low:.2f} to {high:.2f}] {share.count}/{share.of}"


def _difference(compared: Difference) -> str:
    verdict = "not worse, as far as can be told" if compared.non_inferior else "may be worse"
    return f"{compared.value:+.2f} [{compared.low:+.2f} to {compared.high:+.2f}] {compared.of} films: {verdict}"


def _figures(one: Proposal) -> dict[str, Any]:
    def plain(told: Accuracy) -> dict[str, Any]:
        return {
            name: {"count": share.count, "of": share.of, "interval": share.interval}
            for name in asdict(told)
            for share in [getattr(told, name)]
        }

    return {
        "model": one.model,
        "operating_point": one.operating_point,
        "calibration": passport.digest(one.calibration),
        "device_uid": one.device_uid,
        "films": len(one.films),
        "pending": one.pending,
        "needed": needed(one.films),
        "obstacle": one.obstacle,
        "all": plain(accuracy(one.films)),
        "strata": {name: plain(told) for name, told in strata(one.films).items()},
    }
