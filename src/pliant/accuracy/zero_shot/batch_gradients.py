"""The backward pass with which several scores begin: gradients of the loss of one batch."""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from pliant.accuracy.zero_shot.scoring_input import compute_logits, require_classes
from pliant.accuracy.zero_shot.weights import network_weights


def batch_gradients(
    network: nn.Module, images: Tensor, labels: Tensor
) -> list[tuple[Tensor, Tensor]]:
    """Gradient of every weight that the loss depends on, with the weight.

    Args:
        network: a copy of the caller's.
        images: (N, channels, height, width)
        labels: (N,); the loss is the mean cross entropy.
    """
    weights = [weight.parameter for weight in network_weights(network, images[:2])]
    logits = compute_logits(network, images)
    require_classes(logits, labels)
    loss = F.cross_entropy(logits, labels)
    gradients = torch.autograd.grad(loss, weights, allow_unused=True)
    pairs = []
    for weight, gradient in zip(weights, gradients, strict=True):
        if gradient is not None:
            pairs.append((weight.detach(), gradient))
    return pairs
