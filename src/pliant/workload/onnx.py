"""Which layers does an ONNX file hold? Shapes inferred, BatchNorm and activations folded, unknown operators named.

Weights are not looked at, only their shapes. What a chip does for free (reshaping, activations, adding a constant) is
passed through; what it has to move data for becomes a layer.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any, Final

import onnx
from google.protobuf.message import DecodeError
from onnx import shape_inference

from pliant.errors import DamagedFileError, EncodingError
from pliant.workload import NETWORK_INPUT, Layer, Workload

_FREE: Final = frozenset(
    [
        "Relu",
        "LeakyRelu",
        "PRelu",
        "Clip",
        "Sigmoid",
        "HardSigmoid",
        "HardSwish",
        "Swish",
        "Mish",
        "Tanh",
        "Elu",
        "Selu",
        "Gelu",
        "Erf",
        "Softplus",
        "Sqrt",
        "Exp",
        "Neg",
        "Abs",
        "Reciprocal",
        "Pow",
        "Flatten",
        "Reshape",
        "Transpose",
        "Squeeze",
        "Unsqueeze",
        "Identity",
        "Dropout",
        "Cast",
        "Pad",
        "Concat",
        "Split",
        "Slice",
        "Expand",
        "QuantizeLinear",
        "DequantizeLinear",
        "DepthToSpace",
        "SpaceToDepth",
    ]
)
"""Folded into the layer before, or only a change of addresses."""
_CONSTANT: Final = frozenset(["Shape", "Size", "Constant", "ConstantOfShape", "Range"])
"""Their outputs depend on shapes alone."""
_ELEMENTWISE: Final = frozenset(
    ["Add", "Sub", "Mul", "Div", "Max", "Min", "Sum", "Mean", "Where", "BatchNormalization"]
)
_WHOLE_TENSOR: Final = frozenset(
    [
        "Softmax",
        "LogSoftmax",
        "LRN",
        "LayerNormalization",
        "GroupNormalization",
        "InstanceNormalization",
        "Resize",
        "Upsample",
        "Gather",
    ]
)
_BITS: Final[dict[int, int]] = {
    onnx.TensorProto.FLOAT16: 16,
    onnx.TensorProto.BFLOAT16: 16,
    onnx.TensorProto.INT8: 8,
    onnx.TensorProto.UINT8: 8,
}


def onnx_workload(
    path: str | Path, *, sizes: Mapping[str, int] | None = None, skip: Collection[str] = ()
) -> Workload:
    """The layers of an ONNX model.

    Args:
        path: the file; weights beside it are not read.
        sizes: what symbolic sizes of the input stand for, as `{"batch": 1}`.
        skip: operators without a cost of their own, passed through as if free.

    Raises:
        DamagedFileError: no ONNX model.
        EncodingError: an operator that has no cost, a size that is not a number, or a convolution that is no layer of ours.
    """
    try:
        model = onnx.load(str(path), load_external_data=False)
        _set_sizes(model, sizes or {})
        inferred = shape_inference.infer_shapes(model, strict_mode=True, data_prop=True)
    except OSError as error:
        raise DamagedFileError(f"the ONNX file {path} cannot be read: {error.strerror}.") from error
    except (DecodeError, shape_inference.InferenceError) as error:
        raise DamagedFileError(f"{path} is no valid ONNX model: {error}.") from error
    return _Reader(inferred, skip).read()


def _set_sizes(model: onnx.ModelProto, sizes: Mapping[str, int]) -> None:
    constants = {tensor.name for tensor in model.graph.initializer}
    for value in model.graph.input:
        for index, dim in enumerate(value.type.tensor_type.shape.dim):
            if dim.dim_param in sizes:
                dim.dim_value = sizes[dim.dim_param]
            if value.name not in constants and dim.dim_value < 1:
                name = dim.dim_param or f"dimension {index}"
                raise EncodingError(
                    f"input {value.name!r}: every size is a number, {name!r} is open. State it, for example sizes={{{name!r}: 1}}"
                    f" (on the command line: --size {name}=1), or export with fixed shapes."
                )
    if sizes:
        # Shapes stored inside the file may still hold the open sizes; they are inferred anew.
        del model.graph.value_info[:]
        for value in model.graph.output:
            for dim in value.type.tensor_type.shape.dim:
                if dim.dim_param in sizes:
                    dim.dim_value = sizes[dim.dim_param]


class _Reader:
    """Walks the nodes in order; `sources` says which layers a tensor comes from."""

    def __init__(self, model: onnx.ModelProto, skip: Collection[str]) -> None:
        graph = model.graph
        self.graph, self.skip = graph, set(skip)
        self.shapes = {tensor.name: tuple(tensor.dims) for tensor in graph.initializer}
        self.types: dict[str, int] = {}
        for value in (*graph.input, *graph.value_info, *graph.output):
            if value.type.HasField("tensor_type"):
                self.shapes.setdefault(
                    value.name, tuple(dim.dim_value for dim in value.type.tensor_type.shape.dim)
                )
                self.types[value.name] = value.type.tensor_type.elem_type
        constants = {tensor.name for tensor in graph.initializer}
        self.inputs = [value.name for value in graph.input if value.name not in constants]
        self.sources: dict[str, tuple[str, ...]] = dict.fromkeys(self.inputs, (NETWORK_INPUT,))
        self.layers: list[Layer] = []
        self.made: dict[str, Layer] = {}
        """The layer whose very result a tensor is."""
        self.makers: dict[str, Callable[[Any, str], None]] = {
            "Conv": self._conv,
            "Gemm": self._product,
            "MatMul": self._product,
        }
        self.makers |= {"MaxPool": self._pool, "AveragePool": self._pool, "LpPool": self._pool}
        self.makers |= {"GlobalAveragePool": self._global_pool, "GlobalMaxPool": self._global_pool}
        self.makers |= {
            "ReduceMean": self._reduce,
            "ReduceSum": self._reduce,
            "ReduceMax": self._reduce,
        }

    def read(self) -> Workload:
        """Every node on the way from the input to the output."""
        for node in self.graph.node:
            moving = [name for name in node.input if name in self.sources]
            if moving and node.op_type not in _CONSTANT:
                self._read_node(node, moving)
        if not self.layers:
            raise EncodingError("the ONNX model has no layer that costs anything.")
        elements = sum(math.prod(self._shape(name)) for name in self.inputs)
        bits = _BITS.get(self.types.get(self.inputs[0], 0), 32)
        return Workload(tuple(self.layers), elements, bits)

    def _read_node(self, node: Any, moving: Sequence[str]) -> None:
        operator = node.op_type
        name = node.name or node.output[0]
        came_from = tuple(
            dict.fromkeys(source for tensor in moving for source in self.sources[tensor])
        )
        if operator in self.makers:
            self.makers[operator](node, name)
        elif operator in _WHOLE_TENSOR or (
            operator in _ELEMENTWISE and not self._folds(node, moving)
        ):
            self._elementwise(node, name, moving)
        elif operator in _ELEMENTWISE or operator in _FREE or operator in self.skip:
            if operator == "BatchNormalization":
                self._fold(self.made[moving[0]])
            for output in node.output:
                self.sources[output] = came_from
        else:
            raise EncodingError(
                f"operator {operator!r} (node {name!r}) has no cost in this model. To pass it through as free: skip={{{operator!r}}}"
                f" (on the command line: --skip {operator})."
            )

    def _folds(self, node: Any, moving: Sequence[str]) -> bool:
        """Whether an element-wise node becomes part of the layer before: one moving input that a weighted layer makes for it alone."""
        if len(moving) > 1:
            return False
        if node.op_type != "BatchNormalization":
            return True
        readers = sum(moving[0] in other.input for other in self.graph.node)
        return moving[0] in self.made and self.made[moving[0]].weighted and readers == 1

    def _fold(self, layer: Layer) -> None:
        # A folded BatchNorm leaves one addend an output channel.
        place = next(index for index, made in enumerate(self.layers) if made.name == layer.name)
        self.layers[place] = replace(layer, bias=True)

    def _add(
        self, node: Any, layer_name: str, kind: Any, moving: Sequence[str], **sizes: Any
    ) -> None:
        if kind == "elementwise":
            inputs = tuple(self.sources[tensor][0] for tensor in moving)
        else:
            inputs = tuple(
                dict.fromkeys(source for tensor in moving for source in self.sources[tensor])
            )
        bits = _BITS.get(self.types.get(node.output[0], 0), 32)
        self.layers.append(Layer(layer_name, kind, inputs, bits=bits, **sizes))
        for output in node.output:
            self.sources[output], self.made[output] = (layer_name,), self.layers[-1]

    def _shape(self, tensor: str) -> tuple[int, ...]:
        shape = self.shapes.get(tensor)
        if shape is None or min(shape, default=1) < 1:
            raise EncodingError(
                f"tensor {tensor!r}: every size is a number, received {shape}. Export with fixed shapes, or state open sizes."
            )
        return shape

    def _windows(self, node: Any, name: str, kernel: Sequence[int]) -> dict[str, int]:
        """Output and kernel sizes, stride and dilation of a convolution or pooling; one-dimensional ones get columns of 1."""
        attributes = _attributes(node)
        spatial = self._shape(node.output[0])[2:]
        if not 1 <= len(spatial) <= 2:
            raise EncodingError(
                f"{node.op_type} {name!r}: one or two spatial sizes are layers of this model, received {len(spatial)}."
            )
        sizes = dict(zip(("P", "Q"), spatial, strict=False)) | dict(
            zip(("R", "S"), kernel, strict=False)
        )
        for key, onnx_key in (("stride", "strides"), ("dilation", "dilations")):
            values = attributes.get(onnx_key, [1] * len(spatial))
            out, inner = ("P", "Q"), ("R", "S")
            extents = [
                sizes[(out if key == "stride" else inner)[index]] for index in range(len(spatial))
            ]
            # Along a size of 1 the step is never taken.
            used = {value for value, extent in zip(values, extents, strict=True) if extent > 1} or {
                1
            }
            if len(used) > 1:
                raise EncodingError(
                    f"{node.op_type} {name!r}: rows and columns have one {key}, received {values}."
                )
            sizes[key] = used.pop()
        return sizes

    def _conv(self, node: Any, name: str) -> None:
        weight = self._shape(node.input[1])
        groups = _attributes(node).get("group", 1)
        windows = self._windows(node, name, weight[2:])
        batch = self._shape(node.output[0])[0]
        channels = {"N": batch, "G": groups, "K": weight[0] // groups, "C": weight[1]}
        self._add(
            node, name, "conv", node.input[:1], **channels, **windows, bias=len(node.input) > 2
        )

    def _product(self, node: Any, name: str) -> None:
        left, right, out = (
            self._shape(tensor) for tensor in (node.input[0], node.input[1], node.output[0])
        )
        transposed = node.op_type == "Gemm" and _attributes(node).get("transA", 0)
        inner = left[0] if transposed else left[-1]
        moving = [tensor for tensor in node.input[:2] if tensor in self.sources]
        # A second operand with its own batch (attention) makes every batch entry a group.
        groups = math.prod(right[:-2]) if len(right) > 2 else 1
        rows = math.prod(out[:-1]) // groups
        self._add(
            node,
            name,
            "matmul",
            moving,
            N=rows,
            G=groups,
            K=out[-1],
            C=inner,
            bias=node.op_type == "Gemm" and len(node.input) > 2,
        )

    def _pool(self, node: Any, name: str) -> None:
        windows = self._windows(node, name, _attributes(node)["kernel_shape"])
        batch, channels = self._shape(node.output[0])[:2]
        self._add(node, name, "pool", node.input[:1], N=batch, G=channels, **windows)

    def _global_pool(self, node: Any, name: str) -> None:
        batch, channels, *spatial = self._shape(node.input[0])
        self._add(
            node,
            name,
            "pool",
            node.input[:1],
            N=batch,
            G=channels,
            R=spatial[0],
            S=math.prod(spatial[1:]),
        )

    def _reduce(self, node: Any, name: str) -> None:
        before, after = (
            math.prod(self._shape(node.input[0])),
            math.prod(self._shape(node.output[0])),
        )
        self._add(node, name, "pool", node.input[:1], G=after, R=before // after)

    def _elementwise(self, node: Any, name: str, moving: Sequence[str]) -> None:
        batch, channels, *spatial = (*self._shape(node.output[0]), 1, 1, 1)
        self._add(
            node,
            name,
            "elementwise",
            moving,
            N=batch,
            G=channels,
            P=spatial[0],
            Q=math.prod(spatial[1:]),
        )


def _attributes(node: Any) -> dict[str, Any]:
    return {
        attribute.name: onnx.helper.get_attribute_value(attribute) for attribute in node.attribute
    }
