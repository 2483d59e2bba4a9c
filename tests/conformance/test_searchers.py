"""What every searcher promises, whatever its method."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import numpy as np
import pytest

from pliant.accuracy.predictor import AccuracyPredictor
from pliant.metrics import Accuracy, Cost
from pliant.objective import AccuracyEstimator, Candidate, Limit, holds, pareto_front
from pliant.search.evolution import EvolutionSearch
from pliant.search.explore import Searcher, explore
from pliant.search.linas import LinasSearch
from pliant.search.pareto import ParetoSearch
from pliant.search.random import RandomSearch
from pliant.spaces.architecture import Architecture
from pliant.spaces.space import Space

Make = Callable[[Space, int], Searcher]
LIMITS = [Limit("macs", 100_000)]


def guided(space: Space, seed: int) -> Searcher:
    return ParetoSearch(space, LIMITS, minimise=["macs"], population=16, seed=seed)


def random(space: Space, seed: int) -> Searcher:
    return RandomSearch(space, LIMITS, minimise=["macs"], batch=16, seed=seed)


def random_within(space: Space, seed: int) -> Searcher:
    return RandomSearch(
        space,
        LIMITS,
        minimise=["macs"],
        batch=16,
        seed=seed,
        cost_model=lambda found: [space.cost(one) for one in found],
    )


def predicted(space: Space, seed: int) -> Searcher:
    def fit(architectures: Sequence[Architecture], top1: np.ndarray) -> AccuracyEstimator:
        return AccuracyPredictor(space, architectures, top1)

    return LinasSearch(
        space,
        fit,
        lambda found: [space.cost(one) for one in found],
        LIMITS,
        minimise=["macs"],
        batch=16,
        candidates=100,
        seed=seed,
    )


def evolved(space: Space, seed: int) -> Searcher:
    return EvolutionSearch(
        space,
        lambda found: [space.cost(one) for one in found],
        LIMITS,
        population=16,
        batch=16,
        seed=seed,
    )


@pytest.fixture(params=[guided, random, random_within, predicted, evolved])
def make(request: pytest.FixtureRequest) -> Make:
    return request.param  # type: ignore[no-any-return]


@pytest.fixture
def evaluate(toy_space: Space) -> Callable[[Sequence[Architecture]], list[Candidate]]:
    def worth(architecture: Architecture) -> Candidate:
        cost = toy_space.cost(architecture)
        return Candidate(architecture, Accuracy(1 - 500 / (cost.parameters or 1), 100), cost)

    return lambda architectures: [worth(architecture) for architecture in architectures]


def test_it_repeats_under_a_seed(make: Make, toy_space: Space, evaluate: Callable) -> None:
    one, again, other = (explore(make(toy_space, seed), evaluate, 80) for seed in (1, 1, 2))
    assert one == again
    assert one != other


def test_it_asks_for_networks_of_the_space_once(
    make: Make, toy_space: Space, evaluate: Callable
) -> None:
    asked = [one.architecture for one in explore(make(toy_space, 0), evaluate, 100)]
    assert len(set(asked)) == len(asked)
    assert all(toy_space.parse(str(architecture)) == architecture for architecture in asked)


@pytest.mark.parametrize("budget", [1, 7, 16, 50])
def test_it_spends_what_it_was_given_and_no_more(
    make: Make, toy_space: Space, evaluate: Callable, budget: int
) -> None:
    assert len(explore(make(toy_space, 0), evaluate, budget)) == budget


def test_it_ends_when_the_space_is_spent(make: Make, toy_space: Space, evaluate: Callable) -> None:
    assert 50 < len(explore(make(toy_space, 0), evaluate, 10_000)) <= toy_space.size


def test_its_front_is_that_of_all_it_was_told(
    make: Make, toy_space: Space, evaluate: Callable
) -> None:
    searcher = make(toy_space, 0)
    assert searcher.front() == []
    history = explore(searcher, evaluate, 80)
    front = searcher.front()
    assert front == pareto_front(history, ["macs"], LIMITS)
    assert front
    assert all(holds(LIMITS, one.cost) for one in front if isinstance(one.cost, Cost))


def test_the_order_of_telling_does_not_matter(
    make: Make, toy_space: Space, evaluate: Callable
) -> None:
    def backwards(architectures: Sequence[Architecture]) -> list[Candidate]:
        return evaluate(architectures)[::-1]

    asked = [
        {one.architecture for one in explore(make(toy_space, 5), how, 80)}
        for how in (evaluate, backwards)
    ]
    assert asked[0] == asked[1]


def test_a_given_cost_model_keeps_random_search_within_the_limits(
    toy_space: Space, evaluate: Callable
) -> None:
    history = explore(random_within(toy_space, 0), evaluate, 60)
    assert len(history) == 60
    assert all(holds(LIMITS, one.cost) for one in history if isinstance(one.cost, Cost))
