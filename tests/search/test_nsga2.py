"""NSGA-II over a space: the true front of a small space, limits and repeats."""

from __future__ import annotations

import itertools
from collections.abc import Sequence

import numpy as np
import pytest

from pliant.metrics import Accuracy, Cost, Failed, Quality
from pliant.objective import Candidate, CostModel, Limit, Objective
from pliant.pareto import hypervolume
from pliant.search.ask_tell import combined, run_search
from pliant.search.nsga2 import ParetoSearch
from pliant.search.random import RandomSearch
from pliant.spaces.architecture import Architecture
from pliant.spaces.presets import preset
from pliant.spaces.space import Space


class Made:
    """Accuracy as a saturating sum over options, so that no network is best at everything."""

    def __init__(self, space: Space, seed: int = 0) -> None:
        self.space = space
        self.weights = np.random.default_rng(seed).normal(
            0.3, 1, space.features([space.largest()]).shape[1] - 2
        )

    def estimate(self, architectures: Sequence[Architecture]) -> list[Quality]:
        return [
            Accuracy(float(top1), 100)
            for top1 in 0.5
            + 0.4 * np.tanh(self.space.features(architectures)[:, :-2] @ self.weights / 8)
        ]


def costs_of(space: Space) -> CostModel:
    def costs(architectures: Sequence[Architecture]) -> list[Cost | Failed]:
        return [space.cost(architecture) for architecture in architectures]

    return costs


ANY = Objective(("macs",))


def within(most: float) -> Objective:
    return Objective(("macs",), (Limit("macs", most),))


def search(
    space: Space, objective: Objective = ANY, evaluations: int = 240, population: int = 40
) -> list[Candidate]:
    """The front that is found."""
    searcher = ParetoSearch(space, objective, population=population, seed=0)
    evaluate = combined(Made(space), costs_of(space))
    return objective.front(run_search(searcher, evaluate, evaluations))


def everything(space: Space) -> list[Candidate]:
    networks = sorted(
        {
            space.decode(row)
            for row in itertools.product(*(range(len(choice.options)) for choice in space.choices))
        },
        key=str,
    )
    return combined(Made(space), costs_of(space))(networks)


def worth(front: Sequence[Candidate]) -> set[tuple[float, int | None]]:
    return {(round(one.value, 9), one.known_cost.macs) for one in front}


def area(front: Sequence[Candidate], most: float) -> float:
    return hypervolume(ANY.values(front), (0.0, most))


@pytest.mark.parametrize("share", [1.0, 0.5])
def test_the_true_front_of_a_small_space_is_found(toy_space: Space, share: float) -> None:
    most = share * (toy_space.cost(toy_space.largest()).macs or 0)
    truth = within(most).front(everything(toy_space))
    found = search(toy_space, within(most))
    assert len(worth(found) & worth(truth)) >= 0.9 * len(worth(truth))
    assert area(found, most) >= 0.995 * area(truth, most)


def test_a_tight_limit_is_reached_and_held() -> None:
    space = preset("mobile-32", channels=3, image_size=32, classes=10)
    tight = within(1.15 * (space.cost(space.smallest()).macs or 0))
    rng = np.random.default_rng(0)
    assert not any(tight.admits(space.cost(space.sample_choices(rng))) for _ in range(200))
    front = search(space, tight, evaluations=1500, population=100)
    assert len(front) > 1
    assert all(tight.satisfied(one) for one in front)
    [smallest] = Made(space).estimate([space.smallest()])
    assert max(one.value for one in front) > smallest.top1  # type: ignore[union-attr]


def test_it_beats_random_search_at_equal_cost() -> None:
    space = preset("ofa-mobilenetv3", channels=3, image_size=224, classes=10)
    most = float(space.cost(space.largest()).macs or 0)
    random = run_search(RandomSearch(space, ANY), combined(Made(space), costs_of(space)), 1500)
    found = search(space, evaluations=1500, population=100)
    assert area(found, most) > 1.02 * area(ANY.front(random), most)


def test_what_the_caller_knows_is_looked_at_first(toy_space: Space) -> None:
    known = toy_space.sample(np.random.default_rng(7))
    asked = ParetoSearch(toy_space, ANY, population=10, start=[known]).ask(10)
    assert asked[:3] == [toy_space.smallest(), toy_space.largest(), known]


def test_failed_candidates_have_no_descendants() -> None:
    space = preset("mobile-32", channels=3, image_size=32, classes=10)

    class LargeFails(Made):
        def estimate(self, architectures: Sequence[Architecture]) -> list[Quality]:
            rows = zip(architectures, super().estimate(architectures), strict=True)
            return [Failed("too large") if one["r"] == 32 else right for one, right in rows]

    searcher = ParetoSearch(space, ANY, population=50)
    history = run_search(searcher, combined(LargeFails(space), costs_of(space)), 500)
    failed = [one.failure == "too large" for one in history]
    assert np.mean(failed[:50]) > 0.2
    assert 0 < np.mean(failed[100:]) < 0.1


def test_nothing_but_failures_is_survived(toy_space: Space) -> None:
    def fails(architectures: Sequence[Architecture]) -> list[Candidate]:
        return [Candidate(one, Failed("no"), toy_space.cost(one)) for one in architectures]

    history = run_search(ParetoSearch(toy_space, ANY, population=20), fails, 100)
    assert len(history) == 100
    assert ANY.front(history) == []


def test_tell_wants_all_that_was_asked(toy_space: Space) -> None:
    searcher = ParetoSearch(toy_space, ANY, population=10)
    searcher.ask(10)
    with pytest.raises(ValueError, match="missing"):
        searcher.tell([])
