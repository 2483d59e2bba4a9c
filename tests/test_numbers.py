"""Units, accuracies, costs and limits: what is written reads back, and formulas hold by force."""

from __future__ import annotations

import itertools
import math
from dataclasses import fields
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from pliant.errors import MeasurementError, RecipeError, nearest
from pliant.metrics import COST_METRICS, Accuracy, Cost, Failed, Score, as_precision
from pliant.objective import (
    ACCURACY,
    Candidate,
    Limit,
    Objective,
    as_limits,
    checked_costs,
    checked_qualities,
    function_name,
)
from pliant.pareto import hypervolume, non_dominated
from pliant.spaces.architecture import Architecture
from pliant.units import (
    DURATIONS_S,
    QUANTITIES,
    UNITS,
    format_cost,
    format_duration,
    metric_and_factor,
    parse_duration,
)

POSITIVE = st.floats(1e-6, 1e9)


def network(top1: float, name: int = 0, **cost: float) -> Candidate:
    return Candidate(Architecture((("r", name),)), Accuracy(top1, 100), Cost(**cost))  # type: ignore[arg-type]


# Units.


def test_every_unit_of_every_quantity_is_read_in_a_value_and_in_a_name() -> None:
    assert set(UNITS) == set(COST_METRICS)
    for quantity, metric in QUANTITIES.items():
        for unit, factor in UNITS[metric].items():
            assert Limit.parse(f"{quantity}=2{unit}").bound == pytest.approx(2 * factor, rel=1e-15)
            found = metric_and_factor(f"{quantity}_{unit}")
            assert found is not None
            assert found[0] == metric
            assert found == metric_and_factor(f"{quantity}_{unit.lower()}")
    for metric in COST_METRICS:
        assert metric_and_factor(metric) == (metric, 1.0)


@pytest.mark.parametrize("name", ["", "latency", "latency_", "speed_ms", "latency_kb", "macs_m"])
def test_names_without_a_known_unit_mean_no_metric(name: str) -> None:
    assert metric_and_factor(name) is None


@given(st.sampled_from(COST_METRICS), POSITIVE, st.floats(1.0011, 3))
def test_written_costs_keep_the_order_of_the_values(
    metric: str, value: float, factor: float
) -> None:
    def read(cost: float) -> float:
        return Limit.parse(f"{metric}={format_cost(metric, cost)}").bound

    assert value <= read(value) < read(factor * value)


@given(st.sampled_from(sorted(DURATIONS_S)), st.integers(1, 999), st.integers(0, 9))
def test_durations_read_in_every_unit(unit: str, whole: int, tenth: int) -> None:
    text = f"{whole}.{tenth}{unit}"
    assert parse_duration(text) == pytest.approx((whole + tenth / 10) * DURATIONS_S[unit])
    assert parse_duration(f" {whole} {unit} ") == whole * DURATIONS_S[unit]


@pytest.mark.parametrize(
    "text", ["", "5", "min", "-3s", "0s", "1e3s", "1h30min", "5 days", "infs", "1,5h", "0.0h"]
)
def test_durations_that_are_none(text: str) -> None:
    assert parse_duration(text) is None


@given(st.floats(0.1, 1e6))
def test_a_written_duration_is_enough_and_not_much_more(seconds: float) -> None:
    read = parse_duration(format_duration(seconds))
    assert read is not None
    assert seconds <= read * (1 + 1e-12)
    assert read <= 1.1 * seconds


# Accuracies, scores, costs.


@given(st.integers(1, 5000), st.data())
def test_wilsons_interval_holds_the_shares_that_a_test_does_not_reject(
    images: int, data: st.DataObject
) -> None:
    right = data.draw(st.integers(0, images))
    share = right / images
    low, high = Accuracy(share, images).interval
    assert 0 <= low <= high <= 1
    assert low - 1e-12 <= share <= high + 1e-12
    for end in (low, high):
        if 1e-9 < end < 1 - 1e-9:  # (share - p)^2 = z^2 p (1 - p) / n at both ends
            assert images * (share - end) ** 2 / (end * (1 - end)) == pytest.approx(
                1.959964**2, rel=1e-6
            )
    mirrored = Accuracy(1 - share, images).interval
    assert mirrored == pytest.approx((1 - high, 1 - low), abs=1e-12)


def test_no_images_tell_nothing_and_more_tell_more() -> None:
    assert Accuracy(0.7, 0).interval == (0.0, 1.0)
    widths = [np.diff(Accuracy(0.7, 10**n).interval)[0] for n in range(1, 6)]
    assert widths == sorted(widths, reverse=True)


@pytest.mark.parametrize("top1", [-1e-9, 1 + 1e-9, math.nan, math.inf, 90])
def test_shares_that_are_none(top1: float) -> None:
    with pytest.raises(ValueError, match=r"an accuracy is 0 to 1"):
        Accuracy(top1, 10)


def test_infinite_scores_have_a_rank() -> None:
    values = [Score(value).value for value in (math.inf, -math.inf, 0.0)]
    assert sorted(values) == [-math.inf, 0.0, math.inf]


