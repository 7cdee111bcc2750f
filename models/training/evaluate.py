"""Evaluate: what the finished, quantized bundle does on films it has not seen, each figure with its interval and count."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import click
import numpy as np
import numpy.typing as npt
from scipy import ndimage
from sklearn.linear_model import LogisticRegression
from sklearn.metrics import roc_auc_score
from sklearn.model_selection import cross_val_predict

from models import backends, conformal, statistics
from models.bundle import Bundle
from models.model import Model
from models.training import agreement, bands, gate, heads, lungs, network
from models.training.films import Film

Floats = npt.NDArray[np.float64]

FAULTY = 150
"""Held-out films that each fault is put into."""


def evaluate(
    bundle: Bundle, work: Path, every: list[Film], pictures: npt.NDArray[np.uint8], found: Any, seed: int
) -> dict[str, Any]:
    """All figures of the card."""
    model = Model(bundle)
    int8 = np.full((len(every), network.FEATURES), np.nan)
    rows = [i for i, film in enumerate(every) if film.split != "train" or film.domain == "adult"]
    with click.progressbar(rows, label="Evaluating             ") as bar:
        for i in bar:
            int8[i] = model.infer(_tensor(pictures[i])).embedding
    return {
        "findings": {finding.key: _finding(finding, every, int8, found, seed) for finding in model.manifest.findings},
        "shortcuts": _shortcuts(every, int8, found, seed) | _occlusion(model, every, pictures, int8, found, seed),
        "gate": _gate(model, every, pictures, seed) | {"real_foreign_pictures_refused": _foreign(model, work)},
        "agreement": _agreement(model, work, every, pictures),
    }


def _finding(finding: Any, every: list[Film], embeddings: Floats, found: Any, seed: int) -> dict[str, Any]:
    domain = finding.domain
    rows, logits = list(found[f"{domain}.rows"]), found[f"{domain}.out_of_fold"]
    result: dict[str, Any] = {"cross_validated": _figures(finding, every, rows, logits, seed)}
    p, truth, patients = _read(finding, every, rows, logits)
    result["cross_validated"]["band"] = bands.held(bands.across(p, truth, patients, seed), truth, patients, seed)
    held_out = [
        i for i, film in enumerate(every) if film.domain == domain and film.label is not None and film.split == "val"
    ]
    if (
        domain == "child"
    ):  # its head never saw these patients; the adults' head saw theirs, so only cross-validation speaks
        weights, bias = found["child.weights"], float(found["child.bias"])
        logits = embeddings[held_out] @ weights + bias
        result["held_out_patients"] = _figures(finding, every, held_out, logits, seed)
        p, truth, patients = _read(finding, every, held_out, logits)
        said = [conformal.Band(finding.band.present, finding.band.absent).says(float(one)) for one in p]
        result["held_out_patients"]["band"] = bands.held(said, truth, patients, seed)
    else:
        groups = {view: [every[row].view == view for row in rows] for view in ("AP", "PA")}
        groups |= {f"sex_{sex}": [every[row].sex == sex for row in rows] for sex in ("F", "M")}
        groups |= {
            name: [old == ((every[row].age or 0) >= 60) for row in rows]
            for name, old in (("under_60", False), ("from_60", True))
        }
        for name, belongs in groups.items():
            inside = np.flatnonzero(belongs)
            figures = _figures(finding, every, [rows[k] for k in inside], logits[inside], seed)
            result[f"cross_validated_{name}"] = figures
    return result


def _read(
    finding: Any, every: list[Film], rows: list[int], logits: Floats
) -> tuple[Floats, npt.NDArray[np.bool_], list[str]]:
    """The calibrated probability of each film, what a person saw, and whose it is."""
    p = 1 / (1 + np.exp(-(finding.slope * logits + finding.intercept)))
    return p, np.array([every[row].label == 1 for row in rows]), [every[row].patient for row in rows]


def _figures(finding: Any, every: list[Film], rows: list[int], logits: Floats, seed: int) -> dict[str, Any]:
    p, truth, patients = _read(finding, every, rows, logits)
    labels = truth.astype(int)
    figures: dict[str, Any] = heads.auroc(p, labels, patients, seed)
    once = np.ones(len(p))
    figures["brier"] = round(statistics.brier(p, labels == 1)(once), 4)
    figures["expected_calibration_error"] = round(statistics.calibration_error(p, labels == 1)(once), 4)
    slope, intercept = statistics.slope_and_intercept(p, labels == 1, once)
    for name, value in (("calibration_slope", slope), ("calibration_intercept", intercept)):
        figures[name] = round(value, 3) if np.isfinite(value) else None
    kept, risks = statistics.selective_risk(np.abs(p - 0.5), (p >= 0.5) != (labels == 1))
    figures["wrong_when_so_many_are_kept"] = {
        f"{share:.0%}": round(float(np.interp(share, kept, risks)), 4) for share in (1.0, 0.9, 0.8, 0.7)
    }
    figures["operating_points"] = {
        name: {
            level: {
                "sensitivity": _share(p >= threshold, labels == 1, patients, seed),
                "specificity": _share(p < threshold, labels == 0, patients, seed),
            }
            for level, threshold in (("soon", point.soon), ("immediate", point.immediate))
        }
        for name, point in finding.operating_points.items()
    }
    return figures


def _share(
    hits: npt.NDArray[np.bool_], among: npt.NDArray[np.bool_], patients: list[str], seed: int
) -> dict[str, float | int]:
    found = statistics.share(hits, among, patients, seed)
    return {
        "share": round(found.value, 4),
        "low": round(found.low, 4),
        "high": round(found.high, 4),
        "of": int(among.sum()),
    }


def _shortcuts(every: list[Film], embeddings: Floats, found: Any, seed: int) -> dict[str, Any]:
    adults = list(found["adult.rows"])
    labels = np.array([every[row].label for row in adults])
    view = np.array([every[row].view == "AP" for row in adults], float)
    crossed = embeddings[adults] @ found["child.weights"] + float(found["child.bias"])
    away = [i for i, film in enumerate(every) if film.source == "hannover"]
    result: dict[str, Any] = {
        "adult_opacity_from_the_view_alone": heads.auroc(view, labels, [every[row].patient for row in adults], seed),
        "adult_opacity_from_the_childrens_head": heads.auroc(
            crossed, labels, [every[row].patient for row in adults], seed
        ),
    }
    if away:
        sites = [i for i, film in enumerate(every) if film.domain == "adult"]
        site = np.array([every[i].source == "hannover" for i in sites], int)
        known = embeddings[sites]
        guess = cross_val_predict(
            LogisticRegression(C=0.001, max_iter=2000),
            (known - known.mean(0)) / (known.std(0) + 1e-6),
            site,
            method="decision_function",
        )
        threshold = float(np.quantile(found["adult.out_of_fold"][labels == 0], 0.9))
        flagged = embeddings[away] @ found["adult.weights"] + float(found["adult.bias"]) > threshold
        result |= {
            "site_from_the_features": round(float(roc_auc_score(site, guess)), 4),
            "hannover_films_flagged_at_90_percent_specificity_on_nih": round(float(np.mean(flagged)), 4),
            "hannover_films": len(away),
        }
    left = [film for film in every if film.source == "nih" and film.domain == "adult" and film.label is None]
    return result | {"nih_films_without_a_radiologists_reading_left_out": len(left)}


def _occlusion(
    model: Model, every: list[Film], pictures: npt.NDArray[np.uint8], int8: Floats, found: Any, seed: int
) -> dict[str, Any]:
    """AUROC on held-out children when everything outside the lung fields is replaced by the film's mean."""
    rows = [i for i, film in enumerate(every) if film.domain == "child" and film.split == "val"]
    weights, bias = found["child.weights"], float(found["child.bias"])
    hidden = []
    for i in rows:
        picture = np.array(pictures[i])
        picture[~ndimage.binary_dilation(lungs.field(picture), iterations=6)] = int(picture.mean())
        hidden.append(float(model.infer(_tensor(picture)).embedding @ weights + bias))
    labels, patients = np.array([every[i].label for i in rows]), [every[i].patient for i in rows]
    return {
        "children_held_out_as_they_are": heads.auroc(int8[rows] @ weights + bias, labels, patients, seed),
        "children_held_out_with_all_but_the_lungs_hidden": heads.auroc(np.array(hidden), labels, patients, seed),
    }


