"""Progressive shrinking: the full network, then elastic kernel, depth and width.

Cai, H. et al., Once-for-All: train one network and specialize it for efficient deployment, 2020,
arXiv:1908.09791, section 3.3 and appendix B.

Each phase frees one more dimension, in steps from its largest options down. The full network of the
first phase, frozen, teaches all later ones. Channels are sorted by importance at the start of each
width phase, inside what was trained before. Phases keep the paper's shares of the epochs (180, 125,
25, 125, 25, 125) and of the learning rate.
"""

from __future__ import annotations

import itertools
from collections.abc import Iterator, Mapping, Sequence

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from pliant.networks.supernet import Supernet
from pliant.spaces.architecture import Architecture, Option
from pliant.spaces.space import Space
from pliant.training.averaging import frozen_copy
from pliant.training.schedule import Phase
from pliant.training.strategy import TrainingStrategy

SHARES = {"full": 180, "kernel": 125, "depth1": 25, "depth2": 125, "width1": 25, "width2": 125}
"""Epochs of the paper's phases."""
LR_FACTORS = {
    "full": 1.0,
    "kernel": 0.37,
    "depth1": 0.031,
    "depth2": 0.092,
    "width1": 0.031,
    "width2": 0.092,
}
"""Peak learning rates over the full network's: 2.6, 0.96, 0.08, 0.24, 0.08, 0.24 in the paper."""
SUBNETS_PER_STEP = {"full": 1, "kernel": 1, "depth1": 2, "depth2": 2, "width1": 4, "width2": 4}
"""Sub-networks per step, whose gradients are summed."""


class ProgressiveShrinking(TrainingStrategy):
    """The strategy.

    Args:
        space: to draw from. Resolution is free from the first phase on; a phase of a dimension that
            the space does not have is left out.
        label_smoothing: for the loss on the labels.
        distillation: weight of the teacher's loss.
        lr_factors: peak learning rates of the phases over the recipe's.
    """

    def __init__(
        self,
        space: Space,
        *,
        label_smoothing: float = 0.1,
        distillation: float = 1.0,
        lr_factors: Mapping[str, float] | None = None,
    ) -> None:
        self.space = space
        self.label_smoothing = label_smoothing
        self.distillation = distillation
        self.lr_factors = LR_FACTORS | dict(lr_factors or {})
        self._teacher: Supernet | None = None

    def phases(self, epochs: int) -> tuple[Phase, ...]:
        """The paper's phases for the dimensions that the space has, scaled to the epochs."""
        present = {choice.dimension for choice in self.space.choices if len(choice.options) > 1}
        names = [name for name in SHARES if name == "full" or name.rstrip("12") in present]
        total = sum(SHARES[name] for name in names)
        return tuple(
            Phase(name, epochs * SHARES[name] / total, self.lr_factors[name]) for name in names
        )

    def options(self, phase: str) -> dict[str, Sequence[Option]]:
        """The options to sample in a phase: the largest, the larger half or all of each choice."""
        free = list(SHARES).index(phase)
        found: dict[str, Sequence[Option]] = {}
        for choice in self.space.choices:
            if choice.dimension not in ("kernel", "depth", "width"):
                continue
            steps = [
                index for index, name in enumerate(SHARES) if name.rstrip("12") == choice.dimension
            ]
            freed = sum(step <= free for step in steps)
            kept = {0: 1, len(steps): len(choice.options)}.get(
                freed, (len(choice.options) + 2) // 2
            )
            found[choice.name] = choice.options[-kept:]
        return found

    def trained_widths(self, phase: str) -> list[Architecture]:
        """Architectures that show every width trained before a phase, each with all blocks.

        A width may depend on the choices of a stage and of a block (`1w` and `1.2e`): choices with
        the same letter shrink together, and those of different letters in all combinations.
        """
        before = list(SHARES)[list(SHARES).index(phase) - 1]
        allowed = self.options(before)
        letters = {
            choice.name: choice.name.rpartition(".")[2].lstrip("0123456789")
            for choice in self.space.choices
            if choice.dimension == "width"
        }
        longest: dict[str, int] = {}
        for name, letter in letters.items():
            longest[letter] = max(longest.get(letter, 0), len(allowed[name]))
        largest = dict(self.space.largest().options)
        found = []
        for steps in itertools.product(*(range(1, length + 1) for length in longest.values())):
            back = dict(zip(longest, steps, strict=True))
            widths = {
                name: allowed[name][-min(back[letter], len(allowed[name]))]
                for name, letter in letters.items()
            }
            found.append(self.space.architecture(largest | widths))
        return found

    def on_phase_start(self, phase: str, model: nn.Module) -> None:
        """Freeze the teacher after the first phase; sort channels before the width phases."""
        assert isinstance(model, Supernet)
        if phase != "full" and self._teacher is None:
            self._teacher = frozen_copy(model)
        if phase.startswith("width"):
            model.sort_channels(self.trained_widths(phase))

    def load_state(self, model: nn.Module, state: dict[str, Tensor]) -> None:
        """Take the teacher from the checkpoint."""
        assert isinstance(model, Supernet)
        if state:
            self._teacher = frozen_copy(model)
            self._teacher.load_state_dict(state)

    def state(self) -> dict[str, Tensor]:
        """The frozen full network, once there is one."""
        return {} if self._teacher is None else dict(self._teacher.state_dict())

    def losses(
        self, phase: str, model: nn.Module, images: Tensor, labels: Tensor, rng: np.random.Generator
    ) -> Iterator[Tensor]:
        """Cross-entropy to the labels and, after the first phase, to the teacher's predictions."""
        target = None
        if self._teacher is not None:
            with torch.no_grad():
                target = self._teacher(images, self.space.largest()).float().softmax(-1)
        allowed = self.options(phase)
        for _ in range(SUBNETS_PER_STEP[phase]):
            architecture = self.space.sample_choices(rng, allowed)
            logits = model(images, architecture, dropout=phase == "full")
            loss = F.cross_entropy(logits, labels, label_smoothing=self.label_smoothing)
            yield (
                loss
                if target is None
                else loss + self.distillation * F.cross_entropy(logits, target)
            )
