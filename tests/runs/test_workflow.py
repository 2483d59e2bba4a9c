"""The whole job in a few lines of Python: what lies in the run directory, and that it is true."""

from __future__ import annotations

import numpy as np
import onnxruntime
import pytest

from pliant import Record, Run, run_all
from pliant.objective import Objective, as_limits
from pliant.report.summary import read_summary_file
from pliant.runs.recipe import parse_recipe, tomllib


def test_run_directory_holds_everything(finished):
    there = {path.name for path in finished.folder.iterdir()}
    assert {
        "recipe.toml",
        "record.sqlite",
        "device.json",
        "supernet",
        "best",
        "summary.json",
        "report.html",
    } <= there
    assert {path.name for path in (finished.folder / "best").iterdir()} == {
        "model.onnx",
        "model.int8.onnx",
        "model.safetensors",
        "model.py",
        "predict.py",
        "card.md",
        "SHA256SUMS",
    }
    assert (finished.folder / "supernet" / "weights.safetensors").is_file()
    assert list((finished.folder / "supernet" / "tensorboard").iterdir())
    assert not list(finished.folder.rglob(".*partial*"))


def test_test_split_is_opened_once_and_only_to_deliver(finished):
    assert (
        finished.openings["train"] == finished.openings["search"] == finished.openings["front"] == 0
    )
    assert finished.openings["deliver 2"] == 0
    assert finished.openings["deliver 4"] == 1
    with Record.read(finished.folder / "record.sqlite") as record:
        [opening] = record.events("test split opened")
        rows = [row for row in record.evaluations() if row.quality]
    assert {row.split for row in rows} == {"validation", "test"}
    assert max(row.created for row in rows if row.split == "validation") < opening.created
    assert opening.created < min(row.created for row in rows if row.split == "test")
    assert str(finished.result.found.chosen.architecture) in opening.details["purpose"]
    assert "opened once" in (finished.folder / "best" / "card.md").read_text("utf-8")


def test_chosen_network_is_the_best_that_holds_its_limits(finished):
    found = finished.result.found
    objective = Objective(limits=as_limits(["latency_ms=0.1", "parameters=20k"]))
    assert objective.admits(found.chosen.cost)
    assert found.chosen.measured is not None
    within = [one for one in found.shortlist if objective.admits(one.cost)]
    assert found.chosen.validated.top1 == max(one.validated.top1 for one in within)
    assert len(found.history) == len(found.random_history) == 20


def test_summary_is_complete_and_true(finished):
    summary = read_summary_file(finished.folder / "summary.json")
    found, delivered = finished.result.found, finished.result.delivered
    chosen, front = summary.chosen, summary.front
    assert chosen.architecture == str(found.chosen.architecture)
    assert chosen.measured == found.chosen.measured
    assert chosen.measured_apart == delivered.measured_apart
    assert chosen.test == delivered.test
    assert summary.target.measured
    assert summary.objective == Objective(limits=as_limits(["latency_ms=0.1", "parameters=20k"]))
    assert [one.architecture for one in front] == [str(one.architecture) for one in found.shortlist]
    assert all(one.test is not None for one in (*front, *summary.random_front))
    assert len(summary.search.points) == 40
    assert summary.training.precision == "fp32"
    assert summary.training.curve[-1].step == 33
    assert set(summary.training.curve[-1].losses) == {"largest", "random", "smallest"}
    assert len(summary.test_openings) == 1
    assert parse_recipe(tomllib.loads(summary.recipe_toml), "summary").name == "tiny"
    assert sum(one.cost.parameters for one in summary.blocks) == chosen.predicted.parameters


def test_claims_about_the_delivered_network_hold(finished):
    claims = {one.claim: one for one in finished.result.summary.evidence}
    for claim in (
        "Extracted network computes what the supernet computes",
        "model.onnx computes what PyTorch computes",
        "Exported network is as accurate as its source",
        "Limit latency_ms=0.1",
        "Limit parameters=20k",
    ):
        assert claims[claim].holds, claims[claim]
    parameters = finished.result.found.chosen.cost.parameters
    assert claims["Limit parameters=20k"].value == f"{parameters:.4g}"
    better = claims["Search beats random search at equal cost"]
    ours, random = map(float, better.value.split(" against "))
    assert better.undecided or better.holds == (ours > random)
    assert better.holds or better.advice


def test_delivered_onnx_is_as_accurate_as_the_card_says(finished):
    with Run.reopen(finished.folder) as run:
        images, labels = run.data.test._split.batch(np.arange(len(run.data.test)))
    session = onnxruntime.InferenceSession(
        finished.folder / "best" / "model.onnx", providers=["CPUExecutionProvider"]
    )
    pictures = images.permute(0, 2, 3, 1).numpy()
    [probabilities] = session.run(["probabilities"], {"pictures": pictures})
    share = (probabilities.argmax(1) == labels.numpy()).mean()
    assert f"| test accuracy | {share:.2%} |" in (finished.folder / "best" / "card.md").read_text(
        "utf-8"
    )


def test_same_job_again_finds_the_same_without_evaluating_again(copied, finished):
    def evaluations() -> int:
        with Record.read(copied / "record.sqlite") as record:
            return len(record.evaluations())

    before = evaluations()
    with Run.reopen(copied) as run:
        again = run_all(run)
        assert len(run.record.events("test split opened")) == 1
    assert evaluations() == before
    assert again.found.chosen.architecture == finished.result.found.chosen.architecture
    assert [one.validated for one in again.found.shortlist] == [
        one.validated for one in finished.result.found.shortlist
    ]


@pytest.mark.parametrize("name", ["digits", "fashion-mnist", "cifar10"])
def test_every_shipped_recipe_states_limits_that_parse(name):
    from pliant.runs.recipe import load_recipe

    assert load_recipe(name).parsed_limits


def test_all_evaluations_come_as_one_table_that_says_who_asked(finished):
    with Run.reopen(finished.folder) as run:
        table = run.evaluations()
        searcher = run.recipe.search.searcher
    asked = table["searcher"].to_pylist()
    assert asked.count(searcher) == asked.count("random") == 20
    history = [str(one.architecture) for one in finished.result.found.history]
    rows = zip(asked, table["architecture"].to_pylist(), strict=True)
    assert [architecture for by, architecture in rows if by == searcher] == history
    assert {"test", "validation"} <= set(table["split"].to_pylist())
