"""A profile of a preset predicts the latency of held-out networks."""

from __future__ import annotations

import numpy as np
import pytest

from pliant.devices.measured_target import MeasuredTarget
from pliant.devices.profile import measure_networks, profile_device, random_network_model
from pliant.devices.timings import Settings

QUICK = Settings(min_rounds=3, rounds=4, samples=3, sample_us=500, noise_limit=100.0)


def _check(space, mape_percent, spearman, tolerance):
    """Errors of held-out networks, and of three that are measured apart."""
    profile = profile_device(space, QUICK, seed=1)
    target = MeasuredTarget(profile, space)
    fit = target.predictor
    assert fit.networks == 32
    assert fit.mape_percent < mape_percent
    assert fit.spearman > spearman
    rng = np.random.default_rng(7)
    networks = [space.smallest(), space.largest(), space.sample_choices(rng)]
    models = {
        str(network): random_network_model(space.blocks(network), rng) for network in networks
    }
    measured = measure_networks(models, QUICK, seed=2)
    for network, cost in zip(networks, target.predict(networks), strict=True):
        assert cost.latency_ms == pytest.approx(measured[str(network)].latency_ms, rel=tolerance)


def test_latency_is_predicted_and_ranked(digits_space):
    """Times that add up are predicted to the spread between runs."""
    _check(digits_space, 1, 0.999, 0.02)


@pytest.mark.slow
def test_latency_of_a_real_machine_is_predicted_and_ranked(digits_space, real_clock):
    """On a quiet machine the error is near 2 %; the bounds leave room for a busy one."""
    _check(digits_space, 20, 0.8, 0.35)
