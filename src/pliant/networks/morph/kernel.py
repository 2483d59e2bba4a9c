"""Larger kernels that compute the same: zeros around the kernel, and as much more padding."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from pliant.errors import MorphError
from pliant.networks.morph.check import require_same_function
from pliant.networks.morph.insert import layer_of, replaced


def grow_kernel(module: nn.Module, layer: str, kernel: int, images: Tensor) -> nn.Module:
    """A copy of a module in which a convolution has a larger kernel; it computes the same.

    Args:
        module: not changed.
        layer: name of a 2-dimensional convolution, with groups or without.
        kernel: height and width; larger than that of the layer by an even number.
        images: (N, channels, size, size) pixels, at least 2, on which the child is checked.

    Raises:
        MorphError: the layer is no such convolution, or its padding is not of zeros.
    """
    conv = layer_of(module, layer)
    if not isinstance(conv, nn.Conv2d) or conv.padding_mode != "zeros":
        mode = f" with padding {conv.padding_mode!r}" if isinstance(conv, nn.Conv2d) else ""
        raise MorphError(
            "a kernel grows in a torch.nn.Conv2d that is padded with zeros; "
            f"{layer} is {type(conv).__name__}{mode}. Name another layer."
        )
    grown = [kernel - size for size in conv.kernel_size]
    if min(grown) <= 0 or any(more % 2 for more in grown) or conv.padding == "valid":
        sizes = ", ".join(str(conv.kernel_size[0] + more) for more in (2, 4))
        raise MorphError(
            "a kernel grows by the same number of pixels on all sides, and needs padding in"
            f" numbers; {layer} has {conv.kernel_size} and padding {conv.padding!r}, received"
            f" {kernel}. Use {sizes}, ..."
        )

    def larger(old: nn.Module) -> nn.Module:
        assert isinstance(old, nn.Conv2d)
        rows, columns = (more // 2 for more in grown)
        weight = nn.functional.pad(old.weight.detach(), (columns, columns, rows, rows))
        old.weight = nn.Parameter(weight, requires_grad=old.weight.requires_grad)
        old.kernel_size = (kernel, kernel)
        if not isinstance(old.padding, str):
            around = zip(old.padding, (rows, columns), old.dilation, strict=True)
            old.padding = tuple(size + more * step for size, more, step in around)
        # What convolutions with the padding `same` prepared from the old size.
        old._reversed_padding_repeated_twice = [
            (kernel - 1) * step // 2 for step in reversed(old.dilation) for _ in range(2)
        ]
        return old

    with torch.no_grad():
        child = replaced(module, layer, larger)
    require_same_function(module, child, images, what=f"a kernel of {kernel} in {layer}")
    return child
