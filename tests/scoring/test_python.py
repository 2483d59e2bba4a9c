"""Python's scores take what the command `pliant score` takes, and find the same."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from torch import nn

import pliant
from pliant.errors import DataError, RecipeError
from pliant.scoring import Shape, as_batch, read_rows, score_networks, search_by_score
from pliant.spaces import preset

MODEL = """
from torch import nn

def build():
    return nn.Sequential(nn.Flatten(), nn.Linear(64, 10))
"""


def values(rows):
    return {(row.architecture, row.method): row.score for row in rows}


@pytest.fixture(scope="module")
def digits_space():
    return preset("digits", channels=1, image_size=8, classes=10)


def test_images_are_named_or_given(digits):
    named = as_batch("digits", 32, seed=3)
    assert named.digest == as_batch(pliant.load("digits", seed=3), 32, seed=3).digest
    assert as_batch(named) is named
    noise = as_batch(Shape(1, 8, 10))
    assert (noise.images.shape, noise.labels) == ((64, 1, 8, 8), None)


def test_a_space_is_named_and_its_networks_are_those_of_a_file(digits_space, tmp_path, command):
    names = [str(digits_space.smallest()), str(digits_space.largest())]
    listed = tmp_path / "cells.csv"
    listed.write_text("\n".join(["arch", *names]), "utf-8")
    found = score_networks("digits", "synflow,grad-norm", architectures=listed, batch="digits")
    given = as_batch(pliant.load("digits", seed=0))
    methods = ["synflow", "grad-norm"]
    expected = score_networks(digits_space, methods, architectures=names, batch=given)
    assert values(found) == values(expected)
    assert len(found) == 2 * 4, "with the baselines"
    words = ["--space", "digits", "--architectures", listed, "--data", "digits"]
    table = tmp_path / "scores.csv"
    command("score", *words, "--method", "synflow,grad-norm", "--workers", 1, "--out", table)
    assert values(read_rows(table)) == values(found)


def test_a_network_is_named_or_given(tmp_path):
    path = tmp_path / "model.py"
    path.write_text(MODEL, "utf-8")
    named = score_networks(f"{path}:build", "parameters", batch="digits")
    assert values(named)[f"{path}:build", "parameters"] == 650
    network = nn.Sequential(nn.Flatten(), nn.Linear(64, 10))
    given = score_networks(network, "parameters", batch=Shape(1, 8, 10))
    assert values(given)["Sequential", "parameters"] == 650
    with pytest.raises(DataError, match="must take a batch"):
        score_networks(f"{path}:build", "parameters", batch=Shape(3, 32, 10))
    with pytest.raises(RecipeError, match="needs images to be scored"):
        score_networks(network, "parameters")


def test_names_that_mean_nothing():
    with pytest.raises(RecipeError, match=r"no space is called 'digitz'.*'digits'"):
        score_networks("digitz", "zen", architectures=["r8"])
    with pytest.raises(RecipeError, match=r"received none\. Pass their architectures"):
        score_networks("digits", "zen")


def test_scores_of_one_network_are_named_with_commas():
    network, images = nn.Sequential(nn.Flatten(), nn.Linear(64, 10)), torch.zeros(4, 1, 8, 8)
    assert list(pliant.score(network, "parameters, macs", images)) == ["parameters", "macs"]


def test_a_search_names_its_space_and_takes_limit_objects(tmp_path, digits_space):
    limit = pliant.Limit("parameters", 20_000)
    found = search_by_score(
        "digits", "parameters", tmp_path / "one", limits=[limit], evaluations=20
    )
    again = search_by_score(
        digits_space, "parameters", str(tmp_path / "other"), limits="parameters=20k", evaluations=20
    )
    assert found.chosen.architecture == again.chosen.architecture
    assert found.chosen.cost.parameters <= 20_000
    assert Path(tmp_path / "other" / "search.json").is_file()
