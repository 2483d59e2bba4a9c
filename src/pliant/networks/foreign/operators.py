"""What the operators of a network do to the dimensions of tensors.

Each rule takes a node of an exported graph and the dimensions of what it reads; it ties them
together and returns those of its result. What no rule knows keeps its channels as they are: their
groups are fixed, with the reason. Only the batch passes through such an operator.
"""

from __future__ import annotations

import operator
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

from torch import Tensor, fx

from pliant.networks.foreign.dimensions import (
    Batch,
    Dim,
    Group,
    Sum,
    as_pieces,
    cut_at,
    factors,
    fix,
    full_size,
    group_dim,
    groups_of,
    has_batch,
    reshaped,
    static,
    unify,
)
from pliant.networks.morph.channel_graph import operator_name, place

Node = Any
"""A `torch.fx.Node`, whose arguments are nodes, numbers, lists of either, or None."""
Dims = tuple[Dim, ...]

_NAMES = {
    "keep": """relu relu_ relu6 relu6_ hardtanh hardtanh_ clamp clamp_ clamp_min clamp_max sigmoid
        sigmoid_ hardsigmoid hardsigmoid_ hardswish hardswish_ silu silu_ mish mish_ tanh tanh_ elu
        elu_ celu gelu gelu_ softplus leaky_relu leaky_relu_ selu selu_ softsign hardshrink
        softshrink threshold sqrt rsqrt exp log neg abs pow square reciprocal rsub dropout dropout_
        feature_dropout alpha_dropout contiguous clone detach detach_ to _to_copy alias zeros_like
        lift_fresh_copy softmax log_softmax _softmax erf sin cos type_as ones_like
        _assert_tensor_metadata""",
    "spatial": """max_pool1d max_pool2d max_pool3d avg_pool1d avg_pool2d avg_pool3d
        adaptive_avg_pool1d adaptive_avg_pool2d adaptive_max_pool2d upsample_nearest2d
        upsample_bilinear2d _upsample_bilinear2d_aa upsample_bicubic2d _upsample_bicubic2d_aa
        constant_pad_nd reflection_pad2d replication_pad2d pad roll flip""",
    "join": """add add_ sub sub_ mul mul_ div div_ maximum minimum where lerp addcmul eq ne lt le
        gt ge masked_fill""",
    "reduce": """mean sum amax amin std var linalg_vector_norm norm""",
    "reshape": "view reshape flatten _unsafe_view unflatten squeeze unsqueeze view_as",
    "convolve": "conv1d conv2d conv3d",
    "linear": "linear",
    "multiply": "matmul bmm",
    "attend": "scaled_dot_product_attention",
    "batch_norm": "batch_norm prelu instance_norm",
    "layer_norm": "layer_norm rms_norm",
    "group_norm": "group_norm",
    "concatenate": "cat",
    "stack": "stack",
    "split": "chunk split split_with_sizes",
    "unbind": "unbind",
    "permute": "permute transpose t movedim numpy_T",
    "slice": "slice narrow",
    "select": "select",
    "expand": "expand",
    "create": """zeros ones full arange empty rand randn eye new_zeros new_ones linspace
        scalar_tensor""",
}
_RULES = {name: rule for rule, names in _NAMES.items() for name in names.split()}


