"""`pliant estimate`: nothing is computed twice, failures are rows, and the advice is honest."""

from __future__ import annotations

import json
import re
from dataclasses import replace
from pathlib import Path

import numpy as np
import pyarrow.parquet as pq
import pytest
from typer.testing import CliRunner

from pliant.accuracy.scratch import TrainFromScratch
from pliant.cli.app import app
from pliant.estimation.comparison import Evaluated, compare
from pliant.estimation.estimators import EstimatorSettings
from pliant.estimation.run import estimate_networks
from pliant.estimation.spread import spread_over_macs
from pliant.metrics import Accuracy, Estimate, Failed, Stopped
from pliant.progress import silent

SETTINGS = EstimatorSettings(
    "digits",
    "digits",
    train_share=0.2,
    images=50,
    epochs=1,
    shared_epochs=1,
    strategy="single-path",
    predictor_evaluations=12,
)
ALL = "scratch,supernet,hypernetwork,inherit,predictor,zero-shot"


def estimated(folder: Path, workers: int = 0, estimators: str = ALL, epochs: int = 1):
    return estimate_networks(
        replace(SETTINGS, epochs=epochs),
        estimators,
        folder / "estimates.parquet",
        architectures=4,
        scores="zen",
        workers=workers,
        progress=silent,
    )


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    made = tmp_path_factory.mktemp("estimates")
    estimated(made)
    return made


def test_every_estimator_has_a_row_per_network(folder):
    rows = pq.read_table(folder / "estimates.parquet").to_pylist()
    names = ["scratch", "scratch 1", "supernet", "hypernetwork", "inherit", "predictor", "zen"]
    assert [row["estimator"] for row in rows] == [name for name in names for _ in range(4)]
    assert all((row["top1"] is None) == (row["estimator"] == "zen") for row in rows)
    assert [epoch for epoch, _ in json.loads(rows[0]["curve"])] == [1.0]
    macs = [row["macs"] for row in rows[:4]]
    assert macs == sorted(macs)


def test_nothing_is_computed_twice(folder, monkeypatch):
    before = pq.read_table(folder / "estimates.parquet")
    monkeypatch.setattr(TrainFromScratch, "evaluate_one", None)  # a call would be an error
    estimated(folder)
    assert (
        pq.read_table(folder / "estimates.parquet")
        .drop_columns(["seconds"])
        .equals(before.drop_columns(["seconds"]))
    )


def test_killed_it_resumes_and_processes_find_the_same(folder, tmp_path, monkeypatch):
    whole = TrainFromScratch.evaluate_one
    done = []

    def killed(self, architecture):
        if len(done) == 2:
            raise KeyboardInterrupt
        done.append(architecture)
        return whole(self, architecture)

    monkeypatch.setattr(TrainFromScratch, "evaluate_one", killed)
    with pytest.raises(KeyboardInterrupt):
        estimated(tmp_path, estimators="scratch,supernet")
    monkeypatch.undo()
    estimated(tmp_path, workers=1, estimators="scratch,supernet")
    rows = pq.read_table(tmp_path / "estimates.parquet").to_pylist()
    expected = pq.read_table(folder / "estimates.parquet").to_pylist()[: len(rows)]
    assert [row["top1"] for row in rows] == [row["top1"] for row in expected]


def halved(folder: Path, workers: int = 0):
    return estimate_networks(
        replace(SETTINGS, epochs=2),
        "scratch",
        folder / "estimates.parquet",
        architectures=4,
        seeds=2,
        halving=2,
        workers=workers,
        progress=silent,
    )


