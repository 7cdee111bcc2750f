"""Export: one network as files for the runtimes, in eight bits with the very scales it learnt with, and in float.

Heads are in float in all of them: `logits` (1, n), `maps` (1, n, 7, 7) and `embedding` (1, 1280). The map of an output is its head
at each place; their mean plus the bias is the logit (Zhou 2016).
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import ai_edge_litert.schema_py_generated as tfl
import click
import flatbuffers
import numpy as np
import numpy.typing as npt
import onnx
from onnx import TensorProto, helper, numpy_helper

from models.backends.onnx import OnnxRuntime
from models.training.films import SIZE
from models.training.network import FAINT, FEATURES, GRAY, LEVELS, WEIGHT_LEVELS, Network, Unit

Array = npt.NDArray[Any]
PLACES = 7


@dataclass(frozen=True)
class Numbers:
    """A unit as a file has it."""

    weight: Array
    """(out, in, k, k)"""
    bias: Array
    scale: Array
    """Of the weights, by output channel."""
    high: float
    step: float
    """Of the output in eight bits."""
    zero: int
    """Which of 0 … 255 stands for 0."""

    @property
    def eight(self) -> Array:
        """The weights in seven bits."""
        return np.asarray(np.rint(self.weight / self.scale[:, None, None, None]), np.int8)

    def bias_in(self, step: float) -> tuple[Array, Array]:
        """The bias in 32 bits where the input's step is this, and its scale."""
        scale = (step * self.scale).astype(np.float32)
        return np.rint(self.bias / scale).astype(np.int32), scale