def _gate(model: Model, every: list[Film], pictures: npt.NDArray[np.uint8], seed: int) -> dict[str, Any]:
    draw = np.random.default_rng(seed + 1)
    result: dict[str, Any] = {}
    for name in dict.fromkeys(film.source for film in every):
        chosen = [i for i, film in enumerate(every) if film.source == name and film.split != "train"]
        if not chosen:
            continue
        result[f"real_films_refused_{name}"] = _refused(
            model, [pictures[i] for i in chosen], [every[i].patient for i in chosen]
        )
    held_out = [i for i, film in enumerate(every) if film.split == "val"]
    for fault in gate.FAULTS[1:]:
        rows = draw.choice(held_out, FAULTY, False)
        made = [gate.faulty(pictures[i], fault, draw) for i in rows]
        name = "photographed_from_a_screen" if fault == "out_of_distribution" else fault
        result[f"faults_refused_{name}"] = _refused(model, made, [every[i].patient for i in rows])
    return result


def _foreign(model: Model, work: Path) -> dict[str, Any]:
    """Real pictures that are no chest film (`build/foreign`); encodings of one picture count as of one patient."""
    with np.load(work / "foreign.npz") as found:
        subjects = found["subjects"].tolist()
        return _refused(model, list(found["pictures"]), subjects) | {"subjects": len(set(subjects))}


