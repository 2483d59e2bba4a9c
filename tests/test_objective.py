"""Limits as users write them, and the Pareto front against brute force."""

from __future__ import annotations

import itertools
import math
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as arrays

from pliant.errors import MeasurementError, RecipeError
from pliant.metrics import COST_METRICS, Accuracy, Cost, Failed, Score
from pliant.objective import Candidate, Limit, Objective, as_limits
from pliant.pareto import hypervolume, non_dominated
from pliant.spaces.architecture import Architecture
from pliant.units import format_cost

COST = Cost(latency_ms=2.0, parameters=100, macs=1000)


def candidate(top1: float, latency_ms: float, name: int = 0) -> Candidate:
    return Candidate(Architecture((("r", name),)), Accuracy(top1, 100), Cost(latency_ms=latency_ms))


@pytest.mark.parametrize(
    ("text", "metric", "bound"),
    [
        ("latency_ms=0.1", "latency_ms", 0.1),
        ("latency=2ms", "latency_ms", 2.0),
        ("latency=250us", "latency_ms", 0.25),
        (" latency = 1.5 s ", "latency_ms", 1500.0),
        ("latency_ms=2s", "latency_ms", 2000.0),
        ("parameters=300k", "parameters", 300_000),
        ("parameters=300_000", "parameters", 300_000),
        ("macs=50M", "macs", 50e6),
        ("macs=1.2e6", "macs", 1.2e6),
        ("peak_memory=256kB", "peak_memory_bytes", 256_000),
        ("peak_memory=256KiB", "peak_memory_bytes", 262_144),
        ("peak_memory=1.5MiB", "peak_memory_bytes", 1_572_864),
        ("peak_memory_bytes=1000", "peak_memory_bytes", 1000),
        ("energy=3mJ", "energy_uj", 3000.0),
        ("energy_uj=40", "energy_uj", 40.0),
        ("energy_mj=0.04", "energy_uj", 40.0),
        ("latency_us=300", "latency_ms", 0.3),
        ("accuracy=90%", "accuracy", 0.9),
        ("accuracy>=0.9", "accuracy", 0.9),
        ("latency<=2ms", "latency_ms", 2.0),
        ("area=.5cm2", "area_mm2", 50.0),
    ],
)
def test_limits_that_are_understood(text: str, metric: str, bound: float) -> None:
    limit = Limit.parse(text)
    assert (limit.metric, limit.bound, str(limit)) == (
        metric,
        pytest.approx(bound, rel=1e-12),
        text.strip(),
    )


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("latency", "reads metric=value"),
        ("latency=", "reads metric=value"),
        ("=3", "reads metric=value"),
        ("latenci=2ms", "Did you mean 'latency'"),
        ("speed=2ms", "Known: accuracy, area, area_mm2, energy"),
        ("accuracy=90", "0 to 1 or 0% to 100%"),
        ("latency_kb=3", "names accuracy or a cost metric"),
        ("latency=2", "one of us, µs, ms, s, received no unit"),
        ("peak_memory=256", "received no unit"),
        ("latency=2kB", "received unit 'kB'"),
        ("macs=5 million", "received unit 'million'"),
        ("energy=3MJ", "received unit 'MJ'"),
        ("parameters=-3k", "finite number above 0, received 'parameters=-3k'"),
        ("parameters=0", "finite number above 0"),
        ("latency_ms=nan", "finite number above 0, with or without a unit, received 'nan'"),
        ("latency_ms=inf", "finite number above 0"),
        ("latency_ms=1e999", "finite number above 0"),
        ("latency_ms=fast", "received 'fast'"),
    ],
)
def test_limits_that_are_not(text: str, says: str) -> None:
    with pytest.raises(RecipeError, match=says):
        Limit.parse(text)


@given(st.sampled_from(["macs", "latency_ms"]), st.floats(1e-300, 1e300))
def test_the_text_of_a_limit_is_the_limit(metric: str, bound: float) -> None:
    assert Limit.parse(str(Limit(metric, bound))).bound == bound
    assert str(Limit("parameters", 41_480_123)) == "parameters=41480123"


