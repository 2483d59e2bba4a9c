"""Whole networks from a space, an ONNX file and a PyTorch module: the three agree, and what has no
cost is named."""

from __future__ import annotations

from collections import Counter
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
import torch
from torch import Tensor, nn
from typer.testing import CliRunner

from pliant.accelerator.chip import load_chip
from pliant.accelerator.model.counts import layer_key
from pliant.accelerator.network_mapping import map_workload
from pliant.cli.accelerator import app
from pliant.errors import EncodingError, RecipeError
from pliant.networks.onnx import network_model
from pliant.networks.plain import Network
from pliant.networks.supernet import describe
from pliant.networks.trace import module_workload
from pliant.spaces.presets import PRESETS, preset
from pliant.workload import NETWORK_INPUT, Layer, Workload
from pliant.workload.onnx_reader import onnx_workload


class Branching(nn.Module):
    """What hooks on layers would not see: additions, functions, methods, operators in place,
    attention."""

    def __init__(self) -> None:
        super().__init__()
        self.stem, self.norm = nn.Conv2d(3, 8, 3, 2, 1, bias=False), nn.BatchNorm2d(8)
        self.depthwise = nn.Conv2d(8, 8, 3, padding=1, groups=8, bias=False)
        self.grouped = nn.Conv2d(8, 8, 3, padding=2, dilation=2, groups=2)
        self.late, self.head = nn.BatchNorm2d(8), nn.Linear(8, 10)

    def forward(self, x: Tensor) -> Tensor:
        x = self.norm(self.stem(x)).relu_()
        y = self.grouped(self.depthwise(x))
        y += x
        y = self.late(nn.functional.max_pool2d(y, 2))
        tokens = y.flatten(2).transpose(1, 2)
        tokens = torch.softmax(tokens @ tokens.transpose(1, 2), -1) @ tokens
        return self.head(tokens.transpose(1, 2).reshape(y.shape).mean((2, 3)))


def test_a_module_becomes_the_layers_one_would_write_by_hand() -> None:
    module = Branching()
    workload = module_workload(module, torch.zeros(2, 3, 16, 16))
    assert workload.layers == (
        Layer("stem", "conv", (NETWORK_INPUT,), N=2, K=8, C=3, P=8, Q=8, R=3, S=3, strides=(2, 2)),
        Layer("depthwise", "conv", ("stem",), N=2, G=8, P=8, Q=8, R=3, S=3, bias=False),
        Layer(
            "grouped",
            "conv",
            ("depthwise",),
            N=2,
            G=2,
            K=4,
            C=4,
            P=8,
            Q=8,
            R=3,
            S=3,
            dilations=(2, 2),
        ),
        Layer("add", "elementwise", ("grouped", "stem"), N=2, G=8, P=8, Q=8),
        Layer(
            "max_pool2d_with_indices",
            "pool",
            ("add",),
            N=2,
            G=8,
            P=4,
            Q=4,
            R=2,
            S=2,
            strides=(2, 2),
        ),
        Layer("late", "elementwise", ("max_pool2d_with_indices",), N=2, G=8, P=4, Q=4, stored=16),
        Layer("bmm", "matmul", ("late",), N=16, G=2, K=16, C=8, bias=False, stored=0),
        Layer("_softmax", "elementwise", ("bmm",), N=2, G=16, P=16),
        Layer("bmm2", "matmul", ("_softmax", "late"), N=16, G=2, K=8, C=16, bias=False, stored=0),
        Layer("mean", "pool", ("bmm2",), N=2, G=8, R=4, S=4),
        Layer("head", "matmul", ("mean",), N=2, K=10, C=8),
    )
    assert workload.input_elements == 2 * 3 * 16 * 16
    assert module.training
    assert module.norm.training
    assert not module.stem._forward_hooks
    assert map_workload(workload, load_chip("nvdla-256")).proven


def test_attention_and_its_fast_kernels_are_products() -> None:
    layers = module_workload(
        nn.MultiheadAttention(8, 2, batch_first=True), *[torch.zeros(1, 16, 8)] * 3
    ).layers
    macs = 16 * 24 * 8 + 2 * 16 * 16 * 4 * 2 + 16 * 8 * 8
    assert sum(layer.macs for layer in layers) == macs