@pytest.mark.parametrize("metric", COST_METRICS)
def test_a_metric_that_is_unknown_is_never_zero(metric: str) -> None:
    others = Cost(**{name: 1 for name in COST_METRICS if name != metric})
    assert others.metrics == tuple(name for name in COST_METRICS if name != metric)
    with pytest.raises(RecipeError, match=rf"it reports no {metric}, only "):
        others.metric(metric)
    with pytest.raises(RecipeError, match=r"only nothing"):
        Cost().metric(metric)
    with pytest.raises(MeasurementError, match=rf"{metric} is NaN"):
        Cost(**{metric: math.nan}).metric(metric)  # type: ignore[arg-type]
    with pytest.raises(RecipeError, match=r"reports no metrics"):
        Cost().metric("metrics")  # an attribute, and no metric
    assert Cost(**{metric: 0}).metric(metric) == 0.0


def test_precisions_by_name() -> None:
    assert [as_precision(name) for name in (None, "fp32", "int8")] == [None, "fp32", "int8"]
    with pytest.raises(RecipeError, match=r"is fp32 or int8, received 'fp16'"):
        as_precision("fp16")


@given(st.text(min_size=1), st.lists(st.text(min_size=1), min_size=1, max_size=5))
def test_an_unknown_name_is_answered_by_known_ones_only(name: str, known: list[str]) -> None:
    said = nearest(name, known)
    names = [f"Did you mean {one!r}?" for one in known]
    assert said in [*names, f"Known: {', '.join(sorted(known))}."]
    if name in known:
        assert said == f"Did you mean {name!r}?"


# Limits.


@given(st.sampled_from([*COST_METRICS, ACCURACY]), st.floats(0.01, 1), st.floats(0.01, 10))
def test_the_excess_is_relative_and_zero_exactly_within_the_limit(
    metric: str, bound: float, value: float
) -> None:
    limit = Limit(metric, bound)
    within = value >= bound if metric == ACCURACY else value <= bound
    assert (limit.excess(value) == 0) == within
    assert limit.excess(bound) == 0
    if not within:
        assert limit.excess(value) == pytest.approx(abs(value - bound) / bound)


@given(st.floats(1e-3, 1e6))
def test_the_next_number_above_a_limit_is_above_it(bound: float) -> None:
    above = math.nextafter(bound, math.inf)
    objective = Objective(limits=(Limit("latency_ms", bound),))
    for value, held in ((bound, True), (above, False)):
        one = network(0.5, latency_ms=value)
        assert objective.satisfied(one) == held
        assert objective.front([one]) == ([one] if held else [])


@given(st.floats(0.01, 1))
def test_the_next_number_below_a_floor_is_below_it(bound: float) -> None:
    objective = Objective(limits=(Limit(ACCURACY, bound),))
    for value in (bound, math.nextafter(bound, 0)):
        one = network(value, latency_ms=1.0)
        assert objective.satisfied(one) == bool(objective.front([one])) == (value == bound)


COSTS = st.fixed_dictionaries(
    {"latency_ms": st.integers(1, 4), "macs": st.integers(1, 4), "parameters": st.integers(1, 4)}
)
NETWORKS = st.lists(st.tuples(st.integers(0, 4), COSTS), max_size=10).map(
    lambda rows: [network(top1 / 4, row, **cost) for row, (top1, cost) in enumerate(rows)]
)
OBJECTIVES = st.sampled_from(
    [
        Objective(),
        Objective(("latency_ms", "macs"), (Limit("macs", 3),)),
        Objective(("macs", "latency_ms"), (Limit("parameters", 2),), minimise="latency_ms"),
        Objective(("macs",), (Limit(ACCURACY, 0.5), Limit("latency_ms", 3)), minimise="macs"),
    ]
)


@given(NETWORKS, OBJECTIVES)
def test_a_front_is_what_remains_when_all_pairs_are_compared(
    networks: list[Candidate], objective: Objective
) -> None:
    within = [one for one in networks if objective.satisfied(one)]
    values = {id(one): objective.values([one])[0] for one in within}

    def beats(one: Candidate, other: Candidate) -> bool:
        mine, yours = values[id(one)], values[id(other)]
        return bool((mine <= yours).all() and (mine < yours).any())

    expected = [one for one in within if not any(beats(other, one) for other in within)]
    front = objective.front(networks)
    assert {id(one) for one in front} == {id(one) for one in expected}
    costs = [[one.known_cost.metric(name) for name in objective.costs] for one in front]
    assert costs == sorted(costs), "cheapest first"
    assert objective.front(front) == front
    if within:
        best = min(within, key=lambda one: objective.preference(one.value, one.known_cost))
        assert any(
            objective.preference(one.value, one.known_cost)
            == objective.preference(best.value, best.known_cost)
            for one in front
        ), "the best network of all is one of the front"


