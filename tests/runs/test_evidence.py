"""A claim holds by its interval, not by a point estimate; baselines count in both directions."""

from __future__ import annotations

import numpy as np
import pytest

from pliant.accuracy.ranking import rank_correlations
from pliant.metrics import Accuracy, Cost
from pliant.objective import Candidate, Objective
from pliant.runs.evidence import ranking_claims, search_claims
from pliant.spaces.presets import preset

SMALLEST = preset("digits", channels=1, image_size=8, classes=10).smallest()


def candidates(rng: np.random.Generator, number: int, gain: float) -> list[Candidate]:
    """Networks whose accuracy grows with their latency, `gain` above the others."""
    found = []
    for latency in rng.uniform(1, 10, number):
        top1 = 0.5 + 0.03 * latency + gain + 0.02 * rng.standard_normal()
        cost = Cost(latency_ms=float(latency), macs=int(100 * latency), parameters=1000)
        found.append(Candidate(SMALLEST, Accuracy(float(np.clip(top1, 0, 1)), 100), cost))
    return found


@pytest.mark.parametrize(
    ("gain", "number", "holds", "undecided"),
    [
        (0.15, 60, True, False),
        (0.0, 60, None, True),
        (-0.15, 60, False, False),
        (0.15, 6, None, True),
    ],
)
def test_search_beats_random_search_only_by_the_interval(
    gain: float, number: int, holds: bool | None, undecided: bool
) -> None:
    rng = np.random.default_rng(0)
    ours, random = candidates(rng, number, gain), candidates(rng, number, 0.0)
    [claim] = search_claims(ours, random, Objective(("latency_ms",)), seed=0)
    assert (claim.holds, claim.undecided) == (holds, undecided)
    assert bool(claim.advice) == (not holds)
    assert ("too few networks" in claim.how) == (number == 6)


def ranked(noise: float, sizes: np.ndarray, networks: int = 80):
    rng = np.random.default_rng(1)
    truth = rng.standard_normal(networks)
    predictor = truth + noise * rng.standard_normal(networks)
    scores = {
        "predictor": list(predictor),
        "parameters": list(sizes(truth)),
        "macs": [1.0] * networks,
    }
    return rank_correlations(list(truth), scores)


@pytest.mark.parametrize(
    ("noise", "sizes", "holds", "undecided"),
    [
        (0.1, lambda truth: truth + 2 * np.sin(50 * truth), True, False),
        (0.5, lambda truth: truth + 0.5 * np.sin(50 * truth), None, True),
        # The smaller network is the better one: its size, turned around, ranks better.
        (1.0, lambda truth: -truth, False, False),
    ],
)
def test_the_predictor_is_compared_with_size_in_both_directions(
    noise: float, sizes, holds: bool | None, undecided: bool
) -> None:
    ranking = ranked(noise, sizes)
    [claim] = ranking_claims(ranking)
    assert (claim.holds, claim.undecided) == (holds, undecided)
    assert bool(claim.advice) == (not holds)
    if holds is False:
        assert ranking[0].strongest_baseline == "fewer parameters"
        assert "fewer parameters" in claim.how


def test_infinity_ranks_last() -> None:
    [row] = rank_correlations([1.0, 2.0, 3.0, 4.0], {"score": [1.0, 2.0, 3.0, float("inf")]})
    assert row.failed == 1
    assert row.kendall.value == pytest.approx(0.0)