def numbers(unit: Unit) -> Numbers:
    """What the forward pass of a unit computes with."""
    weight = unit.convolution.weight.detach().numpy().astype(np.float32)
    scale = (np.maximum(np.abs(weight).max((1, 2, 3)), FAINT) / WEIGHT_LEVELS).astype(np.float32)
    high = float(unit.high)
    step, zero = (high / LEVELS, 0) if unit.bends else (high / (LEVELS // 2), (LEVELS + 1) // 2)
    return Numbers(
        weight, unit.convolution.bias.detach().numpy().astype(np.float32), scale, high, float(np.float32(step)), zero
    )


class _Onnx:
    """An ONNX graph as it grows."""

    def __init__(self, eight: bool) -> None:
        self.eight, self.nodes, self.constants = eight, [], {}  # type: ignore[var-annotated]

    def constant(self, name: str, value: Any) -> str:
        self.constants[name] = numpy_helper.from_array(np.ascontiguousarray(value), name)
        return name

    def node(self, kind: str, inputs: list[str], output: str, **attributes: Any) -> str:
        self.nodes.append(helper.make_node(kind, inputs, [output], name=output, **attributes))
        return output

    def within(self, x: str, step: float, zero: int, low: float, high: float, name: str) -> str:
        """The output of a unit or a sum: within its range, and in eight bits where the file is."""
        if not self.eight:
            limits = [self.constant(f"{name}.low", np.float32(low)), self.constant(f"{name}.high", np.float32(high))]
            return self.node("Clip", [x, *limits], name)
        scale = [self.constant(f"{name}.scale", np.float32(step)), self.constant(f"{name}.zero", np.uint8(zero))]
        return self.node("DequantizeLinear", [self.node("QuantizeLinear", [x, *scale], f"{name}.q"), *scale], name)

    def unit(self, unit: Unit, x: str, step: float, name: str) -> tuple[str, float]:
        n = numbers(unit)
        if self.eight:
            bias, scale = n.bias_in(step)
            at = {"axis": 0}
            weights = [self.constant(f"{name}.w", n.eight), self.constant(f"{name}.ws", n.scale)]
            weights.append(self.constant(f"{name}.wz", np.zeros(len(n.scale), np.int8)))
            biases = [self.constant(f"{name}.b", bias), self.constant(f"{name}.bs", scale)]
            biases.append(self.constant(f"{name}.bz", np.zeros(len(n.scale), np.int32)))
            inputs = [
                self.node("DequantizeLinear", weights, f"{name}.weight", **at),
                self.node("DequantizeLinear", biases, f"{name}.bias", **at),
            ]
        else:
            weight = n.eight * n.scale[:, None, None, None]
            inputs = [self.constant(f"{name}.weight", weight), self.constant(f"{name}.bias", n.bias)]
        convolution = unit.convolution
        before, after = unit.pads
        y = self.node(
            "Conv", [x, *inputs], f"{name}.conv", kernel_shape=list(convolution.kernel_size), strides=list(convolution.stride),
            pads=[before, before, after, after], group=convolution.groups,
        )  # fmt: skip
        return self.within(y, n.step, n.zero, 0 if unit.bends else -n.high, n.high, name), n.step


def write_onnx(network: Network, weights: Array, biases: Array, path: Path, eight: bool) -> None:
    """Write an ONNX file with heads (outputs, 1280), for ONNX Runtime and OpenVINO; in float with the same weights."""
    g = _Onnx(eight)
    gray = g.node("Sub", ["image", g.constant("gray", np.float32(GRAY / LEVELS))], "shifted")
    step = 1 / LEVELS
    x = g.within(gray, step, GRAY, -GRAY / LEVELS, 1 - GRAY / LEVELS, "input")
    x, step = g.unit(network.stem, x, step, "stem")
    for number, block in enumerate(network.blocks):
        skipped = x
        for place, unit in enumerate(block.units):
            x, step = g.unit(unit, x, step, f"block{number}.{place}")
        if block.adds:
            n = numbers(block.units[-1])
            x = g.node("Add", [x, skipped], f"block{number}.add")
            x = g.within(x, n.step, n.zero, -n.high, n.high, f"block{number}")
    x, _ = g.unit(network.last, x, step, "features")
    outputs = len(weights)
    heads = weights.astype(np.float32)
    g.node("Flatten", [g.node("GlobalAveragePool", [x], "pooled")], "embedding", axis=1)
    g.node(
        "Gemm",
        ["embedding", g.constant("head.weight", heads.T), g.constant("head.bias", biases.astype(np.float32))],
        "logits",
    )
    g.node("Conv", [x, g.constant("map.weight", heads.reshape(outputs, FEATURES, 1, 1))], "maps")
    shapes = {"logits": [1, outputs], "maps": [1, outputs, PLACES, PLACES], "embedding": [1, FEATURES]}
    graph = helper.make_graph(
        g.nodes, "outpost", [helper.make_tensor_value_info("image", TensorProto.FLOAT, [1, 1, SIZE, SIZE])],
        [helper.make_tensor_value_info(name, TensorProto.FLOAT, shape) for name, shape in shapes.items()],
        list(g.constants.values()),
    )  # fmt: skip
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)
    onnx.checker.check_model(model)
    onnx.save(model, str(path))


def read_onnx(path: Path) -> dict[str, Array]:
    """What `network.save` keeps of a network, from a file that `write_onnx` wrote in eight bits; written again, it is that file."""
    found = {one.name: numpy_helper.to_array(one) for one in onnx.load(str(path)).graph.initializer}
    network, arrays = Network(), dict[str, Array]()
    blocks = [
        f"block{number}.{place}" for number, block in enumerate(network.blocks) for place in range(len(block.units))
    ]
    for number, (name, unit) in enumerate(zip(["stem", *blocks, "features"], network.units(), strict=True)):
        # half precision, as the weights were in when their scale was taken: the largest of a channel is that very number
        weight = found[f"{name}.w"] * found[f"{name}.ws"][:, None, None, None]
        arrays[f"{number}.weight"] = weight.astype(np.float16)
        arrays[f"{number}.bias"] = (found[f"{name}.b"] * found[f"{name}.bs"].astype(float)).astype(np.float32)
        arrays[f"{number}.high"] = _high(found[f"{name}.scale"].item(), LEVELS if unit.bends else LEVELS // 2)
    return arrays


def _high(step: float, levels: int) -> Array:
    """The end of a range that so many of these steps fill."""
    near = np.float32(step * levels)
    some = [np.nextafter(near, np.float32(0)), near, np.nextafter(near, np.float32(np.inf))]
    return np.array(next(one for one in some if np.float32(float(one) / levels) == step))


def embed(path: Path, pictures: npt.NDArray[np.uint8], label: str) -> npt.NDArray[np.float32]:
    """Embeddings (films, 1280) by an ONNX file, as the box will compute them."""
    runtime = OnnxRuntime(path, threads=2)
    with click.progressbar(pictures, label=label) as bar:
        return np.concatenate(
            [runtime.run((one[None, None] / np.float32(LEVELS)).astype(np.float32))["embedding"] for one in bar]
        )


class _LiteRt:
    """A LiteRT graph as it grows; places come before channels there, and eight bits run from -128."""

    def __init__(self) -> None:
        self.tensors: list[Any] = []
        self.buffers: list[Any] = [tfl.BufferT()]
        self.operators: list[Any] = []
        self.codes: list[Any] = []

    def tensor(
        self,
        name: str,
        shape: Any,
        kind: int,
        data: Array | None = None,
        scale: Any = None,
        zero: Any = None,
        axis: int = 0,
    ) -> int:
        t = tfl.TensorT()
        t.name, t.shape, t.type, t.buffer = name, list(shape), kind, 0
        if data is not None:
            buffer = tfl.BufferT()
            buffer.data = np.frombuffer(np.ascontiguousarray(data).tobytes(), np.uint8)
            self.buffers.append(buffer)
            t.buffer = len(self.buffers) - 1
        if scale is not None:
            q = tfl.QuantizationParametersT()
            q.scale = np.atleast_1d(np.asarray(scale, np.float32))
            q.zeroPoint = np.broadcast_to(np.asarray(0 if zero is None else zero, np.int64), q.scale.shape).copy()
            q.quantizedDimension = axis
            t.quantization = q
        self.tensors.append(t)
        return len(self.tensors) - 1

    def constant(self, name: str, value: Array) -> int:
        kind = {np.dtype(np.float32): tfl.TensorType.FLOAT32, np.dtype(np.int32): tfl.TensorType.INT32}[value.dtype]
        return self.tensor(name, value.shape, kind, value)

    def operator(
        self, code: int, inputs: list[int], output: int, options: Any = None, kind: int = 0, version: int = 1
    ) -> int:
        known = [(c.builtinCode, c.version) for c in self.codes]
        if (code, version) not in known:
            c = tfl.OperatorCodeT()
            c.builtinCode, c.deprecatedBuiltinCode, c.version = code, min(code, 127), version
            self.codes.append(c)
            known.append((code, version))
        o = tfl.OperatorT()
        o.opcodeIndex, o.inputs, o.outputs = known.index((code, version)), inputs, [output]
        o.builtinOptions, o.builtinOptionsType = options, kind
        self.operators.append(o)
        return output

    def unit(self, unit: Unit, x: int, step: float, side: int, name: str) -> tuple[int, float, int]:
        n = numbers(unit)
        side //= unit.convolution.stride[0]
        bias, bias_scale = n.bias_in(step)
        single = unit.convolution.groups > 1
        weight = n.eight.transpose(1, 2, 3, 0) if single else n.eight.transpose(0, 2, 3, 1)
        inputs = [
            x,
            self.tensor(f"{name}.w", weight.shape, tfl.TensorType.INT8, weight, n.scale, axis=3 if single else 0),
            self.tensor(f"{name}.b", bias.shape, tfl.TensorType.INT32, bias, bias_scale),
        ]
        y = self.tensor(name, (1, side, side, len(bias)), tfl.TensorType.INT8, None, n.step, n.zero - 128)
        options = tfl.DepthwiseConv2DOptionsT() if single else tfl.Conv2DOptionsT()
        options.padding = tfl.Padding.SAME
        options.strideH = options.strideW = unit.convolution.stride[0]
        options.dilationHFactor = options.dilationWFactor = 1
        if single:
            options.depthMultiplier = 1
            self.operator(
                tfl.BuiltinOperator.DEPTHWISE_CONV_2D, inputs, y, options, tfl.BuiltinOptions.DepthwiseConv2DOptions, 3
            )
        else:
            self.operator(tfl.BuiltinOperator.CONV_2D, inputs, y, options, tfl.BuiltinOptions.Conv2DOptions, 3)
        return y, n.step, side


def write_litert(network: Network, weights: Array, biases: Array, path: Path) -> None:
    """Write a LiteRT file in eight bits with heads (outputs, 1280)."""
    g, op, real = _LiteRt(), tfl.BuiltinOperator, tfl.TensorType.FLOAT32
    image = g.tensor("image", (1, 1, SIZE, SIZE), real)
    shape = (1, SIZE, SIZE, 1)
    options = tfl.ReshapeOptionsT()
    options.newShape = list(shape)
    x = g.operator(
        op.RESHAPE, [image, g.constant("shape", np.array(shape, np.int32))], g.tensor("places", shape, real), options,
        tfl.BuiltinOptions.ReshapeOptions,
    )  # fmt: skip
    gray = g.constant("gray", np.array([GRAY / LEVELS], np.float32))
    x = g.operator(
        op.SUB, [x, gray], g.tensor("shifted", shape, real), tfl.SubOptionsT(), tfl.BuiltinOptions.SubOptions
    )
    step, side = 1 / LEVELS, SIZE
    x = g.operator(
        op.QUANTIZE, [x], g.tensor("input", shape, tfl.TensorType.INT8, None, step, GRAY - 128), tfl.QuantizeOptionsT(),
        tfl.BuiltinOptions.QuantizeOptions,
    )  # fmt: skip
    x, step, side = g.unit(network.stem, x, step, side, "stem")
    for number, block in enumerate(network.blocks):
        skipped = x
        for place, unit in enumerate(block.units):
            x, step, side = g.unit(unit, x, step, side, f"block{number}.{place}")
        if block.adds:
            n = numbers(block.units[-1])
            y = g.tensor(f"block{number}", g.tensors[x].shape, tfl.TensorType.INT8, None, n.step, n.zero - 128)
            x = g.operator(op.ADD, [x, skipped], y, tfl.AddOptionsT(), tfl.BuiltinOptions.AddOptions, 2)
    x, step, side = g.unit(network.last, x, step, side, "features")
    outputs, heads = len(weights), weights.astype(np.float32)
    x = g.operator(
        op.DEQUANTIZE, [x], g.tensor("features.float", (1, side, side, FEATURES), real), tfl.DequantizeOptionsT(),
        tfl.BuiltinOptions.DequantizeOptions, 2,
    )  # fmt: skip
    embedding = g.tensor("embedding", (1, FEATURES), real)
    reduce = tfl.ReducerOptionsT()
    reduce.keepDims = False
    g.operator(
        op.MEAN,
        [x, g.constant("axes", np.array([1, 2], np.int32))],
        embedding,
        reduce,
        tfl.BuiltinOptions.ReducerOptions,
    )
    logits = g.tensor("logits", (1, outputs), real)
    head = [embedding, g.constant("head.weight", heads), g.constant("head.bias", biases.astype(np.float32))]
    g.operator(op.FULLY_CONNECTED, head, logits, tfl.FullyConnectedOptionsT(), tfl.BuiltinOptions.FullyConnectedOptions)
    convolution = tfl.Conv2DOptionsT()
    convolution.padding, convolution.strideH, convolution.strideW = tfl.Padding.VALID, 1, 1
    convolution.dilationHFactor = convolution.dilationWFactor = 1
    by_place = g.tensor("maps.places", (1, side, side, outputs), real)
    at = g.constant("map.weight", heads.reshape(outputs, 1, 1, FEATURES))
    nothing = g.constant("map.bias", np.zeros(outputs, np.float32))
    g.operator(op.CONV_2D, [x, at, nothing], by_place, convolution, tfl.BuiltinOptions.Conv2DOptions)
    maps = g.tensor("maps", (1, outputs, side, side), real)
    order = g.constant("order", np.array([0, 3, 1, 2], np.int32))
    g.operator(op.TRANSPOSE, [by_place, order], maps, tfl.TransposeOptionsT(), tfl.BuiltinOptions.TransposeOptions)
    _write(g, {"image": image}, {"logits": logits, "maps": maps, "embedding": embedding}, path)


def _write(g: _LiteRt, inputs: dict[str, int], outputs: dict[str, int], path: Path) -> None:
    graph, signature, model = tfl.SubGraphT(), tfl.SignatureDefT(), tfl.ModelT()
    graph.tensors, graph.operators = g.tensors, g.operators
    graph.inputs, graph.outputs = list(inputs.values()), list(outputs.values())

    def named(tensors: dict[str, int]) -> list[Any]:
        maps = []
        for name, index in tensors.items():
            one = tfl.TensorMapT()
            one.name, one.tensorIndex = name, index
            maps.append(one)
        return maps

    signature.signatureKey, signature.subgraphIndex = "serving_default", 0
    signature.inputs, signature.outputs = named(inputs), named(outputs)
    model.version, model.operatorCodes, model.subgraphs = 3, g.codes, [graph]
    model.buffers, model.signatureDefs = g.buffers, [signature]
    builder = flatbuffers.Builder(1 << 22)
    builder.Finish(model.Pack(builder), file_identifier=b"TFL3")
    path.write_bytes(bytes(builder.Output()))
