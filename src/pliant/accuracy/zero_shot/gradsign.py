"""GradSign: do the images agree on the direction in which each weight should move?

Z. Zhang, Z. Jia, "GradSign: Model Performance Inference with Theoretical Insights", ICLR 2022,
arXiv:2110.08616, Algorithm 1.

    gradsign = sum over weights w of | sum over images i of sign(dL_i / dw) |               (1)

over the weights of convolutions and products; L_i is the cross entropy of image i alone, at the
weights that the network has. Biases and normalisations take no part. The sum must not be divided by
the number of weights: the mean does not rank networks.

How all images share one pass. By definition each image is alone in its pass, so a BatchNorm
normalises it by the statistics of its own positions. That is an instance normalisation, under which
the images of a batch do not depend on each other. So one forward and backward pass over a batch
gives, for each image, the input of every layer and the gradient of its output. The gradients of the
weights per image follow: those of a convolution of n images are one convolution of n groups. Their
signs are added to the counts at once, so memory beyond the network is one number per weight,
whatever the number of images. In a linear layer without positions the sign of a product is the
product of the signs, and the counts are one matrix product.

This holds for convolutions and linear layers that run once per pass. A network with other weights
(functional calls, attention, recurrent layers, transposed convolutions, weights that are used
twice or by a function too) gets a pass for each image, as by definition.

Where a gradient is 0 in theory, rounding leaves a small number whose sign is counted, here as in a
loop with one pass per image. Such signs differ between two ways to compute one sum, so equality is
to 0.5 %, not exact. A gradient of exactly 0, as on disconnected paths, counts nothing.
"""

from __future__ import annotations

import functools
import math
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F
from torch.nn.modules.conv import _ConvNd
from torch.utils._pytree import tree_leaves

from pliant.accuracy.zero_shot.copies import copy_shared_weights
from pliant.accuracy.zero_shot.normalisations import BatchNormCall, replace_batch_norms
from pliant.accuracy.zero_shot.scoring_input import (
    RefusedError,
    ScoringInput,
    ZeroShotScore,
    compute_logits,
    require_classes,
)
from pliant.accuracy.zero_shot.weights import (
    WeightLayer,
    has_unknown_weights,
    network_weights,
    weight_layers,
)
from pliant.networks.function_calls import FunctionCalls

_LARGEST_MAP_BYTES = 4 << 20
"""Largest feature map of a pass: many images share the overhead of a layer, and it fits a cache."""
_GROUP_BYTES = 4 << 20
"""Gradients per image of one layer that are in memory at once; at least those of one image."""
_ACTIVATION_BYTES = 384 << 20
"""All feature maps of a pass."""
_KNOWN = (nn.Conv1d, nn.Conv2d, nn.Conv3d, nn.Linear)


class _OtherWeightsError(Exception):
    """The gradients per image do not follow from one pass."""


def gradsign(inputs: ScoringInput, *, images_per_pass: int | None = None) -> ZeroShotScore:
    """The score.

    Args:
        inputs: network, images, labels.
        images_per_pass: in one forward and backward pass; by the size of the feature maps where
            None. It changes no gradient.

    Raises:
        RefusedError: no labels, or a network whose output for an image depends on the others.
    """
    labels = inputs.require_labels()
    try:
        return ZeroShotScore(_together(inputs, labels, images_per_pass))
    except _OtherWeightsError:
        return ZeroShotScore(_one_by_one(inputs, labels))


def _together(inputs: ScoringInput, labels: Tensor, images_per_pass: int | None) -> float:
    """The score from passes of many images."""
    network = copy_shared_weights(inputs.network)
    functions = replace_batch_norms(network, _normalise_alone)
    counters = _prepare(network)
    with functions:
        alone, fit = _probe(network, inputs.images[:1], counters)
    require_classes(alone, labels)
    passes = math.ceil(len(inputs.images) / (images_per_pass or fit))
    images_per_pass = math.ceil(len(inputs.images) / passes)
    parts = zip(inputs.images.split(images_per_pass), labels.split(images_per_pass), strict=True)
    for number, (images, answers) in enumerate(parts):
        for counter in counters:
            counter.calls = 0
        with functions:
            logits = compute_logits(network, images)
        if number == 0:
            _require_independent(alone, logits[:1].detach())
        if logits.requires_grad:
            F.cross_entropy(logits, answers, reduction="sum").backward()
    return _agreement([counter.counts for counter in counters])


def _one_by_one(inputs: ScoringInput, labels: Tensor) -> float:
    """The score from a pass for each image, whatever the layers."""
    network = copy_shared_weights(inputs.network)
    weights = [weight.parameter for weight in network_weights(network, inputs.images[:2])]
    functions = replace_batch_norms(network, _normalise_alone)
    counts = [torch.zeros_like(weight) for weight in weights]
    with functions:
        with torch.no_grad():
            alone = compute_logits(network, inputs.images[:1])
            together = compute_logits(network, inputs.images[:2])[:1]
        require_classes(alone, labels)
        _require_independent(alone, together)
        for image, label in zip(inputs.images.split(1), labels.split(1), strict=True):
            loss = F.cross_entropy(compute_logits(network, image), label)
            gradients = torch.autograd.grad(loss, weights, allow_unused=True)
            for count, gradient in zip(counts, gradients, strict=True):
                if gradient is not None:
                    count.add_(gradient.sgn_())
    return _agreement(counts)


def _agreement(counts: Sequence[Tensor]) -> float:
    """(1) from the sum of signs of each weight."""
    return sum(float(count.abs().sum(dtype=torch.float64)) for count in counts)


