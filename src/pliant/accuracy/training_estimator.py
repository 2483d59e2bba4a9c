"""What the estimators that train each network on its own share: data, validation, one training."""

from __future__ import annotations

import time
from abc import abstractmethod
from pathlib import Path

import numpy as np
import torch
from torch import nn

from pliant.accuracy.calibration import calibrate, calibration_images
from pliant.accuracy.estimator import Estimator, digest_of
from pliant.accuracy.evaluation import pixels, top1
from pliant.accuracy.fitting import default_augmentation, fit
from pliant.data.augment import Augmentation
from pliant.data.dataset import DataSet
from pliant.data.splits import Split
from pliant.metrics import Accuracy, Estimate
from pliant.networks.plain import Network
from pliant.networks.supernet import build
from pliant.spaces.architecture import Architecture
from pliant.spaces.space import Space
from pliant.training.allocator import trim_freed_memory
from pliant.training.schedule import TrainingRecipe
from pliant.training.strategy import TrainingStrategy


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


class TrainingEstimator(Estimator):
    """An estimator that trains every architecture on its own.

    Args:
        space: of the architectures.
        data: trains on its training images, evaluates on its validation images.
        augmentation: of the training images; `default_augmentation` where None.
        images: of the validation split, at most.
        folder: of checkpoints, from which a killed training resumes; none are kept where None.
    """

    def __init__(
        self,
        space: Space,
        data: DataSet,
        *,
        augmentation: Augmentation | None = None,
        images: int = 2500,
        folder: Path | None = None,
    ) -> None:
        super().__init__()
        self.space = space.trainable_space()
        self.data = data
        self.augmentation = augmentation or default_augmentation(data)
        self.folder = folder
        self.validation = Validation(data, images=images)

    @property
    @abstractmethod
    def trained_by(self) -> tuple[object, ...]:
        """The recipes, and what else decides a training: a part of the identity."""

    @property
    def identity(self) -> str:
        """Of the space, the images, the augmentation and how networks are trained."""
        return digest_of(
            self.name,
            self.space.identity,
            self.data.fingerprint,
            len(self.data.train),
            len(self.validation.split),
            self.augmentation,
            *self.trained_by,
        )

    def build(self, architecture: Architecture) -> Network:
        """The network of an architecture with fresh weights."""
        return build(self.space, architecture, mean=self.data.mean, std=self.data.std)

    def train_one(
        self,
        architecture: Architecture,
        recipe: TrainingRecipe,
        strategy: TrainingStrategy,
        *,
        lineage: object = "",
        until_epoch: float | None = None,
    ) -> tuple[Network | None, Estimate]:
        """The trained network and its estimate; None and `Failed` with its curve if it diverged.

        Args:
            architecture: what to train.
            recipe: epochs, rates and the seed.
            strategy: how to begin, and the losses.
            lineage: what else the folder of its checkpoints is of, such as the ancestors.
            until_epoch: where to pause; the end of the recipe where None.
        """
        folder = self.folder and self.folder / digest_of(self.identity, architecture, lineage)
        network, trained = fit(
            lambda: self.build(architecture),
            self.data,
            recipe,
            strategy,
            augmentation=self.augmentation,
            folder=folder,
            until_epoch=until_epoch,
        )
        if trained.failure is not None:
            return None, Estimate(trained.failure, trained.seconds, trained.curve)
        assert isinstance(network, Network)
        began = time.process_time()
        accuracy = self.validation(network)
        trim_freed_memory()  # every network has activations of other sizes
        seconds = trained.seconds + time.process_time() - began
        return network, Estimate(accuracy, seconds, trained.curve)
