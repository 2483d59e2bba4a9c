"""AZ-NAS: four components, each one trait of a network with Kaiming weights on Gaussian images.

J. Lee, B. Ham, "AZ-NAS: Assembling Zero-Cost Proxies for Network Architecture Search", CVPR 2024,
arXiv:2403.19232.

Let F_1 ... F_n be the feature maps at the ends of the blocks (`zero_shot.block_ends`), and S_i the
entropy of the spectrum of F_i: the eigenvalues of the covariance between its channels, over images
and positions, divided by their sum.

    az-expressivity   sum over i of S_i                            features use all channels    (1)
    az-progressivity  min over i of S_i+1 - S_i                    each block adds to them      (2)
    az-trainability   mean over i of 2 - s_i - 1 / (s_i + 1e-6)    gradients keep their size    (3)
    az-complexity     MACs                                                                      (4)

s_i is the largest singular value of the mean over images and positions of g_in g_out'. Here g_out
is a random +1 or -1 for each value of F_i+1, and g_in its gradient with respect to F_i. Where a
block reduces the map, the positions of g_in that belong to one of g_out are stacked as channels.
The channels of images are their second axis, those of tokens the last one
(`zero_shot.channel_axis`); tokens that a block adds in front have no partner in g_in and are left
out of g_out.

`aggregate_ranks` combines components over a set of networks:

    az-nas            sum over components of log(rank / n)         0 if first in all of them    (5)
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import torch
from scipy import stats
from torch import Tensor, nn
from torch.nn import functional as F

from pliant.accuracy.zero_shot.block_ends import LayerCall, LayerCalls, block_ends
from pliant.accuracy.zero_shot.channel_axis import (
    ChannelAxes,
    channel_axis,
    channels_second,
    set_channel_axis,
)
from pliant.accuracy.zero_shot.copies import copy_own_weights
from pliant.accuracy.zero_shot.forward import forward_pass
from pliant.accuracy.zero_shot.initial_weights import kaiming_normal
from pliant.accuracy.zero_shot.scoring_input import (
    RefusedError,
    ScoringInput,
    ZeroShotScore,
)
from pliant.accuracy.zero_shot.size import macs
from pliant.errors import DataError
from pliant.metrics import Failed

COMPONENTS = ("az-expressivity", "az-progressivity", "az-trainability", "az-complexity")
complexity = macs  # (4)


def expressivity(inputs: ScoringInput) -> ZeroShotScore:
    """How many of their channels all feature maps use.

    Raises:
        RefusedError: a feature map is constant, or there are no two blocks.
    """
    return ZeroShotScore(float(sum(_entropies(inputs))))  # (1)


def progressivity(inputs: ScoringInput) -> ZeroShotScore:
    """How much the least useful block adds to the channels in use.

    Raises:
        RefusedError: as of `expressivity`.
    """
    return ZeroShotScore(float(np.diff(_entropies(inputs)).min()))  # (2)


def trainability(inputs: ScoringInput) -> ZeroShotScore:
    """How well gradients keep their size from block to block; at most 0.

    Raises:
        RefusedError: a block passes its gradient on unchanged, or makes maps larger.
    """
    network, generator = copy_own_weights(inputs.network), inputs.generator()
    kaiming_normal(network, generator, inputs.images[:2])
    for parameter in network.parameters():
        parameter.requires_grad_(False)
    maps = _maps(network, inputs.noise(generator), cut=True)
    stabilities = []
    while len(maps) > 1:  # the last block first; a map that is done is freed
        made, _, axis = maps.pop()
        _, given, axis_before = maps[-1]
        g_out = (
            torch.empty(made.shape).bernoulli_(0.5, generator=generator).mul_(2).sub_(1).to(made)
        )
        g_in = (
            torch.autograd.grad(made, given, g_out, allow_unused=True)[0]
            if made.requires_grad
            else None
        )
        g_in = torch.zeros_like(given) if g_in is None else g_in
        stabilities.append(
            _stability(channels_second(g_in, axis_before), channels_second(g_out, axis))
        )
    return ZeroShotScore(float(np.mean(stabilities)))  # (3)


@torch.no_grad()
def _entropies(inputs: ScoringInput) -> list[float]:
    network, generator = copy_own_weights(inputs.network), inputs.generator()
    kaiming_normal(network, generator, inputs.images[:2])
    maps = _maps(network, inputs.noise(generator), cut=False)
    return [_entropy(channels_second(made, axis)) for made, _, axis in maps]


def _entropy(feature: Tensor) -> float:
    values = feature.transpose(0, 1).flatten(1)
    values = values - values.mean(1, keepdim=True)
    spectrum = torch.linalg.eigvalsh(values @ values.T).clamp_(min=0)
    if not float(spectrum.sum()) > 0:
        raise RefusedError(
            "this score looks at how feature maps vary; that of a block is constant."
        )
    share = spectrum / spectrum.sum()
    return float(-(share * (share + 1e-8).log()).sum())


def _maps(network: nn.Module, images: Tensor, *, cut: bool) -> list[tuple[Tensor, Tensor, int]]:
    """The feature map of each block: as its output, as the input of the next block, and the axis
    of its channels.

    Args:
        network: a copy.
        images: (N, channels, height, width)
        cut: whether gradients end between a block and the next.
    """
    found: list[tuple[Tensor, Tensor, int]] = []
    ends = frozenset(block_ends(network, images))

    def keep(number: int, _: LayerCall, made: Any) -> Any:
        if number not in ends:
            return made
        given, axis = made.detach().requires_grad_(cut), channel_axis(made)
        found.append((made, given, axis))
        following = given.clone()  # the next block may overwrite its input in place
        set_channel_axis(following, axis)
        return following

    with ChannelAxes():
        forward_pass(network, images, LayerCalls(network, len(images), keep))
    return found


def _stability(g_in: Tensor, g_out: Tensor) -> float:
    if g_in.shape == g_out.shape and torch.equal(g_in, g_out):
        raise RefusedError(
            "a block passes its gradient on unchanged: trainability is minus infinity."
        )
    if g_in.ndim == g_out.ndim == 4 and g_in.shape[2:] != g_out.shape[2:]:
        g_in = _stack_positions(g_in, g_out)
    if 3 in (g_in.ndim, g_out.ndim):  # tokens
        g_in, g_out = g_in.flatten(2), g_out.flatten(2)
        # Those that a block adds in front, as a class token, have no partner.
        g_out = g_out[:, :, max(0, g_out.shape[2] - g_in.shape[2]) :]
    if g_in.shape[2:] != g_out.shape[2:]:
        raise RefusedError(
            "blocks keep the size of maps or reduce it; one goes from "
            f"{tuple(g_in.shape)} to {tuple(g_out.shape)}."
        )
    inner, outer = (one.transpose(0, 1).flatten(1) for one in (g_in, g_out))
    largest = float(torch.linalg.matrix_norm(inner @ outer.T / inner.shape[1], 2))
    return 2 - largest - 1 / (largest + 1e-6)


def _stack_positions(g_in: Tensor, g_out: Tensor) -> Tensor:
    """Positions of g_in that belong to one of g_out as channels: (N, stride^2 C, H_out, W_out)."""
    stride = math.ceil(g_in.shape[2] / g_out.shape[2])
    rows, columns = (
        stride * size - had for size, had in zip(g_out.shape[2:], g_in.shape[2:], strict=True)
    )
    if stride == 1 or rows < 0 or columns < 0:
        return g_in
    return F.pixel_unshuffle(F.pad(g_in, (0, columns, 0, rows)), stride)


def aggregate_ranks(
    rows: Sequence[Mapping[str, float | ZeroShotScore | Failed | None]],
    components: Sequence[str] = COMPONENTS,
) -> list[float]:
    """One number per network, higher is better: (5).

    Args:
        rows: the scores of each network by name; one that failed, is missing or is infinite ranks
            last.
        components: names of the scores to combine.

    Raises:
        DataError: no network has one of the components.
    """
    total = np.zeros(len(rows))
    for component in components:
        if rows and not any(component in row for row in rows):
            raise DataError(
                f"a rank aggregate combines {', '.join(components)}; no network has {component}. "
                "Compute it first."
            )
        values = [_last_if_missing(row.get(component)) for row in rows]
        total += np.log(stats.rankdata(values) / max(1, len(rows)))
    return [float(value) for value in total]


def _last_if_missing(score: float | ZeroShotScore | Failed | None) -> float:
    value = score.value if isinstance(score, ZeroShotScore) else score
    if value is None or isinstance(value, Failed) or not math.isfinite(value):
        return -math.inf
    return float(value)
