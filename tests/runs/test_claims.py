"""Claims of a run by hand: the value, its bound, and on which side of it the verdict turns."""

from __future__ import annotations

import math
from dataclasses import replace

import numpy as np
import pytest

from pliant.deploy.verify import Agreement
from pliant.devices.interval import Interval
from pliant.metrics import Accuracy, Cost, DeliveredFile, Failed, Measured
from pliant.objective import Candidate, Limit, Objective
from pliant.report.summary import Baselines, NetworkResult, TargetFacts
from pliant.runs.evidence import (
    baseline_claims,
    confidence_claims,
    delivery_claims,
    fitted_predictor,
    hypervolumes,
    limit_claims,
    predictor_ranking,
    share_claim,
)
from pliant.spaces.space import Space
from pliant.targets import FunctionTarget

LATENCY = Objective(("latency_ms",), (Limit("latency_ms", 10.0),))
BOARD = TargetFacts("board", "1" * 12, ("latency_ms",), measured=True)
NETWORK = NetworkResult(
    architecture="a",
    estimate=Accuracy(0.9, 100),
    validated=Accuracy(0.8, 500),
    test=None,
    predicted=Cost(latency_ms=9.0, macs=1000, parameters=50),
    measured=None,
    command="pliant deploy",
)


def _found(space: Space, top1: float | None, latency_ms: float) -> Candidate:
    quality = Failed("x") if top1 is None else Accuracy(top1, 100)
    return Candidate(space.smallest(), quality, Cost(latency_ms=latency_ms))


def test_areas_are_over_errors_and_costs_as_shares_of_the_limit(toy_space: Space) -> None:
    """Worst accuracy 0.5 and limit 10 ms are the corner; 1 - errors / 0.5 by 1 - ms / 10."""
    ours = [_found(toy_space, 0.9, 5.0), _found(toy_space, 0.6, 2.5), _found(toy_space, None, 1)]
    random = [_found(toy_space, 0.5, 1.0), _found(toy_space, 0.75, 8.0)]
    first, second = hypervolumes(ours, random, LATENCY)
    assert first == pytest.approx(0.8 * 0.5 + 0.2 * 0.25)
    assert second == pytest.approx(0.5 * 0.2), "the worst accuracy adds nothing"
    beyond = [_found(toy_space, 0.99, 11.0)]
    assert hypervolumes(beyond, random, LATENCY)[0] == 0.0, "beyond the limit nothing counts"
    free = Objective(("latency_ms",))
    assert hypervolumes(ours, random, free)[0] == pytest.approx(0.8 * 0.375 + 0.2 * 0.3125)


@pytest.mark.parametrize(
    ("fp32", "int8", "images", "accurate", "whole"),
    [
        (0.95, 0.94, 1000, True, True),  # exactly a point; 0.95 - 0.94 is not quite 0.01
        (0.3, 0.29, 100, True, True),
        (0.95, 0.939, 1000, True, False),
        (0.94, 0.95, 1000, False, True),
        (0.95, 0.97, 1000, True, True),
    ],
)
def test_int8_may_lose_a_point_and_no_more(
    fp32: float, int8: float, images: int, accurate: bool, whole: bool
) -> None:
    files = [
        DeliveredFile(
            name=name,
            precision=precision,
            size_bytes=1,
            validated=Accuracy(top1, images),
            test=Accuracy(top1, images),
            measured=None,
            how="as it is",
        )
        for name, precision, top1 in (("a", "fp32", fp32), ("b", "int8", int8))
    ]
    source = Accuracy(fp32 if accurate else 0.9, images)
    claims = list(delivery_claims(Agreement(1e-7, 1e-7, 1e-3), source, files))
    assert [one.holds for one in claims] == [True, False, accurate, whole]
    assert claims[3].value == f"{int8:.2%} against {fp32:.2%}"


def test_a_network_is_compared_with_the_better_way_of_guessing() -> None:
    known = Baselines(0.1, Accuracy(0.8, 500), Accuracy(0.79, 500), "ImageNet at 64 pixels")
    guess, linear = baseline_claims(NETWORK, known)
    assert (guess.holds, guess.bound) == (False, "80.00%"), "as good as guessing is not better"
    assert (linear.holds, linear.value) == (True, "80.00% against 79.00%")
    [chance] = baseline_claims(NETWORK, Baselines(0.5, Accuracy(0.2, 500), None, None))
    assert (chance.holds, chance.bound) == (True, "50.00%")


