"""The operators of one sub-network with its sizes: what runs, and what is exported.

A plan is made once for an architecture. Its steps are the operators of the whole network, without
those of branches that are left out, and with the sizes that are written in them (of reshapes, of
splits, of the groups of a convolution) as they are in the sub-network.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, fx

from pliant.networks.elastic import smaller_kernel
from pliant.networks.foreign.dimensions import (
    Dim,
    Group,
    Sum,
    active_size,
    factors,
    full_size,
    groups_of,
    has_batch,
)
from pliant.networks.foreign.graph import BATCH, Branch, ForeignGraph
from pliant.networks.foreign.kernels import PADS, Kernel, with_less_padding
from pliant.networks.foreign.left_out import module_path
from pliant.networks.foreign.operators import Node, argument
from pliant.networks.morph.channel_graph import operator_name

aten: Any = torch.ops.aten

SIZED = ("reshape", "expand")
SPLITS = ("chunk", "split", "split_with_sizes")
WRITES_BATCH = (
    "zeros",
    "ones",
    "full",
    "empty",
    "rand",
    "randn",
    "new_zeros",
    "new_ones",
    "repeat",
)


@dataclass(frozen=True)
class BatchSize:
    """A size that is the batch times a number, known when the network runs."""

    times: int = 1


@dataclass(frozen=True)
class Step:
    """One operator: its function and arguments, in which nodes stand for their results."""

    node: Node
    name: str
    """Of the operator, without its overload."""
    target: Any
    args: tuple[Any, ...]
    kwargs: Mapping[str, Any]
    nested: tuple[int, ...]
    """Positions of arguments that hold nodes, or the size of the batch, inside."""

    def arguments(self, values: Mapping[Any, Any], batch: Any) -> list[Any]:
        """The arguments with results in place of nodes, and a batch in place of its size."""
        args = [values[one] if type(one) is fx.Node else one for one in self.args]
        for at in self.nested:
            args[at] = filled(with_batch(args[at], batch), values)
        return args


Runs = tuple[tuple[int, int], ...]
"""Starts and lengths along a dimension."""


@dataclass(frozen=True)
class _Cut:
    """What of a parameter is kept."""

    parts: tuple[tuple[slice, ...], ...]
    """A slice per dimension for each piece; the pieces lie one behind the other along a
    dimension."""
    dim: int
    more: tuple[tuple[int, Runs], ...] = ()
    """Further dimensions that are kept in several pieces."""
    only: tuple[int, int, int] | None = None
    """Dimension, start and length where only one dimension is cut, in one piece."""


class _Part(torch.autograd.Function):
    """The kept part of a parameter; a view where it is one piece.

    PyTorch pads the gradient of a slice to its full size, and does so once for each dimension and
    piece; here it is padded once. For one slice alone PyTorch is as good, and begins sooner.
    """

    @staticmethod
    def forward(ctx: Any, tensor: Tensor, cut: _Cut) -> Tensor:
        ctx.cut, ctx.shape, ctx.strides = cut, tensor.shape, tensor.stride()
        if len(cut.parts) == 1:
            return tensor[cut.parts[0]]
        return torch.cat([tensor[part] for part in cut.parts], cut.dim)

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor, None]:
        found = gradient.new_empty_strided(ctx.shape, ctx.strides)
        if len(ctx.cut.parts) > 1:
            found.zero_()
        else:
            _fill_outside(found, ctx.cut.parts[0])
        start = 0
        for part in ctx.cut.parts:
            kept = found[part]
            length = kept.shape[ctx.cut.dim]
            kept.copy_(gradient.narrow(ctx.cut.dim, start, length))
            start += length
        return found, None


def _fill_outside(tensor: Tensor, slices: tuple[slice, ...]) -> None:
    """Zeros outside of a part, each written once: what was cut from a dimension, then the next."""
    for dim, kept in enumerate(slices):
        if kept != slice(None):
            here = tensor[slices[:dim]].movedim(dim, 0)
            if kept.start:
                here[: kept.start].zero_()
            here[kept.stop :].zero_()


class Plan:
    """The steps of a sub-network.

    Args:
        graph: of the whole network.
        widths: channels kept, by group; all of those of other groups.
        skipped: branches that are left out.
        kernels: sizes of kernels; all others keep theirs.
    """

    def __init__(
        self,
        graph: ForeignGraph,
        widths: Mapping[Group, int],
        skipped: tuple[Branch, ...],
        kernels: Mapping[Kernel, int],
    ) -> None:
        self.graph, self.widths, self.skipped = graph, widths, skipped
        smaller = {kernel: size for kernel, size in kernels.items() if size != kernel.size}
        self._kernels = {kernel.weight: (kernel, size) for kernel, size in smaller.items()}
        self._less_padding = {
            node: less
            for kernel, size in smaller.items()
            for node, less in kernel.less_padding(size)
        }
        self._runs: dict[str, list[Runs | None]] = {}
        self._cuts: dict[str, _Cut | None] = {}
        self._alias = {branch.total: branch.shortcut for branch in skipped}
        left_out = frozenset[Node]().union(*(branch.inside for branch in skipped))
        kept = [
            node
            for node in graph.nodes
            if node.op == "call_function" and node not in left_out and node not in self._alias
        ]
        self.result = self.source(graph.result)
        self.steps = tuple(self._step(node) for node in kept)
        last = {
            one: step.node for step in self.steps for one in _nodes_in((step.args, step.kwargs))
        }
        self.last_read: dict[Node, list[Node]] = {}
        """What no step reads after this one, by the node of the step."""
        for one, node in last.items():
            if one is not self.result:
                self.last_read.setdefault(node, []).append(one)
        read = {id(one) for one in last}
        self.parameters = {
            node: graph.names[node.name]
            for node in graph.nodes
            if node.op == "placeholder" and node.name in graph.names and id(node) in read
        }

    @property
    def paddings(self) -> dict[str, tuple[int, ...]]:
        """Of operators that pad for a smaller kernel, by the module in which they run."""
        return {
            module_path(node): tuple(with_less_padding(node, less)[1])
            for node, less in self._less_padding.items()
            if operator_name(node) in PADS
        }

    @property
    def units(self) -> dict[str, tuple[int, int, int]]:
        """Of layers whose channels are kept in units, such as heads: channels of a unit, all units
        and those that are kept."""
        found = {}
        for layer, groups in self.graph.layers.items():
            for group in groups:
                if group in self.widths and group.unit > 1:
                    counts = (group.width // group.unit, self.widths[group] // group.unit)
                    found[layer] = (group.unit, *counts)
        return found

    def source(self, node: Node) -> Node:
        """The node whose result stands for another one."""
        while node in self._alias:
            node = self._alias[node]
        return node

    def size(self, dim: Dim) -> int | BatchSize:
        """Of a dimension in the sub-network."""
        if has_batch(dim):
            return BatchSize(active_size(dim, 1, self.widths))
        return active_size(dim, 1, self.widths)

    def runs(self, name: str) -> list[Runs | None]:
        """What of each dimension of a parameter is kept; None for all of it."""
        if name in self._runs:
            return self._runs[name]
        found = self._runs[name] = []
        at = 0
        while (name, at) in self.graph.dims.axes:
            found.append(kept_runs(self.graph.dims.axes[name, at], self.widths))
            at += 1
        return found

    def sliced(self, name: str, tensor: Tensor) -> Tensor:
        """The part of a parameter that the sub-network uses; a view where it is one piece."""
        if name not in self._cuts:
            self._cuts[name] = _cut(self.runs(name))
        cut = self._cuts[name]
        if cut is None:
            return tensor
        if cut.only is not None:
            return tensor.narrow(*cut.only)
        tensor = _Part.apply(tensor, cut)
        for dim, kept in cut.more:
            tensor = torch.cat([tensor.narrow(dim, start, size) for start, size in kept], dim)
        return tensor

    def active(self, name: str, tensor_of: Callable[[str], Tensor]) -> Tensor:
        """A parameter as the sub-network uses it: its part, and the kernel of its size.

        Args:
            name: of the parameter, or of a buffer.
            tensor_of: a tensor of the whole network by its name.
        """
        tensor = self.sliced(name, tensor_of(name))
        if name not in self._kernels:
            return tensor
        kernel, size = self._kernels[name]
        return smaller_kernel(tensor, size, lambda link: tensor_of(kernel.matrix(link)))

    # Arguments.

    def _step(self, node: Node) -> Step:
        name = operator_name(node)
        dims = self.graph.dims
        args, kwargs = list(node.args), dict(node.kwargs)
        target = node.target
        if node in self._less_padding:
            args = with_less_padding(node, self._less_padding[node])
        if name in SIZED:
            args[1] = [self.size(dim) for dim in dims.values[node]]
        elif name == "unflatten":
            at = int(args[1]) % len(dims.values[args[0]])
            sizes = dims.values[node][at : at + len(args[2])]
            args[2] = [self.size(dim) for dim in sizes]
        elif name in SPLITS:
            at = int(argument(node, 2, "dim", 0)) % len(dims.values[args[0]])
            sizes = [self.size(part[at]) for part in dims.values[node]]
            target, args, kwargs = aten.split_with_sizes.default, [args[0], sizes, at], {}
        elif name in ("conv1d", "conv2d", "conv3d") and argument(node, 6, "groups", 1) > 1:
            inputs = node.args[1].meta["val"].shape[1]
            args[6] = active_size(dims.values[args[0]][1], 1, self.widths) // inputs
        elif name == "group_norm" and args[1] > 1:
            read = dims.values[args[0]][1]
            args[1] = args[1] * active_size(read, 1, self.widths) // full_size(read)
        elif name in ("layer_norm", "rms_norm"):
            args[1] = [self.size(dim) for dim in dims.values[args[0]][-len(args[1]) :]]
        elif node in dims.slices:
            before, taken = (active_size(dim, 1, self.widths) for dim in dims.slices[node])
            args[2:4] = [before, before + taken] if name == "slice" else [before, taken]
        elif name in (*WRITES_BATCH, "repeat"):
            args = [_with_batch(one) for one in args]
        sources = tuple(self._sources(args))
        nested = [at for at, one in enumerate(sources) if _is_nested(one)]
        return Step(node, name, target, sources, self._sources(kwargs), tuple(nested))

    def _sources(self, value: Any) -> Any:
        if isinstance(value, fx.Node):
            return self.source(value)
        if isinstance(value, list | tuple):
            return type(value)(self._sources(one) for one in value)
        if isinstance(value, dict):
            return {name: self._sources(one) for name, one in value.items()}
        return value


def _cut(runs: list[Runs | None]) -> _Cut | None:
    """What is kept of each dimension; None for all of it."""
    if not any(runs):
        return None
    slices = [
        slice(kept[0][0], sum(kept[0])) if kept and len(kept) == 1 else slice(None) for kept in runs
    ]
    several = [(dim, kept) for dim, kept in enumerate(runs) if kept and len(kept) > 1]
    if not several:
        cut = [(dim, *kept[0]) for dim, kept in enumerate(runs) if kept]
        return _Cut((tuple(slices),), 0, only=cut[0] if len(cut) == 1 else None)
    (dim, pieces), *more = several
    parts = []
    for start, length in pieces:
        slices[dim] = slice(start, start + length)
        parts.append(tuple(slices))
    return _Cut(tuple(parts), dim, tuple(more))


def kept_runs(dim: Dim, widths: Mapping[Group, int]) -> Runs | None:
    """What of a parameter's dimension is kept, as starts and lengths; None for all of it."""
    if not any(group in widths for group in groups_of(dim)):
        return None
    [one] = factors(dim)
    assert isinstance(one, Sum)
    found: list[tuple[int, int]] = []
    start = 0
    for piece in one.pieces:
        group = piece.group
        kept = piece.positions if group is None else int(widths.get(group, group.width) * piece.per)
        if found and sum(found[-1]) == start:
            found[-1] = (found[-1][0], found[-1][1] + kept)
        else:
            found.append((start, kept))
        start += piece.positions
    whole = tuple(found) == ((0, start),)
    return None if whole else tuple(found)


