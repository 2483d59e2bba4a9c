"""Fine-tuning of a pretrained supernet on few images: head, full network, then sub-networks.

1. Head: the classifier alone learns the new classes on features as they were published; a random
   classifier would send its noise into them. Kumar, A. et al., Fine-tuning can distort pretrained
   features and underperform out-of-distribution, 2022, arXiv:2202.10054.
2. Teacher: the full network, with lower rates for early layers (Howard, J. and Ruder, S., Universal
   language model fine-tuning for text classification, 2018, arXiv:1801.06146, section 3.2) and
   averaged weights, at resolutions that grow (Tan, M. and Le, Q. V., EfficientNetV2, 2021,
   arXiv:2104.00298, section 4). Where it has a higher loss on the validation images than the
   weights with which training began, a linear classifier on published features, those are taken.
3. Sub-networks: channels are sorted by what they contribute on validation images, then the sandwich
   rule of BigNAS (Yu, J. et al., 2020, arXiv:2003.11142): the full width at any resolution and
   smaller networks, which shrink as the phase goes on. They learn from the frozen teacher at the
   largest resolution and from the labels. Blocks are dropped later than channels, and middle
   networks come up more often than the smallest, since a pretrained network that is cut at once
   loses what it knows.

A full network at a low resolution beats a narrow one at a high resolution, so resolutions are drawn
evenly from the first step on.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping

import numpy as np
import torch
from torch import Tensor, nn
from torch.fx import GraphModule
from torch.nn import functional as F
from torch.optim import Optimizer

from pliant.data.splits import Split
from pliant.networks.foreign.extraction import HEAD
from pliant.networks.foreign.supernet import ForeignSupernet
from pliant.networks.plain import Network
from pliant.networks.supernet import Supernet
from pliant.spaces.architecture import Architecture
from pliant.spaces.space import Space
from pliant.training.averaging import WeightAverage, frozen_copy
from pliant.training.early_stopping import EarlyStopping
from pliant.training.schedule import Phase, TrainingRecipe
from pliant.training.shrinking import full_width, smaller
from pliant.training.strategy import ParameterGroup, TrainingStrategy, adamw, decayed_weights

SHARES = {"head": 0.05, "teacher": 0.4, "sub-networks": 0.55}
"""Of the epochs."""
LR_FACTORS = {"head": 1.0, "teacher": 1.0, "sub-networks": 0.7}
"""Peak learning rates over the recipe's."""
FULL_RATE_STEPS = 150
"""Shorter phases have lower rates: a few large steps lose what the start knows and teach little."""
CLASSIFIER_RATE = 2.0
"""Learning rate of the classifier over that of the last block; it begins as a linear classifier."""
DEPTH_DECAY = 0.93
"""Learning rate of a block over that of the block after it."""
AVERAGED_SHARE = 0.1
"""Part of a phase over which weights are averaged."""
TEACHER_LEAST_RESOLUTION = 0.6
"""Of the teacher's phase, over the largest."""
GROWN = 0.7
"""Part of the teacher's phase after which only the largest resolution is trained."""
SHRUNK = 0.5
"""Part of the last phase after which every network of the space may be drawn."""


