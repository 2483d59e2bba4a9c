"""A run that begins with a network of the user's own says what becomes of its classifier."""

from __future__ import annotations

from pathlib import Path

import pytest

from pliant import Run

NETWORK = """
from torch import nn

def build():
    return nn.Sequential(
        nn.Conv2d(1, 32, 3, padding=1), nn.BatchNorm2d(32), nn.ReLU(),
        nn.Conv2d(32, 16, 3, padding=1), nn.BatchNorm2d(16), nn.ReLU(),
        nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(16, {classes}),
    )
"""
RECIPE = """
space = "start"
limits = ["parameters=4k"]
data.source = "digits"
train.epochs = 1
train.start = "{start}"
"""


@pytest.mark.parametrize("classes", [10, 7])
def test_a_replaced_classifier_is_said(tmp_path: Path, classes: int) -> None:
    (tmp_path / "net.py").write_text(NETWORK.format(classes=classes))
    recipe = tmp_path / "recipe.toml"
    recipe.write_text(RECIPE.format(start=tmp_path / "net.py:build"))
    with Run.create(str(recipe), folder=tmp_path / "run") as run:
        _ = run.data
        notes = [note for note in run.record.metadata("data_notes") if "classifier" in note]
    replaced = "its classifier (8) was replaced by a new one for these 10"
    assert [replaced in note for note in notes] == ([] if classes == 10 else [True])
