"""Training from scratch: the reference that all other estimators stand in for.

Every architecture is trained on its own by one recipe, from fresh weights of one seed, and is then
calibrated and evaluated as a supernet's sub-network is. Two seeds are two estimators; how well they
agree is the reliability of the ground truth.
"""

from __future__ import annotations

import hashlib
import time
from dataclasses import replace
from pathlib import Path

import numpy as np
import torch
from torch import nn

from pliant.accuracy.calibration import calibrate, calibration_images
from pliant.accuracy.estimator import Estimator
from pliant.accuracy.evaluation import pixels, top1
from pliant.accuracy.fitting import default_augmentation, fit, short_recipe
from pliant.data.augment import Augmentation
from pliant.data.dataset import DataSet
from pliant.data.splits import Split
from pliant.metrics import Accuracy, Estimate
from pliant.networks.supernet import build
from pliant.spaces.architecture import Architecture
from pliant.spaces.space import Space
from pliant.training.allocator import trim_freed_memory
from pliant.training.schedule import TrainingRecipe
from pliant.training.scratch import FromScratch


class Validation:
    """Calibrates and evaluates trained networks, all of them on the same images.

    Args:
        data: its training split calibrates, its validation split is counted.
        images: of the validation split, at most.
        seed: of both draws.
    """

    def __init__(self, data: DataSet, *, images: int = 2500, seed: int = 0) -> None:
        rng = np.random.default_rng(seed)
        drawn = rng.permutation(len(data.train))[: calibration_images(data.image_size, quick=True)]
        self._calibration = pixels(data.train.batch(drawn)[0])
        rows = np.sort(rng.permutation(len(data.validation))[:images])
        self.split: Split = data.validation.subset(rows)

    def __call__(self, network: nn.Module) -> Accuracy:
        """Top-1 on the validation images."""
        network.to(memory_format=torch.channels_last)  # type: ignore[call-overload]
        return top1(calibrate(network, self._calibration), self.split)


class TrainFromScratch(Estimator):
    """Accuracy after training from fresh weights.

        truth = TrainFromScratch(space, data, epochs=8)
        [quality] = truth.estimate([space.largest()])

    Args:
        space: of the architectures.
        data: trains on its training images, evaluates on its validation images.
        epochs: of the whole schedule; few for a shortened one.
        seed: of the weights, the batches and the augmentation.
        recipe: instead of the default for these epochs; its own seed is replaced by `seed`.
        augmentation: of the training images; `default_augmentation` where None.
        images: of the validation split, at most.
        folder: of checkpoints, from which a killed training resumes; none are kept where None.
    """

    name = "scratch"

    def __init__(
        self,
        space: Space,
        data: DataSet,
        *,
        epochs: int = 8,
        seed: int = 0,
        recipe: TrainingRecipe | None = None,
        augmentation: Augmentation | None = None,
        images: int = 2500,
        folder: Path | None = None,
    ) -> None:
        super().__init__()
        self.space = space.trainable_space()
        self.data = data
        self.recipe = (
            short_recipe(epochs, images=len(data.train), seed=seed)
            if recipe is None
            else replace(recipe, seed=seed)
        )
        self.augmentation = augmentation or default_augmentation(data)
        self.folder = folder
        self._validation = Validation(data, images=images)

    @property
    def identity(self) -> str:
        """Of the space, the images, the recipe with its seed and the augmentation."""
        return digest_of(
            self.name,
            self.space.identity,
            self.data.fingerprint,
            len(self.data.train),
            len(self._validation.split),
            self.recipe,
            self.augmentation,
        )

    def evaluate_one(self, architecture: Architecture) -> Estimate:
        """Train the network to the end; `Failed` with the curve so far where it diverges."""
        return self.train_until(architecture, self.recipe.epochs)

    def train_until(self, architecture: Architecture, epoch: float) -> Estimate:
        """Train up to an epoch of the whole schedule, and evaluate what was reached there.

        With a folder, a later call with a later epoch goes on from there.

        Args:
            architecture: what to train.
            epoch: of the schedule, which stays as long as it is.
        """
        folder = (
            None if self.folder is None else self.folder / digest_of(self.identity, architecture)
        )

        def fresh() -> nn.Module:
            return build(self.space, architecture, mean=self.data.mean, std=self.data.std)

        network, trained = fit(
            fresh,
            self.data,
            self.recipe,
            FromScratch(self.recipe.label_smoothing),
            augmentation=self.augmentation,
            folder=folder,
            until_epoch=epoch,
        )
        if trained.failure is not None:
            return Estimate(trained.failure, trained.seconds, trained.curve)
        evaluated = time.process_time()
        accuracy = self._validation(network)
        trim_freed_memory()  # every network has activations of other sizes
        seconds = trained.seconds + time.process_time() - evaluated
        return Estimate(accuracy, seconds, trained.curve)


def digest_of(*parts: object) -> str:
    """A short text that differs wherever the parts do."""
    return hashlib.sha256("\n".join(map(str, parts)).encode()).hexdigest()[:16]
