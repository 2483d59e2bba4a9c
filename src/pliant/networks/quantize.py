"""int8 networks: static quantization of an ONNX model that this package wrote.

Weights become int8, symmetric, with one scale per output channel; activations become uint8, with
one scale and zero point per tensor: x ~ scale (q - zero_point). Jacob, B. et al., Quantization and
training of neural networks for efficient integer-arithmetic-only inference, 2018,
arXiv:1712.05877, equations 1 and 12; Nagel, M. et al., A white paper on neural network
quantization, 2021, arXiv:2106.08295.

The result has QuantizeLinear and DequantizeLinear nodes around the float operators. ONNX Runtime
fuses them into its integer kernels. A relu or relu6 costs nothing: the range of its result ends
where it clips. No PyTorch.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import onnx
import onnxruntime
from onnx import TensorProto, helper, numpy_helper

INTEGER_OPERATORS = ("Conv", "Gemm", "Add", "Mul", "GlobalAveragePool", "AveragePool", "MaxPool")
"""Operators for which ONNX Runtime has integer kernels. All others compute in float, between a
DequantizeLinear and a QuantizeLinear."""
PASSING_OPERATORS = ("Flatten", "Reshape", "MaxPool", "Identity")
"""The result has the range of the input."""
SLOW_OPERATORS = (
    "HardSwish",
    "HardSigmoid",
    "Gelu",
    "BatchNormalization",
    "LayerNormalization",
    "MatMul",
    "Softmax",
)
"""They leave the integers for every value of a tensor, and come back; MatMul is of attention, whose
products of two computed tensors stay in float."""
CLIPPING_OPERATORS = ("Relu", "Clip")
"""What the range of a quantized tensor does by itself."""
INTEGER_END = ".integer"
"""What the name of a tensor ends with when it is stored in integers."""

SAMPLED = 1024
"""Values of each tensor that are kept per image, evenly spaced."""
PERCENTILE = 99.99
SHRINKINGS = np.linspace(1.0, 0.4, 25)
"""Shares of the whole range that are tried for the least squared error."""

Range = tuple[float, float]
"""Lowest and highest value that a tensor can represent; 0 is between them."""


@dataclass(frozen=True)
class Observed:
    """The values of one tensor over calibration images."""

    low: float
    high: float
    sample: np.ndarray
    """Of the values, evenly spaced; float32 (values,)."""


def observe(model: onnx.ModelProto, batches: Iterable[np.ndarray]) -> dict[str, Observed]:
    """Run a float model and note the values of all its tensors.

    Args:
        model: with one input.
        batches: inputs of the model, each (N, ...).

    Returns:
        By name of the tensor.
    """
    opened = onnx.ModelProto()
    opened.CopyFrom(model)
    names = _float_results(model)
    del opened.graph.output[:]
    opened.graph.output.extend(
        helper.make_tensor_value_info(name, TensorProto.FLOAT, None) for name in names
    )
    source = model.graph.input[0].name
    session = _session(opened)
    lows: dict[str, float] = dict.fromkeys(names, 0.0)
    highs: dict[str, float] = dict.fromkeys(names, 0.0)
    samples: dict[str, list[np.ndarray]] = {name: [] for name in names}
    for batch in batches:
        found = dict(zip(names, session.run(names, {source: batch}), strict=True))
        if batch.dtype == np.float32:
            found[source] = batch
        for name, values in found.items():
            lows[name] = min(lows.get(name, 0.0), float(values.min()))
            highs[name] = max(highs.get(name, 0.0), float(values.max()))
            step = max(1, values.size // (SAMPLED * len(batch)))
            samples.setdefault(name, []).append(values.reshape(-1)[::step].copy())
    return {
        name: Observed(lows[name], highs[name], np.concatenate(parts))
        for name, parts in samples.items()
        if parts
    }


def _float_results(model: onnx.ModelProto) -> list[str]:
    """What the nodes of a model compute, but for whole numbers such as shapes."""
    known = onnx.shape_inference.infer_shapes(model).graph.value_info
    other = {
        one.name for one in known if one.type.tensor_type.elem_type not in (0, TensorProto.FLOAT)
    }
    return [name for node in model.graph.node for name in node.output if name not in other]


def _session(model: onnx.ModelProto) -> onnxruntime.InferenceSession:
    """One thread, and no optimisation: every tensor is computed."""
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = 1
    options.log_severity_level = 4
    options.graph_optimization_level = onnxruntime.GraphOptimizationLevel.ORT_DISABLE_ALL
    return onnxruntime.InferenceSession(
        model.SerializeToString(), options, providers=["CPUExecutionProvider"]
    )


def float_operators(model: onnx.ModelProto) -> Mapping[str, int]:
    """The operators of a quantized model that compute in float and take most of the time.

    Activations without an integer kernel, such as HardSwish, and the factors of
    squeeze-and-excite; how often by name. Spaces for int8 have none of them.
    """
    ends = {one.name for one in model.graph.output}  # the probabilities are always a Softmax
    return Counter(
        node.op_type
        for node in model.graph.node
        if node.op_type in SLOW_OPERATORS and node.output[0] not in ends
    )


def quantized_at_random(
    model: onnx.ModelProto, rng: np.random.Generator, *, integer_ends: bool = False
) -> onnx.ModelProto:
    """The model quantized for random inputs: as fast as a calibrated one, to be timed."""
    source = model.graph.input[0].type.tensor_type
    image = rng.random([max(1, dim.dim_value) for dim in source.shape.dim], dtype=np.float32)
    if source.elem_type == TensorProto.UINT8:
        image = (255 * image).astype(np.uint8)
    ranges = {name: whole_range(values) for name, values in observe(model, [image]).items()}
    return quantized_model(model, ranges, integer_ends=integer_ends)


def whole_range(values: Observed) -> Range:
    """From the lowest to the highest value."""
    return values.low, values.high


def percentile_range(values: Observed) -> Range:
    """Without the outermost values on each side."""
    low, high = np.percentile(values.sample, [100 - PERCENTILE, PERCENTILE])
    return min(0.0, float(low)), max(0.0, float(high))


def least_error_range(values: Observed) -> Range:
    """The share of the whole range with the least mean squared error (white paper, section 3.1)."""
    best: tuple[float, Range] | None = None
    for share in SHRINKINGS:
        span = (float(share * values.low), float(share * values.high))
        scale, zero_point = affine(span)
        integers = np.clip(np.rint(values.sample / scale) + zero_point, 0, 255)
        error = float(np.mean((scale * (integers - zero_point) - values.sample) ** 2))
        if best is None or error < best[0]:
            best = (error, span)
    assert best is not None
    return best[1]


RANGE_RULES: Mapping[str, Callable[[Observed], Range]] = {
    "min-max": whole_range,
    "percentile": percentile_range,
    "least squared error": least_error_range,
}
"""How the range of a tensor follows from its values."""


def affine(span: Range) -> tuple[np.float32, int]:
    """Scale and zero point of a uint8 tensor; 0 is represented exactly (Jacob et al., eq. 1)."""
    low, high = min(0.0, span[0]), max(0.0, span[1])
    scale = np.float32((high - low) / 255) or np.float32(1 / 255)
    return scale, int(np.clip(np.rint(-low / scale), 0, 255))


def weight_scales(weight: np.ndarray) -> np.ndarray:
    """The scale of each output channel, which maps its largest weight to 127."""
    largest = np.abs(weight.reshape(len(weight), -1)).max(1)
    return np.where(largest > 0, largest / 127, 1).astype(np.float32)


def quantized_model(
    model: onnx.ModelProto, ranges: Mapping[str, Range], *, integer_ends: bool = False
) -> onnx.ModelProto:
    """The model with integer kernels, for activations of these ranges.

    Args:
        model: in float, as `pliant.networks.onnx` writes it.
        ranges: by name of the tensor.
        integer_ends: whether the input is uint8 and the features too, as those of a block within a
            quantized network; images, pictures and logits are as in the float model otherwise.
    """
    return _Quantizer(model, ranges).convert(integer_ends=integer_ends)


class _Quantizer:
    """Rewrites a graph node by node."""

    def __init__(self, model: onnx.ModelProto, ranges: Mapping[str, Range]) -> None:
        self.model, self.ranges = model, dict(ranges)
        self.weights = {one.name: one for one in model.graph.initializer}
        self.outputs = {one.name for one in model.graph.output}
        self.readers = Counter(name for node in model.graph.node for name in node.input)
        self.nodes: list[onnx.NodeProto] = []
        self.constants: dict[str, onnx.TensorProto] = {}
        self.known: dict[str, str] = {}
        """Activations that were quantized and dequantized, by the name of the float tensor."""

    def convert(self, *, integer_ends: bool) -> onnx.ModelProto:
        clipped = self._clipped()
        source, target = self.model.graph.input[0], self.model.graph.output[0]
        if integer_ends and source.type.tensor_type.elem_type == TensorProto.FLOAT:
            self._quantized(source.name)
        for node in self.model.graph.node:
            if node.output[0] in clipped.values():
                continue  # the range of what it reads clips instead
            copy = onnx.NodeProto()
            copy.CopyFrom(node)
            if node.output[0] in clipped:
                copy.output[0] = clipped[node.output[0]]
            self._write(copy)
        if integer_ends and target.name != "logits":
            self._quantized(target.name)
        result = onnx.ModelProto()
        result.CopyFrom(self.model)
        del result.graph.node[:]
        del result.graph.initializer[:]
        result.graph.node.extend(self.nodes)
        result.graph.initializer.extend(self._used())
        if integer_ends:
            _make_ends_integer(result.graph)
        return result

    def _clipped(self) -> dict[str, str]:
        """Results of integer operators that only a relu or relu6 reads, and what that writes."""
        makers = {node.output[0]: node for node in self.model.graph.node}
        found = {}
        for node in self.model.graph.node:
            read = node.input[0] if node.input else ""
            if (
                node.op_type in CLIPPING_OPERATORS
                and read in makers
                and self._is_integer(makers[read])
                and self.readers[read] == 1
                and read not in self.outputs
            ):
                found[read] = node.output[0]
        return found

    def _is_integer(self, node: onnx.NodeProto) -> bool:
        """Whether an integer kernel computes it.

        Not where a constant is multiplied or added, a weight is computed, or shapes are.
        """
        if node.op_type not in INTEGER_OPERATORS:
            return False
        weighted = node.op_type in ("Conv", "Gemm")
        activations = list(node.input[:1] if weighted else node.input)
        if weighted and not all(name in self.weights for name in node.input[1:]):
            return False
        return not any(name in self.weights for name in activations) and all(
            name in self.ranges for name in (*activations, node.output[0])
        )

    def _write(self, node: onnx.NodeProto) -> None:
        passes = node.op_type in PASSING_OPERATORS and node.input[0] in self.known
        if passes:
            self.ranges[node.output[0]] = self.ranges[node.input[0]]
        if not (self._is_integer(node) or passes):
            node.input[:] = [self.known.get(name, name) for name in node.input]
            self.nodes.append(node)
            return
        weighted = node.op_type in ("Conv", "Gemm")
        reads = list(node.input[: 1 if weighted or passes else None])
        node.input[: len(reads)] = [self._quantized(name) for name in reads]
        if weighted:
            self._write_weights(node, reads[0])
        self.nodes.append(node)
        if node.output[0] not in self.outputs or node.op_type != "Gemm":
            self._quantized(node.output[0])

    def _quantized(self, name: str) -> str:
        """An activation after its round trip through uint8."""
        if name not in self.known:
            scale, zero_point = affine(self.ranges[name])
            ends = [
                self._constant(f"{name}.scale", scale),
                self._constant(f"{name}.zero_point", np.uint8(zero_point)),
            ]
            self._node("QuantizeLinear", [name, *ends], name + INTEGER_END)
            self.known[name] = self._node(
                "DequantizeLinear", [name + INTEGER_END, *ends], f"{name}.float"
            )
        return self.known[name]

    def _write_weights(self, node: onnx.NodeProto, read: str) -> None:
        """int8 weights, and int32 biases on the scale of the products (Jacob et al., eq. 11)."""
        weight = numpy_helper.to_array(self.weights[node.input[1]])
        scales = weight_scales(weight)
        shape = (-1,) + (1,) * (weight.ndim - 1)
        integers = np.clip(np.rint(weight / scales.reshape(shape)), -127, 127).astype(np.int8)
        node.input[1] = self._stored(node.input[1], integers, scales)
        if len(node.input) > 2:
            bias = numpy_helper.to_array(self.weights[node.input[2]]).astype(np.float64)
            products = affine(self.ranges[read])[0] * scales
            limit = np.iinfo(np.int32).max
            sums = np.clip(np.rint(bias / products), -limit, limit).astype(np.int32)
            node.input[2] = self._stored(node.input[2], sums, products)

    def _stored(self, name: str, integers: np.ndarray, scales: np.ndarray) -> str:
        """A constant in integers, dequantized by channel."""
        stored = self._constant(name + INTEGER_END, integers)
        ends = [
            self._constant(f"{name}.scale", scales),
            self._constant(f"{name}.zero_point", np.zeros(len(scales), integers.dtype)),
        ]
        return self._node("DequantizeLinear", [stored, *ends], f"{name}.float", axis=0)

    def _constant(self, name: str, value: np.ndarray | np.generic) -> str:
        self.constants[name] = numpy_helper.from_array(np.asarray(value), name)
        return name

    def _node(self, operator: str, inputs: list[str], output: str, **attributes: Any) -> str:
        self.nodes.append(helper.make_node(operator, inputs, [output], output, **attributes))
        return output

    def _used(self) -> list[onnx.TensorProto]:
        """Constants that some node still reads."""
        read = {name for node in self.nodes for name in node.input}
        return [
            one for one in (*self.weights.values(), *self.constants.values()) if one.name in read
        ]


def _make_ends_integer(graph: onnx.GraphProto) -> None:
    """Let the graph begin after its first quantization, and end before its last dequantization."""
    source, target = graph.input[0], graph.output[0]
    for node in list(graph.node):
        if node.op_type == "QuantizeLinear" and node.input[0] == source.name:
            graph.node.remove(node)
            source.name = node.output[0]
            source.type.tensor_type.elem_type = TensorProto.UINT8
        elif node.op_type == "DequantizeLinear" and node.input[0] == target.name + INTEGER_END:
            graph.node.remove(node)
            target.name = node.input[0]
            target.type.tensor_type.elem_type = TensorProto.UINT8
