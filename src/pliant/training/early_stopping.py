"""Early stopping: a phase ends when the validation images say that more of it does not help.

Prechelt, L., Early stopping - but when?, 1998. Asked are the averaged weights, whose accuracy does
not wait for the learning rate to fall, by batch statistics, which need no calibration.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional as F

from pliant.data.splits import Split
from pliant.networks.supernet import Supernet
from pliant.spaces.architecture import Architecture

CHECKS = 10
"""Per phase."""
PATIENCE = 4
"""Checks in a row without improvement after which a phase ends."""
IMAGES = 256
"""Of the validation split, at most."""
BATCH = 64


class EarlyStopping:
    """Counts the checks of a phase since the last one that improved loss or accuracy.

    Args:
        validation: its images are mixed once, since batch statistics of one class are wrong; no
            phase is stopped where None.
    """

    def __init__(self, validation: Split | None) -> None:
        self.validation = validation
        self.begin()
        if validation is not None:
            mixed = np.random.default_rng(0).permutation(len(validation))
            self._batches = np.array_split(mixed[:IMAGES], -(-min(IMAGES, len(mixed)) // BATCH))

    def begin(self) -> None:
        """Forget what an earlier phase reached."""
        self._best_loss, self._best_top1, self._waited = float("inf"), -1.0, 0

    @property
    def stopped(self) -> bool:
        """Whether the phase should end."""
        return self._waited >= PATIENCE

    def is_due(self, step: int, steps: int) -> bool:
        """Whether a check follows a step, counted from 0, of a phase of so many."""
        if self.validation is None or step + 1 == steps:
            return False
        return (step + 1) * CHECKS // steps > step * CHECKS // steps

    def check(self, network: Supernet, architectures: Sequence[Architecture]) -> None:
        """Compare with the best so far.

        Args:
            network: the weights.
            architectures: whose mean loss and accuracy count.
        """
        loss, top1 = self.evaluate(network, architectures)
        improved = loss < self._best_loss or top1 > self._best_top1
        self._waited = 0 if improved else self._waited + 1
        self._best_loss = min(self._best_loss, loss)
        self._best_top1 = max(self._best_top1, top1)

    @torch.no_grad()
    def evaluate(
        self, network: Supernet, architectures: Sequence[Architecture]
    ) -> tuple[float, float]:
        """Cross-entropy and top-1 accuracy on the validation images, by batch statistics.

        Args:
            network: the weights.
            architectures: over which the mean is taken.
        """
        assert self.validation is not None
        device = next(network.parameters()).device
        loss, right, seen = 0.0, 0, 0
        for rows in self._batches:
            pixels, labels = self._batch(rows, device)
            for architecture in architectures:
                logits = network(pixels, architecture).cpu()
                loss += float(F.cross_entropy(logits, labels, reduction="sum"))
                right += int((logits.argmax(1) == labels).sum())
                seen += len(labels)
        return loss / seen, right / seen

    def images(self, network: Supernet) -> Tensor | None:
        """A batch of the validation images, (N, channels, size, size) pixels from 0 to 1."""
        if self.validation is None:
            return None
        return self._batch(self._batches[0], next(network.parameters()).device)[0]

    def _batch(self, rows: np.ndarray, device: torch.device) -> tuple[Tensor, Tensor]:
        assert self.validation is not None
        images, labels = self.validation.batch(rows)
        return images.to(device, memory_format=torch.channels_last).float() / 255, labels

    def state(self) -> Tensor:
        """For a checkpoint."""
        return torch.tensor([self._best_loss, self._best_top1, self._waited], dtype=torch.float64)

    def load_state(self, state: Tensor) -> None:
        """Resume from a checkpoint."""
        self._best_loss, self._best_top1, waited = state.tolist()
        self._waited = int(waited)
