"""Tune: the later half of the network learns what an opacity in a lung is, from films and from lesions rendered into normal ones.

The head's films are kept apart: no patient whose film fits or judges a head is in here, so cross-validation of the heads stays
honest. The first blocks keep their ImageNet weights; with few films they would only learn the detectors.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import click
import numpy as np
import numpy.typing as npt
import torch
from torch.nn import functional

from models.training import lesions, lungs
from models.training.films import SIZE, Film

FROZEN_BLOCKS = 5
"""Up to 28 x 28 places; seven tenths of the time and few of the weights."""
BATCH, STEPS, SAVED = 32, 400, 25
RATE, DECAY = 2e-4, 0.05
OUTPUTS = ("lesion", "pneumonia", "mined")
SMOOTHING = {"lesion": 0.0, "pneumonia": 0.02, "mined": 0.15}
"""How far a label is believed: those mined from reports are wrong in a large part."""
WEIGHTS = {"lesion": 1.0, "pneumonia": 0.5, "mined": 0.5}
NOISE = 2.0
"""Of rounding to eight bits, in steps."""
PLACES = 2.0
"""Weight of saying where the lesion is."""


@dataclass(frozen=True)
class Parts:
    """Which films teach what, by their place in the list."""

    normal: list[int]
    """Lesions are rendered into these."""
    children: list[int]
    adults: list[int]


def parts(every: list[Film], seed: int) -> Parts:
    """The films that may tune the network: none of a patient who fits or judges a head."""
    judged = {film.patient for film in every if film.source == "nih" and film.label is not None}
    children = [
        i for i, film in enumerate(every) if film.source == "kermany" and film.split == "train" and tunes(film, seed)
    ]
    adults = [
        i
        for i, film in enumerate(every)
        if film.source == "nih" and film.split == "train" and film.patient not in judged
    ]
    normal = [i for i in children if every[i].label == 0] + [i for i in adults if every[i].mined == 0]
    return Parts(normal, children, adults)


def tunes(film: Film, seed: int) -> bool:
    """Whether a child's patient is in the half that tunes the network; the other half fits and calibrates the head."""
    return int.from_bytes(film.patient.encode(), "big") % 1009 % 2 == seed % 2


