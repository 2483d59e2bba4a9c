"""What a search is for: which of two networks is better, what must hold, and what it runs on.

An `Objective` says what to maximise or minimise and the limits; a `Target` says what networks cost.
Estimators, targets and searchers meet here by protocols only: each is written without the others.
"""

from __future__ import annotations

import math
import re
from collections.abc import Iterable, Mapping, Sequence, Sized
from dataclasses import dataclass
from decimal import Decimal
from numbers import Real
from operator import attrgetter
from pathlib import Path
from typing import Protocol, cast

import numpy as np

from pliant.errors import MeasurementError, RecipeError, nearest
from pliant.metrics import (
    ARITHMETIC_METRICS,
    COST_METRICS,
    Accuracy,
    Claim,
    Cost,
    Failed,
    Measured,
    Quality,
    Score,
)
from pliant.pareto import non_dominated
from pliant.spaces.architecture import Architecture
from pliant.units import QUANTITIES, UNITS, metric_and_factor

_EXAMPLES = (
    "Write for example latency=2ms, latency_ms=0.5, energy_uj=40, peak_memory=256kB, "
    "parameters=300k, macs=50M or accuracy=90%."
)
ACCURACY = "accuracy"
_ENERGY_HINT = (
    " A measured machine reports energy with target.energy: rapl, nvml, a power log (.csv), or a "
    "power such as 6W."
)


class AccuracyEstimator(Protocol):
    """Architectures in, accuracies or scores out: a supernet, a predictor, a zero-shot score.

    Constructors take what the networks come from (a space, a supernet, a pool of scoring
    processes), then what they are evaluated on; all else is a keyword.
    """

    def estimate(self, architectures: Sequence[Architecture]) -> Sequence[Quality]:
        """One result per architecture, in order; what broke is `Failed`, never a number."""
        ...


class CostModel(Protocol):
    """Architectures in, costs out: the part of a target that a search asks thousands of times."""

    def __call__(self, architectures: Sequence[Architecture]) -> Sequence[Cost | Failed]:
        """One result per architecture, in order; what broke is `Failed`, never a number."""
        ...


def checked_costs(
    costs: CostModel, architectures: Sequence[Architecture]
) -> Sequence[Cost | Failed]:
    """The costs of architectures, finite and 0 or more: NaN is within every limit.

    Args:
        costs: asked once for all of them.
        architectures: in the order of the result.

    Raises:
        MeasurementError: not one result per architecture, or a cost that is no finite number of 0
            or more; names the function that returned it.
    """
    found = costs(architectures)
    count = f"{len(found)} of them" if isinstance(found, Sized) else type(found).__name__
    if not isinstance(found, Sized) or len(found) != len(architectures):
        raise MeasurementError(
            f"costs are one Cost per architecture, in order; {function_name(costs)} returned "
            f"{count} for {len(architectures)}. Return Failed with the reason where a cost is not "
            "known."
        )
    for architecture, cost in zip(architectures, found, strict=True):
        if isinstance(cost, Failed):
            continue
        if not isinstance(cost, Cost):
            raise MeasurementError(
                f"a cost is a Cost, or Failed with the reason; {function_name(costs)} returned "
                f"{cost!r:.100} for {architecture}. Return for example Cost(latency_ms=1.5)."
            )
        for metric in COST_METRICS:
            value = getattr(cost, metric)
            if value is not None and not (isinstance(value, Real) and 0 <= float(value) < math.inf):
                shown = "NaN" if value != value else f"{value!r:.100}"
                raise MeasurementError(
                    "a cost is a finite number of 0 or more, or None where it is not known; "
                    f"{function_name(costs)} returned {shown} as "
                    f"{metric} of {architecture}. Return None, or Failed with the reason."
                )
    return found


def checked_qualities(
    estimator: AccuracyEstimator, architectures: Sequence[Architecture]
) -> Sequence[Quality]:
    """The accuracies or scores of architectures, each of a type that a search can compare.

    Args:
        estimator: asked once for all of them.
        architectures: in the order of the result.

    Raises:
        RecipeError: not one result per architecture, or one that is no quality; names the
            estimator.
    """
    found: object = estimator.estimate(architectures)
    wrong = ""
    if not isinstance(found, Sequence) or isinstance(found, str):
        wrong = f"a {type(found).__name__}"
    elif len(found) != len(architectures):
        wrong = f"{len(found)} of them for {len(architectures)}"
    elif others := [one for one in found if not isinstance(one, Accuracy | Score | Failed)]:
        wrong = f"{others[0]!r:.100}, of type {type(others[0]).__name__}"
    if wrong:
        raise RecipeError(
            "an estimator's `estimate` returns a list of one Accuracy, Score or Failed per "
            f"architecture, in order; {type(estimator).__name__} returned {wrong}. Return for "
            "example Score(0.5), or Failed with the reason."
        )
    return cast(Sequence[Quality], found)


