"""`pliant score`, `pliant fidelity` and `pliant search` with scores that take no time."""

from __future__ import annotations

import json

import numpy as np
import pytest

from pliant.accuracy import zero_shot
from pliant.accuracy.zero_shot import Method
from pliant.spaces.presets import preset


def _count(inputs):
    return float(sum(parameter.numel() for parameter in inputs.network.parameters()))


def _quick(inputs):
    return -abs(_count(inputs) - 9000)


def _taught(inputs):
    return inputs.labels.sum()


QUICK = (
    Method("quick", "shape", "", _quick),
    Method("taught", "labels", "", _taught),
    Method("parameters", "shape", "", _count),
    Method("macs", "shape", "", _count),
)


@pytest.fixture(autouse=True)
def _scores(monkeypatch):
    """Scores that look at parameters only, in this process."""
    monkeypatch.setattr(zero_shot.scores, "SCORES", {one.name: one for one in QUICK})
    monkeypatch.setenv("COLUMNS", "200")


@pytest.fixture
def cells(tmp_path):
    space, rng = preset("digits", channels=1, image_size=8, classes=10), np.random.default_rng(0)
    names = list(dict.fromkeys(str(space.sample(rng)) for _ in range(24)))
    (tmp_path / "cells.csv").write_text(
        "\n".join(["number,arch", *(f"{row},{name}" for row, name in enumerate(names))])
    )
    truth = [f"{name},{space.cost(space.parse(name)).parameters}" for name in names]
    (tmp_path / "truth.csv").write_text("\n".join(["arch,test", *truth]))
    return tmp_path / "cells.csv"


def _refused(done, *said):
    code, _, error = done
    assert code == 2
    assert all(words in error.replace("\n", " ") for words in said), error


def test_exit_code_if_all_that_was_asked_for_failed(command, cells, tmp_path):
    (tmp_path / "own.py").write_text("def fails(inputs):\n    raise ValueError('no')\n")
    words = ["score", "--space", "digits", "--architectures", cells, "--workers", "1", "--method"]
    own = f"{tmp_path / 'own.py'}:fails"
    code, said, _ = command(*words, own)
    assert code == 1
    assert "scores failed, the first: fails" in said
    assert command(*words, f"{own},quick")[0] == 0


def test_score_then_fidelity(command, cells, tmp_path):
    table = tmp_path / "scores.parquet"
    words = (
        "score",
        "--space",
        "digits",
        "--architectures",
        cells,
        "--method",
        "quick",
        "--data",
        "digits",
        "--out",
        table,
    )
    code, said, error = command(*words, "--workers", "1")
    assert (code, error) == (0, "")
    assert all(name in said for name in ("quick", "parameters", "macs", str(table)))
    code, said, error = command("fidelity", table, "--truth", tmp_path / "truth.csv")
    assert (code, error) == (0, "")
    assert "over parameters" in said
    assert (tmp_path / "scores.html").is_file()


def test_too_few_networks_are_said_to_be(command, cells, tmp_path):
    cells.write_text("\n".join(cells.read_text().splitlines()[:6]))
    table = tmp_path / "scores.csv"
    assert (
        command(
            "score",
            "--space",
            "digits",
            "--architectures",
            cells,
            "--out",
            table,
            "--workers",
            "1",
        )[0]
        == 0
    )
    code, said, _ = command("fidelity", table, "--truth", tmp_path / "truth.csv")
    assert code == 0
    assert "Intervals are left out" in said.replace("\n", " ")


def test_score_a_file_of_ones_own(command, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "model.py").write_text(
        "from torch import nn\n"
        "def build():\n    return nn.Sequential(nn.Flatten(), nn.Linear(64, 10))\n"
    )
    code, said, error = command("score", "model.py:build", "--method", "quick", "--data", "digits")
    assert (code, error) == (0, "")
    assert "650" in said
    assert "taught" in command("score", "model.py:build", "--data", "digits")[1]
    assert "taught" not in command("score", "model.py:build", "--shape", "1x8x8")[1]
    assert command("score", "model.py:build", "--shape", "1x8x8")[0] == 0
    _refused(
        command("score", "model.py:build", "--shape", "3x8x8"),
        "must take a batch of the images, (N, 3, 8, 8)",
    )
    _refused(command("score", "model.py:build"), "needs images to be scored", "--data SOURCE")
    _refused(
        command("score", "model.py:build", "--shape", "8x8"), "channels (1 or 3) x size x size"
    )


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["score"], ["a network of one's own", "--space and --architectures"]),
        (["score", "model.py:build", "--data", "digits"], ["model.py, which cannot be read"]),
        (
            ["score", "--space", "digits", "--architectures", "none.csv"],
            ["none.csv cannot be read"],
        ),
        (
            ["search"],
            ["a recipe or a run directory, --space and --estimator", "--strategy and --data"],
        ),
        (["search", "--space", "mobile"], ["--estimator"]),
        (
            ["search", "--space", "mobil", "--estimator", "quick"],
            ["no space is called 'mobil'", "mobile for mobile-32"],
        ),
        (["search", "--space", "mobile", "--estimator", "quik"], ["Did you mean 'quick'"]),
        (
            ["search", "--space", "mobile", "--estimator", "taught"],
            ["taught looks at labels", "--data"],
        ),
        (["search", "--space", "mobile", "--estimator", "quick,macs"], ["maximises one score"]),
        (
            ["search", "--space", "mobile", "--estimator", "quick", "--limit", "macs=1k"],
            ["Raise macs to at least"],
        ),
        (
            ["search", "--space", "mobile", "--estimator", "quick", "--limit", "latency=1ms"],
            ["--target"],
        ),
        (["search", "digits", "--space", "mobile"], ["received --space.", "leave the recipe out"]),
        (
            ["search", "digits", "--evaluations", "9", "--images", "8"],
            ["received --evaluations, --images."],
        ),
        (["fidelity", "none.parquet", "--truth", "none.csv"], ["none.parquet cannot be read"]),
    ],
)
def test_mistakes(command, tmp_path, monkeypatch, words, said):
    monkeypatch.chdir(tmp_path)
    _refused(command(*words), *said)
    assert not list(tmp_path.glob("**/record.sqlite"))


def test_search_without_training(command, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    words = (
        "search",
        "--space",
        "digits",
        "--estimator",
        "quick",
        "--limit",
        "macs=300k",
        "--evaluations",
        "60",
        "--workers",
        "1",
    )
    code, said, error = command(*words)
    assert (code, error) == (0, "")
    said = said.replace("\n", " ")
    assert all(
        name in said
        for name in (
            "evolution",
            "random search",
            "parameter count",
            "60 networks scored by evolution and 60 at random",
        )
    )
    assert (
        "pliant train cifar10 --space digits --data YOUR_IMAGES --run-dir runs/digits-quick/trained"
        in said
    )
    found = json.loads((tmp_path / "runs" / "digits-quick" / "search.json").read_text())
    assert (
        f"pliant deploy runs/digits-quick/trained --architecture {found['chosen']['architecture']}"
        in said
    )
    assert all(pick["cost"]["macs"] <= 300_000 for pick in found["best"])
