"""Lesions rendered into films: they lie in the lungs, they are bright, and nothing else changes."""

from __future__ import annotations

import numpy as np
import pytest

from models import phantom
from models.prepare import prepare
from models.training import lesions, lungs


def picture(seed: int) -> lungs.Picture:
    return np.asarray(np.rint(prepare(phantom.chest(seed, (256, 256)), 224)[0, 0] * 255), np.uint8)


@pytest.mark.parametrize("seed", range(3))
def test_both_lungs_are_found_and_little_else(seed: int) -> None:
    found = lungs.field(picture(seed))
    for side in (found[:, :112], found[:, 112:]):
        assert 0.1 < side.mean() < 0.5
    assert not found[:, 109:115].any(), "the spine"
    assert found[80:130, 60:70].mean() > 0.8, "the middle of a lung"


@pytest.mark.parametrize("kind", lesions.KINDS)
def test_a_lesion_is_bright_and_in_the_lungs(kind: str) -> None:
    film = picture(1)
    field = lungs.field(film)
    ill, shade = lesions.add(film, field, kind, np.random.default_rng(5))
    changed = ill.astype(int) - film.astype(int)
    assert changed.max() > 8 and changed.min() >= -1
    outside = ~np.asarray(lungs.ndimage.binary_dilation(field, iterations=9))
    assert np.abs(changed[outside]).max() <= 1 and float(shade[outside].max()) < 0.01


def test_the_same_draw_gives_the_same_lesion() -> None:
    film = picture(2)
    field = lungs.field(film)
    first, again = (lesions.add(film, field, "haze", np.random.default_rng(7))[0] for _ in range(2))
    assert np.array_equal(first, again)
