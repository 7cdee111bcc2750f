"""Burned-in text: what is found, what is left alone, and what that costs. Rates are asserted as counts of films."""

from __future__ import annotations

import random
import time
from collections import Counter
from pathlib import Path

import numpy as np
import numpy.typing as npt
import pytest
from PIL import Image

from edge.records import Concern, Withheld
from edge.stages.deidentify import pixels
from models import phantom
from tests import seeds

DATA = Path(__file__).parents[3] / "shared" / "data"
TEXTS = ("DIALLO^FATOU 12345678", "Abdi Hassan 1987-04-12", "12.03.1971", "ID 4711-09", "Nguyen Van", "0712 555 0199")


def stored(gray: seeds.Gray) -> npt.NDArray[np.uint16]:
    return np.rint(gray * 65535).astype(np.uint16)


def ended(values: npt.NDArray[np.uint16]) -> str:
    made = pixels.clean(values, announced=False)
    return "home" if isinstance(made, Withheld) else "blanked" if made.blanked else "clean"


def test_text_of_any_size_is_blanked_or_the_film_stays_home() -> None:
    draw, told = random.Random(11), Counter[str]()
    grays = [phantom.chest(seed, size) for seed in range(4) for size in ((400, 400), (600, 500))]
    for number in range(200):
        gray = draw.choice(grays)
        rows, columns = gray.shape
        size = draw.choice([10, 11, 12, 14, 16, 20, 24, 32])
        top = draw.choice([2, draw.randrange(2, rows // 6), rows - size - 4, draw.randrange(rows // 3, rows // 2)])
        left = draw.randrange(2, columns // 2)
        made, mask = seeds.written(gray, TEXTS[number % len(TEXTS)], size, left, top, draw.choice([1.0, 1.0, 0.0]))
        if draw.random() < 0.15:
            made, mask = np.ascontiguousarray(made.T), mask.T
        seen = pixels.clean(stored(made), announced=False)
        if isinstance(seen, Withheld):
            told["home"] += 1
        elif not seen.values[mask].any():
            told["blanked"] += 1
        else:
            told["left"] += 1
    assert told["left"] <= 4, told  # measured 3
    assert told["blanked"] > 60, told


def test_films_without_text_pass() -> None:
    assert Counter(ended(stored(phantom.chest(seed, (600, 500)))) for seed in range(12)) == {"clean": 12}


def test_what_the_film_announces_and_nobody_finds_keeps_it_home() -> None:
    plain = stored(phantom.chest(1, (400, 400)))
    assert pixels.clean(plain, announced=True) == Withheld(Concern.TEXT_NOT_FOUND)
    made, mask = seeds.written(phantom.chest(1, (400, 400)), "NDIAYE AWA", 16, 10, 10)
    seen = pixels.clean(stored(made), announced=True)
    assert not isinstance(seen, Withheld) and not seen.values[mask].any()


def test_text_over_the_chest_keeps_the_film_home() -> None:
    made, _ = seeds.written(phantom.chest(1, (400, 400)), "NDIAYE AWA", 16, 150, 190, ink=0.0)
    assert pixels.clean(stored(made), announced=False) == Withheld(Concern.TEXT_OVER_ANATOMY)


def test_a_large_film_takes_no_time_to_speak_of() -> None:
    """Measured 35 ms on two idle cores, 75 on busy ones; what is asserted leaves room for a small board under other load."""
    values = stored(np.kron(phantom.chest(1, (1250, 1000)), np.ones((2, 2), np.float32)))
    took = []
    for _ in range(3):
        before = time.process_time()
        pixels.text(values)
        took.append(time.process_time() - before)
    assert min(took) < 1


@pytest.mark.needs_data
@pytest.mark.parametrize(("source", "most"), [("nih", 0.3), ("kermany", 0.3), ("hannover", 0.35)])
def test_real_films_mostly_pass(source: str, most: float) -> None:
    """Small films (256 pixels), many with markers and words: few stay home, the others leave with their corners blanked."""
    paths = sorted((DATA / source / "images").glob("*"))
    if not paths:
        pytest.skip(f"no films in {DATA / source}")
    told: Counter[str] = Counter()
    for path in paths[:: max(1, len(paths) // 80)][:80]:
        with Image.open(path) as picture:
            told[ended(np.asarray(picture.convert("L")).astype(np.uint16) * 257)] += 1
    assert told["home"] <= most * told.total(), told
