"""Conformal prediction within classes: from which probabilities a finding is called present, absent, or neither of the two.

Without NumPy, so that processes that never look at pictures can use it too.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass


@dataclass(frozen=True)
class Band:
    """Where a finding may be present and where it may be absent."""

    present: float
    """From here on it may be present; -inf where so few films cannot rule that out at any probability."""
    absent: float
    """Up to here it may be absent; inf likewise."""

    def says(self, p: float) -> bool | None:
        """Present or absent; None where both may be, or neither looks like any film before: *cannot tell*."""
        present, absent = p >= self.present, p <= self.absent
        return present if present != absent else None


@dataclass(frozen=True)
class Covered:
    """The share of a class that is not called the other: mean and central 95 % over the sets of films a band may be made from."""

    mean: float
    low: float
    high: float


def band(p: Sequence[float], truth: Sequence[bool], coverage: float = 0.95) -> Band:
    """The band from films that the probabilities were not fitted to, one a patient, in any order.

    Of further films like these with the finding, a share `coverage` or more is not called absent, and of those without it as
    many not called present, on average over such sets of films (split conformal prediction within classes: Papadopoulos 2002;
    Vovk, Gammerman and Shafer 2005, section 4.5). What one set leads to varies: see `covered`.
    """
    kinds: dict[bool, list[float]] = {True: [], False: []}
    for one, present in zip(p, truth, strict=True):
        kinds[bool(present)].append(float(one))
    return Band(_lowest(kinds[True], coverage), -_lowest([-one for one in kinds[False]], coverage))


def covered(films: int, coverage: float = 0.95) -> Covered:
    """What the coverage of a class comes to with so many films of it.

    With n films and k = ⌊(n + 1)(1 - coverage)⌋ it is Beta(n + 1 - k, k) where no two films have one probability (Vovk 2012).
    """
    k = _beyond(films, coverage)
    if not k:
        return Covered(1.0, 1.0, 1.0)
    chances = [(hits, math.log(math.comb(films, hits))) for hits in range(films + 1 - k, films + 1)]

    def below(x: float) -> float:  # as many hits or more of `films` (DLMF 8.17.5)
        return math.fsum(
            math.exp(many + hits * math.log(x) + (films - hits) * math.log1p(-x)) for hits, many in chances
        )

    def quantile(share: float) -> float:
        low, high = 0.0, 1.0
        for _ in range(50):
            middle = (low + high) / 2
            low, high = (middle, high) if below(middle) < share else (low, middle)
        return high

    return Covered((films + 1 - k) / (films + 1), quantile(0.025), quantile(0.975))


def _beyond(films: int, coverage: float) -> int:
    return math.floor((films + 1) * (1 - coverage) + 1e-9)  # of 100, 0.1 is 10, not 9.999…


def _lowest(some: list[float], coverage: float) -> float:
    """The lowest that may still be of the class."""
    k = _beyond(len(some), coverage)
    return sorted(some)[k - 1] if k else -math.inf
