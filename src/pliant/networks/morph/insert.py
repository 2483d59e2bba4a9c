"""Puts new layers behind a layer of any module, whose own code runs on as it is."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, nn

from pliant.errors import MorphError, nearest
from pliant.networks.morph.check import copied, outputs


def layer_of(module: nn.Module, path: str) -> nn.Module:
    """A layer by its name.

    Raises:
        MorphError: there is none of this name.
    """
    layers = dict(module.named_modules())
    if not path or path not in layers:
        raise MorphError(
            f"a morph names a layer, received {path!r}. {nearest(path, filter(None, layers))}"
        )
    return layers[path]


def replaced(module: nn.Module, path: str, make: Callable[[nn.Module], nn.Module]) -> nn.Module:
    """A copy of a module with another layer in the place of one.

    Args:
        module: not changed.
        path: name of the layer.
        make: the new layer from the copy of the old one.
    """
    layer_of(module, path)
    child = copied(module)
    parent, _, name = path.rpartition(".")
    owner = child.get_submodule(parent)
    found = owner.get_submodule(name)
    new = make(found).train(found.training)
    setattr(owner, name, new.to(next(module.parameters()).device))
    return child


def layer_tensors(
    module: nn.Module, path: str, images: Tensor, *, training: bool = False
) -> tuple[Tensor, Tensor]:
    """What a layer reads and returns when the module runs on images.

    Raises:
        MorphError: the layer does not run, runs more than once, or returns more than a tensor.
    """
    found: list[tuple[Any, Any]] = []

    def keep(_: nn.Module, inputs: tuple[Any, ...], output: Any) -> None:
        # Cloned, since an activation in place may follow.
        entering, leaving = (
            one.clone() if isinstance(one, Tensor) else None for one in (*inputs[:1], output)
        )
        found.append((entering, leaving))

    watched = copied(module).train(training)
    layer_of(watched, path).register_forward_hook(keep)
    outputs(watched, images)
    if len(found) != 1 or not all(isinstance(one, Tensor) for one in found[0]):
        times = f"runs {len(found)} times" if len(found) != 1 else "returns several"
        raise MorphError(
            f"new layers are put behind a layer that runs once and returns a tensor; {path} "
            f"{times}. Name another layer, or a part of this one."
        )
    return found[0]


def channels_of_output(path: str, output: Tensor) -> int:
    """Channels of what a layer returns: (N, channels, H, W) or (N, features).

    Raises:
        MorphError: it is of another shape.
    """
    if output.ndim not in (2, 4):
        raise MorphError(
            "new layers are put behind outputs of (N, channels, H, W) or (N, features); "
            f"{path} returns {tuple(output.shape)}. Name another layer."
        )
    return output.shape[1]


def mixing_layer(output: Tensor, *, kernel: int = 3, bias: bool = False) -> nn.Module:
    """A layer that keeps the shape of an output: a convolution of pictures, or a linear layer."""
    channels = output.shape[1]
    if output.ndim == 2:
        return nn.Linear(channels, channels, bias=bias)
    return nn.Conv2d(channels, channels, kernel, padding=kernel // 2, bias=bias)


def norm_layer(output: Tensor) -> nn.BatchNorm1d | nn.BatchNorm2d:
    """A BatchNorm of an output."""
    channels = output.shape[1]
    return nn.BatchNorm1d(channels) if output.ndim == 2 else nn.BatchNorm2d(channels)


@torch.no_grad()
def set_statistics(norm: nn.BatchNorm1d | nn.BatchNorm2d, values: Tensor) -> None:
    """Make a BatchNorm the identity on values, by their own statistics and by its running ones.

    Cai, H. et al., Efficient Architecture Search by Network Transformation, 2017, arXiv:1707.04873,
    section 3.3: with the default ones it is the identity in evaluation mode only.

    Args:
        norm: of as many channels.
        values: (N, channels) or (N, channels, H, W), as in training mode.
    """
    dims = [0, *range(2, values.ndim)]
    mean, variance = values.mean(dims), values.var(dims, correction=0)
    assert norm.running_mean is not None
    assert norm.running_var is not None
    norm.running_mean.copy_(mean)
    norm.running_var.copy_(variance)
    norm.bias.copy_(mean)
    norm.weight.copy_((variance + norm.eps).sqrt())
