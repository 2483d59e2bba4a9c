"""Limits at a confidence: lowered by the interval of a target's predictions, or refused by name."""

from __future__ import annotations

import math
import re

import numpy as np
import pytest

from pliant.devices.interval import Interval
from pliant.errors import InfeasibleError, MeasurementError, RecipeError
from pliant.metrics import Cost
from pliant.objective import Limit, Objective
from pliant.search.confidence import confident_objective
from pliant.search.feasible import check_feasible
from pliant.spaces.presets import preset
from pliant.targets import Arithmetic, FunctionTarget

SPACE = preset("digits", channels=1, image_size=8, classes=10)
ERRORS = tuple(np.log(np.linspace(0.81, 1.19, 39)))


class Uncertain(FunctionTarget):
    """Predicts latency and energy; only the latency has an interval."""

    def interval(self, metric: str) -> Interval | None:
        return Interval(ERRORS) if metric == "latency_ms" else None


def costs(architectures):
    return [Cost(latency_ms=1.0, energy_uj=2.0) for _ in architectures]


TARGET = Uncertain(SPACE, function=costs)


def objective(*limits: str) -> Objective:
    return Objective(("latency_ms",), tuple(map(Limit.parse, limits)))


def test_a_limit_is_divided_by_the_factor_and_others_stay():
    asked = objective("latency_ms=8", "parameters=1M", "accuracy=90%")
    latency, *others = confident_objective(asked, TARGET, 0.95).limits
    # Rank ceil(40 * 0.95) = 38 of 39 errors.
    assert latency.bound == pytest.approx(8 / 1.18)
    assert str(latency) == "latency_ms=8 at confidence 0.95"
    assert others == list(asked.limits[1:])
    assert confident_objective(asked, TARGET, None) is asked


def test_the_limit_that_a_refusal_advises_is_met_at_that_confidence():
    def check(text: str) -> float:
        confident = confident_objective(objective(text), TARGET, 0.95)
        return check_feasible(SPACE, confident, TARGET.predict, np.random.default_rng(0), 8).share

    with pytest.raises(InfeasibleError, match=r"at confidence 0\.95") as refusal:
        check("latency_ms=1.1")
    found = re.search(r"Raise latency_ms to at least (\S+),", str(refusal.value))
    assert found is not None
    assert Limit.parse(f"latency={found[1]}").bound == pytest.approx(1.18, rel=1e-3)
    assert check(f"latency={found[1]}") == 1


def test_a_limit_is_never_raised():
    [low] = confident_objective(objective("latency_ms=8"), TARGET, 0.1).limits
    assert low.bound == 8


def test_the_measured_shortlist_recalibrates():
    selected = {"latency_ms": [math.log(1.2)] * 3}
    [low] = confident_objective(objective("latency_ms=8"), TARGET, 0.9, selected).limits
    [before] = confident_objective(objective("latency_ms=8"), TARGET, 0.9).limits
    assert low.bound == pytest.approx(before.bound / 1.2, rel=0.03)


def test_what_has_no_interval_is_named():
    with pytest.raises(RecipeError, match=r"costs .* predicts energy_uj without one"):
        confident_objective(objective("energy_uj=3"), TARGET, 0.95)
    plain = FunctionTarget(SPACE, function=costs)
    with pytest.raises(RecipeError, match="predicts latency_ms without one"):
        confident_objective(objective("latency_ms=3"), plain, 0.95)


def test_too_few_networks_and_no_limit_are_refused():
    with pytest.raises(MeasurementError, match=r"latency_ms of costs .* at least 99 networks"):
        confident_objective(objective("latency_ms=3"), TARGET, 0.99)
    for limits in ((), ("macs=3M",)):
        with pytest.raises(RecipeError, match="limits on metrics that a target predicts"):
            confident_objective(objective(*limits), Arithmetic(SPACE), 0.95)
    with pytest.raises(RecipeError, match="above 0 and below 1, received 95"):
        confident_objective(objective("latency_ms=3"), TARGET, 95)
