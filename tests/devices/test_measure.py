"""Measuring real models: what must hold on any machine, however busy."""

from __future__ import annotations

import dataclasses
import gc
import os

import numpy as np
import pytest
from pretend_clock import duration_ns

from pliant.devices import measure as measuring
from pliant.devices.measure import (
    collect,
    convolution_peak_gflops,
    empty_model,
    measure,
    measure_in_subprocess,
    measuring_processor,
    pinned,
)
from pliant.devices.timings import Settings, Timings
from pliant.errors import MeasurementError
from pliant.networks.onnx import block_model, network_model, random_weights
from pliant.spaces.convolutional_blocks import ConvBlock

QUICK = Settings(min_rounds=3, rounds=4, samples=3, sample_us=300)


def conv(width: int) -> bytes:
    block = ConvBlock(slot="a", size=16, inputs=width, outputs=width)
    return block_model(block, np.random.default_rng(0)).SerializeToString()


def test_each_model_has_its_own_latency():
    models = {"large": conv(128), "call": empty_model(), "small": conv(32)}
    found = measure(models, QUICK, seed=0, refuse=False)
    assert list(found) == list(models), "the order is that of the models"
    for name, model in models.items():
        assert found[name].latency_ms * 1e6 == pytest.approx(duration_ns(model), rel=0.005)
    assert found["large"].source == "cpu"
    assert found["large"].runs >= QUICK.min_rounds * QUICK.samples


def test_repeating_a_short_model_measures_one_run():
    """A model has the same latency in short and in long samples: repeats are divided out."""
    [short] = measure(
        {"a": conv(32)}, dataclasses.replace(QUICK, sample_us=1), seed=0, refuse=False
    ).values()
    [long] = measure(
        {"a": conv(32)}, dataclasses.replace(QUICK, sample_us=3000), seed=0, refuse=False
    ).values()
    assert short.runs < long.runs
    assert short.latency_ms == pytest.approx(long.latency_ms, rel=0.005)


def test_models_that_converged_are_not_timed_further(monkeypatch):
    """Two models, one of which never converges: it gets all rounds, the other the fewest."""
    monkeypatch.setattr(
        measuring,
        "has_converged",
        lambda timings, settings: timings.cpu_us.shape[1] == 3 and timings.cpu_us[0, 0] < 1000,
    )
    monkeypatch.setattr(measuring, "_repeats", lambda session, settings: 1)
    seen = []
    slow = ConvBlock(slot="a", size=64, inputs=64, outputs=128)
    models = {
        "slow": block_model(slow, np.random.default_rng(0)).SerializeToString(),
        "fast": conv(8),
    }
    settings = dataclasses.replace(QUICK, rounds=5)
    found = collect(
        models, settings, seed=0, progress=lambda done, total: seen.append((done, total))
    )
    assert found["fast"].cpu_us.shape == (3, 3)
    assert found["slow"].cpu_us.shape == (5, 3)
    assert seen == [(number, 5) for number in range(1, 6)]


def test_models_that_do_not_fit_together_are_measured_in_groups(monkeypatch):
    models = {str(width): conv(width) for width in (8, 16, 24, 32, 40)}
    monkeypatch.setattr(measuring, "MAX_OPEN_BYTES", len(models["40"]) + len(models["24"]))
    groups = measuring._groups(models, np.random.default_rng(0))
    assert len(groups) > 1
    assert {name: model for group in groups for name, model in group.items()} == models
    assert all(sum(map(len, group.values())) <= measuring.MAX_OPEN_BYTES for group in groups)
    assert set(collect(models, QUICK, seed=0)) == set(models)


def test_the_batch_is_bound_to_free_dimensions():
    block = ConvBlock(slot="a", size=16, inputs=32, outputs=32)
    state = {
        f"blocks.a.{name}": array
        for name, array in random_weights(block, np.random.default_rng(0)).items()
    }
    model = network_model([block], state).SerializeToString()
    [single] = measure({"a": model}, QUICK, seed=0, refuse=False).values()
    [eight] = measure(
        {"a": model}, dataclasses.replace(QUICK, batch=8), seed=0, refuse=False
    ).values()
    assert eight.latency_ms == pytest.approx(8 * single.latency_ms, rel=0.005)


@pytest.mark.slow
def test_on_a_real_machine_more_work_takes_longer(real_clock):
    models = {"large": conv(128), "call": empty_model(), "small": conv(32)}
    found = measure(models, QUICK, seed=0, refuse=False)
    assert found["call"].latency_ms < found["small"].latency_ms < found["large"].latency_ms


def test_more_threads_than_processors_are_refused():
    with pytest.raises(MeasurementError, match="each thread needs a processor"):
        measure({"a": conv(8)}, Settings(threads=4096), seed=0)


def test_nothing_to_measure_is_nothing():
    assert measure({}, QUICK, seed=0) == {}


def test_the_machine_is_left_as_it_was():
    before = os.sched_getaffinity(0) if hasattr(os, "sched_getaffinity") else None
    with pinned(measuring_processor(Settings())) as done:
        if before is not None:
            assert done
            assert os.sched_getaffinity(0) == {max(before)}
        with pytest.raises(MeasurementError):
            measure({"a": conv(8)}, dataclasses.replace(QUICK, noise_limit=-1.0), seed=0)
    assert gc.isenabled()
    if before is not None:
        assert os.sched_getaffinity(0) == before
    with pinned(None) as done:
        assert not done
    assert measuring_processor(Settings(threads=2)) is None


def test_the_peak_is_a_rate_that_processors_have(real_clock):
    assert 0.1 < convolution_peak_gflops(dataclasses.replace(QUICK, rounds=3)) < 1e5


def test_a_process_of_its_own_measures_a_file(tmp_path, real_clock):
    path = tmp_path / "model.onnx"
    path.write_bytes(conv(32))
    found = measure_in_subprocess(path, dataclasses.replace(QUICK, noise_limit=100.0))
    assert found.latency_ms > 0
    (tmp_path / "broken.onnx").write_bytes(b"no model")
    with pytest.raises(MeasurementError, match=r"broken.onnx is measured in a subprocess, which"):
        measure_in_subprocess(tmp_path / "broken.onnx", QUICK)


def test_what_does_not_repeat_is_measured_again_with_twice_the_rounds(monkeypatch):
    rounds = []

    def bursts(models, settings, *, seed, progress):
        rounds.append(settings.rounds)
        disturbed = len(rounds) < 3
        times = np.array([[10.0] if number % 2 or not disturbed else [20.0] for number in range(8)])
        return {name: Timings(times, times, np.zeros_like(times), 1) for name in models}

    monkeypatch.setattr("pliant.devices.measure.collect", bursts)
    found = measure({"model": b""}, Settings(rounds=6), seed=0)
    assert rounds == [6, 12, 24]
    assert found["model"].latency_ms == pytest.approx(0.01)
