"""What every searcher promises, whatever its method."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path

import pytest

from pliant.metrics import Accuracy, Cost, Failed
from pliant.objective import Candidate, CostModel, Limit, Objective
from pliant.record import Record
from pliant.search.ask_tell import Searcher, memoized, run_search
from pliant.search.evolution import EvolutionSearch
from pliant.search.linas import LinasSearch
from pliant.search.nsga2 import ParetoSearch
from pliant.search.random import RandomSearch
from pliant.search.registry import SEARCHERS, SearchOptions, make_searcher
from pliant.spaces.architecture import Architecture
from pliant.spaces.space import Space

Make = Callable[[Space, int], Searcher]
OBJECTIVE = Objective(("macs",), (Limit("macs", 100_000),))


def costs_of(space: Space) -> CostModel:
    def costs(architectures: Sequence[Architecture]) -> list[Cost | Failed]:
        return [space.cost(one) for one in architectures]

    return costs


def registered(name: str) -> Make:
    """A searcher as a recipe names it."""
    options = SearchOptions(evaluations=80, rounds=5, candidates=100)

    def make(space: Space, seed: int) -> Searcher:
        return make_searcher(name, space, OBJECTIVE, costs_of(space), replace(options, seed=seed))

    return make


def random_anywhere(space: Space, seed: int) -> Searcher:
    return RandomSearch(space, OBJECTIVE, batch=16, seed=seed)


def small_population(space: Space, seed: int) -> Searcher:
    return ParetoSearch(space, OBJECTIVE, population=16, seed=seed)


# A new searcher is a line of the registry; one that has no name in recipes is a line here.
MAKERS = {name: registered(name) for name in SEARCHERS} | {
    "random anywhere": random_anywhere,
    "small population": small_population,
}


@pytest.mark.parametrize(
    "searcher",
    [EvolutionSearch, LinasSearch, ParetoSearch, RandomSearch],
    ids=lambda one: one.__name__,
)
def test_constructors_share_one_order(searcher: type) -> None:
    parameters = list(inspect.signature(searcher).parameters.values())
    assert [one.name for one in parameters[:3]] == ["space", "objective", "costs"]
    assert all(one.kind is one.KEYWORD_ONLY for one in parameters[3:])
    assert "seed" in [one.name for one in parameters]


@pytest.fixture(params=MAKERS)
def make(request: pytest.FixtureRequest) -> Make:
    return MAKERS[request.param]


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


def test_it_survives_failures_and_asks_for_none_of_them_again(
    make: Make, toy_space: Space, evaluate: Callable
) -> None:
    def some_fail(architectures: Sequence[Architecture]) -> list[Candidate]:
        failed = Failed("no kernel")
        return [
            Candidate(one.architecture, failed, failed if one.architecture["r"] == 4 else one.cost)
            if one.architecture["r"] in (4, 6)
            else one
            for one in evaluate(architectures)
        ]

    history = run_search(make(toy_space, 0), some_fail, 60)
    assert len({one.architecture for one in history}) == len(history) == 60
    assert any(one.failure for one in history)
    assert all(one.failure is None for one in OBJECTIVE.front(history))


def test_it_survives_nothing_but_failures(make: Make, toy_space: Space) -> None:
    def all_fail(architectures: Sequence[Architecture]) -> list[Candidate]:
        return [Candidate(one, Failed("no"), Failed("no")) for one in architectures]

    history = run_search(make(toy_space, 0), all_fail, 40)
    assert len(history) == 40
    assert OBJECTIVE.front(history) == []


def test_it_resumes_from_the_record_without_evaluating_again(
    make: Make, toy_space: Space, evaluate: Callable, tmp_path: Path
) -> None:
    evaluated: list[Architecture] = []

    def dies_at_30(architectures: Sequence[Architecture]) -> list[Candidate]:
        if len(evaluated) >= 30:
            raise KeyboardInterrupt
        return counted(architectures)

    def counted(architectures: Sequence[Architecture]) -> list[Candidate]:
        evaluated.extend(architectures)
        return evaluate(architectures)

    expected = run_search(make(toy_space, 3), evaluate, 60)
    with Record.open(tmp_path / "record.sqlite", recipe_digest="one") as record:
        with pytest.raises(KeyboardInterrupt):
            run_search(make(toy_space, 3), memoized(dies_at_30, record, stage="estimate"), 60)
        assert (
            run_search(make(toy_space, 3), memoized(counted, record, stage="estimate"), 60)
            == expected
        )
    assert len(evaluated) == len(set(evaluated)) == 60


@pytest.mark.parametrize("name", ["evolution", "random"])
def test_known_costs_keep_it_within_the_limits(
    toy_space: Space, evaluate: Callable, name: str
) -> None:
    history = run_search(MAKERS[name](toy_space, 0), evaluate, 60)
    assert len(history) == 60
    assert all(OBJECTIVE.satisfied(one) for one in history)