def function_name(function: object) -> str:
    """A function by its name, file and line, for messages."""
    name = getattr(function, "__qualname__", None) or type(function).__qualname__
    code = getattr(function, "__code__", None)
    if code is None:
        return name
    return f"{name} ({Path(code.co_filename).name}, line {code.co_firstlineno})"


class Reports(Protocol):
    """What is known of a target before it is opened: its name and what it reports."""

    @property
    def name(self) -> str:
        """For people."""
        ...

    @property
    def metrics(self) -> tuple[str, ...]:
        """The fields of `Cost` that it predicts."""
        ...


class Target(Protocol):
    """What the networks of one space will run on: predicts their costs and may measure them."""

    @property
    def name(self) -> str:
        """For people: the machine or chip, and how it runs networks."""
        ...

    @property
    def identity(self) -> str:
        """Short digest of all that decides its predictions: results of two never mix."""
        ...

    @property
    def metrics(self) -> tuple[str, ...]:
        """The fields of `Cost` that it predicts."""
        ...

    @property
    def can_measure(self) -> bool:
        """Whether it is at hand, so that networks can be measured on it."""
        ...

    def predict(self, architectures: Sequence[Architecture]) -> Sequence[Cost | Failed]:
        """One cost per architecture, in order."""
        ...

    def block_costs(self, architecture: Architecture) -> Sequence[Cost]:
        """What each block adds to its network's predicted cost, in running order."""
        ...

    def measure(self, models: Mapping[str, bytes]) -> Mapping[str, Measured]:
        """Measure networks side by side; asked only where `can_measure`.

        Args:
            models: ONNX files by name.
        """
        ...

    def measure_file(self, path: Path) -> Measured:
        """Measure one delivered ONNX file in a subprocess; only where `can_measure`."""
        ...

    def evidence(self) -> Sequence[Claim]:
        """How well it predicts."""
        ...


@dataclass(frozen=True, slots=True)
class Candidate:
    """One architecture, how good it is and what it costs."""

    architecture: Architecture
    quality: Quality
    cost: Cost | Failed

    @property
    def failure(self) -> str | None:
        """Why the quality or the cost is missing; None where both are there."""
        for part in (self.quality, self.cost):
            if isinstance(part, Failed):
                return part.reason
        return None

    @property
    def value(self) -> float:
        """Accuracy or score of a candidate that did not fail; higher is better."""
        assert not isinstance(self.quality, Failed), "a failed candidate has no value"
        return self.quality.value

    @property
    def known_cost(self) -> Cost:
        """The cost of a candidate whose cost did not fail."""
        assert isinstance(self.cost, Cost), "a failed candidate has no cost"
        return self.cost


@dataclass(frozen=True, slots=True)
class Limit:
    """The most that one cost metric may be, or the least that the accuracy must be.

    Args:
        metric: a field of `Cost`, whose name holds the unit, or `accuracy`.
        bound: in that unit, above 0; for the accuracy up to 1.
        text: as the user wrote it, for messages.
        factor: by which a cost may exceed its prediction, where the bound is of predictions; the
            bound times this is what the user asked for.

    Raises:
        RecipeError: an unknown metric, or a bound that is not a finite number above 0.
    """

    metric: str
    bound: float
    text: str = ""
    factor: float = 1.0

    def __post_init__(self) -> None:
        if not isinstance(self.metric, str) or self.metric not in (*COST_METRICS, ACCURACY):
            raise RecipeError(
                f"a limit names accuracy or a cost metric, received {self.metric!r}. "
                f"{nearest(str(self.metric), _KNOWN_NAMES)}"
            )
        bound: object = self.bound
        if not isinstance(bound, Real):
            raise RecipeError(
                f"a limit is a finite number above 0, received {bound!r} as the bound of "
                f"{self.metric}. Read a text with Limit.parse. {_EXAMPLES}"
            )
        if not (math.isfinite(self.bound) and self.bound > 0):
            raise RecipeError(
                f"a limit is a finite number above 0, received {str(self)!r} "
                f"({self.metric}={_exact(self.bound)}). {_EXAMPLES}"
            )
        if self.metric == ACCURACY and self.bound > 1:
            raise RecipeError(f"an accuracy is 0 to 1 or 0% to 100%, received {str(self)!r}.")

    @classmethod
    def parse(cls, text: str) -> Limit:
        """Read `metric=value`; the value may end in a unit, and must if the name has none.

        Raises:
            RecipeError: no such form, metric or unit, or not a finite number above 0.
        """
        name, equals, value = (part.strip() for part in text.partition("="))
        name = name.rstrip("<> ")  # latency<=2ms and accuracy>=90% say the same
        if not (name and equals and value):
            raise RecipeError(f"a limit reads metric=value, received {text!r}. {_EXAMPLES}")
        number = re.fullmatch(
            r"(?P<digits>[+-]?(?:\d[\d_]*\.?\d*|\.\d+)(?:[eE][+-]?\d+)?)\s*(?P<unit>\S*)", value
        )
        if name not in _KNOWN_NAMES and metric_and_factor(name) is None:
            raise RecipeError(
                f"a limit names accuracy or a cost metric, received {name!r} in {text!r}. "
                f"{nearest(name, _KNOWN_NAMES)}"
            )
        if number is None:
            raise RecipeError(
                "a limit is a finite number above 0, with or without a unit, received "
                f"{value!r} in {text!r}. {_EXAMPLES}"
            )
        metric, factor = _metric_of(name, number["unit"], text)
        # In decimals, so that 41.48M is 41480000 and not the float below it.
        bound = float(Decimal(number["digits"]) * Decimal(str(factor)))
        return cls(metric, bound, text.strip())

    def excess(self, value: float) -> float:
        """By how much a value misses the bound, relative to it; 0 where it holds."""
        if self.metric == ACCURACY:
            return max(0.0, 1 - value / self.bound)
        return 0.0 if value <= self.bound else value / self.bound - 1

    def __str__(self) -> str:
        return self.text or f"{self.metric}={_exact(self.bound)}"