def _measured(latency_ms: float) -> Measured:
    return Measured(Cost(latency_ms=latency_ms), Cost(latency_ms=0.1))


@pytest.mark.parametrize(
    ("changes", "value", "holds", "how"),
    [
        ({}, "9", True, "predicted by board"),
        ({"measured": _measured(10.5)}, "10.5", False, "together with the other networks"),
        (
            {"measured": _measured(10.5), "measured_apart": _measured(10.0)},
            "10",
            True,
            "in a subprocess",
        ),
        ({"measured": Measured(Cost(energy_uj=1.0), Cost())}, "9", True, "predicted by board"),
    ],
)
def test_a_limit_is_judged_by_the_best_known_value(changes, value, holds, how) -> None:
    [claim] = limit_claims(LATENCY, replace(NETWORK, **changes), BOARD)
    assert (claim.value, claim.bound, claim.holds) == (value, "10", holds)
    assert how in claim.how


def test_limits_on_accuracy_and_size_need_no_target() -> None:
    objective = Objective(("macs",), (Limit.parse("accuracy=80%"), Limit("macs", 999.0)))
    accuracy, macs = limit_claims(objective, NETWORK, replace(BOARD, measured=False))
    assert (accuracy.value, accuracy.holds) == ("0.8", True)
    assert (macs.value, macs.holds, macs.how) == ("1000", False, "computed from the layers")
    [latency] = limit_claims(LATENCY, NETWORK, replace(BOARD, measured=False))
    assert latency.how.endswith("this target is not measured")


class _Uncertain(FunctionTarget):
    """Errors of up to 20 %, of 19 networks."""

    def interval(self, metric: str) -> Interval | None:
        return Interval(tuple(np.log(np.linspace(0.82, 1.18, 19)))) if "ms" in metric else None


def test_bounds_at_a_confidence_are_counted_on_what_was_measured(toy_space: Space) -> None:
    target = _Uncertain(
        toy_space, function=lambda some: [Cost(latency_ms=1.0, energy_uj=1.0)] * len(some)
    )
    objective = Objective(("macs",), (Limit("latency_ms", 5), Limit("energy_uj", 5)))
    selected = {"latency_ms": [math.log(one) for one in (1.0, 1.17, 1.19, 1.3)], "energy_uj": [0.0]}
    [claim] = confidence_claims(objective, target, 0.95, selected)
    assert claim.value == "2 of 4 networks of the shortlist"
    assert "1.180 times the prediction, from errors on 19 networks" in claim.how
    assert not list(confidence_claims(objective, target, None, selected))
    assert not list(confidence_claims(objective, target, 0.95, {}))


def test_the_predictor_is_ranked_on_networks_that_it_never_saw(digits_space: Space) -> None:
    rng = np.random.default_rng(0)
    drawn = list(dict.fromkeys(digits_space.sample_choices(rng) for _ in range(60)))
    macs = np.array([digits_space.cost(one).metric("macs") for one in drawn])
    top1 = 0.5 + 0.4 * (macs - macs.min()) / np.ptp(macs)
    history = [
        Candidate(one, Accuracy(float(value), 100), digits_space.cost(one))
        for one, value in zip(drawn, top1, strict=True)
    ]
    assert fitted_predictor(digits_space, history[:9], 0) is None
    predictor = fitted_predictor(digits_space, history[:30], 0)
    ranking = predictor_ranking(digits_space, predictor, history[:30], history[20:], 0)
    found = {one.name: one for one in ranking}
    assert found["macs"].kendall is not None
    assert found["macs"].kendall.value == pytest.approx(1.0)
    assert {one.networks for one in ranking} == {len(drawn) - 30}, (
        "not the ten that it learned from"
    )
    assert predictor_ranking(digits_space, predictor, history[:30], history[:30], 0) == ()
    assert predictor_ranking(digits_space, None, [], history, 0) == ()
    assert share_claim(0.256).value == "26%"