def batches(
    every: list[Film], pictures: npt.NDArray[np.uint8], chosen: Parts, steps: int, seed: int
) -> Iterator[tuple[torch.Tensor, torch.Tensor, torch.Tensor]]:
    """Pictures (n, 1, size, size), labels (n, outputs) with NaN where nobody knows, and lesions' places (n, 7, 7) with NaN."""
    draw = np.random.default_rng(seed)
    fields: dict[int, lungs.Mask] = {}
    unknown = np.full((SIZE, SIZE), np.nan, np.float32)

    def pick(rows: list[int], number: int, label: int | None = None, mined: bool = False) -> list[int]:
        fit = [i for i in rows if label is None or (every[i].mined if mined else every[i].label) == label]
        return [int(i) for i in draw.choice(fit, number)]

    for _ in range(steps):
        shown: list[tuple[npt.NDArray[np.uint8], npt.NDArray[np.float32], dict[str, float]]] = []
        for i in pick(chosen.normal, BATCH // 4):
            if i not in fields:
                fields[i] = lungs.field(pictures[i])
            ill, shade = lesions.add(
                pictures[i], fields[i], lesions.KINDS[int(draw.integers(len(lesions.KINDS)))], draw
            )
            shown += [(pictures[i], np.zeros_like(unknown), {"lesion": 0}), (ill, shade, {"lesion": 1})]
        quarter = (BATCH - len(shown)) // 4
        for label in (0, 1):
            shown += [(pictures[i], unknown, {"pneumonia": label}) for i in pick(chosen.children, quarter, label)]
            shown += [(pictures[i], unknown, {"mined": label}) for i in pick(chosen.adults, quarter, label, mined=True)]
        x = torch.from_numpy(np.stack([picture for picture, _, _ in shown]))[:, None].float() / 255
        where = torch.from_numpy(np.stack([place for _, place, _ in shown]))[:, None]
        y = torch.tensor([[known.get(output, np.nan) for output in OUTPUTS] for _, _, known in shown])
        x, where = augment(x, where, torch.Generator().manual_seed(int(draw.integers(2**31))))
        yield x, where, y


def augment(x: torch.Tensor, where: torch.Tensor, draw: torch.Generator) -> tuple[torch.Tensor, torch.Tensor]:
    """The films as other units, other hands and other encodings might have given them; places move with them.

    Turned, scaled, shifted, another contrast, softer or sharper, noisier; markers burned in; the border blanked.
    """
    n = len(x)

    def uniform(low: float, high: float, *shape: int) -> torch.Tensor:
        return low + (high - low) * torch.rand(n, *shape, generator=draw)

    angle, scale = uniform(-0.2, 0.2), uniform(0.8, 1.1)
    stretch = uniform(0.9, 1.1)
    theta = torch.stack(
        [
            torch.stack([scale * stretch * angle.cos(), -scale * angle.sin(), uniform(-0.1, 0.1)], 1),
            torch.stack([scale * angle.sin(), scale * angle.cos(), uniform(-0.1, 0.1)], 1),
        ],
        1,
    )
    grid = functional.affine_grid(theta, list(x.shape), align_corners=False)
    x = functional.grid_sample(x, grid, align_corners=False, padding_mode="border")
    where = functional.grid_sample(where, grid, align_corners=False, mode="nearest")
    soft = functional.avg_pool2d(functional.pad(x, (1, 1, 1, 1), mode="replicate"), 3, 1)
    x = x + uniform(-0.8, 1, 1, 1, 1) * (soft - x)
    x = x.clamp(0, 1) ** uniform(-0.5, 0.5, 1, 1, 1).exp()
    x = x + uniform(0, 0.04, 1, 1, 1) * torch.randn(x.shape, generator=draw)
    for film in x:
        if torch.rand((), generator=draw) < 0.5:  # a marker, or a cable, or a corner of another film
            height, width = (int(side) for side in torch.randint(4, 40, (2,), generator=draw))
            top, left = (int(torch.randint(0, SIZE - side, (), generator=draw)) for side in (height, width))
            if not SIZE * 0.2 < left + width / 2 < SIZE * 0.8 or not SIZE * 0.15 < top + height / 2 < SIZE * 0.8:
                film[:, top : top + height, left : left + width] = torch.rand((), generator=draw)
        if torch.rand((), generator=draw) < 0.5:  # what is outside the lungs shall not decide
            rim = [int(side) for side in torch.randint(0, SIZE // 8, (4,), generator=draw)]
            level = torch.rand((), generator=draw)
            film[:, : rim[0]], film[:, SIZE - rim[1] :] = level, level
            film[:, :, : rim[2]], film[:, :, SIZE - rim[3] :] = level, level
    flat = x.flatten(1)
    low, high = torch.quantile(flat[:, ::7], torch.tensor([0.01, 0.99]), dim=1)[..., None, None, None]
    return ((x - low) / (high - low).clamp(min=1e-3)).clamp(0, 1), where


class Tail(torch.nn.Module):  # type: ignore[misc]
    """The network with its first blocks frozen, and one output for each thing it learns from."""

    def __init__(self, network: Any) -> None:
        super().__init__()
        self.network = network
        self.head = torch.nn.Linear(1280, len(OUTPUTS))
        for parameter in network.parameters():
            parameter.requires_grad = False
        for module in (*network._blocks[FROZEN_BLOCKS:], network._conv_head, network._bn1):
            for parameter in module.parameters():
                parameter.requires_grad = True

        for block in network._blocks[FROZEN_BLOCKS:]:
            block._bn0.register_forward_hook(_rounded_to_six)
            block._bn1.register_forward_hook(_rounded_to_six)
            block._bn2.register_forward_hook(_rounded)

    def forward(self, image: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        """Logits (n, outputs) and the lesion's map (n, 7, 7)."""
        net = self.network
        with torch.no_grad():
            x = net._swish(net._bn0(net._conv_stem(image * (255 / 128) - 127 / 128)))
            for block in net._blocks[:FROZEN_BLOCKS]:
                x = block(x)
        for block in net._blocks[FROZEN_BLOCKS:]:
            x = block(x)
        features = net._swish(net._bn1(net._conv_head(x)))
        weight = self.head.weight[0][None, :, None, None]
        pooled = functional.dropout(features.mean((2, 3)), 0.3, self.training)
        return self.head(pooled), functional.conv2d(features, weight, self.head.bias[:1])[:, 0]


def _rounded(_module: Any, _inputs: Any, output: torch.Tensor) -> torch.Tensor:
    """What rounding to eight bits will do to it on the box, and more: the network learns not to mind."""
    low, high = output.detach().aminmax()
    return output + NOISE * (high - low) / 255 * (torch.rand_like(output) - 0.5)


def _rounded_to_six(_module: Any, _inputs: Any, output: torch.Tensor) -> torch.Tensor:
    return output + NOISE * 6 / 255 * (torch.rand_like(output) - 0.5)


def loss(logits: torch.Tensor, maps: torch.Tensor, labels: torch.Tensor, where: torch.Tensor) -> torch.Tensor:
    """Cross-entropy of what is known; for lesions also of the places."""
    total = torch.zeros(())
    for number, output in enumerate(OUTPUTS):
        known = labels[:, number].isfinite()
        if known.any():
            target = labels[known, number] * (1 - SMOOTHING[output]) + SMOOTHING[output] / 2
            total = total + WEIGHTS[output] * functional.binary_cross_entropy_with_logits(logits[known, number], target)
    known = labels[:, 0].isfinite()
    if known.any():
        share = (functional.adaptive_avg_pool2d(where[known], 7)[:, 0].nan_to_num(0) * 3).clamp(0, 1)
        total = total + PLACES * functional.binary_cross_entropy_with_logits(maps[known], share)
    return total


def tune(
    network: Any, every: list[Film], pictures: npt.NDArray[np.uint8], path: Path, seed: int, steps: int = STEPS
) -> None:
    """Train, and write the network's weights to `path`; goes on from where an interrupted run stopped."""
    torch.manual_seed(seed)
    model = Tail(network).to(memory_format=torch.channels_last)
    model.eval()  # batch statistics stay those of ImageNet: batches here are mixed on purpose
    learns = [parameter for parameter in model.parameters() if parameter.requires_grad]
    optimizer = torch.optim.AdamW(learns, RATE, weight_decay=DECAY)
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimizer, RATE, total_steps=steps, pct_start=0.1)
    begin, partial = 0, path.with_suffix(".partial")
    if partial.exists():
        kept = torch.load(partial, weights_only=True)
        model.load_state_dict(kept["model"])
        optimizer.load_state_dict(kept["optimizer"])
        schedule.load_state_dict(kept["schedule"])
        begin = kept["step"]
    seen = batches(every, pictures, parts(every, seed), steps - begin, seed + begin)
    with click.progressbar(seen, length=steps - begin, label="Tuning         ") as bar:
        for step, (x, where, y) in enumerate(bar, begin + 1):
            with torch.autocast("cpu", torch.bfloat16):
                logits, maps = model(x.to(memory_format=torch.channels_last))
            optimizer.zero_grad()
            loss(logits.float(), maps.float(), y, where).backward()
            torch.nn.utils.clip_grad_norm_(learns, 1.0)
            optimizer.step()
            schedule.step()
            if step % SAVED == 0:
                state = {"model": model, "optimizer": optimizer, "schedule": schedule}
                torch.save({name: one.state_dict() for name, one in state.items()} | {"step": step}, partial)
    torch.save(model.network.state_dict(), path)
    partial.unlink(missing_ok=True)
