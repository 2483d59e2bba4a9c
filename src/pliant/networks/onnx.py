"""Networks and single blocks as ONNX models, written from their blocks; every BatchNorm is folded into its convolution.

The same emitters write what is delivered and what a latency table measures, so the table times the very nodes that will run.
No PyTorch: weights come as arrays, named as in `pliant.networks.plain`.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper

from pliant.errors import EncodingError
from pliant.spaces.blocks import (
    CONV_KERNELS,
    Block,
    Cell,
    ConvBlock,
    Head,
    Preprocess,
    Reduction,
)
from pliant.workload import NETWORK_INPUT, Layer, Operation

OPSET = 20
"""The first with Gelu; Resize with antialiasing is there since 18."""
IR_VERSION = 9
NORM_EPSILON = 1e-5
"""PyTorch's BatchNorm default, which the plain blocks keep."""

Weights = Mapping[str, np.ndarray]


class Graph:
    """The nodes and constants of a model while it grows; values are referred to by name."""

    def __init__(self) -> None:
        self.nodes: list[onnx.NodeProto] = []
        self.constants: list[onnx.TensorProto] = []

    def constant(self, name: str, value: np.ndarray) -> str:
        """Add a constant and return its name."""
        self.constants.append(numpy_helper.from_array(np.ascontiguousarray(value), name))
        return name

    def node(self, operator: str, inputs: Sequence[str], name: str, **attributes: Any) -> str:
        """Add a node with one output of the node's name and return that."""
        self.nodes.append(helper.make_node(operator, list(inputs), [name], name, **attributes))
        return name


