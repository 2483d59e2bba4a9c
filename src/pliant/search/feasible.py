"""Can the limits be met at all? Asked before a search, answered with the range that is feasible."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, replace

import numpy as np

from pliant.errors import InfeasibleError, MeasurementError
from pliant.metrics import Cost, Failed
from pliant.objective import CostModel, Objective, checked_costs
from pliant.spaces.architecture import Architecture
from pliant.spaces.space import Space
from pliant.targets import Arithmetic
from pliant.units import format_cost

ROUNDS = 30
MUTANTS = 32


@dataclass(frozen=True, slots=True)
class FeasibleRange:
    """What was found while asking whether limits can be met."""

    ranges: Mapping[str, tuple[float, float]]
    """Smallest and largest value seen, by limited metric."""
    share: float
    """Share of the randomly drawn networks that satisfy all limits, 0 to 1."""
    example: Architecture
    """A network that satisfies all limits."""


def check_feasible(
    space: Space,
    objective: Objective,
    costs: CostModel,
    rng: np.random.Generator,
    samples: int = 256,
) -> FeasibleRange:
    """Evaluate both ends of the space and random networks, then descend from the best of them.

    Limits that follow from the layers are asked first, so that no target is opened, and no machine
    measured, for limits that no network of the space can meet. At most 2 + samples + ROUNDS *
    MUTANTS networks are evaluated each time.

    Args:
        space: whose networks are asked about.
        objective: its limits on costs; a floor of the accuracy is not asked here.
        costs: the predicted costs.
        rng: of the draws.
        samples: random networks, every choice drawn independently.

    Raises:
        InfeasibleError: no network seen satisfies all limits; with the range that is feasible.
        MeasurementError: the costs of every network failed, or one is NaN.
        RecipeError: a limited metric is not reported.
    """
    if objective.arithmetic_limits:
        by_layers = replace(objective, limits=objective.arithmetic_limits)
        _descend(space, by_layers, Arithmetic(space).predict, np.random.default_rng(0), samples)
    return _descend(space, objective, costs, rng, samples)


def _descend(
    space: Space, objective: Objective, costs: CostModel, rng: np.random.Generator, samples: int
) -> FeasibleRange:
    """Walk from the best of random networks to one within the limits, by mutation."""
    drawn = [space.sample_choices(rng) for _ in range(samples)]
    known = _known_costs(costs, dict.fromkeys([space.smallest(), space.largest(), *drawn]))
    if not known:
        [failed] = costs([space.smallest()])
        reason = failed.reason if isinstance(failed, Failed) else "other networks failed"
        raise MeasurementError(
            f"a limit is checked by the costs of networks; those of all {samples} failed: {reason}"
        )
    excess = {one: objective.cost_violation(cost) for one, cost in known.items()}
    for _ in range(ROUNDS):
        best = min(excess, key=lambda one: excess[one])
        if excess[best] == 0:
            break
        mutants = dict.fromkeys(space.mutate(best, rng) for _ in range(MUTANTS))
        fresh = _known_costs(costs, [one for one in mutants if one not in known])
        known |= fresh
        excess |= {one: objective.cost_violation(cost) for one, cost in fresh.items()}
    best = min(excess, key=lambda one: excess[one])
    if excess[best] > 0:
        raise InfeasibleError(_why(space, objective, known, best))
    within = [excess[one] == 0 for one in drawn if one in excess]
    ranges = {limit.metric: _range(known, limit.metric) for limit in objective.cost_limits}
    return FeasibleRange(ranges, float(np.mean(within)) if within else 0.0, best)


def _known_costs(
    costs: CostModel, architectures: Iterable[Architecture]
) -> dict[Architecture, Cost]:
    asked = list(architectures)
    rows = zip(asked, checked_costs(costs, asked), strict=True) if asked else ()
    return {one: cost for one, cost in rows if isinstance(cost, Cost)}


def _range(known: Mapping[Architecture, Cost], metric: str) -> tuple[float, float]:
    values = [cost.metric(metric) for cost in known.values()]
    return min(values), max(values)


def _why(
    space: Space, objective: Objective, known: Mapping[Architecture, Cost], best: Architecture
) -> str:
    """What the limits ask, what can be reached, and what to raise.

    Bounds of predictions are lower than what was asked by the factor of their interval; all costs
    are told times that factor, so that a limit of what is told can be met.
    """
    limits = objective.cost_limits
    factors = {limit.metric: limit.factor for limit in limits}

    def told(metric: str, value: float) -> str:
        return format_cost(metric, factors[metric] * value)

    ranges = {limit.metric: _range(known, limit.metric) for limit in limits}
    reached = "; ".join(
        f"{metric} reaches {told(metric, low)} to {told(metric, high)}"
        + (f" (predictions times {factors[metric]:.3g})" if factors[metric] > 1 else "")
        for metric, (low, high) in ranges.items()
    )
    start = (
        f"no network of space {space.name!r} was found within {' and '.join(map(str, limits))}, "
        f"of {len(known)} examined: {reached}. "
    )
    beyond = [limit for limit in limits if limit.bound < ranges[limit.metric][0]]
    if beyond:
        raises = " and ".join(
            f"{limit.metric} to at least {told(limit.metric, ranges[limit.metric][0])}"
            for limit in beyond
        )
        return f"{start}Raise {raises}, or choose a space with smaller networks."
    closest = {metric: known[best].metric(metric) for metric in ranges}
    values = ", ".join(f"{name}={told(name, value)}" for name, value in closest.items())
    missed = [limit.metric for limit in limits if limit.excess(closest[limit.metric]) > 0]
    return (
        f"{start}Each limit can be met alone but not all together; the closest is {best} with "
        f"{values}. Raise {' and '.join(dict.fromkeys(missed))} to that."
    )
