"""`pliant search --estimator`: budgets, lineages, resuming, and what is refused."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from typer.testing import CliRunner

from pliant.accuracy.inherit import InheritWeights
from pliant.accuracy.scratch import TrainFromScratch
from pliant.cli.app import app
from pliant.errors import InfeasibleError, RecipeError
from pliant.estimation.budget import Budget, parse_budget
from pliant.estimation.estimators import EstimatorSettings
from pliant.estimation.search import SEARCHING_ESTIMATORS, search_by_estimator
from pliant.metrics import Accuracy, Estimate
from pliant.progress import silent
from pliant.record import Record

SETTINGS = EstimatorSettings(
    "digits",
    "digits",
    train_share=0.1,
    images=50,
    epochs=2,
    shared_epochs=1,
    strategy="single-path",
    predictor_source="scratch",
    predictor_evaluations=12,
)


def searched(folder: Path, estimator: str = "inherit", workers: int = 0, **options):
    given = {"budget": "40epochs", "limits": ["macs=300k"], "evaluations": 6, "finalists": 1}
    return search_by_estimator(
        SETTINGS, estimator, folder, workers=workers, progress=silent, **{**given, **options}
    )


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    made = tmp_path_factory.mktemp("search")
    searched(made)
    return made


def test_children_inherit_and_their_lineage_is_recorded(folder):
    with Record.open(folder / "record.sqlite", recipe_digest=digest(folder)) as record:
        rows = record.evaluations("inherit")
        by_chance = record.evaluations("scratch")
    # 4 roots of 2 epochs and 2 children of one: at the same cost, 5 random networks.
    assert (len(rows), len(by_chance)) == (6, 5)
    known = {row.architecture for row in rows}
    for row in rows:
        ancestors = row.measures["ancestors"]
        assert row.measures["epochs"] == (1 if ancestors else 2)
        assert row.measures["lineage_epochs"] == 2 + len(ancestors)
        assert set(ancestors) <= known
    assert max(len(row.measures["ancestors"]) for row in rows) >= 1
    assert all(not row.measures["ancestors"] for row in by_chance)
    # A row depends on its ancestors: those of another lineage are never looked up for it.
    lines = {(row.context, tuple(row.measures["ancestors"])) for row in rows}
    assert len(lines) == len(dict(lines)) == len({line for _, line in lines}) > 1


def digest(folder: Path) -> str:
    with Record.read(folder / "record.sqlite") as record:
        return record.metadata("recipe_digest")


def test_finalists_are_trained_from_scratch_within_the_limits(folder):
    found = json.loads((folder / "search.json").read_text())
    assert [one["by"] for one in found["finalists"]] == [
        "evolution",
        "random search",
        "parameter count",
    ]
    assert all(0 <= one["retrained"] <= 1 for one in found["finalists"])
    assert all(one["cost"]["macs"] <= 300_000 for one in found["finalists"])
    first = found["finalists"][0]
    assert first["gap_points"] == pytest.approx(100 * (first["estimated"] - first["retrained"]))
    assert (found["evaluated"], found["random_evaluated"]) == (6, 5)
    assert found["spent"] == found["random_spent"] == 10


def test_started_again_nothing_is_computed_and_killed_it_resumes(folder, tmp_path, monkeypatch):
    whole, calls = InheritWeights.evaluate_one, []

    def killed(self, architecture):
        if len(calls) == 4:
            raise KeyboardInterrupt
        calls.append(architecture)
        return whole(self, architecture)

    monkeypatch.setattr(InheritWeights, "evaluate_one", killed)
    with pytest.raises(KeyboardInterrupt):
        searched(tmp_path)
    monkeypatch.undo()
    searched(tmp_path)
    assert (tmp_path / "search.json").read_text() == (folder / "search.json").read_text()
    for estimator in (InheritWeights, TrainFromScratch):
        monkeypatch.setattr(estimator, "evaluate_one", None)  # a call would be an error
    searched(folder)


@pytest.mark.slow
def test_processes_find_the_same(folder, tmp_path):
    searched(tmp_path, workers=2)
    ours, theirs = (
        json.loads((one / "search.json").read_text())["finalists"] for one in (folder, tmp_path)
    )
    assert ours == theirs


@pytest.mark.parametrize("estimator", ["supernet", "hypernetwork"])
def test_any_estimator_searches_in_a_time(estimator, tmp_path):
    result = searched(tmp_path, estimator, budget="1h", evaluations=4)
    assert result.evaluated == result.random_evaluated == 4
    assert all(isinstance(one.retrained, Accuracy) for one in result.finalists)
    assert result.unit == "CPU seconds"
    assert result.chosen in result.finalists
    assert result.setup_seconds > 0
    with Record.read(tmp_path / "record.sqlite") as record:
        assert all("epochs" not in row.measures for row in record.evaluations(estimator))


def test_only_inherited_weights_depend_on_ancestors(tmp_path):
    result = searched(tmp_path, "scratch", evaluations=5)
    assert result.spent == result.random_spent == result.evaluated * SETTINGS.epochs
    with Record.read(tmp_path / "record.sqlite") as record:
        rows = record.evaluations("scratch")
    assert len({row.context for row in rows}) == 1
    assert all(not row.measures["ancestors"] for row in rows)
    assert all(one.lineage_epochs is None for one in result.finalists)


def test_a_predictor_that_ranks_by_chance_is_refused(tmp_path, monkeypatch):
    digits = iter("314159265358979")

    def by_chance(self, architecture):
        return Estimate(Accuracy(int(next(digits)) / 10, 50), 0.1)

    monkeypatch.setattr(TrainFromScratch, "evaluate_one", by_chance)
    with pytest.raises(RecipeError, match="ranks held-out networks better than chance"):
        searched(tmp_path, "predictor", budget="1h")


def test_a_predictor_learns_from_what_it_puts_first(tmp_path, monkeypatch, digits_space):
    def by_parameters(self, architecture):
        return Estimate(Accuracy(min(1.0, self.space.cost(architecture).parameters / 1e5), 50), 0.1)

    monkeypatch.setattr(TrainFromScratch, "evaluate_one", by_parameters)
    result = searched(tmp_path, "predictor", budget="1h", limits=["parameters=30k"], evaluations=60)
    with Record.read(tmp_path / "record.sqlite") as record:
        rows = record.evaluations("scratch")
    assert result.predictor.rows == len(rows) > SETTINGS.predictor_evaluations
    random, promising = rows[:12], rows[12:]
    assert all(row.cost.parameters <= 30_000 for row in promising)
    within = [row.quality.top1 for row in random if row.cost.parameters <= 30_000]
    assert min(row.quality.top1 for row in promising) > sorted(within)[len(within) // 2]


def test_a_budget_is_a_time_or_epochs():
    assert parse_budget("2h", "supernet") == Budget(seconds=7200.0)
    assert parse_budget("200 epochs", "inherit") == Budget(epochs=200)
    for text in ("", "2", "h", "-3min", "0epochs", "1.5epochs"):
        with pytest.raises(RecipeError, match="2h or 90min"):
            parse_budget(text, "scratch")
    with pytest.raises(RecipeError, match="train every network"):
        parse_budget("200epochs", "supernet")


def test_a_budget_that_is_spent_before_the_first_network_is_refused(tmp_path):
    with pytest.raises(RecipeError, match="more than what networks share takes"):
        searched(tmp_path, "supernet", budget="0.001s")


def test_a_budget_below_one_training_is_refused_before_anything_is_written(tmp_path):
    with pytest.raises(RecipeError, match="takes 2 epochs; received 1 epochs"):
        searched(tmp_path / "new", budget="1epochs")
    assert not (tmp_path / "new").exists()


def test_limits_that_cannot_be_met_are_refused_before_any_training(tmp_path, monkeypatch):
    monkeypatch.setattr(TrainFromScratch, "evaluate_one", None)
    with pytest.raises(InfeasibleError, match="Raise macs to at least"):
        searched(tmp_path, "scratch", limits=["macs=1k"])


SEARCH = ["search", "--space", "digits", "--data", "digits", "--estimator"]


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["inherit"], "received no --budget"),
        (["inherit", "--budget", "2h", "--shared-epochs", "3"], "--shared-epochs"),
        (["scratch", "--budget", "2h", "--shape", "1x8x8"], "--shape"),
        (["supernet", "--budget", "2h", "--searcher", "random"], "--searcher"),
        (["supernet", "--budget", "9epochs"], "train every network"),
        (["zen", "--budget", "2h"], "--budget"),
        (["zen", "--epochs", "2"], "--epochs"),
        (["zero-shot", "--train-share", "0.5"], "--train-share"),
        (["inherit", "--budget", "2h", "--workers", "many"], "a number of processes"),
        (["inherit", "--budget", "2h", "--workers", "ray://127.0.0.1:1"], "could not be"),
        (["zen", "--workers", "ray://127.0.0.1:1"], "could not be"),
    ],
)
def test_options_of_another_mode_are_refused(words, message, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    result = CliRunner().invoke(app, [*SEARCH, *words])
    assert message in str(result.exception or result.output)
    assert "\n" not in str(result.exception)
    assert not list(tmp_path.glob("runs/*/record.sqlite"))


def test_the_searching_estimators_of_the_command_are_those_of_the_package():
    from pliant.cli import estimator_search

    assert estimator_search.SEARCHING_ESTIMATORS == SEARCHING_ESTIMATORS
