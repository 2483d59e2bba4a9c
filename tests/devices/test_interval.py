"""Intervals: the quantile of Vovk et al., its coverage, and what selection adds."""

import math

import numpy as np
import pytest

from pliant.devices.interval import Interval, log_errors
from pliant.errors import MeasurementError, RecipeError


def test_the_quantile_is_the_ceiling_of_n_plus_one():
    interval = Interval(tuple(math.log(1 + 0.01 * rank) for rank in range(1, 20)))
    assert interval.upper_factor(0.95) == pytest.approx(1.19)  # rank ceil(20 * 0.95) = 19 of 19
    assert interval.upper_factor(0.5) == pytest.approx(1.10)
    assert interval.factor(0.9) == pytest.approx(1.18)


def test_too_few_networks_are_refused_with_how_many_it_takes():
    interval = Interval((0.1,) * 18)
    with pytest.raises(MeasurementError, match="at least 19 networks, there are 18"):
        interval.upper_factor(0.95)
    assert Interval((0.1,) * 19).upper_factor(0.95) == pytest.approx(math.exp(0.1))
    with pytest.raises(MeasurementError, match="there are 0"):
        Interval(()).factor(0.5)


def test_each_network_is_covered_by_the_errors_of_the_others():
    interval = Interval(tuple(np.random.default_rng(0).normal(size=200)))
    assert interval.coverage(0.9) == pytest.approx(0.9, abs=0.015)
    assert [Interval((0.1,) * n).is_enough_for(0.9) for n in (8, 9)] == [False, True]


@pytest.mark.parametrize("confidence", [0, 1, -0.1, 95, math.nan])
def test_a_confidence_is_a_share(confidence):
    with pytest.raises(RecipeError, match="above 0 and below 1"):
        Interval((0.1,) * 50).factor(confidence)


def test_coverage_is_what_was_asked_for():
    rng = np.random.default_rng(0)
    for confidence in (0.5, 0.9, 0.95):
        covered, below = [], []
        for _ in range(100):
            interval = Interval(tuple(rng.standard_t(3, size=100)))
            errors = rng.standard_t(3, size=1000)
            covered.append(np.mean(np.abs(errors) <= math.log(interval.factor(confidence))))
            below.append(np.mean(errors <= math.log(interval.upper_factor(confidence))))
        assert np.mean(covered) == pytest.approx(confidence, abs=0.02)
        assert np.mean(below) == pytest.approx(confidence, abs=0.02)


def test_selected_networks_widen_an_interval_and_never_narrow_it():
    interval = Interval(tuple(np.linspace(-0.1, 0.1, 41)))
    worse = interval.recalibrated([0.2, 0.25, 0.3])
    assert worse.upper_factor(0.9) == pytest.approx(
        interval.upper_factor(0.9) * math.exp(0.25), 0.02
    )
    assert interval.recalibrated([-0.5]).upper_factor(0.9) >= interval.upper_factor(0.85)
    assert interval.recalibrated([]) is interval
    assert worse.networks == 44


def test_errors_are_logarithms_of_ratios():
    assert log_errors([2.0, 1.0], [1.0, 1.0]) == (pytest.approx(math.log(2)), 0.0)