def _exact(bound: float) -> str:
    """A number that is read back as it is, whole ones without a point."""
    return repr(float(bound)).removesuffix(".0")


_KNOWN_NAMES = (*COST_METRICS, *QUANTITIES, ACCURACY)


def metric_name(name: str) -> str:
    """The cost metric that a word for it means, as in limits; other words are left as they are."""
    if found := metric_and_factor(name):
        return found[0]
    return QUANTITIES.get(name, name)


def as_limits(limits: Iterable[Limit | str] | Limit | str) -> tuple[Limit, ...]:
    """Limits from limits or their texts, or from one of them.

    Raises:
        RecipeError: something else, or a text that is no limit.
    """
    if isinstance(limits, Limit | str):
        limits = (limits,)
    limits = tuple(limits) if isinstance(limits, Iterable) else (limits,)
    if others := [one for one in limits if not isinstance(one, Limit | str)]:
        raise RecipeError(
            f"limits are texts or Limit objects, received {others[0]!r}, of type "
            f"{type(others[0]).__name__}. {_EXAMPLES}"
        )
    return tuple(one if isinstance(one, Limit) else Limit.parse(one) for one in limits)


def _metric_of(name: str, unit: str, text: str) -> tuple[str, float]:
    """The metric that a limit's name and unit mean, and what the unit is in that of the metric."""
    if name == ACCURACY:
        units: Mapping[str, float] = {"": 1.0, "%": 0.01}
        metric, own = ACCURACY, 1.0
    else:
        metric, own = metric_and_factor(name) or (QUANTITIES[name], 0.0)
        units = UNITS[metric]
    if not unit and own:
        return metric, own
    if unit not in units:
        known = ", ".join(known for known in units if known)
        received = f"unit {unit!r}" if unit else "no unit"
        raise RecipeError(
            f"{name} is given in one of {known}, received {received} in {text!r}. {_EXAMPLES}"
        )
    return metric, units[unit]


def _column(candidates: Sequence[Candidate], metric: str) -> np.ndarray:
    """One metric of candidates that did not fail, or their values; shape (candidates,).

    Raises:
        RecipeError: a target does not report the metric.
        MeasurementError: a cost is NaN.
    """
    if metric == ACCURACY:
        qualities = [one.quality for one in candidates]
        return np.array([one.value for one in qualities], dtype=float)  # type: ignore[union-attr]
    read = attrgetter(metric)
    column = np.array([read(one.cost) for one in candidates], dtype=float)  # None becomes NaN
    for row in np.flatnonzero(np.isnan(column)).tolist():
        candidates[row].known_cost.metric(metric)
    return column


