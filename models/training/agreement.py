"""Agreement: what eight bits, or another runtime, may change of what a finding says."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
import numpy.typing as npt

from models import platt, statistics
from models.bundle import Finding

Floats = npt.NDArray[np.floating[Any]]

MOST = {"p99_difference": 0.03, "auroc_lost": 0.005}
LEAST = {"equal_outcomes": 0.99, "median_correlation_of_maps": 0.95}
"""Of the probabilities' difference the 99th percentile; of all films the share whose outcome stays."""


def compared(
    finding: Finding, point: str, one: Mapping[str, Floats], other: Mapping[str, Floats], truth: Floats
) -> dict[str, float]:
    """How far one way of computing a finding is from another, on the same films.

    Either has `logits` (films,) and `maps` (films, h, w); `truth` (films,) is 0, 1 or NaN where nobody has read the film.
    """
    p, q = (platt.sigmoid(finding.slope * way["logits"].astype(float) + finding.intercept) for way in (one, other))
    edges = [finding.operating_points[point].soon, finding.operating_points[point].immediate]
    read = np.isfinite(truth)
    sick, once = truth[read] == 1, np.ones(int(read.sum()))
    alike = [np.corrcoef(a.ravel(), b.ravel())[0, 1] for a, b in zip(one["maps"], other["maps"], strict=True)]
    return {
        "films": len(p),
        "median_difference": round(float(np.median(np.abs(p - q))), 4),
        "p99_difference": round(float(np.quantile(np.abs(p - q), 0.99)), 4),
        "auroc_lost": round(statistics.auroc(q[read], sick)(once) - statistics.auroc(p[read], sick)(once), 4),
        "equal_outcomes": round(float(np.mean(np.digitize(p, edges) == np.digitize(q, edges))), 4),
        "median_correlation_of_maps": round(float(np.median(alike)), 4),
    }


def lacking(agreement: Mapping[str, Mapping[str, float]]) -> list[str]:
    """What changes more than it may, a line each; empty where all agree."""
    return [
        f"{title}: {name.replace('_', ' ')} {found[name]:.4f}, at {'most' if name in MOST else 'least'} {limit} wanted"
        for title, found in agreement.items()
        for name, limit in (MOST | LEAST).items()
        if not (found[name] <= limit if name in MOST else found[name] >= limit)
    ]
