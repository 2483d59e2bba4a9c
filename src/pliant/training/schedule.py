"""The learning rate over a training run, and what else is common to all strategies."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property
from typing import Literal, NamedTuple

import numpy as np

from pliant.spaces.space import Optimizer

Precision = Literal["fp32", "bf16"]
ClassWeights = Literal["none", "balanced"]


@dataclass(frozen=True, slots=True)
class TrainingRecipe:
    """How weights are trained: an optimizer, and warm-up and cosine decay per phase.

    The defaults are those of SGD with Nesterov momentum; `usual_recipe` has those of AdamW too.
    """

    epochs: int
    batch_size: int = 512
    learning_rate: float = 0.375
    """Peak rate for a batch of 256 images; see `peak_rate`."""
    optimizer: Optimizer = "sgd"
    """`sgd` has Nesterov momentum; strategies with an optimizer of their own keep it."""
    momentum: float = 0.85
    """Of SGD."""
    weight_decay: float = 1.3e-3
    """Not applied to BatchNorm, biases and kernel matrices, whose neutral value is not 0."""
    bias_rate: float = 16.0
    """Learning rate of BatchNorm's biases over all others' (Jordan, 94% on CIFAR-10 in 3.29 seconds
    on a single GPU, 2024, arXiv:2404.00498, takes 64)."""
    label_smoothing: float = 0.1
    warmup: float = 0.1
    """Share of a phase's steps."""
    clip_norm: float = 5.0
    """Largest L2 norm of the gradient; 0 for none."""
    class_weights: ClassWeights = "none"
    """`balanced` draws equally many images of each class; see `balanced_permutation`."""
    precision: Precision = "fp32"
    seed: int = 0

    @property
    def peak_rate(self) -> float:
        """The peak rate for its batch.

        That of SGD grows in proportion to the batch, that of AdamW with its root (S. Malladi, K.
        Lyu, A. Panigrahi, S. Arora, "On the SDEs and Scaling Rules for Adaptive Gradient
        Algorithms", 2022, arXiv:2205.10287).
        """
        larger = self.batch_size / 256
        return self.learning_rate * (larger if self.optimizer == "sgd" else math.sqrt(larger))


USUAL: Mapping[Optimizer, tuple[float, float]] = {"sgd": (0.375, 1.3e-3), "adamw": (3e-3, 0.05)}
"""Learning rate and weight decay of each optimizer.

Those of AdamW are usual for vision transformers (H. Touvron et al., "Training data-efficient image
transformers & distillation through attention", 2020, arXiv:2012.12877, table 9), with a rate that
suits tens of epochs.
"""


def usual_recipe(optimizer: Optimizer, epochs: int, batch_size: int = 512) -> TrainingRecipe:
    """The recipe of an optimizer with its usual rate and weight decay.

    Args:
        optimizer: such as that of the space whose networks are trained.
        epochs: passes over the training images.
        batch_size: images per step.
    """
    rate, decay = USUAL[optimizer]
    return TrainingRecipe(epochs, batch_size, rate, optimizer, weight_decay=decay)


@dataclass(frozen=True, slots=True)
class Phase:
    """A stretch of training with a learning rate of its own."""

    name: str
    epochs: float
    """May be a fraction; phases follow each other at the nearest step."""
    rate: float = 1.0
    """Peak learning rate over the recipe's."""
    full_rate_steps: int = 0
    """A phase of fewer steps has a lower peak, in proportion to its steps."""


PARTS = 4
"""Of a phase; where one of them begins, the rest of the training may be planned again."""


class PlanPoint(NamedTuple):
    """Where the rest of a training may be planned again: when a part of a phase begins."""

    phase: int
    """Its index."""
    part: int
    """From 0, the beginning of the phase, to `PARTS` - 1."""
    step: int
    """At which it is reached; that of the phase's end where it was left early."""


@dataclass(frozen=True)
class Timetable:
    """Which step belongs to which phase, and its learning rate."""

    phases: tuple[Phase, ...]
    steps_per_epoch: int

    @cached_property
    def phase_boundaries(self) -> tuple[int, ...]:
        """First step of each phase, and the number of all steps."""
        ends = np.cumsum([0.0, *(phase.epochs for phase in self.phases)]) * self.steps_per_epoch
        return tuple(round(end) for end in ends)

    def phase_index(self, step: int) -> int:
        """The phase of a step."""
        starts = self.phase_boundaries[:-1]
        return max(index for index, start in enumerate(starts) if start <= step)

    def part_start(self, phase: int, part: int) -> int:
        """First step of a part of a phase.

        Args:
            phase: its index.
            part: from 0 to `PARTS` - 1.
        """
        first, end = self.phase_boundaries[phase : phase + 2]
        return first + round(part / PARTS * (end - first))

    def learning_rate(self, step: int, recipe: TrainingRecipe) -> float:
        """Linear warm-up, then a half cosine to 0, over the phase of the step."""
        index = self.phase_index(step)
        start, end = self.phase_boundaries[index : index + 2]
        phase = self.phases[index]
        peak = recipe.peak_rate * phase.rate
        peak *= min(1.0, (end - start) / max(1, phase.full_rate_steps))
        done = (step - start + 0.5) / (end - start)
        if done < recipe.warmup:
            return peak * done / recipe.warmup
        return peak * 0.5 * (1 + math.cos(math.pi * (done - recipe.warmup) / (1 - recipe.warmup)))
