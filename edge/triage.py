"""`outpost triage`: the stage line on files and folders, through a temporary box without a network."""

from __future__ import annotations

import json
import sys
import tempfile
import time
from collections.abc import Iterator, Sequence
from contextlib import closing
from datetime import timedelta
from pathlib import Path
from typing import Any

import click
import msgspec

from edge import box, passport, words
from edge import config as settings
from edge.cli import config_of
from edge.config import Config, Intake
from edge.errors import Misconfigured
from edge.records import Film, Outcome, Source, Waiting
from edge.stages import decide
from edge.state import queue, results
from edge.state.objects import Objects
from edge.state.store import now, open_store

POLL_SECONDS = 0.01


@click.command()
@click.argument("paths", nargs=-1, required=True, type=click.Path(path_type=Path, exists=True))
@click.option("--json", "as_json", is_flag=True, help="Print one JSON object per film.")
@click.option(
    "--out",
    type=click.Path(path_type=Path, file_okay=False),
    help="Folder for each film's SR, picture, heat map and FHIR.",
)
@click.pass_context
def triage(ctx: click.Context, paths: tuple[Path, ...], as_json: bool, out: Path | None) -> None:
    """Assess films in files and folders. Preliminary: a person decides."""
    files = sorted_files(paths)
    with tempfile.TemporaryDirectory(prefix="outpost-triage-") as folder:
        asked = config_of(ctx)
        # to try every runtime pays for a box, not for a few films: without a word in the settings the reference is taken
        worker = msgspec.structs.replace(
            asked.worker, bundle=str(passport.folder(asked)), runtime=asked.worker.runtime or "onnx"
        )
        config = msgspec.structs.replace(asked, state=folder, intake=Intake(disk_floor_mib=0), worker=worker)
        films: list[tuple[Path, Film]] = []
        names = called(files)
        with click.progressbar(length=len(files), label="Assessing", file=sys.stderr) as bar:
            for path, film in assess_files(config, files, pictures=out is not None):
                films.append((path, film))
                bar.update(1)
                if as_json:
                    click.echo(json.dumps(summary(path, film), ensure_ascii=False))
                if out is not None:
                    write(out, names[path], path, film, config)
        if not as_json:
            click.echo(table(films))


def sorted_files(paths: Sequence[Path]) -> list[Path]:
    """The files named, and all files below the folders named, in order."""
    return [
        file
        for path in paths
        for file in (sorted(inner for inner in path.rglob("*") if inner.is_file()) if path.is_dir() else [path])
    ]


def called(files: Sequence[Path]) -> dict[Path, str]:
    """What the results of each file are called: its name, with a number in it where another file has the same."""
    found: dict[Path, str] = {}
    taken: set[str] = set()
    for path in dict.fromkeys(files):
        name, number = path.name, 1
        while name.casefold() in taken:  # some disks do not tell A from a
            number += 1
            name = f"{path.stem}-{number}{path.suffix}"
        taken.add(name.casefold())
        found[path] = name
    return found


def assess_files(config: Config, files: Sequence[Path], pictures: bool = False) -> Iterator[tuple[Path, Film]]:
    """Take in the files, and give each with its outcome, and its picture if that is asked for, in order, as soon as it is there.

    Raises `Misconfigured` when the model cannot be used.
    """
    # no patience: what the worker still does after the last outcome is pictures for people, and nobody will look here
    with box.worker(config, patience=0) as worker, closing(open_store(Path(config.state))) as store:
        from edge.intake import Intake as Doors  # slow to import, so while the worker starts

        doors = Doors(config)
        with closing(doors.store):
            accepted = [(path, doors.accept_copy(path, "file")[0]) for path in files]
        for path, arrival in accepted:
            while (film := results.film(store, arrival)).decision is None or (
                pictures and film.preview is None and queue.open_jobs(store, "render")
            ):
                if worker.failed:
                    raise Misconfigured(worker.failed)
                time.sleep(POLL_SECONDS)
            yield path, film


