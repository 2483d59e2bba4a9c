"""New weights for a network: each score says which, and draws them from its own generator."""

from __future__ import annotations

import math

import torch
from torch import nn
from torch.nn.modules.batchnorm import _NormBase

from pliant.accuracy.zero_shot.scoring_input import WeightLayer, weight_layers

_NORMS = (_NormBase, nn.GroupNorm, nn.LayerNorm)


def standard_normal(network: nn.Module, generator: torch.Generator) -> None:
    """Weights from N(0, 1) whatever the fan-in, biases 0, normalisations the identity (Zen-NAS)."""
    for _, layer in weight_layers(network):
        _fill(layer, 1.0, generator)
    _reset_norms(network)


def kaiming_normal(network: nn.Module, generator: torch.Generator) -> None:
    """Weights from N(0, 2 / fan-in), biases 0, normalisations the identity (AZ-NAS)."""
    for _, layer in weight_layers(network):
        fan_in = layer.weight[0].numel()
        _fill(layer, math.sqrt(2 / fan_in), generator)
    _reset_norms(network)


def default_reset(network: nn.Module) -> None:
    """The weights that PyTorch gives a new network, drawn from its global random state.

    The papers of the gradient scores use this initialisation. One that is made for training (zeros
    at the end of residual branches, identity convolutions) hides what the network could become.
    """
    for module in network.modules():
        if callable(reset := getattr(module, "reset_parameters", None)):
            reset()


@torch.no_grad()
def _fill(layer: WeightLayer, std: float, generator: torch.Generator) -> None:
    weight, bias = layer.weight, layer.bias
    # Drawn in contiguous order on the CPU: the same for every memory format and device.
    weight.copy_(torch.empty(weight.shape).normal_(0.0, std, generator=generator))
    if bias is not None:
        bias.zero_()


@torch.no_grad()
def _reset_norms(network: nn.Module) -> None:
    for module in network.modules():
        if isinstance(module, _NORMS):
            if module.weight is not None:
                module.weight.fill_(1.0)
            if module.bias is not None:
                module.bias.zero_()