@settings(max_examples=50)
@given(NETWORKS, OBJECTIVES, st.randoms(use_true_random=False))
def test_a_front_does_not_depend_on_the_order_and_grows_by_parts(
    networks: list[Candidate], objective: Objective, random: Any
) -> None:
    shuffled = random.sample(networks, len(networks))
    whole = {id(one) for one in objective.front(networks)}
    assert {id(one) for one in objective.front(shuffled)} == whole
    half = len(networks) // 2
    parts = [*objective.front(networks[:half]), *objective.front(networks[half:])]
    assert {id(one) for one in objective.front(parts)} == whole


def test_what_is_no_limit_is_named() -> None:
    wrong: list[tuple[Any, str]] = [
        (lambda: as_limits([3]), "received 3, of type int"),  # type: ignore[list-item]
        (lambda: as_limits([None]), "received None, of type NoneType"),  # type: ignore[list-item]
        (lambda: as_limits(3), "received 3, of type int"),  # type: ignore[arg-type]
        (lambda: Limit("macs", "2M"), "received '2M' as the bound"),  # type: ignore[arg-type]
        (lambda: Limit("latency_ms", math.nan, "x"), r"received 'x' \(latency_ms=nan\)"),
        (lambda: Limit(None, 2.0), "received None"),  # type: ignore[arg-type]
    ]
    for make, said in wrong:
        with pytest.raises(RecipeError, match=said):
            make()


class Odd:
    """An estimator that returns anything."""

    def __init__(self, answer: object) -> None:
        self.answer = answer

    def estimate(self, architectures: object) -> Any:
        return self.answer


def test_what_is_no_quality_names_its_estimator() -> None:
    architectures = [Architecture((("r", row),)) for row in range(2)]
    fine = [Score(1.0), Failed("broken")]
    assert checked_qualities(Odd(fine), architectures) is fine
    wrong: list[tuple[object, str]] = [
        (["x", "y"], "returned 'x', of type str"),
        ([Score(1.0), 0.5], "returned 0.5, of type float"),
        ([Score(1.0)], "returned 1 of them for 2"),
        (None, "returned a NoneType"),
        ("xy", "returned a str"),
    ]
    for returned, said in wrong:
        with pytest.raises(RecipeError, match=f"; Odd {said}"):
            checked_qualities(Odd(returned), architectures)


def test_a_cost_that_is_no_cost_names_its_function() -> None:
    architectures = [Architecture((("r", row),)) for row in range(2)]

    def mine(_: object) -> list[Cost | Failed]:
        return [Failed("no device"), Cost(energy_uj=math.nan)]

    with pytest.raises(MeasurementError, match=r"mine \(test_numbers.py, line \d+\) returned NaN"):
        checked_costs(mine, architectures)
    wrong: list[tuple[Any, str]] = [
        ([Failed("no device"), Cost(latency_ms=-1)], "returned -1 as latency_ms of r"),
        ([Cost(latency_ms=1.0)], "returned 1 of them for 2"),
        (None, "returned NoneType for 2"),
        ([Cost(latency_ms=1.0), 1.0], "returned 1.0 for r"),
        (2 * [Cost(latency_ms=math.inf)], "returned inf as latency_ms of r"),
        (2 * [Cost(macs="1")], "returned '1' as macs of r"),  # type: ignore[arg-type]
    ]
    for returned, said in wrong:
        with pytest.raises(MeasurementError, match=said):
            checked_costs(lambda _, costs=returned: costs, architectures)
    fine = [Failed("no device"), Cost(energy_uj=np.float32(3))]
    assert checked_costs(lambda _: fine, architectures) is fine
    assert function_name(Limit("macs", 1).excess).startswith("Limit.excess (objective.py")
    assert function_name(OBJECTIVES) == type(OBJECTIVES).__qualname__


# Dominated volumes.

POINTS = st.lists(st.tuples(*3 * [st.integers(0, 5)]), max_size=7)


@given(POINTS)
def test_volumes_of_three_costs_by_counting_cells(points: list[tuple[int, ...]]) -> None:
    cells = itertools.product(range(4), repeat=3)
    dominated = sum(
        any(all(a <= x for a, x in zip(point, cell, strict=True)) for point in points)
        for cell in cells
    )
    assert hypervolume(np.array(points, dtype=float), (4, 4, 4)) == pytest.approx(dominated)


@given(POINTS, st.tuples(*3 * [st.integers(0, 5)]))
def test_a_point_adds_volume_exactly_where_nothing_covers_it(
    points: list[tuple[int, ...]], more: tuple[int, ...]
) -> None:
    before = hypervolume(np.array(points, dtype=float), (5, 5, 5))
    after = hypervolume(np.array([*points, more], dtype=float), (5, 5, 5))
    covered = any(all(a <= b for a, b in zip(point, more, strict=True)) for point in points)
    inside = max(more) < 5
    assert (after > before) == (inside and not covered)
    front = np.array(points, dtype=float).reshape(-1, 3)
    if len(front):
        kept = front[non_dominated(front)]
        assert hypervolume(kept, (5, 5, 5)) == pytest.approx(before)


def test_costs_are_plain_numbers_or_none() -> None:
    assert tuple(field.name for field in fields(Cost)) == COST_METRICS
    assert all(field.default is None for field in fields(Cost))
