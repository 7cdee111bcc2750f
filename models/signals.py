"""Signals: what a film looks like in a few numbers, so that a change of detector, exposure or processing shows before it harms.

Each is brought to about mean 0 and spread 1 over the films that the shipped model learnt from; only changes matter.
"""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

Array = npt.NDArray[np.float32]

SCALES = {
    "level": (0.50, 0.10),
    "contrast": (0.65, 0.13),
    "sharpness": (-3.6, 0.30),
    "noise": (-4.0, 0.40),
    "border": (0.40, 0.15),
    "saturation": (0.15, 0.10),
    "distance": (1.20, 0.25),
}
"""Center and spread of each signal, rounded: a change of these numbers is a change of every packet's edges."""


def appearance(gray: Array, tensor: Array) -> dict[str, float]:
    """The signals of one film as decoded, (rows, columns) in [0, 1], and of the tensor that the model sees.

    Sharpness is the tensor's, so that it also tells of another way to resize; noise is the film's own, relative to its contrast.
    """
    some = gray[::2, ::2]
    low, high = np.percentile(some, (5, 95))
    contrast = max(float(high - low), 1e-3)
    rows, columns = gray.shape
    middle = gray[rows // 4 : 3 * rows // 4 : 2, columns // 4 : 3 * columns // 4]
    ripple = np.abs(middle[:, 2:] - 2 * middle[:, 1:-1] + middle[:, :-2])
    slope = np.abs(tensor[0, 0, ::2, 2:] - tensor[0, 0, ::2, :-2])
    rim = np.concatenate([gray[0], gray[-1], gray[:, 0], gray[:, -1]])
    return scaled(
        level=float(some.mean()),
        contrast=contrast,
        sharpness=float(np.log(slope.mean() + 1e-4)),
        noise=float(np.log(ripple.mean() / contrast + 1e-4)) if ripple.size else SCALES["noise"][0],
        border=float(rim.mean()),
        saturation=float(np.sqrt(np.mean((some <= 0.01) | (some >= 0.99)))),
    )


def scaled(**raw: float) -> dict[str, float]:
    """The signals in units of their usual spread."""
    return {name: (value - SCALES[name][0]) / SCALES[name][1] for name, value in raw.items()}
