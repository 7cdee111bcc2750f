"""Heads: one logistic regression per finding on the quantized network's embeddings, cross-validated by patient."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
from sklearn.linear_model import LogisticRegression
from sklearn.metrics import roc_auc_score
from sklearn.model_selection import StratifiedGroupKFold

from models import statistics
from models.prepare import prepare

Floats = npt.NDArray[np.float64]

FOLDS, REPEATS = 5, 2
STRENGTHS = (0.00001, 0.0001, 0.001, 0.01)
"""Inverse ridge penalties that cross-validation chooses among."""
TAUGHT = 1.0
"""The same where the films that tuned a network say anew what it was taught; each group of films there weighs as much as one."""
NUISANCE_SHRINKAGE = 1.0
FREEDOM = 3.0
"""Spread that a direction the network was taught has among a head's inputs: the larger, the less it costs."""


@dataclass(frozen=True)
class Head:
    """A linear head on the raw embedding, and what cross-validation by patient says of it."""

    weights: Floats
    bias: float
    out_of_fold: Floats
    """The logit of each film by heads that never saw its patient."""
    strength: float


def nuisance(views: Floats) -> Floats:
    """A whitening (1280, 1280) of how embeddings (films, variants, 1280) of one film differ (WCCN, Hatch 2006).

    After it, a ridge prefers directions in which framing, contrast, encoding and quantization do not matter.
    """
    within = (views - views.mean(1, keepdims=True)).reshape(-1, views.shape[-1])
    values, axes = np.linalg.eigh(within.T @ within / len(within))
    whitening: Floats = axes / np.sqrt(values + NUISANCE_SHRINKAGE * values.mean()) @ axes.T
    return whitening


def fit(
    views: Floats, labels: npt.NDArray[np.int64], patients: Sequence[str], whitening: Floats, learnt: Floats, seed: int
) -> Head:
    """Fit a head on embeddings (films, variants, 1280) with the strongest penalty that hardly costs cross-validated AUROC.

    Variant 0 is the film as it is and alone is judged; the others teach the head what must not matter. `learnt` (outputs, 1280)
    are directions that the network itself was taught; they cost a head little.
    """
    free = learnt.T / (views[:, 0] @ learnt.T).std(0) * FREEDOM
    basis = np.concatenate([whitening, free], 1)
    views = views @ basis
    tried = {strength: _out_of_fold(views, labels, patients, strength, seed) for strength in STRENGTHS}
    areas = {strength: float(roc_auc_score(labels, logits)) for strength, logits in tried.items()}
    slack = standard_error(max(areas.values()), int(labels.sum()), int((1 - labels).sum())) / 2
    strength = min(one for one, area in areas.items() if area >= max(areas.values()) - slack)
    weights, bias = _regress(*_flat(views, labels), strength)
    scale = 1 / float(tried[strength].std())  # a strong penalty gives small logits; Platt's prior expects ordinary ones
    return Head(basis @ weights * scale, bias * scale, tried[strength] * scale, strength)


def standard_error(area: float, positive: int, negative: int) -> float:
    """Standard error of an AUROC (Hanley and McNeil 1982)."""
    q1, q2 = area / (2 - area), 2 * area**2 / (1 + area)
    spread = area * (1 - area) + (positive - 1) * (q1 - area**2) + (negative - 1) * (q2 - area**2)
    return float(np.sqrt(max(spread, 0) / (positive * negative)))


def _out_of_fold(x: Floats, y: npt.NDArray[np.int64], patients: Sequence[str], strength: float, seed: int) -> Floats:
    total = np.zeros(len(y))
    for repeat in range(REPEATS):
        folds = StratifiedGroupKFold(FOLDS, shuffle=True, random_state=seed + repeat)
        for train, test in folds.split(x[:, 0], y, patients):
            weights, bias = _regress(*_flat(x[train], y[train]), strength)
            total[test] += x[test, 0] @ weights + bias
    return total / REPEATS


def _flat(x: Floats, y: npt.NDArray[np.int64]) -> tuple[Floats, npt.NDArray[np.int64]]:
    return x.reshape(-1, x.shape[-1]), np.repeat(y, x.shape[1])


def variant(picture: npt.NDArray[np.uint8], draw: np.random.Generator) -> npt.NDArray[np.uint8]:
    """The film as another unit or another encoding might have given it: framing, contrast, sharpness, noise."""
    rows, columns = picture.shape
    top, bottom, left, right = draw.integers(0, rows // 20, 4)
    film = picture[top : rows - bottom, left : columns - right] / np.float32(255)
    film = film ** np.float32(draw.uniform(0.75, 1.33))
    blurred = (film + np.roll(film, 1, 0) + np.roll(film, 1, 1) + np.roll(film, (1, 1), (0, 1))) / 4
    share = np.float32(draw.uniform(-0.3, 1))
    film = (1 - share) * film + share * blurred + draw.normal(0, draw.uniform(0, 0.03), film.shape).astype(np.float32)
    return np.asarray(np.rint(prepare(film.astype(np.float32), rows)[0, 0] * 255), np.uint8)


def variants(picture: npt.NDArray[np.uint8], number: int, seed: int) -> npt.NDArray[np.uint8]:
    """The film and so many variants of it: (1 + number, size, size)."""
    draw = np.random.default_rng(seed)
    return np.stack([picture, *(variant(picture, draw) for _ in range(number))])


def direction(x: Floats, labels: npt.NDArray[np.float64], groups: Sequence[str]) -> Floats:
    """Where embeddings (films, 1280) with a label of 1 lie, seen from those with 0; every group says as much on both sides."""
    cells = [f"{label} {group}" for label, group in zip(labels, groups, strict=True)]
    number = Counter(cells)
    spread = x.std(0) + 1e-6
    model = LogisticRegression(C=TAUGHT, max_iter=3000)
    return np.asarray(
        model.fit((x - x.mean(0)) / spread, labels, [1 / number[cell] for cell in cells]).coef_[0] / spread
    )


def _regress(x: Floats, y: npt.NDArray[np.int64], strength: float) -> tuple[Floats, float]:
    mean = x.mean(0)
    model = LogisticRegression(C=strength, class_weight="balanced", max_iter=3000).fit(x - mean, y)
    return model.coef_[0], float(model.intercept_[0] - mean @ model.coef_[0])


def auroc(scores: Floats, labels: npt.NDArray[np.int64], patients: Sequence[str], seed: int) -> dict[str, float | int]:
    """AUROC with its interval by patient, and the counts behind it."""
    found = statistics.estimate(statistics.auroc(scores, labels == 1), patients, seed)
    return {
        "auroc": round(found.value, 4), "low": round(found.low, 4), "high": round(found.high, 4),
        "positive": int(labels.sum()), "negative": int((1 - labels).sum()), "patients": len(set(patients)),
    }  # fmt: skip
