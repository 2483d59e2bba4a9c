"""Feature maps and activations inside a network of which no layer is known.

They are observed at PyTorch's functions, so that it does not matter which modules call them.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from pliant.accuracy.zero_shot.forward import forward_pass
from pliant.accuracy.zero_shot.scoring_input import RefusedError
from pliant.networks.function_calls import FunctionCalls

RECTIFIERS = frozenset(
    {
        *(F.relu, F.relu_, torch.relu, torch.relu_, Tensor.relu, Tensor.relu_),
        *(F.relu6, F.hardtanh, F.hardtanh_, F.threshold, torch.threshold, torch.threshold_),
        *(F.leaky_relu, F.leaky_relu_, F.prelu, torch.prelu, Tensor.prelu),
        *(F.rrelu, F.rrelu_, torch.rrelu, torch.rrelu_),
        *(F.elu, F.elu_, F.selu, F.selu_, torch.selu, torch.selu_),
        *(F.celu, F.celu_, torch.celu, torch.celu_),
        *(F.hardswish, F.silu, F.gelu, F.mish, F.softplus),
        *(torch.abs, torch.abs_, Tensor.abs, Tensor.abs_, Tensor.__abs__),
    }
)
"""Units of these are on where their input is positive: an absolute value, too, bends at 0."""
CLAMPS = frozenset(
    {
        *(torch.clamp, torch.clamp_, torch.clip, torch.clip_, torch.clamp_min, torch.clamp_min_),
        *(Tensor.clamp, Tensor.clamp_, Tensor.clip, Tensor.clip_),
        *(Tensor.clamp_min, Tensor.clamp_min_),
    }
)
LARGER = frozenset(
    {
        *(torch.maximum, torch.max, torch.fmax, torch.minimum, torch.min, torch.fmin),
        *(Tensor.maximum, Tensor.max, Tensor.fmax, Tensor.minimum, Tensor.min, Tensor.fmin),
    }
)
"""Of two tensors: a unit is on where the first one is larger."""
CHOICES = frozenset(
    {
        *(torch.where, Tensor.where),
        *(torch.masked_fill, Tensor.masked_fill, Tensor.masked_fill_),
    }
)
"""A unit is on where the condition holds."""
_GATES = frozenset({"sigmoid", "hardsigmoid", "tanh", "erf"})
"""Functions by which a map may be multiplied with itself, as in `x * x.sigmoid()`."""
_ELEMENTWISE = _GATES | frozenset(
    {
        *("add", "sub", "mul", "div", "true_divide", "pow", "square", "neg"),
        *("__add__", "__radd__", "__sub__", "__rsub__", "__mul__", "__rmul__", "__truediv__"),
        *("__pow__", "__neg__"),
    }
)
"""Names of functions after which a map is still a function of each of its units alone."""


class _LastMap(FunctionCalls):
    """Keeps the last feature map that any function returned."""

    def __init__(self, images: int) -> None:
        super().__init__()
        self.images, self.found = images, None

    found: Tensor | None

    def call(self, func: Callable[..., Any], args: Sequence[Any], kwargs: Mapping[str, Any]) -> Any:
        """Look at what a function returns."""
        result = func(*args, **kwargs)
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


class _Rectifiers(FunctionCalls):
    """Passes on which units of each rectifier are on, as a tensor that is positive there."""

    def __init__(self, see: Callable[[Tensor], None]) -> None:
        super().__init__()
        self.see = see
        self.unseen: set[str] = set()
        """Names of functions that may rectify, but not in a way that is known here."""

    def call(self, func: Callable[..., Any], args: Sequence[Any], kwargs: Mapping[str, Any]) -> Any:
        """Look at the inputs of a function, before they may be overwritten in place."""
        given = [*args, *kwargs.values()]
        tensors = [one for one in given if isinstance(one, Tensor)]
        if func in RECTIFIERS:
            self.see(tensors[0])
        elif func in CLAMPS and tensors[0].is_floating_point():
            lowest = kwargs.get("min", args[1] if len(args) > 1 else None)
            self._clamp(func, tensors, lowest)
        elif func in LARGER and len(tensors) == 2 and tensors[0].is_floating_point():
            self.see(tensors[0] - tensors[1])
        elif func in CHOICES or _masks(func, tensors):
            chosen = [one for one in tensors if one.dtype == torch.bool]
            for mask in chosen:
                self.see(mask.float() - 0.5)
        return self._follow(func, tensors, func(*args, **kwargs))

    def _follow(self, func: Callable[..., Any], tensors: Sequence[Tensor], result: Any) -> Any:
        """Look at a map that is multiplied with a gate of itself: SiLU or GELU, written out."""
        name = getattr(func, "__name__", "")
        sources = {id(_source(one)): _source(one) for one in tensors}
        if name not in _ELEMENTWISE or len(sources) != 1 or not isinstance(result, Tensor):
            return result
        [source] = sources.values()
        gates = sum(_is_gate(one) for one in tensors)
        if "mul" in name and gates == 1 and len(tensors) == 2:
            self.see(source)
            return result
        result.computed_from = source  # type: ignore[attr-defined]
        result.is_gate = gates > 0 or name in _GATES  # type: ignore[attr-defined]
        return result

    def _clamp(self, func: Callable[..., Any], tensors: Sequence[Tensor], lowest: Any) -> None:
        if isinstance(lowest, Tensor):
            self.see(tensors[0] - lowest)
        elif lowest == 0:
            self.see(tensors[0])
        elif lowest is not None:
            self.unseen.add(f"{func.__name__} from {lowest:g}")


def _source(value: Tensor) -> Tensor:
    """The map of which a tensor is a function, unit by unit."""
    return getattr(value, "computed_from", value)


def _is_gate(value: Tensor) -> bool:
    return bool(getattr(value, "is_gate", False))


def _masks(func: Callable[..., Any], tensors: Sequence[Tensor]) -> bool:
    """Whether a tensor is multiplied by a condition, as in `x * (x > 0)`."""
    multiplies = getattr(func, "__name__", "") in ("mul", "mul_", "__mul__", "__rmul__", "multiply")
    return multiplies and any(one.dtype == torch.bool for one in tensors)


def observe_activations(
    network: nn.Module, images: Tensor, see: Callable[[Tensor], None]
) -> tuple[str, ...]:
    """Run a network and pass on which units of each ReLU or similar activation are on.

    A rectifier is one however it is written: `clamp(min=0)`, `torch.maximum`, `torch.where` too.

    Args:
        network: any module.
        images: (N, channels, height, width)
        see: called in running order with a tensor that is positive where a unit is on: the input of
            a ReLU; hard swish, GELU, SiLU and so on included.

    Returns:
        Names of functions that may rectify and were not looked at.
    """
    rectifiers = _Rectifiers(see)
    with rectifiers:
        forward_pass(network, images)
    return tuple(sorted(rectifiers.unseen))
