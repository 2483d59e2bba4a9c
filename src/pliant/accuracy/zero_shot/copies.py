"""Copies of a network for scores to work on, in evaluation mode and without running statistics.

Without running statistics a normalisation takes those of the batch, and keeps nothing of it. A
weight that is computed from others (weight normalisation, spectral normalisation and any other
parametrisation) is a plain parameter in the copy: a network scores as it computes, however its
weights are expressed.
"""

from __future__ import annotations

import copy
from collections import OrderedDict
from collections.abc import Iterator

from torch import nn
from torch.nn.modules.batchnorm import _NormBase

from pliant.accuracy.zero_shot.scoring_input import RefusedError
from pliant.networks.parametrization import computed_tensors, fold_parametrizations

_COMMON = (nn.Conv2d, nn.Linear, nn.BatchNorm2d, nn.ReLU, nn.Identity, nn.AvgPool2d, nn.MaxPool2d)
"""Layers with known attributes, most of those of a network."""


def copy_shared_weights(network: nn.Module) -> nn.Module:
    """A copy that shares the memory of the weights: for scores that only read them.

    Raises:
        RefusedError: the network cannot be copied.
    """
    memo: dict[int, object] = {}
    for parameter in network.parameters():
        shared = nn.Parameter(parameter.detach(), requires_grad=parameter.is_floating_point())
        memo[id(parameter)] = shared
    return _copy(network, memo)


def copy_own_weights(network: nn.Module) -> nn.Module:
    """A copy with weights of its own: for scores that draw new ones.

    Raises:
        RefusedError: the network cannot be copied.
    """
    copied = _copy(network, {})
    for parameter in copied.parameters():
        parameter.requires_grad_(parameter.is_floating_point())
    return copied


def stateful_norms(network: nn.Module) -> Iterator[tuple[str, _NormBase]]:
    """Every normalisation that may keep running statistics: BatchNorm and InstanceNorm."""
    for name, module in network.named_modules():
        if isinstance(module, _NormBase):
            yield name, module


def _copy(network: nn.Module, memo: dict[int, object]) -> nn.Module:
    """A deep copy; `memo` maps ids of objects to their copies, as in `copy.deepcopy`."""
    for name, parameter in network.named_parameters():
        if isinstance(parameter, nn.parameter.UninitializedParameter):
            raise RefusedError(
                f"a network is scored with weights, {name!r} has no shape yet. "
                "Run the network on an image first."
            )
    memo |= computed_tensors(network)
    for module in network.modules():
        if type(module) in _COMMON:
            memo[id(module)] = _copy_layer(module, memo)
            continue
        # A module has a dozen empty dictionaries of hooks, which deepcopy would walk.
        for value in vars(module).values():
            if type(value) is OrderedDict and not value:
                memo[id(value)] = OrderedDict()
    try:
        copied = copy.deepcopy(network, memo)
    except (RuntimeError, TypeError, AttributeError) as error:
        raise RefusedError(
            f"scores work on a copy of the network, {type(network).__name__} cannot be copied: "
            f"{error}"
        ) from error
    copied.eval()
    fold_parametrizations(copied)
    for name, norm in stateful_norms(copied):
        if isinstance(norm, nn.SyncBatchNorm):
            raise RefusedError(
                f"SyncBatchNorm {name!r} normalises over processes. "
                "Score the network with BatchNorm in its place."
            )
        norm.training = True  # Not its activation or dropout, where it holds one.
        norm.running_mean = norm.running_var = norm.num_batches_tracked = None
        norm.track_running_stats = False
    return copied


def _copy_layer(layer: nn.Module, memo: dict[int, object]) -> nn.Module:
    """A copy of a common layer: `deepcopy` takes ten times as long, longer than some scores."""
    copied = type(layer).__new__(type(layer))
    for name, value in vars(layer).items():
        vars(copied)[name] = value.copy() if isinstance(value, dict) else value
    for tensors in (copied._parameters, copied._buffers):
        for name, tensor in tensors.items():
            tensors[name] = copy.deepcopy(tensor, memo)  # type: ignore[assignment]
    return copied
