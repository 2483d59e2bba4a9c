"""An exported network, with what of it may be left out: channels, residual branches."""

from __future__ import annotations

import contextlib
import math
import warnings
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property

import torch
from torch import Tensor, fx, nn

from pliant.errors import ForeignError
from pliant.networks.foreign.dimensions import Group, groups_of
from pliant.networks.foreign.operators import Dimensions, Node
from pliant.networks.morph.channel_graph import operator_name
from pliant.networks.returned import describe_output
from pliant.networks.trace import silenced
from pliant.plugins import error_place

BATCH = 199
"""Images of the batch with which a network is exported: a prime that is no other dimension, so that
the batch is known wherever it is written as a number."""
ADDITIONS = ("add", "add_")
RESHAPES = {
    torch.ops.aten.view.default: torch.ops.aten.reshape.default,
    torch.ops.aten._unsafe_view.default: torch.ops.aten.reshape.default,
    torch.ops.aten.view_as.default: torch.ops.aten.reshape_as.default,
}
"""Operators that want one order of memory, and those that take any."""
CONVOLUTIONS = ("conv1d", "conv2d", "conv3d")


@dataclass(frozen=True, eq=False)
class Branch:
    """A residual branch: without it, its sum is the other operand."""

    name: str
    """The module that it is in."""
    total: Node
    """The sum."""
    shortcut: Node
    inside: frozenset[Node]
    """The operators of the branch."""


