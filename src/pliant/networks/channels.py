"""The parameters of a block that share channels, which sorting permutes together.

They are derived from its layers. A dense layer consumes the channels that it reads and produces new
ones. A depthwise convolution, a normalisation and a scale pass channels through, and so do layers
without parameters. An addition ties the channels of all that it adds. Attention ties queries, keys
and values: a head is a unit of several channels, which keep their order within it.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field

from torch import Tensor, nn

from pliant.spaces.block import Block
from pliant.workload import NETWORK_INPUT, Layer, Operation, gates

Axis = tuple[Tensor, int]
"""A parameter and its dimension that runs over the channels of a group."""


@dataclass(eq=False)
class ChannelGroup:
    """Channels that must keep the same order in several parameters."""

    consumers: list[Axis] = field(default_factory=list)
    """Weights that read the channels, from which their importance follows."""
    producers: list[Axis] = field(default_factory=list)
    """Everything else that is indexed by the channels: what writes them or passes them through."""
    layer: str = ""
    """The first layer that writes them, by its name within the block; of no use for the input."""
    last_consumer: int = -1
    """Position of the last layer that consumes them."""
    fixed: bool = False
    """Whether the channels keep their order, since not all that is indexed by them is known."""
    units: int | None = None
    """How many units of equally many neighbouring channels are permuted, such as heads.

    None where each channel is one.
    """


@dataclass(frozen=True)
class BlockChannels:
    """The channel groups of a block; `output` is `input` where a residual ties them."""

    input: ChannelGroup
    inner: tuple[ChannelGroup, ...]
    """In the order in which they are sorted: those that the last layers consume first."""
    output: ChannelGroup


def block_channels(block: Block, module: nn.Module) -> BlockChannels:
    """The channel groups of a module.

    Args:
        block: the description, with the sizes of the module.
        module: has the parameters that the layers name.
    """
    layers = block.layers()
    ties = _tied(layers)
    groups = {name: ChannelGroup() for name in dict.fromkeys(ties.values())}
    scales = {name: ties[mul] for name, mul in gates(layers).items()}
    parameters = dict(module.named_parameters())
    named: set[str] = set()
    for step, layer in enumerate(layers):
        read, written = groups[ties[layer.inputs[0]]], groups[ties[layer.name]]
        written.layer = written.layer or layer.name.removeprefix(f"{block.slot}.")
        if _is_attention(layer):
            written.units = layer.G
        elif layer.weighted and _mixes_groups(layer):
            read.fixed = written.fixed = True
        operation = layer.operation or Operation("identity")
        for path in filter(None, (operation.module, operation.batch_norm)):
            named.add(path)
            for name in (path, f"{path}.weight", f"{path}.bias"):
                if name in parameters:
                    written.producers.append((parameters[name], 0))
        if not _is_dense(layer):
            continue
        weight = parameters[f"{operation.module}.weight"]
        if scales.get(layer.name) == ties[layer.inputs[0]]:
            # Squeeze-and-excite reads channels only to scale them: that is no importance.
            read.producers.append((weight, 1))
        else:
            read.consumers.append((weight, 1))
            read.last_consumer = step
    first, last = groups[ties[NETWORK_INPUT]], groups[ties[layers[-1].name]]
    if not all(_is_named(name, named) for name in parameters):
        for group in groups.values():
            group.fixed = True
    inner = [group for group in groups.values() if group not in (first, last) and group.consumers]
    inner.sort(key=lambda group: -group.last_consumer)
    return BlockChannels(first, tuple(inner), last)


def merged(one: ChannelGroup, other: ChannelGroup) -> ChannelGroup:
    """The output channels of a block and the input channels of the next one, which are the same."""
    return ChannelGroup(
        one.consumers + other.consumers,
        one.producers + other.producers,
        fixed=one.fixed or other.fixed,
        units=one.units or other.units,
    )


def channels_of(block: Block, layer: str) -> int | None:
    """Output channels of a layer, by its name within the block; None where it has no such layer."""
    for one in block.layers():
        if one.name == f"{block.slot}.{layer}":
            return one.G * one.K
    return None


def _is_dense(layer: Layer) -> bool:
    return layer.weighted and layer.G == 1 and not _is_attention(layer)


def _is_attention(layer: Layer) -> bool:
    """Whether it multiplies two computed tensors, head by head."""
    operator = layer.operation.operator if layer.operation else ""
    return operator in ("attention_scores", "attention_values")


def _mixes_groups(layer: Layer) -> bool:
    """Whether a convolution has groups of more than one channel, within which order matters."""
    return layer.G > 1 and (layer.K > 1 or layer.C > 1)


def _is_named(parameter: str, paths: set[str]) -> bool:
    """Whether a parameter, or a module that holds it, is named by the layers."""
    parts = parameter.split(".")
    return any(".".join(parts[:end]) in paths for end in range(1, len(parts) + 1))


def _tied(layers: Sequence[Layer]) -> dict[str, str]:
    """The group of each tensor: the name of the first tensor that has the same channels."""
    group = {NETWORK_INPUT: NETWORK_INPUT}
    for layer in layers:
        group[layer.name] = layer.name if _is_dense(layer) else group[layer.inputs[0]]
        if layer.weighted:
            continue
        for name in layer.inputs[1:]:
            kept, tied = group[layer.name], group[name]
            for other, of in group.items():
                group[other] = kept if of == tied else of
    return group
