"""`pliant elastic` on a user's file, and what it refuses."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from safetensors.torch import save_file
from torch import nn
from typer.testing import CliRunner

from pliant.cli.app import app

NETWORK = """
from torch import nn

class Net(nn.Module):
    def __init__(self):
        super().__init__()
        self.stem, self.norm = nn.Conv2d(3, 16, 3, 2, 1), nn.BatchNorm2d(16)
        self.inner, self.head = nn.Conv2d(16, 16, 3, padding=1), nn.Linear(16, 4)

    def forward(self, x):
        x = self.norm(self.stem(x)).relu()
        return self.head((x + self.inner(x)).mean((2, 3)))

class Branches(Net):
    def forward(self, x):
        if x.mean() > 0:
            x = -x
        return super().forward(x)

class Several(Net):
    def forward(self, x):
        return {"logits": super().forward(x)}

def half():
    return Net().half()

def fixed():
    return nn.Sequential(nn.Flatten(), nn.Linear(3072, 4))

def text():
    return "no network"
"""


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    (tmp_path / "net.py").write_text(NETWORK)
    monkeypatch.chdir(tmp_path)
    return tmp_path


def state(width: int) -> dict[str, torch.Tensor]:
    layers = {"stem": nn.Conv2d(3, width, 3), "norm": nn.BatchNorm2d(width)}
    layers |= {"inner": nn.Conv2d(width, width, 3), "head": nn.Linear(width, 4)}
    module = nn.ModuleDict(layers)
    return {name: tensor.contiguous() for name, tensor in module.state_dict().items()}


def test_what_can_shrink_and_what_cannot(folder: Path) -> None:
    save_file(state(16), "w.safetensors")
    arguments = ["elastic", "net.py:Net", "--weights", "w.safetensors", "--example", "1x3x32x32"]
    found = CliRunner().invoke(app, arguments)
    assert found.exit_code == 0, found.output
    assert "stem.w" in found.output
    assert "inner.d" in found.output
    assert "head keeps its outputs: they are the network's output" in found.output


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["net.py:Net", "--example", "3x96x96"], "such as 1x3x96x96"),
        (["net.py:text"], "gives a str"),
        (["net.py:Net", "--example", "1x1x32x32"], "Give the size of the images"),
        (["net.py:Net", "--weights", "other.safetensors"], r"head.weight is \(4, 8\) there"),
        (["net.py:Net", "--weights", "none.safetensors"], "cannot be read"),
        (["net.py:Net", "--keep", "stam"], "Did you mean 'stem'"),
        (["net.py:Branches"], "at line 16 of net.py in forward"),
        (["net.py:Several"], "this one returns a dict"),
        (["net.py:half"], r"stem.weight is of torch.float16. Return module.float\(\)"),
        (["net.py:fixed", "--example", "1x3x32x32"], "1: they are the network's output"),
    ],
)
def test_mistakes(folder: Path, arguments: list[str], message: str) -> None:
    save_file(state(8), "other.safetensors")
    found = CliRunner().invoke(app, ["elastic", *arguments])
    assert found.exit_code != 0
    with pytest.raises(Exception, match=message):
        raise found.exception or AssertionError(found.output)
