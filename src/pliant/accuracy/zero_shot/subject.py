"""What is a zero-shot score given, and what does it give back?

Scores work on a copy of the network in evaluation mode, whose normalisations take the statistics of what they are shown. So
dropout and stochastic depth are off, and nothing that a score does reaches the caller's network.
"""

from __future__ import annotations

import copy
from collections import OrderedDict
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Literal

import torch
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm, _NormBase
from torch.nn.modules.conv import _ConvNd

from pliant.accuracy.zero_shot.pools import run
from pliant.errors import PliantError

Layer = _ConvNd | nn.Linear
"""A layer whose weights the scores look at."""


_COMMON = (nn.Conv2d, nn.Linear, nn.BatchNorm2d, nn.ReLU, nn.Identity, nn.AvgPool2d, nn.MaxPool2d)


class RefusedError(PliantError, ValueError):
    """A network, or images, for which a score is not defined."""


@dataclass(frozen=True, slots=True)
class Score:
    """What a score of one network came to; higher is better for every score."""

    value: float
    """Finite, in a unit of its own: compare networks by one score, never scores with each other."""
    interval: tuple[float, float] | None = None
    """95 % interval of the mean over repeats; None where nothing is drawn more than once."""
    repeats: int = 1
    seconds: float = 0.0
    """CPU time of this process."""
    notes: tuple[str, ...] = ()
    """What a reader of the figure must know, such as layers that were left out."""


@dataclass(frozen=True)
class Subject:
    """What a score looks at."""

    network: nn.Module
    """The caller's: scores take a copy of it."""
    images: Tensor
    """(N, channels, height, width), normalised. Scores on noise take its shape only."""
    labels: Tensor | None
    seed: int

    def generator(self) -> torch.Generator:
        """A fresh stream of random numbers; the same at every call."""
        return torch.Generator().manual_seed(self.seed)

    def noise(self, generator: torch.Generator) -> Tensor:
        """Standard Gaussian images of the shape of `images`; drawn on the CPU, so the same on every device."""
        return torch.randn(self.images.shape, generator=generator).to(self.images)


@dataclass(frozen=True, slots=True)
class Method:
    """A score: what it is called, what it needs, and the function that computes it."""

    name: str
    needs: Literal["shape", "images", "labels"]
    """Of the images their shape, their pixels, or labels too."""
    summary: str
    compute: Callable[[Subject], Score]


def borrow(network: nn.Module) -> nn.Module:
    """A copy in evaluation mode that shares the weights' memory: for scores that only read them.

    Raises:
        RefusedError: the network cannot be copied.
    """
    shared = {
        id(one): nn.Parameter(one.detach(), requires_grad=one.is_floating_point())
        for one in network.parameters()
    }
    return _copied(network, dict(shared))


def clone(network: nn.Module) -> nn.Module:
    """A copy in evaluation mode with weights of its own: for scores that draw their own.

    Raises:
        RefusedError: the network cannot be copied.
    """
    made = _copied(network, {})
    for parameter in made.parameters():
        parameter.requires_grad_(parameter.is_floating_point())
    return made


def _copied_layer(layer: nn.Module, memo: dict[int, object]) -> nn.Module:
    """A copy of a layer of PyTorch's own, whose attributes are known; `deepcopy` takes ten times as long, more than some scores."""
    made = type(layer).__new__(type(layer))
    vars(made).update(
        {
            name: value.copy() if isinstance(value, dict) else value
            for name, value in vars(layer).items()
        }
    )
    for held in (made._parameters, made._buffers):
        held.update({name: copy.deepcopy(one, memo) for name, one in held.items()})  # type: ignore[misc]
    return made


def _copied(network: nn.Module, memo: dict[int, object]) -> nn.Module:
    if lazy := [
        name
        for name, one in network.named_parameters()
        if isinstance(one, nn.parameter.UninitializedParameter)
    ]:
        raise RefusedError(
            f"a network is scored with weights, {lazy[0]!r} has no shape yet. Show the network an image first."
        )
    for module in network.modules():
        if type(module) in _COMMON:
            memo[id(module)] = _copied_layer(module, memo)
        else:  # a dozen empty dictionaries of hooks a module
            memo |= {
                id(value): OrderedDict()
                for value in vars(module).values()
                if type(value) is OrderedDict and not value
            }
    try:
        made = copy.deepcopy(network, memo)
    except (RuntimeError, TypeError, AttributeError) as error:
        raise RefusedError(
            f"scores work on a copy of the network, {type(network).__name__} cannot be copied: {error}"
        ) from error
    made.eval()
    for name, module in norms(made):
        # Without running statistics PyTorch normalises by the batch, and keeps nothing of it.
        if isinstance(module, nn.SyncBatchNorm):
            raise RefusedError(
                f"SyncBatchNorm {name!r} normalises over processes. Score the network with BatchNorm in its place."
            )
        module.train()
        module.running_mean = module.running_var = module.num_batches_tracked = None
        module.track_running_stats = False
    return made


def norms(network: nn.Module) -> Iterator[tuple[str, _NormBase]]:
    """Every normalisation that could keep running statistics, by name: BatchNorm and InstanceNorm."""
    return (
        (name, module) for name, module in network.named_modules() if isinstance(module, _NormBase)
    )


def batch_norms(network: nn.Module) -> Iterator[tuple[str, _BatchNorm]]:
    """Every BatchNorm of any dimension, by name."""
    return (
        (name, module) for name, module in network.named_modules() if isinstance(module, _BatchNorm)
    )


def require_usual(name: str, norm: _BatchNorm) -> None:
    """Refuse a BatchNorm that does something of its own, which a score would replace.

    Raises:
        RefusedError: naming it.
    """
    if type(norm).forward is not _BatchNorm.forward:
        raise RefusedError(
            f"{type(norm).__name__} {name!r} normalises in its own way. Score the network with BatchNorm in its place."
        )


def layers(network: nn.Module) -> list[tuple[str, Layer]]:
    """Every convolution and linear layer, by name; the weights that scores sum over.

    Raises:
        RefusedError: there is none.
    """
    found: list[tuple[str, Layer]] = [
        (name, module)
        for name, module in network.named_modules()
        if isinstance(module, _ConvNd | nn.Linear)
    ]
    if not found:
        raise RefusedError(
            f"scores look at convolutions and linear layers, {type(network).__name__} has none."
        )
    return found


def logits_of(network: nn.Module, images: Tensor) -> Tensor:
    """What a network says, as (N, classes).

    Raises:
        RefusedError: it gives something else.
    """
    found = run(network, images)
    if not isinstance(found, Tensor) or found.ndim != 2 or len(found) != len(images):
        received = tuple(found.shape) if isinstance(found, Tensor) else type(found).__name__
        raise RefusedError(
            f"the network must give one row of logits an image, for {len(images)} images it gives {received}."
        )
    return found


def labels_of(subject: Subject) -> Tensor:
    """The labels, beside the images.

    Raises:
        RefusedError: there are none.
    """
    if subject.labels is None:
        raise RefusedError(
            "this score compares logits with labels, none were given. Give labelled images."
        )
    return subject.labels.to(subject.images.device)
