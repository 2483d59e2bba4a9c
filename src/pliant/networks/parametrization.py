"""Weights that are computed from others, as plain parameters again.

PyTorch has two spellings: `torch.nn.utils.parametrizations` replaces the attribute of a module, and
`torch.nn.utils.weight_norm` and `spectral_norm` compute it in a hook before each forward pass.
"""

from __future__ import annotations

import torch
from torch import nn
from torch.nn.utils import parametrize, remove_spectral_norm, remove_weight_norm
from torch.nn.utils.spectral_norm import SpectralNorm
from torch.nn.utils.weight_norm import WeightNorm


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
