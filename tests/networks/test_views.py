"""A second view costs what it computes, has no own weights, and averages with the mirror image."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from pliant.accuracy.calibration import calibrate
from pliant.deploy.package import onnx_bytes
from pliant.errors import EncodingError
from pliant.networks.supernet import Supernet, build
from pliant.runs.run import Run
from pliant.runs.train import strategy
from pliant.scoring.networks import preset_networks
from pliant.spaces.presets import preset
from pliant.spaces.resnet import PlainSpace
from pliant.training.sandwich import Sandwich
from pliant.workload.onnx_reader import onnx_workload


@pytest.fixture(scope="module")
def space():
    return preset("wide-32", channels=3, image_size=24, classes=10)


def with_views(space, architecture, views):
    return space.architecture(dict(architecture.options) | {"v": views})


@torch.no_grad()
def test_two_views_are_the_mean_of_an_image_and_its_mirror_image(space, perturbed, pixels):
    supernet = perturbed(space)
    drawn = space.sample_choices(np.random.default_rng(1))
    one, two = (supernet.extract(with_views(space, drawn, views)) for views in (1, 2))
    calibrate(one, pixels(space, 16))
    two.load_state_dict(one.state_dict())
    images = pixels(space, 3, seed=2)
    torch.testing.assert_close(
        two.eval()(images), (one(images) + one(images.flip(3))) / 2, rtol=0, atol=1e-5
    )


def test_a_second_view_doubles_all_but_the_classifier(space):
    drawn = space.sample_choices(np.random.default_rng(2))
    one, two = (space.cost(with_views(space, drawn, views)) for views in (1, 2))
    classifier = space.blocks(drawn)[-1].layers()[-1].macs
    assert two.macs - classifier == 2 * (one.macs - classifier)
    assert two.parameters == one.parameters
    activations = [cost.peak_memory_bytes for cost in (one, two)]
    assert activations[1] == 2 * activations[0]


def test_the_delivered_file_says_the_same(space, tmp_path):
    two = with_views(space, space.smallest(), 2)
    network = calibrate(build(space, two, mean=[0.5] * 3, std=[0.25] * 3), torch.rand(8, 3, 24, 24))
    path = tmp_path / "model.onnx"
    path.write_bytes(onnx_bytes(network, space.blocks(two), batch=1))
    assert onnx_workload(path).macs == space.lower(two).macs == space.cost(two).macs


def test_without_the_choice_every_network_has_one_view(space):
    alone = space.trainable_space()
    assert space.size == 2 * alone.size
    assert alone.largest() == with_views(space, space.largest(), 1)
    assert alone.blocks(alone.largest()) == space.blocks(alone.largest()), (
        "the same weights in the same places"
    )
    assert alone.trainable_space().choices == alone.choices
    plain = preset("plain-32", channels=3, image_size=24, classes=10)
    assert plain.trainable_space() is plain


def test_there_is_no_third_view(space):
    with pytest.raises(EncodingError, match=r"received views \(1, 3\)"):
        PlainSpace(
            "p", space.stages, (24,), stem=8, views=(1, 3), channels=3, image_size=24, classes=2
        )


def test_scores_and_training_see_one_view(space, tmp_path):
    shape = type("Shape", (), {"channels": 3, "image_size": 24, "classes": 10})()
    assert {one.mapping["v"] for one in _draws(preset_networks("wide-32", shape).space)} == {1}
    images = np.random.default_rng(0).integers(0, 256, (40, 24, 24, 3), dtype=np.uint8)
    np.savez(tmp_path / "images.npz", x=images, y=np.arange(40) % 2)
    for flip, views in ((True, {1, 2}), (False, {1})):
        with Run.create(
            "cifar10",
            folder=tmp_path / f"run {flip}",
            data__source=str(tmp_path / "images.npz"),
            data__flip=flip,
            space="wide-32",
        ) as run:
            assert {one.mapping["v"] for one in _draws(run.space)} == views, (
                "mirror images only where they show the same thing"
            )
            learnt = strategy(run)
            assert isinstance(learnt, Sandwich)
            assert {one.mapping["v"] for one in _draws(learnt.space)} == {1}
            Supernet(run.space, mean=[0.5] * 3, std=[0.25] * 3)(
                torch.rand(2, 3, 24, 24), learnt.space.largest()
            )


def _draws(space):
    rng = np.random.default_rng(0)
    return [space.largest(), space.smallest(), *(space.sample_choices(rng) for _ in range(20))]
