"""Published BatchNorm statistics, made part of the weights.

A supernet normalises by the statistics of the images at hand. Published weights belong to the
statistics of the images that they were trained on: ImageNet's thousand classes. On images of one
kind, such as clothes, the channels that matter have another mean and variance, and normalising
these away costs a pretrained network half of what it knows, which training must then win back. With

    gamma (x - mean) / sqrt(var + eps) + beta
        = gamma' (x - mean') / sqrt(var' + eps) + beta',
    gamma' = gamma sqrt((var' + eps) / (var + eps)),
    beta' = beta + gamma (mean' - mean) / sqrt(var + eps),

a network with gamma' and beta' that normalises by the statistics of the new images, mean' and var',
computes what the published one computes by its own.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable

import torch
from torch import Tensor, nn

from pliant.networks.plain import Network
from pliant.networks.supernet import Supernet

BATCH = 64
BATCH_NORMS = (nn.BatchNorm1d, nn.BatchNorm2d, nn.BatchNorm3d)
"""Layers that have statistics; Pliant's own networks have those of images alone."""


@torch.no_grad()
def absorb_statistics(supernet: Supernet, network: Network, images: Tensor) -> None:
    """Make a supernet compute by batch statistics what a network computes by its running ones.

    Args:
        supernet: with the weights of the network; its BatchNorms are changed in place. Running
            statistics, where it keeps any, become those of the images.
        network: the largest one, with running statistics.
        images: (N, channels, size, size) pixels from 0 to 1, of those that are trained on.
    """
    network.eval()
    moments: defaultdict[str, list[Tensor]] = defaultdict(list)

    def keep(name: str) -> Callable[[nn.Module, tuple[Tensor, ...]], None]:
        def hook(_: nn.Module, inputs: tuple[Tensor, ...]) -> None:
            values = inputs[0].double().transpose(0, 1).flatten(1)
            moments[name].append(torch.stack([values.mean(1), values.square().mean(1)]))

        return hook

    norms = {
        name: module
        for name, module in network.named_modules()
        if isinstance(module, BATCH_NORMS) and module.affine  # else there is nothing to change
    }
    hooks = [norm.register_forward_pre_hook(keep(name)) for name, norm in norms.items()]
    try:
        # Batches of one size, as their moments weigh equally.
        size = min(BATCH, len(images))
        for batch in images[: len(images) // size * size].split(size):
            network(batch)
    finally:
        for hook in hooks:
            hook.remove()
    for name, norm in norms.items():
        assert norm.running_mean is not None
        assert norm.running_var is not None
        mean, square = torch.stack(moments[name]).mean(0)
        variance = (square - mean.square()).clamp_(min=0)
        scale = norm.weight.double() / (norm.running_var.double() + norm.eps).sqrt()
        ours = supernet.get_submodule(name)
        ours.get_parameter("weight").copy_(scale * (variance + norm.eps).sqrt())
        ours.get_parameter("bias").copy_(
            norm.bias.double() + scale * (mean - norm.running_mean.double())
        )
        for statistic, value in (("running_mean", mean), ("running_var", variance)):
            kept = getattr(ours, statistic)
            if kept is not None:  # a user's own network computes by its running statistics
                kept.copy_(value)
