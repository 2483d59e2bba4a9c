"""Which axes of which parameters of a module hold the same channels?

`torch.export` gives the operators of any module. Walking through them, every tensor has one
dimension of channels, made of segments: pieces that each belong to a group. Convolutions and linear
layers consume the channels that they read and produce a new group. Additions and other operations
on several tensors make one group of those that they join (residual sums), concatenations put
segments in a row, and what flattens pictures gives every channel a position per pixel. Grouped
convolutions only keep what they compute where whole groups are copied, which is the unit of a
group. Whatever else reads channels together, such as a LayerNorm, fixes their number; the reason is
kept, so that a morph can say it.
"""

from __future__ import annotations

import math
import operator
import warnings
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from fractions import Fraction
from typing import Any

import torch
from torch import Tensor, fx, nn

from pliant.errors import MorphError
from pliant.networks.trace import silenced

Node = Any
"""A `torch.fx.Node`, whose arguments are nodes, numbers, lists of either, or None."""

_NAMES = {
    "keep": """relu relu_ relu6 relu6_ hardtanh hardtanh_ clamp clamp_ clamp_min clamp_max sigmoid
        sigmoid_ hardsigmoid hardsigmoid_ hardswish hardswish_ silu silu_ mish mish_ tanh tanh_ elu
        elu_ celu gelu softplus leaky_relu leaky_relu_ selu selu_ softsign hardshrink softshrink
        threshold sqrt rsqrt exp log neg abs pow square reciprocal rsub dropout dropout_
        feature_dropout alpha_dropout contiguous clone detach detach_ to _to_copy alias
        lift_fresh_copy max_pool1d max_pool2d max_pool3d avg_pool1d avg_pool2d avg_pool3d
        adaptive_avg_pool1d adaptive_avg_pool2d adaptive_max_pool2d upsample_nearest2d
        upsample_bilinear2d _upsample_bilinear2d_aa upsample_bicubic2d constant_pad_nd
        reflection_pad2d replication_pad2d pad""",
    "join": """add add_ sub sub_ mul mul_ div div_ maximum minimum where lerp addcmul eq ne lt le
        gt ge""",
    "reduce": "mean sum amax amin std var",
    "reshape": "view reshape flatten _unsafe_view unflatten squeeze unsqueeze",
    "convolve": "conv1d conv2d conv3d",
    "multiply": "linear",
    "normalise": "batch_norm prelu",
    "concatenate": "cat",
    "split": "chunk split split_with_sizes",
    "permute": "permute transpose",
    "slice": "slice",
}
_RULES = {name: rule for rule, names in _NAMES.items() for name in names.split()}
"""What the ATen operators do to channels; whatever is not here fixes them."""


@dataclass(eq=False)
class Group:
    """Channels that are copied together wherever they are."""

    width: int
    unit: int = 1
    """Channels in a row that are only copied as a whole, since a grouped convolution mixes them."""
    fixed: str = ""
    """Why their number cannot change; empty where it can."""
    merged_into: Group | None = None
    layers: list[str] = field(default_factory=list)
    """The modules that produce them."""

    def root(self) -> Group:
        """The group that stands for all that were found to be one."""
        group = self
        while group.merged_into is not None:
            group = group.merged_into
        return group


@dataclass(frozen=True)
class Segment:
    """A piece of a dimension."""

    group: Group
    per: Fraction = Fraction(1)
    """Positions for each channel of the group."""

    @property
    def positions(self) -> int:
        """Length of the piece."""
        return int(self.group.root().width * self.per)


@dataclass
class Channels:
    """The dimension of a tensor that runs over channels."""

    dim: int
    segments: tuple[Segment, ...]


@dataclass(eq=False)
class Axis:
    """A dimension of a parameter or buffer."""

    segments: tuple[Segment, ...]
    consumes: bool


