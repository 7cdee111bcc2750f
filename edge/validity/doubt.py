"""Doubt: which films the probability of a finding should be silent about here, by the films that people read without seeing the AI.

Conformal prediction within each kind: abnormal films are held against abnormal ones, normal against normal, so that a rare kind
is served no worse than a common one (`models/conformal.py`).
"""

from __future__ import annotations

import math
from collections.abc import Iterable
from dataclasses import dataclass

from edge.records import Outcome
from edge.validity.accuracy import Judged, Share
from models import conformal


@dataclass(frozen=True)
class Doubt:
    """From where to where a film is called neither abnormal nor normal, so that 95 of 100 of a kind are not called the other."""

    low: float
    high: float
    undecided: Share
    """Of the films here, those between."""
    least: float
    """Of a kind it may be this share instead, so few films are these: the lower end of the 95 % interval."""


def doubt(films: Iterable[Judged], finding: str) -> Doubt | None:
    """For one finding; None where too few films of either kind were read (19 are the least that can rule anything out)."""
    some = [film for film in films if film.finding == finding and film.outcome is not Outcome.COULD_NOT_ASSESS]
    abnormal = [film.abnormal for film in some]
    band = conformal.band([film.probability for film in some], abnormal)
    low, high = sorted((band.present, band.absent))
    if math.isinf(low) or math.isinf(high):
        return None
    undecided = sum(band.says(film.probability) is None for film in some)
    least = min(conformal.covered(abnormal.count(kind)).low for kind in (True, False))
    return Doubt(low, high, Share(undecided, len(some)), least)
