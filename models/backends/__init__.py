"""The runtimes a bundle can run on; each is imported on first use, from a file of its own.

A backend takes a raw tensor and gives raw tensors; everything before and after is in `prepare` and `model`.
"""

from __future__ import annotations

import importlib
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

import numpy as np
import numpy.typing as npt


@dataclass(frozen=True)
class Runtime:
    """Where a runtime's backend is, and how it gets onto the box."""

    module: str
    kind: str
    packages: tuple[str, ...]
    """Any of which brings it."""
    hint: str
    """What to type when it is missing."""


BACKENDS = {
    "onnx": Runtime("models.backends.onnx", "OnnxRuntime", ("onnxruntime",), "pip install onnxruntime"),
    "openvino": Runtime("models.backends.openvino", "OpenVino", ("openvino",), "pip install openvino"),
    "litert": Runtime(
        "models.backends.litert", "LiteRt", ("ai_edge_litert", "tflite_runtime"), "pip install ai-edge-litert"
    ),
}


class Backend(Protocol):
    """One loaded model file on one runtime."""

    def run(self, tensor: npt.NDArray[np.float32]) -> dict[str, npt.NDArray[np.float32]]:
        """The model's named outputs for one input."""


def load(name: str, path: Path, threads: int) -> Backend:
    """Load a model file. Raises ValueError, with what to type, when the runtime is not installed."""
    runtime = BACKENDS[name]
    try:
        found = getattr(importlib.import_module(runtime.module), runtime.kind)
    except ImportError as error:
        raise ValueError(f"runtime {name} is not installed ({error}): {runtime.hint}") from error
    backend: Backend = found(path, threads)
    return backend
