"""What a calibrated network answers on a split, and its top-1 accuracy."""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from pliant.accuracy.calibration import fitting_batch, require_calibrated
from pliant.data.splits import Split
from pliant.metrics import Accuracy


def pixels(images: Tensor) -> Tensor:
    """Stored images, uint8, as the networks' input: 0 to 1, channels last in memory."""
    return images.float().div_(255).contiguous(memory_format=torch.channels_last)


@dataclass(frozen=True)
class Answers:
    """What a network answered on each image of a split."""

    labels: NDArray[np.int64]
    """Class index of each image, shape (N,)."""
    answers: NDArray[np.int64]
    """Class index with the highest logit, shape (N,)."""
    probabilities: NDArray[np.float32]
    """Softmax of that logit, 0 to 1, shape (N,)."""

    @property
    def right(self) -> NDArray[np.bool_]:
        """Whether each answer is right, shape (N,)."""
        return self.answers == self.labels

    @property
    def accuracy(self) -> Accuracy:
        """Share of right answers."""
        return Accuracy(int(self.right.sum()) / len(self.labels), len(self.labels))


def indistinct(one: Answers, other: Answers) -> bool:
    """Whether the same images leave open which of two networks is the more accurate one.

    Their accuracies differ by less than one standard error of the difference, image by image.
    Networks that are right on the same images differ by 0 and have no error, so they are equal and
    not indistinct.
    """
    apart = one.right.astype(float) - other.right
    return bool(abs(apart.mean()) < apart.std() / math.sqrt(len(apart)))


@torch.no_grad()
def answers(network: nn.Module, split: Split, *, batch_size: int | None = None) -> Answers:
    """What a network answers on each image.

    Args:
        network: calibrated.
        split: its images are not augmented.
        batch_size: of one forward pass; 1,000 for images of up to 32 pixels where None.

    Raises:
        UncalibratedError: a BatchNorm has no statistics.
    """
    require_calibrated(network)
    device = next(network.parameters()).device
    network.eval().to(memory_format=torch.channels_last)  # type: ignore[call-overload]
    batch_size = batch_size or fitting_batch(split.batch(np.arange(1))[0].shape[-1], 1000)
    found, probabilities = [], []
    for start in range(0, len(split), batch_size):
        images, _ = split.batch(np.arange(start, min(start + batch_size, len(split))))
        logits = network(pixels(images).to(device))
        best = logits.argmax(1)
        found.append(best.cpu().numpy())
        chosen = logits.float().softmax(1).gather(1, best[:, None])[:, 0]
        probabilities.append(chosen.cpu().numpy())
    return Answers(split.labels, np.concatenate(found), np.concatenate(probabilities))


def top1(network: nn.Module, split: Split, *, batch_size: int | None = None) -> Accuracy:
    """Share of a split's images that the network classifies correctly; arguments as `answers`."""
    return answers(network, split, batch_size=batch_size).accuracy
