"""DenseNet: torchxrayvision's DenseNet-121 as a network of ours, from the tensors of its checkpoint.

Its input is a film in [-1024, 1024]; here the film in [0, 1] is brought there by the network itself. Its map is that of the linear
classifier over the last features, so that the logit is their mean (Zhou 2016).
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
import numpy.typing as npt
import onnx
from onnx import TensorProto, helper, numpy_helper

LABELS = (
    "Atelectasis", "Consolidation", "Infiltration", "Pneumothorax", "Edema", "Emphysema", "Fibrosis", "Effusion", "Pneumonia",
    "Pleural_Thickening", "Cardiomegaly", "Nodule", "Mass", "Hernia", "Lung Lesion", "Fracture", "Lung Opacity",
    "Enlarged Cardiomediastinum",
)  # fmt: skip
"""What its outputs are called, in their order (torchxrayvision 1.x, `datasets.default_pathologies`)."""
BLOCKS = (6, 12, 24, 16)
SIZE = 224


class _Network:
    """A graph that grows by one node after the other."""

    def __init__(self, tensors: Mapping[str, npt.NDArray[Any]]) -> None:
        self.tensors = tensors
        self.nodes: list[onnx.NodeProto] = []
        self.held: list[onnx.TensorProto] = []

    def hold(self, name: str, values: npt.NDArray[Any]) -> str:
        self.held.append(numpy_helper.from_array(values.astype(np.float32), name))
        return name

    def own(self, name: str, *shape: int) -> str:
        """A tensor of the checkpoint, which must have that shape (-1: any)."""
        if name not in self.tensors:
            raise ValueError(f"the checkpoint has no {name}: it is no DenseNet-121 of torchxrayvision")
        found = self.tensors[name]
        if len(found.shape) != len(shape) or any(
            want not in (-1, got) for want, got in zip(shape, found.shape, strict=True)
        ):
            raise ValueError(f"{name} has the shape {found.shape}, {shape} was expected")
        return self.hold(name, found)

    def put(self, kind: str, inputs: list[str], output: str, **attributes: Any) -> str:
        self.nodes.append(helper.make_node(kind, inputs, [output], name=output, **attributes))
        return output

    def norm(self, name: str, x: str, channels: int, relu: bool = True) -> str:
        parts = [self.own(f"{name}.{part}", channels) for part in ("weight", "bias", "running_mean", "running_var")]
        x = self.put("BatchNormalization", [x, *parts], f"{name}.out", epsilon=1e-5)
        return self.put("Relu", [x], f"{name}.relu") if relu else x

    def conv(self, name: str, x: str, shape: tuple[int, ...], **attributes: Any) -> str:
        return self.put("Conv", [x, self.own(f"{name}.weight", *shape)], f"{name}.out", **attributes)


def network(tensors: Mapping[str, npt.NDArray[Any]]) -> onnx.ModelProto:
    """The network: image (1, 1, 224, 224) in [0, 1] → logits, maps, embedding. Raises ValueError where the layout is another."""
    labels = tensors["classifier.weight"].shape[0] if "classifier.weight" in tensors else 0
    net = _Network(tensors)
    x = net.put("Mul", ["image", net.hold("range", np.array(2048.0))], "ranged")
    x = net.put("Sub", [x, net.hold("middle", np.array(1024.0))], "scaled")
    x = net.conv("features.conv0", x, (64, 1, 7, 7), strides=[2, 2], pads=[3, 3, 3, 3])
    x = net.norm("features.norm0", x, 64)
    x = net.put("MaxPool", [x], "features.pool0", kernel_shape=[3, 3], strides=[2, 2], pads=[1, 1, 1, 1])
    channels = 64
    for block, layers in enumerate(BLOCKS, 1):
        for layer in range(1, layers + 1):
            name = f"features.denseblock{block}.denselayer{layer}"
            new = net.conv(f"{name}.conv1", net.norm(f"{name}.norm1", x, channels), (128, channels, 1, 1))
            new = net.conv(f"{name}.conv2", net.norm(f"{name}.norm2", new, 128), (32, 128, 3, 3), pads=[1, 1, 1, 1])
            x = net.put("Concat", [x, new], f"{name}.out", axis=1)
            channels += 32
        if block < len(BLOCKS):
            name = f"features.transition{block}"
            x = net.conv(f"{name}.conv", net.norm(f"{name}.norm", x, channels), (channels // 2, channels, 1, 1))
            channels //= 2
            x = net.put("AveragePool", [x], f"{name}.pool", kernel_shape=[2, 2], strides=[2, 2])
    features = net.norm("features.norm5", x, channels)
    net.put("Flatten", [net.put("GlobalAveragePool", [features], "pooled")], "embedding", axis=1)
    weight = net.own("classifier.weight", labels, channels)
    net.put("Gemm", ["embedding", weight, net.own("classifier.bias", labels)], "logits", transB=1)
    net.put("Conv", [features, net.hold("map.weight", tensors["classifier.weight"][:, :, None, None])], "maps")
    graph = helper.make_graph(
        net.nodes, "densenet121",
        [helper.make_tensor_value_info("image", TensorProto.FLOAT, [1, 1, SIZE, SIZE])],
        [
            helper.make_tensor_value_info("logits", TensorProto.FLOAT, [1, labels]),
            helper.make_tensor_value_info("maps", TensorProto.FLOAT, [1, labels, 7, 7]),
            helper.make_tensor_value_info("embedding", TensorProto.FLOAT, [1, channels]),
        ],
        net.held,
    )  # fmt: skip
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=9)
    onnx.checker.check_model(model)
    return model
