"""GradSign (Zhang and Jia 2022): do the images agree on the direction in which each weight should move?

    gradsign = sum over the weights w of convolutions and linear layers of | sum over images i of sign(dL_i / dw) |

L_i is the cross entropy of image i alone, at the weights that the network has. Biases and normalisations take no part. The sum
must not be divided by the number of weights: the mean does not rank networks.

Each image is alone in its pass, so a BatchNorm normalises it by the statistics of its own positions. That is an instance
normalisation, and under one the images of a batch do not see each other. So a single pass forward and back over a batch gives
what every layer read and the gradient of what it gave, for each image. From these follow the gradients of the weights, image by
image: a convolution of n images is one convolution of n groups, and one call of the library gives the gradients of all. Their
signs are added to the counts at once, so memory beyond the network is one number a weight, whatever the number of images. In a
linear layer without positions the sign of a product is the product of the signs, and the counts are one matrix product.

Where a weight's gradient is zero in theory and rounding makes something of it, that something has a sign and is counted, here as
in a loop of one pass an image. Such signs differ between two ways of computing the same sum, so equality is to 0.5 %, not exact.
A gradient of exactly zero, as on paths that are cut, counts nothing.
"""

from __future__ import annotations

import functools
import math
from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch.nn import functional as F
from torch.nn.modules.batchnorm import _BatchNorm
from torch.nn.modules.conv import _ConvNd

from pliant.accuracy.zero_shot.subject import (
    Layer,
    RefusedError,
    Score,
    Subject,
    batch_norms,
    borrow,
    labels_of,
    layers,
    logits_of,
    require_usual,
)

_LARGEST_MAP_BYTES = 4 << 20
"""Of the images of a pass: what each layer costs by itself is shared by many, and a map still fits a cache."""
_GROUP_BYTES = 4 << 20
"""Gradients of a layer that are in memory at once, but for a single image's."""
_ACTIVATION_BYTES = 384 << 20
"""All maps of a pass."""
_KNOWN = (nn.Conv1d, nn.Conv2d, nn.Conv3d, nn.Linear)
_FOREIGN = (nn.MultiheadAttention, nn.RNNBase, nn.RNNCellBase, nn.Bilinear)


def gradsign(subject: Subject, *, images_a_pass: int | None = None) -> Score:
    """The score.

    Args:
        images_a_pass: images of one pass forward and back; chosen by the size of the maps where None. It changes no gradient.

    Raises:
        RefusedError: a layer whose gradients image by image are not known, or a network that mixes images.
    """
    labels = labels_of(subject)
    network = borrow(subject.network)
    foreign = sorted(
        name for name, one in network.named_parameters(recurse=True) if not _belongs(network, name)
    )
    counters = _prepare(network)
    alone, fit = _look(network, subject.images[:1])
    passes = math.ceil(len(subject.images) / (images_a_pass or fit))
    images_a_pass = math.ceil(len(subject.images) / passes)
    parts = zip(subject.images.split(images_a_pass), labels.split(images_a_pass), strict=True)
    for number, (images, answers) in enumerate(parts):
        for counter in counters:
            counter.calls = 0
        logits = logits_of(network, images)
        if number == 0:
            _require_apart(alone, logits[:1].detach())
        if logits.requires_grad:
            F.cross_entropy(logits, answers, reduction="sum").backward()
    value = sum(float(counter.counts.abs().sum(dtype=torch.float64)) for counter in counters)
    return Score(
        value,
        notes=(
            f"parameters of no convolution, linear layer or normalisation, left out: {', '.join(foreign)}",
        )
        if foreign
        else (),
    )


def _belongs(network: nn.Module, parameter: str) -> bool:
    owner = network.get_submodule(parameter.rpartition(".")[0])
    return type(owner).__module__.startswith("torch.nn.modules")


def _prepare(network: nn.Module) -> list[_Counter]:
    """Replace what layers and BatchNorms do; what is left needs no gradient of its own."""
    for name, module in network.named_modules():
        if isinstance(module, _FOREIGN):
            raise RefusedError(
                f"GradSign knows gradients image by image of convolutions and linear layers; {type(module).__name__} {name!r} is neither."
            )
    for parameter in network.parameters():
        parameter.requires_grad_(False)
    for name, norm in batch_norms(network):
        require_usual(name, norm)
        norm.forward = functools.partial(_normalise_alone, name, norm)  # type: ignore[method-assign]
    counters: list[_Counter] = []
    owners: dict[int, str] = {}
    for name, layer in layers(network):
        known = next((kind for kind in _KNOWN if isinstance(layer, kind)), None)
        if (
            known is None
            or type(layer).forward is not known.forward
            or hasattr(layer, "parametrizations")
        ):
            raise RefusedError(
                f"GradSign knows gradients image by image of {_names()}; {type(layer).__name__} {name!r} is none of them."
            )
        if (other := owners.setdefault(layer.weight.data_ptr(), name)) != name:
            raise RefusedError(
                f"GradSign counts each weight once, {other!r} and {name!r} share theirs. Give each its own."
            )
        counters.append(
            _Counter(
                name,
                layer,
                torch.zeros_like(
                    layer.weight, dtype=torch.float32, memory_format=torch.contiguous_format
                ),
            )
        )
        layer.forward = functools.partial(_run, counters[-1])  # type: ignore[method-assign]
    return counters


def _names() -> str:
    return ", ".join(kind.__name__ for kind in _KNOWN)


def _normalise_alone(name: str, norm: _BatchNorm, x: Tensor) -> Tensor:
    """BatchNorm of a batch of one, for every image of a batch."""
    if x.ndim < 3 or x.shape[2:].numel() == 1:
        raise RefusedError(
            f"in a pass of one image {type(norm).__name__} {name!r} sees one value a channel, which has no variance."
        )
    return F.group_norm(x, x.shape[1], norm.weight, norm.bias, norm.eps)


