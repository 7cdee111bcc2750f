"""Evaluate: what the finished, quantized bundle does on films it has not seen, each figure with its interval and count."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
from sklearn.linear_model import LogisticRegression
from sklearn.metrics import roc_auc_score
from sklearn.model_selection import cross_val_predict

from models import statistics
from models.model import Model, Scores
from models.training import gate, heads
from models.training.films import Film

Floats = npt.NDArray[np.float64]


def evaluate(
    model: Model, work: Path, every: list[Film], pictures: npt.NDArray[np.uint8], found: Any, seed: int
) -> dict[str, Any]:
    """All figures of the card."""
    int8 = np.load(work / "backbone.int8.embeddings.npy").astype(float)
    full = np.load(work / "backbone.embeddings.npy").astype(float)
    return {
        "findings": {finding.key: _finding(finding, every, int8, found, seed) for finding in model.manifest.findings},
        "shortcuts": _shortcuts(every, int8, found, seed),
        "gate": _gate(model, every, pictures, int8, seed),
        "quantization": _quantization(model, work, every, pictures, int8, full, found),
    }


def _finding(finding: Any, every: list[Film], embeddings: Floats, found: Any, seed: int) -> dict[str, Any]:
    domain = finding.domain
    rows, logits = list(found[f"{domain}.rows"]), found[f"{domain}.out_of_fold"]
    result: dict[str, Any] = {"cross_validated": _figures(finding, every, rows, logits, seed)}
    held_out = [
        i for i, film in enumerate(every) if film.domain == domain and film.label is not None and film.split == "val"
    ]
    if (
        domain == "child"
    ):  # its head never saw these patients; the adults' head saw theirs, so only cross-validation speaks
        weights, bias = found["child.weights"], float(found["child.bias"])
        result["held_out_patients"] = _figures(finding, every, held_out, embeddings[held_out] @ weights + bias, seed)
    else:
        for view in ("AP", "PA"):
            inside = [k for k, row in enumerate(rows) if every[row].view == view]
            result[f"cross_validated_{view}"] = _figures(
                finding, every, [rows[k] for k in inside], logits[inside], seed
            )
    return result


def _figures(finding: Any, every: list[Film], rows: list[int], logits: Floats, seed: int) -> dict[str, Any]:
    labels = np.array([every[row].label for row in rows])
    patients = [every[row].patient for row in rows]
    p = 1 / (1 + np.exp(-(finding.slope * logits + finding.intercept)))
    figures: dict[str, Any] = heads.auroc(p, labels, patients, seed)
    once = np.ones(len(p))
    figures["brier"] = round(statistics.brier(p, labels == 1)(once), 4)
    figures["expected_calibration_error"] = round(statistics.calibration_error(p, labels == 1)(once), 4)
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
    sites = [i for i, film in enumerate(every) if film.domain == "adult"]
    site = np.array([every[i].source == "hannover" for i in sites], int)
    known = embeddings[sites]
    guess = cross_val_predict(
        LogisticRegression(C=0.001, max_iter=2000),
        (known - known.mean(0)) / (known.std(0) + 1e-6),
        site,
        method="decision_function",
    )
    crossed = embeddings[adults] @ found["child.weights"] + float(found["child.bias"])
    away = [i for i, film in enumerate(every) if film.source == "hannover"]
    threshold = float(np.quantile(found["adult.out_of_fold"][labels == 0], 0.9))
    mined = [
        i for i, film in enumerate(every) if film.source == "nih" and film.domain == "adult" and film.label is None
    ]
    return {
        "adult_opacity_from_the_view_alone": heads.auroc(view, labels, [every[row].patient for row in adults], seed),
        "adult_opacity_from_the_childrens_head": heads.auroc(
            crossed, labels, [every[row].patient for row in adults], seed
        ),
        "site_from_the_features": round(float(roc_auc_score(site, guess)), 4),
        "hannover_films_flagged_at_90_percent_specificity_on_nih": round(
            float(np.mean(embeddings[away] @ found["adult.weights"] + float(found["adult.bias"]) > threshold)), 4
        ),
        "hannover_films": len(away),
        "nih_films_without_a_radiologists_reading_left_out": len(mined),
    }


def _gate(
    model: Model, every: list[Film], pictures: npt.NDArray[np.uint8], embeddings: Floats, seed: int
) -> dict[str, Any]:
    draw = np.random.default_rng(seed + 1)
    result: dict[str, Any] = {}
    for name, chosen in (
        ("nih", [i for i, film in enumerate(every) if film.source == "nih" and film.split == "val"]),
        ("kermany", [i for i, film in enumerate(every) if film.source == "kermany" and film.split == "val"]),
        ("hannover", [i for i, film in enumerate(every) if film.source == "hannover"]),
    ):
        refused = sum(_doubt(model, pictures[i]) is not None for i in chosen)
        result[f"real_films_refused_{name}"] = {
            "refused": refused,
            "of": len(chosen),
            "share": round(refused / len(chosen), 4),
        }
    held_out = [i for i, film in enumerate(every) if film.split == "val" and film.source in ("nih", "kermany")]
    for fault in gate.FAULTS[1:]:
        made = [gate.faulty(pictures[i], fault, draw) for i in draw.choice(held_out, 150, False)]
        refused = sum(_doubt(model, picture) is not None for picture in made)
        result[f"faults_refused_{fault}"] = {
            "refused": refused,
            "of": len(made),
            "share": round(refused / len(made), 4),
        }
    return result


def _doubt(model: Model, picture: npt.NDArray[np.uint8]) -> str | None:
    gray = np.asarray(picture / np.float32(255), np.float32)
    tensor = gray[None, None]
    return model.doubt(gray, tensor, model.infer(tensor))


def _quantization(
    model: Model, work: Path, every: list[Film], pictures: npt.NDArray[np.uint8], int8: Floats, full: Floats, found: Any
) -> dict[str, Any]:
    """How far the int8 network is from the float one under the same heads, on films the backbone was not calibrated on."""
    from models.backends.onnx import OnnxRuntime

    result: dict[str, Any] = {}
    for finding in model.manifest.findings:
        rows = [i for i, film in enumerate(every) if film.domain == finding.domain and film.split == "val"]
        weights, bias = found[f"{finding.domain}.weights"], float(found[f"{finding.domain}.bias"])

        def probability(
            embeddings: Floats, weights: Floats = weights, bias: float = bias, finding: Any = finding
        ) -> Floats:
            logits = finding.slope * (embeddings @ weights + bias) + finding.intercept
            return np.asarray(1 / (1 + np.exp(-logits)))

        gap = np.abs(probability(int8[rows]) - probability(full[rows]))
        result[finding.key] = {
            "films": len(rows),
            "median_difference": round(float(np.median(gap)), 4),
            "p99_difference": round(float(np.quantile(gap, 0.99)), 4),
        }
    reference = OnnxRuntime(work / "float.onnx", 1)
    correlations = []
    for i in [i for i, film in enumerate(every) if film.split == "val"][::6]:
        tensor = (pictures[i][None, None] / np.float32(255)).astype(np.float32)
        scores = model.infer(tensor)
        assert isinstance(scores, Scores)
        correlations.append(np.corrcoef(scores.maps.ravel(), reference.run(tensor)["maps"].ravel())[0, 1])
    result["maps"] = {"films": len(correlations), "median_correlation": round(float(np.median(correlations)), 4)}
    return result
