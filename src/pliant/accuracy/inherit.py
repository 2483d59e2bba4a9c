"""Accuracy of a child that starts from its parent's trained weights: a few epochs, not all of them.

Elsken, T., Metzen, J. H., Hutter, F., Simple and Efficient Architecture Search for Convolutional
Neural Networks, 2017, arXiv:1711.04528; Cai, H., Chen, T., Zhang, W., Yu, Y., Wang, J., Efficient
Architecture Search by Network Transformation (EAS), 2017, arXiv:1707.04873. The weights are carried
over by `networks.morph.inheritance`, exactly where the child only grows.

A child has seen the training of all its ancestors: `lineage` counts these epochs, and long lineages
look better than they are. `inheritance_gaps` therefore trains finalists from scratch as well.
"""

from __future__ import annotations

import copy
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path

import numpy as np
from torch import Tensor, nn

from pliant.accuracy.estimator import Estimator, digest_of
from pliant.accuracy.evaluation import pixels
from pliant.accuracy.fitting import short_recipe
from pliant.accuracy.training_estimator import TrainingEstimator
from pliant.data.augment import Augmentation
from pliant.data.dataset import DataSet
from pliant.errors import MorphError
from pliant.metrics import Accuracy, Estimate, Failed
from pliant.networks.morph.inheritance import Inheritance, inherit
from pliant.networks.plain import Network
from pliant.spaces.architecture import Architecture
from pliant.spaces.space import Space
from pliant.training.schedule import TrainingRecipe
from pliant.training.scratch import FromScratch

CHECKED_IMAGES = 16
"""Training images on which a child is compared with its parent."""
LEARNING_RATE = 0.3
"""Peak rate of a child over that of training from scratch."""

ParentOf = Callable[[Architecture], Architecture | None]
"""The parent of an architecture; None for one that is trained from scratch."""


@dataclass(frozen=True, slots=True)
class Lineage:
    """Where the weights of an architecture come from."""

    parent: Architecture | None
    epochs: int
    """Of its own training."""
    lineage_epochs: int
    """Of its own training and of that of all its ancestors."""
    approximations: tuple[str, ...]
    """Why it did not begin with what its parent computes; none where it did."""


@dataclass(frozen=True, eq=False)
class ContinueFrom(FromScratch):
    """Training that begins with given weights.

    Args:
        label_smoothing: for the loss.
        weights: of the network, by name.
    """

    weights: Mapping[str, Tensor] = field(default_factory=dict, repr=False)

    def on_phase_start(self, phase: str, model: nn.Module) -> None:
        """Load the weights before the first step; a checkpoint has them already."""
        model.load_state_dict(self.weights)


