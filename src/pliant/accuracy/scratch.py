"""Training from scratch: the reference that all other estimators stand in for.

Every architecture is trained on its own by one recipe, from fresh weights of one seed, and is then
calibrated and evaluated as a supernet's sub-network is. Two seeds are two estimators; how well they
agree is the reliability of the ground truth.
"""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

from pliant.accuracy.fitting import short_recipe
from pliant.accuracy.training_estimator import TrainingEstimator
from pliant.data.augment import Augmentation
from pliant.data.dataset import DataSet
from pliant.metrics import Estimate
from pliant.spaces.architecture import Architecture
from pliant.spaces.space import Space
from pliant.training.schedule import TrainingRecipe
from pliant.training.scratch import FromScratch


class TrainFromScratch(TrainingEstimator):
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
        super().__init__(space, data, augmentation=augmentation, images=images, folder=folder)
        usual = short_recipe(space, epochs, images=len(data.train))
        self.recipe = replace(recipe or usual, seed=seed)

    @property
    def trained_by(self) -> tuple[object, ...]:
        """The recipe with its seed."""
        return (self.recipe,)

    def evaluate_one(self, architecture: Architecture) -> Estimate:
        """Train the network to the end; `Failed` with the curve so far where it diverges."""
        return self.train_until(architecture, self.recipe.epochs)

    def train_until(self, architecture: Architecture, epoch: float) -> Estimate:
        """Train up to an epoch of the whole schedule, and evaluate what was reached there.

        With a folder, a later call with a later epoch resumes there.

        Args:
            architecture: what to train.
            epoch: of the schedule, which stays as long as it is.
        """
        strategy = FromScratch(self.recipe.label_smoothing)
        return self.train_one(architecture, self.recipe, strategy, until_epoch=epoch)[1]