@dataclass
class _Counter:
    """Sums of signs of one layer's weights."""

    name: str
    layer: Layer
    counts: Tensor
    calls: int = 0


def _run(counter: _Counter, x: Tensor) -> Tensor:
    """What the layer does, and a count of signs once the gradient of it is known."""
    layer, counter.calls = counter.layer, counter.calls + 1
    if counter.calls > 1:
        raise RefusedError(
            f"GradSign needs layers that run once a pass, {counter.name!r} runs again. Give each call a layer of its own."
        )
    if isinstance(layer, nn.Linear):
        y, count = F.linear(x, layer.weight, layer.bias), _count_linear
    else:
        x, padding = _padded(layer, x)
        y = torch.convolution(
            x,
            layer.weight,
            layer.bias,
            layer.stride,
            padding,
            layer.dilation,
            False,
            [0] * len(padding),
            layer.groups,
        )
        count = functools.partial(_count_conv, layer=layer, padding=padding)
    if not torch.is_grad_enabled():
        return y
    if not y.requires_grad:  # the first layer: its input needs no gradient, its output does
        y = y.requires_grad_().clone()
    y.register_hook(functools.partial(_see, x.detach(), counter.counts, count))
    return y


def _see(
    x: Tensor, counts: Tensor, count: Callable[[Tensor, Tensor, Tensor], None], g: Tensor
) -> None:
    with torch.no_grad():
        count(x, g, counts)


def _padded(layer: _ConvNd, x: Tensor) -> tuple[Tensor, list[int]]:
    """The input as the convolution reads it, and what zeros are still to be put around it."""
    if layer.padding_mode == "zeros" and not isinstance(layer.padding, str):
        return x, list(layer.padding)
    sides = layer._reversed_padding_repeated_twice
    mode = "constant" if layer.padding_mode == "zeros" else layer.padding_mode
    return (F.pad(x, sides, mode=mode) if any(sides) else x), [0] * len(layer.kernel_size)


def _count_conv(
    x: Tensor, g: Tensor, counts: Tensor, *, layer: _ConvNd, padding: list[int]
) -> None:
    pointwise = (
        layer.weight[0, 0].numel() == 1
        and layer.groups == 1
        and set(layer.stride) == {1}
        and not any(padding)
    )
    if pointwise:
        _count_positions(x.flatten(2), g.flatten(2), counts)
        return
    zeros, weight = [0] * len(padding), layer.weight
    # The weights' values do not matter here, only their shape.
    room = max(1, min(len(x), _GROUP_BYTES // (weight.numel() * weight.element_size())))
    for some, theirs in zip(x.split(room), g.split(room), strict=True):
        n = len(some)
        grouped = weight.new_empty(n * weight.shape[0], *weight.shape[1:])
        gradients = torch.ops.aten.convolution_backward(
            theirs.reshape(1, -1, *theirs.shape[2:]),
            some.reshape(1, -1, *some.shape[2:]),
            grouped,
            None,
            layer.stride,
            padding,
            layer.dilation,
            False,
            zeros,
            layer.groups * n,
            [False, True, False],
        )[1]
        _add(gradients.reshape(n, *weight.shape), counts)


def _count_linear(x: Tensor, g: Tensor, counts: Tensor) -> None:
    if x.ndim == 2:
        counts.addmm_(g.sgn().T, x.sgn())
    else:
        _count_positions(x.flatten(1, -2).transpose(1, 2), g.flatten(1, -2).transpose(1, 2), counts)


def _count_positions(x: Tensor, g: Tensor, counts: Tensor) -> None:
    """Counts of a layer that treats all positions alike, from (N, channels, positions) of input and gradient."""
    flat = counts.view(len(counts), -1)
    if x.shape[2] == 1:
        flat.addmm_(g[:, :, 0].sgn().T, x[:, :, 0].sgn())
        return
    room = max(1, _GROUP_BYTES // (flat.numel() * flat.element_size()))
    for some, theirs in zip(x.split(room), g.split(room), strict=True):
        _add(torch.bmm(theirs, some.transpose(1, 2)), flat)


def _add(gradients: Tensor, counts: Tensor) -> None:
    """Add the signs of (n, weights...) to the counts; the gradients are overwritten."""
    counts.add_(gradients.sgn_().sum(0) if len(gradients) > 1 else gradients.sgn_()[0])


def _look(network: nn.Module, image: Tensor) -> tuple[Tensor, int]:
    """The logits of one image alone, and how many images fit a pass."""
    kept: list[Tensor] = []  # so that no address is used twice

    def keep(module: nn.Module, inputs: tuple[object, ...], made: object) -> None:
        if isinstance(made, Tensor):
            kept.append(made)

    leaves = [module for module in network.modules() if next(module.children(), None) is None]
    hooks = [module.register_forward_hook(keep) for module in leaves]
    with torch.no_grad():
        alone = logits_of(network, image)
    for hook in hooks:
        hook.remove()
    sizes = {made.data_ptr(): made.nbytes for made in (image, *kept)}
    return alone, max(
        1, min(_LARGEST_MAP_BYTES // max(sizes.values()), _ACTIVATION_BYTES // sum(sizes.values()))
    )


def _require_apart(alone: Tensor, together: Tensor) -> None:
    """Refuse a network whose answer for an image depends on the others of the batch."""
    if not torch.allclose(alone, together, rtol=1e-2, atol=1e-2 * float(alone.abs().max())):
        raise RefusedError(
            "GradSign looks at each image alone, but this network's answer for an image depends on the others in the batch."
        )
