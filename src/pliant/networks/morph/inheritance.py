"""A network of a space with the weights of another one, whatever their sizes: parent to child.

Both are lists of blocks, and blocks of the same slot belong together. Their channel groups
(`networks.channels`) say which axes of which weights must change together, along residual sums and
through blocks. Wider groups hold copies (Net2WiderNet), larger kernels zeros around the parent's,
and new residual blocks begin with a last BatchNorm of scale 0, which is the identity whatever the
activation: the child computes what its parent computes. Elsken, T., Metzen, J. H., Hutter, F.,
Efficient Multi-Objective Neural Architecture Search via Lamarckian Evolution (LEMONADE), 2018,
arXiv:1804.09081, calls the other direction approximate morphisms: narrower groups keep the most
important channels, smaller kernels their centre, and blocks are left out. A child that has any of
these, or another resolution, says so in `Inheritance.approximations`.
"""

from __future__ import annotations

import dataclasses
import re
from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from pliant.networks import plain
from pliant.networks.channels import ChannelGroup, block_channels, merged
from pliant.networks.importance import l1_norm
from pliant.networks.initialization import initialise
from pliant.networks.morph.channel_map import ChannelMap, narrowing, widening
from pliant.networks.morph.check import Change, require_same_function
from pliant.networks.supernet import describe
from pliant.spaces.block import Block
from pliant.spaces.cell_blocks import cell_edges

IDEMPOTENT = ("relu", "relu6", "none")
"""Activations that change nothing the second time."""

_CARRIED = {
    *("slot", "inputs", "outputs", "channels", "mid_channels", "expand", "hidden"),
    *("kernel", "squeeze_excite", "operations", "dropout"),
}
"""Fields of blocks whose change is a matter of weights, or none."""
_CELL_CONV = re.compile(r"(?P<before>.*\.nor_conv_)(?P<kernel>\dx\d)(?P<edge>_\d\d\..*)")


@dataclass(frozen=True)
class Inheritance:
    """A child with the weights of its parent."""

    network: plain.Network
    approximations: tuple[str, ...]
    """Why it does not compute what its parent computes; none where it does."""
    change: Change | None
    """Of the outputs, as checked; None for an approximate child, which has no check to pass."""


@dataclass
class _Group:
    """The axes that run over the same channels, by the names of the tensors."""

    channels: ChannelGroup
    axes: dict[tuple[str, int], None] = field(default_factory=dict)
    width: int = 0


def inherit(
    parent: plain.Network,
    parent_blocks: Sequence[Block],
    child_blocks: Sequence[Block],
    images: Tensor,
    rng: np.random.Generator,
) -> Inheritance:
    """A network of the child's blocks that starts with the parent's weights.

    Args:
        parent: with BatchNorm statistics; not changed.
        parent_blocks: its description.
        child_blocks: of the same space, or made from the parent's by other sizes.
        images: (N, channels, size, size) pixels, at least 2, on which the child is checked.
        rng: of the channels that are copied, and of fresh weights.

    Raises:
        MorphError: nothing was left out or cut, but the child does not compute what its parent
            computes, such as where the parent's outputs are not finite.
    """
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(int(rng.integers(2**31)))
        child = plain.Network(describe(child_blocks))
        initialise(child)
    approximations = _differences(parent_blocks, child_blocks)
    theirs, ours = _groups(parent_blocks, parent), _groups(child_blocks, child)
    maps: dict[str, ChannelMap] = {}
    whole: set[tuple[str, int]] = set()
    for name, group in ours.items():
        if group.channels.units:
            whole |= group.axes.keys()
        elif name in theirs and theirs[name].width != group.width:
            maps[name] = _channel_map(theirs[name], group.width, rng)
            if group.width < theirs[name].width:
                approximations.append(f"{name} has {group.width} of {theirs[name].width} channels")
    by_axis: dict[tuple[str, int], ChannelMap] = {}
    for name, channel_map in maps.items():
        by_axis |= dict.fromkeys(ours[name].axes, channel_map)
    state, inherited = child.state_dict(), dict(parent.state_dict())
    for name, tensor in state.items():
        source = _source(name, inherited)
        if source is not None:
            carried = inherited[source]
            state[name] = _fitted(name, carried, tensor, by_axis, whole, approximations)
    child.load_state_dict(state)
    _begin_as_identity(child, parent, child_blocks)
    child.to(next(parent.parameters()).device)
    _compute_new_statistics(child, images)
    if approximations:
        return Inheritance(child, tuple(dict.fromkeys(approximations)), None)
    found = require_same_function(parent, child, images, what="inheriting the parent's weights")
    return Inheritance(child, (), found)