def _prepare(network: nn.Module) -> list[_Counter]:
    """Replace the forward of layers; no parameter needs a gradient of its own.

    Raises:
        _OtherWeightsError: a layer whose gradients per image do not follow from one pass.
    """
    if has_unknown_weights(network) or not weight_layers(network):
        raise _OtherWeightsError
    for parameter in network.parameters():
        parameter.requires_grad_(False)
    counters: list[_Counter] = []
    owners: dict[int, str] = {}
    for name, layer in weight_layers(network):
        known = next((kind for kind in _KNOWN if isinstance(layer, kind)), None)
        if known is None or type(layer).forward is not known.forward:
            raise _OtherWeightsError
        if owners.setdefault(layer.weight.data_ptr(), name) != name:
            raise _OtherWeightsError
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


def _normalise_alone(norm: BatchNormCall, x: Tensor) -> Tensor:
    """BatchNorm of a batch of one, for every image of a batch."""
    if x.ndim < 3 or x.shape[2:].numel() == 1:
        raise RefusedError(
            f"in a pass of one image the BatchNorm {norm.name!r} sees one value per channel, "
            "which has no variance."
        )
    return F.group_norm(x, x.shape[1], norm.weight, norm.bias, norm.eps)


@dataclass
class _Counter:
    """Sums of signs for the weights of one layer."""

    name: str
    layer: WeightLayer
    counts: Tensor
    calls: int = 0


def _run(counter: _Counter, x: Tensor) -> Tensor:
    """The layer's forward, and a hook that counts signs once its output has a gradient."""
    layer, counter.calls = counter.layer, counter.calls + 1
    if counter.calls > 1:
        raise _OtherWeightsError
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
    y.register_hook(functools.partial(_count_signs, x.detach(), counter.counts, count))
    return y


def _count_signs(
    x: Tensor, counts: Tensor, count: Callable[[Tensor, Tensor, Tensor], None], g: Tensor
) -> None:
    with torch.no_grad():
        count(x, g, counts)


def _padded(layer: _ConvNd, x: Tensor) -> tuple[Tensor, list[int]]:
    """The padded input of a convolution, and the zero padding that is still to be applied."""
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
    # (n * out, in / groups, *kernel): the gradients of n images as one weight of n groups. Only the
    # shape of this weight matters.
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
    """Counts of a layer that treats all positions alike.

    Args:
        x: input, (N, in, positions)
        g: gradient of the output, (N, out, positions)
        counts: (out, in, ...), changed in place.
    """
    flat = counts.view(len(counts), -1)
    if x.shape[2] == 1:
        flat.addmm_(g[:, :, 0].sgn().T, x[:, :, 0].sgn())
        return
    room = max(1, _GROUP_BYTES // (flat.numel() * flat.element_size()))
    for some, theirs in zip(x.split(room), g.split(room), strict=True):
        _add(torch.bmm(theirs, some.transpose(1, 2)), flat)


def _add(gradients: Tensor, counts: Tensor) -> None:
    """Add the signs of gradients (n, *weight shape) to the counts; overwrites the gradients."""
    counts.add_(gradients.sgn_().sum(0) if len(gradients) > 1 else gradients.sgn_()[0])


class _WeightUses(FunctionCalls):
    """Counts the functions that compute with each weight, by its address."""

    def __init__(self) -> None:
        super().__init__()
        self.uses: Counter[int] = Counter()

    def call(self, func: Callable[..., Any], args: Sequence[Any], kwargs: Mapping[str, Any]) -> Any:
        """Look at what a function reads, lists included, and at parts that it returns.

        One that returns a shape or a type does not compute.
        """
        result = func(*args, **kwargs)
        if any(isinstance(one, Tensor) for one in tree_leaves(result)):
            given = tree_leaves((args, kwargs))
            read = {one.data_ptr() for one in given if isinstance(one, nn.Parameter)}
            self.uses.update(read)
        return result


def _probe(network: nn.Module, image: Tensor, counters: Sequence[_Counter]) -> tuple[Tensor, int]:
    """The logits of one image alone, and how many images fit one pass.

    Raises:
        _OtherWeightsError: a function computes with the weight of a layer.
    """
    kept: list[Tensor] = []  # keeps maps alive, so that no address is used twice

    def keep(module: nn.Module, inputs: tuple[object, ...], made: object) -> None:
        if isinstance(made, Tensor):
            kept.append(made)

    leaves = [module for module in network.modules() if next(module.children(), None) is None]
    hooks = [module.register_forward_hook(keep) for module in leaves]
    functions = _WeightUses()
    with torch.no_grad(), functions:
        alone = compute_logits(network, image)
    for hook in hooks:
        hook.remove()
    if any(functions.uses[one.layer.weight.data_ptr()] > one.calls for one in counters):
        raise _OtherWeightsError
    sizes = {made.data_ptr(): made.nbytes for made in (image, *kept)}
    return alone, max(
        1, min(_LARGEST_MAP_BYTES // max(sizes.values()), _ACTIVATION_BYTES // sum(sizes.values()))
    )


def _require_independent(alone: Tensor, together: Tensor) -> None:
    """Refuse a network whose output for an image depends on the others of the batch."""
    if not bool(alone.isfinite().all() and together.isfinite().all()):
        raise RefusedError(
            "GradSign looks at signs of gradients, but the logits of this network are not finite: "
            "numbers overflow in it."
        )
    if not torch.allclose(alone, together, rtol=1e-2, atol=1e-2 * float(alone.abs().max())):
        raise RefusedError(
            "GradSign looks at each image alone, but the output of this network for an image "
            "depends on the others in the batch."
        )
