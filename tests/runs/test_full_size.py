"""The Once-for-All MobileNetV3 space at its own 224 pixels, on any machine.

A training step, a search by cost, extraction and export.
"""

from __future__ import annotations

from types import SimpleNamespace

import numpy as np
import onnxruntime
import pytest
import torch
from torch.nn import functional as F

from pliant.accuracy.calibration import calibrate
from pliant.metrics import Accuracy
from pliant.networks.onnx import network_model
from pliant.networks.supernet import Supernet
from pliant.objective import Limit, Objective
from pliant.runs.train import first_images
from pliant.search.ask_tell import combined, run_search
from pliant.search.nsga2 import ParetoSearch
from pliant.spaces.presets import preset
from pliant.training.sandwich import Sandwich

LIMIT = Limit.parse("macs=220M")


@pytest.fixture(scope="module")
def space():
    return preset("ofa-mobilenetv3", channels=3, image_size=224, classes=1000)


@pytest.fixture(scope="module")
def supernet(space):
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        return Supernet(space, mean=(0.48, 0.46, 0.41), std=(0.23, 0.22, 0.23))


@pytest.fixture(scope="module")
def chosen(space):
    """The best network within the limit, for an accuracy that grows with MACs."""

    class MoreIsBetter:
        def estimate(self, architectures):
            return [Accuracy(min(1.0, space.cost(one).macs / 1e9), 1) for one in architectures]

    def cost(architectures):
        return [space.cost(one) for one in architectures]

    objective = Objective(("parameters",), (LIMIT,))
    searcher = ParetoSearch(space, objective, seed=0)
    history = run_search(searcher, combined(MoreIsBetter(), cost), 600)
    return max(objective.front(history), key=lambda one: one.value)


@pytest.mark.parametrize(("size", "images"), [(28, 2000), (32, 2000), (224, 40), (4000, 1)])
def test_of_large_images_few_start_the_first_convolution(size, images):
    """2,000 images of 224 pixels would take gigabytes; their patches are plenty in 40."""

    class Endless:
        def __len__(self):
            return 10**6

        def batch(self, indices):
            return torch.full((len(indices), 1, 1, 1), 255, dtype=torch.uint8), None

    found = first_images(SimpleNamespace(data=SimpleNamespace(train=Endless(), image_size=size)))
    assert found.shape == (images, 1, 1, 1)
    assert found.max() == 1.0


def test_a_step_of_the_sandwich_lowers_the_loss_of_its_batch(space, supernet):
    images = torch.rand(2, 3, 224, 224, generator=torch.Generator().manual_seed(0))
    labels = torch.tensor([3, 700])
    optimizer = torch.optim.SGD(supernet.parameters(), lr=0.02)
    before = F.cross_entropy(supernet(images, space.largest()), labels)
    for loss in Sandwich(space).losses(
        "sandwich", supernet.train(), images, labels, np.random.default_rng(0)
    ):
        loss.backward()
    optimizer.step()
    assert F.cross_entropy(supernet(images, space.largest()), labels) < before


def test_a_search_by_cost_ends_at_the_limit(space, chosen):
    assert 0.95 * 220e6 < chosen.cost.macs <= 220e6
    assert chosen.cost == space.cost(chosen.architecture)


def test_what_was_found_is_extracted_and_exported(space, supernet, chosen):
    network = supernet.extract(chosen.architecture)
    images = torch.rand(4, 3, 224, 224, generator=torch.Generator().manual_seed(1))
    calibrate(network, images)
    with torch.no_grad():
        expected = network(images[:2]).numpy()
    state = {name: tensor.numpy() for name, tensor in network.state_dict().items()}
    model = network_model(space.blocks(chosen.architecture), state).SerializeToString()
    session = onnxruntime.InferenceSession(model, providers=["CPUExecutionProvider"])
    [answer] = session.run(None, {session.get_inputs()[0].name: images[:2].numpy()})
    assert np.abs(answer - expected).max() <= 1e-4 * np.abs(expected).max()
