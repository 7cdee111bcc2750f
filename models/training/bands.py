"""Bands: from where to where a probability says neither present nor absent, by films it was not fitted to; and how that holds."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import numpy.typing as npt
from sklearn.model_selection import GroupKFold

from models import bundle, conformal, statistics

Floats = npt.NDArray[np.float64]
Truth = npt.NDArray[np.bool_]

COVERAGE, FOLDS = 0.95, 5


def band(p: Floats, truth: Truth, patients: Sequence[str]) -> tuple[conformal.Band, dict[bool, int]]:
    """The band, and of how many films of either kind: of each patient the first, as films of one patient are alike."""
    first: dict[tuple[str, bool], int] = {}
    for row, one in enumerate(patients):
        first.setdefault((one, bool(truth[row])), row)
    rows = list(first.values())
    kinds = {kind: sum(bool(truth[row]) is kind for row in rows) for kind in (True, False)}
    return conformal.band([float(p[row]) for row in rows], [bool(truth[row]) for row in rows], COVERAGE), kinds


def told(p: Floats, truth: Truth, patients: Sequence[str], seed: int) -> bundle.Band:
    """The band as a manifest has it, and how it holds on patients left out of it."""
    made, kinds = band(p, truth, patients)
    of = held(across(p, truth, patients, seed), truth, patients, seed)
    evidence = (
        f"{COVERAGE:.0%} of either kind not called the other; one film a patient, {kinds[True]} with and {kinds[False]}"
        f" without; on patients left out of it {of['with_it_not_called_absent']['share']:.3f} of those with it and"
        f" {of['without_it_not_called_present']['share']:.3f} of those without; {of['called_neither']['share']:.3f} called neither"
    )
    # where few films leave a side open, no probability is beyond 0 and 1
    return bundle.Band(max(round(made.present, 4), 0.0), min(round(made.absent, 4), 1.0), evidence)


def held(said: Sequence[bool | None], truth: Truth, patients: Sequence[str], seed: int) -> dict[str, Any]:
    """What came of films that a band was not made from: of either kind those not called the other, and those called neither."""
    called = {kind: np.array([one is kind for one in said]) for kind in (True, False)}
    everything = np.ones(len(truth), bool)

    def share(hits: Truth, among: Truth) -> dict[str, float | int]:
        found = statistics.share(hits, among, list(patients), seed)
        told = {
            name: round(value, 4) for name, value in (("share", found.value), ("low", found.low), ("high", found.high))
        }
        return told | {"of": int(among.sum())}

    return {
        "with_it_not_called_absent": share(~called[False], truth),
        "without_it_not_called_present": share(~called[True], ~truth),
        "called_neither": share(~called[True] & ~called[False], everything),
    }


def across(p: Floats, truth: Truth, patients: Sequence[str], seed: int) -> list[bool | None]:
    """What each film is called by a band of the other four fifths of the patients."""
    said: list[bool | None] = [None] * len(p)
    for rest, fold in GroupKFold(FOLDS, shuffle=True, random_state=seed).split(p, truth, patients):
        made, _ = band(p[rest], truth[rest], [patients[row] for row in rest])
        for row in fold:
            said[row] = made.says(float(p[row]))
    return said
