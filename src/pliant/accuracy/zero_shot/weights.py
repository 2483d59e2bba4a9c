"""The weights that scores look at: what convolutions, products and recurrent layers multiply with.

Those of `nn.Conv` and `nn.Linear` are known by their modules. Every other matrix of a network is a
weight if a run multiplies with it: those of functional calls, of `nn.MultiheadAttention`, of
recurrent layers. All are in the order in which the network registers its parameters, so that two
spellings of one network draw the same numbers.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _NormBase
from torch.nn.modules.conv import _ConvNd

from pliant.accuracy.zero_shot.scoring_input import RefusedError
from pliant.networks.trace import ParameterRole, parameter_roles

WeightLayer = _ConvNd | nn.Linear
"""A layer whose weights are known by its type."""
_NORMS = (_NormBase, nn.GroupNorm, nn.LayerNorm, nn.RMSNorm)
_KNOWN = (_ConvNd, nn.Linear, nn.Embedding, *_NORMS)
"""Layers of which it is known what their matrices are."""


@dataclass(frozen=True)
class Weight:
    """One matrix, or kernel."""

    name: str
    parameter: nn.Parameter
    is_transposed: bool = False
    """Whether inputs are its first dimension, as in `x @ weight`; otherwise outputs are."""

    @property
    def fan_in(self) -> int:
        """Numbers that one output is a sum of."""
        return (self.parameter.movedim(1, 0) if self.is_transposed else self.parameter)[0].numel()


def network_weights(network: nn.Module, images: Tensor | None = None) -> list[Weight]:
    """All weights of a network, each once.

    Args:
        network: a copy.
        images: shown where weights are not known by their modules; without images those are left
            out.

    Raises:
        RefusedError: there are none.
    """
    known = {id(module.weight) for module in network.modules() if isinstance(module, WeightLayer)}
    roles = parameter_role_by_name(network, images)
    found = []
    for name, parameter in network.named_parameters():
        role = roles.get(name)
        if id(parameter) in known:
            found.append(Weight(name, parameter))
        elif role is not None and role.kind == "weight":
            found.append(Weight(name, parameter, role.is_transposed))
    if not found:
        raise RefusedError(
            "scores look at convolutions and products with weights, "
            f"{type(network).__name__} has none."
        )
    return found


def parameter_role_by_name(network: nn.Module, images: Tensor | None) -> dict[str, ParameterRole]:
    """What parameters are for that do not belong to a layer of a known type."""
    if images is None or not has_unknown_weights(network):
        return {}
    return parameter_roles(network, images)


def has_unknown_weights(network: nn.Module) -> bool:
    """Whether a matrix belongs to no layer whose weights are known by its type."""
    for module in network.modules():
        if isinstance(module, _KNOWN):
            continue
        for parameter in module.parameters(recurse=False):
            if parameter.ndim > 1 and parameter.is_floating_point():
                return True
    return False


def weight_layers(network: nn.Module) -> list[tuple[str, WeightLayer]]:
    """Every convolution and linear layer by name."""
    found: list[tuple[str, WeightLayer]] = []
    for name, module in network.named_modules():
        if isinstance(module, WeightLayer):
            found.append((name, module))
    return found


@torch.no_grad()
def reset_norms(network: nn.Module) -> None:
    """Makes every normalisation the identity after it has normalised."""
    for module in network.modules():
        if isinstance(module, _NORMS):
            if module.weight is not None:
                module.weight.fill_(1.0)
            bias = getattr(module, "bias", None)
            if isinstance(bias, Tensor):
                bias.zero_()
