"""SynFlow: how much signal do all paths carry together?

H. Tanaka, D. Kunin, D. L. K. Yamins, S. Ganguli, "Pruning neural networks without any data by
iteratively conserving synaptic flow", NeurIPS 2020, arXiv:2006.05467; summed over a network by
Abdelfattah et al., "Zero-Cost Proxies for Lightweight NAS", ICLR 2021, arXiv:2101.08134.

    synflow = log( sum over weights w of | w dR/dw | )

over the weights of convolutions and products. R is the sum of the logits for one image of ones,
with the absolute values of all weights and without normalisations: modules and functions that
normalise are taken out of the path, and what normalises by hand is refused. The sum reaches 1e60 in
deep networks, so it is computed in float64; its logarithm ranks networks alike.
"""

from __future__ import annotations

import math

import torch
from torch import Tensor, nn

from pliant.accuracy.zero_shot.copies import copy_own_weights
from pliant.accuracy.zero_shot.normalisations import WithoutNormalisations
from pliant.accuracy.zero_shot.scoring_input import (
    RefusedError,
    ScoringInput,
    ZeroShotScore,
    compute_logits,
)
from pliant.accuracy.zero_shot.weights import network_weights, weight_layers


def synflow(inputs: ScoringInput) -> ZeroShotScore:
    """The score.

    Raises:
        RefusedError: no signal arrives, or it overflows, or the network normalises by hand.
    """
    network = copy_own_weights(inputs.network).double()
    with torch.no_grad():
        for parameter in network.parameters():
            parameter.abs_()
    for _, layer in weight_layers(network):
        layer.register_forward_pre_hook(_to_double)
    ones = torch.ones_like(inputs.images[:1], dtype=torch.float64)
    weights = [
        weight.parameter for weight in network_weights(network, ones.expand(2, *ones.shape[1:]))
    ]
    with WithoutNormalisations(network):
        signal = compute_logits(network, ones).sum()
    gradients = torch.autograd.grad(signal, weights, allow_unused=True)
    total = 0.0
    for weight, gradient in zip(weights, gradients, strict=True):
        if gradient is not None:
            total += float((weight.detach() * gradient).abs().sum())
    if total == 0:
        raise RefusedError(
            "synflow is the logarithm of the signal that arrives, and none does: the network is "
            "disconnected."
        )
    if not total < math.inf:
        raise RefusedError(
            f"synflow is the logarithm of the signal that arrives, which is {total}: without its "
            "normalisations it grows on the way beyond what a double holds."
        )
    return ZeroShotScore(math.log(total))


def _to_double(layer: nn.Module, inputs: tuple[Tensor, ...]) -> tuple[Tensor, ...]:
    """A network may change the precision on the way, for example where it resizes images."""
    return tuple(one.double() for one in inputs)
