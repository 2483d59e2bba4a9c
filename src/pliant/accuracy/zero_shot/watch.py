"""What happens inside a network that is written by someone else? Watched at PyTorch's functions, so that no layer must be known."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F
from torch.overrides import TorchFunctionMode

from pliant.accuracy.zero_shot.pools import run
from pliant.accuracy.zero_shot.subject import RefusedError

_RECTIFIERS = frozenset(
    {
        F.relu,
        F.relu_,
        torch.relu,
        torch.relu_,
        Tensor.relu,
        Tensor.relu_,
        F.relu6,
        F.hardtanh,
        F.hardswish,
        F.silu,
        F.gelu,
        F.leaky_relu,
        F.prelu,
        F.elu,
        F.mish,
    }
)


class _LastMap(TorchFunctionMode):
    """Keeps the last feature map that any function gave."""

    def __init__(self, images: int) -> None:
        super().__init__()
        self.images, self.found = images, None

    found: Tensor | None

    def __torch_function__(
        self,
        func: Callable[..., Any],
        types: Any,
        args: Sequence[Any] = (),
        kwargs: Mapping[str, Any] | None = None,
    ) -> Any:
        """Look at what a function gives."""
        result = func(*args, **(kwargs or {}))
        if isinstance(result, Tensor) and is_map(result, self.images):
            self.found = result
        return result


def is_map(value: object, images: int) -> bool:
    """Whether a value is a feature map: one image a row, and more than one position a channel."""
    return (
        isinstance(value, Tensor)
        and value.is_floating_point()
        and value.ndim >= 3
        and value.shape[0] == images
        and value.shape[2:].numel() > 1
    )


def last_map(network: nn.Module, images: Tensor) -> Tensor:
    """The last feature map of a network: what its global pooling or its flattening reads.

    It is the last tensor of (N, channels, positions...) with more than one position, whatever made it. In the networks of
    NAS-Bench-201 the BatchNorm and ReLU after the last cell have been applied to it.

    Raises:
        RefusedError: there is none, as in a network of linear layers only.
    """
    watcher = _LastMap(len(images))
    with watcher:
        run(network, images)
    if watcher.found is None:
        raise RefusedError(
            "this score looks at the last feature map, the network has none with more than one position."
        )
    return watcher.found


class _Codes(TorchFunctionMode):
    """Hands what enters each rectifier to a function."""

    def __init__(self, see: Callable[[Tensor], None]) -> None:
        super().__init__()
        self.see = see

    def __torch_function__(
        self,
        func: Callable[..., Any],
        types: Any,
        args: Sequence[Any] = (),
        kwargs: Mapping[str, Any] | None = None,
    ) -> Any:
        """Look at what enters a function, before it may be overwritten in place."""
        if func in _RECTIFIERS:
            self.see(args[0] if args else (kwargs or {})["input"])
        return func(*args, **(kwargs or {}))


def watch_rectifiers(network: nn.Module, images: Tensor, see: Callable[[Tensor], None]) -> None:
    """Run a network and hand over what enters each ReLU, or activation of its kind (hard swish, GELU, SiLU and so on)."""
    with _Codes(see):
        run(network, images)
