"""Synflow (Tanaka et al. 2020; Abdelfattah et al. 2021): how much signal do all paths carry together?

    synflow = log of the sum over the weights w of convolutions and linear layers of | w dR/dw |

R is the sum of the logits for one image of ones, with all weights made positive and all normalisations taken out. The sum grows
to 1e60 in deep networks: it is computed in float64, and its logarithm is given, which ranks alike.
"""

from __future__ import annotations

import math

import torch
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _NormBase

from pliant.accuracy.zero_shot.subject import RefusedError, Score, Subject, clone, layers, logits_of

_NORMS = (_NormBase, nn.GroupNorm, nn.LayerNorm)


def synflow(subject: Subject) -> Score:
    """The score.

    Raises:
        RefusedError: no signal arrives.
    """
    network = clone(subject.network).double()
    with torch.no_grad():
        for parameter in network.parameters():
            parameter.abs_()
    for module in network.modules():
        if isinstance(module, _NORMS):
            module.forward = _same  # type: ignore[method-assign]
    found = [layer for _, layer in layers(network)]
    for layer in found:
        layer.register_forward_pre_hook(_in_double)
    ones = torch.ones_like(subject.images[:1], dtype=torch.float64)
    weights = [layer.weight for layer in found]
    gradients = torch.autograd.grad(logits_of(network, ones).sum(), weights, allow_unused=True)
    pairs = [
        (weight.detach(), gradient)
        for weight, gradient in zip(weights, gradients, strict=True)
        if gradient is not None
    ]
    total = sum(float((weight * gradient).abs().sum()) for weight, gradient in pairs)
    if not 0 < total < math.inf:
        raise RefusedError(
            f"synflow is the logarithm of the signal that arrives, which is {total}: a cut network, or one too deep."
        )
    return Score(math.log(total))


def _same(x: Tensor) -> Tensor:
    return x


def _in_double(layer: nn.Module, inputs: tuple[Tensor, ...]) -> tuple[Tensor, ...]:
    """A network may change the precision on the way, as where it resizes images."""
    return tuple(one.double() for one in inputs)
