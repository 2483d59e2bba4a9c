"""Squeeze-and-excitation and skips that change nothing at first, behind a layer of any module.

Hu, J., Shen, L., Sun, G., Squeeze-and-Excitation Networks, 2017, arXiv:1709.01507. The gate begins
as 2 sigmoid(0) = 1, where the sigmoid is steepest: a gate that begins saturated at 1 would never
learn. A skip begins with weights of 0, as in Network Morphism (Wei et al. 2016, arXiv:1603.01670).
"""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from pliant.errors import MorphError
from pliant.networks.morph.check import require_same_function
from pliant.networks.morph.insert import channels_of_output, layer_tensors, replaced


class SqueezeExcite(nn.Module):
    """x times a gate from 0 to 2 for each channel, made of the channels' means.

    Args:
        channels: of x, (N, channels, H, W).
        squeezed: channels between the two convolutions.
    """

    def __init__(self, channels: int, squeezed: int) -> None:
        super().__init__()
        self.reduce = nn.Conv2d(channels, squeezed, 1)
        self.expand = nn.Conv2d(squeezed, channels, 1)
        nn.init.zeros_(self.expand.weight)
        assert self.expand.bias is not None
        nn.init.zeros_(self.expand.bias)

    def forward(self, x: Tensor) -> Tensor:
        squeezed = F.relu(self.reduce(x.mean((2, 3), keepdim=True)))
        return x * (2 * torch.sigmoid(self.expand(squeezed)))


class Skip(nn.Module):
    """A layer plus a 1x1 convolution of its input, whose weights are 0 at first.

    Args:
        layer: that is skipped.
        conv: of the layer's input, with the stride of the layer.
    """

    def __init__(self, layer: nn.Module, conv: nn.Conv2d) -> None:
        super().__init__()
        self.layer, self.skip = layer, conv
        nn.init.zeros_(conv.weight)

    def forward(self, x: Tensor) -> Tensor:
        return self.layer(x) + self.skip(x)


def add_squeeze_excite(
    module: nn.Module,
    layer: str,
    images: Tensor,
    rng: np.random.Generator,
    *,
    reduction: int = 4,
) -> nn.Module:
    """A copy of a module with a squeeze-and-excitation behind a layer; it computes the same.

    Args:
        module: not changed.
        layer: name of the layer, whose output is (N, channels, H, W).
        images: (N, channels, size, size) pixels, at least 2, on which the child is checked.
        rng: of new weights.
        reduction: channels over those between the two new convolutions.

    Raises:
        MorphError: the layer's output has another shape.
    """
    _, output = layer_tensors(module, layer, images)
    channels = channels_of_output(layer, output)
    if output.ndim != 4:
        raise MorphError(
            f"squeeze-and-excitation is for pictures; {layer} returns {tuple(output.shape)}."
            " Name a layer before the pooling."
        )
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(int(rng.integers(2**31)))
        gate = SqueezeExcite(channels, max(1, channels // reduction))
    child = replaced(module, layer, lambda old: nn.Sequential(old, gate))
    require_same_function(module, child, images, what=f"squeeze-and-excitation behind {layer}")
    return child


def add_skip(module: nn.Module, layer: str, images: Tensor) -> nn.Module:
    """A copy of a module with a skip around a layer; it computes the same.

    Args:
        module: not changed.
        layer: name of a layer or block from (N, channels, H, W) to pictures of the same size, or
            of this size divided by a whole number.
        images: (N, channels, size, size) pixels, at least 2, on which the child is checked.

    Raises:
        MorphError: the layer's input and output have other shapes.
    """
    entering, leaving = layer_tensors(module, layer, images)
    strides = [1, 1]
    if entering.ndim == leaving.ndim == 4:
        strides = [
            -(-one // other)
            for one, other in zip(entering.shape[2:], leaving.shape[2:], strict=True)
        ]
    sizes = [-(-size // stride) for size, stride in zip(entering.shape[2:], strides, strict=False)]
    if leaving.ndim != 4 or sizes != list(leaving.shape[2:]):
        raise MorphError(
            f"a skip leads around a layer from pictures to pictures of this size or a part of it;"
            f" {layer} makes {tuple(leaving.shape)} of {tuple(entering.shape)}. Name another layer."
        )
    conv = nn.Conv2d(entering.shape[1], leaving.shape[1], 1, (strides[0], strides[1]), bias=False)
    child = replaced(module, layer, lambda old: Skip(old, conv))
    require_same_function(module, child, images, what=f"a skip around {layer}")
    return child