class _Writer:
    """Writes the nodes of one block; `weights` are its own, without the slot in their names."""

    def __init__(self, graph: Graph, slot: str, weights: Weights) -> None:
        self.graph, self.slot, self.weights = graph, slot, weights

    def name(self, part: str) -> str:
        return f"{self.slot}.{part}"

    def constant(self, part: str, value: np.ndarray) -> str:
        return self.graph.constant(self.name(part), value)

    def node(self, operator: str, part: str, *inputs: str, **attributes: Any) -> str:
        return self.graph.node(operator, inputs, self.name(part), **attributes)

    def convolution(self, x: str, layer: Layer, operation: Operation) -> str:
        """The convolution of a layer, or the linear layer that runs at every pixel."""
        return self.conv(
            x,
            operation.module,
            norm=operation.batch_norm or None,
            stride=layer.strides,
            dilation=layer.dilations,
            groups=layer.G,
            epsilon=operation.epsilon,
        )

    def conv(
        self,
        x: str,
        part: str,
        *,
        norm: str | None,
        stride: int | tuple[int, int] = 1,
        dilation: tuple[int, int] = (1, 1),
        groups: int = 1,
        epsilon: float = NORM_EPSILON,
    ) -> str:
        """A convolution with its BatchNorm folded in, or with its own bias where it has one."""
        weight, bias = (
            self.weights[f"{part}.weight"].astype(np.float64),
            self.weights.get(f"{part}.bias"),
        )
        if weight.ndim == 2:
            weight = weight[:, :, None, None]
        if norm is not None:
            scale = self.weights[f"{norm}.weight"] / np.sqrt(
                self.weights[f"{norm}.running_var"].astype(np.float64) + epsilon
            )
            bias = self.weights[f"{norm}.bias"] - self.weights[f"{norm}.running_mean"] * scale
            weight = weight * scale[:, None, None, None]
        rows, columns = weight.shape[2:]
        pads = [dilation[0] * (rows // 2), dilation[1] * (columns // 2)]
        strides = [stride, stride] if isinstance(stride, int) else list(stride)
        more = {"dilations": list(dilation)} if dilation != (1, 1) else {}
        inputs = [x, self.constant(f"{part}.weight", weight.astype(np.float32))]
        if bias is not None:
            inputs.append(self.constant(f"{part}.bias", bias.astype(np.float32)))
        return self.node(
            "Conv",
            part,
            *inputs,
            kernel_shape=[rows, columns],
            strides=strides,
            pads=pads * 2,
            group=groups,
            **more,
        )

    def norm(self, x: str, part: str, epsilon: float = NORM_EPSILON) -> str:
        """A BatchNorm that no convolution can take in."""
        names = ("weight", "bias", "running_mean", "running_var")
        values = (self.constant(f"{part}.{name}", self.weights[f"{part}.{name}"]) for name in names)
        return self.node("BatchNormalization", part, x, *values, epsilon=epsilon)

    def layer_norm(self, x: str, part: str, epsilon: float) -> str:
        """A LayerNorm over the channels of each pixel: ONNX normalises the last axes only."""
        x = self.node("Transpose", f"{part}.channels_last", x, perm=[0, 2, 3, 1])
        ends = ("weight", "bias")
        values = (self.constant(f"{part}.{end}", self.weights[f"{part}.{end}"]) for end in ends)
        x = self.node("LayerNormalization", part, x, *values, axis=-1, epsilon=epsilon)
        return self.node("Transpose", f"{part}.channels_first", x, perm=[0, 3, 1, 2])

    def linear(self, x: str, part: str) -> str:
        weight, bias = (
            self.constant(f"{part}.{end}", self.weights[f"{part}.{end}"])
            for end in ("weight", "bias")
        )
        return self.node("Gemm", part, x, weight, bias, transB=1)

    def activation(self, x: str, part: str, kind: str) -> str:
        if kind == "none":
            return x
        if kind == "relu6":
            bounds = (self.constant(f"{part}.{end:g}", np.float32(end)) for end in (0.0, 6.0))
            return self.node("Clip", f"{part}.{kind}", x, *bounds)
        if kind == "hsigmoid":
            return self.node("HardSigmoid", f"{part}.{kind}", x, alpha=1 / 6, beta=0.5)
        return self.node(
            {"relu": "Relu", "hswish": "HardSwish", "gelu": "Gelu"}[kind], f"{part}.{kind}", x
        )


def _preprocess(writer: _Writer, block: Preprocess, x: str) -> str:
    shape = (1, block.channels, 1, 1)
    std = writer.weights["std"].astype(np.float64)
    x = writer.node(
        "Mul", "scaled", x, writer.constant("scale", (1 / std).astype(np.float32).reshape(shape))
    )
    x = writer.node(
        "Add",
        "normalised",
        x,
        writer.constant("shift", (-writer.weights["mean"] / std).astype(np.float32).reshape(shape)),
    )
    if block.resolution != block.size:
        x = _resize(writer, block, x)
    if block.views == 1:
        return x
    start, end, axis, step = (
        writer.constant(f"mirror.{name}", np.array([value], np.int64))
        for name, value in _MIRROR.items()
    )
    return writer.node(
        "Concat", "views", x, writer.node("Slice", "mirror", x, start, end, axis, step), axis=0
    )


_MIRROR = {"start": -1, "end": np.iinfo(np.int64).min, "axis": 3, "step": -1}
"""Columns from the last to the first."""


def _resize(writer: _Writer, block: Preprocess, x: str) -> str:
    sizes = writer.constant("sizes", np.array([block.resolution, block.resolution], dtype=np.int64))
    # exclude_outside drops the filter's taps beyond the border and rescales the others, as PyTorch does.
    options = {
        "mode": "linear",
        "antialias": 1,
        "axes": [2, 3],
        "exclude_outside": 1,
        "coordinate_transformation_mode": "half_pixel",
    }
    return writer.node("Resize", "resize", x, "", "", sizes, **options)


def _conv_block(writer: _Writer, block: ConvBlock, x: str) -> str:
    if block.pool == 1:
        x = writer.conv(x, "conv1", norm="norm1", stride=block.stride)
        return writer.activation(x, "conv1", block.activation)
    # Pooling comes before the BatchNorm, and they may not swap where a scale is negative: nothing is folded over the pooling.
    weight = writer.constant("conv1.weight", writer.weights["conv1.weight"])
    pad = block.kernel // 2
    x = writer.node(
        "Conv",
        "conv1",
        x,
        weight,
        kernel_shape=[block.kernel] * 2,
        strides=[block.stride] * 2,
        pads=[pad] * 4,
    )
    x = writer.node("MaxPool", "pool", x, kernel_shape=[block.pool] * 2, strides=[block.pool] * 2)
    return writer.activation(writer.norm(x, "norm1"), "norm1", block.activation)


def _from_layers(writer: _Writer, block: Block, x: str) -> str:
    """The nodes of any block whose layers say what they compute.

    Raises:
        EncodingError: a layer does not say it.
    """
    values = {NETWORK_INPUT: x}
    for layer, operation in _described(block):
        x = _layer(writer, layer, operation, [values[name] for name in layer.inputs])
        values[layer.name] = x
    return x


def _layer(writer: _Writer, layer: Layer, operation: Operation, read: Sequence[str]) -> str:
    """The nodes of one layer."""
    part = layer.name.removeprefix(f"{writer.slot}.")
    windows = {"kernel_shape": [layer.R, layer.S], "strides": list(layer.strides)}
    match operation.operator:
        case "conv":
            y, part = writer.convolution(read[0], layer, operation), operation.module
        case "max_pool":
            y = writer.node("MaxPool", part, read[0], **windows)
        case "average_pool":
            y = writer.node("AveragePool", part, read[0], **windows, ceil_mode=1)
        case "global_pool":
            y = writer.node("GlobalAveragePool", part, read[0])
        case "batch_norm":
            y = writer.norm(read[0], operation.module, operation.epsilon)
        case "layer_norm":
            y = writer.layer_norm(read[0], operation.module, operation.epsilon)
        case "scale":
            factors = writer.weights[operation.module].reshape(-1, 1, 1)
            y = writer.node("Mul", part, read[0], writer.constant(operation.module, factors))
        case "add":
            y = writer.node("Add", part, *read)
        case "mul":
            y = writer.node("Mul", part, *read)
    return writer.activation(y, part, operation.activation)


def _described(block: Block) -> list[tuple[Layer, Operation]]:
    """The layers of a block with what they compute.

    Raises:
        EncodingError: a layer does not say it.
    """
    found = []
    for layer in block.layers():
        if layer.operation is None:
            raise EncodingError(
                "every layer of a block says what it computes, received"
                f" {type(block).__name__} with layer {layer.name!r}. Give it an operation."
            )
        found.append((layer, layer.operation))
    return found


def _cell(writer: _Writer, block: Cell, x: str) -> str:
    nodes, rectified = {0: x}, {}
    for source, target, operation in block.edges:
        value, name = nodes[source], f"{operation}_{source}{target}"
        if operation in CONV_KERNELS:
            if source not in rectified:
                rectified[source] = writer.activation(value, f"node{source}", "relu")
            value = writer.conv(rectified[source], f"convs.{name}", norm=f"norms.{name}")
        elif operation == "avg_pool_3x3":
            value = writer.node(
                "AveragePool", name, value, kernel_shape=[3, 3], pads=[1] * 4, count_include_pad=0
            )
        nodes[target] = (
            writer.node("Add", f"add_{source}{target}", nodes[target], value)
            if target in nodes
            else value
        )
    if 3 not in nodes:
        return writer.node("Mul", "zero", x, writer.constant("nothing", np.zeros(1, np.float32)))
    return writer.node("Identity", "output", x) if nodes[3] == x else nodes[3]


def _reduction(writer: _Writer, block: Reduction, x: str) -> str:
    y = writer.conv(writer.activation(x, "input", "relu"), "conv1", norm="norm1", stride=2)
    y = writer.conv(writer.activation(y, "conv1", "relu"), "conv2", norm="norm2")
    x = writer.node(
        "AveragePool", "shortcut_pool", x, kernel_shape=[2, 2], strides=[2, 2], ceil_mode=1
    )
    return writer.node("Add", "add", y, writer.conv(x, "shortcut", norm=None))


def _head(writer: _Writer, block: Head, x: str) -> str:
    if block.input_norm:
        x = writer.activation(writer.norm(x, "input_norm"), "input_norm", block.activation)
    if block.expand:
        x = writer.activation(
            writer.conv(x, "expand", norm="expand_norm"), "expand", block.activation
        )
    x = writer.node("Flatten", "flatten", writer.node("GlobalAveragePool", "pool", x), axis=1)
    if block.views > 1:
        shape = np.array([block.views, -1, block.expand or block.inputs], np.int64)
        x = writer.node("Reshape", "by_view", x, writer.constant("by_view.shape", shape))
        x = writer.node(
            "ReduceMean",
            "views",
            x,
            writer.constant("views.axis", np.zeros(1, np.int64)),
            keepdims=0,
        )
    if block.hidden:
        x = writer.activation(writer.linear(x, "hidden"), "hidden", block.activation)
    return writer.linear(x, "classifier")


_EMITTERS: Mapping[str, Callable[[_Writer, Any, str], str]] = {  # the others follow from layers
    "Preprocess": _preprocess,
    "ConvBlock": _conv_block,
    "Cell": _cell,
    "Reduction": _reduction,
    "Head": _head,
}


def network_model(
    blocks: Sequence[Block],
    state: Weights,
    *,
    batch: int | None = None,
    metadata: Mapping[str, str] | None = None,
) -> onnx.ModelProto:
    """A calibrated network as a model from `image`, (N, channels, size, size) pixels from 0 to 1, to `logits`.

    Args:
        blocks: in running order.
        state: arrays named as in the plain network's state: `blocks.<slot>.<layer>.<parameter>`.
        batch: images a run; any number where None.
        metadata: text that the file carries.

    Raises:
        EncodingError: a layer does not say what it computes.
    """
    graph = Graph()
    value = "image"
    for block in blocks:
        prefix = f"blocks.{block.slot}."
        weights = {
            name.removeprefix(prefix): array
            for name, array in state.items()
            if name.startswith(prefix)
        }
        value = _emit(graph, block, weights, value)
    return _model(graph, blocks, batch or "N", metadata)


def block_model(block: Block, rng: np.random.Generator, *, batch: int = 1) -> onnx.ModelProto:
    """One block with random weights as a model for a batch of images: what a latency table measures."""
    graph = Graph()
    _emit(graph, block, random_weights(block, rng), "image")
    return _model(graph, [block], batch, None)


def _emit(graph: Graph, block: Block, weights: Weights, value: str) -> str:
    kind = type(block).__name__
    return _EMITTERS.get(kind, _from_layers)(_Writer(graph, block.slot, weights), block, value)


def _model(
    graph: Graph, blocks: Sequence[Block], batch: int | str, metadata: Mapping[str, str] | None
) -> onnx.ModelProto:
    first, last = blocks[0], blocks[-1].layers()[-1]
    target = "logits" if isinstance(blocks[-1], Head) else "features"
    graph.nodes[-1].output[0] = target
    pixels: list[int | str] = [
        _all(batch, first.in_views),
        first.in_channels,
        first.size,
        first.size,
    ]
    out: list[int | str] = [
        _all(batch, last.N),
        last.G * last.K,
        *([] if last.kind == "matmul" else [last.P, last.Q]),
    ]
    made = helper.make_graph(
        graph.nodes,
        "pliant",
        [helper.make_tensor_value_info("image", TensorProto.FLOAT, pixels)],
        [helper.make_tensor_value_info(target, TensorProto.FLOAT, out)],
        graph.constants,
    )
    model = helper.make_model(
        made,
        opset_imports=[helper.make_opsetid("", OPSET)],
        ir_version=IR_VERSION,
        producer_name="pliant",
    )
    for key, text in (metadata or {}).items():
        model.metadata_props.add(key=key, value=text)
    return model


def _all(batch: int | str, views: int) -> int | str:
    """Images and views of a batch; one of any size begins and ends with one view."""
    return batch if isinstance(batch, str) else batch * views


def random_weights(block: Block, rng: np.random.Generator) -> dict[str, np.ndarray]:
    """Weights of a block's shapes with outputs of moderate size; only their shapes matter to a latency."""
    found: dict[str, np.ndarray] = {}

    def norm_of(name: str, channels: int) -> None:
        for end, value in (("weight", 1), ("bias", 0), ("running_mean", 0), ("running_var", 1)):
            found[f"{name}.{end}"] = np.full(channels, value, np.float32)

    def conv(
        name: str,
        into: int,
        out: int,
        kernel: int | tuple[int, int] = 1,
        *,
        norm: str | None,
        bias: bool = True,
    ) -> None:
        rows, columns = (kernel, kernel) if isinstance(kernel, int) else kernel
        found[f"{name}.weight"] = (
            rng.standard_normal((out, into, rows, columns)) / np.sqrt(into * rows * columns)
        ).astype(np.float32)
        if norm is not None:
            norm_of(norm, out)
        elif bias:
            found[f"{name}.bias"] = np.zeros(out, np.float32)

    def linear(name: str, into: int, out: int) -> None:
        found[f"{name}.weight"] = (rng.standard_normal((out, into)) / np.sqrt(into)).astype(
            np.float32
        )
        found[f"{name}.bias"] = np.zeros(out, np.float32)

    match block:
        case Preprocess():
            found |= {
                "mean": np.zeros(block.channels, np.float32),
                "std": np.ones(block.channels, np.float32),
            }
        case ConvBlock():
            conv("conv1", block.inputs, block.outputs, block.kernel, norm="norm1")
        case Cell():
            for source, target, operation in block.edges:
                if operation in CONV_KERNELS:
                    name = f"{operation}_{source}{target}"
                    conv(
                        f"convs.{name}",
                        block.channels,
                        block.channels,
                        CONV_KERNELS[operation],
                        norm=f"norms.{name}",
                    )
        case Reduction():
            conv("conv1", block.inputs, block.outputs, 3, norm="norm1")
            conv("conv2", block.outputs, block.outputs, 3, norm="norm2")
            conv("shortcut", block.inputs, block.outputs, norm=None, bias=False)
        case Head():
            if block.input_norm:
                norm_of("input_norm", block.inputs)
            if block.expand:
                conv("expand", block.inputs, block.expand, norm="expand_norm")
            width = block.expand or block.inputs
            if block.hidden:
                linear("hidden", width, block.hidden)
            linear("classifier", block.hidden or width, block.classes)
        case _:
            for layer, computed in _described(block):
                channels = layer.G * layer.K
                match computed.operator:
                    case "conv":
                        conv(
                            computed.module,
                            layer.C,
                            channels,
                            (layer.R, layer.S),
                            norm=computed.batch_norm or None,
                            bias=layer.bias,
                        )
                    case "batch_norm":
                        norm_of(computed.module, channels)
                    case "layer_norm":
                        found[f"{computed.module}.weight"] = np.ones(channels, np.float32)
                        found[f"{computed.module}.bias"] = np.zeros(channels, np.float32)
                    case "scale":
                        found[computed.module] = np.ones(channels, np.float32)
    return found
