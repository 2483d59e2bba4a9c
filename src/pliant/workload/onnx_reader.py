"""Which layers does an ONNX file hold? The rules are those of `pliant.workload.operators`.

The nodes are walked once, in order. What is computed from constants and from the shapes of tensors
(Shape, Gather, Concat, Range, ... as exporters write them around a Reshape) is computed here
first, by ONNX's reference implementation, so that the shapes that depend on it can be inferred.
Weights are not looked at, only their shapes.
"""

from __future__ import annotations

import math
from collections.abc import Collection, Mapping
from pathlib import Path
from typing import Any, Final

import numpy as np
import onnx
from google.protobuf.message import DecodeError
from onnx import helper, inliner, numpy_helper, shape_inference
from onnx.reference import ReferenceEvaluator

from pliant.errors import DamagedFileError, EncodingError
from pliant.workload.layer import Workload
from pliant.workload.operators import Operation, Operator, Tensor, build_workload

_NAMES: Final[dict[Operator, str]] = {
    "convolution": "Conv ConvTranspose",
    "product": "Gemm MatMul",
    "einsum": "Einsum",
    "attention": "Attention",
    "recurrent": "LSTM GRU RNN",
    "pool": "MaxPool AveragePool LpPool",
    "global_pool": "GlobalAveragePool GlobalMaxPool GlobalLpPool",
    "reduction": """ReduceMean ReduceSum ReduceMax ReduceMin ReduceProd ReduceL1 ReduceL2
        ReduceSumSquare ReduceLogSum ReduceLogSumExp ArgMax ArgMin""",
    "batch_norm": "BatchNormalization",
    "whole_tensor": """Softmax LogSoftmax Hardmax LRN LayerNormalization RMSNormalization
        GroupNormalization InstanceNormalization MeanVarianceNormalization LpNormalization Resize
        Upsample Gather GatherElements GatherND ScatterElements ScatterND CumSum TopK""",
    "add": "Add Sub Sum",
    "elementwise": """Mul Div Max Min Mean Where Mod And Or Xor Equal Greater GreaterOrEqual
        Less LessOrEqual""",
    "activation": """Relu LeakyRelu PRelu ThresholdedRelu Clip Sigmoid HardSigmoid HardSwish Swish
        Mish Tanh Elu Selu Celu Gelu Erf Softplus Softsign Shrink Sqrt Exp Log Sin Cos Neg Abs Sign
        Reciprocal Pow Floor Ceil Round Not IsNaN IsInf Cast QuantizeLinear
        DequantizeLinear""",
    "address": """CastLike Flatten Reshape Transpose Squeeze Unsqueeze Identity Dropout Pad Concat
        Split Slice Expand Tile Trilu DepthToSpace SpaceToDepth""",
    "constant": "Shape Size EyeLike",
}
_OPERATORS: Final = {name: operator for operator, names in _NAMES.items() for name in names.split()}
_BITS: Final[dict[int, int]] = {
    onnx.TensorProto.FLOAT16: 16,
    onnx.TensorProto.BFLOAT16: 16,
    onnx.TensorProto.INT8: 8,
    onnx.TensorProto.UINT8: 8,
}
_LARGEST_CONSTANT: Final = 2**16
"""Elements up to which constants are computed: enough for shapes, indices and most masks."""


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
        EncodingError: an operator that has no cost, a size that is not a number, or a convolution
        that is no layer of ours.
    """
    try:
        model = onnx.load(str(path), load_external_data=False)
        if model.functions:
            model = inliner.inline_local_functions(model)
        _set_sizes(model, sizes or {})
        return _Reader(model, skip).read()
    except OSError as error:
        raise DamagedFileError(f"the ONNX file {path} cannot be read: {error.strerror}.") from error
    except (DecodeError, shape_inference.InferenceError) as error:
        raise DamagedFileError(f"{path} is no valid ONNX model: {error}.") from error


def _set_sizes(model: onnx.ModelProto, sizes: Mapping[str, int]) -> None:
    constants = {tensor.name for tensor in model.graph.initializer}
    for value in model.graph.input:
        for index, dim in enumerate(value.type.tensor_type.shape.dim):
            if dim.dim_param in sizes:
                dim.dim_value = sizes[dim.dim_param]
            if value.name not in constants and dim.dim_value < 1:
                name = dim.dim_param or f"dimension {index}"
                raise EncodingError(
                    f"input {value.name!r}: every size is a number, {name!r} is open."
                    f" State it, for example sizes={{{name!r}: 1}}"
                    f" (on the command line: --size {name}=1), or export with fixed shapes."
                )


class _Reader:
    """Walks the nodes in order; `types` says what is known of each tensor, `values` what constants
    hold."""

    def __init__(self, model: onnx.ModelProto, skip: Collection[str]) -> None:
        self.graph, self.skip = model.graph, frozenset(skip)
        self.opsets, self.ir_version = list(model.opset_import), model.ir_version
        self.types: dict[str, onnx.TypeProto] = {}
        self.declared = {
            value.name: value.type for value in (*model.graph.value_info, *model.graph.output)
        }
        """What the file says of tensors; asked where nothing can be inferred."""
        self.values: dict[str, np.ndarray] = {}
        """Constants that are small enough to be computed with."""
        self.moving: set[str] = set()
        """Names of tensors that depend on the values of the input."""
        for tensor in self.graph.initializer:
            self._add_constant(tensor.name, tensor)
        self.inputs = [value for value in self.graph.input if value.name not in self.types]
        for value in self.inputs:
            self.types[value.name] = value.type
            self.moving.add(value.name)

    def read(self) -> Workload:
        """Every node on the way from the input to the output."""
        operations = []
        waiting = list(reversed(self.graph.node))
        while waiting:
            node = waiting.pop()
            if node.op_type == "If" and node.input[0] in self.values:
                waiting += reversed(self._taken_branch(node))
            elif not any(name in self.moving for name in node.input):
                self._infer(node)
                self._compute(node)
            elif node.op_type == "Shape" and self._shape_is_known(node.input[0]):
                self._infer(node)
                self._compute_shape(node)
            else:
                operations.append(self._operation(node))
                if operations[-1].operator is None and node.op_type not in self.skip:
                    break  # The rules refuse it; the shapes behind it are not known.
        inputs = [self._tensor(value.name) for value in self.inputs]
        hint = "skip={{{0!r}}} (on the command line: --skip {0})"
        return build_workload(operations, inputs, skip=self.skip, hint=hint)

    def _taken_branch(self, node: onnx.NodeProto) -> list[onnx.NodeProto]:
        """The nodes of one branch of an If, whose condition follows from shapes."""
        side = "then_branch" if self.values[node.input[0]].item() else "else_branch"
        branch = _attributes(node)[side]
        for tensor in branch.initializer:
            self._add_constant(tensor.name, tensor)
        results = zip(branch.output, node.output, strict=True)
        ends = [helper.make_node("Identity", [inner.name], [name]) for inner, name in results]
        return [*branch.node, *ends]

    # What is known of tensors.

    def _add_constant(self, name: str, tensor: onnx.TensorProto) -> None:
        self.types[name] = helper.make_tensor_type_proto(tensor.data_type, list(tensor.dims))
        stored_here = tensor.data_location != onnx.TensorProto.EXTERNAL
        if stored_here and math.prod(tensor.dims) <= _LARGEST_CONSTANT:
            self.values[name] = numpy_helper.to_array(tensor)

    def _shape(self, name: str) -> tuple[int, ...]:
        """The sizes of a tensor, 0 where one is not known."""
        kind = self.types.get(name)
        if kind is None or not kind.tensor_type.HasField("shape"):
            return (0,)
        return tuple(dim.dim_value for dim in kind.tensor_type.shape.dim)

    def _shape_is_known(self, name: str) -> bool:
        return min(self._shape(name), default=1) > 0

    def _tensor(self, name: str) -> Tensor:
        kind = self.types.get(name)
        bits = 32 if kind is None else _BITS.get(kind.tensor_type.elem_type, 32)
        return Tensor(name, self._shape(name), bits)

    def _model_of(self, node: onnx.NodeProto) -> onnx.ModelProto:
        """The node alone, its small constants with it, since shapes may depend on their values."""
        names = [name for name in dict.fromkeys(node.input) if name]
        graph = helper.make_graph(
            [node],
            "node",
            [
                helper.make_value_info(name, self.types[name])
                for name in names
                if name in self.types
            ],
            [onnx.ValueInfoProto(name=name) for name in node.output if name],
            [
                numpy_helper.from_array(self.values[name], name)
                for name in names
                if name in self.values
            ],
        )
        return helper.make_model(graph, opset_imports=self.opsets, ir_version=self.ir_version)

    def _infer(self, node: onnx.NodeProto) -> None:
        """What the outputs are, from the types of the inputs and the values of constants."""
        inferred = shape_inference.infer_shapes(
            self._model_of(node), strict_mode=True, data_prop=True
        )
        for value in inferred.graph.output:
            if value.type.HasField("tensor_type"):
                self.types[value.name] = value.type
            if not self._shape_is_known(value.name) and value.name in self.declared:
                self.types[value.name] = self.declared[value.name]

    # What is computed here: constants, and what depends on shapes alone.

    def _compute(self, node: onnx.NodeProto) -> None:
        """The values of a node whose inputs are constants; left open where one is too large to be
        looked at."""
        named = [name for name in node.input if name]
        small = all(
            0 <= math.prod(self._shape(name)) <= _LARGEST_CONSTANT for name in node.output if name
        )
        if all(name in self.values for name in named) and small and node.op_type not in _RANDOM:
            model = self._model_of(node)
            del model.graph.input[:]
            try:
                results = ReferenceEvaluator(model).run(None, {})
            except NotImplementedError:
                return
            for name, value in zip(filter(None, node.output), results, strict=True):
                array = np.asarray(value)
                self._add_constant(name, numpy_helper.from_array(array, name))

    def _compute_shape(self, node: onnx.NodeProto) -> None:
        shape = self._shape(node.input[0])
        bounds = _attributes(node)
        part = shape[bounds.get("start", 0) : bounds.get("end", len(shape))]
        self.values[node.output[0]] = np.array(part, np.int64)

    # What costs something, in the words of the rules.

    def _operation(self, node: onnx.NodeProto) -> Operation:
        name = node.name or node.output[0]
        operator = _OPERATORS.get(node.op_type) if node.domain in ("", "ai.onnx") else None
        if operator == "attention" and any(node.input[4:6]):
            operator = (
                None  # Keys and values of earlier tokens are not in the shapes of the inputs.
            )
        if operator is not None:
            self._infer(node)
        elif node.op_type in self.skip:
            self.types |= {out: self.types[self._first_moving(node)] for out in node.output}
        self.moving |= set(node.output)
        inputs = tuple(self._tensor(tensor) for tensor in node.input if tensor)
        outputs = tuple(self._tensor(tensor) for tensor in node.output if tensor)
        if node.op_type == "Gather" and self._is_one_index(node):
            operator = "address"
        attributes = self._attributes_of(node, operator)
        place = f"node {name!r}"
        return Operation(operator, node.op_type, name, name, place, inputs, outputs, attributes)

    def _first_moving(self, node: onnx.NodeProto) -> str:
        return next(name for name in node.input if name in self.moving)

    def _is_one_index(self, node: onnx.NodeProto) -> bool:
        """Whether one row of a tensor is chosen, as `x[:, 0]` is exported."""
        return node.input[1] in self.values and self.values[node.input[1]].size == 1

    def _attributes_of(self, node: onnx.NodeProto, operator: Operator | None) -> dict[str, Any]:
        given = _attributes(node)
        ones = [1] * max(len(self._shape(node.output[0])) - 2, 1)
        windows = {key: given.get(key, ones) for key in ("strides", "dilations")}
        match operator:
            case "convolution":
                windows |= {"transposed": node.op_type == "ConvTranspose"}
                bias = len(node.input) > 2
                return windows | {"groups": given.get("group", 1), "bias": bias}
            case "pool":
                return windows | {"kernel": given["kernel_shape"]}
            case "product":
                left, right = (bool(given.get(key, 0)) for key in ("transA", "transB"))
                bias = node.op_type == "Gemm" and len(node.input) > 2
                return {"transpose_left": left, "transpose_right": right, "bias": bias}
            case "einsum":
                return {"equation": given["equation"].decode()}
            case "attention":
                of_keys = given.get("kv_num_heads", 0)
                return {"heads": (given.get("q_num_heads", 0), of_keys, of_keys)}
            case "recurrent":
                return self._recurrent_sizes(node)
        return {}

    def _recurrent_sizes(self, node: onnx.NodeProto) -> dict[str, Any]:
        """X (steps, batch, features), W (directions, gates x hidden, features), R (directions,
        gates x hidden, hidden)."""
        rows = math.prod(self._tensor(node.input[0]).known_shape[:2])
        directions, gates, features = self._tensor(node.input[1]).known_shape
        hidden = self._tensor(node.input[2]).known_shape[2]
        cells = [[(gates, features, hidden, hidden)] * directions]
        bias = len(node.input) > 3 and bool(node.input[3])
        return {"rows": rows, "bias": bias, "cells": cells}


_RANDOM: Final = frozenset(["RandomNormal", "RandomUniform", "Bernoulli", "Multinomial"])


def _attributes(node: onnx.NodeProto) -> dict[str, Any]:
    return {attribute.name: helper.get_attribute_value(attribute) for attribute in node.attribute}
