"""Evaluation: a bundle on a folder of films that somebody has read, through the very stage line of the box, and what comes out.

A table (CSV) says what is in each film: `file`, a column for each finding by its key with 1, 0 or nothing, and if there are,
`patient`, `age` in years, `sex`, `view`, `source`. What is wrong with it is listed, and nothing is evaluated until it is mended.
"""

from __future__ import annotations

import csv
import hashlib
import math
import tempfile
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
from PIL import Image
from pydicom.dataset import Dataset, FileDataset, FileMetaDataset
from pydicom.uid import ComputedRadiographyImageStorage, ExplicitVRLittleEndian, generate_uid

from edge import worker
from edge.errors import Unreadable
from edge.reader import Reader
from edge.records import Decision, Header, Reason, Refusal
from edge.stages import decide, header
from edge.validity.accuracy import AGE_BANDS
from models import statistics
from models.bundle import Finding, Manifest
from models.statistics import Estimate

OPTIONAL = ("patient", "age", "sex", "view", "source")
SEED = 20261123
PICTURES = (".jpg", ".jpeg", ".png")
UNREADABLE = (Reason.NOT_DICOM, Reason.DAMAGED, Reason.NO_PIXELS, Reason.ENCODING_UNSUPPORTED)

Floats = npt.NDArray[np.float64]


@dataclass(frozen=True)
class Case:
    """One line of the table: a film and what somebody read in it."""

    line: int
    file: str
    labels: Mapping[str, bool]
    """By the key of the finding; what nobody has read is not in it."""
    patient: str
    age: float | None
    sex: str
    view: str
    source: str


@dataclass(frozen=True)
class Judged:
    """A case and what the bundle says of it; what the table does not tell is the film's own."""

    case: Case
    decision: Decision
    patient: str
    groups: tuple[str, ...]
    """`age 18-40`, `sex F`, `view PA`, `source clinic`."""

    def probability(self, finding: str) -> float | None:
        """The probability of a finding; None where the film was not assessed, or is not looked at for it at that age."""
        return next((one.probability for one in self.decision.findings if one.finding == finding), None)


def table_of(folder: Path) -> Path:
    """The table of a folder: `labels.csv`, or the only CSV file in it. Raises `Unreadable`."""
    found = sorted(folder.glob("*.csv"))
    chosen = [path for path in found if path.name == "labels.csv"] or found
    if len(chosen) != 1:
        names = ", ".join(path.name for path in found) or "none"
        raise Unreadable(f"{folder}: one CSV file is needed beside the films, called labels.csv; there are: {names}.")
    return chosen[0]


def parse(table: Path, keys: Sequence[str]) -> tuple[list[Case], list[str], list[str]]:
    """The cases of a table for findings of these keys, the columns not looked at, and everything that is wrong: what and where."""
    try:
        text = table.read_text(encoding="utf-8-sig")
    except UnicodeDecodeError:
        return [], [], [f"{table.name} is not written in UTF-8. Save it again as “CSV UTF-8”."]
    rows = csv.DictReader(text.splitlines(), strict=True)
    columns = list(rows.fieldnames or [])
    if "file" not in columns or not set(keys) & set(columns):
        there = ", ".join(columns) or "none"
        return [], [], [f"line 1: a column `file` is needed, and one of {', '.join(keys)}; there are: {there}."]
    cases: list[Case] = []
    wrong: list[str] = []
    try:
        for row in rows:
            case, said = _case(rows.line_num, {name: (row.get(name) or "").strip() for name in columns}, keys)
            wrong += said
            cases += [case] if case else []
    except csv.Error as error:
        wrong.append(f"line {rows.line_num + 1}: {error}.")
    wrong += _films_amiss(table.parent, cases)
    unused = [name for name in columns if name not in ("file", *keys, *OPTIONAL)]
    return cases, unused, wrong or ([] if cases else [f"{table.name} names no film."])


def _case(line: int, row: Mapping[str, str], keys: Sequence[str]) -> tuple[Case | None, list[str]]:
    wrong = []
    for key in keys:
        if row.get(key, "") not in ("", "0", "1"):
            wrong.append(f"line {line}: {key} is {row[key]!r}; write 1, 0, or nothing where nobody has read it.")
    age, sex = row.get("age", ""), row.get("sex", "").upper()
    try:
        years = float(age) if age else None
    except ValueError:
        years = math.nan
    if years is not None and not 0 <= years <= 130:
        wrong.append(f"line {line}: age {age!r} is no number of years.")
    if sex not in ("", "F", "M", "O"):
        wrong.append(f"line {line}: sex {row['sex']!r} is none of F, M, O.")
    if not row["file"]:
        wrong.append(f"line {line}: no file.")
    if wrong:
        return None, wrong
    labels = {key: row[key] == "1" for key in keys if row.get(key)}
    told = {name: row.get(name, "") for name in ("patient", "view", "source")}
    return Case(line, row["file"], labels, age=years, sex=sex, **told), []


