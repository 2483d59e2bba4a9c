"""What do the gradients of a batch say? The pass that several scores begin with."""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from pliant.accuracy.zero_shot.subject import layers, logits_of


def batch_gradients(
    network: nn.Module, images: Tensor, labels: Tensor
) -> list[tuple[Tensor, Tensor]]:
    """Weight and gradient of the mean cross entropy, of each convolution and linear layer that the loss depends on."""
    weights = [layer.weight for _, layer in layers(network)]
    gradients = torch.autograd.grad(
        F.cross_entropy(logits_of(network, images), labels), weights, allow_unused=True
    )
    return [
        (weight.detach(), gradient)
        for weight, gradient in zip(weights, gradients, strict=True)
        if gradient is not None
    ]
