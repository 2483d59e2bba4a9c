"""The block of docs/blocks.md from supernet to extraction, ONNX, cost, profile and drawing."""

from __future__ import annotations

import dataclasses
import importlib
import importlib.util
import re
import subprocess
import sys
from pathlib import Path

import numpy as np
import onnxruntime
import pytest
import torch
from torch import nn

from pliant.deploy.own_source import own_source
from pliant.deploy.package import model_source, onnx_bytes
from pliant.devices.profile import BlockLatency
from pliant.devices.table import distinct_blocks
from pliant.devices.timings import QUANTILES
from pliant.errors import EncodingError
from pliant.networks.elastic_blocks import ELASTIC_BLOCKS, register_block
from pliant.networks.onnx import block_model
from pliant.networks.own_blocks import require_own_described
from pliant.networks.plain import BLOCKS, BlockModule
from pliant.networks.supernet import Supernet, require_described
from pliant.report.drawing import drawing
from pliant.report.quantities import square
from pliant.spaces.block import Block
from pliant.spaces.convolutional_blocks import ConvBlock
from pliant.spaces.input_output_blocks import Head, Preprocess
from pliant.spaces.space import Choice, Space
from pliant.training.checkpoint import save_tensors

DOCS = Path(__file__).parents[2] / "docs" / "blocks.md"


@pytest.fixture(scope="module")
def own(tmp_path_factory):
    """The documented code as a user's file."""
    path = tmp_path_factory.mktemp("own") / "next_block.py"
    path.write_text(re.search(r"```python\n(.*?)```", DOCS.read_text(), re.S)[1])
    spec = importlib.util.spec_from_file_location("next_block", path)
    module = importlib.util.module_from_spec(spec)
    sys.modules["next_block"] = module
    spec.loader.exec_module(module)
    return module


@pytest.fixture(scope="module")
def space(own):
    class NextSpace(Space):
        choices = (Choice("m", (6, 10)),)

        def layout(self, architecture) -> tuple[Block, ...]:
            return (
                Preprocess(slot="preprocess", size=8, channels=3, resolution=8),
                ConvBlock(slot="stem", size=8, inputs=3, outputs=4),
                own.NextBlock(slot="stage1_block1", size=8, channels=4, mid=architecture["m"]),
                Head(slot="head", size=8, inputs=4, classes=5),
            )

    return NextSpace("next", channels=3, image_size=8, classes=5)


def test_costs_are_those_counted_by_hand(space):
    block = space.blocks(space.largest())[2]
    assert block.cost.macs == 64 * (4 * 49 + 4 * 10 + 10 * 4)
    assert block.cost.parameters == (4 * 49 + 4) + 2 * 4 + (40 + 10) + (40 + 4) + 4


def test_elastic_is_extracted_is_exported_is_delivered(space, tmp_path):
    torch.manual_seed(0)
    supernet = Supernet(space, mean=[0.5] * 3, std=[0.2] * 3)
    images = torch.rand(6, 3, 8, 8)
    for architecture in (space.smallest(), space.largest()):
        network = supernet.extract(architecture)
        with torch.no_grad():
            found = supernet(images, architecture)
            torch.testing.assert_close(found, network.train()(images), rtol=0, atol=1e-5)
        blocks = space.blocks(architecture)
        for norm in network.modules():
            if isinstance(norm, nn.BatchNorm2d):
                norm.running_mean.uniform_(-0.1, 0.1)
                norm.running_var.uniform_(0.5, 1)
        expected = network.eval()(images).detach()
        session = onnxruntime.InferenceSession(onnx_bytes(network, blocks, pictures=False))
        (logits,) = session.run(None, {"image": images.numpy()})
        np.testing.assert_allclose(logits, expected.numpy(), rtol=0, atol=1e-4)
    (tmp_path / "model.py").write_text(model_source(blocks, list("abcde")))
    save_tensors(tmp_path / "model.safetensors", network.state_dict())
    save_tensors(tmp_path / "images.safetensors", {"x": images, "y": expected})
    code = (
        "import sys, torch, model; from safetensors.torch import load_file as load;"
        "t = load('images.safetensors'); assert torch.equal(model.load()(t['x']), t['y']);"
        "assert not any(name.startswith('pliant') for name in sys.modules)"
    )
    subprocess.run([sys.executable, "-c", code], cwd=tmp_path, check=True)


@torch.no_grad()
def test_its_mid_channels_are_sorted_and_the_largest_network_computes_the_same(space):
    torch.manual_seed(0)
    supernet = Supernet(space, mean=[0.5] * 3, std=[0.2] * 3)
    images = torch.rand(6, 3, 8, 8)
    before = supernet(images, space.largest())
    stem = supernet.blocks["stem"].conv1.weight.clone()
    supernet.sort_channels()
    importance = supernet.blocks["stage1_block1"].project.weight.abs().sum(0)
    assert (importance[:-1] >= importance[1:]).all(), "mid channels, by what reads them"
    assert not torch.equal(supernet.blocks["stem"].conv1.weight, stem), "and those of the stage"
    torch.testing.assert_close(supernet(images, space.largest()), before, rtol=0, atol=1e-5)


