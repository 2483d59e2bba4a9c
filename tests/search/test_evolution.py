"""Evolution climbs, keeps limits before evaluating, and begins alike whatever its budget."""

from __future__ import annotations

import numpy as np
import pytest

from pliant.errors import MeasurementError
from pliant.metrics import Failed, Score
from pliant.objective import Candidate, Limit, Objective
from pliant.search.ask_tell import run_search
from pliant.search.evolution import EvolutionSearch, depth, no_deeper
from pliant.search.feasible import check_feasible
from pliant.search.random import RandomSearch
from pliant.spaces.presets import preset
from pliant.workload import Layer, Workload

WITHIN = Objective(("macs",), (Limit("macs", 60_000),))
ANY = Objective(("macs",))


@pytest.fixture
def costs(toy_space):
    return lambda architectures: [toy_space.cost(one) for one in architectures]


@pytest.fixture
def evaluate(toy_space):
    """Worth that parameters do not tell: close to a chosen size."""

    def worth(architecture):
        cost = toy_space.cost(architecture)
        return Candidate(architecture, Score(-abs(cost.parameters - 2000.0)), cost)

    return lambda architectures: [worth(architecture) for architecture in architectures]


def test_only_networks_within_the_limits_are_evaluated(toy_space, costs, evaluate):
    history = run_search(EvolutionSearch(toy_space, WITHIN, costs, batch=8), evaluate, 100)
    assert history
    assert all(WITHIN.admits(one.cost) for one in history)


def test_it_climbs_faster_than_chance():
    space = preset("mobile-32", channels=3, image_size=32, classes=10)
    costs = lambda architectures: [space.cost(one) for one in architectures]  # noqa: E731
    objective = Objective(("macs",), (Limit("macs", 3e6),))

    def evaluate(architectures):
        return [
            Candidate(one, Score(float(space.cost(one).parameters)), space.cost(one))
            for one in architectures
        ]

    def best(searcher):
        return max(one.value for one in run_search(searcher, evaluate, 800))

    assert best(EvolutionSearch(space, objective, costs, population=16)) > best(
        RandomSearch(space, objective, costs)
    )


@pytest.mark.parametrize("budget", [5, 20, 33])
def test_a_smaller_budget_is_the_beginning_of_a_larger_one(toy_space, costs, evaluate, budget):
    short, long = (
        run_search(EvolutionSearch(toy_space, WITHIN, costs, batch=8, seed=3), evaluate, spent)
        for spent in (budget, 60)
    )
    assert short == long[:budget]


def test_what_failed_has_no_descendants(toy_space, costs, evaluate):
    def broken(architectures):
        return [
            Candidate(one.architecture, Failed("broken"), one.cost)
            if one.architecture["r"] == 8
            else one
            for one in evaluate(architectures)
        ]

    searcher = EvolutionSearch(toy_space, ANY, costs, batch=8)
    history = run_search(searcher, broken, 80)
    assert any(one.failure for one in history)
    assert all(one.failure is None for one in searcher._members)


def test_depth_is_the_longest_way():
    workload = Workload(
        (
            Layer("stem", "conv", ("image",)),
            Layer("long1", "conv", ("stem",)),
            Layer("long2", "conv", ("long1",)),
            Layer("short", "conv", ("stem",)),
            Layer("add", "elementwise", ("long2", "short")),
            Layer("classifier", "matmul", ("add",)),
        ),
        input_elements=1,
    )
    assert depth(workload) == 4


def test_a_cap_on_depth_is_a_limit_like_any_other(toy_space, costs, evaluate):
    capped = no_deeper(toy_space, costs, 5)
    history = run_search(EvolutionSearch(toy_space, ANY, capped, batch=8), evaluate, 60)
    depths = [depth(toy_space.lower(one.architecture)) for one in history]
    assert max(depths) == 5
    assert (
        depth(
            toy_space.lower(
                check_feasible(toy_space, ANY, capped, np.random.default_rng(0)).example
            )
        )
        <= 5
    )
    with pytest.raises(MeasurementError, match="at most 1 are wanted"):
        check_feasible(toy_space, ANY, no_deeper(toy_space, costs, 1), np.random.default_rng(0))