def _groups(blocks: Sequence[Block], network: nn.Module) -> Mapping[str, _Group]:
    """The channel groups of a whole network, by the layer that writes them first."""
    names = {id(tensor): name for name, tensor in network.named_parameters()}
    buffers = dict(network.named_buffers())
    found: dict[str, _Group] = {}
    last = ""

    def add(name: str, group: ChannelGroup) -> None:
        known = found.setdefault(name, _Group(ChannelGroup()))
        known.channels = merged(known.channels, group)
        for tensor, dim in (*group.producers, *group.consumers):
            known.width = tensor.shape[dim]
            parameter = names[id(tensor)]
            known.axes[parameter, dim] = None
            norm = parameter.removesuffix(".weight")
            for buffer in (f"{norm}.running_mean", f"{norm}.running_var"):
                if buffer in buffers:
                    known.axes[buffer, 0] = None

    for block in blocks:
        channels = block_channels(block, network.get_submodule(f"blocks.{block.slot}"))
        add(last, channels.input)
        for group in channels.inner:
            add(f"{block.slot}.{group.layer}", group)
        if channels.output is not channels.input:
            last = f"{block.slot}.{channels.output.layer}"
            add(last, channels.output)
    return found


def _channel_map(parent: _Group, width: int, rng: np.random.Generator) -> ChannelMap:
    if width > parent.width:
        return widening(parent.width, width, rng)
    if not parent.channels.consumers:
        return narrowing(torch.zeros(parent.width), width)
    return narrowing(l1_norm(parent.channels), width)


def _source(name: str, parent: Mapping[str, Tensor]) -> str | None:
    """The tensor of the parent that a tensor of the child begins with; None for fresh ones."""
    if name in parent:
        return name
    cell = _CELL_CONV.fullmatch(name)
    if cell is None:
        return None
    # The convolution of the same edge of a cell, at its other kernel.
    kernel = "3x3" if cell["kernel"] == "1x1" else "1x1"
    other = f"{cell['before']}{kernel}{cell['edge']}"
    return other if other in parent else None


def _fitted(
    name: str,
    found: Tensor,
    fresh: Tensor,
    maps: Mapping[tuple[str, int], ChannelMap],
    whole: Collection[tuple[str, int]],
    approximations: list[str],
) -> Tensor:
    """A tensor of the parent in the shape of the child's.

    Args:
        name: of the child's tensor.
        found: of the parent.
        fresh: of the child, for its shape, and where the parent's cannot be carried over.
        maps: of axes, by tensor and dimension.
        whole: axes of heads, of which the first ones are kept and new ones are fresh.
        approximations: where what is cut is added.
    """
    for dim in range(found.ndim):
        if (name, dim) in maps:
            # The second dimension of a weight reads channels, in a squeeze-and-excite too.
            found = maps[name, dim].carry(found, dim, consumes=dim == 1)
    for dim, size in enumerate(fresh.shape):
        if (name, dim) in whole and found.shape[dim] != size:
            kept = min(found.shape[dim], size)
            new = fresh.narrow(dim, kept, size - kept).to(found.device)
            found = torch.cat([found.narrow(dim, 0, kept), new], dim)
    if found.ndim == 4 and found.shape[2:] != fresh.shape[2:]:
        if found.shape[-1] > fresh.shape[-1]:
            approximations.append(f"{name} keeps the centre of its kernel")
        found = centred(found, fresh.shape[-1])
    if found.shape != fresh.shape:
        approximations.append(f"{name} is fresh: its channels are not those of the parent's")
        return fresh
    return found


def centred(weight: Tensor, kernel: int) -> Tensor:
    """A kernel with zeros around it, or its centre.

    (..., k, k) to (..., kernel, kernel).
    """
    around = (kernel - weight.shape[-1]) // 2
    return nn.functional.pad(weight, (around,) * 4)


@torch.no_grad()
def _begin_as_identity(child: nn.Module, parent: nn.Module, blocks: Sequence[Block]) -> None:
    """Let what the parent does not have change nothing yet.

    The last BatchNorm of a new block or path has scale 0: its gradient is not 0, so the block
    learns from the second step on. A new squeeze-and-excite is a gate of one half, which the next
    weights take back: the hard sigmoid has its largest slope there, and none where it is 1.
    """
    known = dict(parent.named_modules())
    for block in blocks:
        slot = f"blocks.{block.slot}"
        module: Any = child.get_submodule(slot)
        if slot not in known:
            for norm in _last_norms(module):
                nn.init.zeros_(norm.weight)
            continue
        had_gate = getattr(known[slot], "squeeze_expand", None) is not None
        if getattr(module, "squeeze_expand", None) is not None and not had_gate:
            nn.init.zeros_(module.squeeze_expand.weight)
            nn.init.zeros_(module.squeeze_expand.bias)
            module.project.weight.mul_(2)
        norms: dict[str, Any] = dict(getattr(module, "norms", {}))
        for name, norm in norms.items():
            if _source(f"{slot}.norms.{name}.weight", dict(parent.state_dict())) is None:
                nn.init.zeros_(norm.weight)


