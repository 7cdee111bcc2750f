"""LiteRT; `tflite-runtime`, its older name, where a board has only that."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import numpy.typing as npt

try:
    from ai_edge_litert.interpreter import Interpreter
except ImportError:
    from tflite_runtime.interpreter import Interpreter


class LiteRt:
    """A model file (`.tflite`) on the processor."""

    def __init__(self, path: Path, threads: int) -> None:
        self._interpreter = Interpreter(model_path=str(path), num_threads=threads)
        self._run = self._interpreter.get_signature_runner()
        (self._input,) = self._run.get_input_details()

    def run(self, tensor: npt.NDArray[np.float32]) -> dict[str, npt.NDArray[np.float32]]:
        """The model's named outputs for one input."""
        found: dict[str, npt.NDArray[np.float32]] = self._run(**{self._input: tensor})
        return found
