"""Prepare: from a film in [0, 1] to the tensor the model sees; the same function in training and on the box."""

from __future__ import annotations

from functools import lru_cache

import numpy as np
import numpy.typing as npt

Gray = npt.NDArray[np.float32]


def prepare(gray: Gray, size: int) -> Gray:
    """Bring a film (rows, columns) to a square of `size` and stretch it: (1, 1, size, size) in [0, 1].

    The stretch runs from the 1st to the 99th percentile, so that the window the X-ray unit chose hardly matters.
    """
    rows, columns = gray.shape
    square = _area(rows, size) @ gray @ _area(columns, size).T
    low, high = np.percentile(square, (1, 99))
    stretched = np.clip((square - low) / max(float(high - low), 1e-6), 0, 1)
    return np.asarray(stretched, np.float32)[np.newaxis, np.newaxis]


@lru_cache(maxsize=16)
def _area(length: int, size: int) -> Gray:
    """Weights (size, length) that bring `length` samples to `size`; rows sum to one.

    A triangle four times as wide as a new sample: the finest detail is where encodings and detectors differ.
    """
    step = length / size
    centers = (np.arange(size) + 0.5) * step
    distance = np.abs(np.arange(length) + 0.5 - centers[:, None]) / (2 * max(step, 1))
    weights = np.maximum(1 - distance, 0)
    return np.asarray(weights / weights.sum(axis=1, keepdims=True), np.float32)
