"""Training for estimates: one call from fresh weights to trained ones, resumable, with its cost."""

from __future__ import annotations

import json
import math
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import torch
from torch import Tensor, nn

from pliant.accuracy.evaluation import pixels
from pliant.data.augment import Augmentation
from pliant.data.dataset import DataSet
from pliant.data.splits import Split
from pliant.errors import DivergedError
from pliant.files import write_atomically
from pliant.metrics import Failed
from pliant.networks.initialization import PATCH_IMAGES, patch_pca_stem
from pliant.spaces.space import Space
from pliant.training.checkpoint import Checkpoints
from pliant.training.loop import StepLog, make_accelerator, train
from pliant.training.schedule import TrainingRecipe, usual_recipe
from pliant.training.strategy import TrainingStrategy

BATCH_SIZE = 128
"""Images per step; a short schedule needs many steps more than large batches."""
MIN_STEPS_PER_EPOCH = 8
MIN_BATCH = 16


def short_recipe(space: Space, epochs: int, *, images: int, seed: int = 0) -> TrainingRecipe:
    """A schedule of a few epochs for estimates; the same for all that are compared.

    Args:
        space: whose networks are trained.
        epochs: passes over the training images.
        images: in the training split; few of them get a smaller batch.
        seed: of weights, batches and augmentation.
    """
    size = min(BATCH_SIZE, max(MIN_BATCH, images // MIN_STEPS_PER_EPOCH), images)
    return replace(usual_recipe(space.optimizer, epochs, size), seed=seed)


def default_augmentation(data: DataSet) -> Augmentation:
    """Shifts by an eighth of the image, and mirror images where the images are in colour."""
    return Augmentation(pad=data.image_size // 8, flip=data.channels == 3, fill=data.mean)


def fewer_images(data: DataSet, share: float, seed: int = 0) -> DataSet:
    """The same data set with a share of its training images, the same share of every class.

    Args:
        data: its validation and test splits stay as they are.
        share: above 0, at most 1.
        seed: of the draw.
    """
    if share >= 1:
        return data
    rng, kept = np.random.default_rng(seed), []
    for label in range(len(data.classes)):
        members = rng.permutation(np.flatnonzero(data.train.labels == label))
        kept.append(members[: max(1, round(share * len(members)))])
    # Not sorted by class: batches of an epoch are permuted, calibration images are drawn.
    return replace(data, train=data.train.subset(np.sort(np.concatenate(kept))))


def stem_images(data: DataSet) -> Tensor:
    """Training images from whose patches the first convolution starts, pixels from 0 to 1."""
    return pixels(data.train.batch(np.arange(min(PATCH_IMAGES, len(data.train))))[0])


@dataclass(frozen=True, slots=True)
class Fit:
    """How a training went."""

    failure: Failed | None
    """Why there are no trained weights; None where there are."""
    seconds: float
    """CPU time, also of earlier processes that trained the same weights."""
    curve: tuple[tuple[float, float], ...]
    """(epoch, loss of the first sub-network) once per epoch, and where it diverged."""


def fit(
    make: Callable[[], nn.Module],
    data: DataSet,
    recipe: TrainingRecipe,
    strategy: TrainingStrategy,
    *,
    augmentation: Augmentation | None = None,
    folder: Path | None = None,
    until_epoch: float | None = None,
    splits: Mapping[str, Split] | None = None,
    on_step: Callable[[StepLog], None] = lambda log: None,
) -> tuple[nn.Module, Fit]:
    """Train fresh weights by a recipe; from the last checkpoint where there is one.

    The stem begins as the principal components of image patches. Diverged training ends at once.

    Args:
        make: makes the module; PyTorch's global generator is seeded for it and then restored.
        data: trains on its training split.
        recipe: epochs, batch size, rates and the seed.
        strategy: which losses a step sums up.
        augmentation: `default_augmentation` where None.
        folder: of checkpoints and of the seconds so far; nothing is kept where None.
        until_epoch: where to pause; None for the end.
        splits: further images by the names that the strategy's turns use.
        on_step: told the last step of every epoch.
    """
    began, before = time.process_time(), _seconds(folder)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(recipe.seed)
        module = make()
    patch_pca_stem(module, stem_images(data))
    steps = max(1, len(data.train) // recipe.batch_size)
    curve = _curve(folder)

    def log(step: StepLog) -> None:
        curve[step.epoch] = step.losses[0]
        if folder is not None:
            state = {"seconds": before + time.process_time() - began, "curve": list(curve.items())}
            folder.mkdir(parents=True, exist_ok=True)
            write_atomically(folder / "fit.json", json.dumps(state) + "\n")
        on_step(step)

    failure = None
    try:
        train(
            module,
            {"train": data.train, **(splits or {})},
            augmentation or default_augmentation(data),
            recipe,
            strategy,
            accelerator=make_accelerator(recipe.precision, "cpu"),
            checkpoints=Checkpoints(folder) if folder is not None else None,
            on_step=log,
            report_every=steps,
            until=None if until_epoch is None else round(until_epoch * steps),
        )
    except DivergedError as error:
        failure = Failed(str(error))
        curve[error.step / steps] = error.loss if math.isfinite(error.loss) else math.inf
    seconds = before + time.process_time() - began
    return module, Fit(failure, seconds, tuple(sorted(curve.items())))


def _seconds(folder: Path | None) -> float:
    return float(_state(folder).get("seconds", 0.0))


def _curve(folder: Path | None) -> dict[float, float]:
    return {float(epoch): float(loss) for epoch, loss in _state(folder).get("curve", [])}


def _state(folder: Path | None) -> dict:
    path = None if folder is None else folder / "fit.json"
    if path is None or not path.is_file():
        return {}
    found: dict = json.loads(path.read_text("utf-8"))
    return found
