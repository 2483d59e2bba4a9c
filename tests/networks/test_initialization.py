"""Where training starts.

The first filters are the images' principal components, wide convolutions pass their input on.
"""

from __future__ import annotations

import pytest
import torch
from torch import nn

from pliant.networks.initialization import initialise, patch_pca_stem
from pliant.networks.supernet import Supernet, build
from pliant.spaces.presets import preset

MEAN, STD = (0.4, 0.5, 0.6), (0.2, 0.25, 0.3)


def supernet():
    return Supernet(preset("plain-32", channels=3, image_size=32, classes=10), mean=MEAN, std=STD)


def images(generator):
    """Smooth noise, so that neighbouring pixels go together as in photographs."""
    noise = torch.rand(40, 3, 36, 36, generator=generator)
    return nn.functional.avg_pool2d(noise, 5, stride=1)


def test_answers_of_the_first_filters_do_not_go_together():
    model, pixels = supernet(), images(torch.Generator().manual_seed(1))
    patch_pca_stem(model, pixels)
    stem = model.blocks["stem"].conv1
    normalised = (pixels - torch.tensor(MEAN)[:, None, None]) / torch.tensor(STD)[:, None, None]
    answers = nn.functional.conv2d(normalised, stem.weight, stride=3).transpose(0, 1).flatten(1)
    covariance = torch.cov(answers[:16])
    variances = covariance.diagonal()
    assert (variances[:-1] >= variances[1:] - 1e-5).all(), "components come by falling variance"
    off_diagonal = covariance - torch.diag(variances)
    assert off_diagonal.abs().max() < 1e-3 * variances.max()
    assert torch.equal(stem.weight[16:], -stem.weight[:16])


def test_gray_images_have_fewer_components_than_there_are_filters():
    space = preset("plain-32", channels=1, image_size=28, classes=10)
    network = build(space, space.largest(), mean=(0.3,), std=(0.3,))
    before = network.blocks["stem"].conv1.weight.clone()
    patch_pca_stem(network, torch.rand(20, 1, 28, 28))
    after = network.blocks["stem"].conv1.weight
    assert torch.equal(after[18:], before[18:]), (
        "a 3x3 patch has nine components, each with both signs"
    )
    assert not torch.equal(after[:18], before[:18])


def test_a_wide_convolution_begins_as_the_identity():
    conv = nn.Conv2d(8, 12, 3, padding=1, bias=False)
    initialise(conv)
    x = torch.randn(2, 8, 5, 5)
    assert conv(x)[:, :8].allclose(x, atol=1e-6)
    assert not conv(x)[:, 8:].allclose(torch.zeros(2, 4, 5, 5))


@pytest.mark.parametrize("name", ["plain-32", "mobile-32"])
def test_residual_branches_begin_as_nothing(name):
    space = preset(name, channels=3, image_size=32, classes=10)
    network = build(space, space.largest(), mean=MEAN, std=STD)
    last = [
        module
        for key, module in network.named_modules()
        if key.endswith(("block1.norm2", "block2.project_norm"))
    ]
    assert last
    assert all((module.weight == 0).all() for module in last)
