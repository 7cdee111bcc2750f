"""Region: from the heat map to an outline that a viewer can draw.

The region is where the map of the leading finding reaches at least half of its highest value, as far as that hangs together with
the highest place, and all that lies between: the convex outline of those cells. The map is coarse, a cell is a seventh or so of the
film's side, and so is the outline: it says where to look first, not where a finding ends.
"""

from __future__ import annotations

import io

import numpy as np
import numpy.typing as npt
from PIL import Image

Point = tuple[float, float]
"""Column and row from the top left corner of the top left pixel (PS3.3 C.18.6.1.1, C.10.5.1.2)."""

HALF = 0.5


def outline(saliency: bytes, rows: int, columns: int) -> tuple[Point, ...]:
    """The region's corners on a film of that size, the first one again at the end; empty where nothing speaks for the finding."""
    with Image.open(io.BytesIO(saliency)) as picture:
        map_ = np.asarray(picture.convert("RGBA"))[..., 3].astype(np.float32)
    if rows < 1 or columns < 1 or not map_.any():
        return ()
    high, wide = map_.shape
    corners = {(x, y) for row, column in _around_the_top(map_) for x in (column, column + 1) for y in (row, row + 1)}
    hull = _hull(sorted(corners))
    scaled = [(round(x * columns / wide, 2), round(y * rows / high, 2)) for x, y in hull]
    return (*scaled, scaled[0])


def _around_the_top(map_: npt.NDArray[np.float32]) -> set[tuple[int, int]]:
    strong = map_ >= HALF * map_.max()
    row, column = divmod(int(map_.argmax()), map_.shape[1])
    found, next_ = set(), [(row, column)]
    while next_:
        row, column = next_.pop()
        inside = 0 <= row < map_.shape[0] and 0 <= column < map_.shape[1]
        if inside and strong[row, column] and (row, column) not in found:
            found.add((row, column))
            next_ += [(row - 1, column), (row + 1, column), (row, column - 1), (row, column + 1)]
    return found


def _hull(points: list[tuple[int, int]]) -> list[tuple[int, int]]:
    """The convex hull of sorted points (Andrew's monotone chain)."""

    def half(ordered: list[tuple[int, int]]) -> list[tuple[int, int]]:
        chain: list[tuple[int, int]] = []
        for x, y in ordered:
            while len(chain) > 1:
                (ax, ay), (bx, by) = chain[-2:]
                if (bx - ax) * (y - ay) - (by - ay) * (x - ax) > 0:
                    break
                chain.pop()
            chain.append((x, y))
        return chain[:-1]

    return half(points) + half(points[::-1])
