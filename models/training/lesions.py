"""Lesions: opacities rendered into normal films, so that a pair of films differs by the lesion and by nothing else."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt
from scipy import ndimage

from models.training.lungs import CENTERS, Mask, Picture

Shade = npt.NDArray[np.float32]

KINDS = ("consolidation", "haze", "effusion", "nodule")


def add(picture: Picture, lungs: Mask, kind: str, draw: np.random.Generator) -> tuple[Picture, Shade]:
    """The picture (size, size) with a lesion in its lung fields, and how much of each pixel the lesion is (0 to 1)."""
    size = picture.shape[0]
    edge = ndimage.gaussian_filter(lungs.astype(np.float32), 2)
    y, x = ((np.mgrid[0:size, 0:size] + 0.5) / size).astype(np.float32)
    shade = np.clip(RENDERED[kind](x, y, lungs, draw), 0, 1) * edge
    film = picture / np.float32(255)
    # more tissue absorbs more, and what is white already hardly becomes whiter
    white = float(np.percentile(film, draw.uniform(85, 97)))
    film = film + shade * np.maximum(white - film, 0)
    return np.asarray(np.rint(np.clip(film, 0, 1) * 255), np.uint8), shade


def _consolidation(x: Shade, y: Shade, lungs: Mask, draw: np.random.Generator) -> Shade:
    """One to three patches with ragged edges."""
    shade = np.zeros_like(x)
    for _ in range(int(draw.integers(1, 4))):
        across, down = _place(lungs, draw)
        reach = np.hypot((x - across) / draw.uniform(0.05, 0.14), (y - down) / draw.uniform(0.05, 0.16))
        ragged = reach + 0.25 * _texture(x.shape[0], draw.uniform(8, 20), draw)
        shade = np.maximum(shade, draw.uniform(0.35, 0.85) / (1 + np.exp(4 * (ragged - 1))))
    return np.asarray(shade * (1 + 0.12 * _texture(x.shape[0], draw.uniform(4, 8), draw)), np.float32)


def _haze(x: Shade, y: Shade, lungs: Mask, draw: np.random.Generator) -> Shade:
    """Diffuse, in one or both lungs, denser towards the hila or the bases."""
    shade = np.zeros_like(x)
    for across, down in [CENTERS[i] for i in ((0,), (1,), (0, 1), (0, 1))[int(draw.integers(4))]]:
        lower = down + draw.uniform(-0.1, 0.2)
        reach = np.hypot((x - across) / 0.22, (y - lower) / draw.uniform(0.15, 0.4))
        shade += draw.uniform(0.15, 0.5) * np.exp(-(reach**2))
    return np.asarray(shade * (1 + 0.3 * _texture(x.shape[0], draw.uniform(8, 25), draw)), np.float32)


def _effusion(x: Shade, y: Shade, lungs: Mask, draw: np.random.Generator) -> Shade:
    """Fluid at the base of one or both lungs, its surface rising to the side (the meniscus)."""
    shade = np.zeros_like(x)
    for side in ((-1,), (1,), (-1, 1))[int(draw.integers(3))]:
        lung = lungs & ((x - 0.5) * side > 0)
        if not lung.any():
            continue
        top, bottom = np.quantile(y[lung], (0.05, 0.99))
        level = bottom - draw.uniform(0.08, 0.5) * (bottom - top)
        aside = np.clip((x - 0.5) * side / 0.4, 0, 1)
        surface = level - draw.uniform(0.05, 0.2) * (aside - 0.4) ** 2 * 3
        shade += (
            ((x - 0.5) * side > 0) * draw.uniform(0.6, 0.95) / (1 + np.exp(-(y - surface) / draw.uniform(0.01, 0.03)))
        )
    return np.asarray(shade, np.float32)


def _nodule(x: Shade, y: Shade, lungs: Mask, draw: np.random.Generator) -> Shade:
    """One to three round shadows."""
    shade = np.zeros_like(x)
    for _ in range(int(draw.integers(1, 4))):
        across, down = _place(lungs, draw)
        reach = np.hypot(x - across, y - down) / draw.uniform(0.02, 0.05)
        shade = np.maximum(shade, draw.uniform(0.35, 0.8) / (1 + np.exp(6 * (reach - 1))))
    return np.asarray(shade, np.float32)


RENDERED = {"consolidation": _consolidation, "haze": _haze, "effusion": _effusion, "nodule": _nodule}


def _place(lungs: Mask, draw: np.random.Generator) -> tuple[float, float]:
    rows, columns = np.nonzero(lungs)
    at = int(draw.integers(len(rows)))
    return (columns[at] + 0.5) / lungs.shape[1], (rows[at] + 0.5) / lungs.shape[0]


def _texture(size: int, grain: float, draw: np.random.Generator) -> Shade:
    """Noise of a grain in pixels, spread 1."""
    coarse = draw.standard_normal((int(size / grain) + 2,) * 2).astype(np.float32)
    fine = ndimage.zoom(coarse, (size + 1) / (coarse.shape[0] - 1), order=3)[:size, :size]
    return np.asarray(fine / (fine.std() + 1e-6), np.float32)
