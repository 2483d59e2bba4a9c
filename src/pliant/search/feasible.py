"""Can the limits be met at all? Asked before a search, answered in seconds with the range that the space reaches."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from pliant.errors import InfeasibleError, MeasurementError
from pliant.metrics import Cost, Failed
from pliant.objective import CostModel, Limit, metric_value, violation
from pliant.spaces.architecture import Architecture
from pliant.spaces.space import Space
from pliant.units import spelled

ROUNDS = 30
MUTANTS = 32


@dataclass(frozen=True, slots=True)
class Reach:
    """What was found while asking whether limits can be met."""

    ranges: Mapping[str, tuple[float, float]]
    """Smallest and largest value seen, by limited metric."""
    share: float
    """Share of the randomly drawn networks that hold all limits, 0 to 1."""
    example: Architecture
    """A network that holds all limits."""


def check_feasible(
    space: Space,
    cost_model: CostModel,
    limits: Sequence[Limit],
    rng: np.random.Generator,
    samples: int = 256,
) -> Reach:
    """Evaluate the smallest, the largest and random networks, then walk down the violation from the best of them.

    At most 2 + samples + ROUNDS * MUTANTS networks are evaluated.

    Args:
        rng: of the draws.
        samples: random networks, every choice drawn on its own.

    Raises:
        InfeasibleError: no network seen holds all limits; the message says what range the space reaches.
        MeasurementError: the cost model failed on every network.
        RecipeError: the cost model cannot tell a limited metric.
    """
    drawn = [space.sample_choices(rng) for _ in range(samples)]
    costs = _costs(cost_model, dict.fromkeys([space.smallest(), space.largest(), *drawn]))
    best = min(costs, key=lambda architecture: violation(limits, costs[architecture]))
    for _ in range(ROUNDS):
        if violation(limits, costs[best]) == 0:
            break
        mutants = dict.fromkeys(space.mutate(best, rng) for _ in range(MUTANTS))
        costs |= _costs(
            cost_model, [mutant for mutant in mutants if mutant not in costs], may_fail=True
        )
        best = min(costs, key=lambda architecture: violation(limits, costs[architecture]))
    ranges = {limit.metric: _range(costs, limit.metric) for limit in limits}
    if violation(limits, costs[best]) > 0:
        raise InfeasibleError(_why(space, limits, ranges, costs, best))
    within = [
        violation(limits, costs[architecture]) == 0
        for architecture in drawn
        if architecture in costs
    ]
    return Reach(ranges, float(np.mean(within)) if within else 0.0, best)


def _costs(
    cost_model: CostModel,
    architectures: Sequence[Architecture] | Mapping[Architecture, None],
    may_fail: bool = False,
) -> dict[Architecture, Cost]:
    if not architectures:
        return {}
    results = cost_model(list(architectures))
    found = {
        architecture: cost
        for architecture, cost in zip(architectures, results, strict=True)
        if isinstance(cost, Cost)
    }
    if not found and not may_fail:
        reason = next(cost.reason for cost in results if isinstance(cost, Failed))
        raise MeasurementError(
            f"a limit can be checked only where costs can be told; all {len(results)} networks failed: {reason}"
        )
    return found


def _range(costs: Mapping[Architecture, Cost], metric: str) -> tuple[float, float]:
    values = [metric_value(cost, metric) for cost in costs.values()]
    return min(values), max(values)


def _why(
    space: Space,
    limits: Sequence[Limit],
    ranges: Mapping[str, tuple[float, float]],
    costs: Mapping[Architecture, Cost],
    best: Architecture,
) -> str:
    reached = "; ".join(
        f"{metric} reaches {spelled(metric, low)} to {spelled(metric, high)}"
        for metric, (low, high) in ranges.items()
    )
    asked = " and ".join(str(limit) for limit in limits)
    start = f"no network of space {space.name!r} was found within {asked}, of {len(costs)} looked at: {reached}. "
    beyond = [limit for limit in limits if limit.at_most < ranges[limit.metric][0]]
    if beyond:
        raises = " and ".join(
            f"{limit.metric} to at least {spelled(limit.metric, ranges[limit.metric][0])}"
            for limit in beyond
        )
        return f"{start}Raise {raises}, or choose a space with smaller networks."
    values = ", ".join(
        f"{metric}={spelled(metric, metric_value(costs[best], metric))}" for metric in ranges
    )
    return f"{start}Each limit can be met alone but not all together; the closest is {best} with {values}. Raise one of them to that."
