"""Tune: the network learns what an opacity in a lung is, from films and from lesions rendered into normal ones; then in eight bits.

The heads' films are kept apart: no patient whose film fits or judges a head is in here, so cross-validation of the heads stays
honest. Each batch has as many films with as without, of each source by itself, so that neither source nor view tells anything.
"""

from __future__ import annotations

from collections.abc import Sequence
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import click
import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor, nn
from torch.nn import functional

from models.training import gate, lesions, lungs, network
from models.training.films import SIZE, Film

OUTPUTS = ("lesion", "pneumonia", "mined", "shadow")
SMOOTHING = {"lesion": 0.0, "pneumonia": 0.02, "mined": 0.15, "shadow": 0.15}
"""How far a label is believed: those mined from reports are wrong in a large part."""
PLACES, FAULTS, AGREEMENT = 1.0, 0.5, 100.0
"""Weights of saying where a lesion is, of telling faults, and of eight bits giving what float gives."""
RENDERED, NORMAL = 2, 10_000
"""Lesions of each normal film, and how many such films there are at most."""
DRAWN = 400
"""Pictures that are no chest."""
SMALL = 160
"""Pixels that a picture has at first: half the time, and a little more at full size makes up for it (Touvron 2019)."""
RATE, EIGHT_RATE, DECAY, DROPPED = 5e-4, 1e-4, 0.05, 0.3
SAVED = 100


@dataclass(frozen=True)
class Recipe:
    """How long, from where, and with what."""

    seed: int
    small_steps: int = 600
    steps: int = 680
    """In float, the small ones among them."""
    eight_steps: int = 80
    pairs: int = 12
    """Of each batch: films without and with a lesion."""
    children: int = 12
    mined: int = 16
    faulty: int = 12


def tunes(film: Film) -> bool:
    """Whether a child's patient is among the three fifths that tune the network; the others fit and calibrate the head."""
    return int.from_bytes(film.patient.encode(), "big") % 1009 % 5 < 3


def parts(every: Sequence[Film]) -> dict[str, list[int]]:
    """The films that may tune the network, none of a patient who fits or judges a head: children, adults, normal ones."""
    judged = {film.patient for film in every if film.domain != "child" and film.label is not None}
    children = [
        i for i, film in enumerate(every)
        if film.domain == "child" and film.label is not None and film.split == "train" and tunes(film)
    ]  # fmt: skip
    adults = [
        i for i, film in enumerate(every)
        if film.mined is not None and film.split == "train" and film.patient not in judged
    ]  # fmt: skip
    normal = [i for i in children if every[i].label == 0] + [i for i in adults if every[i].mined == 0]
    if len(normal) > NORMAL:
        normal = sorted(np.random.default_rng(len(normal)).choice(normal, NORMAL, False).tolist())
    return {"children": children, "adults": adults, "normal": normal}


def render(every: Sequence[Film], pictures: npt.NDArray[np.uint8], path: Path, seed: int) -> None:
    """Write the lesions (`rows`, `ill`, `shade`) and the pictures that are no chest (`drawn`) to `path`."""
    rows = [row for row in parts(every)["normal"] for _ in range(RENDERED)]
    with ProcessPoolExecutor() as pool:
        work = pool.map(_lesion, (pictures[row] for row in rows), range(seed, seed + len(rows)), chunksize=16)
        with click.progressbar(work, length=len(rows), label="Rendering lesions") as bar:
            made = list(bar)
        drawn = list(pool.map(_drawn, range(seed, seed + DRAWN), chunksize=16))
    ill, shade = (np.stack(part) for part in zip(*made, strict=True))
    np.savez(path, rows=np.array(rows), ill=ill, shade=shade, drawn=np.stack(drawn))


def _lesion(picture: npt.NDArray[np.uint8], seed: int) -> tuple[npt.NDArray[np.uint8], npt.NDArray[np.uint8]]:
    draw = np.random.default_rng(seed)
    kind = lesions.KINDS[int(draw.integers(len(lesions.KINDS)))]
    ill, shade = lesions.add(picture, lungs.field(picture), kind, draw)
    return ill, np.asarray(np.rint(shade * 255), np.uint8)


def _drawn(seed: int) -> npt.NDArray[np.uint8]:
    return gate.faulty(np.zeros((SIZE, SIZE), np.uint8), "not_chest", np.random.default_rng(seed))


