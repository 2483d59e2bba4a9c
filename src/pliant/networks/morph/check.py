"""Does a child compute what its parent computes? Asked after every morph, on a batch of images.

Both are run in evaluation mode, by running statistics, and in training mode, by those of the batch:
a BatchNorm may hide in one what the other shows. Dropout is left out, since its random masks belong
to the widths, and all else that is random draws the same numbers. Where single precision is not
enough, since rounding grows through a hundred layers, both are run in double precision.
"""

from __future__ import annotations

import copy
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn
from torch.utils._pytree import tree_leaves

from pliant.errors import MorphError
from pliant.networks.function_calls import FunctionCalls
from pliant.networks.parametrization import computed_tensors

TOLERANCE = 1e-5
"""Largest change of an output, over the largest absolute output."""


@dataclass(frozen=True, slots=True)
class Change:
    """Largest difference of outputs between child and parent, over the parent's largest output."""

    evaluation: float
    training: float

    @property
    def largest(self) -> float:
        """Of both modes."""
        return max(self.evaluation, self.training)


class _WithoutDropout(FunctionCalls):
    """Dropout, by whatever name a network calls it, returns its input."""

    def call(self, func: Any, args: Any, kwargs: Any) -> Any:
        if "dropout" in getattr(func, "__name__", ""):
            return args[0] if args else kwargs["input"]
        return func(*args, **kwargs)


def copied(network: nn.Module) -> nn.Module:
    """A copy of a network, with all of its weights."""
    return copy.deepcopy(network, computed_tensors(network))


def change(parent: nn.Module, child: nn.Module, images: Tensor) -> Change:
    """How much the outputs of a child differ from its parent's.

    Neither is changed: both run as copies.

    Args:
        parent, child: take the images.
        images: (N, channels, size, size) pixels; at least 2 images, for statistics of the batch.
    """
    return Change(
        evaluation=_difference(parent, child, images, training=False),
        training=_difference(parent, child, images, training=True),
    )


def require_same_function(
    parent: nn.Module, child: nn.Module, images: Tensor, *, what: str
) -> Change:
    """The change of the outputs, refused where it is more than rounding.

    Args:
        parent, child, images: as of `change`.
        what: the morph, for the message.

    Raises:
        MorphError: the outputs differ by more than `TOLERANCE` in one of the modes.
    """
    try:
        found = change(parent, child, images)
    except (RuntimeError, TypeError, ValueError, AttributeError, IndexError) as error:
        raise MorphError(
            f"a module takes its sizes and layers from its parts; after {what} its forward ends in"
            f" {type(error).__name__}: {str(error).strip().splitlines()[0]}. Write no width as a"
            " number in forward, and reach into no layer there."
        ) from error
    if not found.largest <= TOLERANCE:
        found = _in_double_precision(parent, child, images) or found
    if not found.largest <= TOLERANCE:
        raise MorphError(
            f"a morph keeps what a network computes to {TOLERANCE:g} of its largest output; {what}"
            f" changes it by {found.evaluation:.1e} in evaluation and {found.training:.1e} in"
            " training mode. Morph another layer, or use a network whose outputs are finite and"
            " not random."
        )
    return found


def _in_double_precision(parent: nn.Module, child: nn.Module, images: Tensor) -> Change | None:
    """The change without rounding; None for a network that runs in single precision only."""
    try:
        return change(copied(parent).double(), copied(child).double(), images.double())
    except RuntimeError:
        return None


@torch.no_grad()
def _difference(parent: nn.Module, child: nn.Module, images: Tensor, *, training: bool) -> float:
    theirs = outputs(copied(parent).train(training), images)
    ours = outputs(copied(child).train(training), images)
    if [one.shape for one in theirs] != [one.shape for one in ours]:
        return float("inf")
    worst = [
        float((one - other).abs().max() / one.abs().max().clamp_min(1e-12))
        for one, other in zip(theirs, ours, strict=True)
    ]
    # A maximum would drop NaN, depending on its place.
    return max(worst) if all(one == one for one in worst) else float("nan")


def outputs(network: nn.Module, images: Tensor) -> Sequence[Tensor]:
    """The tensors that a network returns, without dropout; other random numbers are always the
    same."""
    with torch.no_grad(), torch.random.fork_rng(devices=[]), _WithoutDropout():
        torch.manual_seed(0)
        leaves = tree_leaves(network(images))
    return [leaf for leaf in leaves if isinstance(leaf, Tensor) and leaf.is_floating_point()]
