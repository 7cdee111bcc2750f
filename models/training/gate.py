"""Gate: what can be wrong with a picture, learnt from faults put into real films; and the distance to known films."""

from __future__ import annotations

from collections.abc import Sequence
from concurrent.futures import ProcessPoolExecutor
from pathlib import Path

import numpy as np
import numpy.typing as npt
from scipy import ndimage
from sklearn.linear_model import LogisticRegression

from models import phantom
from models.model import thumbnail
from models.prepare import prepare
from models.training.films import SIZE

Picture = npt.NDArray[np.uint8]
FAULTS = ("none", "wrong_polarity", "rotated", "cropped", "not_chest", "out_of_distribution")
"""The last is a film photographed from a screen or a light box."""
PHANTOMS = range(100, 140)
KNOWN_DIMENSIONS = 64
KNOWN_REFUSED = 0.005
"""Share of the films of a source that the distance alone may refuse."""


def faulty(picture: Picture, fault: str, draw: np.random.Generator) -> Picture:
    """A picture (224, 224) with a fault put into it."""
    if fault == "wrong_polarity":
        return 255 - picture
    if fault == "rotated":
        if draw.random() < 0.5:  # by a quarter or a half, as a cassette is put in
            return np.ascontiguousarray(np.rot90(picture, int(draw.integers(1, 4))))
        tilt = float(draw.uniform(22, 50)) * (1 if draw.random() < 0.5 else -1)
        return _prepared(ndimage.rotate(picture, tilt, reshape=False, order=1, mode="nearest"))
    if fault == "cropped":
        height, width = int(draw.integers(80, 130)), int(draw.integers(80, 130))
        top, left = (int(draw.integers(0, SIZE - side)) for side in (height, width))
        return _prepared(picture[top : top + height, left : left + width])
    if fault == "not_chest":
        return _prepared(not_chest(draw))
    if fault == "out_of_distribution":
        return _prepared(photographed(picture, draw))
    return picture


def photographed(picture: Picture, draw: np.random.Generator) -> npt.NDArray[np.float32]:
    """The film as somebody's telephone sees it on a screen: smaller, askew, with a frame, unevenly lit, with moire and glare."""
    y, x = (np.mgrid[0:SIZE, 0:SIZE].astype(np.float32) + 0.5) / SIZE - 0.5
    angle, zoom = draw.uniform(-0.2, 0.2), draw.uniform(1.15, 1.6)
    keystone = 1 + draw.uniform(-0.4, 0.4) * x + draw.uniform(-0.4, 0.4) * y
    across = (x * np.cos(angle) - y * np.sin(angle)) * zoom * keystone + draw.uniform(-0.1, 0.1)
    down = (x * np.sin(angle) + y * np.cos(angle)) * zoom * keystone + draw.uniform(-0.1, 0.1)
    film = ndimage.map_coordinates(picture / np.float32(255), [(down + 0.5) * SIZE, (across + 0.5) * SIZE], order=1)
    on_screen = (np.abs(across) < 0.5) & (np.abs(down) < 0.5)
    bezel = (np.abs(across) < 0.5 + draw.uniform(0.01, 0.06)) & (np.abs(down) < 0.5 + draw.uniform(0.01, 0.06))
    film = np.where(on_screen, 0.1 + 0.8 * film, np.where(bezel, draw.uniform(0, 0.2), draw.uniform(0.1, 0.9)))
    moire = np.sin(2 * np.pi * (draw.uniform(-60, 60) * x + draw.uniform(20, 80) * y) + draw.uniform(0, 6))
    light = 1 + draw.uniform(-0.6, 0.6) * x + draw.uniform(-0.6, 0.6) * y
    glare = draw.uniform(0, 0.6) * np.exp(
        -((np.hypot(x - draw.uniform(-0.4, 0.4), y - draw.uniform(-0.4, 0.4)) / 0.12) ** 2)
    )
    film = film * light * (1 + draw.uniform(0.02, 0.12) * moire * on_screen) + glare
    return np.asarray(film + draw.normal(0, draw.uniform(0.005, 0.03), film.shape), np.float32)


