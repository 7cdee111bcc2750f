"""OpenVINO, made silent: its import else counts the uses of this device under an identifier of its own."""

from __future__ import annotations

import platform
import sys
from pathlib import Path

import numpy as np
import numpy.typing as npt

# before the import, which then does without
sys.modules["openvino_telemetry"] = None  # type: ignore[assignment]
import openvino  # noqa: E402


class OpenVino:
    """A model file (`.onnx` or `.xml`) on the processor."""

    def __init__(self, path: Path, threads: int) -> None:
        settings = {
            "INFERENCE_NUM_THREADS": threads,
            # else a processor with bfloat16 computes the float layers in it: features off by a tenth, as measured
            "INFERENCE_PRECISION_HINT": "f32",
            "ENABLE_CPU_PINNING": False,
        }
        if platform.machine() == "aarch64":
            # in float: in eight bits 2026.0 and 2026.2 compute something else there; 2026.3 and 2026.4 take float16, whatever is
            # said above, where they have no convolution in eight bits, and a Raspberry Pi 4 has no float16: nothing compiles
            settings["LP_TRANSFORMS_MODE"] = False
        try:
            model = openvino.Core().compile_model(str(path), "CPU", settings)
        except RuntimeError as error:
            raise ValueError(f"{path.name}: {str(error).splitlines()[0]}") from error
        self._outputs = [output.get_any_name() for output in model.outputs]
        self._request = model.create_infer_request()

    def run(self, tensor: npt.NDArray[np.float32]) -> dict[str, npt.NDArray[np.float32]]:
        """The model's named outputs for one input."""
        found = self._request.infer([tensor])
        return {name: np.array(found[name]) for name in self._outputs}
