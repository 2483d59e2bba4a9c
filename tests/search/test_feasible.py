"""A limit that cannot be met is answered at once, with what can be."""

from __future__ import annotations

import re
from collections.abc import Sequence

import numpy as np
import pytest

from pliant.errors import InfeasibleError, MeasurementError, RecipeError
from pliant.metrics import Cost, Failed
from pliant.objective import CostModel, Limit, Objective
from pliant.search.feasible import MUTANTS, ROUNDS, FeasibleRange, check_feasible
from pliant.spaces.architecture import Architecture
from pliant.spaces.presets import preset
from pliant.spaces.space import Space


class Counted:
    """The arithmetic cost of a space, counting how often it is asked."""

    def __init__(self, space: Space) -> None:
        self.space = space
        self.asked = 0

    def __call__(self, architectures: Sequence[Architecture]) -> list[Cost | Failed]:
        self.asked += len(architectures)
        return [self.space.cost(architecture) for architecture in architectures]


def check(space: Space, costs: CostModel, *limits: Limit) -> FeasibleRange:
    return check_feasible(space, Objective(("macs",), limits), costs, np.random.default_rng(0))


def test_limits_that_hold_everywhere(toy_space: Space) -> None:
    reach = check(toy_space, Counted(toy_space), Limit("macs", 1e12))
    ends = (toy_space.cost(toy_space.smallest()).macs, toy_space.cost(toy_space.largest()).macs)
    assert (reach.ranges, reach.share) == ({"macs": ends}, 1.0)
    assert check(toy_space, Counted(toy_space)).ranges == {}


def test_an_impossible_limit_says_what_can_be_reached() -> None:
    space = preset("ofa-mobilenetv3", channels=3, image_size=224, classes=1000)
    cost = Counted(space)
    with pytest.raises(
        InfeasibleError,
        match=r"within macs=1M, .* macs reaches 41.48M to 566.2M. Raise macs to at least 41.48M",
    ):
        check(space, cost, Limit.parse("macs=1M"))
    assert cost.asked <= 2 + 256 + ROUNDS * MUTANTS
    assert check(space, cost, Limit.parse("macs=41.48M")).example == space.smallest()


def test_a_corner_that_samples_miss_is_walked_to() -> None:
    space = preset("mobile-32", channels=3, image_size=32, classes=10)
    least, most = space.cost(space.smallest()), space.cost(space.largest())
    # Few parameters at many MACs: neither end holds both, and random networks hardly ever do.
    limits = [Limit("parameters", 1.2 * (least.parameters or 0))]

    def turned(architectures: Sequence[Architecture]) -> list[Cost | Failed]:
        found = [space.cost(architecture) for architecture in architectures]
        return [
            Cost(parameters=cost.parameters, macs=(most.macs or 0) - (cost.macs or 0) + 1)
            for cost in found
        ]

    [highest] = turned([space.smallest()])
    assert isinstance(highest, Cost)
    limits.append(Limit("macs", (highest.macs or 0) - 0.4 * (least.macs or 0)))
    objective = Objective(("macs",), tuple(limits))
    reach = check_feasible(space, objective, turned, np.random.default_rng(0), samples=64)
    assert reach.share < 0.05
    assert objective.admits(turned([reach.example])[0])  # type: ignore[arg-type]


def test_limits_that_exclude_each_other(toy_space: Space) -> None:
    def opposed(architectures: Sequence[Architecture]) -> list[Cost | Failed]:
        return [
            Cost(macs=toy_space.cost(one).macs, latency_ms=1e6 / (toy_space.cost(one).macs or 1))
            for one in architectures
        ]

    low = toy_space.cost(toy_space.smallest()).macs or 0
    limits = [Limit("macs", low), Limit("latency_ms", 0.5e6 / low)]
    with pytest.raises(
        InfeasibleError,
        match=r"Each limit can be met alone but not all together; the closest is r\d",
    ):
        check(toy_space, opposed, *limits)


@pytest.mark.parametrize("macs", [0.3, 1.0, 1.01, 2.0, 4.0])
@pytest.mark.parametrize("latency", [0.1, 0.5, 0.99, 1.5])
def test_limits_that_are_raised_as_told_are_met(
    toy_space: Space, macs: float, latency: float
) -> None:
    """Of small and slow networks: one limit, or both, may have to be raised."""
    least = toy_space.cost(toy_space.smallest()).macs or 0

    def opposed(architectures: Sequence[Architecture]) -> list[Cost | Failed]:
        found = [toy_space.cost(one).macs or 1 for one in architectures]
        return [Cost(macs=macs, latency_ms=1e3 * least / macs) for macs in found]

    limits = [Limit("macs", macs * least), Limit("latency_ms", latency * 100)]
    for _ in range(2):  # both can be met alone after the first answer
        try:
            check(toy_space, opposed, *limits)
            break
        except InfeasibleError as error:
            told = _advised(str(error))
        limits = [
            Limit.parse(f"{one.metric}={told[one.metric]}") if one.metric in told else one
            for one in limits
        ]
    assert check(toy_space, opposed, *limits).share >= 0


def _advised(text: str) -> dict[str, str]:
    """The bound that a refusal asks for, by metric."""
    if "to at least" in text:
        return dict(re.findall(r"(\w+) to at least ([^ ,]+)", text))
    found = re.search(r"the closest is .* with (.*)\. Raise (.*) to that", text)
    assert found is not None
    values = dict(one.split("=") for one in found[1].split(", "))
    return {metric: values[metric] for metric in found[2].split(" and ")}


def test_the_share_is_that_of_random_networks(toy_space: Space) -> None:
    rng = np.random.default_rng(0)
    bound = toy_space.cost(toy_space.largest()).macs or 0
    reach = check(toy_space, Counted(toy_space), Limit("macs", bound / 3))
    drawn = [toy_space.cost(toy_space.sample_choices(rng)).macs or 0 for _ in range(256)]
    assert 0 < reach.share < 1
    # Limits that follow from the layers are asked with draws of their own first.
    assert reach.share == pytest.approx(np.mean(np.array(drawn) <= bound / 3))


def test_failures_are_passed_over_unless_nothing_else_is_left(toy_space: Space) -> None:
    def half(architectures: Sequence[Architecture]) -> list[Cost | Failed]:
        return [
            Failed("no kernel") if one["r"] == 4 else toy_space.cost(one) for one in architectures
        ]

    assert check(toy_space, half, Limit("macs", 1e12)).share == 1.0
    with pytest.raises(MeasurementError, match=r"those of all \d+ failed: no device"):
        check(toy_space, lambda found: [Failed("no device")] * len(found), Limit("latency_ms", 1))


def test_what_the_layers_rule_out_asks_no_target(toy_space: Space) -> None:
    counted = Counted(toy_space)
    with pytest.raises(InfeasibleError, match="Raise macs to at least"):
        check(toy_space, counted, Limit("latency_ms", 1), Limit("macs", 1))
    assert counted.asked == 0


def test_a_metric_that_the_cost_model_cannot_tell(toy_space: Space) -> None:
    with pytest.raises(
        RecipeError, match="reports no energy_uj, only peak_memory_bytes, model_size_bytes"
    ):
        check(toy_space, Counted(toy_space), Limit("energy_uj", 1))
