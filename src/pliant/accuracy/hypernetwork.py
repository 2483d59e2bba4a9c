"""A hypernetwork as an estimator: accuracy with generated weights, without training the child."""

from __future__ import annotations

from collections.abc import Callable
from functools import cached_property
from pathlib import Path

from pliant.accuracy.estimator import Estimator, digest_of
from pliant.accuracy.fitting import short_recipe
from pliant.accuracy.shared_weights import SharedWeights, TrainedSupernet, train_weights
from pliant.data.dataset import DataSet
from pliant.metrics import Estimate
from pliant.networks.hypernetwork import Encoder, HyperSupernet
from pliant.spaces.architecture import Architecture
from pliant.spaces.space import Space
from pliant.training.hypernetwork import HyperNetworkTraining
from pliant.training.loop import StepLog


class HyperNetwork(Estimator):
    """Top-1 of sub-networks whose weights a hypernetwork generates, each calibrated on its own.

    Expect weights that are as accurate as shared ones, and ranks that are no better: compare both.

    Args:
        space: of the architectures.
        data: trains on its training images, evaluates on its validation images.
        encoder: `graph` or `code`.
        epochs: of its training, before the first architecture.
        seed: of everything random.
        images: of the validation split, at most.
        folder: of checkpoints; a killed training resumes there, a finished one is loaded.
        on_step: told the last step of every epoch.
    """

    name = "hypernetwork"

    def __init__(
        self,
        space: Space,
        data: DataSet,
        *,
        encoder: Encoder = "graph",
        epochs: int = 24,
        seed: int = 0,
        images: int = 2500,
        folder: Path | None = None,
        on_step: Callable[[StepLog], None] = lambda log: None,
    ) -> None:
        super().__init__()
        self.space, self.data = space.trainable_space(), data
        self.encoder: Encoder = encoder
        self._recipe = short_recipe(space, epochs, images=len(data.train), seed=seed)
        self._images, self._folder, self._on_step = images, folder, on_step

    @property
    def identity(self) -> str:
        """Of the space, the images, the encoder and the recipe with its seed."""
        return digest_of(
            self.name,
            self.encoder,
            self.space.identity,
            self.data.fingerprint,
            len(self.data.train),
            self._images,
            self._recipe,
        )

    @cached_property
    def trained(self) -> TrainedSupernet:
        """The hypernetwork, trained at first use."""
        data = self.data
        return train_weights(
            lambda: HyperSupernet(self.space, mean=data.mean, std=data.std, encoder=self.encoder),
            data,
            self._recipe,
            HyperNetworkTraining(self.space, label_smoothing=self._recipe.label_smoothing),
            self.identity,
            folder=self._folder and self._folder / self.identity,
            on_step=self._on_step,
        )

    @cached_property
    def _shared(self) -> SharedWeights:
        return SharedWeights(self.trained, images=self._images)

    def prepare(self) -> None:
        """Train it."""
        _ = self.trained

    @property
    def setup_seconds(self) -> float:
        """CPU time of the training."""
        return self.trained.seconds

    def evaluate_one(self, architecture: Architecture) -> Estimate:
        """Generate, extract, calibrate and evaluate."""
        return self._shared.evaluate_one(architecture)
