"""Training strategies by name, as a recipe and the command line name them; or one of your own."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING

from pliant.errors import RecipeError
from pliant.plugins import call_plugin, is_plugin, plugin_path, require_part
from pliant.spaces.space import Space

if TYPE_CHECKING:  # names are read without PyTorch
    from pliant.data.splits import Split
    from pliant.training.strategy import TrainingStrategy


@dataclass(frozen=True, slots=True)
class StrategyOptions:
    """What a run tells its strategy.

    Args:
        label_smoothing: share of the label that is spread over all classes, for losses on labels.
        validation: images that no weights are trained on, such as for early stopping.
    """

    label_smoothing: float = 0.1
    validation: Split | None = None


Build = Callable[[Space, StrategyOptions], "TrainingStrategy"]


def _sandwich(space: Space, options: StrategyOptions) -> TrainingStrategy:
    from pliant.training.sandwich import Sandwich

    return Sandwich(space, label_smoothing=options.label_smoothing)


def _progressive(space: Space, options: StrategyOptions) -> TrainingStrategy:
    from pliant.training.progressive import ProgressiveShrinking

    return ProgressiveShrinking(space, label_smoothing=options.label_smoothing)


def _fine_tune(space: Space, options: StrategyOptions) -> TrainingStrategy:
    from pliant.training.finetune import FineTune

    return FineTune(space, validation=options.validation, label_smoothing=options.label_smoothing)


STRATEGIES: Mapping[str, Build] = {
    "sandwich": _sandwich,
    "progressive-shrinking": _progressive,
    "fine-tune": _fine_tune,
}


def require_strategy(name: str) -> str:
    """The same name, if it means a training strategy.

    Raises:
        RecipeError: it means none.
    """
    return require_part(name, STRATEGIES, what="a training strategy")


def make_strategy(name: str, space: Space, options: StrategyOptions) -> TrainingStrategy:
    """The training strategy of a name.

    Args:
        name: one of `STRATEGIES`, or `file.py:NAME` of a function or class that takes the same two
            arguments and returns a `TrainingStrategy`.
        space: whose networks are trained.
        options: what else the run says.

    Raises:
        RecipeError: the name means no strategy.
    """
    from pliant.training.strategy import TrainingStrategy

    if not is_plugin(name):
        return STRATEGIES[require_strategy(name)](space, options)
    strategy = call_plugin(name, space, options, what="a training strategy")
    if not isinstance(strategy, TrainingStrategy):
        raise RecipeError(
            f"a training strategy derives from pliant.training.TrainingStrategy, {name} returned a "
            f"{type(strategy).__name__}."
        )
    return strategy


def strategy_identity(name: str) -> str | None:
    """The name, with a digest of the file of an own one; None where that file is gone."""
    if not is_plugin(name):
        return name
    path = plugin_path(name)
    if not path.is_file():
        return None
    return f"{name.rpartition(':')[2]} {hashlib.sha256(path.read_bytes()).hexdigest()[:12]}"
