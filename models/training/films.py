"""Films: the public sources as one list, with who each film is of, which split it is in and what a person said of it."""

from __future__ import annotations

import csv
import hashlib
import json
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from pathlib import Path

import click
import numpy as np
import numpy.typing as npt
from PIL import Image

from models.prepare import prepare

SIZE = 224
SHADOWS = ("pneumonia", "consolidation", "infiltration", "effusion", "edema", "atelectasis")
"""Mined labels that make a lung whiter."""


@dataclass(frozen=True)
class Film:
    """One labelled film; `label` is None where nobody whose word counts has read it."""

    source: str
    file: str
    patient: str
    split: str
    """train, val (held-out patients) or external (another hospital)."""
    domain: str
    """child, adult, or other (no evidence at that age)."""
    view: str
    label: int | None
    mined: int | None
    """Whether anything was mined from its report; never used as the truth."""
    shadow: int | None = None
    """Whether one of `SHADOWS` was mined from its report; the same holds."""
    sex: str = ""
    """Empty where it is not known."""
    age: float | None = None


def nih(row: dict[str, str]) -> Film:
    """NIH ChestX-ray14: the radiologists' class of the RSNA challenge is the truth, normal or opacity."""
    label = {"Lung Opacity": 1, "Normal": 0}.get(row["rsna_class"])
    domain = "adult" if row["paediatric"] == "0" and float(row["age"]) >= 18 else "other"
    shadow = int(any(row[one] == "1" for one in SHADOWS))
    mined = 1 - int(row["no_finding"])
    who = row["sex"], float(row["age"])
    return Film("nih", row["file"], row["patient_id"], row["split"], domain, row["view"], label, mined, shadow, *who)


def kermany(row: dict[str, str]) -> Film:
    """Kermany 2018: children of 1 to 5 years, pneumonia or normal as graded by physicians."""
    return Film("kermany", row["file"], row["patient_id"], row["split"], "child", "AP", int(row["pneumonia"]), None)


def hannover(row: dict[str, str]) -> Film:
    """Hannover: a COVID-19 cohort without readings; only to see how the model behaves elsewhere."""
    return Film("hannover", row["file"], row["patient_id"], "external", "adult", row["view"], None, None)


READERS = {"nih": nih, "kermany": kermany, "hannover": hannover}


def ingest(data: Path, work: Path) -> None:
    """Read every source below `data`, prepare its pictures, and write `films.json` and `pictures.npy` to `work`.

    Raises ValueError with a list when a file is missing or a patient is in two splits.
    """
    films: list[Film] = []
    for source, reader in READERS.items():
        with (data / source / "labels.csv").open(newline="", encoding="utf-8") as file:
            films += [reader(row) for row in csv.DictReader(file)]
    if faults := list(_faults(films, data)):
        raise ValueError("\n".join(faults))
    pictures = np.lib.format.open_memmap(work / "pictures.npy", "w+", np.uint8, (len(films), SIZE, SIZE))
    seen: dict[str, int] = {}
    kept: list[Film] = []
    with click.progressbar(films, label="Preparing films") as bar:
        for film in bar:
            path = data / film.source / film.file
            digest = hashlib.sha256(path.read_bytes()).hexdigest()
            if digest in seen:  # the same picture twice would be in training and test
                continue
            seen[digest] = len(kept)
            gray = np.asarray(Image.open(path).convert("L"), np.float32) / np.float32(255)
            pictures[len(kept)] = np.rint(prepare(gray, SIZE)[0, 0] * 255)
            kept.append(film)
    (work / "films.json").write_text(json.dumps([asdict(film) for film in kept], indent=0), encoding="utf-8")


def _faults(films: list[Film], data: Path) -> Iterator[str]:
    splits: dict[str, str] = {}
    for film in films:
        if not (data / film.source / film.file).is_file():
            yield f"{film.source}/{film.file} is missing"
        if splits.setdefault(film.patient, film.split) != film.split:
            yield f"{film.source}/{film.file}: patient {film.patient} is in {film.split} and {splits[film.patient]}"


def load(work: Path) -> tuple[list[Film], npt.NDArray[np.uint8]]:
    """The films and their prepared pictures (films, 224, 224)."""
    films = [Film(**film) for film in json.loads((work / "films.json").read_text(encoding="utf-8"))]
    return films, np.load(work / "pictures.npy", mmap_mode="r")[: len(films)]
