"""Net2WiderNet for any module that `torch.export` can trace.

Chen, T., Goodfellow, I., Shlens, J., Net2Net, 2015, arXiv:1511.05641, section 2.2. The child is a
copy of the module with its own code and wider parameters, so a forward that holds a width as a
number does not run; the check says so.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from pliant.errors import MorphError, nearest
from pliant.networks.morph.channel_graph import ChannelGraph, Group
from pliant.networks.morph.channel_map import (
    ChannelMap,
    concatenated,
    identity_map,
    widening,
)
from pliant.networks.morph.check import copied, require_same_function


def widen(
    module: nn.Module, widths: Mapping[str, int], images: Tensor, rng: np.random.Generator
) -> nn.Module:
    """A copy of a module with more output channels in some layers; it computes the same.

    Layers whose outputs are added, or read by a depthwise convolution, become wider together.

    Args:
        module: with its trained weights; not changed.
        widths: output channels by the name of a convolution or linear layer.
        images: (N, channels, size, size) pixels, at least 2, on which the child is checked.
        rng: of the channels that are copied.

    Raises:
        MorphError: a name is of no such layer, a width cannot change (says why) or is not one of
            those that the groups of a convolution allow, or the child computes something else.
    """
    graph = ChannelGraph(module, images)
    maps: dict[Group, ChannelMap] = {}
    for layer, width in widths.items():
        group = widenable(graph, layer)
        _require_width(layer, group, width)
        maps[group] = widening(group.width // group.unit, width // group.unit, rng)
    child = _widened(module, graph, maps)
    require_same_function(module, child, images, what=f"widening {', '.join(widths)}")
    return child


def widenable(graph: ChannelGraph, layer: str) -> Group:
    """The group of a layer's outputs.

    Raises:
        MorphError: there is none, or its width is fixed; says by what.
    """
    group = graph.group(layer)
    if group is None:
        raise MorphError(
            f"widening names a convolution or a linear layer that runs, received {layer!r}. "
            f"{nearest(layer, graph.produced)}"
        )
    if group.fixed:
        others = [name for name in graph.produced if not graph.produced[name].root().fixed]
        choice = f"These can: {', '.join(others)}." if others else "No layer of it can."
        raise MorphError(f"the outputs of {layer} keep their number, since {group.fixed}. {choice}")
    return group


def _require_width(layer: str, group: Group, width: int) -> None:
    if width < group.width or width % group.unit:
        allowed = f"{group.width + group.unit}, {group.width + 2 * group.unit}, ..."
        why = (
            f" in steps of {group.unit}, the channels that a grouped convolution mixes"
            if group.unit > 1
            else ""
        )
        raise MorphError(
            f"a wider layer has more channels{why}: {layer} has {group.width}, received {width}. "
            f"Use {allowed}"
        )


@torch.no_grad()
def _widened(module: nn.Module, graph: ChannelGraph, maps: Mapping[Group, ChannelMap]) -> nn.Module:
    """A copy of the module, with the maps of units applied to every axis of their groups."""
    child = copied(module)
    for (name, dim), axis in graph.axes.items():
        if not any(segment.group.root() in maps for segment in axis.segments):
            continue
        parts = []
        for segment in axis.segments:
            group = segment.group.root()
            units = maps.get(group) or identity_map(group.width // group.unit)
            parts.append((units.blocks(int(group.unit * segment.per)), segment.positions))
        channel_map = concatenated(parts)
        path, _, attribute = name.rpartition(".")
        owner = child.get_submodule(path)
        tensor = getattr(owner, attribute)
        wider = channel_map.carry(tensor, dim, consumes=axis.consumes)
        if isinstance(tensor, nn.Parameter):
            wider = nn.Parameter(wider, requires_grad=tensor.requires_grad)
        setattr(owner, attribute, wider)
        _resize(owner, attribute, wider)
    return child


def _resize(layer: Any, attribute: str, tensor: Tensor) -> None:
    """The sizes that a layer keeps beside its weights."""
    if attribute != "weight":
        return
    if isinstance(layer, nn.Conv1d | nn.Conv2d | nn.Conv3d):
        per_group = layer.in_channels // layer.groups
        if layer.groups > 1:
            layer.groups = layer.groups * tensor.shape[0] // layer.out_channels
            layer.in_channels = layer.groups * per_group
        else:
            layer.in_channels = tensor.shape[1]
        layer.out_channels = tensor.shape[0]
    elif isinstance(layer, nn.Linear):
        layer.out_features, layer.in_features = tensor.shape
    elif hasattr(layer, "num_features"):
        layer.num_features = len(tensor)
    elif hasattr(layer, "num_parameters"):
        layer.num_parameters = len(tensor)
