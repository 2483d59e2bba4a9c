"""The choices that an exported network gives, named after its modules."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from fractions import Fraction

from pliant.networks.foreign.dimensions import Group, groups_of, pieces_of
from pliant.networks.foreign.graph import Branch, ForeignGraph
from pliant.networks.foreign.kernels import Kernel, elastic_kernels
from pliant.spaces.space import Choice

FRACTIONS = (0.25, 0.5, 0.75)
"""Widths that are offered, as shares of the full one, which is offered as well."""
MULTIPLE = 8
"""Widths are multiples of it, as those that devices compute without remainders."""


@dataclass
class Choices:
    """The choices of a network, and what each of them sizes."""

    choices: list[Choice] = field(default_factory=list)
    groups: dict[str, Group] = field(default_factory=dict)
    """By the choice that is their width."""
    channels: dict[str, Fraction] = field(default_factory=dict)
    """Channels of the layer that a width is named after, for each one of the group."""
    branches: dict[str, Branch] = field(default_factory=dict)
    """By the choice that leaves them out."""
    kernels: dict[str, Kernel] = field(default_factory=dict)
    """By the choice that is their size."""
    fixed: dict[str, str] = field(default_factory=dict)
    """Why the outputs of a layer keep their number."""

    def width(self, name: str, option: int) -> int:
        """Channels of a choice's group at an option."""
        return int(option / self.channels[name])

    @property
    def kernel_matrices(self) -> dict[str, list[str]]:
        """The names of the matrices of smaller kernels, by the weight of the full one."""
        return {
            kernel.weight: [kernel.matrix(f"to{size}") for size in kernel.options[:-1]]
            for kernel in self.kernels.values()
        }

    def options(self, name: str) -> tuple[int, ...]:
        """Those of a choice, ascending."""
        [choice] = [one for one in self.choices if one.name == name]
        return tuple(int(option) for option in choice.options)


def elastic_choices(
    graph: ForeignGraph, *, keep: Sequence[str] = (), resolutions: Sequence[int] = ()
) -> Choices:
    """What may be smaller or left out.

    Args:
        graph: of the network; the groups of what is kept become fixed.
        keep: modules whose layers keep their widths, and which are not left out.
        resolutions: in pixels, that the network takes; the choice is left out for one alone.
    """
    found = Choices()
    for layer, groups in graph.layers.items():
        for group in groups:
            if _is_kept(layer, keep):
                group.fixed = group.fixed or "it was asked to be kept"
    if len(resolutions) > 1:
        found.choices.append(Choice("r", tuple(sorted(resolutions)), "resolution"))
    for branch in graph.branches:
        if _is_kept(branch.name, keep):
            continue
        name = _unique(f"{_place(branch.name)}d", found.branches)
        found.branches[name] = branch
        found.choices.append(Choice(name, (0, 1), "depth"))
    inside = _only_inside(graph, found.branches)
    for layer, groups in graph.layers.items():
        reasons = [group.fixed or _unread(graph, group) for group in groups]
        if groups and all(reasons):
            found.fixed[layer] = reasons[0]
        for group in groups:
            if group.fixed or group in found.groups.values() or _unread(graph, group):
                continue
            per = _channels_per(graph, layer, group)
            options = widths(int(group.width * per), int(group.unit * per))
            if len(options) < 2:
                found.fixed[layer] = f"they are {options[0]} and only kept together"
                continue
            name = _unique(f"{_place(layer)}w", found.groups)
            found.groups[name], found.channels[name] = group, per
            condition = (inside[group], 1) if group in inside else None
            found.choices.append(Choice(name, options, "width", condition))
    _add_kernels(found, graph, keep)
    return found


def _add_kernels(found: Choices, graph: ForeignGraph, keep: Sequence[str]) -> None:
    """The choices of kernels, after the branches that hold them."""
    for weight, kernel in elastic_kernels(graph).items():
        if _is_kept(kernel.layer, keep):
            continue
        name = _unique(f"{_place(kernel.layer)}k", found.kernels)
        branch = _innermost(found.branches, graph.users_of_weight[weight])
        condition = None if branch is None else (branch, 1)
        found.kernels[name] = kernel
        found.choices.append(Choice(name, kernel.options, "kernel", condition))


def _is_kept(name: str, keep: Sequence[str]) -> bool:
    return any(name == one or name.startswith(f"{one}.") for one in keep)


def widths(width: int, unit: int) -> tuple[int, ...]:
    """The widths that are offered, ascending; the last is the full one.

    Args:
        width: the full one.
        unit: channels that are only kept as a whole.
    """
    step = math.lcm(unit, MULTIPLE)
    if width < 4 * step or width % step:  # of few channels, or of units that are many
        step = unit * max(1, width // (8 * unit))
    least = step if width < 4 * unit else max(step, 2 * unit)
    offered = {max(least, round(share * width / step) * step) for share in FRACTIONS}
    return (*sorted(one for one in offered if one < width), width)


def _channels_per(graph: ForeignGraph, layer: str, group: Group) -> Fraction:
    """Channels of a layer for each channel of a group in it."""
    dim = graph.dims.producers[graph.weight_of_layer[layer]]
    [one] = [piece for piece in pieces_of(dim) if piece.group is group][:1]
    return one.per if (group.unit * one.per).denominator == 1 else Fraction(1)


def _unread(graph: ForeignGraph, group: Group) -> str:
    return "" if group in graph.consumed else "no layer with weights reads them"


def _place(path: str) -> str:
    """A module's path as the place of a choice: `_blocks.0.conv_dw` as `blocks.0.conv-dw.`."""
    parts = (part.strip("_").replace("_", "-") for part in path.split("."))
    return "".join(f"{part}." for part in parts if part)


def _unique(name: str, known: Mapping[str, object]) -> str:
    """The name, or the name with a further letter: a layer may have two groups."""
    letters = iter("bcdefghijklmnopqrstuvwxyz")
    found = name
    while found in known:
        found = name + next(letters)
    return found


def _only_inside(graph: ForeignGraph, branches: Mapping[str, Branch]) -> dict[Group, str]:
    """The choice of the branch for each group that is nowhere outside of it."""
    users: dict[Group, set[object]] = {}
    for (name, _), dim in graph.axes.items():
        for group in groups_of(dim):
            users.setdefault(group, set()).update(graph.users_of_weight.get(name, ()))
    found: dict[Group, str] = {}
    for group, nodes in users.items():
        branch = _innermost(branches, nodes)
        if branch is not None:
            found[group] = branch
    return found


def _innermost(branches: Mapping[str, Branch], nodes: Iterable[object]) -> str | None:
    """The choice of the smallest branch that holds all of the nodes, if one does."""
    holding = [name for name, branch in branches.items() if branch.inside.issuperset(nodes)]
    return min(holding, key=lambda name: len(branches[name].inside), default=None)
