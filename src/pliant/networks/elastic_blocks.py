"""The plain blocks with elastic layers.

Each takes the active block with its input and slices itself to it.

Which of their parameters share channels follows from the layers of the block
(`pliant.networks.channels`).
"""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from pliant.errors import EncodingError
from pliant.networks import plain
from pliant.networks.elastic import (
    ElasticBatchNorm2d,
    ElasticConv2d,
    ElasticLayerNorm,
    ElasticLinear,
)
from pliant.spaces import convolutional_blocks, input_output_blocks
from pliant.spaces.block import Block, is_same_definition
from pliant.spaces.rounding import make_divisible


class ElasticBlock(plain.BlockModule):
    """A block whose forward takes the active block's sizes."""

    conv_type = ElasticConv2d
    norm_type = ElasticBatchNorm2d
    linear_type = ElasticLinear
    layer_norm_type = ElasticLayerNorm


class Preprocess(ElasticBlock, plain.Preprocess):
    """Elastic resolution and views."""

    def forward(self, images: Tensor, active: input_output_blocks.Preprocess) -> Tensor:
        """Normalise, resize to the active resolution, and add the mirror images for two views."""
        return plain.add_flipped(
            plain.resize(
                (images - self.mean[:, None, None]) / self.std[:, None, None], active.resolution
            ),
            active.views,
        )


class ConvBlock(ElasticBlock, plain.ConvBlock):
    """Elastic output channels."""

    def forward(self, x: Tensor, active: convolutional_blocks.ConvBlock) -> Tensor:
        """Convolve into the active output channels."""
        padded = plain.pad_same(x, active.kernel, self.stride) if self.pads else x
        y = self.conv1(padded, active.outputs, active.kernel)
        if self.pool > 1:
            y = F.max_pool2d(y, self.pool)
        y = self.activation(self.norm1(y))
        return x + y if self.residual else y


class MaxPool(ElasticBlock, plain.MaxPool):
    """Pools as many channels as there are."""

    def forward(self, x: Tensor, active: convolutional_blocks.MaxPool) -> Tensor:
        """Halve the size."""
        return plain.MaxPool.forward(self, x)


class InvertedResidual(ElasticBlock, plain.InvertedResidual):
    """Elastic mid channels and kernel."""

    def forward(self, x: Tensor, active: convolutional_blocks.InvertedResidual) -> Tensor:
        """Run with the active mid channels and kernel.

        (N, inputs, size, size) to (N, outputs, size / stride, size / stride).
        """
        y = x
        if self.expand is not None and self.expand_norm is not None:
            y = self.activation(self.expand_norm(self.expand(y, active.mid_channels)))
        if self.pads:
            y = plain.pad_same(y, active.kernel, self.stride)
        y = self.activation(
            self.depthwise_norm(self.depthwise(y, active.mid_channels, active.kernel))
        )
        if self.squeeze_reduce is not None and self.squeeze_expand is not None:
            # (N, mid, 1, 1) to (N, mid / 4, 1, 1): the squeeze is as narrow as in the plain block
            # of the active width, so that the extracted network computes the same.
            narrow = self.squeeze_reduce(
                y.mean((2, 3), keepdim=True), make_divisible(active.mid_channels / 4)
            )
            y = y * F.hardsigmoid(self.squeeze_expand(F.relu(narrow), active.mid_channels))
        y = self.project_norm(self.project(y, active.outputs))
        return x + y if self.residual else y


class BasicBlock(ElasticBlock, plain.BasicBlock):
    """Elastic mid channels."""

    def forward(self, x: Tensor, active: convolutional_blocks.BasicBlock) -> Tensor:
        """Run with the active mid channels; the outer width is the input's."""
        y = self.activation(self.norm1(self.conv1(x, active.mid_channels, 3)))
        return self.activation(x + self.norm2(self.conv2(y, active.channels, 3)))