class FineTune(TrainingStrategy):
    """The strategy.

    Args:
        space: to draw from.
        validation: images for early stopping; every phase runs to its end where None.
        label_smoothing: for the losses on the labels.
        label_share: weight of the labels in the losses of the last phase; the rest is the
            teacher's.
        num_random_subnets: per step of the last phase, beside the full width.
    """

    def __init__(
        self,
        space: Space,
        *,
        validation: Split | None = None,
        label_smoothing: float = 0.1,
        label_share: float = 0.4,
        num_random_subnets: int = 2,
    ) -> None:
        self.space = space
        self.label_smoothing = label_smoothing
        self.label_share = label_share
        self.num_random_subnets = num_random_subnets
        self._stopping = EarlyStopping(validation)
        self._average: WeightAverage | None = None
        self._teacher: Supernet | None = None
        self._start: Supernet | None = None
        """The weights with which training began, until there is a teacher."""
        self._step, self._steps = 0, 1
        """Of the phase."""

    def phases(self, epochs: int) -> tuple[Phase, ...]:
        """The three phases."""
        return tuple(
            Phase(name, epochs * share, LR_FACTORS[name], FULL_RATE_STEPS)
            for name, share in SHARES.items()
        )

    def parameter_groups(self, model: nn.Module, recipe: TrainingRecipe) -> list[ParameterGroup]:
        """Rates that fall with the distance from the classifier, whose own is the largest."""
        assert isinstance(model, Supernet)
        new = {id(parameter) for parameter in classifier(model).parameters()}
        decayed = decayed_weights(model)
        groups: dict[tuple[float, float], list[nn.Parameter]] = {}
        for distance, stage in enumerate(reversed(_stages(model))):
            for parameter in stage:
                decay = recipe.weight_decay if id(parameter) in decayed else 0.0
                rate = CLASSIFIER_RATE if id(parameter) in new else DEPTH_DECAY**distance
                groups.setdefault((decay, rate), []).append(parameter)
        return [
            {"params": found, "weight_decay": decay, "rate": rate}
            for (decay, rate), found in groups.items()
        ]

    def optimizers(self, model: nn.Module, recipe: TrainingRecipe) -> Mapping[str, Optimizer]:
        """AdamW; the loop sets the learning rates."""
        return {"weights": adamw(self.parameter_groups(model, recipe))}

    def on_phase_start(self, phase: str, model: nn.Module) -> None:
        """Sort the channels and freeze the teacher before the last phase; begin a new average."""
        assert isinstance(model, Supernet)
        if self._start is None and phase != "sub-networks":
            self._start = frozen_copy(model)
        if phase == "sub-networks":
            model.sort_channels(images=self._stopping.images(model))
            self._teacher = frozen_copy(model)
        self._average = None if phase == "head" else WeightAverage(model)
        self._stopping.begin()

    def on_step_start(self, phase: str, model: nn.Module, step: int, steps: int) -> None:
        """Only the classifier has gradients in the first phase, which saves most of its time."""
        assert isinstance(model, Supernet)
        self._step, self._steps = step, steps
        model.requires_grad_(phase != "head")
        classifier(model).requires_grad_(True)

    def losses(
        self, phase: str, model: nn.Module, images: Tensor, labels: Tensor, rng: np.random.Generator
    ) -> Iterator[Tensor]:
        """The full network on the labels; in the last phase several on labels and teacher."""
        done = self._step / self._steps
        if self._teacher is None:
            grown = 1.0 if phase == "head" else min(1.0, done / GROWN)
            least = TEACHER_LEAST_RESOLUTION + (1 - TEACHER_LEAST_RESOLUTION) * grown
            logits = model(
                images, full_width(self.space, rng, least_resolution=least), dropout=True
            )
            yield F.cross_entropy(logits, labels, label_smoothing=self.label_smoothing)
            return
        with torch.no_grad():
            target = self._teacher(images, self.space.largest()).float().softmax(-1)
        level, count = max(0.0, 1 - done / SHRUNK), self.num_random_subnets
        drawn = [full_width(self.space, rng, least_resolution=0.0)]
        drawn += [smaller(self.space, rng, least_level=level) for _ in range(count)]
        for architecture in drawn:
            logits = model(images, architecture)
            hard = F.cross_entropy(logits, labels, label_smoothing=self.label_smoothing)
            soft = F.cross_entropy(logits, target)
            yield self.label_share * hard + (1 - self.label_share) * soft

    def on_step_end(self, phase: str, model: nn.Module, step: int) -> None:
        """Average the weights, and ask the validation images ten times per phase."""
        assert isinstance(model, Supernet)
        if self._average is None:
            return
        horizon = max(1.0, AVERAGED_SHARE * self._steps)
        self._average.update(model, 1 / min(self._step + 1, horizon))
        if self._stopping.is_due(self._step, self._steps):
            self._stopping.check(self._average.network, self._checked(phase))

    def _checked(self, phase: str) -> list[Architecture]:
        """The networks of which early stopping asks: the teacher; else two of middle size."""
        if phase == "teacher":
            return [self.space.largest()]
        rng = np.random.default_rng(0)
        return [
            full_width(self.space, rng, least_resolution=0.0),
            smaller(self.space, rng, least_level=0.5),
        ]

    def phase_complete(self, phase: str) -> bool:
        """Whether the last checks brought no improvement."""
        return self._stopping.stopped

    def on_phase_end(self, phase: str, model: nn.Module) -> None:
        """Take the averaged weights; after the teacher's phase, the start where that is better."""
        assert isinstance(model, Supernet)
        if self._average is not None:
            self._average.copy_to(model)
        if phase == "teacher":
            self._keep_better(model)

    def _keep_better(self, model: Supernet) -> None:
        """Keep the teacher or the start, by the loss: an accuracy of few images is too coarse."""
        if self._stopping.validation is not None and self._start is not None:
            full = [self.space.largest()]
            began, ended = (self._stopping.evaluate(one, full)[0] for one in (self._start, model))
            if began < ended:
                model.load_state_dict(self._start.state_dict())
        self._start = None

    def state(self) -> dict[str, Tensor]:
        """The average, the start or the teacher, and what early stopping saw."""
        found = {"stopping": self._stopping.state()}
        networks = {"average": self._average, "start": self._start, "teacher": self._teacher}
        for prefix, network in networks.items():
            if network is not None:
                found |= {f"{prefix}.{name}": one for name, one in network.state_dict().items()}
        return found

    def load_state(self, model: nn.Module, state: dict[str, Tensor]) -> None:
        """Take all of it from the checkpoint."""
        assert isinstance(model, Supernet)
        parts: dict[str, dict[str, Tensor]] = {"average": {}, "start": {}, "teacher": {}}
        self._stopping.load_state(state.pop("stopping"))
        for key, tensor in state.items():
            prefix, _, name = key.partition(".")
            parts[prefix][name] = tensor
        if parts["average"]:
            self._average = WeightAverage(model)
            self._average.load_state_dict(parts["average"])
        if parts["start"]:
            self._start = frozen_copy(model)
            self._start.load_state_dict(parts["start"])
        if parts["teacher"]:
            self._teacher = frozen_copy(model)
            self._teacher.load_state_dict(parts["teacher"])


def _stages(model: Supernet) -> list[list[nn.Parameter]]:
    """The parameters of each block, in running order."""
    if isinstance(model, ForeignSupernet):
        return model.parameter_stages()
    return [list(block.parameters()) for block in model.blocks.values()]


def classifier(model: Supernet | Network) -> nn.Module:
    """The layer that gives the logits; the whole last block where it has no `classifier`."""
    if isinstance(model, ForeignSupernet):
        return model.head_module
    if isinstance(model, GraphModule):  # of a user's own
        return model.get_submodule(model.meta[HEAD])
    last = list(model.blocks.values())[-1]
    return getattr(last, "classifier", last)