def test_a_profile_times_it_and_a_report_draws_it(space):
    rng = np.random.default_rng(0)
    block = next(one for one in distinct_blocks(space, rng) if type(one).__name__ == "NextBlock")
    times = (3.0,) * len(QUANTILES)
    row = BlockLatency(
        type="NextBlock",
        sizes=block.sizes,
        latency_us=3.0,
        cpu_us=times,
        wall_us=times,
        runs=1,
        preempted_share=0.0,
        split_half_error=0.0,
    )
    assert row.block == block
    session = onnxruntime.InferenceSession(block_model(block, rng).SerializeToString())
    assert session.run(None, {"image": np.ones((1, 4, 8, 8), np.float32)})[0].shape == (1, 4, 8, 8)
    facts = {"slot": "stage1_block1", "type": "NextBlock", "sizes": block.sizes}
    (picture,) = drawing([facts])[0].blocks
    assert (picture.title, picture.detail) == (f"{square(7)} next block", "4 → 10 → 4")
    assert picture.shortcut


def test_a_block_that_leaves_a_layer_undescribed_is_refused(own, space, monkeypatch):
    class Forgetful(own.PlainNext):
        def __init__(self, **sizes) -> None:
            super().__init__(**sizes)
            self.more = nn.Linear(2, 2)

    block = space.blocks(space.largest())[2]
    require_described(block)
    monkeypatch.setitem(BLOCKS, "NextBlock", Forgetful)
    with pytest.raises(EncodingError, match=r"NextBlock has 'more\.bias' not at all in its layers"):
        require_described(block)
    monkeypatch.delitem(BLOCKS, "NextBlock")
    with pytest.raises(EncodingError, match="received NextBlock with none"):
        require_described(block)
    with pytest.raises(EncodingError, match=r"NextBlock is not\. Call register_block\(NextBlock,"):
        own_source(["NextBlock"])


def test_a_module_that_computes_something_else_than_its_layers_is_refused(own, space, monkeypatch):
    class Bent(own.PlainNext):
        def forward(self, x):
            return x + 1.001 * (super().forward(x) - x)

    require_own_described(space)
    monkeypatch.setitem(BLOCKS, "NextBlock", Bent)
    with pytest.raises(EncodingError, match=r"NextBlock\.layers and Bent\.forward compute diff"):
        require_own_described(space)


def test_names_and_sources_are_refused_by_name(own, space, monkeypatch):
    with pytest.raises(EncodingError, match="Rename the description"):
        register_block(Head, own.PlainNext, own.ElasticNext)
    with pytest.raises(EncodingError, match="Rename the class"):
        type("Head", (Block,), {})

    class NeedsPliant(BlockModule):
        def forward(self, x):
            return dataclasses.replace(Choice("a", (1,)), name="b") and x

    monkeypatch.setitem(BLOCKS, "NextBlock", NeedsPliant)
    with pytest.raises(EncodingError, match="needs 'Choice'"):
        model_source(space.blocks(space.largest()), ["a"])


@pytest.mark.parametrize(
    ("returned", "says"),
    [
        (lambda x: x @ x[:, :, :3], "runs at every size.*NextBlock at .*'mid': 6"),
        (lambda x: x[:, :2], r"\(2, 2\), its layers \(2, 4\)"),
    ],
)
def test_an_elastic_module_that_does_not_run_at_a_size_is_refused_by_name(
    own, space, monkeypatch, returned, says
):
    class Rigid(own.ElasticNext):
        def forward(self, x, active):
            return returned(x)

    monkeypatch.setitem(ELASTIC_BLOCKS, "NextBlock", Rigid)
    with pytest.raises(EncodingError, match=says):
        Supernet(space, mean=[0.5] * 3, std=[0.2] * 3)


def test_what_comes_from_another_file_of_the_user_is_carried_too(space, tmp_path, monkeypatch):
    monkeypatch.syspath_prepend(tmp_path)
    (tmp_path / "own_maths.py").write_text(
        "import math\n\n\ndef twice(x):\n    return math.sqrt(4) * x\n"
    )
    (tmp_path / "own_plain.py").write_text(
        "from own_maths import twice\nfrom pliant.networks.plain import BlockModule\n\n\n"
        "class Twice(BlockModule):\n    def forward(self, x):\n        return twice(x)\n"
    )
    monkeypatch.setitem(BLOCKS, "NextBlock", importlib.import_module("own_plain").Twice)
    names = {"BLOCKS": {}, "BlockModule": BlockModule}
    exec(own_source(["NextBlock"]), names)
    assert names["BLOCKS"]["NextBlock"]().forward(3.0) == 6.0
    text = "import own_maths\n" + (tmp_path / "own_plain.py").read_text()
    (tmp_path / "own_other.py").write_text(text.replace("twice(x)", "own_maths.twice(x)"))
    monkeypatch.setitem(BLOCKS, "NextBlock", importlib.import_module("own_other").Twice)
    with pytest.raises(
        EncodingError, match=r"needs 'own_maths'.*your own files imported one by one"
    ):
        own_source(["NextBlock"])


def test_a_space_is_known_by_what_it_describes(space):
    other = type(space)("next", channels=3, image_size=8, classes=5)
    assert other.identity == space.identity
    assert type(space)("next", channels=3, image_size=8, classes=6).identity != space.identity
    wider = type("Wider", (type(space),), {"choices": (Choice("m", (6, 12)),)})
    assert wider("next", channels=3, image_size=8, classes=5).identity != space.identity
