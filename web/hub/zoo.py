"""What the hub knows of the boxes' models: those that come with Outpost; of a programme's own it knows what its boxes say."""

from __future__ import annotations

import math
from functools import cache
from pathlib import Path

import msgspec

import models
from edge.cards import Likelihood, Result
from models.bundle import Manifest

ZOO = Path(models.__file__).parent / "zoo"


@cache
def manifests() -> dict[str, Manifest]:
    """The shipped models by what boxes call them."""
    paths = sorted(ZOO.glob("*/manifest.toml"))
    found = [msgspec.toml.decode(path.read_bytes(), type=Manifest) for path in paths]
    return {f"{manifest.id} {manifest.version}": manifest for manifest in found}


@cache
def labels() -> dict[str, str]:
    """What the findings of the shipped models are called; those of a programme's own model go by their keys."""
    return {finding.key: finding.label for manifest in manifests().values() for finding in manifest.findings}


def thresholds(result: Result, likelihood: Likelihood) -> tuple[float, float]:
    """From which probability on a finding makes a film soon, and immediate; NaN where the model is not known here."""
    manifest = manifests().get(result.model)
    for finding in manifest.findings if manifest else ():
        point = finding.operating_points.get(result.operating_point)
        if finding.key == likelihood.finding and point is not None:
            return point.soon, point.immediate
    return math.nan, math.nan