class Learner(nn.Module):  # type: ignore[misc]
    """The network, an output for each thing it learns from, and what is wrong with a picture."""

    def __init__(self, net: network.Network) -> None:
        super().__init__()
        self.network = net
        self.head = nn.Linear(network.FEATURES, len(OUTPUTS))
        self.fault = nn.Linear(network.FEATURES, len(gate.FAULTS))

    def forward(self, x: Tensor, eight: bool) -> tuple[Tensor, Tensor, Tensor, Tensor]:
        """Logits (n, outputs), the lesion's map (n, h, w), votes (n, faults), embedding (n, 1280)."""
        features = self.network(x, eight)
        embedding = features.mean((2, 3))
        pooled = functional.dropout(embedding, DROPPED, self.training)
        place = functional.conv2d(features, self.head.weight[0][None, :, None, None], self.head.bias[:1])[:, 0]
        return self.head(pooled), place, self.fault(pooled), embedding


class Batches:
    """Draws batches on the device."""

    def __init__(
        self, every: Sequence[Film], pictures: npt.NDArray[np.uint8], rendered: Path, recipe: Recipe, device: str
    ) -> None:
        self.recipe, self.device = recipe, device
        chosen = parts(every)
        used = sorted({row for rows in chosen.values() for row in rows})
        self._films = torch.from_numpy(np.ascontiguousarray(pictures[used])).to(device)
        place = {row: number for number, row in enumerate(used)}
        with np.load(rendered) as found:
            self._ill, self._shade, self._drawn = (
                torch.from_numpy(found[name]).to(device) for name in ("ill", "shade", "drawn")
            )
            self._well = np.array([place[int(row)] for row in found["rows"]])
        self._children = [[place[i] for i in chosen["children"] if every[i].label == label] for label in (0, 1)]
        self._mined = [
            [place[i] for i in chosen["adults"] if every[i].mined == label and every[i].view == view]
            for label in (0, 1) for view in ("AP", "PA")
        ]  # fmt: skip
        self._shadow = np.full(len(used), np.nan)
        for i in chosen["adults"]:
            self._shadow[place[i]] = np.nan if every[i].shadow is None else float(every[i].shadow or 0)
        self._any = np.array([place[i] for key in ("children", "adults") for i in chosen[key]])

    def draw(self, step: int) -> tuple[Tensor, Tensor, Tensor, Tensor]:
        """Pictures (n, 1, size, size), labels (n, outputs), NaN where nobody knows, lesions' shades or NaN, faults (n,).

        Pictures are `SMALL` at first.
        """
        recipe = self.recipe
        draw = np.random.default_rng([recipe.seed, step])
        torch.manual_seed(int(draw.integers(2**31)))
        pair = draw.integers(0, len(self._well), recipe.pairs)
        rows = [self._well[pair]]
        labels = [_labels(recipe.pairs, lesion=0.0), _labels(recipe.pairs, lesion=1.0)]
        for label, films in enumerate(self._children):
            rows.append(draw.choice(films, recipe.children // 2))
            labels.append(_labels(recipe.children // 2, pneumonia=float(label)))
        for cell, films in enumerate(self._mined):
            some = draw.choice(films, recipe.mined // 4)
            rows.append(some)
            labels.append(_labels(recipe.mined // 4, mined=float(cell // 2), shadow=self._shadow[some]))
        rows.append(draw.choice(self._any, recipe.faulty))
        labels.append(_labels(recipe.faulty))
        well, rest = self._films[torch.from_numpy(rows[0])], self._films[torch.from_numpy(np.concatenate(rows[1:]))]
        some = torch.from_numpy(pair)
        x = torch.cat([well, self._ill[some], rest])[:, None].float() / 255
        shade = torch.full_like(x, torch.nan)
        shade[: recipe.pairs] = 0
        shade[recipe.pairs : 2 * recipe.pairs] = self._shade[some][:, None].float() / 255
        x, shade = augment(x, shade)
        fault = torch.zeros(len(x), dtype=torch.long, device=self.device)
        if recipe.faulty:
            drawn = self._drawn[torch.from_numpy(draw.integers(0, len(self._drawn), recipe.faulty))]
            x[-recipe.faulty :], fault[-recipe.faulty :] = spoil(x[-recipe.faulty :], drawn)
        if step < recipe.small_steps:
            x = functional.interpolate(x, SMALL, mode="bilinear", antialias=True)
        return x, torch.from_numpy(np.concatenate(labels)).float().to(self.device), shade, fault


def _labels(n: int, **known: Any) -> npt.NDArray[np.float64]:
    return np.stack([np.broadcast_to(known.get(output, np.nan), n) for output in OUTPUTS], 1)


def augment(x: Tensor, shade: Tensor) -> tuple[Tensor, Tensor]:
    """The films as other units, other hands and other encodings might have given them; places move with them.

    Turned, scaled, shifted, another contrast, softer or sharper, noisier; markers burned in; the border blanked.
    """
    n = len(x)

    def uniform(low: float, high: float, *shape: int) -> Tensor:
        return low + (high - low) * torch.rand(n, *shape, device=x.device)

    angle, scale, stretch = uniform(-0.2, 0.2), uniform(0.8, 1.1), uniform(0.9, 1.1)
    theta = torch.stack(
        [
            torch.stack([scale * stretch * angle.cos(), -scale * angle.sin(), uniform(-0.1, 0.1)], 1),
            torch.stack([scale * angle.sin(), scale * angle.cos(), uniform(-0.1, 0.1)], 1),
        ],
        1,
    )
    grid = functional.affine_grid(theta, list(x.shape), align_corners=False)
    x = functional.grid_sample(x, grid, align_corners=False, padding_mode="border")
    shade = functional.grid_sample(shade, grid, align_corners=False, mode="nearest")
    soft = functional.avg_pool2d(functional.pad(x, (1, 1, 1, 1), mode="replicate"), 3, 1)
    x = x + uniform(-0.8, 1, 1, 1, 1) * (soft - x)
    x = x.clamp(0, 1) ** uniform(-0.5, 0.5, 1, 1, 1).exp()
    x = x + uniform(0, 0.04, 1, 1, 1) * torch.randn_like(x)
    place = torch.arange(SIZE, device=x.device)
    across, down = place[None, None, None, :], place[None, None, :, None]
    # a marker, or a cable, or a corner of another film: not in the middle
    width, height = uniform(4, 40, 1, 1, 1), uniform(4, 40, 1, 1, 1)
    left, top = uniform(0, SIZE, 1, 1, 1), uniform(0, SIZE, 1, 1, 1)
    aside = ((left + width / 2 - SIZE / 2).abs() > 0.3 * SIZE) | ((top + height / 2 - SIZE / 2).abs() > 0.35 * SIZE)
    inside = (across >= left) & (across < left + width) & (down >= top) & (down < top + height)
    x = torch.where(inside & aside & (uniform(0, 1, 1, 1, 1) < 0.5), uniform(0, 1, 1, 1, 1), x)
    # what is outside the lungs shall not decide
    rims = [uniform(0, SIZE / 8, 1, 1, 1) for _ in range(4)]
    rim = (down < rims[0]) | (down >= SIZE - rims[1]) | (across < rims[2]) | (across >= SIZE - rims[3])
    x = torch.where(rim & (uniform(0, 1, 1, 1, 1) < 0.5), uniform(0, 1, 1, 1, 1), x)
    return stretched(x), shade


def stretched(x: Tensor) -> Tensor:
    """From the 1st to the 99th percentile, as `prepare` does."""
    ordered = x.flatten(1)[:, ::7].sort(1).values
    low, high = (ordered[:, int(share * (ordered.shape[1] - 1))][:, None, None, None] for share in (0.01, 0.99))
    return ((x - low) / (high - low).clamp(min=1e-3)).clamp(0, 1)


def spoil(x: Tensor, drawn: Tensor) -> tuple[Tensor, Tensor]:
    """Each picture with one of the gate's faults, and its number."""
    n, kinds = len(x), len(gate.FAULTS) - 1
    kind = 1 + torch.arange(n) % kinds
    turn = torch.rand(n)
    angle, scale, shift = torch.zeros(n), torch.ones(n), torch.zeros(n, 2)
    for i, number in enumerate(kind.tolist()):
        fault = gate.FAULTS[number]
        if fault == "rotated":  # by a quarter or a half, or by 22 to 50 degrees to either side
            tilt = (0.38 + 0.98 * (turn[i] - 0.5).abs()) * (1 if turn[i] < 0.5 else -1)
            angle[i] = torch.pi / 2 * (1 + i // (2 * kinds) % 3) if i // kinds % 2 else tilt
        if fault == "cropped":
            scale[i] = 0.35 + 0.25 * turn[i]
            shift[i] = (torch.rand(2) * 2 - 1) * (1 - scale[i])
        if fault == "out_of_distribution":
            angle[i], scale[i], shift[i] = (turn[i] - 0.5) * 0.4, 1.15 + 0.45 * turn[i], (torch.rand(2) - 0.5) * 0.2
    turned = torch.stack([torch.stack([angle.cos(), -angle.sin()], 1), torch.stack([angle.sin(), angle.cos()], 1)], 1)
    theta = torch.cat([turned * scale[:, None, None], shift[:, :, None]], 2).to(x.device)
    grid = functional.affine_grid(theta, list(x.shape), align_corners=False)
    made = functional.grid_sample(x, grid, align_corners=False, padding_mode="border")
    # a screen: something else around it, moire on it, light from a side
    span = torch.linspace(-0.5, 0.5, SIZE, device=x.device)
    across, down = span[None, None, None, :], span[None, None, :, None]
    random = torch.rand(n, 6, 1, 1, 1, device=x.device)
    outside = (grid.abs().amax(3) > 1)[:, None]
    wave = torch.sin(2 * torch.pi * ((random[:, 0] - 0.5) * 120 * across + (20 + 60 * random[:, 1]) * down))
    screen = torch.where(outside, random[:, 2], 0.1 + 0.8 * made * (1 + 0.1 * random[:, 3] * wave))
    screen = screen * (1 + 1.2 * (random[:, 4] - 0.5) * across + 1.2 * (random[:, 5] - 0.5) * down)
    kind = kind.to(x.device)
    named = {fault: (kind == number)[:, None, None, None] for number, fault in enumerate(gate.FAULTS)}
    made = stretched(torch.where(named["out_of_distribution"], screen, made))
    made = torch.where(named["wrong_polarity"], 1 - x, made)
    return torch.where(named["not_chest"], drawn[:, None].float() / 255, made), kind


def loss(found: tuple[Tensor, ...], labels: Tensor, shade: Tensor, fault: Tensor) -> Tensor:
    """Cross-entropy of what is known; for lesions also of the places; for all of the faults."""
    logits, places, votes = (part.float() for part in found[:3])
    total = FAULTS * functional.cross_entropy(votes, fault)
    for number, output in enumerate(OUTPUTS):
        known = labels[:, number].isfinite()
        target = labels[:, number].nan_to_num(0) * (1 - SMOOTHING[output]) + SMOOTHING[output] / 2
        each = functional.binary_cross_entropy_with_logits(logits[:, number], target, reduction="none")
        total = total + (each * known).sum() / known.sum().clamp(min=1)
    known = labels[:, 0].isfinite()
    share = (functional.adaptive_avg_pool2d(shade.nan_to_num(0), places.shape[1:])[:, 0] * 3).clamp(0, 1)
    each = functional.binary_cross_entropy_with_logits(places, share, reduction="none").mean((1, 2))
    return total + PLACES * (each * known).sum() / known.sum().clamp(min=1)


def disagreement(learner: Learner, x: Tensor, eight: Tensor) -> Tensor:
    """How far embeddings in eight bits, and the logits of them, are from those in float.

    Both are learnt from: where one is taken as given, the other is led to it, and it moves on by as much.
    """
    full = learner.network(x).mean((2, 3))
    gap = eight - full
    return (
        gap.square().sum() / full.detach().square().sum() + functional.linear(gap, learner.head.weight).square().mean()
    )


def tune(net: network.Network, batches: Batches, path: Path) -> None:
    """Train in float, then in eight bits, and write the network to `path`; goes on from where an interrupted run stopped."""
    recipe, device = batches.recipe, batches.device
    torch.manual_seed(recipe.seed)
    learner = Learner(net).to(device, memory_format=torch.channels_last)
    half = device != "cpu"  # a processor without bfloat16 takes five times as long with it
    partial = path.with_suffix(".partial")
    kept = torch.load(partial, weights_only=True, map_location=device) if partial.exists() else {"step": 0}
    for eight in (False, True):
        first, last = (recipe.steps, recipe.steps + recipe.eight_steps) if eight else (0, recipe.steps)
        if eight:
            learner.eval().network.fold(batches.draw(last)[0])
        rate = EIGHT_RATE if eight else RATE
        optimizer = torch.optim.AdamW(learner.parameters(), rate, weight_decay=DECAY)
        schedule = torch.optim.lr_scheduler.OneCycleLR(optimizer, rate, total_steps=last - first, pct_start=0.1)
        if first < kept["step"] <= last:
            for name, one in (("learner", learner), ("optimizer", optimizer), ("schedule", schedule)):
                one.load_state_dict(kept[name])
        learner.train()
        label = f"Learning, {'eight bits' if eight else 'float'}"
        with click.progressbar(range(max(kept["step"], first), last), label=label) as bar:
            for step in bar:
                x, labels, shade, fault = batches.draw(step)
                x = x.contiguous(memory_format=torch.channels_last)
                with torch.autocast(torch.device(device).type, torch.bfloat16, enabled=half and not eight):
                    found = learner(x, eight)
                error = loss(found, labels, shade, fault)
                if eight:
                    error = error + AGREEMENT * disagreement(learner, x, found[3])
                optimizer.zero_grad()
                error.backward()
                nn.utils.clip_grad_norm_(learner.parameters(), 1.0)
                optimizer.step()
                schedule.step()
                if (step + 1) % SAVED == 0:
                    state = {"learner": learner, "optimizer": optimizer, "schedule": schedule}
                    torch.save({name: one.state_dict() for name, one in state.items()} | {"step": step + 1}, partial)
                    click.echo(f" {step + 1}: loss {error.item():.3f}", err=True)
    network.save(network.refine(net.cpu(), batches.draw(recipe.steps)[0].cpu()), learner.head.weight, path)
    partial.unlink(missing_ok=True)
