"""Scores side by side: the same in every process, looked up and never made twice, and honest about what failed."""

from __future__ import annotations

import importlib
import json
import math
import os
import signal
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from types import ModuleType, SimpleNamespace

import numpy as np
import pytest
import torch

from pliant import Record
from pliant.accuracy.zero_shot import COMPONENTS
from pliant.data import load
from pliant.errors import (
    DataError,
    InfeasibleError,
    MeasurementError,
    RecipeError,
    RunConflictError,
)
from pliant.metrics import Failed, Score
from pliant.objective import Limit
from pliant.scoring.inputs import (
    FileNetworks,
    Shape,
    networks_of,
    noise_batch,
    require_takes,
    training_batch,
)
from pliant.scoring.pool import Row, ScoreEstimator, ScorePool, Worker
from pliant.scoring.score import (
    chosen_methods,
    open_score_record,
    read_architectures,
    read_rows,
    score_networks,
    write_rows,
)
from pliant.scoring.zero_shot_search import Question, search_without_training
from pliant.spaces.presets import space_name

SHAPE = Shape(1, 8, 10)

SCORER = """
import os
from dataclasses import dataclass
import torch
from pliant.metrics import Failed

@dataclass
class Made:
    value: float
    interval: object = None
    seconds: float = 0.25
    notes: object = ()

def score(network, names, images, labels, *, seed):
    count = sum(parameter.numel() for parameter in network.parameters())
    with torch.no_grad():
        output = float(network.train()(images).std())
    if (marks := os.environ.get("SCORER_MARKS")) is not None:
        with open(marks, "a") as file:
            file.write(f"{count}\\n")
    known = {
        "output": Made(output, (output - 1, output + 1), notes=("a note", "and another")),
        "parameters": Made(float(count)),
        "macs": Made(2.0 * count),
        "dead": Made(float("-inf")),
        "nan": Made(float("nan")),
        "broken": Failed("it has no batch norm"),
        "threads": Made(float(torch.get_num_threads())),
    }
    return {name: known[name] for name in names}

def ended(network, names, images, labels, *, seed):
    os._exit(9)
"""


