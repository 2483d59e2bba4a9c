"""The layers of every sub-network, from a few runs on tensors without data.

The loops of a layer grow linearly with the width of each group, so one run of the whole network and
one for each choice tell them all. Other sub-networks, among them the smallest, are run as well, and
must have the layers that follow; a network for which they do not is refused.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from fractions import Fraction
from typing import Any

import torch
from torch import Tensor, fx, nn
from torch._subclasses.fake_tensor import FakeTensorMode

from pliant.errors import ForeignError
from pliant.networks.foreign.choices import Choices
from pliant.networks.foreign.dimensions import Group
from pliant.networks.foreign.graph import Branch, ForeignGraph
from pliant.networks.foreign.operators import Node
from pliant.networks.foreign.plan import Plan, with_batch
from pliant.networks.trace import steps_workload
from pliant.spaces.foreign import LOOPS, ElasticLayer, ElasticLayers
from pliant.workload import Layer, Workload

Tensors = Mapping[str, Tensor]


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
    slopes: dict[str, dict[str, dict[str, Fraction]]] = {}
    for name, group in choices.groups.items():
        narrower, full = _options(choices, name)[-2:]
        other = tracer.workload({group: choices.width(name, narrower)}, (), size)
        _require_alike(base, other, name)
        for layer, changed in zip(base.layers, other.layers, strict=True):
            for loop in LOOPS:
                before, after = getattr(layer, loop), getattr(changed, loop)
                if before != after:
                    found = slopes.setdefault(layer.name, {}).setdefault(loop, {})
                    found[name] = Fraction(after - before, narrower - full)
    by_resolution = {}
    for resolution in resolutions:
        whole = base if resolution == size else tracer.workload({}, (), resolution)
        by_resolution[resolution] = _elastic_layers(whole, slopes, choices, tracer.names)
        _require_linear(tracer, by_resolution[resolution], choices, resolution)
    return by_resolution


def _options(choices: Choices, name: str) -> tuple[int, ...]:
    [choice] = [one for one in choices.choices if one.name == name]
    return tuple(int(option) for option in choice.options)


def _elastic_layers(
    workload: Workload,
    slopes: Mapping[str, Mapping[str, Mapping[str, Fraction]]],
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


def _require_alike(base: Workload, other: Workload, choice: str) -> None:
    if [layer.name for layer in base.layers] != [layer.name for layer in other.layers]:
        raise ForeignError(
            f"a narrower network has the layers of the whole one; with another {choice} this one"
            " has others. Keep the module with keep=(...)."
        )


def _require_linear(
    tracer: _Tracer, layers: ElasticLayers, choices: Choices, resolution: int
) -> None:
    """Run the smallest network, and those without every second branch."""
    largest = {name: int(_options(choices, name)[-1]) for name in choices.groups}
    smallest = {name: int(_options(choices, name)[0]) for name in choices.groups}
    branches = list(choices.branches)
    for widths, gone in (
        (smallest, branches),
        (largest, branches[::2]),
        (smallest, branches[1::2]),
        (smallest, []),
    ):
        options = widths | {name: int(name not in gone) for name in branches}
        changes = {name: widths[name] - largest[name] for name in widths}
        ours = layers.at(options, changes)
        kept = {choices.groups[name]: choices.width(name, width) for name, width in widths.items()}
        theirs = tracer.workload(kept, [choices.branches[name] for name in gone], resolution)
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
    names = ("name", "kind", "inputs", "concatenated", *LOOPS)
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
        self.fake = FakeTensorMode(allow_non_fake_inputs=True)
        self.tensors = {
            name: self.fake.from_tensor(tensor.detach()) for name, tensor in tensors.items()
        }

    def workload(
        self, widths: Mapping[Group, int], skipped: Sequence[Branch], resolution: int
    ) -> Workload:
        """The layers of a sub-network for one image.

        Args:
            widths: channels kept, by group.
            skipped: branches that are left out.
            resolution: in pixels.
        """
        kept = {group: width for group, width in widths.items() if width != group.width}
        plan = Plan(self.graph, kept, tuple(skipped))
        channels = self.graph.inputs[0].meta["val"].shape[1]
        with self.fake, torch.no_grad():
            images = torch.zeros((1, channels, resolution, resolution))
            values: dict[Any, Any] = {self.graph.inputs[0]: images}
            parameters = []
            for node, name in plan.parameters.items():
                values[node] = plan.sliced(name, self.tensors[name]).clone()
                if node.name.startswith("p_"):
                    values[node] = nn.Parameter(values[node], requires_grad=False)
                    parameters.append(values[node])
            return steps_workload(self._steps(plan, values), images, parameters)

    def _steps(
        self, plan: Plan, values: dict[Any, Any]
    ) -> Iterator[tuple[str, Callable[[], None]]]:
        for step in plan.steps:

            def run(step: Any = step) -> None:
                args = filled(with_batch(step.args, 1), values)
                values[step.node] = step.target(*args, **filled(step.kwargs, values))

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


def filled(value: Any, values: Mapping[Any, Any]) -> Any:
    """Arguments with the results of nodes in their place."""
    if isinstance(value, fx.Node):
        return values[value]
    if isinstance(value, list | tuple):
        return type(value)([filled(one, values) for one in value])
    if isinstance(value, dict):
        return {name: filled(one, values) for name, one in value.items()}
    return value
