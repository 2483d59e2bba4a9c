"""Rounded sizes: pixels after a stride, and channels as multiples of 8."""

from __future__ import annotations


def ceil_div(size: int, stride: int) -> int:
    """Height and width after a stride with padding that keeps the size at stride 1."""
    return -(-size // stride)


def make_divisible(channels: float, multiple: int = 8) -> int:
    """The nearest multiple of 8, at least 8 and never below 90 % of what was asked.

    As in MobileNetV3 (Howard et al., Searching for MobileNetV3, 2019, arXiv:1905.02244).
    """
    rounded = max(multiple, int(channels + multiple / 2) // multiple * multiple)
    return rounded + multiple if rounded < 0.9 * channels else rounded
