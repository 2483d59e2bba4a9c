"""Which axis of a feature map holds its channels? The second one of images, the last one of tokens.

It follows from what computed the map: a convolution, a pooling or a BatchNorm has its channels
second; a linear layer, a LayerNorm or a product has them last; transposing and reshaping move them,
and everything else leaves them where they are. It is observed at PyTorch's functions.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional as F

from pliant.networks.function_calls import FunctionCalls

_SECOND = frozenset(
    {
        *(F.conv1d, F.conv2d, F.conv3d, torch.convolution),
        *(F.conv_transpose1d, F.conv_transpose2d, F.conv_transpose3d),
        *(F.batch_norm, F.instance_norm, F.group_norm),
        *(F.avg_pool1d, F.avg_pool2d, F.avg_pool3d, F.max_pool1d, F.max_pool2d, F.max_pool3d),
        *(F.adaptive_avg_pool1d, F.adaptive_avg_pool2d, F.adaptive_max_pool2d),
        *(F.pixel_shuffle, F.pixel_unshuffle, F.interpolate),
    }
)
_LAST = frozenset(
    {
        *(F.linear, F.layer_norm, F.rms_norm, F.multi_head_attention_forward),
        *(torch.matmul, torch.bmm, torch.einsum, Tensor.matmul, Tensor.bmm, Tensor.__matmul__),
    }
)
_MOVES = frozenset(
    [
        "permute",
        "transpose",
        "movedim",
        "moveaxis",
        "swapaxes",
        "swapdims",
        "t",
        "mT",
        "T",
        "adjoint",
        "__get__",
    ]
)
"""Names of functions that change the order of axes, and of properties that do."""


def channel_axis(feature: Tensor) -> int:
    """The axis of the channels; the second one where nothing is known."""
    return int(getattr(feature, "channel_axis", 1))


def set_channel_axis(feature: Tensor, axis: int) -> None:
    """Says where the channels of a map are."""
    feature.channel_axis = axis  # type: ignore[attr-defined]


def channels_second(feature: Tensor, axis: int) -> Tensor:
    """A map as (N, channels, positions...)."""
    return feature.movedim(axis, 1)


class ChannelAxes(FunctionCalls):
    """Within it every map knows the axis of its channels."""

    def call(self, func: Callable[..., Any], args: Sequence[Any], kwargs: Mapping[str, Any]) -> Any:
        """Follow the channels through a function."""
        result = func(*args, **kwargs)
        made = result[0] if isinstance(result, tuple) and result else result
        if isinstance(made, Tensor) and made.ndim > 2 and made.is_floating_point():
            axis = _axis(func, made, [one for one in args if isinstance(one, Tensor)])
            if axis is not None:
                for one in result if isinstance(result, tuple | list) else [result]:
                    if isinstance(one, Tensor):
                        set_channel_axis(one, axis)
        return result


def _axis(func: Callable[..., Any], made: Tensor, read: Sequence[Tensor]) -> int | None:
    """The axis of what a function made; None where it is not known."""
    if func in _SECOND:
        return 1
    if func in _LAST:
        return made.ndim - 1
    known = [one for one in read if hasattr(one, "channel_axis")]
    if not known:
        return None
    before, axis = known[0], channel_axis(known[0])
    if getattr(func, "__name__", "") in _MOVES and made.ndim == before.ndim:
        for place, (size, stride) in enumerate(zip(made.shape, made.stride(), strict=True)):
            if (size, stride) == (before.shape[axis], before.stride(axis)):
                return place
    if made.ndim == before.ndim:
        return axis
    # Reshaped: the axes before the channels are kept, or those behind them.
    if made.shape[: axis + 1] == before.shape[: axis + 1]:
        return axis
    behind = before.ndim - axis
    if made.shape[-behind:] == before.shape[-behind:]:
        return made.ndim - behind
    return None