def test_stopped_networks_keep_what_they_had_reached_apart(tmp_path, monkeypatch):
    result = halved(tmp_path)
    rows = pq.read_table(tmp_path / "estimates.parquet").to_pylist()
    first, second = rows[:4], rows[4:]
    stopped = [row for row in first if row["top1"] is None]
    assert 1 <= len(stopped) <= 2
    assert all(row["stopped_epochs"] == 1 and 0 < row["stopped_top1"] < 1 for row in stopped)
    assert all("1 of 2 epochs" in row["failure"] for row in stopped)
    finished = [row["architecture"] for row in first if row["top1"] is not None]
    assert [row["architecture"] for row in second if row["top1"] is not None] == finished
    assert result.evaluated[0].failed == 0
    # Trained to the end, a network has the same row as without early stopping.
    whole = estimated(tmp_path / "whole", estimators="scratch", epochs=2)
    known = dict(zip(whole.architectures, whole.evaluated[0].estimates, strict=True))
    for one, found in zip(result.architectures, result.evaluated[0].estimates, strict=True):
        if isinstance(found.quality, Accuracy):
            assert (found.quality, found.curve) == (known[one].quality, known[one].curve)
        else:
            assert isinstance(found.quality, Stopped)
    monkeypatch.setattr(TrainFromScratch, "train_until", None)  # a call would be an error
    assert halved(tmp_path).evaluated == result.evaluated


def test_early_stopping_resumes_at_the_rung_where_it_was_killed(tmp_path, monkeypatch):
    whole, calls = TrainFromScratch.train_until, []

    def counted(self, architecture, epoch):
        calls.append((self.recipe.seed, str(architecture), epoch))
        if len(calls) == 3:
            raise KeyboardInterrupt
        return whole(self, architecture, epoch)

    monkeypatch.setattr(TrainFromScratch, "train_until", counted)
    with pytest.raises(KeyboardInterrupt):
        halved(tmp_path)
    halved(tmp_path)
    assert calls.pop(2) == calls[2]  # only what was interrupted began again
    assert len(set(calls)) == len(calls)


def diverging(monkeypatch, fails):
    """Training from scratch with a rate that no network survives, where `fails` says so."""
    whole = TrainFromScratch.train_until

    def train(self, architecture, epoch):
        usual = self.recipe
        if fails(architecture):
            self.recipe = replace(usual, learning_rate=1e30, clip_norm=0)
        try:
            return whole(self, architecture, epoch)
        finally:
            self.recipe = usual

    monkeypatch.setattr(TrainFromScratch, "train_until", train)


def test_a_diverged_training_is_a_failed_row_with_its_curve_and_the_others_go_on(
    tmp_path, monkeypatch, digits_space
):
    diverging(monkeypatch, lambda one: one == digits_space.smallest())
    for _ in range(2):  # trained, then from the record
        result = estimated(tmp_path, estimators="scratch", epochs=2)
        first, *others = result.evaluated[0].estimates
        assert isinstance(first.quality, Failed)
        assert re.search("diverged: after step [1-6] ", first.quality.reason)  # at once
        [(epoch, loss)] = first.curve
        assert 0 < epoch < 1
        assert loss > 0
        assert all(isinstance(one.quality, Accuracy) for one in others)
        assert result.comparison.without_truth == 1
        monkeypatch.setattr(TrainFromScratch, "evaluate_one", None)  # a call would be an error
    row = pq.read_table(tmp_path / "estimates.parquet").to_pylist()[0]
    assert row["top1"] is None
    assert "diverged" in row["failure"]
    assert len(json.loads(row["curve"])) == 1


def test_missing_memory_costs_one_network_and_is_tried_again_later(
    tmp_path, monkeypatch, digits_space
):
    whole = TrainFromScratch.evaluate_one

    def starved(self, architecture):
        if architecture == digits_space.largest():
            raise RuntimeError("DefaultCPUAllocator: can't allocate memory: you tried 1e15 bytes")
        return whole(self, architecture)

    monkeypatch.setattr(TrainFromScratch, "evaluate_one", starved)
    *others, largest = estimated(tmp_path, estimators="scratch").evaluated[0].estimates
    assert all(isinstance(one.quality, Accuracy) for one in others)
    assert "lost on 2 workers, at last: out of memory" in largest.quality.reason
    monkeypatch.undo()
    *_, largest = estimated(tmp_path, estimators="scratch").evaluated[0].estimates
    assert isinstance(largest.quality, Accuracy)