def test_limits_or_their_texts_or_one_of_them() -> None:
    limit = Limit("macs", 2e6)
    assert as_limits([limit, "parameters=3k"]) == (limit, Limit.parse("parameters=3k"))
    assert as_limits(limit) == (limit,)
    assert as_limits("parameters=3k") == (Limit.parse("parameters=3k"),)


@pytest.mark.parametrize(
    ("metric", "bound"),
    [("top1", 0.5), ("macs", math.nan), ("macs", math.inf), ("macs", 0), ("macs", -1)],
)
def test_limits_that_cannot_be_made(metric: str, bound: float) -> None:
    with pytest.raises(RecipeError):
        Limit(metric, bound)


@given(metric=st.sampled_from(COST_METRICS), bound=st.floats(1e-6, 1e12))
def test_a_limit_reads_its_own_text(metric: str, bound: float) -> None:
    assert Limit.parse(f"{metric}={bound!r}").bound == bound


@given(
    metric=st.sampled_from(COST_METRICS),
    value=st.one_of(st.integers(1, 10**12), st.floats(1e-7, 1e9)),
)
def test_a_cost_holds_the_limit_that_it_spells(metric: str, value: float) -> None:
    bound = Limit.parse(f"{metric}={format_cost(metric, value)}").bound
    assert value <= bound <= 1.002 * value


def test_format_cost() -> None:
    assert [
        format_cost("macs", 41_476_224),
        format_cost("peak_memory_bytes", 256_000),
        format_cost("latency_ms", 0.25),
    ] == ["41.48M", "256kB", "250us"]
    assert [
        format_cost("parameters", 7),
        format_cost("energy_uj", 1.0),
        format_cost("area_mm2", 1e-9),
    ] == [
        "7",
        "1uJ",
        "0.001um2",
    ]


def objective(*limits: str, costs: tuple[str, ...] = ("latency_ms",)) -> Objective:
    return Objective(costs, as_limits(limits))


def test_violation_adds_relative_excess() -> None:
    tight = objective("latency_ms=1", "parameters=80", "macs=1000")
    assert tight.cost_violation(COST) == pytest.approx(1.0 + 0.25)
    assert objective().cost_violation(COST) == objective("latency=2ms").cost_violation(COST) == 0
    assert objective("latency=2ms", "macs=1M").admits(COST)
    assert not objective("latency=2ms", "macs=999").admits(COST)


def test_a_floor_of_the_accuracy_is_a_limit() -> None:
    both = objective("latency_ms=1", "accuracy=0.8")
    assert both.violation(candidate(0.8, 1.0)) == 0
    assert both.violation(candidate(0.6, 1.5)) == pytest.approx(0.5 + 0.25)
    assert both.admits(Cost(latency_ms=1.0))
    assert [both.satisfied(candidate(top1, 1.0)) for top1 in (0.79, 0.8)] == [False, True]
    assert both.front([candidate(0.79, 0.5), candidate(0.9, 0.9, 1)]) == [candidate(0.9, 0.9, 1)]


def test_a_metric_that_the_target_does_not_report() -> None:
    reports = r"reports no energy_uj, only latency_ms, parameters, macs"
    with pytest.raises(RecipeError, match=reports):
        objective("energy_uj=1").cost_violation(COST)
    with pytest.raises(RecipeError, match="reports no energy_uj"):
        objective(costs=("energy_uj",)).front([candidate(0.5, 1.0)])
    target: Any = SimpleNamespace(name="this CPU", metrics=("latency_ms", "parameters", "macs"))
    said = r"this CPU reports no energy_uj \(limit energy=3mJ\), only latency_ms, parameters, macs"
    with pytest.raises(RecipeError, match=said):
        objective("energy=3mJ", "latency=2ms").require_reported(target)
    with pytest.raises(RecipeError, match="this CPU reports no area_mm2, only"):
        objective(costs=("latency_ms", "area_mm2")).require_reported(target)
    objective("latency=2ms", "accuracy=90%", "macs=3M").require_reported(target)