@torch.no_grad()
def _compute_new_statistics(child: nn.Module, images: Tensor) -> None:
    """Statistics of the BatchNorms that the parent does not have, by a batch that runs as in
    evaluation elsewhere."""
    child.eval()
    for norm in child.modules():
        if isinstance(norm, nn.BatchNorm2d) and norm.running_mean is not None:
            norm.train(bool(norm.running_mean[0].isnan()))
    child(images)
    child.eval()


def _last_norms(module: nn.Module) -> list[Any]:
    """The BatchNorms whose scale of 0 makes a new block the identity."""
    if isinstance(module, plain.ConvBlock):
        return [module.norm1] if module.residual else []
    norm = module.residual_norm if isinstance(module, plain.BlockModule) else None
    return [] if norm is None else [norm]


def _differences(parent: Sequence[Block], child: Sequence[Block]) -> list[str]:
    """What the descriptions show of the changes that do not keep the function."""
    theirs, ours = {one.slot: one for one in parent}, {one.slot: one for one in child}
    found = [f"{slot} is left out" for slot in theirs if slot not in ours]
    for slot, block in ours.items():
        if slot not in theirs:
            if not _is_identity_at_first(block):
                found.append(f"{slot} is new and not a residual block whose sum is its output")
        elif type(theirs[slot]) is not type(block):
            found.append(f"{slot} is another block")
        else:
            found += _field_differences(theirs[slot], block)
    return found


def _field_differences(parent: Block, child: Block) -> Iterable[str]:
    for one in dataclasses.fields(child):
        before, after = getattr(parent, one.name), getattr(child, one.name)
        if before != after and one.name not in _CARRIED:
            yield f"{one.name} is {after} instead of {before}"
    if parent.in_channels != child.in_channels and _has_layer_norm(child):
        widths = f"{child.in_channels} channels instead of {parent.in_channels}"
        yield f"{child.slot} normalises {widths}"
    if getattr(parent, "residual", None) != getattr(child, "residual", None):
        yield f"{child.slot} adds its input in one of the two only"
    if bool(getattr(parent, "expand", 0)) != bool(getattr(child, "expand", 0)) or bool(
        getattr(parent, "hidden", 0)
    ) != bool(getattr(child, "hidden", 0)):
        yield f"{child.slot} has another number of layers"
    if getattr(parent, "squeeze_excite", False) and not getattr(child, "squeeze_excite", False):
        yield f"{child.slot} leaves out its squeeze-and-excite"
    operations = getattr(child, "operations", None)
    if operations is not None and operations != getattr(parent, "operations", None):
        yield from _cell_differences(getattr(parent, "operations", ""), operations)


def _has_layer_norm(block: Block) -> bool:
    """Whether it normalises over channels: copies of some of them change the others."""
    operations = (layer.operation for layer in block.layers())
    return any(one is not None and one.operator == "layer_norm" for one in operations)


def _cell_differences(parent: str, child: str) -> Iterable[str]:
    """Edges of a cell that no weights can make equal.

    A new convolution begins at zero, and so does all that reads a node that nothing reached before.
    """
    before = {edge[:2]: edge[2] for edge in cell_edges(parent)}
    after = {edge[:2]: edge[2] for edge in cell_edges(child)}
    reached = {0, *(target for _, target in before)}
    for edge in sorted(before.keys() | after.keys()):
        one, other = before.get(edge, "none"), after.get(edge, "none")
        starts_at_zero = other.startswith("nor_conv") or edge[0] not in reached
        grows = (one, other) == ("nor_conv_1x1", "nor_conv_3x3")
        if one != other and not grows and not (one == "none" and starts_at_zero):
            yield f"edge {edge[0]} to {edge[1]} of the cell is {other} instead of {one}"


def _is_identity_at_first(block: Block) -> bool:
    """Whether a new block computes its input while its last BatchNorm has scale 0."""
    match type(block).__name__:
        case "InvertedResidual" | "ConvBlock":
            return bool(getattr(block, "residual", False))
        case "BasicBlock" | "Bottleneck":
            # The activation behind the sum meets what the last block activated already.
            plain_sum = not getattr(block, "project", False)
            return plain_sum and getattr(block, "activation", "") in IDEMPOTENT
        case _:
            return False
