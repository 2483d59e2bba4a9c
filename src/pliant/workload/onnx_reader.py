"""Which layers does an ONNX file hold? The rules are those of `pliant.workload.operators`.

The nodes are walked once, in order. What is computed from constants and from the shapes of tensors
(Shape, Gather, Concat, Range, ... as exporters write them around a Reshape) is computed here
first, by ONNX's reference implementation, so that the shapes that depend on it can be inferred.
Of weights only the shapes are looked at.
"""

from __future__ import annotations

import math
from collections.abc import Collection, Hashable, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any, Final

import numpy as np
import onnx
from google.protobuf.message import DecodeError
from numpy.typing import NDArray
from onnx import helper, inliner, numpy_helper, shape_inference
from onnx.reference import ReferenceEvaluator

from pliant.errors import DamagedFileError, EncodingError, nearest
from pliant.workload.layer import Workload
from pliant.workload.onnx_operators import (
    computes_on_integers,
    data_inputs,
    native_name,
    node_attributes,
    operator_of,
    rule_attributes,
    standard_name,
)
from pliant.workload.operators import (
    MULTIPLIES,
    Operation,
    Operator,
    Tensor,
    build_workload,
)

_FLOAT: Final = onnx.TensorProto.FLOAT
_BITS: Final[dict[int, int]] = {
    onnx.TensorProto.DOUBLE: 64,
    onnx.TensorProto.FLOAT16: 16,
    onnx.TensorProto.BFLOAT16: 16,
    onnx.TensorProto.INT8: 8,
    onnx.TensorProto.UINT8: 8,
    onnx.TensorProto.INT4: 4,
    onnx.TensorProto.UINT4: 4,
}
_REAL: Final = frozenset(
    [_FLOAT, onnx.TensorProto.FLOAT16, onnx.TensorProto.BFLOAT16, onnx.TensorProto.DOUBLE]
)
_WEIGHT_INTEGERS: Final = frozenset(
    [
        onnx.TensorProto.INT8,
        onnx.TensorProto.UINT8,
        onnx.TensorProto.INT4,
        onnx.TensorProto.UINT4,
    ]
)
_LARGEST_CONSTANT: Final = 2**16
"""Elements up to which constants are computed: enough for shapes, indices and most masks."""
_MASKED: Final = -100.0
"""What a mask adds to scores that do not count, at most."""
_RANDOM: Final = frozenset(["RandomNormal", "RandomUniform", "Bernoulli", "Multinomial"])


def onnx_workload(
    path: str | Path, *, sizes: Mapping[str, int] | None = None, skip: Collection[str] = ()
) -> Workload:
    """The layers of an ONNX model.

    Its parameters are the floating-point tensors of the file that reach a layer, literal numbers
    left out, and the integers that stand for them; each counts once. Masks (0 where a score
    counts, -100 or less where not) are none.

    Args:
        path: the file; external weights are not read.
        sizes: what open sizes of the inputs stand for, by the name that the file gives them as
            `{"batch": 1}`, or by input and dimension as `{"image:0": 1}`.
        skip: operators without a cost of their own, passed through as if free.

    Raises:
        DamagedFileError: no ONNX model.
        EncodingError: an operator that has no cost, a size that is 0 or no number, a name among
            `sizes` or `skip` that the file does not have, or a convolution that is no layer of
            ours.
    """
    try:
        model = onnx.load(str(path), load_external_data=False)
        if not model.HasField("graph"):
            raise DamagedFileError(f"{path} is no ONNX model: it holds no graph.")
        if model.functions:
            model = inliner.inline_local_functions(model)
        _set_sizes(model.graph, sizes or {})
        return _Reader(model, skip).read()
    except EncodingError as error:
        raise EncodingError(f"{path}: {error}") from error
    except OSError as error:
        raise DamagedFileError(f"the ONNX file {path} cannot be read: {error.strerror}.") from error
    except (DecodeError, shape_inference.InferenceError) as error:
        raise DamagedFileError(f"{path} is no valid ONNX model: {error}.") from error


