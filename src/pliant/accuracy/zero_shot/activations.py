"""Feature maps and activations inside a network of which no layer is known.

They are observed at PyTorch's functions, so that it does not matter which modules call them.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F
from torch.overrides import TorchFunctionMode

from pliant.accuracy.zero_shot.average_pooling import forward_pass
from pliant.accuracy.zero_shot.scoring_input import RefusedError

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
    """Keeps the last feature map that any function returned."""

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
        """Look at what a function returns."""
        result = func(*args, **(kwargs or {}))
        if isinstance(result, Tensor) and is_feature_map(result, self.images):
            self.found = result
        return result


def is_feature_map(value: object, images: int) -> bool:
    """Whether a value is a feature map: (N, channels, positions...), more than one position."""
    return (
        isinstance(value, Tensor)
        and value.is_floating_point()
        and value.ndim >= 3
        and value.shape[0] == images
        and value.shape[2:].numel() > 1
    )


def last_feature_map(network: nn.Module, images: Tensor) -> Tensor:
    """The last feature map of a network: the input of its global pooling or flattening.

    It is the last tensor of (N, channels, positions...) with more than one position, whatever
    computed it. In NAS-Bench-201 that is after the BatchNorm and ReLU that follow the last cell.

    Raises:
        RefusedError: there is none, as in a network of linear layers only.
    """
    watcher = _LastMap(len(images))
    with watcher:
        forward_pass(network, images)
    if watcher.found is None:
        raise RefusedError(
            "this score looks at the last feature map, the network has none with more than one "
            "position."
        )
    return watcher.found


class _RectifierInputs(TorchFunctionMode):
    """Passes the input of each rectifier to a function."""

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
        """Look at the input of a function, before it may be overwritten in place."""
        if func in _RECTIFIERS:
            self.see(args[0] if args else (kwargs or {})["input"])
        return func(*args, **(kwargs or {}))


def observe_activations(network: nn.Module, images: Tensor, see: Callable[[Tensor], None]) -> None:
    """Run a network and pass on the input of each ReLU or similar activation.

    Args:
        network: any module.
        images: (N, channels, height, width)
        see: called with each input, in running order; hard swish, GELU, SiLU and so on included.
    """
    with _RectifierInputs(see):
        forward_pass(network, images)
