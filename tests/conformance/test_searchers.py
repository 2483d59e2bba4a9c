"""What every searcher promises, whatever its method."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import numpy as np
import pytest

from pliant.accuracy.predictor import AccuracyPredictor
from pliant.metrics import Accuracy, Cost, Failed
from pliant.objective import AccuracyEstimator, Candidate, CostModel, Limit, Objective
from pliant.search.ask_tell import Searcher, run_search
from pliant.search.evolution import EvolutionSearch
from pliant.search.linas import LinasSearch
from pliant.search.pareto import ParetoSearch
from pliant.search.random import RandomSearch
from pliant.spaces.architecture import Architecture
from pliant.spaces.space import Space

Make = Callable[[Space, int], Searcher]
OBJECTIVE = Objective(("macs",), (Limit("macs", 100_000),))


def costs_of(space: Space) -> CostModel:
    def costs(architectures: Sequence[Architecture]) -> list[Cost | Failed]:
        return [space.cost(one) for one in architectures]

    return costs


def guided(space: Space, seed: int) -> Searcher:
    return ParetoSearch(space, OBJECTIVE, population=16, seed=seed)


def random(space: Space, seed: int) -> Searcher:
    return RandomSearch(space, OBJECTIVE, batch=16, seed=seed)


def random_within(space: Space, seed: int) -> Searcher:
    return RandomSearch(space, OBJECTIVE, costs_of(space), batch=16, seed=seed)


def predicted(space: Space, seed: int) -> Searcher:
    def fit(architectures: Sequence[Architecture], top1: np.ndarray) -> AccuracyEstimator:
        return AccuracyPredictor(space, architectures, top1)

    return LinasSearch(space, OBJECTIVE, costs_of(space), fit, batch=16, candidates=100, seed=seed)


def evolved(space: Space, seed: int) -> Searcher:
    return EvolutionSearch(space, OBJECTIVE, costs_of(space), population=16, batch=16, seed=seed)


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
    one, again, other = (run_search(make(toy_space, seed), evaluate, 80) for seed in (1, 1, 2))
    assert one == again
    assert one != other


def test_it_asks_for_networks_of_the_space_once(
    make: Make, toy_space: Space, evaluate: Callable
) -> None:
    asked = [one.architecture for one in run_search(make(toy_space, 0), evaluate, 100)]
    assert len(set(asked)) == len(asked)
    assert all(toy_space.parse(str(architecture)) == architecture for architecture in asked)


@pytest.mark.parametrize("budget", [1, 7, 16, 50])
def test_it_spends_what_it_was_given_and_no_more(
    make: Make, toy_space: Space, evaluate: Callable, budget: int
) -> None:
    assert len(run_search(make(toy_space, 0), evaluate, budget)) == budget


def test_it_ends_when_the_space_is_spent(make: Make, toy_space: Space, evaluate: Callable) -> None:
    assert 50 < len(run_search(make(toy_space, 0), evaluate, 10_000)) <= toy_space.size


def test_the_front_of_its_history_is_within_the_limits(
    make: Make, toy_space: Space, evaluate: Callable
) -> None:
    front = OBJECTIVE.front(run_search(make(toy_space, 0), evaluate, 80))
    assert front
    assert all(OBJECTIVE.satisfied(one) for one in front)


def test_the_order_of_telling_does_not_matter(
    make: Make, toy_space: Space, evaluate: Callable
) -> None:
    def backwards(architectures: Sequence[Architecture]) -> list[Candidate]:
        return evaluate(architectures)[::-1]

    asked = [
        {one.architecture for one in run_search(make(toy_space, 5), how, 80)}
        for how in (evaluate, backwards)
    ]
    assert asked[0] == asked[1]


def test_a_given_cost_model_keeps_random_search_within_the_limits(
    toy_space: Space, evaluate: Callable
) -> None:
    history = run_search(random_within(toy_space, 0), evaluate, 60)
    assert len(history) == 60
    assert all(OBJECTIVE.satisfied(one) for one in history)
