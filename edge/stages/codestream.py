"""Codestream: a picture as one High-Throughput JPEG 2000 codestream (ITU-T T.814); its beginning is all of it, less sharp.

Lossless, six halvings, resolution by resolution (RPCL, as in transfer syntax 1.2.840.10008.1.2.4.202): whoever has the first bytes
decodes what is there, and each further byte makes it sharper, to the last gray.
"""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

HALVINGS = 6
"""One more than is usual: where the beginning ends within a resolution, it holds more of it; the whole grows by nothing."""


def encode(values: npt.NDArray[np.uint16]) -> bytes:
    """The codestream of a picture of 16 bits (rows, columns); the same picture makes the same bytes."""
    from imagecodecs import htj2k_encode  # OpenJPH; only the worker, and only where there is a hub

    return bytes(htj2k_encode(np.ascontiguousarray(values), reversible=True, resolutions=HALVINGS))
