"""The runtimes a bundle can run on; each is imported on first use, from a file of its own.

A backend takes a raw tensor and gives raw tensors; everything before and after is in `prepare` and `model`.
"""

from __future__ import annotations

import importlib
from pathlib import Path
from typing import Protocol

import numpy as np
import numpy.typing as npt

BACKENDS = {"onnx": ("models.backends.onnx", "OnnxRuntime", "pip install onnxruntime")}
"""Name → module, class, and what to type when the runtime is missing."""


class Backend(Protocol):
    """One loaded model file on one runtime."""

    def run(self, tensor: npt.NDArray[np.float32]) -> dict[str, npt.NDArray[np.float32]]:
        """The model's named outputs for one input."""


def load(name: str, path: Path, threads: int) -> Backend:
    """Load a model file. Raises ValueError, with what to type, when the runtime is not installed."""
    module, kind, hint = BACKENDS[name]
    try:
        found = getattr(importlib.import_module(module), kind)
    except ImportError as error:
        raise ValueError(f"runtime {name} is not installed ({error}): {hint}") from error
    backend: Backend = found(path, threads)
    return backend
