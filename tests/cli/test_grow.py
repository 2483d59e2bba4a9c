"""`pliant grow`: delivered networks and a user's own, their files, and what is refused."""

from __future__ import annotations

import json
import subprocess
import textwrap

import numpy as np
import pytest
import torch

from pliant.accuracy.calibration import calibrate
from pliant.accuracy.evaluation import pixels
from pliant.deploy.delivered import read_delivered
from pliant.deploy.package import write_model
from pliant.networks import build

OWN = """
    import torch
    from torch import nn

    class Net(nn.Module):
        def __init__(self):
            super().__init__()
            self.stem = nn.Sequential(nn.Conv2d(1, 8, 3, padding=1), nn.BatchNorm2d(8), nn.ReLU())
            self.hidden, self.out = nn.Linear(8, 8), nn.Linear(8, 10)

        def forward(self, x):
            x = self.stem(x).mean((2, 3))
            return self.out(torch.relu(self.hidden(x)))

    class Shaped(Net):
        def forward(self, x):
            return super().forward(x if x.shape[-1] > 4 else x + 1)
"""


@pytest.fixture(scope="module")
def best(tmp_path_factory, digits_space, digits):
    """A delivered network of the digits space."""
    folder = tmp_path_factory.mktemp("run") / "best"
    architecture = digits_space.parse("r8_1d1_1.1k3e3_2d2_2.1k3e2_2.2k5e3")
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        network = build(digits_space, architecture, mean=digits.mean, std=digits.std)
    calibrate(network, pixels(digits.train.batch(np.arange(200))[0]))
    write_model(folder, network, digits_space.blocks(architecture), classes=digits.classes)
    return folder


def test_a_delivered_network_reads_back(best):
    found = read_delivered(best)
    assert [block.slot for block in found.blocks][:2] == ["preprocess", "stem"]
    assert found.classes[0] == "0"


def test_a_delivered_network_grows_and_is_trained_further(best, tmp_path, command):
    out = tmp_path / "grown"
    changes = ("--widen", "stage2=1.5x", "--deepen", "stage1=+1", "--kernel", "stage2_block1=5")
    changes += ("--squeeze-excite", "stage1", "--data", "digits", "--epochs", 1)
    code, said, error = command("grow", best, *changes, "--output-dir", out)
    assert (code, error) == (0, "")
    assert "outputs changed by" in said
    growth = json.loads((out / "growth.json").read_text("utf-8"))
    assert max(growth["relative_change"].values()) <= 1e-5
    assert growth["parameters"]["after"] > growth["parameters"]["before"]
    grown = {block.slot: block for block in read_delivered(out).blocks}
    before = {block.slot: block for block in read_delivered(best).blocks}
    assert grown["stage2_block1"].outputs == 1.5 * before["stage2_block1"].outputs
    assert grown["stage2_block1"].kernel == 5
    assert grown["stage1_block1"].squeeze_excite
    assert grown["stage1_block2"].residual
    assert growth["validation_top1"]["trained"] >= 0


@pytest.mark.parametrize("name", ["Net", "Shaped"])
def test_a_network_of_ones_own_is_written_as_plain_pytorch(tmp_path, command, name):
    own = tmp_path / "own.py"
    own.write_text(textwrap.dedent(OWN), "utf-8")
    out = tmp_path / "grown"
    changes = ("--widen", "stem.0=1.5x", "--widen", "hidden=12", "--image-size", 8, "--channels", 1)
    code, said, error = command("grow", f"{own}:{name}", *changes, "--output-dir", out)
    assert (code, error) == (0, "")
    assert "stem.0 has 12 channels" in said
    assert ("as in evaluation mode" in said) == (name == "Shaped")
    source = (out / "model.py").read_text("utf-8")
    assert "pliant" not in source
    assert {path.name for path in out.iterdir()} == {
        "model.py",
        "model.onnx",
        "model.safetensors",
        "growth.json",
        "SHA256SUMS",
    }
    sums = subprocess.run(["sha256sum", "--check", "SHA256SUMS"], cwd=out, capture_output=True)
    assert sums.stdout.decode().count(": OK") == 4


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ((), "growing names what grows, received nothing"),
        (("--widen", "stge2=2x"), "Did you mean 'stage2'"),
        (("--widen", "stage2"), "--widen reads stage2=1.5x, received 'stage2'"),
        (("--widen", "stage2=0.5x"), "a factor above 1"),
        (("--widen", "stage2=8"), "a wider stage2 has more than"),
        (("--widen", "preprocess=2x"), "channels of the images keep their number"),
        (("--deepen", "head=+1"), "Name a stage"),
        (("--deepen", "stage1=2x"), "a number of blocks"),
        (("--kernel", "stage2_block2=4"), "by an even number of pixels"),
        (("--squeeze-excite", "stem"), "stem is none"),
        (("--skip", "stage1"), "--skip is for a network of your own"),
    ],
)
def test_what_cannot_grow_is_refused_in_one_sentence(best, command, options, message):
    code, _, error = command("grow", best, *options)
    assert code == 2
    assert message in error.replace("\n", " ")


def test_a_folder_without_a_network_is_named(tmp_path, command):
    code, _, error = command("grow", tmp_path, "--widen", "a=2x")
    assert code == 2
    assert "is neither" in error