class ChannelGraph:
    """The groups of a module.

    Args:
        module: in evaluation mode while it is exported; not changed.
        example: a batch of its input, at least 2 images.

    Raises:
        MorphError: `torch.export` cannot trace the module.
    """

    def __init__(self, module: nn.Module, example: Tensor) -> None:
        self.axes: dict[tuple[str, int], Axis] = {}
        """By the name of a parameter or buffer and its dimension."""
        self.produced: dict[str, Group] = {}
        """The output channels of convolutions and linear layers, by the name of the module."""
        self._values: dict[Any, Any] = {}
        program = exported(module, example)
        signature = program.graph_signature
        self._names = {**signature.inputs_to_parameters, **signature.inputs_to_buffers}
        for node in program.graph.nodes:
            self._visit(node)

    def group(self, layer: str) -> Group | None:
        """The output channels of a layer; None where it is no convolution or linear layer."""
        found = self.produced.get(layer)
        return None if found is None else found.root()

    # One node after the other.

    def _visit(self, node: Node) -> None:
        if node.op == "placeholder":
            if node.name not in self._names and node.meta["val"].ndim > 1:
                dim = 1 if node.meta["val"].ndim != 3 else 2
                fixed = Group(node.meta["val"].shape[dim], fixed="they are the network's input")
                self._values[node] = Channels(dim, (Segment(fixed),))
        elif node.op == "output":
            for value in self._tracked(node):
                self._fix(value, "they are the network's output")
        elif node.target is operator.getitem:
            parts = self._values.get(node.args[0])
            chosen = parts[node.args[1]] if isinstance(parts, list) else None
            self._values[node] = chosen
        else:
            rule: Callable[[Node], Any] = getattr(
                self, f"_{_RULES.get(operator_name(node))}", self._unknown
            )
            self._values[node] = rule(node)

    def _tracked(self, node: Node) -> list[Channels]:
        found = [self._values.get(one) for one in node.all_input_nodes]
        return [one for one in found if isinstance(one, Channels)]

    def _keep(self, node: Node) -> Channels | None:
        value = self._values.get(node.args[0])
        return value if isinstance(value, Channels) else None

    def _unknown(self, node: Node) -> None:
        name = operator_name(node)
        alternative = ""
        if "norm" in name:
            alternative = ", which normalises over them: widen a layer inside the block instead"
        for value in self._tracked(node):
            self._fix(value, f"{place(node)} reads them together ({name}){alternative}")

    def _fix(self, value: Channels, reason: str) -> None:
        for segment in value.segments:
            group = segment.group.root()
            group.fixed = group.fixed or reason

    # Layers with weights.

    def _inputs(self, node: Node, dim: int) -> tuple[Segment, ...]:
        """What a layer reads along a dimension; a fixed group where it is not known."""
        source = node.args[0]
        value = self._values.get(source)
        if isinstance(value, Channels) and value.dim == dim:
            return value.segments
        if isinstance(value, Channels):
            self._fix(value, f"{place(node)} reads them along another dimension")
        width = source.meta["val"].shape[dim]
        return (Segment(Group(width, fixed=f"{place(node)} reads what is no channel")),)

    def _tie(self, node: Any, dim: int, segments: tuple[Segment, ...], consumes: bool) -> None:
        """Make a dimension of a parameter one of these segments."""
        if not isinstance(node, fx.Node):
            return
        name = self._names.get(node.name)
        if name is None:
            self._fix(Channels(dim, segments), f"a weight of {place(node)} is computed")
            return
        known = self.axes.setdefault((name, dim), Axis(segments, consumes))
        if known.segments is not segments:
            self._unify(known.segments, segments, f"{name} is used twice")
            if known.consumes != consumes:
                self._fix(Channels(dim, segments), f"{name} is read along both dimensions")

    def _produce(self, node: Node, width: int) -> tuple[Segment, ...]:
        group = Group(width)
        weight = self._names.get(node.args[1].name, "")
        layer = weight.rpartition(".")[0]
        group.layers.append(layer)
        self.produced[layer] = group
        return (Segment(group),)

    def _convolve(self, node: Node) -> Channels:
        weight = node.args[1]
        groups = _argument(node, 6, "groups", 1)
        read = self._inputs(node, 1)
        outputs, per_input = weight.meta["val"].shape[:2]
        if groups == 1:
            self._tie(weight, 1, read, True)
            written = self._produce(node, outputs)
        else:
            written = self._grouped(node, read, per_input, outputs // groups)
        self._tie(weight, 0, written, False)
        self._tie(_argument(node, 2, "bias", None), 0, written, False)
        return Channels(1, written)

    def _grouped(
        self, node: Node, read: tuple[Segment, ...], inputs: int, outputs: int
    ) -> tuple[Segment, ...]:
        """The channels behind a grouped convolution, which pass through as whole groups.

        Args:
            inputs: channels that a group of the convolution reads.
            outputs: channels that it writes.
        """
        for segment in read:
            group = segment.group.root()
            # Channels of a unit have whole groups of the convolution: unit x per = n x inputs.
            unit = group.unit
            while (unit * segment.per) % inputs and unit < group.width:
                unit += group.unit
            if group.width % unit or (unit * segment.per) % inputs:
                self._fix(Channels(1, read), f"{place(node)} has groups across their borders")
            else:
                group.unit = unit
        layer = self._names.get(node.args[1].name, "").rpartition(".")[0]
        written = tuple(
            Segment(segment.group, segment.per * Fraction(outputs, inputs)) for segment in read
        )
        if len(written) == 1:
            written[0].group.root().layers.append(layer)
            self.produced[layer] = written[0].group
        return written

    def _multiply(self, node: Node) -> Channels:
        last = node.meta["val"].ndim - 1
        self._tie(node.args[1], 1, self._inputs(node, last), True)
        written = self._produce(node, node.args[1].meta["val"].shape[0])
        self._tie(node.args[1], 0, written, False)
        self._tie(_argument(node, 2, "bias", None), 0, written, False)
        return Channels(last, written)

    def _normalise(self, node: Node) -> Channels:
        read = self._inputs(node, 1)
        for parameter in node.args[1:5]:
            if isinstance(parameter, fx.Node) and parameter.meta["val"].shape[0] > 1:
                self._tie(parameter, 0, read, False)
        return Channels(1, read)

    # Operations on several tensors, and on shapes.

    def _join(self, node: Node) -> Channels | None:
        """Tensors that are added or multiplied have the same channels."""
        found: Channels | None = None
        for one in node.all_input_nodes:
            value = self._aligned(node, one)
            if value is None:
                continue
            if found is None:
                found = value
            elif found.dim == value.dim:
                self._unify(found.segments, value.segments, f"{place(node)} joins unlike parts")
            else:
                for other in (value, found):
                    self._fix(other, f"{place(node)} joins them with another dimension")
        if found is not None:
            for one in node.all_input_nodes:
                self._join_untracked(node, one, found)
        return found

    def _aligned(self, node: Node, one: Node) -> Channels | None:
        """The channels of an input as those of the output, which may have more dimensions."""
        value = self._values.get(one)
        if not isinstance(value, Channels):
            return None
        shape, size = node.meta["val"].shape, one.meta["val"].shape
        dim = value.dim + len(shape) - len(size)
        if size[value.dim] != shape[dim]:
            self._fix(value, f"{place(node)} repeats them")
            return None
        return Channels(dim, value.segments)

    def _join_untracked(self, node: Node, one: Node, found: Channels) -> None:
        """A parameter such as the scale of a layer has the channels of what it multiplies."""
        if isinstance(self._values.get(one), Channels):
            return
        size = one.meta["val"].shape
        dim = found.dim - len(node.meta["val"].shape) + len(size)
        if dim < 0 or size[dim] == 1:
            return
        if one.name in self._names:
            self._tie(one, dim, found.segments, False)
        else:
            self._fix(found, f"{place(node)} joins them with what is no channel")

    def _unify(self, ours: tuple[Segment, ...], theirs: tuple[Segment, ...], why: str) -> None:
        """Make one group of two pieces, piece by piece."""
        alike = len(ours) == len(theirs) and all(
            one.per == other.per and one.positions == other.positions
            for one, other in zip(ours, theirs, strict=False)
        )
        if not alike:
            self._fix(Channels(0, (*ours, *theirs)), why)
            return
        for one, other in zip(ours, theirs, strict=True):
            kept, gone = one.group.root(), other.group.root()
            if kept is not gone:
                kept.unit = math.lcm(kept.unit, gone.unit)
                kept.fixed = kept.fixed or gone.fixed
                kept.layers += gone.layers
                gone.merged_into = kept
                if kept.width % kept.unit:
                    kept.fixed = kept.fixed or why

    def _reduce(self, node: Node) -> Channels | None:
        value = self._keep(node)
        dims = _argument(node, 1, "dim", None)
        if value is None:
            return None
        ndim = node.args[0].meta["val"].ndim
        reduced = [dim % ndim for dim in dims] if dims else list(range(ndim))
        if value.dim in reduced:
            self._fix(value, f"{place(node)} sums over them")
            return None
        if node.meta["val"].ndim == ndim:
            return value
        return Channels(value.dim - sum(dim < value.dim for dim in reduced), value.segments)

    def _reshape(self, node: Node) -> Channels | None:
        """Channels keep their dimension, or share it with the pixels that come behind them."""
        value = self._keep(node)
        if value is None:
            return None
        before, after = node.args[0].meta["val"].shape, node.meta["val"].shape
        start = math.prod(before[: value.dim])
        for dim, size in enumerate(after):
            if math.prod(after[:dim]) != start:
                continue
            behind = 1
            for end in range(value.dim + 1, len(before) + 1):
                if size == before[value.dim] * behind and size > 1:
                    flat = tuple(Segment(one.group, one.per * behind) for one in value.segments)
                    return Channels(dim, flat)
                behind *= before[end] if end < len(before) else 1
        self._fix(value, f"{place(node)} reshapes them")
        return None

    def _permute(self, node: Node) -> Channels | None:
        value = self._keep(node)
        if value is None:
            return None
        order = list(range(node.meta["val"].ndim))
        if isinstance(node.args[1], int):
            one, other = (int(dim) % len(order) for dim in node.args[1:3])
            order[one], order[other] = order[other], order[one]
        else:
            order = [int(dim) % len(order) for dim in node.args[1]]
        return Channels(order.index(value.dim), value.segments)

    def _concatenate(self, node: Node) -> Channels | None:
        dim = int(_argument(node, 1, "dim", 0)) % node.meta["val"].ndim
        parts = [one for one in map(self._values.get, node.args[0]) if isinstance(one, Channels)]
        if len(parts) < len(node.args[0]):
            for value in self._tracked(node):
                self._fix(value, f"{place(node)} puts them beside what is no channel")
            return None
        if all(one.dim == dim for one in parts):
            return Channels(dim, tuple(segment for one in parts for segment in one.segments))
        for other in parts[1:]:
            self._unify(parts[0].segments, other.segments, f"{place(node)} joins unlike parts")
        return parts[0]

    def _split(self, node: Node) -> list[Channels | None]:
        """The parts between segments; channels that are cut in the middle are fixed."""
        value = self._keep(node)
        sizes = [one.shape for one in node.meta["val"]]
        if value is None:
            return [None] * len(sizes)
        dim = int(_argument(node, 2, "dim", 0)) % len(sizes[0])
        if dim != value.dim:
            return [value] * len(sizes)
        parts: list[Channels | None] = []
        rest = list(value.segments)
        for size in sizes:
            taken: list[Segment] = []
            while rest and sum(one.positions for one in taken) < size[dim]:
                taken.append(rest.pop(0))
            if sum(one.positions for one in taken) != size[dim]:
                self._fix(value, f"{place(node)} splits them")
                return [None] * len(sizes)
            parts.append(Channels(dim, tuple(taken)))
        return parts

    def _slice(self, node: Node) -> Channels | None:
        value = self._keep(node)
        if value is not None and node.meta["val"].shape != node.args[0].meta["val"].shape:
            dim = int(_argument(node, 1, "dim", 0)) % node.meta["val"].ndim
            if dim == value.dim:
                self._fix(value, f"{place(node)} takes some of them")
                return None
        return value


def exported(module: nn.Module, example: Tensor) -> torch.export.ExportedProgram:
    """The operators of a module in evaluation mode.

    Raises:
        MorphError: it cannot be traced.
    """
    modes = {part: part.training for part in module.modules()}
    try:
        module.eval()
        with warnings.catch_warnings(), silenced():
            warnings.simplefilter("ignore")
            return torch.export.export(module, (example,), strict=False)
    except Exception as error:
        reason = str(error).strip().splitlines()[0][:200].rstrip(".")
        raise MorphError(
            "the layers of a network are found by torch.export, which cannot trace this one:"
            f" {type(error).__name__}: {reason}. Keep Python that branches"
            " on values out of forward, or morph the part of the network that can be"
            " traced."
        ) from error
    finally:
        for part, mode in modes.items():
            part.training = mode


def operator_name(node: Node) -> str:
    """The ATen operator of a node, without its overload."""
    target = getattr(node.target, "overloadpacket", node.target)
    return getattr(target, "__name__", str(target))


def place(node: Node) -> str:
    """The layer in which an operator runs, for messages."""
    stack: Mapping[str, Sequence[Any]] = node.meta.get("nn_module_stack") or {}
    path, kind = list(stack.values())[-1] if stack else ("", "")
    name = str(kind).rpartition(".")[2] or "the network"
    return f"{name} {path!r}" if path else name


def _argument(node: Node, position: int, name: str, default: Any) -> Any:
    if len(node.args) > position:
        return node.args[position]
    return node.kwargs.get(name, default)
