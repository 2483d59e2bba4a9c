"""The digits of scikit-learn and small spaces for them: what trains in seconds."""

from __future__ import annotations

import pytest
import torch

from pliant.accuracy.training import make_accelerator
from pliant.data import DataSet, load
from pliant.networks.supernet import Supernet
from pliant.spaces.mobile import MobileFrame, MobileSpace, MobileStage
from pliant.spaces.presets import preset
from pliant.spaces.resnet import PlainSpace, ResidualStage
from pliant.spaces.space import Space


@pytest.fixture(scope="session")
def digits() -> DataSet:
    return load("digits", seed=0)


@pytest.fixture(scope="session")
def digits_space() -> Space:
    return preset("digits", channels=1, image_size=8, classes=10)


@pytest.fixture(scope="session")
def tiny_space() -> Space:
    """Two blocks with every elastic dimension, and dropout."""
    stage = MobileStage(8, (1, 2), (3, 5), (1, 2, 3), stride=2, squeeze=True)
    frame = MobileFrame(stem=8, stem_stride=1, expand=16, hidden=0, dropout=0.3)
    return MobileSpace("tiny", [stage], (6, 8), frame, channels=1, image_size=8, classes=10)


@pytest.fixture(scope="session")
def plain_space() -> Space:
    """Plain convolutions, which a CPU trains fastest."""
    stages = [ResidualStage(16, (0, 1), (0.5, 1.0), (0.5, 1.0)), ResidualStage(32, (0, 1), (0.5, 1.0), (0.5, 1.0))]
    return PlainSpace("plain", stages, (8,), stem=8, channels=1, image_size=8, classes=10)


@pytest.fixture
def fresh(digits):
    def make(space: Space, seed: int = 0) -> Supernet:
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(seed)
            return Supernet(space, mean=digits.mean, std=digits.std)

    return make


@pytest.fixture(scope="session")
def cpu():
    return make_accelerator("fp32", "cpu")