def _with_batch(value: Any) -> Any:
    if isinstance(value, list | tuple):
        return [_with_batch(one) for one in value]
    if isinstance(value, int) and not isinstance(value, bool) and value and value % BATCH == 0:
        return BatchSize(value // BATCH)
    return value


def _nodes_in(value: Any) -> list[Node]:
    if isinstance(value, fx.Node):
        return [value]
    if isinstance(value, dict):
        value = list(value.values())
    if isinstance(value, list | tuple):
        return [node for one in value for node in _nodes_in(one)]
    return []


def _is_nested(value: Any) -> bool:
    return not isinstance(value, fx.Node) and (bool(_nodes_in(value)) or has_batch_size(value))


def has_batch_size(value: Any) -> bool:
    """Whether arguments hold the size of the batch."""
    if isinstance(value, list | tuple):
        return any(has_batch_size(one) for one in value)
    return isinstance(value, BatchSize)


def with_batch(value: Any, batch: Any) -> Any:
    """Arguments with the size of the batch.

    Args:
        value: arguments of a step.
        batch: images, as a number or what computes it.
    """
    if isinstance(value, BatchSize):
        return batch if value.times == 1 else batch * value.times
    if isinstance(value, list | tuple):
        return type(value)(with_batch(one, batch) for one in value)
    if isinstance(value, dict):
        return {name: with_batch(one, batch) for name, one in value.items()}
    return value


def filled(value: Any, values: Mapping[Any, Any]) -> Any:
    """Arguments with the results of nodes in their place."""
    if isinstance(value, fx.Node):
        return values[value]
    if isinstance(value, list | tuple):
        return type(value)([filled(one, values) for one in value])
    if isinstance(value, dict):
        return {name: filled(one, values) for name, one in value.items()}
    return value