@pytest.fixture
def scorer(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> ModuleType:
    """A module of scores that other processes find as well."""
    folder = tmp_path / "scorers"
    folder.mkdir()
    (folder / "tiny_scorer.py").write_text(SCORER)
    monkeypatch.syspath_prepend(str(folder))
    monkeypatch.setenv("SCORER_MARKS", str(folder / "marks"))
    monkeypatch.delitem(sys.modules, "tiny_scorer", raising=False)
    return importlib.import_module("tiny_scorer")


@pytest.fixture
def worker(scorer: ModuleType) -> Worker:
    return Worker(networks_of("digits", SHAPE), noise_batch(SHAPE, 4, 0), scorer.score)


@pytest.fixture
def calls(tmp_path: Path, scorer: ModuleType) -> Callable[[], int]:
    marks = tmp_path / "scorers" / "marks"
    return lambda: len(marks.read_text().splitlines()) if marks.exists() else 0


def _names(count: int) -> list[str]:
    space, rng = networks_of("digits", SHAPE).space, np.random.default_rng(1)
    return list(dict.fromkeys(str(space.sample(rng)) for _ in range(count)))


def test_processes_come_to_what_this_one_does(worker):
    names, methods = _names(4), ["output", "parameters", "threads"]
    state = torch.random.get_rng_state()
    with ScorePool(worker, 1) as alone, ScorePool(worker, 2) as two:
        one = score_networks(names, methods, alone)
        assert score_networks(names, methods, two) == one
    assert torch.equal(torch.random.get_rng_state(), state), "the caller's random state is its own"
    assert {row.score for row in one if row.method == "threads"} == {1.0}
    assert [row.architecture for row in one] == [name for name in names for _ in methods]


def test_a_process_that_ends_is_told(worker, scorer):
    with (
        ScorePool(Worker(worker.subjects, worker.batch, scorer.ended), 2) as pool,
        pytest.raises(MeasurementError, match="ended from outside"),
    ):
        list(pool.score([("r8_1d1_1.1k3e2_2d1_2.1k3e2", ("output",))]))


def test_failures_are_rows(worker):
    with ScorePool(worker, 1) as pool:
        rows = {
            row.method: row
            for row in score_networks(_names(1), ["output", "dead", "nan", "broken"], pool)
        }
        [lost] = score_networks(["r8_nonsense"], ["output"], pool)
    assert rows["output"].notes == "a note; and another"
    assert rows["output"].high - rows["output"].low == pytest.approx(2)
    assert rows["dead"].score == float("-inf")
    assert rows["nan"].score is None
    assert "not a number" in rows["nan"].failure
    assert rows["broken"].failure == "it has no batch norm"
    assert "an architecture reads like" in lost.failure


def test_as_an_estimator(worker):
    space = networks_of("digits", SHAPE).space
    with ScorePool(worker, 1) as pool:
        ends = [space.smallest(), space.largest()]
        smallest, largest = ScoreEstimator(pool, "parameters").estimate(ends)
        assert isinstance(smallest, Score)
        assert isinstance(largest, Score)
        assert smallest.value < largest.value
        assert ScoreEstimator(pool, "broken").estimate(ends[:1]) == [Failed("it has no batch norm")]
        assert ScoreEstimator(pool, "dead").estimate(ends[:1]) == [Score(float("-inf"))]


def test_nothing_is_scored_twice(worker, calls, tmp_path):
    names, table = _names(6), tmp_path / "scores.parquet"
    stopped = 0

    def stop(step: str, done: int, total: int, note: str) -> None:
        nonlocal stopped
        stopped = done
        if done == 3:
            raise KeyboardInterrupt

    with ScorePool(worker, 1) as pool:
        with open_score_record(table) as record, pytest.raises(KeyboardInterrupt):
            score_networks(
                names, ["output", "broken", "dead"], pool, record=record, context="a", progress=stop
            )
        assert (stopped, calls()) == (3, 3)
        with open_score_record(table) as record:
            rows = score_networks(
                names, ["output", "broken", "dead"], pool, record=record, context="a"
            )
            assert calls() == 6
            score_networks(
                names, ["parameters", "output"], pool, record=record, context="a"
            )  # one more method for each
            assert calls() == 12
            score_networks(names, ["output"], pool, record=record, context="other images")
            assert calls() == 18
        assert rows == score_networks(names, ["output", "broken", "dead"], pool)


def test_az_nas_joins_ranks_over_the_table(worker):
    names = _names(4)
    views = {
        f"view {name}": [float(number), 1.0, -float(number), 2.0]
        for number, name in enumerate(names)
    }

    def score(network, methods, images, labels, *, seed):
        [values] = [
            views[f"view {name}"]
            for name in names
            if _count(name) == sum(one.numel() for one in network.parameters())
        ]
        return {
            method: worker.scorer.__globals__["Made"](value)
            for method, value in zip(COMPONENTS, values, strict=True)
        }

    def _count(name):
        return sum(one.numel() for one in worker.subjects.network(name).parameters())

    with ScorePool(Worker(worker.subjects, worker.batch, score), 1) as pool:
        rows = score_networks(names, ["az-nas"], pool)
    found = [row for row in rows if row.method == "az-nas"]
    assert [row.architecture for row in found] == names
    # Ranks 1 to 4 in one view, 4 to 1 in another, and a tie of all at 2.5 in the two others.
    expected = [
        math.log(rank / 4) + math.log((5 - rank) / 4) + 2 * math.log(2.5 / 4)
        for rank in (1, 2, 3, 4)
    ]
    assert [row.score for row in found] == pytest.approx(expected)
    assert found[0].seconds == 4 * 0.25
    assert len(rows) == 5 * len(names)


@pytest.mark.parametrize("ending", [".parquet", ".csv"])
def test_a_table_reads_back(tmp_path, ending):
    rows = [
        Row("|none~0|+|none~0|", "zen", 1.25, 1.0, 1.5, 0.1, "a, note"),
        Row("a_b", "dead", float("-inf"), seconds=0.0),
        Row("a_b", "zen", failure='it said "no"'),
    ]
    write_rows(rows, tmp_path / f"scores{ending}")
    assert read_rows(tmp_path / f"scores{ending}") == rows


@pytest.mark.parametrize(
    ("content", "said"),
    [
        ("name,score\nx,1\n", "column arch or architecture; .* has name, score"),
        ("", "has no rows"),
        ("arch,score\nx\n", "row 2 of .* has not"),
    ],
)
def test_a_list_that_is_none(tmp_path, content, said):
    (tmp_path / "cells.csv").write_text(content)
    with pytest.raises(DataError, match=said):
        read_architectures(tmp_path / "cells.csv")


def test_methods():
    needs = {"zen": "shape", "gradsign": "labels", "parameters": "shape", "macs": "shape"}
    known = {name: SimpleNamespace(needs=need) for name, need in needs.items()}
    assert chosen_methods("all", known) == tuple(known)
    assert chosen_methods("all", known, with_images=False) == ("zen", "parameters", "macs")
    assert chosen_methods(" gradsign,zen", known) == ("gradsign", "zen", "parameters", "macs")
    with pytest.raises(RecipeError, match="Did you mean 'gradsign'"):
        chosen_methods("gradsing", known)
    with pytest.raises(RecipeError, match="gradsign looks at labels"):
        chosen_methods("zen,gradsign", known, with_images=False)
    known |= {view: SimpleNamespace(needs="shape") for view in COMPONENTS}
    assert "az-nas" in chosen_methods("all", known)
    assert "az-nas" not in chosen_methods("all", known, several=False)
    with pytest.raises(RecipeError, match=r"received one\. Name az-expressivity"):
        chosen_methods("az-nas", known, several=False)


def test_short_names_of_spaces():
    assert space_name("mobile") == "mobile-32"
    assert space_name("digits") == "digits"
    with pytest.raises(RecipeError, match=r"Did you mean 'mobile-32'.*mobile for mobile-32"):
        space_name("mobil-32")


# Images.


def test_images_are_standard_and_of_the_training_split():
    data = load("digits", seed=0)
    batch = training_batch(data, 2000, 0)  # all of them
    assert len(batch.images) == len(data.train)
    assert batch.images.mean() == pytest.approx(0, abs=1e-5)
    assert batch.images.std() == pytest.approx(1, abs=1e-4)
    small = training_batch(data, 8, 0)
    assert (small.images == batch.images[:8]).all()
    assert (
        len(
            {
                small.digest,
                batch.digest,
                training_batch(data, 8, 1).digest,
                noise_batch(SHAPE, 8, 0).digest,
            }
        )
        == 4
    )
    assert small.digest == training_batch(data, 8, 0).digest
    assert data.test.openings == 0


# A file of one's own.

MODEL = """
from torch import nn
from neighbour import WIDTH

class Own(nn.Module):
    def __init__(self, width=WIDTH):
        super().__init__()
        self.conv = nn.Conv2d(1, width, 3)
        self.head = nn.Linear(width, 10)
    def forward(self, x):
        return self.head(self.conv(x).mean((2, 3)))

def build():
    return Own(4)

def needs(width):
    return Own(width)

def text():
    return "no module"

def raises():
    raise ValueError("out of paint")

class Features(Own):
    def forward(self, x):
        return self.conv(x)

made = build()
"""


@pytest.fixture
def model(tmp_path):
    (tmp_path / "neighbour.py").write_text("WIDTH = 6\n")
    path = tmp_path / "model.py"
    path.write_text(MODEL)
    return path


@pytest.mark.parametrize(("name", "width"), [("build", 4), ("Own", 6)])
def test_a_file_of_ones_own(model, scorer, name, width):
    text = f"{model}:{name}"
    networks = FileNetworks(text)
    batch = noise_batch(SHAPE, 4, 0)
    require_takes(networks.network(text), batch, text)
    with ScorePool(Worker(networks, batch, scorer.score), 1) as pool:
        [row] = score_networks([text], ["parameters"], pool)
    assert row.score == 9 * width + width + 10 * width + 10


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("model.py", "named as FILE:NAME"),
        ("none.py:build", "there is no file"),
        ("model.py:built", "has no 'built'. Did you mean 'build'"),
        ("model.py:needs", "needs width"),
        ("model.py:text", "gives str"),
        ("model.py:made", "is a Own; name a function"),
        ("model.py:raises", r"model.py, line \d+ raised ValueError: out of paint"),
    ],
)
def test_a_file_that_gives_no_network(model, monkeypatch, text, said):
    monkeypatch.chdir(model.parent)
    with pytest.raises(RecipeError, match=said):
        FileNetworks(text).network(text)


