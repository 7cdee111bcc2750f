"""Synthesized frontal chest films: for the self-test, the demo and the tests; they carry no patient and prove no accuracy."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

Gray = npt.NDArray[np.float32]


def chest(seed: int, size: tuple[int, int] = (1024, 1024), opacity: bool = False) -> Gray:
    """A chest-like picture (rows, columns) in [0, 1], bones bright, the same for the same seed.

    Soft tissue, two lungs, ribs, clavicles, spine, heart, diaphragm and noise; with `opacity` a patchy consolidation in one lung.
    """
    draw = np.random.default_rng(seed)
    rows, columns = size
    y, x = np.mgrid[0:rows, 0:columns].astype(np.float32)
    y, x = (y + 0.5) / rows, (x + 0.5) / columns
    middle = 0.5 + draw.uniform(-0.015, 0.015)
    breadth = draw.uniform(0.95, 1.05)

    def soft(inside: Gray, width: float) -> Gray:
        return np.asarray(1 / (1 + np.exp(-np.clip(inside / width, -30, 30))), np.float32)

    def ellipse(cx: float, cy: float, rx: float, ry: float, width: float = 0.06) -> Gray:
        return soft(1 - np.hypot((x - cx) / rx, (y - cy) / ry), width)

    body = np.maximum(ellipse(middle, 0.72, 0.52 * breadth, 0.72, 0.03), ellipse(middle, 0.08, 0.13, 0.3, 0.1))
    shoulders = ellipse(middle, 0.34, 0.6, 0.24, 0.05)
    film = 0.05 + 0.62 * np.maximum(body, shoulders)

    lungs = np.zeros_like(film)
    for side in (-1, 1):
        cx = middle + side * 0.215 * breadth
        lean = (x - cx) * side
        apex = soft(1 - np.hypot((x - cx + 0.35 * side * (0.5 - y) * 0.25) / 0.165, (y - 0.47) / 0.37), 0.05)
        floor = 0.79 + 0.35 * (lean - 0.02) ** 2 - 0.05 * np.cos(lean * 8) + (0.015 if side > 0 else 0)
        lungs = np.maximum(lungs, apex * soft(floor - y, 0.008))
    heart = ellipse(middle + 0.06, 0.66, 0.135 * breadth, 0.15, 0.05)
    film -= 0.46 * lungs * (1 - 0.9 * heart)

    hila = sum(ellipse(middle + side * 0.105, 0.5, 0.06, 0.1, 0.35) for side in (-1, 1))
    film += 0.13 * np.asarray(hila) * lungs
    for side in (-1, 1):
        for rib in range(9):
            t = np.clip((x - middle) * side / 0.4, 0, 1)
            line = 0.17 + 0.073 * rib + 0.16 * t - 0.34 * t * (1 - t) * (0.35 + 0.03 * rib)
            film += (
                0.045
                * np.exp(-(((y - line) / 0.0085) ** 2))
                * soft((x - middle) * side - 0.04, 0.01)
                * soft(0.385 - (x - middle) * side, 0.01)
                * body
            )
        clavicle = 0.2 - 0.07 * np.clip((x - middle) * side / 0.35, 0, 1)
        along = soft((x - middle) * side - 0.03, 0.01) * soft(0.36 - (x - middle) * side, 0.01)
        film += 0.13 * np.exp(-(((y - clavicle) / 0.011) ** 2)) * along
    spine = np.exp(-(((x - middle) / 0.04) ** 2))
    film += spine * (0.16 + 0.03 * np.sin(y * 75)) * body
    film += 0.05 * np.exp(-(((x - middle) / 0.09) ** 2)) * body
    film -= 0.12 * np.exp(-(((x - middle) / 0.018) ** 2)) * soft(0.33 - y, 0.02) * body

    vessels = _smooth(draw.standard_normal((48, 48)), size)
    film += 0.02 * vessels * lungs
    if opacity:
        side = 1 if draw.random() < 0.5 else -1
        cx, cy = middle + side * draw.uniform(0.19, 0.24), draw.uniform(0.55, 0.66)
        patch = ellipse(cx, cy, draw.uniform(0.11, 0.14), draw.uniform(0.12, 0.17), 0.3)
        film += patch * lungs * (1 - heart) * (0.44 + 0.12 * _smooth(draw.standard_normal((20, 20)), size))
    film += draw.normal(0, 0.006, size).astype(np.float32)
    return np.clip(film, 0, 1).astype(np.float32)


def _smooth(coarse: npt.NDArray[np.float64], size: tuple[int, int]) -> Gray:
    """Bilinear enlargement of a coarse grid to (rows, columns)."""

    def weights(length: int, cells: int) -> npt.NDArray[np.float64]:
        at = np.linspace(0, cells - 1, length)
        return np.asarray(np.maximum(0, 1 - np.abs(at[:, None] - np.arange(cells))), np.float64)

    return (weights(size[0], coarse.shape[0]) @ coarse @ weights(size[1], coarse.shape[1]).T).astype(np.float32)