@pytest.mark.parametrize(
    ("options", "says"),
    [
        ({"costs": ("speed",)}, "minimises cost metrics, received 'speed'"),
        ({"costs": ()}, "among its costs"),
        ({"minimise": "macs"}, "among its costs, received minimise='macs'"),
        ({"limits": as_limits(["macs=1M", "macs=2M"])}, "one limit, received macs=1M, macs=2M"),
    ],
)
def test_objectives_that_cannot_be_made(options: dict[str, Any], says: str) -> None:
    with pytest.raises(RecipeError, match=says):
        Objective(**options)


def test_which_network_is_chosen() -> None:
    networks = [(0.9, Cost(latency_ms=2.0, macs=5)), (0.8, Cost(latency_ms=1.0, macs=5))]
    networks += [(0.9, Cost(latency_ms=1.5, macs=9))]
    accurate = Objective(("latency_ms", "macs"))
    cheap = Objective(("latency_ms", "macs"), minimise="macs")
    assert min(networks, key=lambda one: accurate.preference(*one)) == networks[2]
    assert min(networks, key=lambda one: cheap.preference(*one)) == networks[0]
    assert [str(accurate), str(cheap)] == ["highest accuracy", "least macs"]
    assert str(objective("latency=2ms")) == "highest accuracy within latency=2ms"


@given(
    arrays.arrays(
        float,
        st.tuples(st.integers(0, 12), st.integers(1, 3)),
        elements=st.integers(0, 4).map(float),
    )
)
def test_non_dominated_by_brute_force(values: np.ndarray) -> None:
    def beaten(row: int) -> bool:
        return any((other <= values[row]).all() and (other < values[row]).any() for other in values)

    assert non_dominated(values).tolist() == [not beaten(row) for row in range(len(values))]


def test_the_front_leaves_out_failures_and_what_breaks_limits() -> None:
    good, cheap, worse, slow = (
        candidate(*worth, name)
        for name, worth in enumerate([(0.9, 2.0), (0.7, 1.0), (0.6, 1.5), (0.99, 5.0)])
    )
    broken = [
        Candidate(good.architecture, Failed("out of memory"), Cost(latency_ms=0.1)),
        Candidate(good.architecture, Accuracy(1, 1), Failed("no device")),
    ]
    assert [one.failure for one in broken] == ["out of memory", "no device"]
    assert good.failure is None
    within = objective("latency_ms=3").front([good, *broken, worse, slow, cheap])
    assert within == [cheap, good]
    assert objective().front([good, worse, slow, cheap]) == [cheap, good, slow]
    assert objective().front(broken) == []
    assert objective().values([good]).tolist() == [[-0.9, 2.0]]


def test_numbers_that_are_none() -> None:
    with pytest.raises(ValueError, match="received NaN"):
        Score(math.nan)
    unknown = candidate(0.5, math.nan)
    with pytest.raises(MeasurementError, match="latency_ms is NaN"):
        objective().front([candidate(0.4, 1.0), unknown])
    with pytest.raises(MeasurementError, match="latency_ms is NaN"):
        objective("latency=1ms").admits(unknown.known_cost)


@given(st.lists(st.tuples(st.integers(0, 4), st.integers(1, 4)), max_size=12))
def test_the_front_of_many_is_that_of_one_by_one(points: list[tuple[int, int]]) -> None:
    both = objective("latency=3ms", "accuracy=25%")
    networks = [candidate(top1 / 4, float(cost), row) for row, (top1, cost) in enumerate(points)]
    within = [one for one in networks if both.satisfied(one)]

    def beaten(one: Candidate) -> bool:
        mine = both.values([one])
        return any(
            (other <= mine).all() and (other < mine).any()
            for other in (both.values([rival]) for rival in within)
        )

    expected = [one for one in within if not beaten(one)]
    assert sorted(both.front(networks), key=networks.index) == expected


def test_equal_candidates_stay_together() -> None:
    twins = [candidate(0.5, 1.0, 1), candidate(0.5, 1.0, 2)]
    assert objective().front(twins) == twins


@given(st.lists(st.tuples(st.integers(0, 6), st.integers(0, 6)), max_size=8))
def test_hypervolume_by_counting_cells(points: list[tuple[int, int]]) -> None:
    cells = itertools.product(range(5), range(5))
    dominated = sum(any(a <= x and b <= y for a, b in points) for x, y in cells)
    assert hypervolume(np.array(points, dtype=float), (5, 5)) == dominated
