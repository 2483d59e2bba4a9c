"""Normalisations inside a network, observed at PyTorch's functions.

Scores replace them: Zen keeps their variances, GradSign normalises each image alone, synflow takes
them out of the path. At the functions it does not matter whether a module of PyTorch, one of the
user's own that also holds an activation, or a plain call normalises.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F
from torch.nn.modules.batchnorm import _BatchNorm

from pliant.accuracy.zero_shot.forward import BATCH_NORM_ARGUMENTS
from pliant.accuracy.zero_shot.scoring_input import RefusedError, batch_norms
from pliant.networks.function_calls import FunctionCalls

NORMALISATIONS = frozenset(
    {
        *BATCH_NORM_ARGUMENTS,
        F.instance_norm,
        torch.instance_norm,
        F.layer_norm,
        torch.layer_norm,
        F.group_norm,
        torch.group_norm,
        F.rms_norm,
        torch.rms_norm,
        F.local_response_norm,
        F.normalize,
    }
)
"""The functions that normalise their first argument."""
_STATISTICS = frozenset(
    {
        *(torch.var, torch.var_mean, torch.std, torch.std_mean, torch.rsqrt, torch.norm),
        *(Tensor.var, Tensor.std, Tensor.rsqrt, Tensor.rsqrt_, Tensor.norm),
        *(torch.linalg.norm, torch.linalg.vector_norm, F.cosine_similarity),
    }
)
"""What a normalisation that somebody wrote by hand asks for."""


@dataclass(frozen=True)
class BatchNormCall:
    """One call of a BatchNorm on feature maps."""

    name: str
    """Of the module; a number where there is none."""
    weight: Tensor | None
    bias: Tensor | None
    eps: float


Normalise = Callable[[BatchNormCall, Tensor], Tensor]
"""What a score puts in the place of a BatchNorm: from the call and its input to the output."""


class _BatchNormFunctions(FunctionCalls):
    """Replaces the functions; `current` is the module that is running, if it is a BatchNorm."""

    def __init__(self, normalise: Normalise) -> None:
        super().__init__()
        self.normalise = normalise
        self.weights: set[int] = set()
        """Where the weights are in this pass."""
        self.current: str | None = None
        self.calls = 0
        """Of the running module."""
        self.unnamed = 0
        """Calls outside of such modules in this pass."""

    def call(self, func: Callable[..., Any], args: Sequence[Any], kwargs: Mapping[str, Any]) -> Any:
        """Replace a BatchNorm of feature maps; one of weights stays as it is."""
        if func not in BATCH_NORM_ARGUMENTS:
            return func(*args, **kwargs)
        given = dict(zip(BATCH_NORM_ARGUMENTS[func], args, strict=False)) | dict(kwargs)
        x = given["input"]
        if x.untyped_storage().data_ptr() in self.weights:
            return func(*args, **kwargs)
        self.calls += 1
        if self.current is None:
            self.unnamed += 1
        name = self.current or f"batch_norm {self.unnamed}"
        eps = given.get("eps", 1e-5)
        return self.normalise(BatchNormCall(name, given.get("weight"), given.get("bias"), eps), x)


def replace_batch_norms(network: nn.Module, normalise: Normalise) -> FunctionCalls:
    """Lets every BatchNorm of feature maps be what `normalise` computes.

    Returns:
        To be entered around forward passes; modules of PyTorch need it not.

    Args:
        network: a copy; its own hooks and forwards are changed.
        normalise: called in place of the BatchNorm.

    Raises:
        RefusedError: a BatchNorm normalises without PyTorch's function; raised when it runs.
    """
    mode = _BatchNormFunctions(normalise)
    for name, norm in batch_norms(network):
        if type(norm).forward is _BatchNorm.forward:
            call = BatchNormCall(name, norm.weight, norm.bias, norm.eps)
            norm.forward = partial(normalise, call)  # type: ignore[method-assign]
        else:
            norm.register_forward_pre_hook(partial(_enter, mode, name))
            norm.register_forward_hook(partial(_leave, mode))
    network.register_forward_pre_hook(partial(_begin, mode))
    return mode


def _begin(mode: _BatchNormFunctions, network: nn.Module, *_: object) -> None:
    mode.unnamed, mode.weights = 0, _storages(network)


def _enter(mode: _BatchNormFunctions, name: str, *_: object) -> None:
    mode.current, mode.calls = name, 0


def _leave(mode: _BatchNormFunctions, norm: nn.Module, *_: object) -> None:
    if not mode.calls:
        raise RefusedError(
            f"{type(norm).__name__} {mode.current!r} normalises in its own way. "
            "Score the network with BatchNorm in its place."
        )
    mode.current = None


def _storages(network: nn.Module) -> set[int]:
    """Where the weights are, views of them too."""
    return {one.untyped_storage().data_ptr() for one in network.parameters()}


class WithoutNormalisations(FunctionCalls):
    """Takes every normalisation out of the path, or refuses what it cannot take out.

    Args:
        network: whose weights must not be normalised.
    """

    def __init__(self, network: nn.Module) -> None:
        super().__init__()
        self.weights = _storages(network)

    def call(self, func: Callable[..., Any], args: Sequence[Any], kwargs: Mapping[str, Any]) -> Any:
        """The input of a normalisation in place of its output."""
        if func in NORMALISATIONS:
            x = args[0] if args else kwargs["input"]
            if x.untyped_storage().data_ptr() in self.weights:
                raise RefusedError(
                    "synflow takes normalisations of features out of the path; this network "
                    f"normalises weights ({func.__name__})."
                )
            return x
        if func in _STATISTICS:
            raise RefusedError(
                "synflow takes normalisations out of the path, but cannot tell what this network "
                f"computes with {func.__name__}. Normalise with a function of PyTorch."
            )
        return func(*args, **kwargs)
