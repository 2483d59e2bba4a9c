"""A network of a user's own, with the classes of the images, through every file of its delivery."""

from __future__ import annotations

import importlib.util
import sys
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
import torch

from pliant.accuracy.calibration import calibrate
from pliant.deploy.own_model import write_own_model
from pliant.deploy.package import onnx_bytes, write_model
from pliant.deploy.verify import verify_outputs
from pliant.devices.profile import random_network_model
from pliant.errors import ForeignError
from pliant.networks.foreign.source import foreign_module
from pliant.networks.foreign.template import foreign_space, foreign_supernet, replaced_classifier
from pliant.networks.quantize import observe, quantized_model, whole_range
from pliant.training.start import ForeignStart, make_start

NETWORK = """
import torch
from torch import nn

class Block(nn.Module):
    def __init__(self, width):
        super().__init__()
        self.norm, self.inner = nn.LayerNorm(width), nn.Linear(width, 2 * width)
        self.outer = nn.Linear(2 * width, width)

    def forward(self, x):
        return x + self.outer(nn.functional.gelu(self.inner(self.norm(x))))

class Net(nn.Module):
    def __init__(self):
        super().__init__()
        self.stem, self.norm = nn.Conv2d(3, 16, 3, 2, 1), nn.BatchNorm2d(16)
        self.block, self.head = Block(16), nn.Linear(16, 7)
        self.last = nn.BatchNorm1d(16)

    def forward(self, x):
        x = self.norm(self.stem(x)).clamp(0, 6).flatten(2).transpose(1, 2)
        return self.head(self.last(self.block(x).mean(1)))

def build():
    torch.manual_seed(3)
    return Net()
"""


@pytest.fixture
def source(tmp_path: Path) -> str:
    (tmp_path / "net.py").write_text(NETWORK)
    return f"{tmp_path / 'net.py'}:build"


def test_every_file_computes_what_the_supernet_does(source: str, tmp_path: Path) -> None:
    space = foreign_space(source, channels=3, image_size=32, classes=4)
    assert replaced_classifier(space) == ("head",)
    assert space.choices[0].options == (16, 32)  # resolutions
    supernet = foreign_supernet(space, mean=[0.5] * 3, std=[0.2] * 3).eval()
    original = foreign_module(source).state_dict()["block.inner.weight"]
    assert torch.equal(supernet.state_dict()["block.inner.weight"], original)
    options = dict(space.largest().options) | {"r": 16, "block.inner.w": 16}
    architecture = space.architecture(options)
    images = torch.from_numpy(np.random.default_rng(0).integers(0, 256, (8, 3, 32, 32), np.uint8))
    network = supernet.extract(architecture)
    calibrate(network, images.float() / 255)
    blocks = space.blocks(architecture)
    write_model(tmp_path / "best", network, blocks, classes=list("abcd"))
    verify_outputs(tmp_path / "best", supernet, network, architecture, images)
    model = onnx.load_from_string(onnx_bytes(network, blocks))
    pictures = np.ascontiguousarray(images.permute(0, 2, 3, 1).numpy())
    ranges = {name: whole_range(one) for name, one in observe(model, [pictures]).items()}
    int8 = quantized_model(model, ranges)
    assert "own_model.py` is the same network" in write_own_model(
        tmp_path / "best", network, blocks[0]
    )
    own_model = own_model_of(tmp_path / "best")
    own = own_model.load(foreign_module(source))
    assert type(own).__name__ == "Net"
    assert own.block.inner.out_features == 16
    assert own.head.out_features == 4
    pixels = images.float() / 255
    network.eval()
    torch.testing.assert_close(
        own(own_model.prepare(pixels)), network(pixels), rtol=1e-4, atol=1e-5
    )
    found, expected = (run(one, pictures) for one in (int8, model))
    assert np.abs(found - expected).max() <= 0.1 * np.abs(expected).max()
    timed = onnx.load_from_string(random_network_model(blocks, np.random.default_rng(0)))
    assert run(timed, pictures).shape == (8, 4)


def own_model_of(folder: Path) -> Any:
    spec = importlib.util.spec_from_file_location("own_model", folder / "own_model.py")
    own_model = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(own_model)
    return own_model


@torch.no_grad()
def test_pytorchs_attention_with_fewer_heads_stays_in_the_users_class(tmp_path: Path) -> None:
    attending = NETWORK.replace("self.norm, self.inner", "self.attention, self.norm, self.inner")
    attending = attending.replace(
        "= nn.LayerNorm", "= nn.MultiheadAttention(width, 2, batch_first=True), nn.LayerNorm"
    )
    attending = attending.replace("return x +", "x = x + self.attention(x, x, x)[0]; return x +")
    (tmp_path / "net.py").write_text(attending)
    source = f"{tmp_path / 'net.py'}:build"
    space = foreign_space(source, channels=3, image_size=32, classes=4)
    supernet = foreign_supernet(space, mean=[0.5] * 3, std=[0.2] * 3).eval()
    options = dict(space.largest().options) | {"block.attention.w": 8}
    architecture, images = space.architecture(options), torch.rand(8, 3, 32, 32)
    network = supernet.extract(architecture)
    calibrate(network, images)
    blocks = space.blocks(architecture)
    write_model(tmp_path / "best", network, blocks, classes=list("abcd"))
    said = write_own_model(tmp_path / "best", network, blocks[0])
    assert "`SlicedAttention` of this file, the same attention without that rule: block." in said
    own_model = own_model_of(tmp_path / "best")
    own = own_model.load(foreign_module(source))
    assert type(own.block).__name__ == "Block"
    assert own.block.attention.in_proj_weight.shape == (3 * 8, 16)
    found = own(own_model.prepare(images))
    torch.testing.assert_close(found, network.eval()(images), rtol=1e-4, atol=1e-5)


def run(model: onnx.ModelProto, pictures: np.ndarray) -> np.ndarray:
    import onnxruntime

    session = onnxruntime.InferenceSession(
        model.SerializeToString(), providers=["CPUExecutionProvider"]
    )
    [found] = session.run(["logits"], {"pictures": pictures})
    return np.asarray(found)


def test_a_function_that_returns_a_network_is_a_start(source: str) -> None:
    start = make_start(source)
    assert isinstance(start, ForeignStart)
    assert start.identity == ForeignStart(source).identity


def test_logits_that_are_no_layers_own_are_refused_for_other_classes(tmp_path: Path) -> None:
    two = NETWORK.replace(
        "self.head(self.last(self.block(x).mean(1)))", "torch.cat([self.head(x.mean(1))] * 2, 1)"
    )
    (tmp_path / "net.py").write_text(two)
    with pytest.raises(ForeignError, match="images have 4 classes"):
        foreign_space(f"{tmp_path / 'net.py'}:build", channels=3, image_size=32, classes=4)


@pytest.mark.parametrize("missing", ["timm", "torchvision"])
def test_timm_needs_torchvision_and_the_advice_keeps_pytorch(
    missing: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "timm.py").write_text("import torchvision")
    monkeypatch.syspath_prepend(tmp_path)
    monkeypatch.setitem(sys.modules, missing, None)
    with pytest.raises(ForeignError, match=f"{missing}.*pip install timm torchvision torch==2"):
        foreign_module("timm:resnet18")