class ForeignGraph:
    """The operators of a network in evaluation mode, and the dimensions of their tensors.

    Args:
        module: of the user; not changed.
        example: one or more inputs, (N, channels, height, width).

    Raises:
        ForeignError: the module does not run on the example, or cannot be exported.
    """

    def __init__(self, module: nn.Module, example: Tensor) -> None:
        program = _exported(module, example)
        signature = program.graph_signature
        constants = dict(getattr(signature, "inputs_to_lifted_tensor_constants", {}))
        self.names: dict[str, str] = {
            **signature.inputs_to_parameters,
            **signature.inputs_to_buffers,
            **constants,
        }
        self.constants: dict[str, Tensor] = {
            name: program.constants[name]
            for name in self.names.values()
            if name in program.constants
        }
        """Tensors that are no part of the module's state."""
        self.nodes: list[Node] = list(program.graph.nodes)
        _write_nothing_in_place(self.nodes)
        _reshape_in_any_order_of_memory(self.nodes)
        self.dims = self._dimensions(frozenset())
        self.axes = {axis: dim for axis, dim in self.dims.axes.items() if groups_of(dim)}
        [self.output] = [node for node in self.nodes if node.op == "output"]
        self.inputs = [
            node for node in self.nodes if node.op == "placeholder" and node.name not in self.names
        ]
        results = self.output.all_input_nodes
        if len(self.inputs) != 1 or len(results) != 1:
            raise ForeignError(
                "a classifier takes images and returns logits, received a network with"
                f" {len(self.inputs)} inputs and {len(results)} outputs. Wrap it in a module that"
                " takes one tensor and returns one."
            )
        self.result = results[0]

    def _dimensions(self, repeats: frozenset[str]) -> Dimensions:
        """Read the nodes; again where a reshape turns out to split channels into equal parts."""
        found = Dimensions(self.names, BATCH, repeats=repeats)
        for node in self.nodes:
            found.visit(node)
        new = found.taken_apart - repeats
        return self._dimensions(repeats | new) if new else found

    @cached_property
    def layers(self) -> dict[str, tuple[Group, ...]]:
        """The groups of the output channels of each layer, by its name, in running order."""
        return {
            layer: groups_of(self.dims.producers[weight])
            for layer, weight in self.weight_of_layer.items()
        }

    @cached_property
    def weight_of_layer(self) -> dict[str, str]:
        """The weight of each layer by the layer's name: its module's, if that has no other weight.

        So the products of an attention have the name of the attention, not of its
        `in_proj_weight`; where a module has several weights, they tell them apart.
        """
        owners = Counter(weight.rpartition(".")[0] for weight in self.dims.producers)
        found = {}
        for weight in self.dims.producers:
            owner, _, last = weight.rpartition(".")
            if last != "weight" and (owners[owner] > 1 or not owner):
                owner = ".".join(filter(None, (owner, last.removesuffix("_weight"))))
            found[owner or last] = weight
        return found

    @cached_property
    def head(self) -> tuple[str, ...]:
        """The layers whose outputs are the logits."""
        last = {group for dim in self.dims.values[self.result] for group in groups_of(dim)}
        return tuple(layer for layer, groups in self.layers.items() if last & {*groups})

    @cached_property
    def head_path(self) -> str:
        """The module that holds the weight of the last layer; empty where no layer is the last."""
        return self.weight_of_layer[self.head[-1]].rpartition(".")[0] if self.head else ""

    @cached_property
    def has_linear_head(self) -> bool:
        """Whether the logits come from one linear layer, or 1x1 convolution, of its own module.

        It reads one vector per image, which are then the features of the network.
        """
        weight = self.weight_of_layer[self.head[0]] if len(self.head) == 1 else ""
        users = self.users_of_weight.get(weight, [])
        if len(users) != 1 or weight != f"{self.head_path}.weight":
            return False
        reads, numbers = users[0].args[0].meta["val"], math.prod(self.weight_shape(weight)[1:])
        if reads.shape[0] != BATCH or math.prod(reads.shape) != BATCH * numbers:
            return False
        return operator_name(users[0]) in ("linear", *CONVOLUTIONS)

    @cached_property
    def stages(self) -> list[list[str]]:
        """The names of the tensors, in running order, in stages: a branch, or a layer outside."""
        of_node = {node: branch for branch in self.branches for node in branch.inside}
        found: list[list[str]] = []
        seen: set[str] = set()
        last: object = None
        for node in self.nodes:
            names = [self.names[one.name] for one in node.all_input_nodes if one.name in self.names]
            names = [name for name in names if name not in seen]
            if not names:
                continue
            begins = node in of_node and of_node[node] is not last
            if begins or (
                node not in of_node and any(name in self.dims.producers for name in names)
            ):
                found.append([])
                last = of_node.get(node)
            if not found:
                found.append([])
            found[-1] += names
            seen.update(names)
        return found

    @cached_property
    def consumed(self) -> dict[Group, list[tuple[str, int]]]:
        """The weights that read each group, with the dimension along which they do."""
        found: dict[Group, list[tuple[str, int]]] = {}
        for axis in self.dims.consumers:
            for group in dict.fromkeys(groups_of(self.dims.axes[axis])):
                found.setdefault(group, []).append(axis)
        return found

    @cached_property
    def users_of_weight(self) -> dict[str, list[Node]]:
        """The operators that read each parameter."""
        return {name: list(node.users) for name, node in self.placeholders.items()}

    @cached_property
    def weights(self) -> tuple[str, ...]:
        """The weights of convolutions and linear layers."""
        grouped = [
            self.names[node.args[1].name]
            for node in self.nodes
            if operator_name(node) in CONVOLUTIONS and node.args[1].name in self.names
        ]
        return tuple(dict.fromkeys((*self.dims.producers, *grouped)))

    def weight_shape(self, name: str) -> tuple[int, ...]:
        """Of a parameter."""
        return tuple(map(int, self.placeholders[name].meta["val"].shape))

    @cached_property
    def placeholders(self) -> dict[str, Node]:
        """The nodes of parameters and buffers by name."""
        nodes = [node for node in self.nodes if node.op == "placeholder"]
        return {self.names[node.name]: node for node in nodes if node.name in self.names}

    @cached_property
    def branches(self) -> tuple[Branch, ...]:
        """The residual branches that hold a layer, in running order."""
        above: dict[Node, frozenset[Node]] = {}
        for node in self.nodes:
            if node.op == "placeholder" and node.name in self.names:
                continue
            reads = [one for one in node.all_input_nodes if one in above]
            above[node] = frozenset().union(*(above[one] for one in reads), reads)
        found = []
        for node in self.nodes:
            of_images = not above.get(node, frozenset()).isdisjoint(self.inputs)
            if of_images and operator_name(node) in ADDITIONS:
                branch = self._branch(node, above)
                if branch is not None:
                    found.append(branch)
        return tuple(found)

    def _branch(self, total: Node, above: Mapping[Node, frozenset[Node]]) -> Branch | None:
        operands = total.args[:2]
        if not all(isinstance(one, fx.Node) and one in above for one in operands):
            return None
        shapes = {tuple(one.meta["val"].shape) for one in operands}
        if shapes != {tuple(total.meta["val"].shape)} or total.kwargs:
            return None
        for shortcut, last in (operands, reversed(operands)):
            if shortcut not in above[last] or shortcut.op == "placeholder":
                continue
            inside = (above[last] | {last}) - above[shortcut] - {shortcut}
            read = {one for node in inside for one in node.all_input_nodes if one in above} - inside
            used = {user for node in inside for user in node.users} - inside
            weights = [
                name
                for name in self.dims.producers
                if all(user in inside for user in self.users_of_weight[name])
            ]
            if read == {shortcut} and used == {total} and weights:
                paths = [name.rpartition(".")[0] for name in weights]
                return Branch(common_path(paths), total, shortcut, frozenset(inside))
        return None