class Odd(nn.Module):
    def forward(self, x: Tensor) -> Tensor:
        return torch.special.bessel_j0(x)


@pytest.mark.parametrize(
    ("module", "said"),
    [
        (
            nn.Sequential(nn.Conv2d(3, 3, 1), Odd()),
            r"'special_bessel_j0' \(in module '1'\) has no cost",
        ),
        (nn.ConvTranspose3d(1, 3, 2), "one or two spatial sizes"),
        (nn.ReLU(), "no layer that costs anything"),
    ],
)
def test_what_has_no_cost_is_named(module: nn.Module, said: str) -> None:
    with pytest.raises(EncodingError, match=said):
        module_workload(module, torch.zeros(1, 3, 8, 8))


def test_an_operator_may_be_skipped() -> None:
    module = nn.Sequential(nn.Conv2d(3, 3, 1), Odd(), nn.Conv2d(3, 3, 1))
    layers = module_workload(module, torch.zeros(1, 3, 8, 8), skip={"special_bessel_j0"}).layers
    assert [layer.inputs for layer in layers] == [(NETWORK_INPUT,), ("0",)]


def nests(workload: Workload) -> list[tuple[Any, ...]]:
    return [(layer.kind, *layer_key(layer), layer.bias) for layer in workload.layers]


@pytest.mark.parametrize(
    ("name", "channels", "size"),
    [
        ("digits", 1, 8),
        ("mobile-32", 3, 32),
        ("plain-32", 1, 28),
        ("wide-32", 3, 32),
        ("vit-32", 1, 28),
        ("nas-bench-201", 3, 32),
        ("photos", 3, 80),
        ("ofa-mobilenetv3", 3, 128),
        ("ofa-resnet50", 3, 128),
    ],
)
def test_space_file_and_module_describe_one_network(
    name: str, channels: int, size: int, tmp_path: Path
) -> None:
    space = preset(name, channels=channels, image_size=size, classes=10)
    blocks = space.blocks(space.sample(np.random.default_rng(0)))
    network = Network(describe(blocks)).eval()
    state = {key: value.numpy() for key, value in network.state_dict().items()}
    onnx.save(network_model(blocks, state, batch=1), str(tmp_path / "net.onnx"))
    file = onnx_workload(tmp_path / "net.onnx")
    image = torch.zeros(1, channels, size, size)
    exported, watched = (module_workload(network, image, way=way) for way in ("export", "watch"))
    assert exported == watched
    assert nests(file) == nests(exported)
    lowered = space.lower(space.sample(np.random.default_rng(0)))
    assert lowered.macs == file.macs
    # A BatchNorm behind pooling is a layer of its own in the file; the space folds it, and counts
    # the resizing of images always.
    weighted = [
        Counter(nest[:-1] for nest in nests(source) if nest[0] in ("conv", "matmul"))
        for source in (lowered, file)
    ]
    assert weighted[0] == weighted[1]


def run(*arguments: str) -> str:
    return CliRunner().invoke(app, list(arguments), catch_exceptions=False).output


def test_the_command_maps_a_network_of_a_space() -> None:
    of_digits = ("--space", "digits", "--images", "1x8", "--classes", "10", "--chip", "nvdla-256")
    text = run("map", *of_digits, "--architecture", "smallest")
    assert "every mapping proven best" in text
    space = preset("digits", channels=1, image_size=8, classes=10)
    named = str(space.smallest())
    assert run("map", *of_digits, "--architecture", named).splitlines()[0] == text.splitlines()[0]
    assert "Proven best" in run("explain", *of_digits, "--layer", "2")


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (("map",), "a network is needed"),
        (("map", "net.onnx", "--space", "digits"), "one network at a time"),
        (("map", "--space", "digit"), "Did you mean 'digits'"),
        (("map", "--space", "digits", "--images", "8"), "channels x size"),
    ],
)
def test_commands_say_what_is_missing(arguments: tuple[str, ...], said: str) -> None:
    assert "digits" in PRESETS
    with pytest.raises(RecipeError, match=said):
        run(*arguments)