@dataclass
class Dimensions:
    """The dimensions of every tensor of a graph.

    Args:
        names: parameters and buffers by the name of the placeholder.
        batch: images of the example with which the graph was exported, a number that no other
            dimension has.
    """

    names: Mapping[str, str]
    batch: int
    values: dict[Node, Any] = field(default_factory=dict)
    """The dimensions of a node's result, or a list of them where it has several."""
    axes: dict[tuple[str, int], Dim] = field(default_factory=dict)
    """Those of parameters and buffers, by name and dimension."""
    producers: dict[str, Dim] = field(default_factory=dict)
    """Output channels of convolutions and linear layers, by the name of the weight."""
    consumers: list[tuple[str, int]] = field(default_factory=list)
    """Weights and their dimension that reads channels."""
    slices: dict[Node, tuple[Dim, Dim]] = field(default_factory=dict)
    """What lies before a slice, and the slice."""
    repeats: frozenset[str] = frozenset()
    """Reshapes that split channels into equal parts, one of which is taken later."""
    taken_apart: set[str] = field(default_factory=set)
    """Reshapes that turned out to be such."""
    _split_by: dict[Group, str] = field(default_factory=dict)

    def visit(self, node: Node) -> None:
        """Read one node; those before it are known."""
        if node.op == "placeholder":
            self.values[node] = self._placeholder(node)
        elif node.op == "output":
            for value in map(self.dims, node.all_input_nodes):
                for dim in value:
                    fix(dim, "they are the network's output")
        elif node.op == "call_function" and node.target is operator.getitem:
            parts = self.values[node.args[0]]
            self.values[node] = parts[node.args[1]] if isinstance(parts, list) else parts
        elif node.op == "call_function":
            name = _RULES.get(operator_name(node), "unknown")
            rule: Callable[[Node], Any] = getattr(self, f"_{name}")
            self.values[node] = rule(node)

    def dims(self, node: Node) -> Dims:
        """The dimensions of a tensor."""
        value: Dims = self.values[node]
        return value

    # Where tensors come from.

    def _placeholder(self, node: Node) -> Dims:
        shape = tuple(node.meta["val"].shape)
        name = self.names.get(node.name)
        if name is None:
            fixed = [group_dim(size, "they are the network's input") for size in shape[1:]]
            return ((Batch(self.batch),), *fixed)
        dims = tuple(group_dim(size) for size in shape)
        self.axes |= {(name, at): dim for at, dim in enumerate(dims)}
        return dims

    def _create(self, node: Node) -> Dims:
        return self._static(node)

    def _static(self, node: Node) -> Any:
        """Dimensions of which the batch is known by its size, and nothing else changes."""
        value = node.meta["val"]
        if not isinstance(value, Tensor):
            return [self._static_dims(one.shape) for one in value if isinstance(one, Tensor)]
        return self._static_dims(value.shape)

    def _static_dims(self, shape: Any) -> Dims:
        return tuple(
            (Batch(self.batch), *static(size // self.batch))
            if size % self.batch == 0
            else static(size)
            for size in map(int, shape)
        )

    def _unknown(self, node: Node) -> Any:
        for one in node.all_input_nodes:
            reason = f"{place(node)} reads them together ({operator_name(node)})"
            for dims in self.all_dims(one):
                for dim in dims:
                    fix(dim, reason)
        return self._static(node)

    def all_dims(self, node: Node) -> list[Dims]:
        """Those of each result of a node."""
        value = self.values[node]
        return value if isinstance(value, list) else [value]

    # Operators on one tensor.

    def _keep(self, node: Node) -> Dims:
        return self.dims(node.args[0])

    def _spatial(self, node: Node) -> Dims:
        """Rows and columns change, and those that change hold no channels."""
        found = []
        shape = node.meta["val"].shape
        for dim, size in zip(self.dims(node.args[0]), shape, strict=True):
            if full_size(dim) != size:
                fix(dim, f"{place(node)} changes their number ({operator_name(node)})")
                dim = static(size)
            found.append(dim)
        return tuple(found)

    def _reduce(self, node: Node) -> Dims:
        dims = list(self.dims(node.args[0]))
        at = 2 if "norm" in operator_name(node) else 1
        wanted = argument(node, at, "dim", None)
        wanted = [wanted] if isinstance(wanted, int) else wanted
        reduced = {one % len(dims) for one in wanted} if wanted else set(range(len(dims)))
        if node.meta["val"].ndim == len(dims):
            return tuple(() if at in reduced else dim for at, dim in enumerate(dims))
        return tuple(dim for at, dim in enumerate(dims) if at not in reduced)

    def _reshape(self, node: Node) -> Dims:
        dims, shape = self.dims(node.args[0]), tuple(node.meta["val"].shape)
        found = reshaped(dims, shape, repeats_first=node.name in self.repeats or None)
        if found is None:
            for dim in dims:
                fix(dim, f"{place(node)} reshapes them")
            found = reshaped(_plain(dims), shape) or list(self._static_dims(shape))
        known = {group for dim in dims for group in groups_of(dim)}
        if sum(size > 1 for size in shape) > sum(full_size(dim) > 1 for dim in dims):
            self._split_by |= dict.fromkeys(known, node.name)
        return tuple(found)

    def _take(self, dim: Dim, reason: str) -> None:
        """A dimension of which single entries are taken keeps its size."""
        groups = groups_of(dim)
        self.taken_apart |= {self._split_by[group] for group in groups if group in self._split_by}
        fix(dim, reason)

    def _permute(self, node: Node) -> Dims:
        dims = self.dims(node.args[0])
        order = list(range(len(dims)))
        name = operator_name(node)
        if name in ("t", "numpy_T"):
            order.reverse()
        elif name == "transpose":
            one, other = (int(at) % len(order) for at in node.args[1:3])
            order[one], order[other] = order[other], order[one]
        elif name == "permute":
            order = [int(at) % len(order) for at in node.args[1]]
        else:
            self._unknown(node)
            return self._static_dims(node.meta["val"].shape)
        return tuple(dims[at] for at in order)

    def _expand(self, node: Node) -> Dims:
        """Dimensions of size 1 become larger; those that hold as many as the batch are the
        batch."""
        dims, shape = self.dims(node.args[0]), tuple(node.meta["val"].shape)
        dims = ((),) * (len(shape) - len(dims)) + dims
        grown = self._static_dims(shape)
        return tuple(
            dim if full_size(dim) == size else new
            for dim, size, new in zip(dims, shape, grown, strict=True)
        )

    def _slice(self, node: Node) -> Dims:
        dims = list(self.dims(node.args[0]))
        shape = node.meta["val"].shape
        at = int(argument(node, 1, "dim", 0)) % len(dims)
        if full_size(dims[at]) == shape[at]:
            return tuple(dims)
        if not groups_of(dims[at]) and not has_batch(dims[at]):
            dims[at] = static(shape[at])
            return tuple(dims)
        start = int(argument(node, 2, "start", 0) or 0) % full_size(dims[at])
        step = argument(node, 4, "step", 1) if operator_name(node) == "slice" else 1
        pieces = as_pieces(dims[at])
        sizes = [start, shape[at], full_size(dims[at]) - start - shape[at]]
        parts = cut_at(pieces, sizes) if pieces is not None and step == 1 else None
        if parts is None:
            fix(dims[at], f"{place(node)} takes some of them")
            dims[at] = static(shape[at])
        else:
            before, taken = ((Sum(part),) if part else (0,) for part in parts[:2])
            self.slices[node] = (before, taken)
            dims[at] = taken
        return tuple(dims)

    def _select(self, node: Node) -> Dims:
        dims = list(self.dims(node.args[0]))
        at = int(node.args[1]) % len(dims)
        self._take(dims.pop(at), f"{place(node)} takes one of them")
        return tuple(dims)

    def _unbind(self, node: Node) -> list[Dims]:
        dims = list(self.dims(node.args[0]))
        at = int(argument(node, 1, "dim", 0)) % len(dims)
        self._take(dims.pop(at), f"{place(node)} takes them apart")
        return [tuple(dims)] * len(node.meta["val"])

    def _split(self, node: Node) -> list[Dims]:
        dims = self.dims(node.args[0])
        shapes = [tuple(one.shape) for one in node.meta["val"]]
        at = int(argument(node, 2, "dim", 0)) % len(dims)
        pieces = as_pieces(dims[at])
        parts = None if pieces is None else cut_at(pieces, [shape[at] for shape in shapes])
        if parts is None:
            fix(dims[at], f"{place(node)} splits them")
            return [self._with(dims, at, static(shape[at])) for shape in shapes]
        return [self._with(dims, at, (Sum(part),)) for part in parts]

    @staticmethod
    def _with(dims: Dims, at: int, dim: Dim) -> Dims:
        return (*dims[:at], dim, *dims[at + 1 :])

    # Operators on several tensors.

    def _join(self, node: Node) -> Dims:
        """Tensors that are added or multiplied have the same dimensions, or repeat one."""
        shape = tuple(node.meta["val"].shape)
        found: list[Dim | None] = [None] * len(shape)
        for one in node.all_input_nodes:
            dims = self.dims(one)
            for at, dim in enumerate(dims, len(shape) - len(dims)):
                if full_size(dim) != shape[at]:
                    continue  # of size 1, repeated
                known = found[at]
                if known is None:
                    found[at] = dim
                else:
                    unify(known, dim, f"{place(node)} joins them with something else")
        return tuple(dim if dim is not None else () for dim in found)

    def _concatenate(self, node: Node) -> Dims:
        inputs = [self.dims(one) for one in node.args[0]]
        at = int(argument(node, 1, "dim", 0)) % len(inputs[0])
        for other in inputs[1:]:
            self._unify_others(inputs[0], other, at, node)
        parts = [as_pieces(dims[at]) for dims in inputs]
        if any(part is None for part in parts):
            for dims in inputs:
                fix(dims[at], f"{place(node)} joins unlike parts")
            return self._with(inputs[0], at, static(node.meta["val"].shape[at]))
        joined = tuple(piece for part in parts for piece in part or ())
        return self._with(inputs[0], at, factors((Sum(joined),)))

    def _unify_others(self, one: Dims, other: Dims, at: int, node: Node) -> None:
        for position, (ours, theirs) in enumerate(zip(one, other, strict=True)):
            if position != at:
                unify(ours, theirs, f"{place(node)} puts them beside others")

    def _stack(self, node: Node) -> Dims:
        inputs = [self.dims(one) for one in node.args[0]]
        for other in inputs[1:]:
            self._unify_others(inputs[0], other, -1, node)
        at = int(argument(node, 1, "dim", 0)) % (len(inputs[0]) + 1)
        return (*inputs[0][:at], static(len(inputs)), *inputs[0][at:])

    def _multiply(self, node: Node) -> Dims:
        """Products of matrices: rows of the first, columns of the second."""
        one, other = (self.dims(arg) for arg in node.args[:2])
        if len(one) < 2 or len(other) < 2:
            self._unknown(node)
            return self._static_dims(node.meta["val"].shape)
        unify(one[-1], other[-2], f"{place(node)} multiplies them with something else")
        if node.args[1].name in self.names:  # a weight of the user's own
            name = self.names[node.args[1].name]
            self.consumers.append((name, len(other) - 2))
            self.producers[name] = other[-1]
        outer = self._joined(one[:-2], other[:-2], node)
        return (*outer, one[-2], other[-1])

    def _joined(self, one: Dims, other: Dims, node: Node) -> Dims:
        """Leading dimensions of two tensors, which are the same or repeat one."""
        length = max(len(one), len(other))
        one, other = (((),) * (length - len(dims)) + dims for dims in (one, other))
        for ours, theirs in zip(one, other, strict=True):
            if full_size(ours) == full_size(theirs):
                unify(ours, theirs, f"{place(node)} multiplies them with something else")
        return tuple(
            ours if full_size(ours) > 1 else theirs for ours, theirs in zip(one, other, strict=True)
        )

    def _attend(self, node: Node) -> Dims:
        query, key, value = (self.dims(arg) for arg in node.args[:3])
        why = f"{place(node)} attends with something else"
        unify(query[-1], key[-1], why)
        unify(key[-2], value[-2], why)
        for position in range(len(query) - 2):
            for other in (key, value):
                if full_size(query[position]) == full_size(other[position]):
                    unify(query[position], other[position], why)
        mask = argument(node, 3, "attn_mask", None)
        if isinstance(mask, fx.Node):
            scores: Dims = (*query[:-1], key[-2])
            dims = self.dims(mask)
            for ours, theirs in zip(scores[len(scores) - len(dims) :], dims, strict=True):
                if full_size(ours) == full_size(theirs):
                    unify(ours, theirs, why)
        return (*query[:-1], value[-1])

    # Layers with weights.

    def _weight(self, node: Node, position: int) -> str | None:
        """The name of a parameter that a layer reads; None where it is computed."""
        source = node.args[position] if len(node.args) > position else None
        return self.names.get(source.name) if isinstance(source, fx.Node) else None

    def _convolve(self, node: Node) -> Dims:
        read, weight = self.dims(node.args[0]), self.dims(node.args[1])
        groups = argument(node, 6, "groups", 1)
        name = self._weight(node, 1)
        if name is None:
            return self._computed_weight(node)
        if groups == 1:
            unify(read[1], weight[1], f"{place(node)} reads them with something else")
            self.consumers.append((name, 1))
            self.producers[name] = weight[0]
        else:
            self._grouped(node, read[1], weight, groups)
        for dim in weight[2:]:
            fix(dim, "they are a kernel")
        bias = argument(node, 2, "bias", None)
        if isinstance(bias, fx.Node):
            unify(weight[0], self.dims(bias)[0], f"{place(node)} adds something else to them")
        shape = node.meta["val"].shape
        return (read[0], weight[0], *map(static, shape[2:]))

    def _grouped(self, node: Node, read: Dim, weight: Dims, groups: int) -> None:
        """Whole groups of the convolution are kept or left out.

        The weight is (groups x outputs, inputs, kernel...).
        """
        why = f"{place(node)} has groups across their borders"
        fix(weight[1], f"{place(node)} has groups of them")
        inputs = full_size(read) // groups
        outputs = full_size(weight[0]) // groups
        channels = group_dim(groups)
        unify(read, (*channels, *static(inputs)), why)
        unify(weight[0], (*channels, *static(outputs)), why)

    def _computed_weight(self, node: Node) -> Dims:
        for one in node.all_input_nodes:
            for dim in self.dims(one):
                fix(dim, f"a weight of {place(node)} is computed")
        return self._static_dims(node.meta["val"].shape)

    def _linear(self, node: Node) -> Dims:
        read, weight = self.dims(node.args[0]), self.dims(node.args[1])
        name = self._weight(node, 1)
        if name is None:
            return self._computed_weight(node)
        unify(read[-1], weight[1], f"{place(node)} reads them with something else")
        self.consumers.append((name, 1))
        self.producers[name] = weight[0]
        bias = argument(node, 2, "bias", None)
        if isinstance(bias, fx.Node):
            unify(weight[0], self.dims(bias)[0], f"{place(node)} adds something else to them")
        return (*read[:-1], weight[0])

    def _batch_norm(self, node: Node) -> Dims:
        read = self.dims(node.args[0])
        for parameter in node.args[1:5]:
            if isinstance(parameter, fx.Node) and parameter.meta["val"].shape[0] > 1:
                unify(read[1], self.dims(parameter)[0], f"{place(node)} normalises something else")
        return read

    def _layer_norm(self, node: Node) -> Dims:
        """Channels that are normalised together: fewer are normalised where fewer are left."""
        read = self.dims(node.args[0])
        last = read[-len(node.args[1]) :]
        for parameter in node.args[2:4]:
            if isinstance(parameter, fx.Node):
                for ours, theirs in zip(last, self.dims(parameter), strict=True):
                    unify(ours, theirs, f"{place(node)} normalises something else")
        return read

    def _group_norm(self, node: Node) -> Dims:
        read = self.dims(node.args[0])
        groups = int(node.args[1])
        if groups > 1:
            inside = full_size(read[1]) // groups
            why = f"{place(node)} has groups across their borders"
            unify(read[1], (*group_dim(groups), *static(inside)), why)
        for parameter in node.args[2:4]:
            if isinstance(parameter, fx.Node):
                unify(read[1], self.dims(parameter)[0], f"{place(node)} normalises something else")
        return read


def argument(node: Node, position: int, name: str, default: Any) -> Any:
    """An argument of a node, by position or name."""
    if len(node.args) > position:
        return node.args[position]
    return node.kwargs.get(name, default)


def _plain(dims: Dims) -> Dims:
    """The same sizes with numbers for sums, whose groups were fixed."""
    return tuple(
        tuple(
            sum(piece.positions for piece in factor.pieces) if isinstance(factor, Sum) else factor
            for factor in factors(dim)
        )
        for dim in dims
    )