def _array(name: str, tensor: onnx.TensorProto) -> NDArray:
    try:
        return numpy_helper.to_array(tensor)
    except (ValueError, TypeError) as error:
        raise EncodingError(
            f"a tensor holds the numbers that its sizes and type say; {name!r} does not: {error}."
            " Export the network again."
        ) from error


def _set_sizes(graph: onnx.GraphProto, sizes: Mapping[str, int]) -> None:
    """Writes the stated sizes into the inputs; every size is a number then."""
    constants = {tensor.name for tensor in graph.initializer}
    open_sizes: dict[str, list[onnx.TensorShapeProto.Dimension]] = {}
    for value in graph.input:
        if value.name in constants:
            continue
        if not value.type.tensor_type.HasField("shape"):
            raise EncodingError(f"input {value.name!r} is no tensor with a number of dimensions.")
        for index, dim in enumerate(value.type.tensor_type.shape.dim):
            if dim.HasField("dim_value") and dim.dim_value == 0:
                raise EncodingError(
                    f"a size is a whole number from 1 up; dimension {index} of input"
                    f" {value.name!r} is 0 in the file, so it computes nothing. Export the network"
                    " with at least 1 there, or with a size that is open."
                )
            if dim.dim_value < 1:
                names = dim.dim_param or f"dimension {index}", f"{value.name}:{index}"
                for name in names:
                    open_sizes.setdefault(name, []).append(dim)
    for name, size in sizes.items():
        if name not in open_sizes:
            known = ", ".join(map(repr, open_sizes)) or "none"
            raise EncodingError(
                f"a stated size is one that the file leaves open ({known}), received {name!r}."
                f" {nearest(name, open_sizes)}"
            )
        if size < 1:
            raise EncodingError(f"a size is a whole number from 1 up, received {name}={size}.")
    # The name of one dimension overrules a name that several share.
    for name in sorted(sizes, key=lambda name: len(open_sizes[name]), reverse=True):
        for dim in open_sizes[name]:
            dim.dim_value = sizes[name]
    for name, dims in open_sizes.items():
        if dims[0].dim_value < 1:
            raise EncodingError(
                f"every size of an input is a number, {name!r} is open."
                f" State it, for example sizes={{{name!r}: 1}}"
                f' (on the command line: --size "{name}=1"), or export with fixed shapes.'
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
        """Names of tensors that are computed at every inference."""
        self.stored: dict[Hashable, int] = {}
        """How many numbers the file stores under the names of its weights."""
        self.addends: dict[Hashable, int] = {}
        """The same of what may be the bias of a product of integers."""
        self.narrow: dict[Hashable, int] = {}
        """Bits of the integers that a real tensor was made of."""
        self.operations: list[Operation] = []
        for tensor in self.graph.initializer:
            self._add_stored(tensor.name, tensor)
        self.has_initializers = bool(self.stored)
        self.inputs = [value for value in self.graph.input if value.name not in self.types]
        for value in self.inputs:
            self.types[value.name] = value.type
            self.moving.add(value.name)

    def read(self) -> Workload:
        """Every node on the way from the input to the output."""
        waiting = list(reversed(self.graph.node))
        while waiting:
            node = waiting.pop()
            for name in node.output:  # Branches may use a name again.
                self.moving.discard(name)
                self.values.pop(name, None)
            if node.op_type == "If" and node.input[0] in self.values:
                waiting += reversed(self._taken_branch(node))
                continue
            operator = operator_of(node)
            moves = any(name in self.moving for name in _read_names(node))
            if node.op_type == "Constant":
                self._add_literal(node)
            elif node.op_type == "Shape" and self._shape_is_known(node.input[0]):
                self._infer(node)
                self._compute_shape(node)
            elif not moves and operator not in MULTIPLIES:
                self._add_constant(node)
            else:
                self._add_operation(node)
                if self.operations[-1].operator is None and native_name(node) not in self.skip:
                    break  # The rules refuse it; the shapes behind it are not known.
        inputs = [self._tensor(value.name) for value in self.inputs]
        hint = "skip={{{0!r}}} (on the command line: --skip {0})"
        return build_workload(
            self.operations, inputs, stored=self.stored, skip=self.skip, hint=hint
        )

    def _taken_branch(self, node: onnx.NodeProto) -> list[onnx.NodeProto]:
        """The nodes of one branch of an If, whose condition follows from shapes."""
        side = "then_branch" if self.values[node.input[0]].item() else "else_branch"
        branch = node_attributes(node)[side]
        for tensor in branch.initializer:
            self._add_stored(tensor.name, tensor)
        results = zip(branch.output, node.output, strict=True)
        ends = [helper.make_node("Identity", [inner.name], [name]) for inner, name in results]
        return [*branch.node, *ends]

    # What is known of tensors.

    def _add_value(self, name: str, tensor: onnx.TensorProto) -> None:
        self.types[name] = helper.make_tensor_type_proto(tensor.data_type, list(tensor.dims))
        stored_here = tensor.data_location != onnx.TensorProto.EXTERNAL
        if stored_here and math.prod(tensor.dims) <= _LARGEST_CONSTANT:
            self.values[name] = _array(name, tensor)

    def _add_stored(self, name: str, tensor: onnx.TensorProto) -> None:
        """A tensor of the file.

        One number is a literal of the code, but where its name is the path of a parameter.
        """
        self._add_value(name, tensor)
        narrow = tensor.data_type in _WEIGHT_INTEGERS and math.prod(tensor.dims) > 1
        is_literal = math.prod(tensor.dims) == 1 and not (tensor.dims and "." in name)
        real = tensor.data_type in _REAL and not (is_literal or self._is_mask(name, tensor))
        if narrow or real:
            self.stored[name] = math.prod(tensor.dims)
        elif tensor.data_type == onnx.TensorProto.INT32:
            self.addends[name] = math.prod(tensor.dims)

    def _add_literal(self, node: onnx.NodeProto) -> None:
        """What a Constant holds: a number of the code, or weights where exporters have no other
        place for them."""
        self._infer(node)
        given = node_attributes(node)
        if "value" in given:
            self._add_value(node.output[0], given["value"])
            if not (self.has_initializers or self._is_uniform(node.output[0])):
                self._add_stored(node.output[0], given["value"])
        else:
            self._compute(node)

    def _is_mask(self, name: str, tensor: onnx.TensorProto) -> bool:
        if tensor.data_location == onnx.TensorProto.EXTERNAL:
            return False
        value = self.values.get(name)
        value = _array(name, tensor) if value is None else value
        # Nearly all that is no mask shows it by its first number.
        if value.size == 0 or not (value.flat[0] == 0 or value.flat[0] <= _MASKED):
            return False
        low = value.min()
        return bool(low <= _MASKED) and bool(((value == 0) | (value == low)).all())

    def _is_uniform(self, name: str) -> bool:
        """Whether all numbers of a constant are equal, as far as it is looked at."""
        value = self.values.get(name)
        return value is not None and bool((value == value.flat[:1]).all())

    def _stored_tensor(self, name: str, node: onnx.NodeProto, weights: Sequence[str]) -> Tensor:
        """An input of a node.

        Exporters keep equal tensors once, and many are before training: all zeros, all ones. Such a
        vector is one of each layer, which is known by its weights or its result.
        """
        tensor = self._tensor(name)
        vector = max(tensor.shape, default=0) == math.prod(tensor.shape)
        if name in self.stored and vector and self._is_uniform(name):
            key = (name, weights[0] if weights else node.output[0])
            self.stored[key] = self.stored[name]
            return replace(tensor, key=key)
        return tensor

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

    def _infer_variant(self, node: onnx.NodeProto) -> None:
        """The same for an operator of ONNX Runtime, by the standard one that it computes."""
        names, standard = data_inputs(node), standard_name(node)
        shapes = [self._shape(name) for name in names]
        given = node_attributes(node)
        if standard == "LSTM":
            (steps, batch, _), directions, hidden = shapes[0], shapes[2][0], shapes[2][1]
            states = (directions, batch, hidden)
            results = [(steps, *states), states, states]
        elif standard == "MatMul":
            sides = zip(shapes, (given.get("transA", 0), given.get("transB", 0)), strict=False)
            left, right = ((*s[:-2], s[-1], s[-2]) if swap else s for s, swap in sides)
            results = [(*np.broadcast_shapes(left[:-2], right[:-2]), left[-2], right[-1])]
        elif standard == "Attention":
            results = [(*shapes[0][:2], shapes[2][2])]
        elif standard in ("Conv", "Gemm", "AveragePool", "GlobalAveragePool", "Concat"):
            self._infer_real(helper.make_node(standard, names, node.output[:1]), node)
            return
        else:
            results = [np.broadcast_shapes(*shapes[:2])] if standard in ("Add", "Mul") else []
            results += [shapes[0]] * (len(node.output) - len(results))
        for name, shape in zip(node.output, results, strict=False):
            self.types[name] = helper.make_tensor_type_proto(_FLOAT, list(shape))

    def _infer_real(self, standard: onnx.NodeProto, node: onnx.NodeProto) -> None:
        """Infers a standard operator with real numbers in place of the integers of its variant."""
        known = onnx.defs.get_schema(standard.op_type).attributes
        standard.attribute.extend(one for one in node.attribute if one.name in known)
        before = dict(self.types)
        for name in standard.input:
            kind = helper.make_tensor_type_proto(_FLOAT, list(self._shape(name)))
            self.types[name] = kind
        values, self.values = self.values, {}
        self._infer(standard)
        self.values = values
        self.types |= {name: before[name] for name in standard.input}

    # What is computed here: constants, and what depends on shapes alone.

    def _add_constant(self, node: onnx.NodeProto) -> None:
        """A node whose inputs are constants."""
        if operator_of(node) is not None or node.domain in ("", "ai.onnx"):
            self._infer_any(node)
            self._compute(node)
        # The rules follow which stored tensors a constant is made of.
        self._append(node, None)

    def _infer_any(self, node: onnx.NodeProto) -> None:
        if node.domain in ("", "ai.onnx"):
            self._infer(node)
        else:
            self._infer_variant(node)

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
            except Exception:  # of any type, by the operator: what reads the values refuses by name
                return
            for name, value in zip(filter(None, node.output), results, strict=True):
                array = np.asarray(value)
                self._add_value(name, numpy_helper.from_array(array, name))

    def _compute_shape(self, node: onnx.NodeProto) -> None:
        shape = self._shape(node.input[0])
        bounds = node_attributes(node)
        part = shape[bounds.get("start", 0) : bounds.get("end", len(shape))]
        self.values[node.output[0]] = np.array(part, np.int64)

    # What costs something, in the words of the rules.

    def _add_operation(self, node: onnx.NodeProto) -> None:
        operator = operator_of(node)
        self.moving |= set(node.output)
        if native_name(node) == "com.microsoft.Attention" and not any(node.input[4:5]):
            self._add_packed_attention(node)
            return
        if operator is not None:
            self._infer_any(node)
        elif native_name(node) in self.skip:
            like = next(name for name in _read_names(node) if name in self.types)
            self.types |= dict.fromkeys(node.output, self.types[like])
        self._append(node, operator)

    def _append(self, node: onnx.NodeProto, operator: Operator | None) -> None:
        names = _read_names(node) if operator is None else data_inputs(node)
        if operator is None and node.op_type == "DequantizeLinear":
            names = data_inputs(node)
        if operator == "recurrent":
            # States that begin at zero are no parameters.
            zeros = [name for name in node.input[5:7] if not np.any(self.values.get(name, 1))]
            names = [name for name in names if name not in zeros]
        weights = [name for name in names if name in self.stored and not self._is_uniform(name)]
        inputs = tuple(self._stored_tensor(name, node, weights) for name in names)
        outputs = tuple(self._tensor(name) for name in node.output if name)
        self._note_integers(node, operator, inputs)
        bits = self._operand_bits(node, operator, inputs)
        if bits is not None:
            outputs = tuple(replace(tensor, bits=bits) for tensor in outputs)
        attributes = {}
        if operator is not None:
            shapes = [tensor.shape for tensor in inputs]
            attributes = rule_attributes(node, shapes, outputs[0].shape)
        if node.op_type == "Gather" and operator is not None and self._is_one_index(node):
            operator = "address"
        self.operations.append(
            _operation(native_name(node), node, inputs, outputs, operator, attributes)
        )

    def _note_integers(
        self, node: onnx.NodeProto, operator: Operator | None, inputs: Sequence[Tensor]
    ) -> None:
        """What the integers of a quantised network stand for."""
        if node.op_type == "DequantizeLinear":
            self.narrow |= {node.output[0]: inputs[0].bits}
        if node.op_type == "DequantizeLinear" or computes_on_integers(node):
            for tensor in inputs:
                if tensor.key in self.addends:
                    self.stored[tensor.key] = self.addends[tensor.key]

    def _operand_bits(
        self, node: onnx.NodeProto, operator: Operator | None, inputs: Sequence[Tensor]
    ) -> int | None:
        """The width of integers that a node computes with; None where it computes with what its
        result is."""
        if computes_on_integers(node):
            return inputs[0].bits
        if operator in MULTIPLIES and all(tensor.key in self.narrow for tensor in inputs[:2]):
            return self.narrow[inputs[0].key]
        return None

    def _add_packed_attention(self, node: onnx.NodeProto) -> None:
        """ONNX Runtime's attention: one product for queries, keys and values, then attention."""
        given = node_attributes(node)
        read = tuple(self._tensor(name) for name in node.input[:3] if name)
        (batch, tokens, _), width = read[0].known_shape, read[1].known_shape[1]
        widths = given.get("qkv_hidden_sizes", [width // 3] * 3)
        packed = Tensor(f"{node.output[0]}.qkv", (batch, tokens, width), read[0].bits)
        parts = tuple(replace(packed, shape=(batch, tokens, size)) for size in widths)
        kind = helper.make_tensor_type_proto(_FLOAT, [batch, tokens, widths[2]])
        self.types[node.output[0]] = kind
        native, heads = native_name(node), {"heads": (given["num_heads"],) * 3}
        outputs = (self._tensor(node.output[0]),)
        bias = {"bias": len(read) > 2}
        self.operations += [
            _operation(native, node, read, (packed,), "product", bias),
            _operation(native, node, parts, outputs, "attention", heads),
        ]

    def _is_one_index(self, node: onnx.NodeProto) -> bool:
        """Whether one row of a tensor is chosen, as `x[:, 0]` is exported."""
        return node.input[1] in self.values and self.values[node.input[1]].size == 1


def _operation(
    native: str,
    node: onnx.NodeProto,
    inputs: tuple[Tensor, ...],
    outputs: tuple[Tensor, ...],
    operator: Operator | None,
    attributes: Mapping[str, Any],
) -> Operation:
    name = node.name or node.output[0]
    place = f"node {name!r}"
    return Operation(operator, native, name, name, place, inputs, outputs, attributes)


def _read_names(node: onnx.NodeProto) -> list[str]:
    """Names of the tensors that a node reads, those that its branches take from outside too."""
    names = [name for name in node.input if name]
    for attribute in node.attribute:
        for graph in (*attribute.graphs, *([attribute.g] if attribute.HasField("g") else [])):
            own = {value.name for value in (*graph.input, *graph.initializer)}
            own |= {name for inner in graph.node for name in inner.output}
            inside = [name for inner in graph.node for name in _read_names(inner)]
            inside += [value.name for value in graph.output]
            names += [name for name in inside if name not in own]
    return list(dict.fromkeys(names))
