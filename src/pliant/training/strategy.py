"""What a training method adds to the loop: hooks with defaults, so a method states what it changes.

The defaults train one set of weights by the recipe's optimizer on the training split, in one phase.
A method may bring optimizers, parameter groups, data splits and losses of its own:

    class Alternating(TrainingStrategy):
        def optimizers(self, model, recipe):
            mine = torch.optim.Adam([model.alpha], lr=1e-3)
            return {"weights": sgd(self.parameter_groups(model, recipe), recipe), "alpha": mine}

        def turns(self, phase, step):
            return Turn("weights"), Turn("alpha", split="validation")
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn
from torch.optim import Optimizer

from pliant.errors import RecipeError
from pliant.networks.foreign.supernet import ForeignSupernet
from pliant.networks.foreign.template import foreign_supernet
from pliant.networks.supernet import Supernet
from pliant.spaces.foreign import ForeignSpace
from pliant.spaces.space import Space
from pliant.training.schedule import Phase, TrainingRecipe

ParameterGroup = dict[str, Any]
"""As PyTorch's optimizers take it; with `rate`, its learning rate is the schedule's times that."""


@dataclass(frozen=True, slots=True)
class Turn:
    """The part of a step that ends in one optimizer's step."""

    optimizer: str = "weights"
    split: str = "train"
    """Of whose images the batch is."""


class TrainingStrategy:
    """A training method; subclasses override the hooks that they need, `losses` at least."""

    def make_supernet(
        self, space: Space, *, mean: Sequence[float], std: Sequence[float]
    ) -> Supernet:
        """The shared weights that are trained, fresh.

        Args:
            space: of a run.
            mean: of the training images by channel, pixels from 0 to 1.
            std: their standard deviation.
        """
        if isinstance(space, ForeignSpace):
            return foreign_supernet(space, mean=mean, std=std)
        return Supernet(space, mean=mean, std=std)

    def phases(self, epochs: int) -> tuple[Phase, ...]:
        """The phases, whose epochs add up to `epochs`."""
        return (Phase("train", epochs),)

    def parameter_groups(self, model: nn.Module, recipe: TrainingRecipe) -> list[ParameterGroup]:
        """The parameters that the default optimizer trains, with their decay and relative rate."""
        return decay_groups(model, recipe)

    def optimizers(self, model: nn.Module, recipe: TrainingRecipe) -> Mapping[str, Optimizer]:
        """Optimizers by name, of parameters of the model; each takes its turns."""
        groups = self.parameter_groups(model, recipe)
        return {"weights": sgd(groups, recipe) if recipe.optimizer == "sgd" else adamw(groups)}

    def turns(self, phase: str, step: int) -> Sequence[Turn]:
        """Which optimizers step in a step, in order, and on which split.

        A function of its arguments alone: the loop asks for all steps before the first one, so that
        a mistake ends no training that has begun.
        """
        return (Turn(),)

    def on_phase_start(self, phase: str, model: nn.Module) -> None:
        """Change the model at the first step of a phase, such as sorting its channels."""

    def clears_optimizer_state(self, phase: str) -> bool:
        """Whether the optimizers forget their state, such as momentum, at the start of a phase.

        That state is of other channels where `on_phase_start` sorts them. A strategy whose phases
        differ in nothing that the optimizers know may keep it.
        """
        return True

    def on_step_start(self, phase: str, model: nn.Module, step: int, steps: int) -> None:
        """Before the turns of a step, also of the first one after a restart.

        Args:
            phase: name of the phase.
            model: the bare one.
            step: of the phase, counted from 0.
            steps: of the whole phase.
        """

    def losses(
        self,
        phase: str,
        model: nn.Module,
        images: Tensor,
        labels: Tensor,
        rng: np.random.Generator,
    ) -> Iterator[Tensor]:
        """The losses of the default turn; each has its backward pass before the next is asked for.

        Args:
            phase: name of the phase.
            model: under mixed precision, with outputs in fp32.
            images: (N, channels, size, size), augmented pixels from 0 to 1.
            labels: (N,).
            rng: of this step, the same in all processes and after every restart.

        Raises:
            RecipeError: the strategy states no losses.
        """
        raise RecipeError(
            f"a training strategy writes `losses` or `turn_losses`; {type(self).__name__} has "
            "neither. docs/strategies.md has an example."
        )

    def turn_losses(
        self,
        turn: Turn,
        phase: str,
        model: nn.Module,
        images: Tensor,
        labels: Tensor,
        rng: np.random.Generator,
    ) -> Iterator[Tensor]:
        """The losses of any turn, for strategies that take several; arguments as of `losses`."""
        return self.losses(phase, model, images, labels, rng)

    def on_step_end(self, phase: str, model: nn.Module, step: int) -> None:
        """After all turns of a step, such as pruning a path."""

    def measures(self, model: nn.Module) -> Mapping[str, Any]:
        """What the log of a step keeps beside the losses, plain values of JSON by name."""
        return {}

    def phase_complete(self, phase: str) -> bool:
        """Whether the phase ends here, before its last step, such as by early stopping."""
        return False

    def on_phase_end(self, phase: str, model: nn.Module) -> None:
        """After the last step of a phase, such as taking averaged weights."""

    def state(self) -> dict[str, Tensor]:
        """More tensors for a checkpoint than the model's, such as a teacher's weights."""
        return {}

    def load_state(self, model: nn.Module, state: dict[str, Tensor]) -> None:
        """Resume from a checkpoint, with what `state` returned when it was saved."""


def sgd(groups: list[ParameterGroup], recipe: TrainingRecipe) -> Optimizer:
    """SGD with Nesterov momentum; the loop sets the learning rates."""
    return torch.optim.SGD(groups, lr=0.0, momentum=recipe.momentum, nesterov=True)


def adamw(groups: list[ParameterGroup]) -> Optimizer:
    """AdamW; the loop sets the learning rates."""
    return torch.optim.AdamW(groups, lr=0.0)


def decay_groups(model: nn.Module, recipe: TrainingRecipe) -> list[ParameterGroup]:
    """Decay for weights of convolutions and linear layers; a larger rate for BatchNorm's biases."""
    decayed = decayed_weights(model)
    norms = [module for module in model.modules() if isinstance(module, nn.BatchNorm2d)]
    biases = {id(module.bias) for module in norms}
    groups: dict[tuple[float, float], list[nn.Parameter]] = {
        (recipe.weight_decay, 1.0): [],
        (0.0, 1.0): [],
        (0.0, recipe.bias_rate): [],
    }
    for parameter in model.parameters():
        decay = recipe.weight_decay if id(parameter) in decayed else 0.0
        rate = recipe.bias_rate if id(parameter) in biases else 1.0
        groups[decay, rate].append(parameter)
    return [
        {"params": found, "weight_decay": decay, "rate": rate}
        for (decay, rate), found in groups.items()
        if found
    ]


def decayed_weights(model: nn.Module) -> set[int]:
    """The `id` of each parameter with weight decay: weights of convolutions and linear layers."""
    if isinstance(model, ForeignSupernet):
        return {id(weight) for weight in model.weights_of_layers()}
    weighted = [module for module in model.modules() if isinstance(module, nn.Conv2d | nn.Linear)]
    return {id(module.weight) for module in weighted}
