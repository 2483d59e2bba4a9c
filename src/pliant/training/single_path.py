"""Single-path sampling: every step trains a few sub-networks, each drawn uniformly, on the labels.

Guo, Z. et al., Single path one-shot neural architecture search with uniform sampling, 2019,
arXiv:1904.00420, section 3.2. A step costs a third of the sandwich rule's, and no sub-network is
trained more often than another.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
from torch import Tensor, nn
from torch.nn import functional as F

from pliant.spaces.space import Space
from pliant.training.strategy import TrainingStrategy


@dataclass(frozen=True)
class SinglePath(TrainingStrategy):
    """The strategy.

    Args:
        space: to draw from; every choice independently.
        num_random_subnets: per step, whose gradients are summed.
        label_smoothing: for their losses.
    """

    space: Space
    num_random_subnets: int = 1
    label_smoothing: float = 0.1

    def losses(
        self,
        phase: str,
        model: nn.Module,
        images: Tensor,
        labels: Tensor,
        rng: np.random.Generator,
    ) -> Iterator[Tensor]:
        """Cross-entropy of each drawn sub-network."""
        for _ in range(self.num_random_subnets):
            logits = model(images, self.space.sample_choices(rng), dropout=False)
            loss = F.cross_entropy(logits, labels, label_smoothing=self.label_smoothing)
            yield loss / self.num_random_subnets