def _films_amiss(folder: Path, cases: Sequence[Case]) -> Iterator[str]:
    """Films that are missing, lie elsewhere, or are there twice."""
    root, first = folder.resolve(), dict[str, Case]()
    for case in cases:
        path = folder / case.file
        if not path.resolve().is_relative_to(root):
            yield f"line {case.line}: {case.file} lies outside {folder.name}."
        elif not path.is_file():
            yield f"line {case.line}: {case.file} is missing."
        else:
            with path.open("rb") as file:
                digest = hashlib.file_digest(file, "sha256").hexdigest()
            if (other := first.setdefault(digest, case)) is not case:
                yield f"line {case.line}: {case.file} is the same film as line {other.line}, {other.file}; keep one."


def dataset(path: Path, case: Case) -> tuple[Dataset, Header]:
    """A film and what it says of itself; a JPEG or PNG as a gateway would have made it. Raises ValueError where there is none."""
    if path.suffix.lower() in PICTURES:
        try:
            return _as_dicom(path, case.view), Header()
        except Exception as error:  # Pillow raises nearly anything on a damaged picture
            raise ValueError(f"{type(error).__name__}: {error}") from error
    parsed = header.read(path)
    if isinstance(parsed, Refusal):
        raise ValueError(parsed.detail)
    return parsed


def judge(folder: Path, case: Case, reader: Reader) -> Judged:
    """Take one film through the stage line; a JPEG or PNG as the DICOM file a gateway would have made of it."""
    path = folder / case.file
    said = Header()
    if path.suffix.lower() in PICTURES:
        try:
            dataset = _as_dicom(path, case.view)
        except Exception as error:  # noqa: BLE001  Pillow raises nearly anything on a damaged picture
            refusal = Refusal(Reason.DAMAGED, f"{type(error).__name__}: {error}")
            decision = decide.refuse(refusal, reader.name, reader.device_uid)
        else:
            with tempfile.NamedTemporaryFile(suffix=".dcm") as file:
                dataset.save_as(file, enforce_file_format=True)
                file.flush()
                decision = worker.assess(Path(file.name), reader, case.age).decision
    else:
        assessment = worker.assess(path, reader, case.age)
        said, decision = assessment.header, assessment.decision
    age = said.age_years if case.age is None else case.age
    patient = case.patient or said.PatientID or case.file
    told = {"sex": case.sex or said.PatientSex, "view": case.view or said.ViewPosition, "source": case.source}
    bands = [f"age {low}-{high}" for low, high in AGE_BANDS if age is not None and low <= age < high]
    return Judged(case, decision, patient, (*bands, *(f"{name} {value}" for name, value in told.items() if value)))


def _as_dicom(path: Path, view: str) -> FileDataset:
    with Image.open(path) as picture:
        deep = picture.mode.startswith("I")
        values = np.asarray(picture if deep else picture.convert("L"))
    pixels = np.clip(values, 0, 65535).astype("<u2") if deep else values
    meta = FileMetaDataset()
    meta.TransferSyntaxUID = ExplicitVRLittleEndian
    ds = FileDataset("", {}, file_meta=meta, preamble=b"\0" * 128)
    ds.SOPClassUID = meta.MediaStorageSOPClassUID = ComputedRadiographyImageStorage
    ds.SOPInstanceUID = meta.MediaStorageSOPInstanceUID = generate_uid()
    ds.Modality, ds.ViewPosition = "CR", view
    ds.SamplesPerPixel, ds.PhotometricInterpretation, ds.PixelRepresentation = 1, "MONOCHROME2", 0
    ds.Rows, ds.Columns = pixels.shape
    ds.BitsAllocated = ds.BitsStored = 8 * pixels.itemsize
    ds.HighBit = ds.BitsStored - 1
    ds.PixelData = pixels.tobytes() + b"\0" * (pixels.nbytes % 2)
    return ds


