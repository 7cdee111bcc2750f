"""Baseline: what a research user has today, for `outpost bench`; speed only, its weights are random.

Full-frame float windowing and scikit-image's resize as torchxrayvision does them, DenseNet-121 in eager PyTorch, then Grad-CAM
as the usual package does it (a second forward pass, and a whole backward one), one row in SQLite. Reads one path a line, answers
one line of milliseconds.
"""

from __future__ import annotations

import json
import sqlite3
import sys
import time
from typing import Any

import numpy as np
import torch
from pydicom import dcmread
from pydicom.pixels import apply_modality_lut, apply_voi_lut
from skimage.transform import resize
from torch import nn
from torch.nn import functional

SIZE, FINDINGS = 224, 18


class Layer(nn.Module):
    """A densely connected layer (Huang 2017): its output is appended to its input."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.norm1, self.conv1 = nn.BatchNorm2d(channels), nn.Conv2d(channels, 128, 1, bias=False)
        self.norm2, self.conv2 = nn.BatchNorm2d(128), nn.Conv2d(128, 32, 3, padding=1, bias=False)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """Append 32 channels."""
        new = self.conv2(functional.relu(self.norm2(self.conv1(functional.relu(self.norm1(x))))))
        return torch.cat([x, new], 1)


def densenet121() -> tuple[nn.Sequential, nn.Linear]:
    """Features and classifier for one gray channel and 18 findings."""
    channels = 64
    parts: list[nn.Module] = [
        nn.Conv2d(1, channels, 7, 2, 3, bias=False), nn.BatchNorm2d(channels), nn.ReLU(), nn.MaxPool2d(3, 2, 1)
    ]  # fmt: skip
    for number, layers in enumerate((6, 12, 24, 16)):
        for _ in range(layers):
            parts.append(Layer(channels))
            channels += 32
        if number < 3:
            parts += [
                nn.BatchNorm2d(channels),
                nn.ReLU(),
                nn.Conv2d(channels, channels // 2, 1, bias=False),
                nn.AvgPool2d(2),
            ]
            channels //= 2
    parts += [nn.BatchNorm2d(channels), nn.ReLU()]
    return nn.Sequential(*parts).eval(), nn.Linear(channels, FINDINGS).eval()


def film(path: str) -> torch.Tensor:
    """Decode, window at full size, scale to [-1024, 1024], crop to the middle square, resize."""
    dataset = dcmread(path)
    pixels = apply_voi_lut(apply_modality_lut(dataset.pixel_array, dataset), dataset).astype(np.float32)
    if dataset.PhotometricInterpretation == "MONOCHROME1":
        pixels = pixels.max() - pixels
    pixels = (2 * (pixels / max(float(pixels.max()), 1.0)) - 1) * 1024
    side = min(pixels.shape)
    top, left = (pixels.shape[0] - side) // 2, (pixels.shape[1] - side) // 2
    square = pixels[top : top + side, left : left + side]
    small = resize(square[None], (1, SIZE, SIZE), mode="constant", preserve_range=True).astype(np.float32)
    return torch.from_numpy(small)[None]


def study(path: str, network: tuple[nn.Sequential, nn.Linear], store: sqlite3.Connection) -> None:
    """One film from its file to its row, with probabilities and the Grad-CAM of the most probable finding."""
    features, classifier = network
    image = film(path)
    with torch.no_grad():
        probabilities = torch.sigmoid(classifier(features(image).mean((2, 3))))
    maps = features(image)
    maps.retain_grad()
    classifier(maps.mean((2, 3)))[0, probabilities.argmax()].backward()
    cam = functional.relu((maps.grad.mean((2, 3), keepdim=True) * maps).sum(1))
    for parameter in (*features.parameters(), *classifier.parameters()):
        parameter.grad = None
    result: dict[str, Any] = {"p": probabilities.tolist(), "cam": cam.tolist()}
    with store:
        store.execute("INSERT INTO result VALUES (?, ?)", (path, json.dumps(result)))


def forward(network: tuple[nn.Sequential, nn.Linear]) -> None:
    """The network alone, once for each line of standard input."""
    features, classifier = network
    image = torch.rand(1, 1, SIZE, SIZE)
    for _ in sys.stdin:
        start = time.perf_counter()
        with torch.no_grad():
            classifier(features(image).mean((2, 3)))
        print(json.dumps({"ms": (time.perf_counter() - start) * 1000}), flush=True)


def main() -> None:
    """Serve studies from standard input, one path a line; with `network` in place of a database the network alone."""
    torch.set_num_threads(1)
    torch.manual_seed(0)
    network = densenet121()
    if sys.argv[1] == "network":
        forward(network)
        return
    store = sqlite3.connect(sys.argv[1])
    store.execute("CREATE TABLE IF NOT EXISTS result (path TEXT, result TEXT)")
    for line in sys.stdin:
        start, used = time.perf_counter(), time.process_time()
        study(line.strip(), network, store)
        answer = {"ms": (time.perf_counter() - start) * 1000, "cpu_ms": (time.process_time() - used) * 1000}
        print(json.dumps(answer), flush=True)


if __name__ == "__main__":
    main()
