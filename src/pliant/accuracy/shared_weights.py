"""A supernet as an estimator: trained once for a space, then every sub-network costs a calibration.

supernet = train_shared_weights(space, data, epochs=24, folder=Path("weights"))
qualities = SharedWeights(supernet).estimate(architectures)
"""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path

import torch
from torch import nn

from pliant.accuracy.estimator import Estimator, digest_of
from pliant.accuracy.fitting import fit, short_recipe
from pliant.accuracy.supernet import SupernetEstimator
from pliant.data.augment import Augmentation
from pliant.data.dataset import DataSet
from pliant.errors import DivergedError
from pliant.metrics import Estimate
from pliant.networks.supernet import Supernet
from pliant.spaces.architecture import Architecture
from pliant.spaces.space import Space
from pliant.training.loop import StepLog
from pliant.training.registry import StrategyOptions, make_strategy
from pliant.training.schedule import TrainingRecipe
from pliant.training.strategy import TrainingStrategy


@dataclass(frozen=True)
class TrainedSupernet:
    """Shared weights with what they were trained on and what that took."""

    weights: Supernet
    data: DataSet
    identity: str
    """Of everything that decided the weights."""
    seconds: float
    """CPU time of the training."""


def train_shared_weights(
    space: Space,
    data: DataSet,
    *,
    strategy: str = "sandwich",
    epochs: int = 24,
    seed: int = 0,
    recipe: TrainingRecipe | None = None,
    augmentation: Augmentation | None = None,
    folder: Path | None = None,
    on_step: Callable[[StepLog], None] = lambda log: None,
) -> TrainedSupernet:
    """Train the shared weights of a space.

    Args:
        space: all of whose networks share the weights.
        data: trains on its training split.
        strategy: `sandwich`, `single-path` or `progressive-shrinking`, as in a recipe.
        epochs: passes over the training images.
        seed: of everything random.
        recipe: instead of the default for these epochs; its own seed is replaced by `seed`.
        augmentation: `default_augmentation` where None.
        folder: of checkpoints; a killed training resumes there, a finished one is loaded.
        on_step: told the last step of every epoch.

    Raises:
        DivergedError: a loss or a weight is no longer finite.
        RecipeError: no such strategy.
    """
    space = space.trainable_space()
    chosen = (
        short_recipe(space, epochs, images=len(data.train), seed=seed) if recipe is None else recipe
    )
    chosen = replace(chosen, seed=seed)
    options = StrategyOptions(chosen.label_smoothing, data.validation)
    identity = digest_of(
        strategy, space.identity, data.fingerprint, len(data.train), chosen, augmentation
    )
    return train_weights(
        lambda: Supernet(space, mean=data.mean, std=data.std),
        data,
        chosen,
        make_strategy(strategy, space, options),
        identity,
        augmentation=augmentation,
        folder=None if folder is None else folder / identity,
        on_step=on_step,
    )


def train_weights(
    make: Callable[[], Supernet],
    data: DataSet,
    recipe: TrainingRecipe,
    strategy: TrainingStrategy,
    identity: str,
    *,
    augmentation: Augmentation | None = None,
    folder: Path | None = None,
    on_step: Callable[[StepLog], None] = lambda log: None,
) -> TrainedSupernet:
    """Train what has the weights of all networks of a space: a supernet or a hypernetwork.

    Args:
        make: makes it.
        data: trains on its training split.
        recipe: epochs, rates and the seed.
        strategy: which sub-networks a step trains.
        identity: of everything that decides the weights.
        augmentation: `default_augmentation` where None.
        folder: of checkpoints; none are kept where None.
        on_step: told the last step of every epoch.

    Raises:
        DivergedError: a loss or a weight is no longer finite.
    """
    weights, trained = fit(
        make,
        data,
        recipe,
        strategy,
        augmentation=augmentation,
        folder=folder,
        splits={"validation": data.validation},
        on_step=on_step,
    )
    if trained.failure is not None:
        raise DivergedError(trained.failure.reason)
    assert isinstance(weights, Supernet)
    return TrainedSupernet(weights.eval(), data, identity, trained.seconds)


class SharedWeights(Estimator):
    """Accuracy of sub-networks with the weights that they share, each calibrated on its own.

    Args:
        supernet: trained, as `train_shared_weights` returns it.
        images: of the validation split, at most.
        seed: of the calibration and validation images.
    """

    name = "supernet"

    def __init__(self, supernet: TrainedSupernet, *, images: int = 2500, seed: int = 0) -> None:
        super().__init__()
        self.supernet = supernet
        self._images, self._seed = images, seed
        self._calibrated = SupernetEstimator(
            supernet.weights,
            supernet.data.train,
            supernet.data.validation,
            images=images,
            seed=seed,
        )

    @property
    def identity(self) -> str:
        """Of the weights and of the images that calibrate and validate."""
        return digest_of(self.name, self.supernet.identity, self._images, self._seed)

    @property
    def setup_seconds(self) -> float:
        """CPU time of the training of the shared weights."""
        return self.supernet.seconds

    def evaluate_one(self, architecture: Architecture) -> Estimate:
        """Extract, calibrate and evaluate."""
        began = time.process_time()
        [quality] = self._calibrated.estimate([architecture])
        return Estimate(quality, time.process_time() - began)


def weights_of(supernet: nn.Module) -> dict[str, torch.Tensor]:
    """The weights as tensors on the CPU, to send to another process."""
    return {name: tensor.cpu() for name, tensor in supernet.state_dict().items()}
