"""How much a search may spend: time of its workers, or epochs of training."""

from __future__ import annotations

import re
from dataclasses import dataclass

from pliant.errors import RecipeError
from pliant.estimation.estimators import INHERIT, SCRATCH, EstimatorSettings
from pliant.estimation.lineage import Lineage
from pliant.metrics import Estimate
from pliant.objective import Candidate
from pliant.units import format_duration, parse_duration

EPOCHS = "epochs"


@dataclass(frozen=True, slots=True)
class Budget:
    """One of the two."""

    seconds: float | None = None
    """CPU time of each worker: four workers spend four times as much in it."""
    epochs: int | None = None
    """Passes over the training images by all networks together."""

    def __str__(self) -> str:
        if self.epochs is not None:
            return f"{self.epochs} epochs"
        return format_duration(self.seconds or 0.0)


def parse_budget(text: str, estimator: str) -> Budget:
    """Read `2h`, `90min` or `200epochs`.

    Args:
        text: as of `--budget`.
        estimator: that the search asks; only some spend epochs on every network.

    Raises:
        RecipeError: neither a duration nor a number of epochs, or epochs of an estimator that does
            not train every network.
    """
    seconds = parse_duration(text)
    if seconds is not None:
        return Budget(seconds=seconds)
    found = re.fullmatch(r"([1-9]\d*)\s*epochs?", text.strip())
    if found is None:
        raise RecipeError(
            f"a budget is a time such as 2h or 90min, or epochs such as 200epochs; received "
            f"{text!r}."
        )
    if estimator not in (SCRATCH, INHERIT):
        raise RecipeError(
            f"a budget in epochs is for estimators that train every network, {SCRATCH} and "
            f"{INHERIT}; {estimator} does not, received {text}. Give a time, such as 2h."
        )
    return Budget(epochs=int(found[1]))


class Told:
    """What a search was told, and what that took."""

    def __init__(self) -> None:
        self.history: list[Candidate] = []
        self.spent = 0.0


class Spending:
    """What evaluations cost, in the unit of the budget."""

    def __init__(self, settings: EstimatorSettings, *, in_epochs: bool) -> None:
        self.settings, self.in_epochs = settings, in_epochs

    def of(self, estimate: Estimate, lineage: Lineage) -> float:
        """Epochs of its own training, or CPU seconds."""
        return float(lineage.epochs or 0) if self.in_epochs else estimate.seconds

    def affordable(self, left: float, told: Told) -> int:
        """Evaluations that what is left is enough for, at least one."""
        number = len(told.history)
        each = told.spent / number if number else float(self.in_epochs and self.settings.epochs)
        return max(1, int(left / each)) if each else 10**9
