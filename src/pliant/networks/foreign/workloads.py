"""The layers of every sub-network, from a few runs on tensors without data.

The loops of a layer grow linearly with the width of each group: they are dimensions of the tensors
that it reads and writes, or the number of their elements. Rows and columns of a kernel are chosen.
Other sub-networks, among them the smallest, are run as well, and must have the layers that follow;
a network for which they do not is refused.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from fractions import Fraction
from functools import cached_property
from typing import Any

import numpy as np
import torch
from torch import Tensor, fx, nn

from pliant.errors import ForeignError
from pliant.networks.foreign.choices import Choices
from pliant.networks.foreign.dimensions import Dim, Group, Sum, active_size, factors, length
from pliant.networks.foreign.graph import Branch, ForeignGraph
from pliant.networks.foreign.kernels import Kernel
from pliant.networks.foreign.operators import Dims, Node
from pliant.networks.foreign.plan import Plan, filled
from pliant.networks.trace import steps_workload
from pliant.spaces.foreign import LOOPS, MORE_STORED, ElasticLayer, ElasticLayers, more_stored
from pliant.workload import Layer, Workload

Tensors = Mapping[str, Tensor]
PROBES = 4
"""Narrower networks that are run to find the dimensions."""


def describe_layers(
    graph: ForeignGraph, choices: Choices, tensors: Tensors, resolutions: Sequence[int]
) -> dict[int, ElasticLayers]:
    """The layers of all sub-networks at each resolution.

    Args:
        graph: of the network.
        choices: of the graph.
        tensors: parameters and buffers by name.
        resolutions: in pixels; the last one is that of the graph.

    Raises:
        ForeignError: the layers of a sub-network do not follow from those of others.
        EncodingError: an operator has no cost in this model.
    """
    tracer = _Tracer(graph, tensors)
    size = resolutions[-1]
    base = tracer.workload({}, (), size)
    whole = {size: base}
    whole |= {one: tracer.workload({}, (), one) for one in resolutions if one != size}

    def described(slopes: Mapping[str, Mapping[str, Slopes]]) -> dict[int, ElasticLayers]:
        found = {}
        for resolution in resolutions:
            layers = _elastic_layers(whole[resolution], slopes, choices, tracer.names)
            _require_linear(tracer, layers, choices, resolution)
            found[resolution] = layers
        return found

    slopes = _Slopes(tracer, choices, base, size)
    try:
        return described(slopes.of_layers())
    except ForeignError:  # two dimensions that are as long as each other in all probes
        return described(slopes.of_layers(by_choice=True))


Slopes = Mapping[str, Fraction]
"""What a size has more for each channel more of a choice, by choice."""


class _Slopes:
    """How the loops of layers grow with the widths.

    A few narrower networks tell which dimension of which tensor a loop grows with: the one that is
    as long in all of them, or from whose length it follows. Where none is, a network for each
    choice tells.

    Args:
        tracer: of the network.
        choices: of the network.
        base: the layers at full size.
        size: height and width of the images.
    """

    def __init__(self, tracer: _Tracer, choices: Choices, base: Workload, size: int) -> None:
        self.tracer, self.choices, self.base, self.size = tracer, choices, base, size
        self.by_group = {group: name for name, group in choices.groups.items()}
        self.nodes = {name: node for node, name in tracer.names.items()}
        rng = np.random.default_rng(0)
        self.probes = [self._widths(rng) for _ in range(PROBES)]

    def _widths(self, rng: np.random.Generator) -> dict[Group, int]:
        """Random widths of a probe; every group is narrower than in the whole network."""
        return {
            group: group.unit * int(rng.integers(min(2, units - 1), units))
            for group in self.choices.groups.values()
            for units in [group.width // group.unit]
        }

    def of_layers(self, *, by_choice: bool = False) -> dict[str, dict[str, Slopes]]:
        """The slopes by layer and loop.

        Args:
            by_choice: whether a network for each choice tells all of them, which takes longer.
        """
        narrower = [self.tracer.workload(widths, (), self.size) for widths in self.probes]
        for one in narrower:
            _require_alike(self.base, one)
        found: dict[str, dict[str, Slopes]] = {}
        unknown: list[tuple[int, str]] = []
        for at, layer in enumerate(self.base.layers):
            for loop in (*LOOPS, MORE_STORED):
                values = [_value(one.layers[at], loop) for one in (self.base, *narrower)]
                if len(set(values)) == 1:
                    continue
                slopes = None if by_choice else self._of_dimension(layer, loop, values)
                if slopes is None:
                    unknown.append((at, loop))
                else:
                    found.setdefault(layer.name, {})[loop] = slopes
        for at, loop in unknown:
            layer = self.base.layers[at]
            slopes = {
                name: Fraction(_value(other.layers[at], loop) - _value(layer, loop), change)
                for name, (change, other) in self._of_choices.items()
            }
            kept = {name: slope for name, slope in slopes.items() if slope}
            found.setdefault(layer.name, {})[loop] = kept
        self._add_kernels(found)
        return found

    def _add_kernels(self, found: dict[str, dict[str, Slopes]]) -> None:
        """Rows and columns of a kernel are the option of its choice."""
        for name, kernel in self.choices.kernels.items():
            for node in kernel.convolutions:
                slopes = found.setdefault(self.tracer.names[node], {})
                slopes |= {loop: {name: Fraction(1)} for loop in ("R", "S")}

    @cached_property
    def _of_choices(self) -> dict[str, tuple[int, Workload]]:
        """For each choice a network with its last width but one, and the change of the width."""
        found = {}
        for name, group in self.choices.groups.items():
            narrower, full = self.choices.options(name)[-2:]
            widths = {group: self.choices.width(name, narrower)}
            found[name] = narrower - full, self.tracer.workload(widths, (), self.size)
        return found

    def _of_dimension(self, layer: Layer, loop: str, values: Sequence[int]) -> Slopes | None:
        """The slopes of the dimension that changes as the loop does in all networks.

        Input channels are looked for in what the layer reads first, all else in its result.
        """
        node = self.nodes[_node_name(layer.name, self.nodes)]
        scaled: Slopes | None = None
        tensors = (node, *node.all_input_nodes)
        for one in (*tensors[1:], node) if loop == "C" else tensors:
            for dims in self.tracer.graph.dims.all_dims(one):
                for dim in _parts(dims):
                    sizes = [active_size(dim, 1, kept) for kept in ({}, *self.probes)]
                    if sizes == values:
                        return self._slopes(dim, Fraction(1))
                    ratio = _ratio(values, sizes)
                    if ratio is not None and scaled is None:
                        scaled = self._slopes(dim, ratio)
        return scaled

    def _slopes(self, dim: Dim, ratio: Fraction) -> Slopes | None:
        """The slopes of a dimension times a number; None where two factors of it change."""
        sums = [one for one in factors(dim) if isinstance(one, Sum)]
        varying = [one for one in sums if any(p.group in self.by_group for p in one.pieces)]
        if len(varying) != 1:
            return None
        times = ratio * (active_size(dim, 1, {}) // length(varying[0]))
        found: dict[str, Fraction] = {}
        for piece in varying[0].pieces:
            name = self.by_group.get(piece.group) if piece.group is not None else None
            if name is not None:
                slope = times * piece.per / self.choices.channels[name]
                found[name] = found.get(name, Fraction(0)) + slope
        return found


def _value(layer: Layer, loop: str) -> int:
    return more_stored(layer) if loop == MORE_STORED else int(getattr(layer, loop))


def _ratio(values: Sequence[int], sizes: Sequence[int]) -> Fraction | None:
    """How much a loop grows with a size, where it grows alike in all networks."""
    found = set()
    for value, size in zip(values[1:], sizes[1:], strict=True):
        if size == sizes[0]:
            return None
        found.add(Fraction(value - values[0], size - sizes[0]))
    return found.pop() if len(found) == 1 else None


def _parts(dims: Dims) -> Iterator[Dim]:
    """The dimensions of a tensor, their factors, and all of them together."""
    for dim in dims:
        yield dim
        inner = factors(dim)
        if len(inner) > 1:
            for factor in inner:
                yield (factor,)
    yield tuple(factor for dim in dims for factor in dim)


def _elastic_layers(
    workload: Workload,
    slopes: Mapping[str, Mapping[str, Slopes]],
    choices: Choices,
    names: Mapping[Node, str],
) -> ElasticLayers:
    by_name = {name: node for node, name in names.items()}
    shortcuts: dict[str, tuple[str, str]] = {}
    outside: dict[str, tuple[str, ...]] = {}
    for layer in workload.layers:
        node = by_name[_node_name(layer.name, by_name)]
        outside[layer.name] = tuple(
            choice for choice, branch in choices.branches.items() if node in branch.inside
        )
    for choice, branch in choices.branches.items():
        total = next(one for one in workload.layers if one.name == names[branch.total])
        kept = [name for name in total.inputs if name not in outside or choice not in outside[name]]
        shortcuts[total.name] = (choice, kept[0])
    return ElasticLayers(
        tuple(
            ElasticLayer(layer, slopes.get(layer.name, {}), outside[layer.name])
            for layer in workload.layers
        ),
        shortcuts,
    )


def _node_name(layer: str, names: Mapping[str, Node]) -> str:
    """The operator of a layer, whose name may have an ending of its own."""
    while layer not in names:
        layer = layer.rpartition(".")[0]
    return layer


def _require_alike(base: Workload, other: Workload) -> None:
    if [layer.name for layer in base.layers] != [layer.name for layer in other.layers]:
        raise ForeignError(
            "a narrower network has the layers of the whole one; of this one it has others. Keep"
            " modules with keep=(...)."
        )


def _require_linear(
    tracer: _Tracer, layers: ElasticLayers, choices: Choices, resolution: int
) -> None:
    """Run the smallest network, and those without every second branch."""
    sized = (*choices.groups, *choices.kernels)
    largest = {name: choices.options(name)[-1] for name in sized}
    smallest = {name: choices.options(name)[0] for name in sized}
    rng = np.random.default_rng(1)
    mixed = {name: int(rng.choice(choices.options(name))) for name in sized}
    branches = list(choices.branches)
    for sizes, gone in (
        (smallest, branches),
        (largest, branches[::2]),
        (mixed, branches[1::2]),
        (mixed, []),
    ):
        options = sizes | {name: int(name not in gone) for name in branches}
        changes = {name: sizes[name] - largest[name] for name in sized}
        ours = layers.at(options, changes)
        kept = {group: choices.width(name, sizes[name]) for name, group in choices.groups.items()}
        kernels = {kernel: sizes[name] for name, kernel in choices.kernels.items()}
        skipped = [choices.branches[name] for name in gone]
        theirs = tracer.workload(kept, skipped, resolution, kernels)
        for one, other in zip(ours, theirs.layers, strict=False):
            if one != other:
                raise ForeignError(
                    "the layers of a sub-network follow from those of the whole network; here they"
                    f" do not at {one.name!r}: {_difference(one, other)}. Keep its module with"
                    " keep=(...)."
                )
        if len(ours) != len(theirs.layers):
            raise ForeignError(
                "the layers of a sub-network follow from those of the whole network; here"
                f" {len(ours)} do and {len(theirs.layers)} run. Keep modules with keep=(...)."
            )


def _difference(one: Layer, other: Layer) -> str:
    names = ("name", "kind", "inputs", "concatenated", *LOOPS, "stored")
    found = [
        f"{name} {getattr(one, name)} or {getattr(other, name)}"
        for name in names
        if getattr(one, name) != getattr(other, name)
    ]
    return ", ".join(found)


class _Tracer:
    """Runs sub-networks on tensors that have shapes and no data."""

    def __init__(self, graph: ForeignGraph, tensors: Tensors) -> None:
        self.graph = graph
        self.names = _step_names(graph)
        self.tensors = {name: tensor.detach().to("meta") for name, tensor in tensors.items()}

    def workload(
        self,
        widths: Mapping[Group, int],
        skipped: Sequence[Branch],
        resolution: int,
        kernels: Mapping[Kernel, int] | None = None,
    ) -> Workload:
        """The layers of a sub-network for one image.

        Args:
            widths: channels kept, by group.
            skipped: branches that are left out.
            resolution: in pixels.
            kernels: sizes; those of the whole network where left out.
        """
        kept = {group: width for group, width in widths.items() if width != group.width}
        plan = Plan(self.graph, kept, tuple(skipped), kernels or {})
        channels = self.graph.inputs[0].meta["val"].shape[1]
        with torch.no_grad():
            images = torch.zeros((1, channels, resolution, resolution), device="meta")
            values: dict[Any, Any] = {self.graph.inputs[0]: images}
            parameters = []
            for node, name in plan.parameters.items():
                values[node] = plan.active(name, self.tensors.__getitem__).clone()
                if node.name.startswith("p_"):
                    values[node] = nn.Parameter(values[node], requires_grad=False)
                    parameters.append(values[node])
            return steps_workload(self._steps(plan, values), images, parameters)

    def _steps(
        self, plan: Plan, values: dict[Any, Any]
    ) -> Iterator[tuple[str, Callable[[], None]]]:
        for step in plan.steps:

            def run(step: Any = step) -> None:
                args = step.arguments(values, 1)
                kwargs = filled(step.kwargs, values)
                if kwargs.get("device") is not None:
                    kwargs["device"] = "meta"
                values[step.node] = step.target(*args, **kwargs)

            yield self.names[step.node], run


def _step_names(graph: ForeignGraph) -> dict[Node, str]:
    """What the layers of operators are called: those with weights as their modules."""
    found: dict[Node, str] = {}
    taken: set[str] = set()
    for node in graph.nodes:
        name = node.name
        if node.op == "call_function" and len(node.args) > 1 and isinstance(node.args[1], fx.Node):
            weight = graph.names.get(node.args[1].name, "")
            path = weight.rpartition(".")[0]
            if weight in graph.dims.producers and path and path not in taken:
                name = path
        taken.add(name)
        found[node] = name
    return found
