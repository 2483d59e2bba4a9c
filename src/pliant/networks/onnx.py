"""Networks and single blocks as ONNX models, written from their blocks.

Every BatchNorm is folded into its convolution.

The same emitters write what is delivered and what a latency table measures, so the table times the
very nodes that will run. No PyTorch: weights come as arrays, named as in `pliant.networks.plain`.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, Literal

import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper

from pliant.errors import EncodingError
from pliant.spaces.block import Block
from pliant.spaces.input_output_blocks import Preprocess
from pliant.workload import NETWORK_INPUT, Layer, Operation

OPSET = 20
"""The first with Gelu; Resize with antialiasing is there since 18."""
IR_VERSION = 9

Weights = Mapping[str, np.ndarray]


ANY_LAYOUT = frozenset(
    ["layer_norm", "add", "token_linear", "attention_scores", "softmax", "attention_values"]
)
"""Operators that do not need their inputs as images."""

Layout = Literal["image", "channels_last", "rows"]
"""Axes of a value: (N, channels, H, W), (N, H, W, channels), or a row of channels per pixel."""


class Graph:
    """The nodes and constants of a model while it grows; values are referred to by name.

    Args:
        pictures: whether it reads pictures, uint8 (N, size, size, channels), instead of pixels.
    """

    def __init__(self, *, pictures: bool = False) -> None:
        self.pictures = pictures
        self.input = "pictures" if pictures else "image"
        self.nodes: list[onnx.NodeProto] = []
        self.constants: list[onnx.TensorProto] = []

    def constant(self, name: str, value: np.ndarray) -> str:
        """Add a constant and return its name."""
        self.constants.append(numpy_helper.from_array(np.asarray(value, order="C"), name))
        return name

    def node(self, operator: str, inputs: Sequence[str], name: str, **attributes: Any) -> str:
        """Add a node with one output of the node's name and return that."""
        self.nodes.append(helper.make_node(operator, list(inputs), [name], name, **attributes))
        return name