def summary(path: Path, film: Film) -> dict[str, Any]:
    """A film's outcome as `--json` prints it."""
    decision = film.decision
    assert decision is not None
    refusal = decision.refusal
    return {
        "file": str(path),
        "sop_instance_uid": film.arrival.sop_instance_uid,
        "outcome": decision.outcome,
        "reason": None if refusal is None else refusal.reason,
        "next_step": None if refusal is None else words.REASONS[refusal.reason][1],
        "findings": [
            {
                "code": finding.code,
                "scheme": finding.scheme,
                "label": finding.label,
                "probability": round(finding.probability, 4),
                "interval": [round(finding.low, 4), round(finding.high, 4)],
                "unsure": finding.unsure,
            }
            for finding in decision.findings
        ],
        "model": decision.model,
        "device_uid": decision.device_uid,
        "ms": round(sum(film.milliseconds.values()), 2),
    }


FORMS = {"sr": "sr.dcm", "sc": "sc.dcm", "gsps": "gsps.dcm", "fhir": "fhir.json"}
"""What each form of a result is called after the film's name."""


def write(out: Path, name: str, path: Path, film: Film, config: Config) -> None:
    """Write a film's result as `<name>.json`, its heat map as `<name>.map.png`, and its documents under the names of `FORMS`."""
    from edge.stages import report

    out.mkdir(parents=True, exist_ok=True)
    result = json.dumps(summary(path, film), ensure_ascii=False, indent=2)
    (out / f"{name}.json").write_text(result + "\n", encoding="utf-8")
    hidden = config.policy.triage_only
    if film.saliency is not None and not hidden:
        (out / f"{name}.map.png").write_bytes(film.saliency)
    preview = None if film.preview is None else Objects(Path(config.state)).read(film.preview)
    source = Source(film, preview, settings.station(config), hidden)
    for document in report.documents(source, tuple(FORMS)):
        (out / f"{name}.{FORMS[document.kind]}").write_bytes(document.data)


def table(films: Sequence[tuple[Path, Film]], stages: bool = False) -> str:
    """The ranked list as people read it in a terminal; with `stages`, the milliseconds of each stage behind it."""
    of = {film.arrival.id: (path, film) for path, film in films}
    waiting = [
        Waiting(
            film.arrival.id,
            film.arrival.received_at,
            film.arrival.urgency,
            None if film.decision is None else film.decision.outcome,
        )
        for _, film in films
    ]
    ranked = [of[place.arrival_id] for place in decide.rank(set(waiting), now(), timedelta(days=1), ranking=True)]
    rows = [_row(place, path, film, stages) for place, (path, film) in enumerate(ranked, 1)]
    widths = [max(len(row[column]) for row in rows) for column in range(len(rows[0]))] if rows else []
    lines = ["  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip() for row in rows]
    return "\n".join([*lines, "", words.PRELIMINARY])


SHAPES = {Outcome.IMMEDIATE: "▲", Outcome.SOON: "◆", Outcome.ROUTINE: "●", Outcome.COULD_NOT_ASSESS: "?"}


def _row(place: int, path: Path, film: Film, stages: bool) -> list[str]:
    decision = film.decision
    assert decision is not None
    refusal = decision.refusal
    told = (
        words.REASONS[refusal.reason][0]
        if refusal is not None
        else ", ".join(
            f"{finding.label} {finding.probability:.0%} [{finding.low:.0%} to {finding.high:.0%}]"
            + (" (unsure)" if finding.unsure else "")
            for finding in decision.findings
        )
    )
    row = [f"{place:>2}", f"{SHAPES[decision.outcome]} {words.OUTCOMES[decision.outcome]}", path.name, told]
    if stages:
        row.append(" ".join(f"{stage} {milliseconds:.0f}" for stage, milliseconds in film.milliseconds.items()) + " ms")
    return row
