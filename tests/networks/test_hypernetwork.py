"""Generated weights run through the supernet's slices; without a generator it is a supernet."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from pliant.accuracy.calibration import calibrate
from pliant.errors import RecipeError
from pliant.networks.hypernetwork import HyperSupernet
from pliant.networks.supernet import Supernet

STATISTICS = {"mean": [0.5], "std": [0.2]}


def made(kind, space, **options):
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        return kind(space, **STATISTICS, **options)


@pytest.fixture
def images(digits_space):
    size = digits_space.image_size
    return torch.rand(8, 1, size, size, generator=torch.Generator().manual_seed(1))


@pytest.mark.parametrize("encoder", [None, "code", "graph"])
def test_free_tensors_in_place_of_the_generator_are_weight_sharing(digits_space, images, encoder):
    plain = made(Supernet, digits_space)
    hyper = made(HyperSupernet, digits_space, encoder=encoder)  # its correction begins at 0
    rng = np.random.default_rng(0)
    for architecture in [digits_space.sample_choices(rng) for _ in range(3)]:
        one, other = plain(images, architecture), hyper(images, architecture)
        assert torch.equal(one, other)
        one.square().sum().backward()
        other.square().sum().backward()
    gradients = dict(hyper.named_parameters())
    for name, parameter in plain.named_parameters():
        torch.testing.assert_close(parameter.grad, gradients[name].grad)


@pytest.mark.parametrize("encoder", ["code", "graph"])
def test_the_extracted_network_has_the_generated_weights(digits_space, images, encoder):
    hyper = made(HyperSupernet, digits_space, encoder=encoder).eval()
    for decoder in hyper.generator.columns.values():
        torch.nn.init.normal_(decoder.weight, generator=torch.Generator().manual_seed(2))
    before = {name: one.clone() for name, one in hyper.state_dict().items()}
    one, other = digits_space.smallest(), digits_space.largest()
    assert not torch.equal(
        hyper.generate(one)["blocks.stem.conv1.weight"],
        hyper.generate(other)["blocks.stem.conv1.weight"],
    )
    network = calibrate(hyper.extract(one), images)
    for module in network.modules():
        if isinstance(module, torch.nn.BatchNorm2d):
            module.train()
    torch.testing.assert_close(network(images), hyper(images, one), rtol=1e-4, atol=1e-5)
    assert all(torch.equal(tensor, before[name]) for name, tensor in hyper.state_dict().items())


def test_an_unknown_encoder_is_refused(digits_space):
    with pytest.raises(RecipeError, match="code or graph"):
        made(HyperSupernet, digits_space, encoder="tree")
