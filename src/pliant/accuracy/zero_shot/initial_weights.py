"""New weights for a network: each score says which, and draws them from its own generator."""

from __future__ import annotations

import math

import torch
from torch import Tensor, nn

from pliant.accuracy.zero_shot.weights import (
    Weight,
    network_weights,
    parameter_role_by_name,
    reset_norms,
    weight_layers,
)


def standard_normal(
    network: nn.Module, generator: torch.Generator, images: Tensor | None = None
) -> None:
    """Weights from N(0, 1) whatever the fan-in, biases 0, normalisations the identity (Zen-NAS).

    Args:
        network: changed in place.
        generator: draws the weights.
        images: as of `network_weights`.
    """
    for weight in network_weights(network, images):
        _fill(weight, 1.0, generator)
    _reset_others(network, images)


def kaiming_normal(
    network: nn.Module, generator: torch.Generator, images: Tensor | None = None
) -> None:
    """Weights from N(0, 2 / fan-in), biases 0, normalisations the identity (AZ-NAS).

    Args:
        network: changed in place.
        generator: draws the weights.
        images: as of `network_weights`.
    """
    for weight in network_weights(network, images):
        _fill(weight, math.sqrt(2 / weight.fan_in), generator)
    _reset_others(network, images)


def default_reset(network: nn.Module) -> None:
    """The weights that PyTorch gives a new network, drawn from its global random state.

    The papers of the gradient scores use this initialisation. One that is made for training (zeros
    at the end of residual branches, identity convolutions) hides what the network could become.
    """
    for module in network.modules():
        if callable(reset := getattr(module, "reset_parameters", None)):
            reset()


@torch.no_grad()
def _fill(weight: Weight, std: float, generator: torch.Generator) -> None:
    # Drawn in contiguous order on the CPU: the same for every memory format and device.
    stored = weight.parameter.T if weight.is_transposed else weight.parameter
    stored.copy_(torch.empty(stored.shape).normal_(0.0, std, generator=generator))


@torch.no_grad()
def _reset_others(network: nn.Module, images: Tensor | None) -> None:
    """Biases and normalisations."""
    for _, layer in weight_layers(network):
        if layer.bias is not None:
            layer.bias.zero_()
    reset_norms(network)
    parameters = dict(network.named_parameters())
    for name, role in parameter_role_by_name(network, images).items():
        if role.kind == "scale":
            parameters[name].fill_(1.0)
        elif role.kind in ("bias", "shift"):
            parameters[name].zero_()
