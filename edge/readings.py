"""Readings: what people said of films elsewhere, as a CSV file; taken in whole or not at all."""

from __future__ import annotations

import csv
import hashlib
import sqlite3
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path

from edge.records import ReadKind
from edge.state import arrivals, audit, reads, results
from edge.state.store import transaction
from edge.vocabulary import IMPRESSIONS

NEEDED = ("film", "reading")
KNOWN = (*NEEDED, "reader", "read_at")
"""`film` is a SOP Instance UID, or a file below the folder of films; `reading` is a key of `edge.vocabulary.IMPRESSIONS`."""


@dataclass(frozen=True)
class Reading:
    """One line of the file."""

    line: int
    film: str
    reading: str
    reader: str
    read_at: datetime


def parse(path: Path, now: datetime) -> tuple[list[Reading], list[str]]:
    """The readings of a file, and everything that is wrong with it: what and where. Raises OSError."""
    try:
        text = path.read_text(encoding="utf-8-sig")
    except UnicodeDecodeError:
        return [], [f"{path.name} is not written in UTF-8. Save it again as “CSV UTF-8”."]
    rows = csv.DictReader(text.splitlines(), strict=True)
    columns = rows.fieldnames or []
    if missing := [name for name in NEEDED if name not in columns]:
        return [], [f"line 1: no column {', '.join(missing)}; there are: {', '.join(columns) or 'none'}."]
    wrong = [f"line 1: column {name} is not known; take it out." for name in columns if name not in KNOWN]
    found: list[Reading] = []
    lines: dict[str, int] = {}
    try:
        for line, row in enumerate(rows, 2):
            reading, said = _reading(line, row, now)
            wrong += said
            if reading is None:
                continue
            if (first := lines.setdefault(reading.film, line)) != line:
                wrong.append(f"line {line}: film {reading.film} is already in line {first}; one reading for each film.")
            found.append(reading)
    except csv.Error as error:
        wrong.append(f"line {rows.line_num}: {error}.")
    return found, wrong or ([] if found else [f"{path.name} holds no readings."])


def _reading(line: int, row: Mapping[str, str | None], now: datetime) -> tuple[Reading | None, list[str]]:
    values = {name: (row.get(name) or "").strip() for name in KNOWN}
    wrong = []
    if not values["film"]:
        wrong.append(f"line {line}: no film.")
    if values["reading"] not in IMPRESSIONS:
        wrong.append(f"line {line}: reading {values['reading']!r} is none of {', '.join(IMPRESSIONS)}.")
    at = now
    if values["read_at"]:
        try:
            at = datetime.fromisoformat(values["read_at"])
            at = at if at.tzinfo else at.replace(tzinfo=UTC)
        except ValueError:
            wrong.append(f"line {line}: read_at {values['read_at']!r} is no moment such as 2026-11-25T14:30.")
        if at > now:
            wrong.append(f"line {line}: read_at {values['read_at']!r} has not come yet.")
    if wrong:
        return None, wrong
    return Reading(line, values["film"], values["reading"], values["reader"] or "imported", at), []


def place(
    store: sqlite3.Connection, readings: list[Reading], files: Mapping[str, int]
) -> tuple[dict[int, Reading], list[str]]:
    """Each reading by its film on this box, and those whose film is not here, or not here once; `files` are films by file name."""
    found: dict[int, Reading] = {}
    wrong = []
    for reading in readings:
        here = [files[reading.film]] if reading.film in files else arrivals.of_instance(store, reading.film)
        if len(here) != 1:
            told = (
                "is not on this box; give its folder with --films" if not here else "is here twice, with other content"
            )
            wrong.append(f"line {reading.line}: film {reading.film} {told}.")
        elif (other := found.get(here[0])) is not None:
            wrong.append(f"line {reading.line}: the same film as in line {other.line}.")
        else:
            found[here[0]] = reading
    return found, wrong


def keep(store: sqlite3.Connection, readings: Mapping[int, Reading], by: str, at: datetime) -> int:
    """Seal the readings as their readers' impressions, in one transaction, and say how many were new."""
    with transaction(store):
        new = sum(_kept(store, arrival_id, reading) for arrival_id, reading in readings.items())
        if new:
            audit.append(store, audit.Event.SEALED, by, at, imported=new)
    return new


def _kept(store: sqlite3.Connection, arrival_id: int, reading: Reading) -> bool:
    film = results.film(store, arrival_id)
    said = (film.arrival.sha256, reading.reader, reading.reading)
    key = f"import-{hashlib.sha256(' '.join(said).encode()).hexdigest()[:40]}"
    codes = (reading.reading,)
    run = max(film.run, 1)
    _act, new = reads.add(
        store,
        arrival_id,
        run,
        ReadKind.IMPRESSION,
        reading.reader,
        reading.read_at,
        key,
        codes=codes,
        seal=reads.seal(film.arrival.sha256, run, reading.reader, reading.read_at, codes),
    )
    return new


def files_of(folder: Path) -> Iterator[Path]:
    """The files of a folder of films, in order."""
    return (path for path in sorted(folder.rglob("*")) if path.is_file() and path.suffix.lower() != ".csv")