def test_a_paused_training_ends_as_a_whole_one(digits_space, digits, tmp_path):
    whole = TrainFromScratch(digits_space, digits, epochs=2, images=50)
    paused = TrainFromScratch(digits_space, digits, epochs=2, images=50, folder=tmp_path)
    assert paused.identity == whole.identity
    paused.train_until(digits_space.smallest(), 1)
    [expected] = whole.evaluate([digits_space.smallest()])
    found = paused.train_until(digits_space.smallest(), 2)
    assert (found.quality, found.curve) == (expected.quality, expected.curve)


def test_networks_are_spread_over_the_costs(digits_space):
    drawn = spread_over_macs(digits_space, 12, 0)
    macs = np.log([digits_space.cost(one).macs for one in drawn])
    assert len(set(drawn)) == 12
    assert (drawn[0], drawn[-1]) == (digits_space.smallest(), digits_space.largest())
    assert np.diff(macs).max() < 2 * np.diff(macs).mean()


def made(name: str, values, seconds: float = 1.0, setup: float = 0.0) -> Evaluated:
    return Evaluated(name, [Estimate(Accuracy(one, 100), seconds) for one in values], setup)


def advice(others, *, networks: int = 40, noise: float = 0.0):
    rng = np.random.default_rng(0)
    top1 = np.linspace(0.5, 0.9, networks)
    truth = [made("scratch", top1), made("scratch 1", np.clip(top1 + noise, 0, 1))]
    sizes = {"parameters": rng.permutation(networks), "macs": rng.permutation(networks)}
    made_others = [one(top1, rng) for one in others]
    return compare(truth, made_others, {name: list(map(float, one)) for name, one in sizes.items()})


def good(top1, rng):
    return made("good", top1, seconds=3.0)


def cheap(top1, rng):
    return made("cheap", top1, seconds=0.5)


def bad(top1, rng):
    return made("bad", rng.permutation(top1), seconds=0.1)


def test_advice_goes_by_intervals():
    assert advice([good, bad]).advice.startswith("Trust good: Kendall tau +1.000")
    found = advice([good, cheap, bad])
    assert found.advice.startswith("Trust cheap")
    assert "good cannot be told apart" in found.advice
    assert found.reliability.value == pytest.approx(1)
    assert advice([bad]).advice.startswith("No estimator ranks these networks better than ")
    assert "too few" in advice([good], networks=12).advice


def test_advice_names_the_baseline_to_beat_with_its_own_tau():
    top1 = list(np.linspace(0.5, 0.9, 30))
    sizes = {"parameters": [1.0] * 30, "macs": [-value for value in top1]}
    found = compare([made("scratch", top1)], [made("mine", top1)], sizes)
    assert "better than fewer macs (Kendall tau +1.000" in found.advice
    assert "the best is mine, +1.000" in found.advice
    assert "choose by fewer macs" in found.advice


def test_networks_without_truth_are_left_out():
    truth = made("scratch", np.linspace(0.1, 0.9, 8))
    broken = [*truth.estimates[:-1], Estimate(Failed("diverged"), 1.0)]
    sizes = {"parameters": [1.0] * 8, "macs": [1.0] * 8}
    found = compare([truth, Evaluated("scratch 1", broken)], [], sizes)
    assert (found.networks, found.without_truth) == (7, 1)
    assert compare([Evaluated("scratch", broken[-1:] * 8)], [], sizes) is None


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (["--estimator", "scrach"], "an estimator is one of"),
        (["--workers", "many"], "a number of processes, or a Ray cluster"),
        (["--workers", "ray://127.0.0.1:1"], "ray://127.0.0.1:1 could not be"),
        (["--out", "table.txt"], ".parquet or .csv"),
        (["--architectures", "nothing.csv"], "a number of networks or a CSV file"),
        (["--data", "nowhere/"], "nowhere"),
        (["--halving", "2", "--epochs", "1"], "at least 2 epochs"),
        (["--halving", "2", "--estimator", "supernet"], "Add scratch"),
    ],
)
def test_wrong_input_is_one_sentence(options, message, tmp_path):
    given = ["estimate", "--space", "digits", "--data", "digits", "--out", str(tmp_path / "e.csv")]
    result = CliRunner().invoke(app, [*given, *options])
    assert message in str(result.exception or result.output)
