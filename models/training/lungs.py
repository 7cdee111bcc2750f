"""Lungs: roughly where the lung fields of a frontal film are, without a trained segmentation; for lesions and for occlusion."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt
from scipy import ndimage

Picture = npt.NDArray[np.uint8]
Mask = npt.NDArray[np.bool_]

CENTERS = ((0.29, 0.45), (0.71, 0.45))
"""Across and down, as shares of the picture: where the two lungs of most frontal films lie."""
RADII, GENEROUS, SURE = (0.19, 0.34), 1.2, 0.55
AIR = 55


def field(picture: Picture) -> Mask:
    """The lung fields of a picture (size, size): per side the darker part of a generous oval, closed and without holes.

    An opacity is bright and would be missed; so the middle of each oval always belongs to it.
    """
    size = picture.shape[0]
    y, x = (np.mgrid[0:size, 0:size] + 0.5) / size
    smooth = ndimage.gaussian_filter(picture.astype(np.float32), 2)
    outside = _outside(smooth)
    found = np.zeros(picture.shape, bool)
    for across, down in CENTERS:
        reach = np.hypot((x - across) / RADII[0], (y - down) / RADII[1])
        inside = (reach < GENEROUS) & ~outside
        dark = inside & (smooth < _otsu(smooth[inside]))
        labels, number = ndimage.label(ndimage.binary_opening(dark, iterations=2))
        if number:
            sizes = ndimage.sum_labels(np.ones_like(labels), labels, range(1, number + 1))
            dark = labels == 1 + int(np.argmax(sizes))
        whole = ndimage.binary_closing(dark | (reach < SURE), iterations=8)
        found |= ndimage.binary_fill_holes(whole)
    return np.asarray(found, bool)


def _outside(smooth: npt.NDArray[np.float32]) -> Mask:
    """The dark that reaches the rim of the picture: air beside the body, or a black border."""
    labels, _ = ndimage.label(smooth < AIR)
    rim = np.unique(np.concatenate([labels[0], labels[-1], labels[:, 0], labels[:, -1]]))
    return np.asarray(ndimage.binary_dilation(np.isin(labels, rim[rim > 0]), iterations=6), bool)


def _otsu(values: npt.NDArray[np.float32]) -> float:
    """The threshold between dark and bright with the least variance within the two (Otsu 1979)."""
    counts, edges = np.histogram(values, 64)
    middles = (edges[1:] + edges[:-1]) / 2
    below, sums = np.cumsum(counts), np.cumsum(counts * middles)
    above = below[-1] - below
    with np.errstate(divide="ignore", invalid="ignore"):
        between = below * above * (sums / below - (sums[-1] - sums) / above) ** 2
    return float(middles[int(np.nanargmax(between))])
