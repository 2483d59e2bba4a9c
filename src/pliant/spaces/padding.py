"""Zeros around an image that a convolution reads."""

from __future__ import annotations

from typing import Literal

from pliant.spaces.rounding import ceil_div

Padding = Literal["symmetric", "same"]
"""Half a kernel on every side, or TensorFlow's `same`.

They differ where a stride meets an even size: there `same` has one zero more after the last row and
column than before the first one.
"""


def explicit_padding(
    padding: Padding, size: int, kernel: int, stride: int
) -> tuple[int, int] | None:
    """The padding of an operation; None where it is half a kernel."""
    return same_padding(size, kernel, stride) if padding == "same" else None


def same_padding(size: int, kernel: int, stride: int) -> tuple[int, int]:
    """Zeros before and after an image with TensorFlow's padding `same`.

    Args:
        size: height or width, in pixels.
        kernel: rows or columns of the convolution.
        stride: step of the convolution.
    """
    total = max((ceil_div(size, stride) - 1) * stride + kernel - size, 0)
    return total // 2, total - total // 2
