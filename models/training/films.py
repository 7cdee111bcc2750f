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
TERMS = {
    "nih": ("NIH ChestX-ray14", "attribute the NIH Clinical Center; cite Wang et al. 2017"),
    "kermany": ("Kermany et al. 2018, Guangzhou", "CC BY 4.0"),
    "hannover": ("Hannover Medical School", "CC BY 3.0"),
}


def plain(row: dict[str, str], source: str) -> Film:
    """A film of any other folder, as `build/sources` writes them of the sets that are published.

    Columns: `source`, `licence`, `file`, `patient_id`, `label` (1, 0, or empty where nobody whose word counts has read it); where
    known `mined` and `shadow` (the same, of its report), `age` in years, `sex`, `view` (PA or AP), `split`.
    Raises ValueError for another value, KeyError where a column is missing.
    """

    def known(name: str) -> int | None:
        if row.get(name) in (None, ""):
            return None
        if row[name] not in ("0", "1"):
            raise ValueError(f"{name} is {row[name]!r}, but 0, 1 or nothing is known")
        return int(row[name])

    if not row["patient_id"]:
        raise ValueError("patient_id is empty")
    if (view := row.get("view") or "") not in ("PA", "AP", ""):
        raise ValueError(f"view is {view!r}, but PA, AP or nothing is known")
    if (split := row.get("split") or drawn(row["patient_id"])) not in ("train", "val", "external"):
        raise ValueError(f"split is {split!r}, but train, val, external or nothing is known")
    age = float(row["age"]) if row.get("age") else None
    domain = "other" if age is None else "child" if 1 <= age < 6 else "adult" if age >= 18 else "other"
    said = known("label"), known("mined"), known("shadow")
    return Film(source, row["file"], row["patient_id"], split, domain, view, *said, row.get("sex") or "", age)


def drawn(patient: str) -> str:
    """The split of a patient whom no source puts into one: a fifth is held out, the same in every source."""
    return "val" if hashlib.sha256(patient.encode()).digest()[0] % 5 == 0 else "train"


def ingest(data: Path, work: Path) -> None:
    """Read every source below `data`, prepare its pictures, and write `films.json`, `terms.json` and `pictures.npy` to `work`.

    Raises ValueError with a list when a label is not known, a file is missing or not a picture, or a patient is in two splits.
    """
    films, terms, faults = _sources(data)
    if faults := faults or list(_faults(films, data)):
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
            try:
                gray = np.asarray(Image.open(path).convert("L"), np.float32) / np.float32(255)
            except OSError as error:
                faults.append(f"{film.source}/{film.file} is no picture: {error}")
                continue
            pictures[len(kept)] = np.rint(prepare(gray, SIZE)[0, 0] * 255)
            kept.append(film)
    if faults:
        raise ValueError("\n".join(faults))
    (work / "films.json").write_text(json.dumps([asdict(film) for film in kept], indent=0), encoding="utf-8")
    (work / "terms.json").write_text(json.dumps(terms, indent=0), encoding="utf-8")


def _sources(data: Path) -> tuple[list[Film], dict[str, tuple[str, str]], list[str]]:
    """The films of all folders with a `labels.csv`, each source's name and terms, and what is wrong with them."""
    films: list[Film] = []
    terms: dict[str, tuple[str, str]] = {}
    faults: list[str] = []
    others = sorted(path.parent.name for path in data.glob("*/labels.csv") if path.parent.name not in READERS)
    for source in [*(name for name in READERS if (data / name / "labels.csv").is_file()), *others]:
        with (data / source / "labels.csv").open(newline="", encoding="utf-8") as file:
            for number, row in enumerate(csv.DictReader(file), 2):
                try:
                    films.append(READERS[source](row) if source in READERS else plain(row, source))
                    terms.setdefault(source, TERMS[source] if source in TERMS else (row["source"], row["licence"]))
                except KeyError as error:
                    faults.append(f"{source}/labels.csv has no column {error}")
                    break
                except ValueError as error:
                    faults.append(f"{source}/labels.csv, line {number}: {error}")
    faults += [
        f"no film of {name} that somebody has read is in {data}: a bundle has a head for children and one for adults"
        for domain, name in (("child", "a child of 1 to 5 years"), ("adult", "an adult"))
        if not any(film.domain == domain and film.label is not None for film in films)
    ]
    return films, terms, faults


def _faults(films: list[Film], data: Path) -> Iterator[str]:
    splits: dict[str, str] = {}
    for film in films:
        if not (data / film.source / film.file).is_file():
            yield f"{film.source}/{film.file} is missing"
        if splits.setdefault(film.patient, film.split) != film.split:
            yield f"{film.source}/{film.file}: patient {film.patient} is in {film.split} and {splits[film.patient]}"


def used(every: list[Film]) -> list[str]:
    """The sources that a model is made from, in their order; what is of another hospital only shows how it behaves there."""
    return list(dict.fromkeys(film.source for film in every if film.split != "external"))


def load(work: Path) -> tuple[list[Film], npt.NDArray[np.uint8]]:
    """The films and their prepared pictures (films, 224, 224)."""
    films = [Film(**film) for film in json.loads((work / "films.json").read_text(encoding="utf-8"))]
    return films, np.load(work / "pictures.npy", mmap_mode="r")[: len(films)]
