"""A forward pass of a copy: normalised by the batch, and with fast average pooling.

BatchNorm and InstanceNorm take the statistics of the batch, also where they are plain calls that
bring running statistics along; modules have none in a copy.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from contextlib import AbstractContextManager, nullcontext
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from pliant.accuracy.zero_shot.average_pooling import fast_avg_pool2d
from pliant.networks.function_calls import FunctionCalls

BATCH_NORM_ARGUMENTS = {
    F.batch_norm: [
        "input",
        "running_mean",
        "running_var",
        "weight",
        "bias",
        "training",
        "momentum",
        "eps",
    ],
    torch.batch_norm: [
        "input",
        "weight",
        "bias",
        "running_mean",
        "running_var",
        "training",
        "momentum",
        "eps",
    ],
}
"""The functions, with the names of their arguments in order."""


def forward_pass(
    network: nn.Module, images: Tensor, observer: AbstractContextManager[Any] | None = None
) -> Any:
    """The output of a network, normalised by the batch.

    Average poolings run as convolutions where that is faster.

    Args:
        network: a copy.
        images: (N, channels, height, width)
        observer: entered around the pass; a mode that sees the functions as the network calls them,
            not what takes their place.
    """
    with _ForwardPass(), observer or nullcontext():
        return network(images)


class _ForwardPass(FunctionCalls):
    """Replaces functions as `forward_pass` says."""

    def call(self, func: Callable[..., Any], args: Sequence[Any], kwargs: Mapping[str, Any]) -> Any:
        """Replace a pooling only where `avg_pool_as_conv` computes the same."""
        if func is F.avg_pool2d:
            return fast_avg_pool2d(*args, **kwargs)
        return _without_running_statistics(func, args, kwargs)


def _without_running_statistics(
    func: Callable[..., Any], args: Sequence[Any], kwargs: Mapping[str, Any]
) -> Any:
    """The result of a function; a BatchNorm or InstanceNorm takes the statistics of the batch."""
    if func in BATCH_NORM_ARGUMENTS:
        given = dict(zip(BATCH_NORM_ARGUMENTS[func], args, strict=False)) | dict(kwargs)
        if given.get("running_mean") is not None or not given.get("training", False):
            keep = {key: given[key] for key in ("weight", "bias", "eps") if key in given}
            return F.batch_norm(given["input"], None, None, training=True, **keep)
    if func is F.instance_norm:
        names = ("input", "running_mean", "running_var", "weight", "bias", "use_input_stats")
        given = dict(zip((*names, "momentum", "eps"), args, strict=False)) | dict(kwargs)
        if given.get("running_mean") is not None:
            keep = {key: given[key] for key in ("weight", "bias", "eps") if key in given}
            return F.instance_norm(given["input"], **keep)
    return func(*args, **kwargs)
