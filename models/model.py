"""A model on this device: prepare, infer, doubt, calibrate; and whether it computes here what it shall."""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from models import backends, phantom, signals
from models.bundle import Bundle, Mismatch
from models.prepare import prepare

Array = npt.NDArray[np.float32]

OUTPUTS = ("logits", "maps", "embedding")
"""What every network gives."""
AXES = 8
"""So many directions of the model's own view of films are watched for drift."""


@dataclass(frozen=True)
class Scores:
    """What the network says of one film, before calibration."""

    logits: Array
    """(outputs,)"""
    maps: Array
    """(outputs, h, w): class activation maps (Zhou 2016); for a linear head equal to Grad-CAM up to scale."""
    embedding: Array
    """(dimensions,): the features the logits are linear in."""


@dataclass(frozen=True)
class Probability:
    """A calibrated probability of one finding, with the 95 % interval of its calibration."""

    finding: str
    label: str
    scheme: str
    code: str
    meaning: str
    value: float
    low: float
    high: float


class Model:
    """A bundle, loaded and ready on this device."""

    def __init__(self, bundle: Bundle, threads: int = 1, runtime: str = "") -> None:
        """Without a runtime the bundle's reference is taken."""
        self.bundle = bundle
        self.manifest = bundle.manifest
        self.runtime = runtime or next(iter(bundle.manifest.runtimes))
        if self.runtime not in bundle.manifest.runtimes:
            raise Mismatch(f"runtime {self.runtime}: this bundle is not made for it")
        self._backend = backends.load(self.runtime, bundle.path / bundle.manifest.runtimes[self.runtime], threads)
        with np.load(bundle.path / "gate.npz") as arrays:
            self._gate = {name: arrays[name] for name in arrays.files}

    def prepare(self, gray: Array) -> Array:
        """The tensor for a film (rows, columns) in [0, 1] with square pixels and bright bones."""
        return prepare(gray, self.manifest.input_size)

    def infer(self, tensor: Array) -> Scores:
        """Run the network."""
        outputs = self._backend.run(tensor)
        return Scores(outputs["logits"][0], outputs["maps"][0], outputs["embedding"][0])

    def domain_of(self, age_years: float) -> str | None:
        """The domain that speaks for this age, or None when there is no evidence at it."""
        for domain in self.manifest.domains:
            if domain.age_min <= age_years < domain.age_max:
                return domain.key
        return None

    def doubt(self, gray: Array, tensor: Array, scores: Scores) -> str | None:
        """Why this picture should not be assessed, or None; the first that applies.

        From the picture's statistics, from a classifier of faults on the embedding, and from the Mahalanobis distance to
        the films the model knows (Lee 2018).
        """
        low, high = np.percentile(gray, (5, 95))
        if high - low < 0.08 or float(np.mean((gray <= 0.002) | (gray >= 0.998))) > 0.6:
            return "unreadable_exposure"
        gate, features = self._gate, _features(tensor, scores)
        votes = (features - gate["fault_mean"]) @ gate["fault_weights"] + gate["fault_bias"]
        fault = int(np.argmax(votes))
        if votes[fault] - votes[0] > gate["fault_margin"]:  # 0 is: nothing wrong
            return str(gate["faults"][fault])
        return "out_of_distribution" if _length(self._whitened(features)) > gate["known_distance"] else None

    def signals(self, gray: Array, tensor: Array, scores: Scores) -> tuple[dict[str, float], tuple[float, ...]]:
        """What the film looks like to a person and to the model: its signals by name, and where it lies among known films.

        The place is on the `AXES` directions in which known films differ most, each in units of their spread.
        """
        place = self._whitened(_features(tensor, scores))
        found = signals.appearance(gray, tensor) | signals.scaled(distance=_length(place))
        return found, tuple(map(float, place[:AXES]))

    def _whitened(self, features: Array) -> Array:
        place: Array = (features - self._gate["known_mean"]) @ self._gate["known_whitening"]
        return place

    def calibrate(self, scores: Scores, domain: str) -> tuple[Probability, ...]:
        """Calibrated probabilities of the domain's findings; the interval is that of the calibration (delta method)."""
        return tuple(
            self._probability(finding.key, float(scores.logits[finding.output]))
            for finding in self.manifest.findings
            if finding.domain == domain
        )

    def _probability(self, key: str, logit: float) -> Probability:
        finding = next(finding for finding in self.manifest.findings if finding.key == key)
        center = finding.slope * logit + finding.intercept
        slope_variance, covariance, intercept_variance = finding.calibration_covariance
        variance = logit * logit * slope_variance + 2 * logit * covariance + intercept_variance
        spread = 1.96 * math.sqrt(max(variance, 0.0))
        return Probability(
            finding=key,
            label=finding.label,
            scheme=finding.scheme,
            code=finding.code,
            meaning=finding.meaning,
            value=_sigmoid(center),
            low=_sigmoid(center - spread),
            high=_sigmoid(center + spread),
        )

    def logit(self, scores: Scores, finding: str) -> float:
        """A finding's logit as the network has it, shifted by its calibration: domains are then alike in spread, 0 is even odds."""
        known = next(one for one in self.manifest.findings if one.key == finding)
        return float(scores.logits[known.output]) + known.intercept / known.slope

    def saliency(self, scores: Scores, finding: str) -> Array:
        """Where a finding's logit comes from: (h, w) in [0, 1], the strongest place 1; all 0 where nothing speaks for it."""
        output = next(known.output for known in self.manifest.findings if known.key == finding)
        positive: Array = np.maximum(scores.maps[output], 0)
        top = float(positive.max())
        return positive / np.float32(top) if top > 0 else positive

    def self_test(self) -> None:
        """Compare the network's shapes with the manifest's and this device's outputs with the golden ones. Raises `Mismatch`."""
        self._shapes()
        golden = load_golden(self.bundle)
        found = golden_outputs(self, golden.films)
        if found.shape != golden.probabilities.shape:
            raise Mismatch(f"golden.npz: shape {golden.probabilities.shape}, the model gives {found.shape}")
        worst = float(np.abs(found - golden.probabilities).max())
        if not worst <= self.manifest.self_test.tolerance:
            raise Mismatch(f"self-test: off by {worst:.4f}, {self.manifest.self_test.tolerance} allowed")

    def _shapes(self) -> None:
        """The network takes and gives what manifest and gate are made for."""
        side = self.manifest.input_size
        try:
            found = self._backend.run(np.zeros((1, 1, side, side), np.float32))
        except Exception as error:  # each runtime has errors of its own
            raise Mismatch(f"model: it takes no picture of {side} x {side} ({str(error).splitlines()[0]})") from error
        if missing := [name for name in OUTPUTS if name not in found]:
            raise Mismatch(f"model: it has no output {', '.join(missing)}")
        labels = self.manifest.outputs or 1 + max(finding.output for finding in self.manifest.findings)
        shapes = {name: found[name].shape for name in OUTPUTS}
        if shapes["logits"] != (1, labels):
            raise Mismatch(f"model: logits of shape {shapes['logits']}, the manifest has {labels} labels")
        if shapes["maps"][:2] != (1, labels) or len(shapes["maps"]) != 4:
            raise Mismatch(f"model: maps of shape {shapes['maps']}, the manifest has {labels} labels")
        features = shapes["embedding"][-1] + thumbnail(np.zeros((side, side), np.float32)).size
        for name in ("fault_weights", "known_whitening"):
            if name not in self._gate or self._gate[name].shape[0] != features:
                raise Mismatch(f"gate.npz: {name} is not made for the {features} features of this network")