def test_a_network_that_does_not_take_the_images(model):
    network = FileNetworks(f"{model}:build").network("")
    with pytest.raises(
        DataError, match=r"must take a batch of the images, \(N, 3, 8, 8\); it raised RuntimeError"
    ):
        require_takes(network, noise_batch(Shape(3, 8, 10), 4, 0), "model.py:build")
    features = FileNetworks(f"{model}:Features").network("")
    with pytest.raises(DataError, match="must give a logit a class"):
        require_takes(features, noise_batch(SHAPE, 4, 0), "model.py:Features")


# Search without training.

_KILLED = """
import os, signal, sys
import tiny_scorer
from pathlib import Path
from pliant.objective import Limit
from pliant.scoring.pool import ScorePool, Worker
from pliant.scoring.inputs import Shape, networks_of, noise_batch
from pliant.scoring.zero_shot_search import Question, search_without_training

def watch(step, done, total, note):
    if done >= int(sys.argv[2]):
        os.kill(os.getpid(), signal.SIGKILL)

networks, batch = networks_of("digits", Shape(1, 8, 10)), noise_batch(Shape(1, 8, 10), 4, 0)
with ScorePool(Worker(networks, batch, tiny_scorer.score), 1) as pool:
    question = Question(networks.space, "output", (Limit("macs", 3e5),), 80)
    search_without_training(Path(sys.argv[1]), question, pool, progress=watch)
"""


