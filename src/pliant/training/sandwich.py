"""The sandwich rule with in-place distillation: one phase, three sub-networks per step.

Yu, J. et al., BigNAS: scaling up neural architecture search with big single-stage models, 2020,
arXiv:2003.11142, section 3.1.

Every step trains the largest network on the labels, and a random one and the smallest on the labels
and on the largest's outputs. Gradients are summed. With both ends trained on every batch, what lies
between follows; no sorting and no phases are needed. BigNAS trains the others on the largest's
outputs alone, for hundreds of epochs; in tens of epochs the largest has little to teach at first,
so here half of the loss is the labels'.
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
class Sandwich(TrainingStrategy):
    """The strategy.

    Args:
        space: to draw from; every choice independently.
        num_random_subnets: per step; BigNAS takes two.
        label_share: weight of the labels in the loss of all but the largest network; the rest is
            distillation. BigNAS: 0.
        label_smoothing: for the losses on the labels.
    """

    space: Space
    num_random_subnets: int = 1
    label_share: float = 0.5
    label_smoothing: float = 0.1

    def losses(
        self,
        phase: str,
        model: nn.Module,
        images: Tensor,
        labels: Tensor,
        rng: np.random.Generator,
    ) -> Iterator[Tensor]:
        """Cross-entropy of the largest, then of the others to the labels and its soft outputs."""
        logits = model(images, self.space.largest(), dropout=True)
        yield F.cross_entropy(logits, labels, label_smoothing=self.label_smoothing)
        target = logits.detach().softmax(-1)
        drawn = [self.space.sample_choices(rng) for _ in range(self.num_random_subnets)]
        for architecture in (*drawn, self.space.smallest()):
            answer = model(images, architecture)
            hard = F.cross_entropy(answer, labels, label_smoothing=self.label_smoothing)
            soft = F.cross_entropy(answer, target)
            yield self.label_share * hard + (1 - self.label_share) * soft
