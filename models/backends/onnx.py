"""ONNX Runtime, made silent: 1.32 else notes what it runs on and tells its maker, from its import on."""

from __future__ import annotations

import os
from pathlib import Path

import numpy as np
import numpy.typing as npt

# before the import: `disable_telemetry_events()` comes too late
os.environ["ORT_DISABLE_TELEMETRY"] = "1"
import onnxruntime


class OnnxRuntime:
    """A model file (`.onnx`) on the processor."""

    def __init__(self, path: Path, threads: int) -> None:
        options = onnxruntime.SessionOptions()
        options.intra_op_num_threads = threads
        options.inter_op_num_threads = 1
        options.enable_cpu_mem_arena = False  # a few megabytes less, at no measured cost
        options.log_severity_level = 3
        options.add_session_config_entry("session.intra_op.allow_spinning", "0")
        # without VNNI, AVX2's products of bytes saturate: the shipped model was off by 0.15 there, and 0.02 is allowed
        options.add_session_config_entry("session.x64quantprecision", "1")
        try:
            self._session = onnxruntime.InferenceSession(str(path), options, providers=["CPUExecutionProvider"])
        except Exception as error:  # its errors have no base of their own
            raise ValueError(f"{path.name}: {str(error).splitlines()[0]}") from error
        self._outputs = [output.name for output in self._session.get_outputs()]

    def run(self, tensor: npt.NDArray[np.float32]) -> dict[str, npt.NDArray[np.float32]]:
        """The model's named outputs for one input."""
        return dict(zip(self._outputs, self._session.run(None, {"image": tensor}), strict=True))
