"""A real profile of a preset predicts the latency of held-out networks."""

from __future__ import annotations

import numpy as np
import pytest

from pliant.devices.profile import (
    DeviceProfile,
    measure_networks,
    profile_device,
    random_network_model,
)
from pliant.devices.timings import Settings
from pliant.spaces.presets import preset

QUICK = Settings(min_rounds=3, rounds=4, samples=3, sample_us=500, noise_limit=100.0)


@pytest.fixture(scope="module")
def space():
    return preset("digits", channels=1, image_size=8, classes=10)


@pytest.fixture(scope="module")
def profile(space) -> DeviceProfile:
    return profile_device(space, QUICK, seed=1)


def test_latency_is_predicted_and_ranked(profile, space):
    """On a quiet machine the error is near 2 %; the bounds leave room for a busy one."""
    fit = profile.table(space).held_out_error
    assert fit.networks == 16
    assert fit.mape_percent < 20
    assert fit.spearman > 0.8


def test_a_network_measured_on_its_own_agrees(profile, space):
    rng = np.random.default_rng(7)
    networks = [space.smallest(), space.largest(), space.sample_choices(rng)]
    models = {
        str(network): random_network_model(space.blocks(network), rng) for network in networks
    }
    measured = measure_networks(models, QUICK, seed=2)
    for network, cost in zip(networks, profile.table(space)(networks), strict=True):
        assert cost.latency_ms == pytest.approx(measured[str(network)].latency_ms, rel=0.35)