class _Writer:
    """Writes the nodes of one block; `weights` are its own, without the slot in their names."""

    def __init__(self, graph: Graph, block: Block, weights: Weights) -> None:
        self.graph, self.block, self.weights = graph, block, weights
        self.activated: dict[tuple[str, str], str] = {}
        """What several layers read through the same activation, by value and activation."""
        self.layouts: dict[str, Layout] = {}
        """Of the values that are no images."""
        self.channels: dict[str, int] = {}
        """Of every value between two layers."""
        self.converted: dict[tuple[str, Layout], str] = {}
        """Values in another layout than that in which they were written."""
        self.heads: dict[str, str] = {}
        """Queries, keys and values by head, by the value that has them side by side."""

    def name(self, part: str) -> str:
        return f"{self.block.slot}.{part}"

    def constant(self, part: str, value: np.ndarray) -> str:
        return self.graph.constant(self.name(part), value)

    def node(self, operator: str, part: str, *inputs: str, **attributes: Any) -> str:
        return self.graph.node(operator, inputs, self.name(part), **attributes)

    def conv(self, x: str, layer: Layer, operation: Operation) -> str:
        """A convolution with its BatchNorm folded in, or with its own bias where it has one.

        Also the linear layer that runs at every pixel.
        """
        part, norm = operation.module, operation.batch_norm
        weight = self.weights[f"{part}.weight"].astype(np.float64)
        bias = self.weights.get(f"{part}.bias")
        if weight.ndim == 2:
            weight = weight[:, :, None, None]
        if norm:
            scale = self.weights[f"{norm}.weight"] / np.sqrt(
                self.weights[f"{norm}.running_var"].astype(np.float64) + operation.epsilon
            )
            bias = self.weights[f"{norm}.bias"] - self.weights[f"{norm}.running_mean"] * scale
            weight = weight * scale[:, None, None, None]
        rows, columns = weight.shape[2:]
        pads = [layer.dilations[0] * (rows // 2), layer.dilations[1] * (columns // 2)] * 2
        if operation.padding is not None:
            before, after = operation.padding
            pads = [before, before, after, after]
        more = {"dilations": list(layer.dilations)} if layer.dilations != (1, 1) else {}
        inputs = [x, self.constant(f"{part}.weight", weight.astype(np.float32))]
        if bias is not None:
            inputs.append(self.constant(f"{part}.bias", bias.astype(np.float32)))
        return self.node(
            "Conv",
            part,
            *inputs,
            kernel_shape=[rows, columns],
            strides=list(layer.strides),
            pads=pads,
            group=layer.G,
            **more,
        )

    def norm(self, x: str, part: str, epsilon: float) -> str:
        """A BatchNorm that no convolution can take in."""
        names = ("weight", "bias", "running_mean", "running_var")
        values = (self.constant(f"{part}.{name}", self.weights[f"{part}.{name}"]) for name in names)
        return self.node("BatchNormalization", part, x, *values, epsilon=epsilon)

    def layer_norm(self, x: str, part: str, epsilon: float) -> str:
        """A LayerNorm over the channels of each pixel: ONNX normalises the last axes only."""
        if self.layout(x) == "image":
            x = self.convert(x, "channels_last", part)
        ends = ("weight", "bias")
        values = (self.constant(f"{part}.{end}", self.weights[f"{part}.{end}"]) for end in ends)
        y = self.node("LayerNormalization", part, x, *values, axis=-1, epsilon=epsilon)
        self.layouts[y] = self.layout(x)
        return y

    def layout(self, x: str) -> Layout:
        """The order of the axes of a value."""
        return self.layouts.get(x, "image")

    def convert(self, x: str, wanted: Layout, part: str) -> str:
        """A value in a layout, converted once; `part` is what the new nodes are named after."""
        found = self.layout(x)
        if found == wanted:
            return x
        if (x, wanted) in self.converted:
            return self.converted[x, wanted]
        if {found, wanted} == {"image", "rows"}:
            y = self.convert(self.convert(x, "channels_last", part), wanted, part)
        elif wanted == "image":
            y = self.node("Transpose", f"{part}.channels_first", x, perm=[0, 3, 1, 2])
        elif found == "image":
            y = self.node("Transpose", f"{part}.channels_last", x, perm=[0, 2, 3, 1])
        else:
            pixels = [] if wanted == "rows" else [self.block.size] * 2
            y = self.reshaped(x, f"{part}.{wanted}", [-1, *pixels, self.channels[x]])
        self.layouts[y], self.channels[y] = wanted, self.channels[x]
        self.converted[x, wanted] = y
        return y

    def reshaped(self, x: str, part: str, shape: Sequence[int]) -> str:
        """The same numbers in another shape."""
        constant = self.constant(f"{part}.shape", np.array(shape, np.int64))
        return self.node("Reshape", part, x, constant)

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


def _preprocess(writer: _Writer, part: str, layer: Layer, x: str) -> str:
    """Normalise by the training images, resize where sizes differ, and add the mirror images."""
    shape = (1, layer.G, 1, 1)
    std = writer.weights["std"].astype(np.float64)
    white = 1
    if writer.graph.pictures:
        white = 255  # the scale takes in the division of bytes
        x = _channels_first(writer, layer.G, writer.node("Cast", "float", x, to=TensorProto.FLOAT))
    scale = writer.constant("scale", (1 / (std * white)).astype(np.float32).reshape(shape))
    shift = writer.constant(
        "shift", (-writer.weights["mean"] / std).astype(np.float32).reshape(shape)
    )
    x = writer.node("Mul", "scaled", x, scale)
    x = writer.node("Add", "normalised", x, shift)
    if writer.block.size != layer.P:
        x = _resize(writer, part, layer.P, x)
    if layer.N == 1:
        return x
    start, end, axis, step = (
        writer.constant(f"mirror.{name}", np.array([value], np.int64))
        for name, value in _MIRROR.items()
    )
    mirrored = writer.node("Slice", "mirror", x, start, end, axis, step)
    return writer.node("Concat", "views", x, mirrored, axis=0)


def _channels_first(writer: _Writer, channels: int, x: str) -> str:
    """(N, size, size, channels) to (N, channels, size, size).

    By way of a row of pixels: ONNX Runtime moves a transposition of four axes behind a resizing
    that stands before integer convolutions, and then refuses the resizing.
    """
    size = writer.block.size
    for name, shape in (("row", [-1, size**2, channels]), ("square", [-1, channels, size, size])):
        constant = writer.constant(f"{name}.shape", np.array(shape, np.int64))
        x = writer.node("Reshape", name, x, constant)
        if name == "row":
            x = writer.node("Transpose", "channels_first", x, perm=[0, 2, 1])
    return x


_MIRROR = {"start": -1, "end": np.iinfo(np.int64).min, "axis": 3, "step": -1}
"""Columns from the last to the first."""


def _resize(writer: _Writer, part: str, resolution: int, x: str) -> str:
    sizes = writer.constant("sizes", np.array([resolution, resolution], dtype=np.int64))
    # exclude_outside drops the filter's taps beyond the border and rescales the others, as
    # PyTorch does.
    options = {
        "mode": "linear",
        "antialias": 1,
        "axes": [2, 3],
        "exclude_outside": 1,
        "coordinate_transformation_mode": "half_pixel",
    }
    return writer.node("Resize", part, x, "", "", sizes, **options)


def _emit(graph: Graph, block: Block, weights: Weights, x: str) -> str:
    """Write the nodes of a block and return the name of its output.

    Raises:
        EncodingError: a layer does not say what it computes.
    """
    writer = _Writer(graph, block, weights)
    values = {NETWORK_INPUT: x}
    writer.channels[x] = block.in_channels
    part = ""
    for layer, operation in _described(block):
        part = layer.name.removeprefix(f"{block.slot}.")
        read = [
            _activated_input(writer, part, values[name], operation.input_activation)
            for name in layer.inputs
        ]
        x = _layer(writer, part, layer, operation, read)
        values[layer.name] = x
        writer.channels[x] = layer.G * layer.K
    return writer.convert(x, "image", part)


def _activated_input(writer: _Writer, part: str, x: str, activation: str) -> str:
    """What a layer reads, after the activation before it.

    It is written once for all layers that share it.
    """
    key = (x, activation)
    if key not in writer.activated:
        writer.activated[key] = writer.activation(x, f"{part}.input", activation)
    return writer.activated[key]


def _layer(
    writer: _Writer, part: str, layer: Layer, operation: Operation, read: Sequence[str]
) -> str:
    """The nodes of one layer."""
    if operation.operator not in ANY_LAYOUT:
        read = [writer.convert(x, "image", f"{part}.input") for x in read]
    x, module = read[0], operation.module
    match operation.operator:
        case "conv":
            y, part = writer.conv(x, layer, operation), module
        case "linear":
            y, part = writer.linear(_flat(writer, layer, x), module), module
        case "max_pool":
            y = writer.node("MaxPool", part, x, **_max_window(layer, operation))
        case "average_pool":
            y = _average_pool(writer, part, layer, x)
        case "global_pool":
            y = writer.node("GlobalAveragePool", part, x)
        case "batch_norm":
            y = writer.norm(x, module, operation.epsilon)
        case "layer_norm":
            y = writer.layer_norm(x, module, operation.epsilon)
        case "scale":
            factors = writer.weights[module].reshape(-1, 1, 1)
            y = writer.node("Mul", part, x, writer.constant(module, factors))
        case "add":
            y = _add(writer, part, read)
        case "add_stored":
            y = writer.node("Add", part, x, writer.constant(module, writer.weights[module]))
        case "token_linear":
            y, part = writer.linear(writer.convert(x, "rows", module), module), module
            writer.layouts[y] = "rows"
        case "attention_scores":
            y = _attention_scores(writer, part, layer, x)
        case "softmax":
            y = writer.node("Softmax", part, x, axis=-1)
        case "attention_values":
            y = _attention_values(writer, part, layer, read)
        case "mul":
            y = writer.node("Mul", part, *read)
        case "mean_over_flips":
            y = _mean_over_flips(writer, part, layer, x)
        case "preprocess":
            y = _preprocess(writer, part, layer, x)
        case "identity":
            y = writer.node("Identity", part, x)
        case "zero":
            y = writer.node("Mul", part, x, writer.constant("nothing", np.zeros(1, np.float32)))
    if operation.batch_norm and operation.operator != "conv":
        y, part = writer.norm(y, operation.batch_norm, operation.epsilon), operation.batch_norm
    activated = writer.activation(y, part, operation.activation)
    writer.layouts[activated] = writer.layout(y)
    return activated


def _max_window(layer: Layer, operation: Operation) -> dict[str, list[int]]:
    """Kernel and strides of a maximum pooling, and its padding where it says it.

    Raises:
        EncodingError: windows overlap in a way whose padding the layer does not say.
    """
    if operation.padding is None:
        return _window(layer)
    before, after = operation.padding
    return {
        "kernel_shape": [layer.R, layer.S],
        "strides": list(layer.strides),
        "pads": [before, before, after, after],
    }


def _window(layer: Layer, *, may_overlap: bool = False) -> dict[str, list[int]]:
    """Kernel and strides of a pooling.

    Raises:
        EncodingError: windows overlap in a way whose padding the layer does not say.
    """
    kernel = (layer.R, layer.S)
    same_size = may_overlap and layer.strides == (1, 1) and layer.R % 2 == layer.S % 2 == 1
    if kernel != layer.strides and not same_size:
        raise EncodingError(
            "windows of a pooling are side by side; of an average they may also be odd with steps"
            f" of 1. Received {kernel} with strides {layer.strides} in layer {layer.name!r}."
        )
    return {"kernel_shape": list(kernel), "strides": list(layer.strides)}


def _average_pool(writer: _Writer, part: str, layer: Layer, x: str) -> str:
    """Windows side by side may end beyond the image; with steps of 1 they keep its size.

    In both cases what is outside of the image does not count.
    """
    window = _window(layer, may_overlap=True)
    if layer.strides == (1, 1):
        pads = [layer.R // 2, layer.S // 2] * 2
        return writer.node("AveragePool", part, x, **window, pads=pads, count_include_pad=0)
    return writer.node("AveragePool", part, x, **window, ceil_mode=1)


def _add(writer: _Writer, part: str, terms: Sequence[str]) -> str:
    """The sum from left to right; with the channels last where a term has them so."""
    if any(writer.layout(term) != "image" for term in terms):
        terms = [writer.convert(term, "channels_last", f"{part}.input") for term in terms]
    total = terms[0]
    for number, term in enumerate(terms[1:], 1):
        name = part if number == len(terms) - 1 else f"{part}.{number}"
        total = writer.node("Add", name, total, term)
    writer.layouts[total] = writer.layout(terms[0])
    return total


def _attention_scores(writer: _Writer, part: str, layer: Layer, qkv: str) -> str:
    """Products of queries and keys over the root of their size, (N, heads, tokens, tokens)."""
    # Rows of (heads, 3, head size) become 3 times (N, heads, tokens, head size).
    heads, tokens, size = layer.G // writer.block.views, layer.N, layer.C
    by_head = writer.reshaped(qkv, f"{part}.by_head", [-1, tokens, heads, 3, size])
    thirds = writer.node("Transpose", f"{part}.thirds", by_head, perm=[3, 0, 2, 1, 4])
    writer.heads[qkv] = thirds
    queries, keys = (_third(writer, part, thirds, number) for number in (0, 1))
    scale = writer.constant(f"{part}.scale", np.float32(size**-0.5))
    queries = writer.node("Mul", f"{part}.scaled", queries, scale)
    keys = writer.node("Transpose", f"{part}.columns", keys, perm=[0, 1, 3, 2])
    return writer.node("MatMul", part, queries, keys)


def _attention_values(writer: _Writer, part: str, layer: Layer, read: Sequence[str]) -> str:
    """The values of each head weighted by the attention, in rows of (heads x head size)."""
    weights, qkv = read
    heads, size = layer.G // writer.block.views, layer.K
    values = _third(writer, part, writer.heads[qkv], 2)
    y = writer.node("MatMul", f"{part}.products", weights, values)
    y = writer.node("Transpose", f"{part}.by_token", y, perm=[0, 2, 1, 3])
    rows = writer.reshaped(y, part, [-1, heads * size])
    writer.layouts[rows] = "rows"
    return rows


def _third(writer: _Writer, part: str, thirds: str, number: int) -> str:
    """Queries, keys or values: (N, heads, tokens, head size)."""
    index = writer.constant(f"{part}.{number}.index", np.array(number, np.int64))
    return writer.node("Gather", f"{part}.{number}", thirds, index, axis=0)


def _flat(writer: _Writer, layer: Layer, x: str) -> str:
    """Features, (images, channels), of a tensor that may still have a pixel."""
    by_name = {one.name: one for one in writer.block.layers()}
    before = by_name.get(layer.inputs[0])
    operation = before.operation if before else None
    if operation and operation.operator in ("linear", "mean_over_flips"):
        return x
    return writer.node("Flatten", "flatten", x, axis=1)


def _mean_over_flips(writer: _Writer, part: str, layer: Layer, x: str) -> str:
    """The mean of what an image and its mirror image gave: the batch holds one after the other."""
    shape = np.array([writer.block.views, -1, layer.G], np.int64)
    features = _flat(writer, layer, x)
    by_view = writer.node("Reshape", "by_view", features, writer.constant("by_view.shape", shape))
    axis = writer.constant(f"{part}.axis", np.zeros(1, np.int64))
    return writer.node("ReduceMean", part, by_view, axis, keepdims=0)


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


def network_model(
    blocks: Sequence[Block],
    state: Weights,
    *,
    batch: int | None = None,
    metadata: Mapping[str, str] | None = None,
    pictures: bool = False,
) -> onnx.ModelProto:
    """A calibrated network as a model.

    From `image`, (N, channels, size, size) pixels from 0 to 1, to `logits`, (N, classes). As it is
    delivered: from `pictures`, uint8 (N, size, size, channels), to `probabilities`, (N, classes),
    with the `logits` as a second output.

    Args:
        blocks: in running order.
        state: arrays named as in the plain network's state: `blocks.<slot>.<layer>.<parameter>`.
        batch: images a run; any number where None.
        metadata: text that the file carries.
        pictures: whether it reads pictures.

    Raises:
        EncodingError: a layer does not say what it computes.
    """
    graph = Graph(pictures=pictures)
    value = graph.input
    for block in blocks:
        prefix = f"blocks.{block.slot}."
        weights = {
            name.removeprefix(prefix): array
            for name, array in state.items()
            if name.startswith(prefix)
        }
        value = _emit(graph, block, weights, value)
    return _model(graph, blocks, batch or "N", metadata)


def preprocessing_nodes(graph: Graph, block: Preprocess, mean: np.ndarray, std: np.ndarray) -> str:
    """Add the nodes that normalise and resize pixels, and return the name of their result.

    Args:
        graph: that begins with them.
        block: their sizes.
        mean, std: of the pixels by channel, from 0 to 1.
    """
    return _emit(graph, block, {"mean": mean, "std": std}, graph.input)


def block_model(block: Block, rng: np.random.Generator, *, batch: int = 1) -> onnx.ModelProto:
    """One block with random weights as a model for a batch: what a latency table measures.

    A block that preprocesses reads pictures, as that of a delivered network does.
    """
    graph = Graph(pictures=isinstance(block, Preprocess))
    _emit(graph, block, random_weights(block, rng), graph.input)
    return _model(graph, [block], batch, None)


def _model(
    graph: Graph, blocks: Sequence[Block], batch: int | str, metadata: Mapping[str, str] | None
) -> onnx.ModelProto:
    first, last = blocks[0], blocks[-1].layers()[-1]
    classifies = last.kind == "matmul"
    target = "logits" if classifies else "features"
    graph.nodes[-1].output[0] = target
    images, views = _all(batch, first.in_views), _all(batch, last.N)
    shape: list[int | str] = [images, first.in_channels, first.size, first.size]
    if graph.pictures:
        shape = [images, first.size, first.size, first.in_channels]
    out: list[int | str] = [
        views,
        last.G * last.K,
        *([] if classifies else [last.P, last.Q]),
    ]
    outputs = [target]
    if graph.pictures and classifies:
        outputs = [graph.node("Softmax", [target], "probabilities", axis=-1), target]
    return written_model(graph, shape, outputs, out, metadata)


def written_model(
    graph: Graph,
    pixels: Sequence[int | str],
    outputs: Sequence[str],
    results: Sequence[int | str],
    metadata: Mapping[str, str] | None,
    *,
    opset: int = OPSET,
) -> onnx.ModelProto:
    """The model of a graph whose nodes are complete.

    Args:
        graph: its input has bytes where it takes pictures, else floats.
        pixels: shape of the input.
        outputs: names of float tensors.
        results: shape of each output.
        metadata: text that the file carries.
        opset: of the operators.
    """
    kind = TensorProto.UINT8 if graph.pictures else TensorProto.FLOAT
    made = helper.make_graph(
        graph.nodes,
        "pliant",
        [helper.make_tensor_value_info(graph.input, kind, pixels)],
        [helper.make_tensor_value_info(name, TensorProto.FLOAT, results) for name in outputs],
        graph.constants,
    )
    model = helper.make_model(
        made,
        opset_imports=[helper.make_opsetid("", opset)],
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
    """Weights of a block's shapes with outputs of moderate size.

    Only their shapes matter to a latency.
    """
    found: dict[str, np.ndarray] = {}

    def norm_of(name: str, channels: int) -> None:
        for end, value in (("weight", 1), ("bias", 0), ("running_mean", 0), ("running_var", 1)):
            found[f"{name}.{end}"] = np.full(channels, value, np.float32)

    def conv(name: str, into: int, out: int, kernel: tuple[int, int], *, bias: bool) -> None:
        fan_in = into * kernel[0] * kernel[1]
        weight = rng.standard_normal((out, into, *kernel)) / np.sqrt(fan_in)
        found[f"{name}.weight"] = weight.astype(np.float32)
        if bias:
            found[f"{name}.bias"] = np.zeros(out, np.float32)

    def linear(name: str, into: int, out: int) -> None:
        found[f"{name}.weight"] = (rng.standard_normal((out, into)) / np.sqrt(into)).astype(
            np.float32
        )
        found[f"{name}.bias"] = np.zeros(out, np.float32)

    for layer, computed in _described(block):
        channels = layer.G * layer.K
        match computed.operator:
            case "conv":
                kernel = (layer.R, layer.S)
                bias = layer.bias and computed.bias and not computed.batch_norm
                conv(computed.module, layer.C, channels, kernel, bias=bias)
            case "linear" | "token_linear":
                linear(computed.module, layer.C, channels)
            case "batch_norm":
                norm_of(computed.module, channels)
            case "layer_norm":
                found[f"{computed.module}.weight"] = np.ones(channels, np.float32)
                found[f"{computed.module}.bias"] = np.zeros(channels, np.float32)
            case "add_stored":
                shape = (channels, layer.P, layer.Q)
                found[computed.module] = np.zeros(shape, np.float32)
            case "scale":
                found[computed.module] = np.ones(channels, np.float32)
            case "preprocess":
                found["mean"] = np.zeros(channels, np.float32)
                found["std"] = np.ones(channels, np.float32)
        if computed.batch_norm:
            norm_of(computed.batch_norm, channels)
    return found