@dataclass(frozen=True, slots=True)
class Objective:
    """What a search looks for: the best networks within limits.

    The front is what no other network beats in quality and in every metric of `costs` at once. Of
    the front, one network is chosen: the most accurate one, or the one with the least `minimise`.

    Args:
        costs: the cost metrics of the front, the first one for sorting and drawing.
        limits: what must hold.
        minimise: the cost metric for which a network is chosen; None chooses by accuracy.

    Raises:
        RecipeError: a metric is unknown, no cost is given, or one metric has two limits.
    """

    costs: tuple[str, ...] = ("latency_ms",)
    limits: tuple[Limit, ...] = ()
    minimise: str | None = None

    def __post_init__(self) -> None:
        named = [*self.costs, *([self.minimise] if self.minimise else [])]
        if unknown := [name for name in named if name not in COST_METRICS]:
            raise RecipeError(
                f"an objective minimises cost metrics, received {unknown[0]!r}. "
                f"{nearest(unknown[0], COST_METRICS)}"
            )
        if not self.costs or (self.minimise and self.minimise not in self.costs):
            raise RecipeError(
                f"the front of an objective has the minimised metric among its costs, "
                f"received minimise={self.minimise!r} and costs {self.costs}."
            )
        if len({limit.metric for limit in self.limits}) != len(self.limits):
            raise RecipeError(
                f"every metric takes one limit, received {', '.join(map(str, self.limits))}. "
                "Keep the stricter one."
            )

    @property
    def cost_limits(self) -> tuple[Limit, ...]:
        """The limits that a target decides."""
        return tuple(limit for limit in self.limits if limit.metric != ACCURACY)

    @property
    def arithmetic_limits(self) -> tuple[Limit, ...]:
        """The limits that follow from a network's layers, without any target."""
        return tuple(limit for limit in self.limits if limit.metric in ARITHMETIC_METRICS)

    def require_reported(self, target: Reports) -> None:
        """Refuse a target that does not report a metric of the objective.

        Raises:
            RecipeError: naming the metric, and those that the target reports.
        """
        named = [*(limit.metric for limit in self.cost_limits), *self.costs]
        if missing := [name for name in named if name not in target.metrics]:
            limit = next((str(one) for one in self.limits if one.metric == missing[0]), None)
            raise RecipeError(
                f"a target must report what is limited or minimised; {target.name} reports no "
                f"{missing[0]}{f' (limit {limit})' if limit else ''}, only "
                f"{', '.join(target.metrics)}. Choose one of these, or another --target."
                f"{_ENERGY_HINT if missing[0] == 'energy_uj' else ''}"
            )

    def cost_violation(self, cost: Cost) -> float:
        """How far a cost is above its limits: the relative excesses, summed; 0 where all hold.

        Raises:
            RecipeError: the target does not report a limited metric.
        """
        return sum(limit.excess(cost.metric(limit.metric)) for limit in self.cost_limits)

    def violation(self, candidate: Candidate) -> float:
        """The same with the accuracy's floor, of a candidate that did not fail."""
        floors = [limit for limit in self.limits if limit.metric == ACCURACY]
        missing = sum(limit.excess(candidate.value) for limit in floors)
        return self.cost_violation(candidate.known_cost) + missing

    def admits(self, cost: Cost) -> bool:
        """Whether a cost is within all limits, the bounds included."""
        return self.cost_violation(cost) == 0

    def satisfied(self, candidate: Candidate) -> bool:
        """Whether a candidate did not fail and is within all limits."""
        return candidate.failure is None and self.violation(candidate) == 0

    def values(self, candidates: Sequence[Candidate]) -> np.ndarray:
        """What a search minimises: minus the value, then the costs of the front.

        Args:
            candidates: none of them failed.

        Returns:
            Shape (candidates, 1 + costs of the front).

        Raises:
            RecipeError: the target does not report one of the costs.
        """
        columns = [_column(candidates, metric) for metric in self.costs]
        return np.stack([-_column(candidates, ACCURACY), *columns], axis=1)

    def _within(self, candidates: Iterable[Candidate]) -> list[Candidate]:
        """Those that did not fail and are within all limits, a limit at a time for speed."""
        within = [
            one
            for one in candidates
            if not (isinstance(one.quality, Failed) or isinstance(one.cost, Failed))
        ]
        for limit in self.limits:
            reached = _column(within, limit.metric)
            floor = limit.metric == ACCURACY
            held = reached >= limit.bound if floor else reached <= limit.bound
            if not held.all():
                within = [within[row] for row in np.flatnonzero(held)]
        return within

    def front(self, candidates: Iterable[Candidate]) -> list[Candidate]:
        """The candidates within the limits that no other one beats, cheapest first.

        Failed candidates are left out; of equal value and costs all stay.
        """
        within = self._within(candidates)
        if not within:
            return []
        values = self.values(within)
        rows = np.flatnonzero(non_dominated(values))
        cheapest_first = np.lexsort((values[rows, 0], *values[rows, 1:].T[::-1]))
        return [within[row] for row in rows[cheapest_first]]

    def preference(self, value: float, cost: Cost) -> tuple[float, ...]:
        """Sorts networks by what the objective chooses for, the best one first."""
        first = cost.metric(self.costs[0])
        if self.minimise is None:
            return (-value, first)
        return (cost.metric(self.minimise), -value)

    def __str__(self) -> str:
        goal = f"least {self.minimise}" if self.minimise else "highest accuracy"
        within = f" within {', '.join(map(str, self.limits))}" if self.limits else ""
        return f"{goal}{within}"
