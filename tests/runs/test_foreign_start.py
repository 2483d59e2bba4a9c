"""A run that begins with a network of the user's own says what becomes of its classifier."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

from pliant import Run
from pliant.accuracy.evaluation import top1
from pliant.progress import silent
from pliant.runs.baselines import adapt_start, baselines, linear_start
from pliant.runs.train import new_supernet

NETWORK = """
import torch
from torch import nn

def build():
    torch.manual_seed(0)
    return nn.Sequential(
        nn.Conv2d(1, 32, 3, padding=1), nn.BatchNorm2d(32), nn.ReLU(),
        nn.Conv2d(32, 16, 3, padding=1), nn.BatchNorm2d(16), nn.ReLU(),
        {end}
    )
"""
POOLED = "nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(16, {classes}),"
OF_TOKENS = "nn.Conv2d(16, {classes}, 1), nn.AdaptiveAvgPool2d(1), nn.Flatten(),"
RECIPE = """
space = "start"
limits = ["parameters=4k"]
data.source = "digits"
train.epochs = 1
train.strategy = "{strategy}"
train.start = "{start}"
"""


def begun(folder: Path, end: str, strategy: str = "fine-tune") -> Run:
    (folder / "net.py").write_text(NETWORK.format(end=end))
    recipe = folder / "recipe.toml"
    recipe.write_text(RECIPE.format(start=folder / "net.py:build", strategy=strategy))
    return Run.create(str(recipe), folder=folder / "run")


@pytest.mark.parametrize(
    ("classes", "strategy", "said"),
    [
        (10, "fine-tune", []),
        (7, "fine-tune", ["new one for these 10, which begins as a linear classifier"]),
        (7, "sandwich", ["new one for these 10, which learns them from nothing"]),
    ],
)
def test_a_replaced_classifier_is_said(
    tmp_path: Path, classes: int, strategy: str, said: list[str]
) -> None:
    with begun(tmp_path, POOLED.format(classes=classes), strategy) as run:
        _ = run.data
        notes = [note for note in run.record.metadata("data_notes") if "classifier" in note]
        assert [one in note for one, note in zip(said, notes, strict=True)] == [True] * len(said)
        assert all("its classifier (8) was replaced" in note for note in notes)


@pytest.mark.parametrize("classes", [10, 7])
def test_a_new_classifier_begins_as_the_linear_one(tmp_path: Path, classes: int) -> None:
    with begun(tmp_path, POOLED.format(classes=classes)) as run:
        known, linear = baselines(run, silent), linear_start(run)
        assert known.features == "net.py:build at 8 pixels"
        assert known.linear == top1(linear, run.data.validation)
        assert known.linear.top1 > 0.5 > known.majority.top1, "random features tell digits apart"
        supernet = new_supernet(run).eval()
        adapt_start(run, supernet)
        images = torch.from_numpy(run.data.validation.batch(range(50))[0].numpy()).float() / 255
        with torch.no_grad():
            same = torch.allclose(supernet(images), linear(images), rtol=1e-3, atol=1e-3)
        assert same is (classes == 7), "a classifier of these classes is kept"


def test_logits_of_no_single_linear_layer_are_said(tmp_path: Path) -> None:
    with begun(tmp_path, OF_TOKENS.format(classes=7)) as run:
        _ = run.data
        replaced, unfitted = run.record.metadata("data_notes")[-2:]
        assert "(6) was replaced by a new one for these 10, which learns them from" in replaced
        assert "one linear layer that reads one vector per image (6)" in unfitted
        known, supernet = baselines(run, silent), new_supernet(run)
        assert known.linear is known.features is None
        before = {name: tensor.clone() for name, tensor in supernet.state_dict().items()}
        adapt_start(run, supernet)
        assert all(torch.equal(before[name], one) for name, one in supernet.state_dict().items())
