"""Search by refitted predictions beats random and plain evolution at equal evaluations."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import pytest
from scipy import stats

from pliant.accuracy.predictor import AccuracyPredictor
from pliant.metrics import Accuracy, Cost, Failed
from pliant.objective import AccuracyEstimator, Candidate, Limit, Objective
from pliant.pareto import hypervolume
from pliant.search.ask_tell import Searcher, run_search
from pliant.search.linas import LinasSearch, select_diverse
from pliant.search.nsga2 import ParetoSearch
from pliant.search.random import RandomSearch
from pliant.spaces.architecture import Architecture
from pliant.spaces.presets import preset

SPACE = preset("mobile-32", channels=3, image_size=32, classes=10)
WEIGHTS = np.random.default_rng(0).normal(0.1, 1.0, SPACE.features([SPACE.largest()]).shape[1] - 2)


def fit(architectures: Sequence[Architecture], top1: np.ndarray) -> AccuracyEstimator:
    return AccuracyPredictor(SPACE, architectures, top1)


def cost(architectures: Sequence[Architecture]) -> list[Cost | Failed]:
    return [SPACE.cost(architecture) for architecture in architectures]


def evaluate(architectures: Sequence[Architecture]) -> list[Candidate]:
    top1 = 0.7 + 0.1 * np.tanh(SPACE.features(architectures)[:, :-2] @ WEIGHTS / 8)
    return [
        Candidate(one, Accuracy(float(right), 100), SPACE.cost(one))
        for one, right in zip(architectures, top1, strict=True)
    ]


ANY = Objective(("macs",))


def linas(objective: Objective = ANY, **options: int) -> LinasSearch:
    settings = {"batch": 50, "candidates": 3000} | options
    return LinasSearch(SPACE, objective, cost, fit=fit, **settings)


def test_it_beats_random_and_plain_evolution_at_equal_evaluations() -> None:
    objective = Objective(("macs",), (Limit.parse("macs=6M"),))

    def area(searcher: Searcher) -> float:
        history = run_search(searcher, evaluate, 200)
        assert len(history) == 200
        return hypervolume(objective.values(objective.front(history)), (-0.6, 6e6))

    others = (
        RandomSearch(SPACE, objective, cost),
        ParetoSearch(SPACE, objective, population=50),
    )
    assert area(linas(objective)) > 1.02 * max(area(other) for other in others)


def test_what_it_predicted_stands_beside_what_was_found() -> None:
    searcher = linas()
    history = run_search(searcher, evaluate, 150)
    assert searcher.rounds == 3
    assert set(searcher.predicted) == {one.architecture for one in history[50:]}
    found = [one.value for one in history[50:]]
    assert (
        stats.kendalltau(
            found, [searcher.predicted[one.architecture] for one in history[50:]]
        ).statistic
        > 0.6
    )


def test_after_the_first_round_only_networks_within_the_limits_are_asked_for() -> None:
    objective = Objective(("macs",), (Limit.parse("macs=5M"),))
    history = run_search(linas(objective), evaluate, 120)
    within = [objective.admits(one.known_cost) for one in history]
    assert all(within[50:])
    assert 25 <= sum(within[:50]) < 50


def test_failures_are_asked_for_once_and_learned_from_by_nobody() -> None:
    def some_fail(architectures: Sequence[Architecture]) -> list[Candidate]:
        return [
            Candidate(one.architecture, Failed("no"), one.cost)
            if one.architecture["r"] == 32
            else one
            for one in evaluate(architectures)
        ]

    history = run_search(linas(candidates=500), some_fail, 150)
    assert len({one.architecture for one in history}) == len(history) == 150
    assert (
        len(
            run_search(
                linas(batch=2),
                lambda found: [Candidate(one, Failed("no"), Failed("no")) for one in found],
                12,
            )
        )
        == 12
    )


@pytest.mark.parametrize("wanted", [0, 1, 3, 4, 6, 20])
def test_select_diverse(wanted: int) -> None:
    def made(top1: float, macs: int) -> Candidate:
        return Candidate(Architecture((("r", macs),)), Accuracy(top1, 1), Cost(macs=macs))

    front = [made(0.1 * number, number) for number in range(1, 6)]
    behind = [made(0.1 * number - 0.05, number + 10) for number in (2, 5)]
    expected = {
        0: [],
        1: front[:1],
        3: [front[0], front[2], front[4]],
        4: [front[0], front[1], front[3], front[4]],
    }
    expected |= {6: [*front, behind[0]], 20: [*front, *behind]}
    assert select_diverse([*behind, *front[::-1]], Objective(("macs",)), wanted) == expected[wanted]
