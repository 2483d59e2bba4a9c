"""A supernet: one set of weights that holds every network of a space.

It has an elastic block for each slot of the space's largest network. Running an architecture runs
the blocks of its slots, sliced to its sizes; extracting it copies the same slices into a plain
network. Training the shared weights is `pliant.training.loop`.
"""

from __future__ import annotations

import functools
import inspect
import itertools
from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from typing import Any, cast

import numpy as np
import torch
from torch import Tensor, nn

from pliant.errors import EncodingError
from pliant.networks import cell_modules, plain, transformer_modules  # noqa: F401 - blocks
from pliant.networks.channels import (
    BlockChannels,
    ChannelGroup,
    block_channels,
    channels_of,
    merged,
)
from pliant.networks.elastic_blocks import (
    ELASTIC_BLOCKS,
    ElasticBlock,
    Head,
    copy_active,
    plain_block,
)
from pliant.networks.importance import Contribution, Importance, input_deviations, l1_norm
from pliant.networks.initialization import initialise
from pliant.networks.onnx import random_weights
from pliant.plugins import error_place
from pliant.spaces.architecture import Architecture
from pliant.spaces.block import Block
from pliant.spaces.check import check_space
from pliant.spaces.space import Space


def describe(blocks: Iterable[Block]) -> plain.Description:
    """The blocks of an architecture in the form from which `plain.Network` is built."""
    return [(block.slot, type(block).__name__, _module_sizes(block)) for block in blocks]


def _module_sizes(block: Block) -> dict[str, Any]:
    """Views are sizes of modules that add or average them; for others they are a longer batch."""
    sizes = block.sizes
    if "views" in sizes and not _knows_views(type(block).__name__):
        del sizes["views"]
    return sizes


@functools.cache
def _knows_views(name: str) -> bool:
    return "views" in inspect.signature(plain_block(name)).parameters


def build(
    space: Space, architecture: Architecture, *, mean: Sequence[float], std: Sequence[float]
) -> plain.Network:
    """A plain network with fresh weights, trained alone by the same recipe as the supernet."""
    network = plain.Network(describe(space.blocks(architecture)))
    initialise(network)
    _normalise_images(network, mean, std)
    return network


def _normalise_images(network: nn.Module, mean: Sequence[float], std: Sequence[float]) -> None:
    for module in network.modules():
        if isinstance(module, plain.Preprocess):
            module.mean.copy_(torch.tensor(mean))
            module.std.copy_(torch.tensor(std))


def require_described(block: Block) -> None:
    """Refuse a block whose layers and plain module do not have the same parameters.

    Raises:
        EncodingError: naming the block, and a parameter that one of the two lacks or sizes
            differently.
    """
    name = type(block).__name__
    if name not in plain.BLOCKS:
        raise EncodingError(
            f"a block has a plain and an elastic module, received {name} with none."
            " Call register_block with all three."
        )
    with torch.device("meta"):
        module = plain.Network(describe([block])).blocks[block.slot]
    built = {
        key: tuple(tensor.shape)
        for key, tensor in module.state_dict().items()
        if not key.endswith("num_batches_tracked")
    }
    described = {
        key: value.shape for key, value in random_weights(block, np.random.default_rng(0)).items()
    }
    for key in sorted(built.keys() | described.keys()):
        here, there = described.get(key), built.get(key)
        # A linear layer at every pixel is a 1x1 convolution.
        if here != there and (here is None or there is None or here != (*there, 1, 1)):
            raise EncodingError(
                f"the layers of a block name the parameters of its plain module: {name} has"
                f" {key!r} {_of_shape(here)} in its layers and {_of_shape(there)} in its module."
                f" Describe it in {name}.layers."
            )


def _of_shape(shape: tuple[int, ...] | None) -> str:
    """The shape of a parameter, for messages."""
    return "not at all" if shape is None else f"of shape {shape}"


