"""Statistics are of training images and one network; nothing is evaluated without them."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from torch import nn

from pliant.accuracy.calibration import CALIBRATION_IMAGES, calibrate, require_calibrated
from pliant.accuracy.evaluation import pixels, top1
from pliant.accuracy.supernet import SupernetEstimator
from pliant.errors import UncalibratedError
from pliant.metrics import Accuracy, Failed
from pliant.networks.supernet import build
from pliant.spaces.presets import preset


def test_statistics_by_brute_force(digits_space, digits, fresh):
    """Of each BatchNorm: means over whole batches of the mean and of the unbiased variance."""
    network = fresh(digits_space).extract(digits_space.largest())
    images = pixels(digits.train.batch(np.arange(110))[0])
    calibrate(network, images, batch_size=25)
    norms = {
        name: module
        for name, module in network.named_modules()
        if isinstance(module, nn.BatchNorm2d)
    }
    found = {
        name: (norm.running_mean.clone(), norm.running_var.clone()) for name, norm in norms.items()
    }

    sums = {name: [0.0, 0.0] for name in norms}

    def hook(name):
        def add(module, inputs, output):
            x = inputs[0].double()
            mean = x.mean((0, 2, 3))
            count = x.numel() / x.shape[1]
            sums[name][0] += mean / 4
            sums[name][1] += ((x - mean[:, None, None]) ** 2).sum((0, 2, 3)) / (count - 1) / 4

        return add

    for name, norm in norms.items():
        norm.register_forward_hook(hook(name))
    network.train()
    with torch.no_grad():
        for start in range(0, 100, 25):
            network(images[start : start + 25])
    assert len(norms) > 10
    for name, (mean, variance) in found.items():
        torch.testing.assert_close(mean.double(), sums[name][0], rtol=1e-4, atol=1e-6)
        torch.testing.assert_close(variance.double(), sums[name][1], rtol=1e-4, atol=1e-6)


def test_calibrating_again_starts_anew(digits_space, digits, fresh):
    network = fresh(digits_space).extract(digits_space.smallest())
    images = pixels(digits.train.batch(np.arange(60))[0])
    once = {
        name: tensor.clone()
        for name, tensor in calibrate(network, images[:30]).state_dict().items()
    }
    calibrate(network, images)
    again = calibrate(network, images[:30]).state_dict()
    assert all(torch.equal(tensor, once[name]) for name, tensor in again.items())
    assert not network.training


def test_what_was_never_calibrated_is_refused(digits_space, digits, fresh):
    network = fresh(digits_space).extract(digits_space.largest())
    with pytest.raises(
        UncalibratedError, match=r"layer 'blocks.stem.norm1' has none. Calibrate it first"
    ):
        top1(network, digits.validation)
    images = pixels(digits.train.batch(np.arange(50))[0])
    require_calibrated(calibrate(network, images))
    network.blocks["stage2_block1"].project_norm.running_var[3] = float("inf")
    with pytest.raises(UncalibratedError, match=r"stage2_block1.project_norm"):
        require_calibrated(network)
    assert torch.isnan(fresh(digits_space).extract(digits_space.largest()).eval()(images)).all(), (
        "and could not pass for an answer"
    )


def test_top1_by_a_loop(digits_space, digits, fresh):
    network = calibrate(
        fresh(digits_space).extract(digits_space.largest()),
        pixels(digits.train.batch(np.arange(200))[0]),
    )
    right = 0
    with torch.no_grad():
        for index in range(len(digits.validation)):
            image, label = digits.validation.batch(np.array([index]))
            logits = network(image / 255)[0]
            right += max(range(10), key=lambda one, logits=logits: float(logits[one])) == int(label)
    expected = Accuracy(right / len(digits.validation), len(digits.validation))
    assert top1(network, digits.validation) == expected
    assert top1(network, digits.validation, batch_size=7) == expected


def test_an_estimate_does_not_touch_the_supernet(digits_space, digits, fresh):
    supernet = fresh(digits_space)
    before = {name: tensor.clone() for name, tensor in supernet.state_dict().items()}
    estimator = SupernetEstimator(supernet, digits.train, digits.validation, images=50)
    network = estimator.network(digits_space.largest())
    require_calibrated(network)
    estimator.estimate([digits_space.smallest(), digits_space.largest()])
    assert list(supernet.state_dict()) == list(before)
    assert all(torch.equal(tensor, before[name]) for name, tensor in supernet.state_dict().items())
    assert not any("running" in name for name in before)


def test_an_estimate_is_repeatable_whatever_was_asked_before(digits_space, digits, fresh):
    networks = [digits_space.sample_choices(np.random.default_rng(seed)) for seed in range(3)]
    one = SupernetEstimator(fresh(digits_space), digits.train, digits.validation, images=80, seed=4)
    other = SupernetEstimator(
        fresh(digits_space), digits.train, digits.validation, images=80, seed=4
    )
    assert one.estimate(networks) == other.estimate(networks[::-1])[::-1]
    assert all(found.images == 80 for found in one.estimate(networks))
    assert one.validate(networks[0]).images == len(digits.validation)
    assert len(one.calibration_images) == min(CALIBRATION_IMAGES, len(digits.train))


@pytest.mark.parametrize("where", ["stem.conv1.weight", "head.classifier.bias"])
def test_a_network_that_diverged_is_a_failed_row_and_not_the_end(
    where, digits_space, digits, fresh
):
    supernet = fresh(digits_space)
    with torch.no_grad():
        supernet.get_parameter(f"blocks.{where}")[0] = float("nan")
    estimator = SupernetEstimator(supernet, digits.train, digits.validation)
    [found] = estimator.estimate([digits_space.smallest()])
    assert found == Failed("the network's weights or BatchNorm statistics are not finite")


def test_training_an_extracted_network_begins_its_statistics(tiny_space):
    """Trained further by a loop of one's own, a network without statistics gets some."""
    network = build(tiny_space, tiny_space.largest(), mean=[0.5], std=[0.2]).train()
    for _ in range(3):
        network(torch.rand(16, 1, 8, 8))
    require_calibrated(network)
    assert network.eval()(torch.rand(2, 1, 8, 8)).isfinite().all()


def test_a_network_without_batch_norm_is_calibrated_without_a_forward_pass(monkeypatch):
    space = preset("vit-32", channels=1, image_size=24, classes=3)
    network = build(space, space.smallest(), mean=[0.5], std=[0.2])
    monkeypatch.setattr(type(network), "forward", None)
    assert not calibrate(network, torch.rand(4, 1, 24, 24)).training
    require_calibrated(network)