class InheritWeights(TrainingEstimator):
    """Accuracy after a few epochs that start from the weights of a parent.

        estimator = InheritWeights(space, data, epochs=2)
        [quality] = estimator.estimate([space.largest()])

    Without `parent_of` the smallest network of the space is trained once and is the parent of all,
    so that every other one only grows; the smallest network of cells has no edges to pass on.
    In an evolution a child starts from the network that it was mutated from:

        searcher = EvolutionSearch(space, objective, costs)
        estimator = InheritWeights(space, data, parent_of=searcher.parents.get)

    Args:
        space: of the architectures.
        data: trains on its training images, evaluates on its validation images.
        epochs: of a child.
        root_epochs: of a network without a parent, from scratch.
        parent_of: the parent of an architecture; the smallest network where None.
        learning_rate: peak of a child's, over that of training from scratch.
        seed: of weights, copied channels, batches and the augmentation.
        augmentation: of the training images; `default_augmentation` where None.
        images: of the validation split, at most.
        folder: of checkpoints, from which a killed training resumes; none are kept where None.
    """

    name = "inherit"

    def __init__(
        self,
        space: Space,
        data: DataSet,
        *,
        epochs: int = 2,
        root_epochs: int = 8,
        parent_of: ParentOf | None = None,
        learning_rate: float = LEARNING_RATE,
        seed: int = 0,
        augmentation: Augmentation | None = None,
        images: int = 2500,
        folder: Path | None = None,
    ) -> None:
        super().__init__(space, data, augmentation=augmentation, images=images, folder=folder)
        self.root_recipe = short_recipe(space, root_epochs, images=len(data.train), seed=seed)
        usual = short_recipe(space, epochs, images=len(data.train), seed=seed)
        self.recipe = replace(usual, learning_rate=usual.learning_rate * learning_rate)
        self._parent_of = parent_of or self._smallest
        self._root = None if parent_of else self.space.smallest()
        rows = np.random.default_rng(seed).permutation(len(data.train))[:CHECKED_IMAGES]
        self._checked = pixels(data.train.batch(rows)[0])
        self._trained: dict[Architecture, _Trained] = {}

    def _smallest(self, architecture: Architecture) -> Architecture | None:
        return None if architecture == self._root else self._root

    @property
    def trained_by(self) -> tuple[object, ...]:
        """Both recipes and the choice of parents."""
        return self.root_recipe, self.recipe, self._root or "parents of a search"

    def prepare(self) -> None:
        """Train the common parent."""
        if self._root is not None:
            self._train(self._root)

    @property
    def setup_seconds(self) -> float:
        """CPU time of the common parent's training."""
        found = None if self._root is None else self._trained.get(self._root)
        return 0.0 if found is None else found.estimate.seconds

    def evaluate_one(self, architecture: Architecture) -> Estimate:
        """Inherit, train and evaluate; `Failed` where it diverges or its parent failed."""
        return self._train(architecture).estimate

    def lineage(self, architecture: Architecture) -> Lineage:
        """Where the weights of an evaluated architecture come from."""
        return self._train(architecture).lineage

    def measures(self, architecture: Architecture) -> dict[str, float]:
        """The numbers of its lineage that the record keeps beside an accuracy."""
        found = self.lineage(architecture)
        return {"epochs": found.epochs, "lineage_epochs": found.lineage_epochs}

    def _train(self, architecture: Architecture) -> _Trained:
        """The trained network; its ancestors are trained before it, the oldest first."""
        missing = []
        ancestor: Architecture | None = architecture
        while ancestor is not None and ancestor not in self._trained:
            missing.append(ancestor)
            ancestor = self._parent_of(ancestor)
            if ancestor in missing:
                raise ValueError(f"an architecture has no descendant as its parent: {ancestor}")
        for one in reversed(missing):
            parent = self._parent_of(one)
            trained = (
                self._trained_root(one) if parent is None else self._trained_child(one, parent)
            )
            self._trained[one] = trained
        return self._trained[architecture]

    def _trained_root(self, architecture: Architecture) -> _Trained:
        strategy = FromScratch(self.root_recipe.label_smoothing)
        epochs = self.root_recipe.epochs
        lineage = Lineage(None, epochs, epochs, ())
        return self._fitted(architecture, self.root_recipe, strategy, lineage)

    def _trained_child(self, architecture: Architecture, parent: Architecture) -> _Trained:
        source = self._trained[parent]
        epochs = self.recipe.epochs
        total = source.lineage.lineage_epochs + epochs
        if source.network is None:
            lineage = Lineage(parent, epochs, total, ())
            return _Trained(None, Estimate(Failed(f"its parent {parent} failed"), 0.0), lineage)
        try:
            found = self.start(architecture, parent, source.network)
        except MorphError as error:
            lineage = Lineage(parent, epochs, total, ())
            return _Trained(None, Estimate(Failed(str(error)), 0.0), lineage)
        strategy = ContinueFrom(self.recipe.label_smoothing, found.network.state_dict())
        lineage = Lineage(parent, epochs, total, found.approximations)
        return self._fitted(architecture, self.recipe, strategy, lineage)

    def start(
        self, architecture: Architecture, parent: Architecture, network: Network
    ) -> Inheritance:
        """A child before its training.

        Args:
            architecture: of the child.
            parent: the architecture of the parent.
            network: of the parent, trained.

        Raises:
            MorphError: the child only grows, but does not compute what its parent computes.
        """
        rng = np.random.default_rng((self.recipe.seed, int(digest_of(architecture), 16)))
        blocks = self.space.blocks(parent), self.space.blocks(architecture)
        return inherit(network, *blocks, self._checked, rng)

    def _fitted(
        self,
        architecture: Architecture,
        recipe: TrainingRecipe,
        strategy: FromScratch,
        lineage: Lineage,
    ) -> _Trained:
        # Parents of a search are part of what a folder is of.
        ancestors = self._path(architecture)
        network, found = self.train_one(architecture, recipe, strategy, lineage=ancestors)
        return _Trained(network, found, lineage)

    def _path(self, architecture: Architecture) -> list[str]:
        """All ancestors."""
        found, ancestor = [], self._parent_of(architecture)
        while ancestor is not None:
            found.append(str(ancestor))
            ancestor = self._parent_of(ancestor)
        return found

    def network(self, architecture: Architecture) -> Network | None:
        """A copy of the trained network, calibrated; None where it failed."""
        return copy.deepcopy(self._train(architecture).network)


@dataclass(frozen=True)
class _Trained:
    """A network with its estimate."""

    network: Network | None
    """None where it failed."""
    estimate: Estimate
    lineage: Lineage


@dataclass(frozen=True, slots=True)
class Gap:
    """A finalist with inherited weights and with its own."""

    architecture: Architecture
    inherited: Accuracy | Failed
    lineage_epochs: int
    scratch: Accuracy | Failed
    """After training from scratch."""

    @property
    def points(self) -> float | None:
        """Inherited minus from scratch, in percentage points; None where one of them failed."""
        if isinstance(self.inherited, Failed) or isinstance(self.scratch, Failed):
            return None
        return 100 * (self.inherited.top1 - self.scratch.top1)


def inheritance_gaps(
    inherited: InheritWeights, scratch: Estimator, finalists: Iterable[Architecture]
) -> list[Gap]:
    """Finalists of a search with inheritance, retrained from scratch.

    Args:
        inherited: evaluated them in the search.
        scratch: trains them from fresh weights.
        finalists: such as the front of the search.
    """
    found = []
    for one in finalists:
        [ours], [theirs] = inherited.estimate([one]), scratch.estimate([one])
        assert isinstance(ours, Accuracy | Failed)
        assert isinstance(theirs, Accuracy | Failed)
        found.append(Gap(one, ours, inherited.lineage(one).lineage_epochs, theirs))
    return found
