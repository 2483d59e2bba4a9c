"""Depthwise convolutions whose backward pass on a CPU costs about what the forward pass does.

The weight gradient of a depthwise convolution is fast in PyTorch's CPU library up to three columns,
and some ten (fp32) to fifty (bf16) times slower from four on. But the columns of a kernel do not
know of each other: the gradient of a wide kernel is that of kernels of three columns over shifted
images, one strip after the other. This is the same sum in another order. The input gradient
with a stride is thirty times slower in bf16 than in fp32, so there it is computed in fp32.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor
from torch.nn import functional as F

_FAST = 3
"""Columns up to which the library's weight gradient is fast."""


def depthwise_conv(x: Tensor, weight: Tensor, stride: int, padding: int) -> Tensor:
    """Convolve each channel with a square filter of its own.

    Args:
        x: (N, channels, H, W).
        weight: (channels, 1, k, k), k odd.
        stride: of rows and columns.
        padding: zeros on each side: k // 2, or 0 where the input is padded already.

    Returns:
        That of `conv2d`. Only the backward pass differs, and only on a CPU.
    """
    if x.device.type != "cpu" or not (torch.is_grad_enabled() and weight.requires_grad):
        return F.conv2d(x, weight, None, stride, padding, 1, len(weight))
    if torch.is_autocast_enabled("cpu"):
        dtype = torch.get_autocast_dtype("cpu")
        x, weight = x.to(dtype), weight.to(dtype)
    return _DepthwiseConv.apply(x, weight, stride, padding)


def fast_conv(
    x: Tensor,
    weight: Tensor,
    bias: Tensor | None = None,
    stride: Any = 1,
    padding: Any = 0,
    dilation: Any = 1,
    groups: int = 1,
) -> Tensor:
    """`conv2d` with its own arguments, by `depthwise_conv` where that has the faster backward pass.

    Args:
        x: (N, channels, H, W).
        weight: (outputs, inputs per group, rows, columns).
        bias: (outputs,).
        stride, padding, dilation, groups: as those of `conv2d`.
    """
    rows, columns = weight.shape[2:]
    sizes = [{one} if isinstance(one, int | str) else {*one} for one in (stride, padding, dilation)]
    if not (
        rows == columns > _FAST
        and rows % 2 == 1
        and groups == len(weight) == x.shape[1]
        and all(len(size) == 1 for size in sizes)
        and sizes[2] == {1}
        and not isinstance(padding, str)
    ):
        return F.conv2d(x, weight, bias, stride, padding, dilation, groups)
    found = depthwise_conv(x, weight, *sizes[0], *sizes[1])
    return found if bias is None else found + bias[:, None, None]


class _DepthwiseConv(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, x: Tensor, weight: Tensor, stride: int, padding: int) -> Tensor:
        ctx.save_for_backward(x, weight)
        ctx.how = (stride, padding)
        return F.conv2d(x, weight, None, stride, padding, 1, len(weight))

    @staticmethod
    @torch.autograd.function.once_differentiable
    def backward(ctx: Any, g: Tensor) -> tuple[Tensor | None, Tensor | None, None, None]:
        x, weight = ctx.saved_tensors
        to_input = input_gradient(g, x, weight, *ctx.how) if ctx.needs_input_grad[0] else None
        to_weight = weight_gradient(g, x, weight, *ctx.how) if ctx.needs_input_grad[1] else None
        return to_input, to_weight, None, None


def input_gradient(g: Tensor, x: Tensor, weight: Tensor, stride: int, padding: int) -> Tensor:
    """The gradient of `depthwise_conv` by its input, in its type; with a stride computed in fp32.

    Args:
        g: gradient of the output.
        x: input, of which the shape and type count.
        weight: of the forward pass, as are the next two.
        stride: of rows and columns.
        padding: zeros on each side.
    """
    dtype = torch.float32 if stride > 1 and x.dtype == torch.bfloat16 else x.dtype
    shape, around = torch.empty_like(x, dtype=dtype), (padding, padding)
    return _gradients(g.to(dtype), shape, weight.to(dtype), stride, around, (True, False))[0].to(
        x.dtype
    )


def weight_gradient(g: Tensor, x: Tensor, weight: Tensor, stride: int, padding: int) -> Tensor:
    """The gradient of `depthwise_conv` by its weight, strip by strip.

    Args:
        g: gradient of the output.
        x: input.
        weight: of which the shape and type count.
        stride: of rows and columns.
        padding: zeros on each side.
    """
    kernel = weight.shape[-1]
    if kernel <= _FAST:
        return _gradients(g, x, weight, stride, (padding, padding), (False, True))[1]
    found = torch.zeros_like(weight, memory_format=torch.contiguous_format)
    if stride == 1 and padding == kernel // 2 and kernel <= x.shape[-2]:
        _from_columns(found, g, x)
    else:
        _from_coarser_images(found, g, F.pad(x, [padding] * 4) if padding else x, stride)
    return found


def _from_columns(found: Tensor, g: Tensor, x: Tensor) -> None:
    """Strips of all rows.

    Each overlaps the next by a column, so that the middle one needs no shifted image.
    """
    kernel, width = found.shape[-1], x.shape[-1]
    for left in range(0, kernel - _FAST + 1, 2):
        right = left + _FAST // 2 - kernel // 2  # of the kernel's centre
        if abs(right) > width:
            continue  # sees nothing but padding
        seen = F.pad(x, (1 - right, 1 + right)) if right else x
        strip = found.new_empty(len(found), 1, kernel, _FAST)
        padding = (kernel // 2, 0 if right else _FAST // 2)
        found[..., left : left + _FAST] = _gradients(g, seen, strip, 1, padding, (False, True))[1]


def _from_coarser_images(found: Tensor, g: Tensor, padded: Tensor, stride: int) -> None:
    """The gradient with a stride, from coarser images.

    Weights that are a stride apart see neighbouring pixels of a coarser image, on which they are a
    kernel without a stride.

    The library is as slow for images lower than the kernel, unless their padding is written out, as
    it is here.
    """
    kernel, (height, width) = found.shape[-1], g.shape[-2:]
    for top in range(min(stride, kernel)):
        rows = slice(top, kernel, stride)
        below = slice(top, top + stride * (height + len(range(kernel)[rows]) - 1), stride)
        for left in range(min(stride, kernel)):
            for first in range(left, kernel, _FAST * stride):
                columns = slice(first, min(first + _FAST * stride, kernel), stride)
                beside = slice(
                    first, first + stride * (width + len(range(kernel)[columns]) - 1), stride
                )
                strip = torch.empty_like(
                    found[..., rows, columns], memory_format=torch.contiguous_format
                )
                found[..., rows, columns] = _gradients(
                    g, padded[..., below, beside], strip, 1, (0, 0), (False, True)
                )[1]


def _gradients(
    g: Tensor,
    x: Tensor,
    weight: Tensor,
    stride: int,
    padding: tuple[int, int],
    wanted: tuple[bool, bool],
) -> tuple[Tensor, ...]:
    return torch.ops.aten.convolution_backward(
        g,
        x,
        weight,
        None,
        [stride] * 2,
        padding,
        [1, 1],
        False,
        [0, 0],
        len(weight),
        [*wanted, False],
    )
