"""How long an epoch of a training takes on this machine, from a few steps on a copy."""

from __future__ import annotations

import statistics
from collections import defaultdict
from collections.abc import Mapping
from dataclasses import replace

import numpy as np
from accelerate import Accelerator

from pliant.data.augment import Augmentation
from pliant.data.splits import Split
from pliant.networks.supernet import Supernet
from pliant.training.averaging import frozen_copy
from pliant.training.loop import StepLog, train
from pliant.training.schedule import TrainingRecipe
from pliant.training.strategy import TrainingStrategy

TIMED_STEPS = 9
"""Split over the phases as the epochs are."""


def phase_seconds(
    supernet: Supernet,
    splits: Mapping[str, Split],
    augmentation: Augmentation,
    recipe: TrainingRecipe,
    strategy: TrainingStrategy,
    *,
    accelerator: Accelerator,
) -> dict[str, float]:
    """Seconds of an epoch in each phase of a strategy, by its name; the supernet stays as it is.

    Args:
        supernet: to train.
        splits: as the loop takes them; a few batches of `train` are used.
        augmentation: of the batches.
        recipe: its number of epochs does not matter.
        strategy: one that is used for nothing else, since strategies keep state.
        accelerator: device, precision and processes.
    """
    split = splits["train"]
    few = split.subset(np.arange(min(len(split), TIMED_STEPS * recipe.batch_size)))
    epochs = -(-TIMED_STEPS // max(1, len(few) // recipe.batch_size))
    logs: list[StepLog] = []
    train(
        frozen_copy(supernet).requires_grad_(True),
        {**splits, "train": few},
        augmentation,
        replace(recipe, epochs=epochs),
        strategy,
        accelerator=accelerator,
        on_step=logs.append,
        report_every=1,
    )
    found: defaultdict[str, list[float]] = defaultdict(list)
    for log in logs:
        found[log.phase].append(recipe.batch_size / log.images_per_second)
    # The first step of a phase also allocates memory and prepares kernels.
    by_phase = {name: statistics.mean(times[1:] or times) for name, times in found.items()}
    mean = statistics.mean(by_phase.values())  # of a phase too short for a step of the few
    steps = max(1, len(split) // recipe.batch_size)
    names = [phase.name for phase in strategy.phases(recipe.epochs)]
    return {name: by_phase.get(name, mean) * steps for name in names}
