"""What a zero-shot score is given, what it returns, and what it may ask of a network.

Scores work on a copy of the network in evaluation mode (`zero_shot.copies`), whose normalisations
take the statistics of the batch. Dropout and stochastic depth are therefore off, and nothing that a
score does reaches the caller's network.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm

from pliant.accuracy.zero_shot.forward import forward_pass
from pliant.errors import PliantError
from pliant.networks.returned import describe_output


class RefusedError(PliantError, ValueError):
    """A network, or images, for which a score is not defined."""


@dataclass(frozen=True, slots=True)
class ZeroShotScore:
    """One network by one score; higher is better for every score."""

    value: float
    """Finite, in a unit of its own: compare networks by one score, never scores with each other."""
    interval: tuple[float, float] | None = None
    """95 % interval of the mean over repeats; None where nothing is drawn more than once."""
    repeats: int = 1
    seconds: float = 0.0
    """CPU time of this process."""
    notes: tuple[str, ...] = ()
    """What a reader of the number must know, such as layers that were left out."""


@dataclass(frozen=True)
class ScoringInput:
    """What every score is computed from."""

    network: nn.Module
    """The caller's own: a score works on a copy of it."""
    images: Tensor
    """(N, channels, height, width), normalised. Scores on noise take only the shape."""
    labels: Tensor | None
    """(N,) class indices."""
    seed: int
    """Of everything that a score draws."""

    def generator(self) -> torch.Generator:
        """A new stream of random numbers; the same at every call."""
        return torch.Generator().manual_seed(self.seed)

    def noise(self, generator: torch.Generator) -> Tensor:
        """Standard normal images of the shape of `images`.

        They are drawn on the CPU, so that they are the same on every device.
        """
        return torch.randn(self.images.shape, generator=generator).to(self.images)

    def require_labels(self) -> Tensor:
        """The labels, on the device of the images.

        Raises:
            RefusedError: there are none.
        """
        if self.labels is None:
            raise RefusedError(
                "this score compares logits with labels, received none. Pass labelled images."
            )
        return self.labels.to(self.images.device)


def require_classes(logits: Tensor, labels: Tensor) -> None:
    """Refuse labels that the network has no logit for.

    Raises:
        RefusedError: with the numbers of both.
    """
    highest, classes = int(labels.max()), logits.shape[1]
    if highest >= classes:
        raise RefusedError(
            f"labels are class indices below the number of logits, {classes}; received {highest}. "
            "Pass the labels of this network's classes."
        )


def batch_norms(network: nn.Module) -> Iterator[tuple[str, _BatchNorm]]:
    """Every BatchNorm of any dimension, by name."""
    for name, module in network.named_modules():
        if isinstance(module, _BatchNorm):
            yield name, module


def compute_logits(network: nn.Module, images: Tensor) -> Tensor:
    """A forward pass that must return logits, as (N, classes).

    Raises:
        RefusedError: it returns something else.
    """
    logits = forward_pass(network, images)
    if not isinstance(logits, Tensor) or logits.ndim != 2 or len(logits) != len(images):
        raise RefusedError(
            "the network must return one row of logits per image; for "
            f"{len(images)} images it returns {describe_output(logits)}."
        )
    return logits
