"""Weights that are computed from others, as plain parameters again.

PyTorch has two spellings: `torch.nn.utils.parametrizations` replaces the attribute of a module, and
`torch.nn.utils.weight_norm` and `spectral_norm` compute it in a hook before each forward pass.
"""

from __future__ import annotations

import copy

import torch
from torch import nn
from torch.nn.utils import parametrize, remove_spectral_norm, remove_weight_norm
from torch.nn.utils.spectral_norm import SpectralNorm
from torch.nn.utils.weight_norm import WeightNorm


def folded_copy(network: nn.Module) -> nn.Module:
    """A copy of a network whose weights are all plain parameters."""
    copied = copy.deepcopy(network, computed_tensors(network))
    fold_parametrizations(copied)
    return copied


def computed_tensors(network: nn.Module) -> dict[int, object]:
    """What `copy.deepcopy` needs to know to copy a network: the old spelling keeps its result as an
    attribute, which cannot be copied as it is.

    Returns:
        Copies by the id of the original: the start of a `memo`.
    """
    memo: dict[int, object] = {}
    for module in network.modules():
        for value in vars(module).values() if module._forward_pre_hooks else ():
            if isinstance(value, torch.Tensor) and not value.is_leaf:
                memo[id(value)] = value.detach()
    return memo


@torch.no_grad()
def fold_parametrizations(network: nn.Module) -> None:
    """Makes every computed weight a parameter of the value that it has; changes the network."""
    for module in list(network.modules()):
        if parametrize.is_parametrized(module):
            _fold(module)
        for hook in list(module._forward_pre_hooks.values()):
            if isinstance(hook, WeightNorm):
                remove_weight_norm(module, hook.name)
            elif isinstance(hook, SpectralNorm):
                remove_spectral_norm(module, hook.name)


def is_parametrized(network: nn.Module) -> bool:
    """Whether a weight of the network is computed from others."""
    return any(
        parametrize.is_parametrized(module)
        or any(
            isinstance(hook, WeightNorm | SpectralNorm)
            for hook in module._forward_pre_hooks.values()
        )
        for module in network.modules()
    )


def _fold(module: nn.Module) -> None:
    """PyTorch's own removal would change the class, which copies of the module share."""
    computed = module.get_submodule("parametrizations")
    values = {name: getattr(module, name) for name, _ in computed.named_children()}
    trained = any(one.requires_grad for one in computed.parameters())
    del module.parametrizations
    module.__class__ = type(module).__bases__[0]
    for name, value in values.items():
        setattr(module, name, nn.Parameter(value.detach().clone(), requires_grad=trained))