def _refused(model: Model, made: list[npt.NDArray[np.uint8]], patients: list[str]) -> dict[str, Any]:
    hits = np.array([_doubt(model, picture) is not None for picture in made])
    return _share(hits, np.ones(len(hits), bool), patients, 1) | {"refused": int(hits.sum())}


def _doubt(model: Model, picture: npt.NDArray[np.uint8]) -> str | None:
    tensor = _tensor(picture)
    return model.doubt(tensor[0, 0], tensor, model.infer(tensor))


def _tensor(picture: npt.NDArray[np.uint8]) -> npt.NDArray[np.float32]:
    return np.asarray(picture[None, None] / np.float32(255), np.float32)


def _agreement(model: Model, work: Path, every: list[Film], pictures: npt.NDArray[np.uint8]) -> dict[str, Any]:
    """How far the reference in eight bits is from the same weights in float, and the other runtimes from it."""
    bundle = model.bundle
    files = {f"eight bits, {name}": (name, bundle.path / file) for name, file in bundle.manifest.runtimes.items()}
    rows = {
        finding.domain: [i for i, film in enumerate(every) if film.domain == finding.domain and film.split == "val"]
        for finding in bundle.manifest.findings
    }
    flat = [i for some in rows.values() for i in some]
    seen = {}
    for name, (runtime, path) in {"float": ("onnx", work / "float.onnx"), **files}.items():
        backend = backends.load(runtime, path, 1)
        with click.progressbar(flat, label=f"{name:<23}") as bar:
            seen[name] = {i: backend.run(_tensor(pictures[i])) for i in bar}
    reference = next(iter(files))
    compared = {f"{reference} and float": (reference, "float")} | {
        f"{name} and {reference.rpartition(', ')[2]}": (name, reference) for name in list(files)[1:]
    }
    result: dict[str, Any] = {}
    for title, (one, other) in compared.items():
        for finding in bundle.manifest.findings:
            some = rows[finding.domain]
            truth = np.array([np.nan if every[i].label is None else every[i].label for i in some], float)
            first, second = (
                {key: np.array([seen[name][i][key][0, finding.output] for i in some]) for key in ("logits", "maps")}
                for name in (one, other)
            )
            result[f"{finding.key}: {title}"] = agreement.compared(
                finding, bundle.manifest.default_operating_point, first, second, truth
            )
    return result
