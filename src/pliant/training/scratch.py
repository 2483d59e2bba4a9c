"""Training one network from scratch: the ground truth of a supernet's sub-networks."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
from torch import Tensor, nn
from torch.nn import functional as F

from pliant.training.strategy import TrainingStrategy


@dataclass(frozen=True)
class FromScratch(TrainingStrategy):
    """One plain network on its labels.

    Args:
        label_smoothing: for its loss.
    """

    label_smoothing: float = 0.1

    def losses(
        self,
        phase: str,
        model: nn.Module,
        images: Tensor,
        labels: Tensor,
        rng: np.random.Generator,
    ) -> Iterator[Tensor]:
        """Cross-entropy."""
        yield F.cross_entropy(model(images), labels, label_smoothing=self.label_smoothing)
