"""Ridge-Platt: a probability from a logit by logistic regression that few labels cannot bend far (Platt 1999)."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

Floats = npt.NDArray[np.float64]

IDENTITY = np.array([1.0, 0.0])
PRECISION = np.diag([1.0, 0.1])
"""How strongly slope and intercept are held to the identity: the intercept, which is the site's prevalence, less than the slope."""
STEPS = 100
CLOSE = 1e-10


def fit(logits: Floats, labels: npt.NDArray[np.int64]) -> tuple[float, float, tuple[float, float, float]]:
    """Slope, intercept and their covariance: logistic regression shrunk towards slope 1, intercept 0."""
    design = np.stack([logits, np.ones_like(logits)], 1)
    at = IDENTITY.copy()
    for _ in range(STEPS):
        p = sigmoid(design @ at)
        gradient = design.T @ (p - labels) + PRECISION @ (at - IDENTITY)
        hessian = (design * (p * (1 - p))[:, None]).T @ design + PRECISION
        step = np.linalg.solve(hessian, gradient)
        # Newton's step, halved until it goes down: from far away a whole one may overshoot
        while _loss(design, labels, at - step) > _loss(design, labels, at) and float(np.abs(step).max()) > CLOSE:
            step = step / 2
        at = at - step
        if float(np.abs(step).max()) <= CLOSE:
            break
    covariance = np.linalg.inv(hessian)
    return float(at[0]), float(at[1]), (float(covariance[0, 0]), float(covariance[0, 1]), float(covariance[1, 1]))


def sigmoid(values: Floats) -> Floats:
    """The probability of a logit, without overflow."""
    tail = np.exp(-np.abs(values))
    return np.asarray(np.where(values >= 0, 1 / (1 + tail), tail / (1 + tail)), np.float64)


def _loss(design: Floats, labels: npt.NDArray[np.int64], at: Floats) -> float:
    logits, off = design @ at, at - IDENTITY
    return float(np.sum(np.logaddexp(0, logits) - labels * logits) + off @ PRECISION @ off / 2)
