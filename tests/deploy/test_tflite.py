"""model.tflite computes what model.onnx computes; without the converter its extra is named."""

from __future__ import annotations

import importlib.util

import numpy as np
import pytest
import torch

from pliant.accuracy.evaluation import pixels
from pliant.deploy import tflite
from pliant.deploy.tflite import FromPictures, write_tflite
from pliant.errors import RecipeError
from pliant.networks.supernet import build
from pliant.spaces.presets import preset

INSTALLED = importlib.util.find_spec("litert_torch") is not None


@pytest.fixture
def network():
    """Small, calibrated by hand, with a resizing."""
    space = preset("digits", channels=3, image_size=8, classes=10)
    built = build(space, space.smallest(), mean=[0.4] * 3, std=[0.2] * 3)
    for module in built.modules():
        if isinstance(module, torch.nn.BatchNorm2d):
            module.running_mean.fill_(0.1)
            module.running_var.fill_(0.5)
    return space, built.eval()


def test_the_converted_module_is_the_network(network):
    _, built = network
    assert built.blocks["preprocess"].resolution < 8
    images = torch.from_numpy(np.random.default_rng(0).integers(0, 256, (4, 3, 8, 8), np.uint8))
    with torch.no_grad():
        expected = built(pixels(images)).softmax(1)
        found = FromPictures(built)(images.permute(0, 2, 3, 1))
    torch.testing.assert_close(found, expected, atol=1e-6, rtol=1e-5)


def test_without_the_converter_the_extra_is_named(command, tmp_path, monkeypatch):
    monkeypatch.setattr(tflite.importlib.util, "find_spec", lambda name: None)
    code, _, error = command("deploy", tmp_path, "--tflite")
    assert code == 2
    assert "pliant[tflite]" in error.replace("\n", "")
    with pytest.raises(RecipeError, match="litert-torch is not installed"):
        tflite.require_converter()


@pytest.mark.skipif(not INSTALLED, reason="the extra tflite is not installed")
@pytest.mark.filterwarnings("default")
def test_the_file_agrees_with_onnx(network, tmp_path):
    from pliant.deploy.package import write_model

    space, built = network
    blocks = space.blocks(space.smallest())
    write_model(tmp_path, built, blocks, classes=[str(index) for index in range(10)])
    assert write_tflite(tmp_path, built) <= tflite.TOLERANCE
    assert (tmp_path / "model.tflite").stat().st_size > 1000
