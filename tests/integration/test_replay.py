"""Real films of one source, then of another or treated otherwise: the watch finds each change and names its cause.

The rules of `edge/validity/cause.py` were written on films of these sources, as there are no others: that a cause is named here
says that the signals carry it, not how often it will be named elsewhere. What is treated otherwise are the films of the history
themselves, drawn anew: two halves of NIH's patients already differ, and the watch finds that too.
"""

from __future__ import annotations

import csv
import tempfile
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from datetime import date, timedelta
from functools import cache
from pathlib import Path

import numpy as np
import numpy.typing as npt
import pytest
from PIL import Image

from edge.config import Config
from edge.reader import Reader, open_reader
from edge.samples import film
from edge.validity import packet, watch
from edge.validity.packet import Packet, Stratum, Tally
from edge.validity.verdict import Alarm, Cause
from edge.worker import assess
from tests.box import ROOT

pytestmark = pytest.mark.needs_data

DATA = ROOT.parent / "shared/data"
HISTORY, AFTER, A_DAY = 40, 14, 30
FIRST = date(2026, 1, 1)
SEEDS = 20
FILMS = 200
"""Of each source at most, so that the measuring takes a minute or two."""

Gray = npt.NDArray[np.float32]
Seen = tuple[Stratum, Tally]


def as_it_is(gray: Gray) -> Gray:
    """The film."""
    return gray


def bilinear(gray: Gray, size: int) -> Gray:
    """The model's input as the usual libraries make it: see `models/prepare.py` for ours."""
    square = np.asarray(Image.fromarray(gray).resize((size, size), Image.Resampling.BILINEAR))
    low, high = np.percentile(square, (1, 99))
    return np.clip((square - low) / (high - low), 0, 1).astype(np.float32)[None, None]


@dataclass(frozen=True)
class Change:
    """What comes after the history."""

    source: str
    treat: Callable[[Gray], Gray] = as_it_is
    prepare: Callable[[Gray, int], Gray] | None = None


CHANGES: dict[str, tuple[Change, Cause]] = {
    "children of Guangzhou": (Change("kermany"), Cause.POPULATION),
    "adults of Hannover": (Change("hannover"), Cause.DETECTOR),
    "inverted": (Change("nih", lambda gray: 1 - gray), Cause.POLARITY),
    "brighter": (Change("nih", lambda gray: np.clip(1.1 * gray + 0.1, 0, 1)), Cause.EXPOSURE),
    "brighter in the middle": (Change("nih", lambda gray: gray**0.75), Cause.EXPOSURE),
    "resized otherwise": (Change("nih", prepare=bilinear), Cause.MODEL),
}


def rows(source: str) -> Iterator[tuple[Path, str, float, str]]:
    """A source's films: file, patient, age and view. Hannover gives no ages: they are those of NIH's adults."""
    draw = np.random.default_rng(1)
    with (DATA / source / "labels.csv").open(encoding="utf-8", newline="") as file:
        for row in csv.DictReader(file):
            age = {"kermany": 3.0, "nih": float(row.get("age") or 0)}.get(source, float(draw.integers(20, 80)))
            if source == "kermany" or age >= 18:
                yield DATA / source / row["file"], row["patient_id"], age, row.get("view") or "AP"


@cache
def seen(change: Change) -> list[Seen]:
    """The films of a source as the box counts them."""
    if not (DATA / change.source).is_dir():
        pytest.skip(f"needs the real films in {DATA}")
    reader = open_reader(Config())
    chosen = list(rows(change.source))
    order = np.random.default_rng(2).permutation(len(chosen))[:FILMS]
    return [_seen(*chosen[at], change, reader) for at in order]


def _seen(path: Path, patient: str, age: float, view: str, change: Change, reader: Reader) -> Seen:
    with Image.open(path) as picture:
        gray = np.asarray(picture.convert("L"), np.float32) / np.float32(255)
    made = film(np.asarray(change.treat(gray), np.float32), patient, f"{int(age):03}Y", "O", view=view)
    made.Manufacturer = ""  # only the picture tells where it comes from
    if change.prepare is not None:
        prepare, size = change.prepare, reader.model.manifest.input_size
        reader.model.prepare = lambda gray: prepare(gray, size)  # type: ignore[method-assign]
    with tempfile.NamedTemporaryFile(suffix=".dcm") as file:
        made.save_as(file.name, enforce_file_format=True)
        said = assess(Path(file.name), reader)
    refusal = said.decision.refusal
    tally = packet.of_film(said.decision.outcome, refusal.reason if refusal else None, said.logit, said.signals)
    return packet.stratum(said.header, said.header.age_years), tally


def days(films: list[Seen], first: int, number: int, seed: int) -> list[Packet]:
    """Days of films drawn from these, with replacement: they are evener than real ones."""
    draw, found = np.random.default_rng([seed, first]), []
    for day in range(first, first + number):
        parts = [films[at] for at in draw.integers(0, len(films), A_DAY)]
        one = [Packet(packet.edges("replay"), FIRST + timedelta(day), packet.placed(*part)) for part in parts]
        found.append(packet.merge(one))
    return found


@cache
def history(seed: int) -> list[Packet]:
    return days(seen(Change("nih")), 0, HISTORY, seed)


def alarms(change: Change, seed: int) -> list[Alarm]:
    """All alarms of one replay."""
    after = days(seen(change), HISTORY, AFTER, seed)
    return list(watch.look([*history(seed), *after]).alarms)


def named(change: Change, cause: Cause, seed: int) -> int | None:
    """On which day the change was found and its cause named, or None; an alarm before it counts as not found."""
    found = alarms(change, seed)
    if not found or found[0].found < FIRST + timedelta(HISTORY) or found[0].cause is not cause:
        return None
    return (found[0].found - FIRST).days - HISTORY + 1


def test_where_nothing_changes_nothing_is_found() -> None:
    found = [alarm for seed in range(SEEDS) for alarm in alarms(Change("nih"), seed)]
    assert len(found) <= 0.25 * SEEDS, (
        "one a year and site is allowed, and these are 14 days of 20 sites, and their histories"
    )


@pytest.mark.parametrize("name", CHANGES)
def test_each_change_is_found_and_its_cause_named(name: str) -> None:
    found = [named(*CHANGES[name], seed) for seed in range(SEEDS)]
    assert sum(one is not None for one in found) >= 0.9 * SEEDS, found