class Supernet(nn.Module):
    """Shared weights of all networks of a space.

    Args:
        space: whose largest architecture gives the shapes.
        mean, std: of the training images by channel, pixels from 0 to 1.

    Raises:
        EncodingError: the networks of the space do not fit together, a block's layers leave a
            parameter of its module undescribed, or an elastic module of the user's own does not run
            at a size of the space.
    """

    def __init__(self, space: Space, *, mean: Sequence[float], std: Sequence[float]) -> None:
        super().__init__()
        check_space(space)
        self.space = space
        for block in space.blocks(space.largest()):
            require_described(block)
        self.blocks = nn.ModuleDict()
        for key, block in self.weight_holders().items():
            [(_, name, sizes)] = describe([block])
            self.blocks[key] = plain.build_block(ELASTIC_BLOCKS[name], sizes)
        initialise(self)
        _normalise_images(self, mean, std)
        self._require_elastic()

    def weight_holders(self) -> Mapping[str, Block]:
        """The blocks that have weights, by key: for each slot the largest, which all others cut."""
        return {block.slot: block for block in self.space.blocks(self.space.largest())}

    def module_of(self, block: Block) -> ElasticBlock:
        """The module with the weights of a block."""
        return cast(ElasticBlock, self.blocks[block.slot])

    @property
    def trained(self) -> tuple[Architecture, ...] | None:
        """The networks whose weights were trained to the end; None where all of the space were."""
        return None

    @torch.no_grad()
    def _require_elastic(self) -> None:
        """Run every block of the user's own once at each size that one choice gives it.

        Raises:
            EncodingError: its elastic module fails at a size, or returns another shape than its
                layers say.
        """
        tried: set[Block] = set()
        for architecture in self.space.corners():
            for block in self.space.blocks(architecture):
                if not (block in tried or type(block).__module__.startswith("pliant.")):
                    tried.add(block)
                    self._run_alone(block)

    def _run_alone(self, block: Block) -> None:
        images = torch.zeros(2 * block.in_views, block.in_channels, block.size, block.size)
        last = block.layers()[-1]
        expected = (2 * last.N, last.G * last.K)
        name = f"the elastic module of {type(block).__name__} at {block.sizes}"
        try:
            found = tuple(self._run(block, images, dropout=False).shape[:2])
        except Exception as error:
            raise EncodingError(
                f"an elastic module runs at every size of its space: {name} ended in an error at "
                f"{error_place(error)}: {error!r}."
            ) from error
        if found != expected:
            raise EncodingError(
                f"an elastic module computes what its layers say: {name} returns (images, "
                f"channels) {found}, its layers {expected}."
            )

    def forward(
        self, images: Tensor, architecture: Architecture, *, dropout: bool = False
    ) -> Tensor:
        """Logits of a sub-network by batch statistics.

        (N, channels, size, size) pixels from 0 to 1 to (N, classes).
        """
        for block in self.space.blocks(architecture):
            images = self._run(block, images, dropout)
        return images

    def _run(self, block: Block, images: Tensor, dropout: bool) -> Tensor:
        module = self.module_of(block)
        options = (dropout,) if isinstance(module, Head) else ()
        found: Tensor = module(images, block, *options)
        return found

    def extract(self, architecture: Architecture) -> plain.Network:
        """The sub-network as a plain network of its own.

        Its BatchNorm statistics are unknown until it is calibrated.
        """
        blocks = self.space.blocks(architecture)
        network = plain.Network(describe(blocks))
        for block in blocks:
            target: Any = network.blocks[block.slot]
            copy_active(self.module_of(block), target)
        return network.to(next(self.parameters()).device)

    @torch.no_grad()
    def sort_channels(
        self, trained: Sequence[Architecture] = (), images: Tensor | None = None
    ) -> None:
        """Put the important channels first in every group whose width can shrink.

        The largest network computes the same.

        Args:
            trained: architectures whose widths were already trained as leading channels. Channels
                never cross the border of such a width, so what those networks compute stays the
                same too.
            images: (N, channels, size, size) pixels from 0 to 1, by whose activations channels are
                important; by their weights alone where None.
        """
        importance: Importance = l1_norm
        if images is not None:
            run = functools.partial(self, images, self.space.largest())
            importance = Contribution(input_deviations(self, run))
        largest = self.space.blocks(self.space.largest())
        channels = {block.slot: block_channels(block, self.blocks[block.slot]) for block in largest}
        narrower = _by_slot(self.space, self.space.corners())
        kept = _by_slot(self.space, trained)
        for block in largest:
            for group in channels[block.slot].inner:
                widest = channels_of(block, group.layer)
                widths = {channels_of(other, group.layer) for other in narrower[block.slot]}
                if group.fixed or widths <= {widest, None}:
                    continue
                found = {channels_of(other, group.layer) for other in kept[block.slot]}
                assert widest is not None
                in_unit = widest // (group.units or widest)
                borders = {width // in_unit for width in found if width is not None}
                _sort(group, borders, importance)
        _sort_outputs(largest, channels, kept, importance)


def _by_slot(space: Space, architectures: Iterable[Architecture]) -> Mapping[str, set[Block]]:
    """The different blocks that architectures have at each slot."""
    found: defaultdict[str, set[Block]] = defaultdict(set)
    for architecture in architectures:
        for block in space.blocks(architecture):
            found[block.slot].add(block)
    return found


def _sort_outputs(
    largest: Sequence[Block],
    channels: Mapping[str, BlockChannels],
    kept: Mapping[str, set[Block]],
    importance: Importance,
) -> None:
    """Sort the output channels of blocks.

    A group of channels runs from the block that produces them through all that only add to them.
    """
    group = ChannelGroup(fixed=True)  # the image's channels keep their order
    widths: set[int] = set()
    for block in largest:
        found = channels[block.slot]
        group = merged(group, found.input)
        widths |= {other.in_channels for other in kept[block.slot]}
        if found.output is found.input:
            continue
        _sort(group, widths, importance)
        group, widths = found.output, set()


def _sort(group: ChannelGroup, kept: Iterable[int], importance: Importance) -> None:
    """Order channels, or units of them, by falling importance.

    They stay inside the tier between two kept widths, which count units.
    """
    if group.fixed or not group.consumers or not group.producers:
        return
    found = importance(group)
    units = len(found)
    borders = sorted({0, units, *(width for width in kept if width < units)})
    order = torch.cat(
        [
            start + found[start:end].argsort(descending=True, stable=True)
            for start, end in itertools.pairwise(borders)
        ]
    )
    for parameter, dim in (*group.consumers, *group.producers):
        in_unit = parameter.shape[dim] // units
        # (units,) to (units x channels of one,) where a unit has several.
        whole = (order[:, None] * in_unit + torch.arange(in_unit, device=order.device)).flatten()
        parameter.copy_(parameter.index_select(dim, whole))