@dataclass(frozen=True)
class Golden:
    """The synthesized films of a bundle and what its model says of them; hashed by the manifest like everything else."""

    films: npt.NDArray[np.uint16]
    """(films, rows, columns): stored values of 12 bits, bones bright, as a modality would send them."""
    probabilities: npt.NDArray[np.float64]
    """(films, findings)"""


WHITE = 4095
"""The largest value of 12 bits."""


def load_golden(bundle: Bundle) -> Golden:
    """The golden films of a bundle. Raises `Mismatch` where it has none."""
    with np.load(bundle.path / "golden.npz") as arrays:
        if missing := {"films", "probabilities"} - set(arrays.files):
            raise Mismatch(f"golden.npz: no {', '.join(sorted(missing))}")
        return Golden(arrays["films"], arrays["probabilities"])


def golden_films() -> npt.NDArray[np.uint16]:
    """Two synthesized films for a new bundle, one with an opacity; they are kept in it, so that every device has the same."""
    films = [phantom.chest(seed, size=(256, 256), opacity=seed == 1) for seed in range(2)]
    return np.rint(np.array(films) * WHITE).astype(np.uint16)


def golden_outputs(model: Model, films: npt.NDArray[np.uint16]) -> npt.NDArray[np.float64]:
    """Probabilities (films, findings) that a model gives to the films of its self-test."""
    rows = []
    for film in films:
        scores = model.infer(model.prepare(film.astype(np.float32) / np.float32(WHITE)))
        rows.append(
            [
                model._probability(finding.key, float(scores.logits[finding.output])).value
                for finding in model.manifest.findings
            ]
        )
    return np.array(rows)


def _length(place: Array) -> float:
    return float(np.sqrt(np.mean(np.square(place))))


def _features(tensor: Array, scores: Scores) -> Array:
    """What the gate looks at: the embedding, and a thumbnail that keeps what is where."""
    return np.concatenate([scores.embedding, thumbnail(tensor[0, 0]).ravel()])


def thumbnail(square: Array, side: int = 14) -> Array:
    """Block means of a square picture: (side, side)."""
    block = square.shape[0] // side
    means: Array = square.reshape(side, block, side, block).mean(axis=(1, 3), dtype=np.float32)
    return means


def _sigmoid(value: float) -> float:
    return 1 / (1 + math.exp(-value)) if value >= 0 else math.exp(value) / (1 + math.exp(value))