def figures(judged: Sequence[Judged], manifest: Manifest, draws: int = statistics.DRAWS) -> dict[str, Any]:
    """Everything that is measured, ready for JSON; None where the films do not tell."""
    refused = Counter(one.decision.refusal.reason for one in judged if one.decision.refusal is not None)
    read = {
        finding.key: [one for one in judged if finding.key in one.case.labels]
        for finding in manifest.findings
    }  # fmt: skip
    told: dict[str, Any] = _plain(
        {
            "bundle": f"{manifest.id} {manifest.version}",
            "films": len(judged),
            "patients": len({one.patient for one in judged}),
            "could_not_assess": dict(sorted(refused.items())),
            "unreadable": [
                {"line": one.case.line, "file": one.case.file, "why": one.decision.refusal.detail}
                for one in judged
                if one.decision.refusal is not None and one.decision.refusal.reason in UNREADABLE
            ],
            "seed": SEED,
            "draws": draws,
            "findings": {
                finding.key: {"label": finding.label, **_finding(read[finding.key], finding, manifest, draws)}
                for finding in manifest.findings
                if read[finding.key]
            },
        }
    )
    return told


def _finding(films: list[Judged], finding: Finding, manifest: Manifest, draws: int) -> dict[str, Any]:
    names = sorted({group for one in films for group in one.groups})
    told = {"all": films, **{name: [one for one in films if name in one.groups] for name in names}}
    assessed = [one for one in films if one.probability(finding.key) is not None]
    shown = _curves(assessed, finding, manifest, draws) if assessed else {}
    return {"groups": {name: _group(some, finding, draws) for name, some in told.items()}, **shown}


def _arrays(films: Sequence[Judged], finding: Finding) -> tuple[Floats, npt.NDArray[np.bool_], list[str]]:
    p = np.array([one.probability(finding.key) for one in films], float)
    return p, np.array([one.case.labels[finding.key] for one in films], bool), [one.patient for one in films]


def _group(films: Sequence[Judged], finding: Finding, draws: int) -> dict[str, Any]:
    refused = np.array([one.decision.refusal is not None for one in films])
    everybody = [one.patient for one in films]
    assessed = [one for one in films if one.probability(finding.key) is not None]
    p, truth, patients = _arrays(assessed, finding)
    return {
        "films": len(films),
        "patients": len(set(everybody)),
        "could_not_assess": statistics.share(refused, np.ones(len(films), bool), everybody, SEED, draws),
        "not_looked_for_at_that_age": len(films) - int(refused.sum()) - len(assessed),
        "with": int(truth.sum()),
        "without": int((~truth).sum()),
        "auroc": statistics.estimate(statistics.auroc(p, truth), patients, SEED, draws),
        "operating_points": {
            name: {
                level: {
                    "from": threshold,
                    "sensitivity": statistics.share(p >= threshold, truth, patients, SEED, draws),
                    "specificity": statistics.share(p < threshold, ~truth, patients, SEED, draws),
                }
                for level, threshold in (("soon", point.soon), ("immediate", point.immediate))
            }
            for name, point in finding.operating_points.items()
        },
    }


def _curves(films: Sequence[Judged], finding: Finding, manifest: Manifest, draws: int) -> dict[str, Any]:
    """Calibration, and the curves of all films that were assessed."""
    p, truth, patients = _arrays(films, finding)
    threshold = finding.operating_points[manifest.default_operating_point].soon
    confidence = np.abs(statistics.logits(p) - statistics.logits(np.array([threshold])))
    kept, risk = statistics.selective_risk(confidence, (p >= threshold) != truth)
    false, true = statistics.roc(p, truth)

    lines: dict[bytes, tuple[float, float]] = {}

    def line(counts: Floats) -> tuple[float, float]:  # its two ends are estimated from the same draws
        if (key := counts.tobytes()) not in lines:
            lines[key] = statistics.slope_and_intercept(p, truth, counts)
        return lines[key]

    def of(part: int) -> Estimate:
        return statistics.estimate(lambda counts: line(counts)[part], patients, SEED, draws)

    return {
        "calibration": {
            "brier": statistics.estimate(statistics.brier(p, truth), patients, SEED, draws),
            "expected_calibration_error": statistics.estimate(
                statistics.calibration_error(p, truth), patients, SEED, draws
            ),
            "slope": of(0),
            "intercept": of(1),
            "reliability": statistics.reliability(p, truth),
        },
        "roc": {"false_positive": false.tolist(), "true_positive": true.tolist()},
        "selective_risk": {"from": threshold, "kept": kept.tolist(), "risk": risk.tolist()},
    }


def _plain(value: Any) -> Any:
    """Only what JSON has, rounded to what is meant."""
    if isinstance(value, Estimate):
        return _plain(asdict(value))
    if isinstance(value, dict):
        return {str(key): _plain(inner) for key, inner in value.items()}
    if isinstance(value, (list, tuple)):
        return [_plain(inner) for inner in value]
    if isinstance(value, float):
        return round(value, 4) if math.isfinite(value) else None
    return value
