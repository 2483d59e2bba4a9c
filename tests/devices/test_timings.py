"""The statistics of timings, on timings that were made up, so that no clock decides a test."""

from __future__ import annotations

import numpy as np
import pytest

from pliant.devices.timings import (
    Settings,
    Timings,
    detrend,
    has_converged,
    reference_time,
    require_repeatable,
    summarise,
    timings_of,
)
from pliant.errors import MeasurementError

ONE = Settings()
TWO = Settings(threads=2)


def timings(cpu_us, wall_us=None, preempted=0.0, repeats=1) -> Timings:
    cpu = np.atleast_2d(np.array(cpu_us, dtype=float))
    wall = cpu if wall_us is None else np.atleast_2d(np.array(wall_us, dtype=float))
    return Timings(cpu, wall, np.full(cpu.shape, preempted), repeats)


def test_an_estimate_by_hand():
    found = summarise(timings([[3, 2, 9], [4, 5, 6], [8, 7, 7], [1, 2, 3]], repeats=10), ONE)
    # Minimum of each round: 2, 4, 7, 1; median 3; even rounds 4.5, odd rounds 2.5; quartiles
    # 1.75 and 4.75.
    assert found.latency_ms == pytest.approx(3e-3)
    assert found.split_half_error == pytest.approx(2 / 3)
    assert found.spread_ms == pytest.approx(1.5e-3)
    assert (found.runs, found.source) == (120, "cpu")
    assert found.wall_ms == pytest.approx(4.5e-3)


def test_one_thread_is_judged_by_cpu_time_and_more_by_the_clock():
    both = timings([[10.0] * 5] * 6, [[17.0] * 5] * 6)
    assert (summarise(both, ONE).latency_ms, summarise(both, ONE).source) == (
        pytest.approx(0.010),
        "cpu",
    )
    assert (summarise(both, TWO).latency_ms, summarise(both, TWO).source) == (
        pytest.approx(0.017),
        "wall",
    )
    assert summarise(both, ONE).wall_ms == pytest.approx(0.017)


def test_bursts_of_interference_do_not_move_the_estimate():
    rng = np.random.default_rng(0)
    times = 100 * (1 + 0.01 * rng.random((12, 5)))
    disturbed = times * np.where(rng.random((12, 5)) < 0.4, 3.0, 1.0)
    disturbed[[2, 7, 8]] *= 2  # three spoilt rounds of twelve
    assert summarise(timings(disturbed), ONE).latency_ms == pytest.approx(
        summarise(timings(times), ONE).latency_ms, rel=0.01
    )


def test_a_model_has_converged_when_its_rounds_agree():
    steady = 100 + np.array([[0.0], [0.5], [-0.5], [0.2], [0.1]])
    shaky = 100 + np.array([[0.0], [9.0], [-9.0], [12.0], [-12.0]])
    assert has_converged(timings(steady), ONE)
    assert not has_converged(timings(shaky), ONE)
    assert has_converged(timings(np.vstack([steady, [[500.0]]])), ONE), (
        "one spoilt round does not count"
    )


def test_drift_is_divided_out():
    """A machine that slows down by a third after two rounds: the anchor slows down with it."""
    slower = np.array([1.0, 1.0, 1.0, 4 / 3, 4 / 3])
    anchor = timings(37 * slower[:, None] * np.ones((5, 7)))
    steady = detrend(
        timings(200 * slower[:, None] * np.ones((5, 3))), anchor, reference_time([anchor])
    )
    np.testing.assert_allclose(steady.cpu_us, 200)
    # A model that converged after three rounds is divided by the anchor of those.
    early = detrend(timings(np.full((3, 3), 200.0)), anchor, reference_time([anchor]))
    np.testing.assert_allclose(early.cpu_us, 200)


def test_one_bad_anchor_of_a_round_does_no_harm():
    anchors = np.full((5, 7), 37.0)
    anchors[1, 3] = 90.0
    anchor = timings(anchors)
    np.testing.assert_allclose(
        detrend(timings(np.full((5, 3), 200.0)), anchor, reference_time([anchor])).cpu_us, 200
    )


def test_groups_measured_one_after_the_other_share_one_scale():
    """Equal models are equal after detrending, though the machine was half as fast for one."""
    first, second = timings(np.full((5, 7), 30.0)), timings(np.full((5, 7), 60.0))
    reference = reference_time([first, second])
    one = detrend(timings(np.full((5, 2), 100.0)), first, reference)
    other = detrend(timings(np.full((5, 2), 200.0)), second, reference)
    np.testing.assert_allclose(one.cpu_us, other.cpu_us)


def test_noise_is_refused_with_its_figures():
    quiet = summarise(timings([[100.0], [100.5], [100.2], [100.1]]), ONE)
    noisy = summarise(
        timings(
            [[100.0], [150.0], [100.0], [150.0]],
            [[250.0], [375.0], [250.0], [375.0]],
            preempted=1.0,
        ),
        ONE,
    )
    require_repeatable({}, ONE)
    require_repeatable({str(i): quiet for i in range(9)} | {"one": noisy}, ONE)
    with pytest.raises(MeasurementError, match=r"differ by 40.0%.*preempted 100%.*2.5 times"):
        require_repeatable({"alone": noisy}, ONE)
    with pytest.raises(MeasurementError, match="Stop other programs"):
        require_repeatable({str(i): quiet for i in range(8)} | {"one": noisy, "two": noisy}, ONE)


def test_rows_become_arrays():
    found = timings_of([[(1.0, 2.0, False), (3.0, 4.0, True)]], 7)
    assert found.cpu_us.tolist() == [[1, 3]]
    assert found.wall_us.tolist() == [[2, 4]]
    assert found.preempted.tolist() == [[0, 1]]
    assert found.repeats == 7
