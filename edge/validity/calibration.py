"""A site's own calibration: what the bundle's probabilities become here, and how that did on films that were held out.

Without numpy, so that pages can show it.
"""

from __future__ import annotations

import bisect
import hashlib
import math

import msgspec

from edge.validity.accuracy import Z

CLEAR = 1e-6
"""No map says never or always."""


class Platt(msgspec.Struct, frozen=True, forbid_unknown_fields=True, tag="platt"):
    """Probability = sigmoid(slope x logit + intercept)."""

    slope: float
    intercept: float
    covariance: tuple[float, float, float]
    """Variance of the slope, covariance, variance of the intercept."""

    def apply(self, probability: float) -> tuple[float, float, float]:
        """The probability with its 95 % interval (delta method)."""
        at = logit(probability)
        center = self.slope * at + self.intercept
        variance = at * at * self.covariance[0] + 2 * at * self.covariance[1] + self.covariance[2]
        spread = Z * math.sqrt(max(variance, 0.0))
        return _probability(center), _probability(center - spread), _probability(center + spread)


class Isotonic(msgspec.Struct, frozen=True, forbid_unknown_fields=True, tag="isotonic"):
    """What was found at so many places along the logit, never falling; straight between them, level beyond."""

    logits: tuple[float, ...]
    values: tuple[float, ...]
    lows: tuple[float, ...]
    highs: tuple[float, ...]

    def apply(self, probability: float) -> tuple[float, float, float]:
        """The probability with its 95 % interval (Wilson's, of the films at that place)."""
        at = logit(probability)
        right = bisect.bisect_left(self.logits, at)
        if right in (0, len(self.logits)):
            end = min(right, len(self.logits) - 1)
            return self.values[end], self.lows[end], self.highs[end]
        share = (at - self.logits[right - 1]) / (self.logits[right] - self.logits[right - 1])

        def between(kept: tuple[float, ...]) -> float:
            return kept[right - 1] + share * (kept[right] - kept[right - 1])

        return between(self.values), between(self.lows), between(self.highs)


class Place(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """A point of a reliability curve: what was said of some films, and how many of them were abnormal."""

    said: float
    abnormal: int
    of: int


class Held(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """How the probabilities before and after did on films of people whose reads they were not made from."""

    reads: int
    abnormal: int
    patients: int
    brier: tuple[float, float]
    """Mean squared error, before and after."""
    found: dict[str, tuple[int, int]]
    """By operating point, abnormal films that are raised, before and after."""
    curves: tuple[tuple[Place, ...], tuple[Place, ...]]
    """Before and after."""

    @property
    def truer(self) -> bool:
        """Whether the probabilities became truer."""
        return self.brier[1] < self.brier[0]

    def keeps(self, point: str) -> bool:
        """Whether no fewer abnormal films are found at this operating point."""
        before, after = self.found[point]
        return after >= before


class Fitted(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """A finding's map, and how it did where it was held out."""

    map: Platt | Isotonic
    held: Held


class Calibration(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """A site's own calibration of one bundle: part of what an acceptance is bound to. Other findings keep the bundle's."""

    bundle: str
    """The bundle's digest."""
    set: str
    """SHA-256 over the films and their reads."""
    findings: dict[str, Fitted]

    @property
    def document(self) -> bytes:
        """The calibration as canonical JSON; equal calibrations have equal bytes."""
        return msgspec.json.encode(self, order="sorted")

    @property
    def digest(self) -> str:
        """SHA-256 of the document."""
        return hashlib.sha256(self.document).hexdigest()

    def apply(self, finding: str, probability: float) -> tuple[float, float, float] | None:
        """What the bundle's own probability becomes, with its interval; None where the bundle's stands."""
        fitted = self.findings.get(finding)
        return None if fitted is None else fitted.map.apply(probability)


def logit(probability: float) -> float:
    """The logarithm of the odds, of a probability that is neither 0 nor 1."""
    clear = min(max(probability, CLEAR), 1 - CLEAR)
    return math.log(clear / (1 - clear))


def _probability(value: float) -> float:
    tail = math.exp(-abs(value))
    return min(max(1 / (1 + tail) if value >= 0 else tail / (1 + tail), CLEAR), 1 - CLEAR)
