"""Pixels: burned-in text is found by its shape and blanked, or the film stays home (PS3.15 E.3.1, Clean Pixel Data).

Nothing here reads. Text of any script is strokes: thin, sharp on both sides, upright and level ones close together, in a row
longer than it is high. Anatomy is softer, wires are strokes without a row, a film's frame has one sharp side only. What is found
near the edge is blanked with the ground around it; what lies over anatomy, or is too much, keeps the film home: blanking there
would hide what the film is taken for. The L or R of the side may go with it; the header says the side where the film said so.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from edge.records import Concern, Withheld

Mask = npt.NDArray[np.bool_]
Levels = npt.NDArray[np.int16]

CELL = 4
"""Pixels on the side of a cell, at each level of the pyramid: about a third of the smallest letter that can be read."""
STROKE = 2
"""At each level a stroke is at most this wide; each next level halves the film, so that larger letters are found as well."""
SMALLEST = 64
"""The pyramid ends where the film's shorter side would be less."""
CONTRAST = 0.08
"""Of the film's range: what a stroke must differ from the ground on both of its sides."""
NOISE = 5.5
"""Times the median step between neighbours: a stroke must stand out of the noise."""
EDGE = 0.2
"""Share of the film's height and width, on each side, where text is blanked and not anatomy."""
MOST = 0.25
ACTIVE = 3
"""Pixels of strokes that make a cell part of a line."""
SHORT, LONG = 2, 5
"""Cells that a line of text is at least high and long."""
DENSITY = 0.12
"""Share of strokes in a line of text; in wires, and in what the edges of a film make, there is less."""
BOTH_WAYS = 0.12
"""Of the more frequent strokes, the upright or the level ones, the others are at least so many."""
"""Share of the film that may be blanked."""


@dataclass(frozen=True)
class Box:
    """A rectangle of pixels; the ends are outside."""

    top: int
    left: int
    bottom: int
    right: int


@dataclass(frozen=True)
class Cleaned:
    """A picture in which no text was found any more."""

    values: npt.NDArray[np.uint16]
    blanked: tuple[Box, ...]


def clean(values: npt.NDArray[np.uint16], announced: bool) -> Cleaned | Withheld:
    """Blank the text of a picture; `announced` where the film itself says that it has some (BurnedInAnnotation)."""
    found = text(values)
    if not found:
        return Withheld(Concern.TEXT_NOT_FOUND) if announced else Cleaned(values, ())
    rows, columns = values.shape
    if any(_over_anatomy(box, rows, columns) for box in found):
        return Withheld(Concern.TEXT_OVER_ANATOMY)
    grown = [_grown(box, rows, columns) for box in found]
    blank = np.zeros(values.shape, np.bool_)
    for box in grown:
        blank[box.top : box.bottom, box.left : box.right] = True
    if blank.mean() > MOST:
        return Withheld(Concern.TOO_MUCH_TEXT)
    made = values.copy()
    made[blank] = 0
    return Withheld(Concern.TEXT_REMAINS) if text(made) else Cleaned(made, tuple(grown))


def text(values: npt.NDArray[np.uint16]) -> list[Box]:
    """Where the picture has what looks like lines of text, of any size and script."""
    levels: Levels = (values >> 2).astype(np.int16)  # 14 bits, so that a difference fits
    low, high = np.percentile(levels[::7, ::5], (0.5, 99.5))
    scale, found = 1, []
    while min(levels.shape) >= SMALLEST or scale == 1:
        # the smallest letters have strokes so close that only the very next pixels tell them apart
        widths = (1, STROKE) if scale == 1 else (STROKE,)
        for box in _lines(levels, max(CONTRAST * float(high - low), 24.0), widths):
            found.append(Box(box.top * scale, box.left * scale, box.bottom * scale, box.right * scale))
        levels, scale = _halved(levels), scale * 2
    return found


def _halved(levels: Levels) -> Levels:
    rows, columns = levels.shape[0] // 2 * 2, levels.shape[1] // 2 * 2
    # 14 bits each: a pair's sum needs 15, so the halves are averaged before they are added
    rowwise = (levels[0:rows:2] + levels[1:rows:2]) >> 1
    return np.asarray((rowwise[:, 0:columns:2] + rowwise[:, 1:columns:2]) >> 1, np.int16)


