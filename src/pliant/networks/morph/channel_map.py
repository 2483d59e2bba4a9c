"""Where each channel of a child comes from in its parent, and how much of it a copy carries.

Chen, T., Goodfellow, I., Shlens, J., Net2Net: Accelerating Learning via Knowledge Transfer, 2015,
arXiv:1511.05641, section 2.2: a wider layer holds copies of channels, and what reads a channel
divides its weight among the copies. Equal parts leave twins equal for ever. Here the parts are
unequal, as in Wang, Y. et al., LEMON: Lossless Model Expansion, 2023, arXiv:2310.07999, section 4:
the sum is exact, and twins receive other gradients from the first step on, without any noise.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

SHARES = (0.5, 1.5)
"""Between them, the parts of a channel's copies are drawn, then divided by their sum."""


@dataclass(frozen=True)
class ChannelMap:
    """The channels of a child along one axis."""

    source: Tensor
    """Channel of the parent that each one copies, (new,) int64."""
    share: Tensor
    """Factor of the weights that read it, (new,) float64; over the copies of a channel, 1."""

    def blocks(self, positions: int) -> ChannelMap:
        """The same map for an axis on which each channel has so many positions in a row.

        A linear layer behind a flattened picture has a position per pixel.
        """
        if positions == 1:
            return self
        source = self.source[:, None] * positions + torch.arange(positions)
        return ChannelMap(source.flatten(), self.share.repeat_interleave(positions))

    def carry(self, tensor: Tensor, dim: int, *, consumes: bool) -> Tensor:
        """A tensor of the parent with the child's channels along a dimension.

        Args:
            tensor: of the parent.
            dim: the dimension of the channels.
            consumes: whether it is a weight that reads them, and so divides among copies.
        """
        found = tensor.index_select(dim, self.source.to(tensor.device))
        if not consumes:
            return found
        shape = [1] * tensor.ndim
        shape[dim] = -1
        return found * self.share.to(tensor).view(shape)


def identity_map(channels: int) -> ChannelMap:
    """Every channel once."""
    return ChannelMap(torch.arange(channels), torch.ones(channels, dtype=torch.float64))


def widening(old: int, new: int, rng: np.random.Generator) -> ChannelMap:
    """All channels of the parent, then copies of random ones.

    Args:
        old: channels of the parent.
        new: channels of the child, at least as many.
        rng: of the copies and their shares.
    """
    source = np.concatenate([np.arange(old), rng.integers(old, size=new - old)])
    weight = rng.uniform(*SHARES, size=new)
    share = weight / np.bincount(source, weights=weight)[source]
    return ChannelMap(torch.from_numpy(source), torch.from_numpy(share))


def narrowing(importance: Tensor, new: int) -> ChannelMap:
    """The most important channels, in their order; what the parent computed is not kept.

    Args:
        importance: (old,) the larger, the more important.
        new: channels of the child, at most as many.
    """
    source = importance.argsort(descending=True, stable=True)[:new].sort().values
    return ChannelMap(source, torch.ones(new, dtype=torch.float64))


def concatenated(parts: Sequence[tuple[ChannelMap, int]]) -> ChannelMap:
    """The map of an axis that several groups of channels share, one behind the other.

    Args:
        parts: the map of each group, and its positions on the parent's axis.
    """
    source, share, start = [], [], 0
    for part, positions in parts:
        source.append(part.source + start)
        share.append(part.share)
        start += positions
    return ChannelMap(torch.cat(source), torch.cat(share))
