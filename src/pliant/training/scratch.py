"""Training one plain network alone, by the same loop: the truth that a supernet's sub-networks are compared with."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
from torch import Tensor, nn
from torch.nn import functional as F

from pliant.training.loop import Phase


@dataclass(frozen=True)
class Standalone:
    """The schedule of one network on its labels."""

    label_smoothing: float = 0.1

    def phases(self, epochs: int) -> tuple[Phase, ...]:
        """One."""
        return (Phase("alone", epochs),)

    def enter(self, phase: str, model: nn.Module) -> None:
        """Nothing changes."""

    def resume(self, model: nn.Module, teacher: dict[str, Tensor]) -> None:
        """Nothing is kept."""

    def teacher(self) -> dict[str, Tensor]:
        """None."""
        return {}

    def losses(
        self, phase: str, model: nn.Module, images: Tensor, labels: Tensor, rng: np.random.Generator
    ) -> Iterator[Tensor]:
        """Cross-entropy."""
        yield F.cross_entropy(model(images), labels, label_smoothing=self.label_smoothing)