def _lines(levels: Levels, contrast: float, widths: tuple[int, ...]) -> list[Box]:
    upright, level = (_strokes(view, contrast, widths) for view in (levels, levels.T))
    both = _cells(upright), _cells(level.T)
    rows = []
    for cells in _rows(both[0] + both[1] >= ACTIVE):
        if _is_text(cells, *both):
            rows.append(Box(*(CELL * edge for edge in (cells.top, cells.left, cells.bottom, cells.right))))
    return rows


def _strokes(levels: Levels, contrast: float, widths: tuple[int, ...]) -> Mask:
    """Where a line across the picture rises and falls, or falls and rises, within a stroke's width, on both sides alike."""
    found = np.zeros(levels.shape, np.bool_)
    for width in widths:
        step = levels[:, width:] - levels[:, :-width]
        noise = float(np.median(np.abs(step[::11, ::7])))
        threshold = np.int16(min(max(contrast, NOISE * noise), 2**14))
        rises, falls = step > threshold, step < -threshold
        found[:, width:-width] |= (rises[:, :-width] & falls[:, width:]) | (falls[:, :-width] & rises[:, width:])
    return found


def _cells(strokes: Mask) -> npt.NDArray[np.uint8]:
    """Pixels of strokes in each cell."""
    rows, columns = strokes.shape[0] // CELL * CELL, strokes.shape[1] // CELL * CELL
    whole = strokes[:rows, :columns].view(np.uint8)
    across = whole[:, 0::CELL] + whole[:, 1::CELL] + whole[:, 2::CELL] + whole[:, 3::CELL]
    return np.asarray(across[0::CELL] + across[1::CELL] + across[2::CELL] + across[3::CELL], np.uint8)


def _rows(active: Mask) -> list[Box]:
    """Cells with strokes, joined where they lie at most one cell apart; their outer bounds."""
    near = active.copy()
    near[:, 1:] |= active[:, :-1]
    near[:, :-1] |= active[:, 1:]
    near[1:] |= near[:-1].copy()
    parent: list[int] = []
    bounds: list[list[int]] = []

    def root(one: int) -> int:
        while parent[one] != one:
            parent[one] = parent[parent[one]]
            one = parent[one]
        return one

    above: list[tuple[int, int, int]] = []
    last = -2
    for y in np.flatnonzero(near.any(axis=1)):
        edges = np.flatnonzero(np.diff(near[y], prepend=False, append=False)).tolist()
        runs = []
        for left, right in zip(edges[0::2], edges[1::2], strict=True):
            label = len(parent)
            parent.append(label)
            bounds.append([int(y), left, int(y) + 1, right])
            if last == y - 1:
                for other_left, other_right, other in above:
                    if other_left <= right and left <= other_right:
                        one, two = root(label), root(other)
                        parent[max(one, two)] = min(one, two)
            runs.append((left, right, label))
        above, last = runs, int(y)
    joined: dict[int, list[int]] = {}
    for label, (top, left, bottom, right) in enumerate(bounds):
        box = joined.setdefault(root(label), [top, left, bottom, right])
        box[:] = [min(box[0], top), min(box[1], left), max(box[2], bottom), max(box[3], right)]
    return [Box(*box) for box in joined.values()]


def _is_text(box: Box, upright: npt.NDArray[np.uint8], level: npt.NDArray[np.uint8]) -> bool:
    """Whether a group of cells is a line of letters: strokes both ways, close together, in a row."""
    height, width = box.bottom - box.top, box.right - box.left
    short, long = min(height, width), max(height, width)
    if short < SHORT or long < LONG:
        return False
    part = (slice(box.top, box.bottom), slice(box.left, box.right))
    one, other = int(upright[part].sum()), int(level[part].sum())
    if min(one, other) < BOTH_WAYS * max(one, other):
        return False
    return (one + other) / (height * width * CELL * CELL) > DENSITY


def _grown(box: Box, rows: int, columns: int) -> Box:
    """With the ground around it: what hangs below the line, and the letters at its ends that were too faint."""
    height, width = box.bottom - box.top, box.right - box.left
    reach = max(min(height, width), 8)
    down, along = (reach, 3 * reach) if width >= height else (3 * reach, reach)
    return Box(
        max(box.top - down, 0),
        max(box.left - along, 0),
        min(box.bottom + down, rows),
        min(box.right + along, columns),
    )


def _over_anatomy(box: Box, rows: int, columns: int) -> bool:
    """Whether a rectangle reaches into the middle of the film."""
    return (
        box.top < rows * (1 - EDGE)
        and box.bottom > rows * EDGE
        and box.left < columns * (1 - EDGE)
        and box.right > columns * EDGE
    )
