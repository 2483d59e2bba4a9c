"""What a search is for: limits that must hold, and which of two networks is better.

A `Limit` is a cost metric and the most it may be; `violation` says by how much a network misses all of them. Of
the networks that hold their limits, `pareto_front` keeps those that no other one beats in accuracy and cost at once.
The protocols that accuracy estimators and cost models fulfil stand here too, beside their only consumer.
"""

from __future__ import annotations

import math
import re
from collections.abc import Sequence
from dataclasses import dataclass
from decimal import Decimal
from typing import Protocol

import numpy as np

from pliant.errors import RecipeError, nearest
from pliant.metrics import COST_METRICS, Accuracy, Cost, Failed
from pliant.pareto import non_dominated
from pliant.spaces.architecture import Architecture
from pliant.units import SHORT_NAMES, UNITS

_HOW = (
    "Write for example latency=2ms, latency_ms=0.5, peak_memory=256kB, parameters=300k or macs=50M."
)


class AccuracyEstimator(Protocol):
    """Architectures in, accuracies out: a supernet, a predictor, training from scratch."""

    def __call__(self, architectures: Sequence[Architecture]) -> Sequence[Accuracy | Failed]:
        """One result an architecture, in order; what broke is `Failed`, never a number."""
        ...


class CostModel(Protocol):
    """Architectures in, costs out: a measured device, a lookup table, arithmetic."""

    def __call__(self, architectures: Sequence[Architecture]) -> Sequence[Cost | Failed]:
        """One result an architecture, in order; what broke is `Failed`, never a number."""
        ...


@dataclass(frozen=True, slots=True)
class Candidate:
    """One architecture and what it is worth."""

    architecture: Architecture
    accuracy: Accuracy | Failed
    cost: Cost | Failed

    @property
    def failure(self) -> str | None:
        """Why the accuracy or the cost is missing; None where both are there."""
        return next(
            (part.reason for part in (self.accuracy, self.cost) if isinstance(part, Failed)), None
        )

    @property
    def top1(self) -> float:
        """The accuracy of a candidate that did not fail, 0 to 1."""
        assert isinstance(self.accuracy, Accuracy), "a failed candidate has no accuracy"
        return self.accuracy.top1


@dataclass(frozen=True, slots=True)
class Limit:
    """The most that one cost metric may be.

    Args:
        metric: a field of `Cost`; its name holds the unit.
        at_most: in that unit, above 0.
        text: as the user wrote it, for messages.

    Raises:
        RecipeError: an unknown metric, or a bound that is not a finite number above 0.
    """

    metric: str
    at_most: float
    text: str = ""

    def __post_init__(self) -> None:
        if self.metric not in COST_METRICS:
            raise RecipeError(
                f"a limit names a cost metric, received {self.metric!r}. "
                f"{nearest(self.metric, [*COST_METRICS, *SHORT_NAMES])}"
            )
        if not (math.isfinite(self.at_most) and self.at_most > 0):
            received = self.text or f"{self.metric}={self.at_most:g}"
            raise RecipeError(f"a limit is a finite number above 0, received {received!r}. {_HOW}")

    @classmethod
    def parse(cls, text: str) -> Limit:
        """Read `metric=value`, where the value may end in a unit and must where the metric's name has none.

        Raises:
            RecipeError: no such form, metric or unit, or a value that is not a finite number above 0.
        """
        name, equals, value = (part.strip() for part in text.partition("="))
        if not (name and equals and value):
            raise RecipeError(f"a limit reads metric=value, received {text!r}. {_HOW}")
        metric = SHORT_NAMES.get(name, name)
        if metric not in UNITS:
            raise RecipeError(
                f"a limit names a cost metric, received {name!r} in {text!r}. {nearest(name, [*COST_METRICS, *SHORT_NAMES])}"
            )
        number = re.fullmatch(
            r"(?P<digits>[+-]?(?:\d[\d_]*\.?\d*|\.\d+)(?:[eE][+-]?\d+)?)\s*(?P<unit>\S*)", value
        )
        if number is None:
            raise RecipeError(
                f"a limit is a finite number above 0, with or without a unit, received {value!r} in {text!r}. {_HOW}"
            )
        units = UNITS[metric]
        unit = number["unit"]
        if not unit and name not in SHORT_NAMES:
            factor = 1.0
        elif unit in units:
            factor = units[unit]
        else:
            known = ", ".join(known for known in units if known)
            raise RecipeError(
                f"{name} is given in one of {known}, received {f'unit {unit!r}' if unit else 'no unit'} in {text!r}. {_HOW}"
            )
        # In decimals, so that 41.48M is 41480000 and not the float below it.
        return cls(metric, float(Decimal(number["digits"]) * Decimal(str(factor))), text.strip())

    def __str__(self) -> str:
        return self.text or f"{self.metric}={self.at_most:g}"


def metric_value(cost: Cost, metric: str) -> float:
    """One metric of a cost as a number.

    Raises:
        RecipeError: the target that gave this cost cannot tell the metric.
    """
    value = getattr(cost, metric)
    if value is None:
        told = [name for name in COST_METRICS if getattr(cost, name) is not None]
        raise RecipeError(
            f"a limited or minimised metric must be one that the target can tell; it gives no {metric}, "
            f"only {', '.join(told) or 'nothing'}. Choose one of these, or a target that tells it."
        )
    return float(value)


def violation(limits: Sequence[Limit], cost: Cost) -> float:
    """How far a cost is above its limits: the relative excesses, summed; 0 where all hold.

    Raises:
        RecipeError: the target cannot tell a limited metric.
    """
    return sum(max(0.0, metric_value(cost, limit.metric) / limit.at_most - 1.0) for limit in limits)


def holds(limits: Sequence[Limit], cost: Cost) -> bool:
    """Whether a cost is within all limits, the bounds included.

    Raises:
        RecipeError: the target cannot tell a limited metric.
    """
    return all(metric_value(cost, limit.metric) <= limit.at_most for limit in limits)


def pareto_front(
    candidates: Sequence[Candidate],
    minimise: Sequence[str] = ("latency_ms",),
    limits: Sequence[Limit] = (),
) -> list[Candidate]:
    """The candidates within the limits that no other one beats in top-1 and in every cost, cheapest first.

    Failed candidates are left out; of equal (top-1, cost) all stay.

    Args:
        minimise: fields of `Cost`.

    Raises:
        RecipeError: the target cannot tell a minimised or limited metric.
    """
    sound = [
        one
        for one in candidates
        if isinstance(one.cost, Cost)
        and isinstance(one.accuracy, Accuracy)
        and holds(limits, one.cost)
    ]
    if not sound:
        return []
    values = np.array([objectives(candidate, minimise) for candidate in sound])
    front = np.flatnonzero(non_dominated(values))
    return [
        sound[row]
        for row in sorted(front, key=lambda row: (tuple(values[row, 1:]), values[row, 0]))
    ]


def objectives(candidate: Candidate, minimise: Sequence[str]) -> tuple[float, ...]:
    """What a search minimises: minus top-1, then the costs.

    Raises:
        RecipeError: the target cannot tell a minimised metric.
    """
    assert isinstance(candidate.cost, Cost), "a failed candidate has no objectives"
    return (-candidate.top1, *(metric_value(candidate.cost, metric) for metric in minimise))