def _question(**changes) -> Question:
    return Question(
        networks_of("digits", SHAPE).space, "output", (Limit("macs", 3e5),), 80, **changes
    )


def test_killed_search_ends_where_the_uninterrupted_one_does(worker, calls, tmp_path):
    folder = tmp_path / "killed"
    path = os.pathsep.join([str(tmp_path / "scorers"), os.environ.get("PYTHONPATH", "")])
    done = subprocess.run(
        [sys.executable, "-c", _KILLED, folder, "40"],
        env=os.environ | {"PYTHONPATH": path},
        check=False,
    )
    assert done.returncode == -signal.SIGKILL
    kept = calls()
    assert kept == 40  # five steps of the evolution
    with ScorePool(worker, 1) as pool:
        answer = search_without_training(folder, _question(), pool)
        assert (answer.scored, answer.random_scored, answer.failed) == (80, 80, 0)
        with Record.read(folder / "record.sqlite") as record:
            rows = record.evaluations("score")
        assert len(rows) == calls(), "every evaluation is in the record, and none was made twice"
        whole = search_without_training(tmp_path / "whole", _question(), pool)
    assert answer == whole
    assert (folder / "search.json").read_bytes() == (
        tmp_path / "whole" / "search.json"
    ).read_bytes()
    assert all(
        _question().objective.admits(pick.cost)
        for pick in (*answer.best, *answer.front, answer.random, answer.largest)
    )
    assert answer.largest.cost.parameters >= max(pick.cost.parameters for pick in answer.best)
    assert answer.chosen.score == max(
        pick.score for pick in (*answer.best, answer.random, answer.largest)
    )
    assert json.loads((folder / "search.json").read_text())["chosen"]["architecture"] == str(
        answer.chosen.architecture
    )


def test_search_with_other_limits_looks_up_what_was_scored(worker, calls, tmp_path):
    with ScorePool(worker, 1) as pool:
        search_without_training(tmp_path / "run", _question(), pool)
        before = calls()
        capped = search_without_training(tmp_path / "run", _question(max_depth=13), pool)
        assert calls() < before + capped.scored + capped.random_scored
        assert (
            max(pick.depth for pick in (*capped.best, *capped.front, capped.random, capped.largest))
            <= 13
        )
        with pytest.raises(InfeasibleError, match="Raise --max-depth to at least 11"):
            search_without_training(tmp_path / "run", _question(max_depth=8), pool)
        with pytest.raises(RunConflictError):
            search_without_training(
                tmp_path / "run", Question(_question().space, "parameters"), pool
            )


def test_search_in_which_everything_fails(worker, tmp_path):
    with ScorePool(worker, 1) as pool:
        answer = search_without_training(
            tmp_path, Question(_question().space, "broken", evaluations=40), pool
        )
    assert (answer.best, answer.front, answer.random, answer.chosen, answer.failed) == (
        (),
        (),
        None,
        None,
        80,
    )
    assert answer.failure == "it has no batch norm"


def test_latency_is_limited_by_a_profile_only(worker, tmp_path):
    with (
        ScorePool(worker, 1) as pool,
        pytest.raises(RecipeError, match=r"pliant profile RECIPE --space digits.*--target"),
    ):
        search_without_training(
            tmp_path, Question(_question().space, "output", (Limit("latency_ms", 1.0),)), pool
        )
