"""Average pooling at the speed of a convolution.

PyTorch's average pooling of maps that are not in channels-last order is not vectorised: forward and
backward it costs three times the convolution next to it. As a depthwise convolution with ones it
takes a tenth of that and returns the same averages.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor
from torch.nn import functional as F


def fast_avg_pool2d(
    input: Tensor,  # noqa: A002
    kernel_size: int | Sequence[int],
    stride: int | Sequence[int] | None = None,
    padding: int | Sequence[int] = 0,
    ceil_mode: bool = False,
    count_include_pad: bool = True,
    divisor_override: int | None = None,
) -> Tensor:
    """`F.avg_pool2d`, of fp32 maps on a CPU as a convolution."""
    kernel, around = _pair(kernel_size), _pair(padding)
    steps = kernel if stride is None else _pair(stride)
    if ceil_mode:  # no difference where the strides divide evenly
        ceil_mode = any(
            (size + 2 * p - k) % s
            for size, p, k, s in zip(input.shape[-2:], around, kernel, steps, strict=True)
        )
    if (
        ceil_mode
        or divisor_override
        or input.ndim != 4
        or input.device.type != "cpu"
        or input.dtype != torch.float32
    ):
        return F.avg_pool2d(
            input, kernel, steps, around, ceil_mode, count_include_pad, divisor_override
        )
    return avg_pool_as_conv(input, kernel, steps, around, count_include_pad)


def avg_pool_as_conv(
    x: Tensor,
    kernel: tuple[int, int],
    stride: tuple[int, int],
    padding: tuple[int, int],
    count_padding: bool,
) -> Tensor:
    """The averages of `F.avg_pool2d`, by a depthwise convolution with ones.

    Args:
        x: (N, channels, height, width)
        kernel: height and width, in pixels; so are stride and padding.
        stride: of the windows.
        padding: zeros on each side.
        count_padding: whether a window divides by its size, or by the pixels inside the map.
    """
    if count_padding or not any(padding):
        return F.conv2d(
            x,
            x.new_full((x.shape[1], 1, *kernel), 1 / (kernel[0] * kernel[1])),
            None,
            stride,
            padding,
            groups=x.shape[1],
        )
    sums = F.conv2d(x, x.new_ones(x.shape[1], 1, *kernel), None, stride, padding, groups=x.shape[1])
    inside = F.conv2d(
        x.new_ones(1, 1, *x.shape[2:]), x.new_ones(1, 1, *kernel), None, stride, padding
    )
    return sums * inside.reciprocal()


def _pair(value: int | Sequence[int]) -> tuple[int, int]:
    return (value, value) if isinstance(value, int) else (value[0], value[-1])