class Bottleneck(ElasticBlock, plain.Bottleneck):
    """Elastic mid and output channels."""

    def forward(self, x: Tensor, active: convolutional_blocks.Bottleneck) -> Tensor:
        """Run with the active mid and output channels.

        (N, inputs, size, size) to (N, outputs, size / stride, size / stride).
        """
        y = self.activation(self.norm1(self.conv1(x, active.mid_channels)))
        y = self.activation(self.norm2(self.conv2(y, active.mid_channels, 3)))
        y = self.norm3(self.conv3(y, active.outputs))
        if self.shortcut is not None and self.shortcut_norm is not None:
            if self.stride > 1:
                # ResNet-D: pooled before the projection, so that no input pixel is dropped.
                x = F.avg_pool2d(x, self.stride, ceil_mode=True)
            x = self.shortcut_norm(self.shortcut(x, active.outputs))
        return self.activation(y + x)


class Head(ElasticBlock, plain.Head):
    """Reads as many channels and views as there are."""

    def forward(self, x: Tensor, active: input_output_blocks.Head, dropout: bool = True) -> Tensor:
        """Logits; dropout only while training and where asked for."""
        if self.input_norm is not None:
            x = self.activation(self.input_norm(x))
        if self.expand is not None and self.expand_norm is not None:
            x = self.activation(self.expand_norm(self.expand(x, active.expand)))
        # (views x N, channels, size, size) to (N, channels).
        x = plain.mean_over_flips(x.mean((2, 3)), active.views)
        if self.hidden is not None:
            x = self.activation(self.hidden(x))
        return self.classifier(F.dropout(x, self.dropout, self.training and dropout))


ELASTIC_BLOCKS: dict[str, type[ElasticBlock]] = {
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


def register_block(
    description: type[Block],
    plain_module: type[plain.BlockModule],
    elastic_module: type[ElasticBlock],
) -> None:
    """Make a block of one's own known to networks, supernets and delivered files.

    Args:
        description: the block as layers; its fields but the slot are what both modules take.
        plain_module: its module; the delivered `model.py` carries the source.
        elastic_module: the same with elastic layers; a subclass of both it and `ElasticBlock`.

    Raises:
        EncodingError: a block of another file has the name.
    """
    name = description.__name__
    for known, module in ((plain.BLOCKS, plain_module), (ELASTIC_BLOCKS, elastic_module)):
        found: type[nn.Module] = known.get(name, module)
        if not is_same_definition(found, module):
            raise EncodingError(
                f"a block's name is its own; {name} has the module {found.__qualname__} of"
                f" {found.__module__}, received another one. Rename the description."
            )
    plain.BLOCKS[name] = plain_module
    ELASTIC_BLOCKS[name] = elastic_module


def plain_block(name: str) -> type[plain.BlockModule]:
    """The plain module of a block, by the name of its description.

    Raises:
        EncodingError: the block was not registered.
    """
    if name not in plain.BLOCKS:
        raise EncodingError(
            f"a block of a space is registered with its modules, {name} is not. Call "
            f"register_block({name}, ITS_PLAIN_MODULE, ITS_ELASTIC_MODULE) behind its definition."
        )
    return plain.BLOCKS[name]


def copy_active(elastic: ElasticBlock, target: plain.BlockModule) -> None:
    """Fill a plain block with the weights that the elastic one uses at the plain one's sizes.

    Every tensor is the leading part of the elastic one in each dimension, but for kernels that pass
    through the matrices.
    """
    with torch.no_grad():
        state = dict(elastic.state_dict())
        for name, module in target.named_modules():
            layer = elastic.get_submodule(name)
            if isinstance(module, nn.Conv2d) and isinstance(layer, ElasticConv2d):
                state[f"{name}.weight"] = layer.active_weight(
                    module.out_channels, module.in_channels, module.kernel_size[0]
                )
        for name, tensor in target.state_dict().items():
            if name in state:  # running statistics stay unknown
                tensor.copy_(state[name][tuple(slice(size) for size in tensor.shape)])