def not_chest(draw: np.random.Generator) -> npt.NDArray[np.float32]:
    """Something that is no chest: long bones, a hand-like fan, a skull-like ring, texture, stripes, text-like blocks, a blank."""
    y, x = np.mgrid[0:SIZE, 0:SIZE].astype(np.float32) / SIZE - 0.5
    angle = draw.uniform(0, np.pi)
    u, v = x * np.cos(angle) + y * np.sin(angle), y * np.cos(angle) - x * np.sin(angle)
    kind = int(draw.integers(0, 6))
    if kind == 0:  # one or two long bones in soft tissue
        tissue = np.exp(-((v / draw.uniform(0.15, 0.35)) ** 4))
        bones = [
            np.exp(-(((v - at) / draw.uniform(0.03, 0.08)) ** 2))
            for at in draw.uniform(-0.15, 0.15, draw.integers(1, 3))
        ]
        film = 0.4 * tissue + 0.5 * np.clip(sum(bones), 0, 1) * (1 + 0.4 * np.exp(-((u / 0.08) ** 2)))
    elif kind == 1:  # a fan of fingers
        film = np.zeros_like(x)
        for finger in np.linspace(-0.7, 0.7, int(draw.integers(3, 6))):
            across = x * np.cos(finger) + (y - 0.4) * np.sin(finger)
            film += (y < 0.35) * (0.3 * np.exp(-((across / 0.06) ** 4)) + 0.5 * np.exp(-((across / 0.025) ** 2)))
        film += 0.6 * np.exp(-((np.hypot(x, y - 0.35) / 0.25) ** 4))
    elif kind == 2:  # a ring with a bright rim
        radius = np.hypot(x / draw.uniform(0.8, 1.1), y)
        film = 0.35 * (radius < 0.4) + 0.6 * np.exp(-(((radius - 0.4) / 0.03) ** 2))
    elif kind == 3:  # smooth texture
        coarse = draw.random((int(draw.integers(3, 30)),) * 2)
        film = np.kron(coarse, np.ones((SIZE // coarse.shape[0] + 1,) * 2))[:SIZE, :SIZE]
    elif kind == 4:  # stripes or rows of blocks, as of a page
        film = 0.5 + 0.5 * np.sign(np.sin(v * draw.uniform(20, 120))) * (
            np.sin(u * draw.uniform(30, 200)) > draw.uniform(-1, 0.5)
        )
    else:  # hardly anything
        film = 0.5 + draw.uniform(-0.2, 0.2) * x + draw.uniform(-0.2, 0.2) * y
    noise = draw.normal(0, draw.uniform(0.005, 0.05), film.shape)
    return np.asarray(film + noise, np.float32)


def _prepared(film: npt.NDArray[np.generic]) -> Picture:
    return np.asarray(np.rint(prepare(film.astype(np.float32), SIZE)[0, 0] * 255), np.uint8)


def phantoms() -> Picture:
    """Synthesized chests: they are among the known films, because the box tests itself with them from end to end."""
    return np.stack([_prepared(phantom.chest(seed, (448, 448), opacity=seed % 2 == 1)) for seed in PHANTOMS])


def examples(pictures: Picture, seed: int) -> tuple[Picture, npt.NDArray[np.int64]]:
    """Each picture once as it is and once with each fault, and the number of what is wrong with it."""
    with ProcessPoolExecutor() as pool:
        made = list(pool.map(_each, pictures, range(seed, seed + len(pictures)), chunksize=8))
    return np.concatenate(made), np.tile(np.arange(len(FAULTS)), len(pictures))


def _each(picture: Picture, seed: int) -> Picture:
    draw = np.random.default_rng(seed)
    return np.stack([faulty(picture, fault, draw) for fault in FAULTS])


def features(embeddings: npt.NDArray[np.float32], pictures: Picture) -> npt.NDArray[np.float32]:
    """What `Model.doubt` looks at, for many films."""
    small = np.stack([thumbnail(picture / np.float32(255)).ravel() for picture in pictures])
    return np.concatenate([embeddings, small], 1)


def fit(
    known: npt.NDArray[np.float32],
    sources: Sequence[npt.NDArray[np.float32]],
    x: npt.NDArray[np.float32],
    y: npt.NDArray[np.int64],
    path: Path,
) -> None:
    """Learn both parts and write `gate.npz`.

    The limit of the distance comes from the source whose films lie furthest, so that the many films of one do not say what is usual
    in another, and from all of them: of a hundred held-out films nobody knows where one in two hundred lies.
    """
    mean, scale = x.mean(0), x.std(0) + 1e-3
    model = LogisticRegression(C=0.003, max_iter=500).fit((x - mean) / scale, y)
    center, spread = known.mean(0), known.std(0) + 1e-3
    _, values, axes = np.linalg.svd((known - center) / spread, full_matrices=False)
    whitening = axes[:KNOWN_DIMENSIONS].T / spread[:, None] / (values[:KNOWN_DIMENSIONS] / np.sqrt(len(known)))
    usual = max(
        np.quantile(np.sqrt(np.mean(np.square((source - center) @ whitening), 1)), 1 - KNOWN_REFUSED)
        for source in sources
    )
    np.savez(
        path,
        faults=np.array(FAULTS), fault_mean=mean.astype(np.float32), fault_bias=model.intercept_.astype(np.float32),
        fault_weights=(model.coef_ / scale).T.astype(np.float32), fault_margin=np.float32(1.5),
        known_mean=center.astype(np.float32), known_whitening=whitening.astype(np.float32),
        known_distance=np.float32(1.25 * usual),
    )  # fmt: skip
