"""Training strategies by name, as a recipe and the command line name them; or one of your own."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from pliant.errors import RecipeError
from pliant.metrics import Cost
from pliant.plugins import call_plugin, is_plugin, plugin_path, require_part
from pliant.spaces.architecture import Architecture
from pliant.spaces.space import Space

if TYPE_CHECKING:  # names are read without PyTorch
    from pliant.data.splits import Split
    from pliant.training.expected_cost import Hardware
    from pliant.training.proxyless import Gradient
    from pliant.training.strategy import TrainingStrategy


@dataclass(frozen=True, slots=True)
class StrategyOptions:
    """What a run tells its strategy.

    Args:
        label_smoothing: share of the label that is spread over all classes, for losses on labels.
        validation: images that no weights are trained on, such as for early stopping.
        hardware: what the networks are for; None where the run has not opened its target.
        limits: bounds on its costs, by metric.
        measure: the costs of a network on that hardware; None where it cannot be measured.
    """

    label_smoothing: float = 0.1
    validation: Split | None = None
    hardware: Hardware | None = None
    limits: Mapping[str, float] = field(default_factory=dict)
    measure: Callable[[Architecture], Cost] | None = None


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


def _proxyless(gradient: Gradient) -> Build:
    def build(space: Space, options: StrategyOptions) -> TrainingStrategy:
        from pliant.training.proxyless import ArchitectureSettings, Proxyless

        if options.hardware is None:
            raise RecipeError(
                "this strategy searches for a target while it trains, and no target is open. Use"
                " pliant run or pliant search."
            )
        return Proxyless(
            space,
            options.hardware,
            options.limits,
            measure=options.measure,
            label_smoothing=options.label_smoothing,
            settings=ArchitectureSettings(gradient=gradient),
        )

    return build


def _single_path(space: Space, options: StrategyOptions) -> TrainingStrategy:
    from pliant.training.single_path import SinglePath

    return SinglePath(space, label_smoothing=options.label_smoothing)


STRATEGIES: Mapping[str, Build] = {
    "sandwich": _sandwich,
    "single-path": _single_path,
    "progressive-shrinking": _progressive,
    "fine-tune": _fine_tune,
    "proxyless": _proxyless("two-path"),
    "proxyless-all-paths": _proxyless("all-path"),
    "proxyless-reinforce": _proxyless("reinforce"),
}
SEARCHING = frozenset({"proxyless", "proxyless-all-paths", "proxyless-reinforce"})
"""Strategies that search while they train; they need the target and the limits."""


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
