"""Prepare: from a film in [0, 1] to the tensor the model sees; the same function in training and on the box."""

from __future__ import annotations

from functools import lru_cache
from typing import Any

import numpy as np
import numpy.typing as npt

Gray = npt.NDArray[np.float32]


def prepare(gray: Gray, size: int) -> Gray:
    """Bring a film (rows, columns) to a square of `size` and stretch it: (1, 1, size, size) in [0, 1].

    The stretch runs from the 1st to the 99th percentile, so that the window the X-ray unit chose hardly matters.
    """
    square = _fewer(_fewer(gray, size).T, size).T
    low, high = np.percentile(square, (1, 99))
    stretched = np.clip((square - low) / max(float(high - low), 1e-6), 0, 1)
    return np.asarray(stretched, np.float32)[np.newaxis, np.newaxis]


def _fewer(lines: npt.NDArray[Any], size: int) -> npt.NDArray[np.float64]:
    """Lines (length, n) brought to `size` of them.

    In double precision: in single, the order of a sum, of which every processor has its own, takes a gray over the edge of a step
    of eight bits now and then, and a probability by 0.005.
    """
    return np.stack([weights @ lines[begin : begin + len(weights)] for begin, weights in _triangles(len(lines), size)])


@lru_cache(maxsize=16)
def _triangles(length: int, size: int) -> tuple[tuple[int, npt.NDArray[np.float64]], ...]:
    """Of each new sample: the first of the old ones that it is made of, and their weights, whose sum is one.

    A triangle four times as wide as a new sample: the finest detail is where encodings and detectors differ.
    """
    step = length / size
    found = []
    for center in (np.arange(size) + 0.5) * step:
        weights = np.maximum(1 - np.abs(np.arange(length) + 0.5 - center) / (2 * max(step, 1)), 0)
        (within,) = np.nonzero(weights)
        found.append((int(within[0]), weights[within] / weights.sum()))
    return tuple(found)
