"""NSGA-II over a space: against the true front of a small space, and what it promises about limits and repeats."""

from __future__ import annotations

import itertools
from collections.abc import Sequence

import numpy as np
import pytest

from pliant.metrics import Accuracy, Cost, Failed
from pliant.objective import Candidate, Limit, holds, pareto_front
from pliant.pareto import hypervolume_2d
from pliant.search.explore import explore, joined
from pliant.search.pareto import ParetoSearch
from pliant.search.random import RandomSearch
from pliant.spaces.architecture import Architecture
from pliant.spaces.presets import preset
from pliant.spaces.space import Space


class Made:
    """A made-up accuracy: additive over options with a saturating sum, so that no network is best at everything."""

    def __init__(self, space: Space, seed: int = 0) -> None:
        self.space = space
        self.weights = np.random.default_rng(seed).normal(
            0.3, 1, space.features([space.largest()]).shape[1] - 2
        )

    def __call__(self, architectures: Sequence[Architecture]) -> list[Accuracy | Failed]:
        return [
            Accuracy(float(top1), 100)
            for top1 in 0.5
            + 0.4 * np.tanh(self.space.features(architectures)[:, :-2] @ self.weights / 8)
        ]


def costs(space: Space, architectures: Sequence[Architecture]) -> list[Cost | Failed]:
    return [space.cost(architecture) for architecture in architectures]


def search(
    space: Space,
    limits: Sequence[Limit] = (),
    evaluations: int = 240,
    seed: int = 0,
    population: int = 40,
) -> ParetoSearch:
    searcher = ParetoSearch(space, limits, minimise=["macs"], population=population, seed=seed)
    explore(
        searcher,
        joined(Made(space), lambda architectures: costs(space, architectures)),
        evaluations,
    )
    return searcher


def everything(space: Space) -> list[Candidate]:
    networks = sorted(
        {
            space.decode(row)
            for row in itertools.product(*(range(len(choice.options)) for choice in space.choices))
        },
        key=str,
    )
    return joined(Made(space), lambda architectures: costs(space, architectures))(networks)


def worth(front: Sequence[Candidate]) -> set[tuple[float, int | None]]:
    return {(round(one.top1, 9), one.cost.macs) for one in front if isinstance(one.cost, Cost)}


def area(front: Sequence[Candidate], most: float) -> float:
    return hypervolume_2d(
        np.array([(-one.top1, one.cost.macs) for one in front if isinstance(one.cost, Cost)]),
        (0.0, most),
    )


@pytest.mark.parametrize("share", [1.0, 0.5])
def test_the_true_front_of_a_small_space_is_found(toy_space: Space, share: float) -> None:
    limit = Limit("macs", share * (toy_space.cost(toy_space.largest()).macs or 0))
    truth = pareto_front(everything(toy_space), ["macs"], [limit])
    found = search(toy_space, [limit]).front()
    assert len(worth(found) & worth(truth)) >= 0.9 * len(worth(truth))
    assert area(found, limit.at_most) >= 0.995 * area(truth, limit.at_most)


def test_a_tight_limit_is_reached_and_held() -> None:
    space = preset("mobile-32", channels=3, image_size=32, classes=10)
    tight = [Limit("macs", 1.15 * (space.cost(space.smallest()).macs or 0))]
    rng = np.random.default_rng(0)
    assert not any(holds(tight, space.cost(space.sample_choices(rng))) for _ in range(200))
    front = search(space, tight, evaluations=1500, population=100).front()
    assert len(front) > 1
    assert all(holds(tight, one.cost) for one in front if isinstance(one.cost, Cost))
    assert max(one.top1 for one in front) > Made(space)([space.smallest()])[0].top1  # type: ignore[union-attr]


def test_it_beats_random_search_at_equal_cost() -> None:
    space = preset("ofa-mobilenetv3", channels=3, image_size=224, classes=10)
    most = float(space.cost(space.largest()).macs or 0)
    evaluate = joined(Made(space), lambda architectures: costs(space, architectures))
    random = RandomSearch(space, minimise=["macs"])
    explore(random, evaluate, 1500)
    assert area(search(space, evaluations=1500, population=100).front(), most) > 1.02 * area(
        random.front(), most
    )


def test_what_the_caller_knows_is_looked_at_first(toy_space: Space) -> None:
    known = toy_space.sample(np.random.default_rng(7))
    asked = ParetoSearch(toy_space, population=10, start=[known]).ask(10)
    assert asked[:3] == [toy_space.smallest(), toy_space.largest(), known]


def test_failed_candidates_have_no_descendants() -> None:
    space = preset("mobile-32", channels=3, image_size=32, classes=10)

    def large_fails(architectures: Sequence[Architecture]) -> list[Accuracy | Failed]:
        results = Made(space)(architectures)
        return [
            Failed("too large") if one["r"] == 32 else right
            for one, right in zip(architectures, results, strict=True)
        ]

    searcher = ParetoSearch(space, minimise=["macs"], population=50)
    history = explore(
        searcher, joined(large_fails, lambda architectures: costs(space, architectures)), 500
    )
    failed = [one.failure == "too large" for one in history]
    assert np.mean(failed[:50]) > 0.2
    assert 0 < np.mean(failed[100:]) < 0.1
    assert all(one.failure is None for one in searcher.front())


def test_nothing_but_failures_is_survived(toy_space: Space) -> None:
    searcher = ParetoSearch(toy_space, minimise=["macs"], population=20)
    fails = joined(
        lambda architectures: [Failed("no")] * len(architectures),
        lambda architectures: costs(toy_space, architectures),
    )
    assert len(explore(searcher, fails, 100)) == 100
    assert searcher.front() == []


def test_tell_wants_all_that_was_asked(toy_space: Space) -> None:
    searcher = ParetoSearch(toy_space, population=10)
    searcher.ask(10)
    with pytest.raises(ValueError, match="missing"):
        searcher.tell([])
