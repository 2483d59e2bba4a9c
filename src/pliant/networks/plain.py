"""The blocks as plain PyTorch modules.

This file needs nothing but PyTorch: a delivered network carries a copy of it.

Every class is the module of the block of the same name and takes that block's sizes. A network is a
list of (slot, block name, sizes); `Network` runs them one after the other. Batch statistics of a
new network are NaN on purpose: a network that was never calibrated cannot give a plausible answer.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F

Description = Sequence[tuple[str, str, Mapping[str, Any]]]
"""A network as (slot, block name, sizes), in running order."""


def unchanged(x: Tensor) -> Tensor:
    """No activation."""
    return x


ACTIVATIONS: Mapping[str, Callable[[Tensor], Tensor]] = {
    "relu": F.relu,
    "relu6": F.relu6,
    "hsigmoid": F.hardsigmoid,
    "hswish": F.hardswish,
    "gelu": F.gelu,
    "none": unchanged,
}


def make_divisible(channels: float, multiple: int = 8) -> int:
    """The nearest multiple of 8, at least 8 and never below 90 % of what was asked."""
    rounded = max(multiple, int(channels + multiple / 2) // multiple * multiple)
    return rounded + multiple if rounded < 0.9 * channels else rounded


class BlockModule(nn.Module):
    """A block: images of (N, channels, size, size) in, features out.

    Elastic blocks replace the four layer types.
    """

    conv_type: type[nn.Conv2d] = nn.Conv2d
    norm_type: type[nn.BatchNorm2d] = nn.BatchNorm2d
    linear_type: type[nn.Linear] = nn.Linear
    layer_norm_type: type[nn.LayerNorm] = nn.LayerNorm
    activation: Callable[[Tensor], Tensor]

    @property
    def residual_norm(self) -> nn.BatchNorm2d | nn.LayerNorm | None:
        """The last normalisation of a residual branch, or None; its weight begins at 0."""
        return None

    def conv(
        self,
        inputs: int,
        outputs: int,
        kernel: int = 1,
        *,
        stride: int = 1,
        groups: int = 1,
        bias: bool = False,
        padding: str = "symmetric",
    ) -> nn.Conv2d:
        """A convolution that keeps the size at stride 1.

        With the padding `same` and a stride it reads what `pad_same` returns.
        """
        around = 0 if padding == "same" and stride > 1 else kernel // 2
        return self.conv_type(inputs, outputs, kernel, stride, around, groups=groups, bias=bias)

    def norm(self, channels: int) -> nn.BatchNorm2d:
        """A BatchNorm whose running statistics are unknown until it is calibrated or trained."""
        norm = self.norm_type(channels)
        if norm.running_mean is not None and norm.running_var is not None:
            norm.running_mean.fill_(torch.nan)
            norm.running_var.fill_(torch.nan)
            norm.register_forward_pre_hook(begin_statistics)
        return norm


@torch.no_grad()
def begin_statistics(norm: nn.Module, inputs: tuple[Tensor, ...]) -> None:
    """Replace unknown statistics by those of the first training batch: an average keeps NaN."""
    statistics = dict(norm.named_buffers())  # none where they are no longer kept
    mean, variance = statistics.get("running_mean"), statistics.get("running_var")
    if norm.training and mean is not None and variance is not None and bool(mean[0].isnan()):
        others = [dim for dim in range(inputs[0].ndim) if dim != 1]
        mean.copy_(inputs[0].mean(others))
        variance.copy_(inputs[0].var(others))


class Preprocess(BlockModule):
    """Normalises pixels from 0 to 1 by the training images and resizes them.

    Resizing is bilinear and antialiased. Of two views the second is mirrored.
    """

    mean: Tensor
    std: Tensor

    def __init__(self, *, size: int, channels: int, resolution: int, views: int = 1) -> None:
        super().__init__()
        self.size, self.resolution, self.views = size, resolution, views
        self.register_buffer("mean", torch.zeros(channels))
        self.register_buffer("std", torch.ones(channels))

    def forward(self, images: Tensor) -> Tensor:
        return add_flipped(
            resize((images - self.mean[:, None, None]) / self.std[:, None, None], self.resolution),
            self.views,
        )


def add_flipped(images: Tensor, views: int) -> Tensor:
    """Flip test-time augmentation: the images and, with two views, their mirror images behind them.

    (N, channels, size, size) to (views x N, channels, size, size).
    """
    return images if views == 1 else torch.cat([images, images.flip(-1)])


def mean_over_flips(features: Tensor, views: int) -> Tensor:
    """The mean of an image and its mirror image: (views x N, channels) to (N, channels)."""
    return features if views == 1 else features.unflatten(0, (views, -1)).mean(0)


def resize(images: Tensor, resolution: int) -> Tensor:
    """Square images at another resolution; untouched where they have it already."""
    if images.shape[-1] == resolution:
        return images
    images = images if images.dtype == torch.float64 else images.float()  # antialiasing has no bf16
    return F.interpolate(
        images, size=(resolution, resolution), mode="bilinear", antialias=True, align_corners=False
    )


def pad_same(x: Tensor, kernel: int, stride: int) -> Tensor:
    """TensorFlow's padding `same` for a convolution with a stride.

    (N, channels, H, W) with zeros around it. Where their number is odd, one more is at the bottom
    and on the right than at the top and on the left.
    """
    rows, columns = (max((-size) % stride + kernel - stride, 0) for size in x.shape[-2:])
    return F.pad(x, (columns // 2, -(-columns // 2), rows // 2, -(-rows // 2)))


class ConvBlock(BlockModule):
    """Convolution, maximum pooling, BatchNorm, activation; plus the input if asked for."""

    def __init__(
        self,
        *,
        size: int,
        inputs: int,
        outputs: int,
        kernel: int,
        stride: int,
        pool: int,
        activation: str,
        padding: str = "symmetric",
        residual: bool = False,
    ) -> None:
        super().__init__()
        self.kernel, self.stride, self.pool, self.residual = kernel, stride, pool, residual
        self.activation, self.pads = ACTIVATIONS[activation], padding == "same" and stride > 1
        self.conv1 = self.conv(inputs, outputs, kernel, stride=stride, padding=padding)
        self.norm1 = self.norm(outputs)

    def forward(self, x: Tensor) -> Tensor:
        y = self.conv1(pad_same(x, self.kernel, self.stride) if self.pads else x)
        if self.pool > 1:
            y = F.max_pool2d(y, self.pool)
        y = self.activation(self.norm1(y))
        return x + y if self.residual else y


class MaxPool(BlockModule):
    """Maximum pooling over 3x3 pixels with a stride of 2 (ResNet)."""

    def __init__(self, *, size: int, channels: int) -> None:
        super().__init__()

    def forward(self, x: Tensor) -> Tensor:
        return F.max_pool2d(x, 3, 2, 1)


class InvertedResidual(BlockModule):
    """Expand, depthwise, squeeze-and-excitation, project.

    A residual where shapes allow (MobileNetV3).
    """

    def __init__(
        self,
        *,
        size: int,
        inputs: int,
        mid_channels: int,
        outputs: int,
        kernel: int,
        stride: int,
        expand: bool,
        squeeze_excite: bool,
        activation: str,
        padding: str = "symmetric",
    ) -> None:
        super().__init__()
        self.kernel, self.stride = kernel, stride
        self.activation, self.pads = ACTIVATIONS[activation], padding == "same" and stride > 1
        self.residual = stride == 1 and inputs == outputs
        self.expand = self.conv(inputs, mid_channels) if expand else None
        self.expand_norm = self.norm(mid_channels) if expand else None
        self.depthwise = self.conv(
            mid_channels, mid_channels, kernel, stride=stride, groups=mid_channels, padding=padding
        )
        self.depthwise_norm = self.norm(mid_channels)
        narrow = make_divisible(mid_channels / 4)
        self.squeeze_reduce = self.conv(mid_channels, narrow, bias=True) if squeeze_excite else None
        self.squeeze_expand = self.conv(narrow, mid_channels, bias=True) if squeeze_excite else None
        self.project = self.conv(mid_channels, outputs)
        self.project_norm = self.norm(outputs)

    @property
    def residual_norm(self) -> nn.BatchNorm2d | nn.LayerNorm | None:
        return self.project_norm if self.residual else None

    def forward(self, x: Tensor) -> Tensor:
        y = x
        if self.expand is not None and self.expand_norm is not None:
            y = self.activation(self.expand_norm(self.expand(y)))
        if self.pads:
            y = pad_same(y, self.kernel, self.stride)
        y = self.activation(self.depthwise_norm(self.depthwise(y)))
        if self.squeeze_reduce is not None and self.squeeze_expand is not None:
            y = y * F.hardsigmoid(
                self.squeeze_expand(F.relu(self.squeeze_reduce(y.mean((2, 3), keepdim=True))))
            )
        y = self.project_norm(self.project(y))
        return x + y if self.residual else y


class BasicBlock(BlockModule):
    """act(x + BN(conv(act(BN(conv(x))))))."""

    def __init__(self, *, size: int, channels: int, mid_channels: int, activation: str) -> None:
        super().__init__()
        self.activation = ACTIVATIONS[activation]
        self.conv1 = self.conv(channels, mid_channels, 3)
        self.norm1 = self.norm(mid_channels)
        self.conv2 = self.conv(mid_channels, channels, 3)
        self.norm2 = self.norm(channels)

    @property
    def residual_norm(self) -> nn.BatchNorm2d:
        return self.norm2

    def forward(self, x: Tensor) -> Tensor:
        y = self.activation(self.norm1(self.conv1(x)))
        return self.activation(x + self.norm2(self.conv2(y)))


class Bottleneck(BlockModule):
    """act(BN(conv1x1) after BN(conv3x3) after BN(conv1x1) + shortcut).

    The shortcut pools and projects (ResNet-D).
    """

    def __init__(
        self,
        *,
        size: int,
        inputs: int,
        mid_channels: int,
        outputs: int,
        stride: int,
        project: bool,
        activation: str,
    ) -> None:
        super().__init__()
        self.stride, self.activation = stride, ACTIVATIONS[activation]
        self.conv1 = self.conv(inputs, mid_channels)
        self.norm1 = self.norm(mid_channels)
        self.conv2 = self.conv(mid_channels, mid_channels, 3, stride=stride)
        self.norm2 = self.norm(mid_channels)
        self.conv3 = self.conv(mid_channels, outputs)
        self.norm3 = self.norm(outputs)
        self.shortcut = self.conv(inputs, outputs) if project else None
        self.shortcut_norm = self.norm(outputs) if project else None

    @property
    def residual_norm(self) -> nn.BatchNorm2d:
        return self.norm3

    def forward(self, x: Tensor) -> Tensor:
        y = self.activation(self.norm1(self.conv1(x)))
        y = self.activation(self.norm2(self.conv2(y)))
        y = self.norm3(self.conv3(y))
        if self.shortcut is not None and self.shortcut_norm is not None:
            if self.stride > 1:
                x = F.avg_pool2d(x, self.stride, ceil_mode=True)
            x = self.shortcut_norm(self.shortcut(x))
        return self.activation(y + x)


class Head(BlockModule):
    """Average over pixels and views, then a classifier: (N, classes) logits.

    Optional before them: BatchNorm, a 1x1 convolution; between them: a hidden layer.
    """

    def __init__(
        self,
        *,
        size: int,
        inputs: int,
        classes: int,
        expand: int,
        hidden: int,
        activation: str,
        dropout: float,
        input_norm: bool = False,
        views: int = 1,
    ) -> None:
        super().__init__()
        self.activation, self.dropout, self.views = ACTIVATIONS[activation], dropout, views
        self.input_norm = self.norm(inputs) if input_norm else None
        self.expand = self.conv(inputs, expand) if expand else None
        self.expand_norm = self.norm(expand) if expand else None
        width = expand or inputs
        self.hidden = self.linear_type(width, hidden) if hidden else None
        self.classifier = self.linear_type(hidden or width, classes)

    def forward(self, x: Tensor) -> Tensor:
        if self.input_norm is not None:
            x = self.activation(self.input_norm(x))
        if self.expand is not None and self.expand_norm is not None:
            x = self.activation(self.expand_norm(self.expand(x)))
        x = mean_over_flips(x.mean((2, 3)), self.views)
        if self.hidden is not None:
            x = self.activation(self.hidden(x))
        return self.classifier(F.dropout(x, self.dropout, self.training))


BLOCKS: dict[str, type[BlockModule]] = {
    block.__name__: block
    for block in (
        Preprocess,
        ConvBlock,
        MaxPool,
        InvertedResidual,
        BasicBlock,
        Bottleneck,
        Head,
    )
}


def build_block(block_type: type[BlockModule], sizes: Mapping[str, Any]) -> BlockModule:
    """A block of its sizes; `norm_epsilon` among them is that of all its BatchNorms."""
    others = {name: value for name, value in sizes.items() if name != "norm_epsilon"}
    block = block_type(**others)
    for module in block.modules():
        if isinstance(module, nn.BatchNorm2d):
            module.eps = sizes.get("norm_epsilon", module.eps)
    return block


class Network(nn.Module):
    """The blocks of a description, one after the other.

    (N, channels, size, size) pixels from 0 to 1 to (N, classes) logits.
    """

    def __init__(self, description: Description) -> None:
        super().__init__()
        self.blocks = nn.ModuleDict(
            {slot: build_block(BLOCKS[name], sizes) for slot, name, sizes in description}
        )

    def forward(self, images: Tensor) -> Tensor:
        for block in self.blocks.values():
            images = block(images)
        return images
