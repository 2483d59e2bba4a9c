"""The backward pass with which several scores begin: gradients of the loss of one batch."""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from pliant.accuracy.zero_shot.scoring_input import compute_logits, weight_layers


def batch_gradients(
    network: nn.Module, images: Tensor, labels: Tensor
) -> list[tuple[Tensor, Tensor]]:
    """Weight and gradient of every convolution and linear layer that the loss depends on.

    Args:
        network: a copy of the caller's.
        images: (N, channels, height, width)
        labels: (N,); the loss is the mean cross entropy.
    """
    weights = [layer.weight for _, layer in weight_layers(network)]
    loss = F.cross_entropy(compute_logits(network, images), labels)
    gradients = torch.autograd.grad(loss, weights, allow_unused=True)
    pairs = []
    for weight, gradient in zip(weights, gradients, strict=True):
        if gradient is not None:
            pairs.append((weight.detach(), gradient))
    return pairs
