"""The weights with which training begins.

A CPU trains for tens of epochs, not hundreds, so initialisation counts: filters along the principal
components of image patches, and convolutions that begin as the identity (Jordan, K., 94% on
CIFAR-10 in 3.29 seconds on a single GPU, 2024, arXiv:2404.00498, section 3).
"""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from pliant.networks import plain, transformer_modules

POSITION_STD = 0.5
"""Deviation of learned positions: nearly that of the embedded patches, so that attention and MLPs
tell positions apart from the first step on. With the usual 0.02 (Dosovitskiy et al. 2020), networks
of `vit-32` learn much slower in the first few hundred steps."""
PATCH_IMAGES = 2000
"""Training images whose patches are enough for their covariance."""
PATCH_PIXELS = PATCH_IMAGES * 32**2
"""Of large images, which have many patches, fewer are enough."""


@torch.no_grad()
def initialise(network: nn.Module) -> None:
    """PyTorch's own weights, but for five things.

    Dense convolutions wider than a pixel begin as the identity on as many channels as they read.
    Biases begin at 0, the classifier near 0. The last BatchNorm of every residual branch
    (`BlockModule.residual_norm`) begins at 0, so that deep networks start as shallow
    ones; the branches of transformer blocks begin at 0 too.
    """
    for module in network.modules():
        if isinstance(module, nn.Conv2d):
            if module.groups == 1 and module.kernel_size[0] > 1:
                nn.init.dirac_(module.weight[: module.in_channels])
            if module.bias is not None:
                nn.init.zeros_(module.bias)
        elif isinstance(module, nn.Linear):
            nn.init.normal_(module.weight, std=0.01)
            nn.init.zeros_(module.bias)
        elif isinstance(module, plain.BlockModule) and module.residual_norm is not None:
            nn.init.zeros_(module.residual_norm.weight)
    for module in network.modules():
        if isinstance(module, plain.BlockModule):
            _initialise_tokens(module)


def _initialise_tokens(block: plain.BlockModule) -> None:
    """Weights of transformer blocks.

    What a linear layer computes has the deviation of what it reads, whatever the width; the last
    layer of each residual branch begins at 0.
    """
    if isinstance(block, transformer_modules.PlainPatchEmbedding):
        block.embed.reset_parameters()
        if block.embed.bias is not None:
            nn.init.zeros_(block.embed.bias)
        nn.init.normal_(block.positions, std=POSITION_STD)
    elif isinstance(block, transformer_modules.PlainAttention):
        nn.init.normal_(block.qkv.weight, std=block.qkv.in_features**-0.5)
        nn.init.zeros_(block.project.weight)
    elif isinstance(block, transformer_modules.PlainMlp):
        nn.init.normal_(block.expand.weight, std=block.expand.in_features**-0.5)
        nn.init.zeros_(block.project.weight)


@torch.no_grad()
def patch_pca_stem(network: nn.Module, images: Tensor) -> None:
    """Set the first convolution to the principal components of image patches, with both signs.

    Half as many components as there are filters, or as a patch has values; other filters stay as
    they are. Page (2019) and Jordan (2024, section 3.2) also divide each component by its standard
    deviation, which the BatchNorm behind the convolution does here, and freeze the filters, which
    are trained here.

    Args:
        network: a supernet or a plain network; its first block is the preprocessing.
        images: (N, channels, size, size) training images, pixels from 0 to 1, not augmented.
    """
    preprocess = next(
        module for module in network.modules() if isinstance(module, plain.Preprocess)
    )
    stem = next(module for module in network.modules() if isinstance(module, nn.Conv2d))
    normalised = (images - preprocess.mean[:, None, None]) / preprocess.std[:, None, None]
    patches = (
        F.unfold(normalised, stem.kernel_size, stride=stem.kernel_size)
        .transpose(1, 2)
        .flatten(0, 1)
    )
    _, components = torch.linalg.eigh(torch.cov(patches.T))  # in columns, by rising variance
    kept = min(stem.out_channels // 2, patches.shape[1])
    filters = components.T.flip(0)[:kept].view(kept, *stem.weight.shape[1:])
    stem.weight[: 2 * kept] = torch.cat([filters, -filters])
