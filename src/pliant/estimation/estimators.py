"""Estimators by name, made from settings that can be sent to another process.

The driver trains what all architectures share, such as a supernet; a worker is sent those weights
and evaluates one architecture after the other.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property, partial
from itertools import pairwise
from pathlib import Path
from typing import NamedTuple

import torch
from torch import Tensor

from pliant.accuracy.estimator import Estimator
from pliant.accuracy.fitting import fewer_images
from pliant.accuracy.hypernetwork import HyperNetwork
from pliant.accuracy.inherit import InheritWeights
from pliant.accuracy.scratch import TrainFromScratch
from pliant.accuracy.shared_weights import (
    SharedWeights,
    TrainedSupernet,
    train_shared_weights,
    weights_of,
)
from pliant.data import DataSet, load
from pliant.errors import PliantError, RecipeError, nearest
from pliant.metrics import Estimate, Failed
from pliant.networks.hypernetwork import HyperSupernet
from pliant.networks.supernet import Supernet
from pliant.plugins import is_object, is_plugin, load_plugin
from pliant.progress import Progress, silent
from pliant.spaces.architecture import Architecture
from pliant.spaces.presets import preset, space_name
from pliant.spaces.space import Space
from pliant.training.allocator import keep_freed_memory
from pliant.training.loop import StepLog
from pliant.training.registry import require_strategy
from pliant.workers import InProcess, WorkerPool, open_workers
from pliant.workers.choose import AnyWorkers

HYPERNETWORK = "hypernetwork"
SCRATCH, INHERIT, SUPERNET = "scratch", "inherit", "supernet"
PREDICTOR, ZERO_SHOT = "predictor", "zero-shot"
ESTIMATORS = (SCRATCH, INHERIT, SUPERNET, HYPERNETWORK, PREDICTOR, ZERO_SHOT)


def require_estimators(names: str | list[str]) -> list[str]:
    """The names of a list with commas, each once.

    Raises:
        RecipeError: none, or one that means no estimator.
    """
    words = names.split(",") if isinstance(names, str) else names
    found = list(dict.fromkeys(word.strip() for word in words if word.strip()))
    for name in found:
        if name not in ESTIMATORS:
            raise RecipeError(
                f"an estimator is one of {', '.join(ESTIMATORS)}, received {name!r}. "
                f"{nearest(name, ESTIMATORS)}"
            )
    if not found:
        raise RecipeError(f"estimators are some of {', '.join(ESTIMATORS)}, received none.")
    return found


@dataclass(frozen=True)
class EstimatorSettings:
    """All that decides the results of the estimators; picklable.

    Args:
        space: name of a space, or `file.py:NAME`.
        data: source of the images, as `pliant.load` takes it.
        seed: of the splits, the draws and the first training.
        train_share: of the training images that are used, above 0 and at most 1.
        images: of the validation split, at most, behind every accuracy.
        epochs: of training from scratch.
        shared_epochs: of a supernet and of a hypernetwork.
        strategy: of the supernet.
        predictor_source: the estimator from which the predictor learns.
        predictor_evaluations: networks on which it learns.
        evolves: children inherit from the ancestors that their jobs name, as in an evolution; else
            from the smallest network of the space.
        folder: of checkpoints, on this machine; None for none.
    """

    space: str
    data: str
    seed: int = 0
    train_share: float = 1.0
    images: int = 2500
    epochs: int = 8
    shared_epochs: int = 24
    strategy: str = "sandwich"
    predictor_source: str = SUPERNET
    predictor_evaluations: int = 100
    evolves: bool = False
    folder: Path | None = None

    def __post_init__(self) -> None:
        """Refuse names that mean nothing before anything is trained.

        Raises:
            RecipeError: an unknown strategy or source of the predictor.
        """
        require_strategy(self.strategy)
        if is_plugin(self.strategy) and not is_object(self.strategy):
            load_plugin(self.strategy, what="a training strategy")
        require_estimators([self.predictor_source])

    @property
    def child_epochs(self) -> int:
        """Epochs of a network that inherits its weights."""
        return max(1, self.epochs // 4)


@dataclass(frozen=True)
class SharedState:
    """Trained weights on their way to a worker."""

    identity: str
    seconds: float
    weights: Mapping[str, Tensor]


class Estimators:
    """The estimators of one setting, each made once.

    Args:
        settings: of all of them.
        shared: weights that were trained elsewhere, by the name of the estimator.
        progress: told the epochs of what is trained.
    """

    def __init__(
        self,
        settings: EstimatorSettings,
        shared: Mapping[str, SharedState] | None = None,
        progress: Progress = silent,
    ) -> None:
        self.settings = settings
        self._shared = dict(shared or {})
        self._progress = progress
        self._made: dict[str, Estimator] = {}
        self._parents: dict[Architecture, Architecture] = {}

    @cached_property
    def data(self) -> DataSet:
        """The images, with the share of the training split that the settings ask for."""
        settings = self.settings
        loaded = load(settings.data, seed=settings.seed)
        return fewer_images(loaded, settings.train_share, settings.seed)

    @cached_property
    def space(self) -> Space:
        """The space, for images of this shape."""
        return preset(
            space_name(self.settings.space),
            channels=self.data.channels,
            image_size=self.data.image_size,
            classes=len(self.data.classes),
        ).trainable_space()

    def get(self, name: str) -> Estimator:
        """The estimator of a name; `scratch 1` is training from scratch with the next seed.

        Training that all architectures share happens here.
        """
        if name not in self._made:
            self._made[name] = self._make(name)
        return self._made[name]

    def _make(self, name: str) -> Estimator:
        word, _, number = name.partition(" ")
        if word == SCRATCH:
            return self._scratch(int(number or 0))
        if word == INHERIT:
            return self._inherit()
        if word == SUPERNET:
            return SharedWeights(self._supernet(), images=self.settings.images)
        if word == HYPERNETWORK:
            return self._hypernetwork()
        raise RecipeError(f"no estimator evaluates networks one by one under the name {name!r}.")

    def _scratch(self, number: int) -> TrainFromScratch:
        settings = self.settings
        return TrainFromScratch(
            self.space,
            self.data,
            epochs=settings.epochs,
            seed=settings.seed + number,
            images=settings.images,
            folder=self._folder(SCRATCH),
        )

    def add_lineage(self, texts: Sequence[str]) -> None:
        """Tell from which networks others inherit.

        Args:
            texts: an architecture, its parent, the parent of that, and so on.
        """
        line = [self.space.parse(text) for text in texts]
        self._parents |= dict(pairwise(line))

    def _inherit(self) -> InheritWeights:
        """Children of the ancestors that jobs name, or of the smallest network.

        A worker finds trained ancestors by their checkpoints, and trains those that are missing.
        """
        settings = self.settings
        made = InheritWeights(
            self.space,
            self.data,
            epochs=settings.child_epochs,
            root_epochs=settings.epochs,
            parent_of=self._parents.get if settings.evolves else None,
            seed=settings.seed,
            images=settings.images,
            folder=self._folder(INHERIT),
        )
        made.prepare()
        return made

    def _supernet(self) -> TrainedSupernet:
        if (sent := self._shared.get(SUPERNET)) is not None:
            made = Supernet(self.space, mean=self.data.mean, std=self.data.std)
            return self._loaded(made, sent)
        settings = self.settings
        return train_shared_weights(
            self.space,
            self.data,
            strategy=settings.strategy,
            epochs=settings.shared_epochs,
            seed=settings.seed,
            folder=self._folder(SUPERNET),
            on_step=partial(self._told, SUPERNET),
        )

    def _hypernetwork(self) -> Estimator:
        settings, data = self.settings, self.data
        if (sent := self._shared.get(HYPERNETWORK)) is not None:
            made = HyperSupernet(self.space, mean=data.mean, std=data.std)
            return SharedWeights(self._loaded(made, sent), images=settings.images)
        return HyperNetwork(
            self.space,
            data,
            epochs=settings.shared_epochs,
            seed=settings.seed,
            images=settings.images,
            folder=self._folder(HYPERNETWORK),
            on_step=partial(self._told, HYPERNETWORK),
        )

    def _loaded(self, made: Supernet, sent: SharedState) -> TrainedSupernet:
        made.load_state_dict(dict(sent.weights))
        return TrainedSupernet(made.eval(), self.data, sent.identity, sent.seconds)

    def _folder(self, name: str) -> Path | None:
        return self.settings.folder and self.settings.folder / name

    def _told(self, name: str, step: StepLog) -> None:
        note = f"epochs of the {name}, loss {step.losses[0]:.3f}"
        self._progress(name, round(step.epoch), round(step.steps / step.step * step.epoch), note)

    def shared_state(self, name: str) -> dict[str, SharedState]:
        """What a worker needs of an estimator beyond the settings, by its name."""
        estimator = self.get(name)
        if isinstance(estimator, HyperNetwork):
            trained = estimator.trained
        elif isinstance(estimator, SharedWeights):
            trained = estimator.supernet
        else:
            return {}
        return {name: SharedState(trained.identity, trained.seconds, weights_of(trained.weights))}


class Job(NamedTuple):
    """One evaluation."""

    estimator: str
    """Its name."""
    architecture: str
    """Its text."""
    until_epoch: int | None = None
    """Of training from scratch: where to pause it and to evaluate what was reached."""
    ancestors: tuple[str, ...] = ()
    """From which it inherits its weights, the parent first."""


class EvaluationWorker:
    """Evaluates one architecture by one estimator; made once in each worker."""

    def __init__(self, estimators: Estimators) -> None:
        self._estimators = estimators

    def __call__(self, job: Job) -> Estimate:
        """The estimate; what the network or its images make impossible is a failure."""
        try:
            architecture = self._estimators.space.parse(job.architecture)
            self._estimators.add_lineage([job.architecture, *job.ancestors])
            estimator = self._estimators.get(job.estimator)
            if job.until_epoch is not None:
                assert isinstance(estimator, TrainFromScratch)
                return estimator.train_until(architecture, job.until_epoch)
            [found] = estimator.evaluate([architecture])
        except PliantError as error:
            return Estimate(Failed(str(error)), 0.0)
        return found


def open_pool(estimators: Estimators, name: str, workers: AnyWorkers) -> WorkerPool:
    """Workers that evaluate by an estimator, with what it shares; a context manager.

    Args:
        estimators: of the driver; they do the work where there are 0 workers.
        name: of the estimator, whose shared weights are trained here first.
        workers: as of `pliant.workers.open_workers`.
    """
    if workers == 0:
        return InProcess(lambda: EvaluationWorker(estimators))
    shared = estimators.shared_state(name)
    return open_workers(partial(make_worker, estimators.settings, shared), workers)


def make_worker(settings: EstimatorSettings, shared: Mapping[str, SharedState]) -> EvaluationWorker:
    """The worker inside another process, on one thread."""
    torch.set_num_threads(1)
    keep_freed_memory()
    return EvaluationWorker(Estimators(settings, shared))
