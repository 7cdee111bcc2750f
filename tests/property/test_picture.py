"""The picture that a tablet is given of a film is the film, to the last bit: read by Pillow, whatever its size and its values."""

from __future__ import annotations

import io

import numpy as np
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image

from edge.stages import png


@given(
    st.integers(1, 2 * png.STRIPE + 3),
    st.integers(1, 40),
    st.integers(0, 2**32 - 1),
    st.sampled_from([1, 4096, 65536]),
)
def test_a_film_is_kept_to_the_last_bit(rows: int, columns: int, seed: int, most: int) -> None:
    values = np.random.default_rng(seed).integers(0, most, (rows, columns), np.uint16)
    with Image.open(io.BytesIO(png.film(values))) as picture:
        picture.verify()
    with Image.open(io.BytesIO(png.film(values))) as picture:
        assert picture.format == "PNG" and (np.asarray(picture, np.uint16) == values).all()
