"""Gate: what can be wrong with a picture, learnt from faults put into real films; and the distance to known films."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import numpy.typing as npt
from sklearn.linear_model import LogisticRegression

from models import phantom
from models.model import thumbnail
from models.prepare import prepare
from models.training.films import SIZE

Picture = npt.NDArray[np.uint8]
FAULTS = ("none", "wrong_polarity", "rotated", "cropped", "not_chest")
PHANTOMS = range(100, 140)
KNOWN_DIMENSIONS = 64
KNOWN_REFUSED = 0.005
"""Share of known films that the distance alone may refuse."""


def faulty(picture: Picture, fault: str, draw: np.random.Generator) -> Picture:
    """A picture (224, 224) with a fault put into it."""
    if fault == "wrong_polarity":
        return 255 - picture
    if fault == "rotated":
        turned = np.rot90(picture, int(draw.integers(1, 4)))
        return np.ascontiguousarray(turned[:, ::-1] if draw.random() < 0.3 else turned)
    if fault == "cropped":
        height, width = int(draw.integers(80, 130)), int(draw.integers(80, 130))
        top, left = (int(draw.integers(0, SIZE - side)) for side in (height, width))
        return _prepared(picture[top : top + height, left : left + width])
    if fault == "not_chest":
        return _prepared(not_chest(draw))
    return picture


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
    draw = np.random.default_rng(seed)
    made = [(faulty(picture, fault, draw), number) for picture in pictures for number, fault in enumerate(FAULTS)]
    return np.stack([picture for picture, _ in made]), np.array([number for _, number in made])


def features(embeddings: npt.NDArray[np.float32], pictures: Picture) -> npt.NDArray[np.float32]:
    """What `Model.doubt` looks at, for many films."""
    small = np.stack([thumbnail(picture / np.float32(255)).ravel() for picture in pictures])
    return np.concatenate([embeddings, small], 1)


def fit(
    known: npt.NDArray[np.float32],
    held_out: npt.NDArray[np.float32],
    x: npt.NDArray[np.float32],
    y: npt.NDArray[np.int64],
    path: Path,
) -> None:
    """Learn both parts and write `gate.npz`; the distance's threshold comes from held-out films."""
    mean, scale = x.mean(0), x.std(0) + 1e-3
    model = LogisticRegression(C=0.003, max_iter=500).fit((x - mean) / scale, y)
    center, spread = known.mean(0), known.std(0) + 1e-3
    _, values, axes = np.linalg.svd((known - center) / spread, full_matrices=False)
    whitening = axes[:KNOWN_DIMENSIONS].T / spread[:, None] / (values[:KNOWN_DIMENSIONS] / np.sqrt(len(known)))
    distances = np.sqrt(np.mean(np.square((held_out - center) @ whitening), 1))
    np.savez(
        path,
        faults=np.array(FAULTS), fault_mean=mean.astype(np.float32), fault_bias=model.intercept_.astype(np.float32),
        fault_weights=(model.coef_ / scale).T.astype(np.float32), fault_margin=np.float32(1.5),
        known_mean=center.astype(np.float32), known_whitening=whitening.astype(np.float32),
        known_distance=np.float32(1.25 * np.quantile(distances, 1 - KNOWN_REFUSED)),
    )  # fmt: skip
