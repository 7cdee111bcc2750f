"""PNG: a film as a tablet gets it: at its 16 bits, small, and the map that lies over it (RFC 2083)."""

from __future__ import annotations

import io
import struct
import zlib

import numpy as np
import numpy.typing as npt
from PIL import Image

from edge.records import Rendition

PREVIEW_SIDE = 1024
PNG, UP, STRIPE = b"\x89PNG\r\n\x1a\n", 2, 256
"""How a PNG begins, its filter by the line above (RFC 2083 6.4), and lines at a time, so that a large film is held once."""


def film(values: npt.NDArray[np.uint16]) -> bytes:
    """The film as a 16-bit gray PNG that a tablet undoes while it comes: one chunk, each line less the one above.

    Only runs are looked for: the noise of a film has no other repeats, and to search for them takes most of the time.
    """
    rows, columns = values.shape
    packed, parts = zlib.compressobj(1, strategy=zlib.Z_RLE), []
    above = np.zeros(2 * columns, np.uint8)
    for start in range(0, rows, STRIPE):
        plain = values[start : start + STRIPE].astype(">u2").view(np.uint8)
        lines = np.full((len(plain), 1 + 2 * columns), UP, np.uint8)
        lines[:, 1:] = np.diff(plain, axis=0, prepend=above[None])
        parts.append(packed.compress(lines.data))
        above = plain[-1]
    data = b"".join([*parts, packed.flush()])
    head = struct.pack(">IIBBBBB", columns, rows, 16, 0, 0, 0, 0)
    return PNG + b"".join(_chunk(name, said) for name, said in ((b"IHDR", head), (b"IDAT", data), (b"IEND", b"")))


def preview(film: Rendition) -> bytes:
    """The film in its own first window, small: for the first glance, for paper, and for browsers without scripts."""
    center, width = film.display.windows[0]
    table = np.clip((np.arange(65536) - center) / width + 0.5, 0, 1)
    shown = np.rint(table * 255).astype(np.uint8)[film.values]
    file = io.BytesIO()
    with Image.fromarray(shown) as picture:
        picture.thumbnail((PREVIEW_SIDE, PREVIEW_SIDE), Image.Resampling.BOX)
        picture.save(file, "PNG", compress_level=1)
    return file.getvalue()


def heat_map(saliency: npt.NDArray[np.float32]) -> bytes:
    """The map as a tiny transparent picture; the browser stretches it smoothly over the film."""
    rgba = np.zeros((*saliency.shape, 4), np.uint8)
    rgba[..., 0] = 255
    rgba[..., 1] = np.rint(200 * (1 - saliency))
    rgba[..., 3] = np.rint(200 * np.clip(saliency, 0, 1))
    file = io.BytesIO()
    Image.fromarray(rgba, "RGBA").save(file, "PNG")
    return file.getvalue()


def cells(map_: bytes) -> tuple[int, bytes]:
    """How many columns a heat map has, and how strong each of its places is, row by row: 0 to 200."""
    with Image.open(io.BytesIO(map_)) as picture:
        return picture.width, picture.getchannel("A").tobytes()


def _chunk(name: bytes, data: bytes) -> bytes:
    return struct.pack(">I", len(data)) + name + data + struct.pack(">I", zlib.crc32(data, zlib.crc32(name)))
