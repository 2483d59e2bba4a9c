"""The sandwich rule with in-place distillation (Yu et al. 2020, BigNAS): one phase, three sub-networks a step.

Every step trains the largest network on the labels, and a random one and the smallest on the labels and on the largest's
outputs. Gradients are summed. With both ends trained on every batch, what lies between follows; no sorting and no phases
are needed. BigNAS trains the others on the largest's outputs alone, for hundreds of epochs; in tens of epochs the largest
has little to teach at first, so half of the loss is the labels'.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
from torch import Tensor, nn
from torch.nn import functional as F

from pliant.spaces.space import Space
from pliant.training.loop import Phase


@dataclass(frozen=True)
class Sandwich:
    """The schedule.

    Args:
        space: to draw from; every choice on its own.
        randoms: random sub-networks a step; BigNAS takes two.
        label_share: weight of the labels in the loss of all but the largest; the rest is distillation. BigNAS: 0.
        label_smoothing: for the largest network's loss.
    """

    space: Space
    randoms: int = 1
    label_share: float = 0.5
    label_smoothing: float = 0.1

    def phases(self, epochs: int) -> tuple[Phase, ...]:
        """One."""
        return (Phase("sandwich", epochs),)

    def enter(self, phase: str, model: nn.Module) -> None:
        """Nothing changes."""

    def resume(self, model: nn.Module, teacher: dict[str, Tensor]) -> None:
        """Nothing is kept."""

    def teacher(self) -> dict[str, Tensor]:
        """None: the largest network teaches."""
        return {}

    def losses(
        self, phase: str, model: nn.Module, images: Tensor, labels: Tensor, rng: np.random.Generator
    ) -> Iterator[Tensor]:
        """Cross-entropy of the largest, then of the others to its softened answer."""
        logits = model(images, self.space.largest(), dropout=True)
        yield F.cross_entropy(logits, labels, label_smoothing=self.label_smoothing)
        target = logits.detach().softmax(-1)
        for architecture in (
            *(self.space.sample_choices(rng) for _ in range(self.randoms)),
            self.space.smallest(),
        ):
            answer = model(images, architecture)
            hard = F.cross_entropy(answer, labels, label_smoothing=self.label_smoothing)
            yield self.label_share * hard + (1 - self.label_share) * F.cross_entropy(answer, target)
