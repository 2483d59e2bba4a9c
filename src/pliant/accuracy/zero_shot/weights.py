"""Weights drawn afresh: each score says which, and draws them from its own stream."""

from __future__ import annotations

import math

import torch
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _NormBase

from pliant.accuracy.zero_shot.subject import layers

_PLAIN = (_NormBase, nn.GroupNorm, nn.LayerNorm)


@torch.no_grad()
def draw_gaussian(network: nn.Module, generator: torch.Generator) -> None:
    """Convolutions and linear layers from N(0, 1) without regard to fan-in, biases 0, normalisations the identity (Zen-NAS)."""
    for _, layer in layers(network):
        _fill(layer.weight, generator, 1.0)
        if layer.bias is not None:
            layer.bias.zero_()
    _reset_norms(network)


@torch.no_grad()
def draw_he(network: nn.Module, generator: torch.Generator) -> None:
    """He's normal weights by fan-in, biases 0, normalisations the identity (AZ-NAS)."""
    for _, layer in layers(network):
        _fill(layer.weight, generator, math.sqrt(2 / layer.weight[0].numel()))
        if layer.bias is not None:
            layer.bias.zero_()
    _reset_norms(network)


def draw_default(network: nn.Module) -> None:
    """What PyTorch gives a new network, drawn from its own random state.

    The papers of the gradient scores score this start. A start that is made for training (zeros at the end of residual
    branches, identity convolutions) hides from them what the network could become.
    """
    for module in network.modules():
        if callable(reset := getattr(module, "reset_parameters", None)):
            reset()


def _fill(weight: Tensor, generator: torch.Generator, std: float) -> None:
    weight.copy_(torch.empty(weight.shape).normal_(0.0, std, generator=generator))


def _reset_norms(network: nn.Module) -> None:
    for module in network.modules():
        if isinstance(module, _PLAIN):
            if module.weight is not None:
                module.weight.fill_(1.0)
            if module.bias is not None:
                module.bias.zero_()
