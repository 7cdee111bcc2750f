"""Evidence: whether films carry a finding; one that they do not carry is in no bundle."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import asdict
from typing import Any

import numpy as np
import numpy.typing as npt

from models import statistics
from models.training import bands

POSITIVES, LOWER, WITHIN = 50, 0.70, 0.75
"""Films with the finding; the lower bound of its AUROC; its AUROC within the commonest view."""
SEED = 20261123


def judge(
    logits: npt.NDArray[Any], truth: npt.NDArray[np.bool_], patients: Sequence[str], views: Sequence[str]
) -> dict[str, Any] | str:
    """The evidence of a finding, or in words why it is not enough; the bound is by bootstrap of patients."""
    if int(truth.sum()) < POSITIVES or truth.all():
        return f"{int(truth.sum())} films with it and {int((~truth).sum())} without; at least {POSITIVES} with it are needed"
    if len(set(patients)) < bands.FOLDS:
        return f"its films are of fewer than {bands.FOLDS} patients"
    scores = logits.astype(float)
    whole = statistics.estimate(statistics.auroc(scores, truth), patients, SEED)
    if not whole.low >= LOWER:
        return f"AUROC {whole.value:.3f}, its lower bound {whole.low:.3f} is below {LOWER}"
    view = Counter(views).most_common(1)[0][0]
    inside = np.array([one == view for one in views])
    within = statistics.auroc(scores[inside], truth[inside])(np.ones(int(inside.sum())))
    if not within >= WITHIN:
        return f"within the view {view or 'unknown'} its AUROC is {within:.3f}, below {WITHIN}"
    return {
        "auroc": asdict(whole), "view": view, "within": within, "with": int(truth.sum()), "without": int((~truth).sum())
    }  # fmt: skip