def common_path(paths: Sequence[str]) -> str:
    """The module that all of these modules are in, or the only one of them."""
    parts = [path.split(".") for path in paths]
    found = []
    for step in zip(*parts, strict=False):
        if len(set(step)) > 1:
            break
        found.append(step[0])
    return ".".join(found)


def _write_nothing_in_place(nodes: Sequence[Node]) -> None:
    """Make operators in place those with a result of their own.

    Without a branch, what is written in place may still be needed for gradients: two activations
    may then follow each other.
    """
    order = {node: position for position, node in enumerate(nodes)}
    for node in nodes:
        name = operator_name(node)
        if node.op != "call_function" or not name.endswith("_") or name.endswith("__"):
            continue
        packet = getattr(torch.ops.aten, name[:-1], None)
        target = getattr(packet, getattr(node.target, "_overloadname", ""), None)
        if target is None:
            continue
        node.target = target
        for user in list(node.args[0].users):
            if order[user] > order[node]:
                user.replace_input_with(node.args[0], node)


def _reshape_in_any_order_of_memory(nodes: Sequence[Node]) -> None:
    """Make views reshapes: images lie in memory with their channels last here."""
    for node in nodes:
        if node.target in RESHAPES:
            node.target = RESHAPES[node.target]


def _exported(module: nn.Module, example: Tensor) -> torch.export.ExportedProgram:
    """The operators of a module in evaluation mode, for a batch of `BATCH` images."""
    with evaluation(module):
        _require_runs(module, example)
        images = torch.empty((BATCH, *example.shape[1:]), dtype=example.dtype)
        try:
            with warnings.catch_warnings(), silenced():
                warnings.simplefilter("ignore")
                return torch.export.export(module, (images,), strict=False)
        except Exception as error:
            reason = str(error).strip().splitlines()[0][:200].rstrip(".")
            raise ForeignError(
                "a network is made elastic from the operators that torch.export finds, and this one"
                f" cannot be exported: {type(error).__name__} at {error_place(error)}: {reason}."
                " Write forward without Python that branches on values of tensors."
            ) from error


def _require_runs(module: nn.Module, example: Tensor) -> None:
    for name, parameter in module.named_parameters():
        if parameter.is_floating_point() and parameter.dtype != example.dtype:
            raise ForeignError(
                f"a network has the numbers of its example, {example.dtype}; {name} is of"
                f" {parameter.dtype}. Return module.float()."
            )
    try:
        with torch.no_grad():
            found = module(example[:1])
    except Exception as error:
        raise ForeignError(
            f"a network runs on its example; on images of {tuple(example.shape[1:])} (channels,"
            f" height, width) this one ended in an error at {error_place(error)}:"
            f" {type(error).__name__}: {str(error).strip().splitlines()[0][:200]}. Give the size of"
            " the images that it takes."
        ) from error
    if not isinstance(found, Tensor):
        raise ForeignError(
            "a classifier takes images and returns logits, one tensor; this one returns"
            f" {describe_output(found)}."
        )


@contextlib.contextmanager
def evaluation(module: nn.Module) -> Iterator[None]:
    """Evaluation mode inside, and attention as its operators; as it was outside."""
    modes = {part: part.training for part in module.modules()}
    fast = torch.backends.mha.get_fastpath_enabled()
    torch.backends.mha.set_fastpath_enabled(False)
    try:
        module.eval()
        yield
    finally:
        torch.backends.mha.set_fastpath_enabled(fast)
        for part, mode in modes.items():
            part.training = mode
