"""Scores: the same in every process, looked up and never computed twice, failures told."""

from __future__ import annotations

import importlib
import json
import math
import os
import signal
import subprocess
import sys
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from types import ModuleType

import numpy as np
import pytest
import torch

from pliant import Record
from pliant.accuracy.zero_shot import AGGREGATES, COMPONENTS, SCORES, Method, ScoringInput
from pliant.data import load
from pliant.errors import (
    DataError,
    InfeasibleError,
    RecipeError,
    RunConflictError,
)
from pliant.metrics import Accuracy, Cost, Failed, Score
from pliant.objective import Limit
from pliant.progress import silent
from pliant.scoring.images import Shape, noise_batch, training_batch
from pliant.scoring.networks import FileNetworks, preset_networks, require_accepts
from pliant.scoring.process_pool import ScoreEstimator, ScorePool, ScoreRow, Worker
from pliant.scoring.score import open_score_record, score_in_pool, score_networks
from pliant.scoring.score_tables import read_architectures, read_rows, write_rows
from pliant.scoring.selection import Selection, select_methods
from pliant.scoring.zero_shot_search import (
    ZeroShotSearchConfiguration,
    cost_model,
    search_by_score,
    search_without_training,
)
from pliant.spaces.presets import space_name
from pliant.targets import Arithmetic, FunctionTarget

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
    return Worker(preset_networks("digits", SHAPE), noise_batch(SHAPE, 4, 0), scorer.score)


@pytest.fixture
def calls(tmp_path: Path, scorer: ModuleType) -> Callable[[], int]:
    marks = tmp_path / "scorers" / "marks"
    return lambda: len(marks.read_text().splitlines()) if marks.exists() else 0


def _selection(*names: str) -> Selection:
    """Scores that only the worker's scorer knows; az-nas with its components."""
    single = [name for name in names if name != "az-nas"]
    single += COMPONENTS if "az-nas" in names else ()
    methods = tuple(Method(name, "shape", "", lambda inputs: 0.0) for name in single)
    return Selection(methods, tuple(AGGREGATES.values()) if "az-nas" in names else ())


def _names(count: int) -> list[str]:
    space, rng = preset_networks("digits", SHAPE).space, np.random.default_rng(1)
    return list(dict.fromkeys(str(space.sample(rng)) for _ in range(count)))


def test_processes_come_to_what_this_one_does(worker):
    names, methods = _names(4), ["output", "parameters", "threads"]
    state = torch.random.get_rng_state()
    with ScorePool(worker, 1) as alone, ScorePool(worker, 2) as two:
        one = score_in_pool(names, _selection(*methods), alone)
        assert score_in_pool(names, _selection(*methods), two) == one
    assert torch.equal(torch.random.get_rng_state(), state), "the caller's random state is its own"
    assert {row.score for row in one if row.method == "threads"} == {1.0}
    assert [row.architecture for row in one] == [name for name in names for _ in methods]


def test_a_network_that_ends_processes_is_a_failure(worker, scorer):
    with ScorePool(Worker(worker.networks, worker.batch, scorer.ended), 2) as pool:
        [[row]] = list(pool.score([("r8_1d1_1.1k3e2_2d1_2.1k3e2", ("output",))]))
    assert row.failure == "lost on 2 workers, at last: its process died with exit code 9"


def test_failures_are_rows(worker):
    with ScorePool(worker, 1) as pool:
        rows = {
            row.method: row
            for row in score_in_pool(_names(1), _selection("output", "dead", "nan", "broken"), pool)
        }
        [lost] = score_in_pool(["r8_nonsense"], _selection("output"), pool)
    assert rows["output"].notes == "a note; and another"
    assert rows["output"].high - rows["output"].low == pytest.approx(2)
    assert rows["dead"].score == float("-inf")
    assert rows["nan"].score is None
    assert "nan returned nan" in rows["nan"].failure
    assert rows["broken"].failure == "it has no batch norm"
    assert "an architecture reads like" in lost.failure


def test_as_an_estimator(worker):
    space = preset_networks("digits", SHAPE).space
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
            score_in_pool(
                names,
                _selection("output", "broken", "dead"),
                pool,
                record=record,
                context="a",
                progress=stop,
            )
        assert (stopped, calls()) == (3, 3)
        with open_score_record(table) as record:
            rows = score_in_pool(
                names, _selection("output", "broken", "dead"), pool, record=record, context="a"
            )
            assert calls() == 6
            score_in_pool(
                names, _selection("parameters", "output"), pool, record=record, context="a"
            )  # one more method for each
            assert calls() == 12
            score_in_pool(names, _selection("output"), pool, record=record, context="other images")
            assert calls() == 18
        assert rows == score_in_pool(names, _selection("output", "broken", "dead"), pool)


def test_az_nas_joins_ranks_over_the_table(worker):
    names = _names(4)
    components = {
        f"component {name}": [float(number), 1.0, -float(number), 2.0]
        for number, name in enumerate(names)
    }

    def score(network, methods, images, labels, *, seed):
        [values] = [
            components[f"component {name}"]
            for name in names
            if _count(name) == sum(one.numel() for one in network.parameters())
        ]
        return {
            method: worker.scorer.__globals__["Made"](value)
            for method, value in zip(COMPONENTS, values, strict=True)
        }

    def _count(name):
        return sum(one.numel() for one in worker.networks.network(name).parameters())

    with ScorePool(Worker(worker.networks, worker.batch, score), 1) as pool:
        rows = score_in_pool(names, _selection("az-nas"), pool)
    found = [row for row in rows if row.method == "az-nas"]
    assert [row.architecture for row in found] == names
    # Ranks 1 to 4 in one component, 4 to 1 in another, and a tie of all at 2.5 in the two others.
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
        ScoreRow("|none~0|+|none~0|", "zen", 1.25, 1.0, 1.5, 0.1, "a, note"),
        ScoreRow("a_b", "dead", float("-inf"), seconds=0.0),
        ScoreRow("a_b", "zen", failure='it said "no"'),
    ]
    write_rows(rows, tmp_path / f"scores{ending}")
    assert read_rows(tmp_path / f"scores{ending}") == rows


@pytest.mark.parametrize(
    ("content", "said"),
    [
        ("name,score\nx,1\n", "column arch or architecture; .* has name, score"),
        ("", "Empty CSV file"),
        ("arch,score\nx\n", "Row #2: Expected 2 columns"),
    ],
)
def test_a_list_that_is_none(tmp_path, content, said):
    (tmp_path / "cells.csv").write_text(content)
    with pytest.raises(DataError, match=said):
        read_architectures(tmp_path / "cells.csv")


def test_selection():
    named = lambda *given, **options: select_methods(*given, **options).names  # noqa: E731
    assert set(named("all")) == {*SCORES, *AGGREGATES}
    without = named("all", labelled=False)
    assert {SCORES[name].needs for name in without if name in SCORES} == {"shape"}
    assert named(" gradsign,zen") == ("gradsign", "zen", "parameters", "macs")
    assert named("az-nas") == ("parameters", "macs", *COMPONENTS, "az-nas")
    assert "az-nas" not in named("all", several=False)
    with pytest.raises(RecipeError, match="Did you mean 'gradsign'"):
        select_methods("gradsing")
    with pytest.raises(RecipeError, match="gradsign looks at labels"):
        select_methods("zen,gradsign", labelled=False)
    with pytest.raises(RecipeError, match=r"received one\. Name az-expressivity"):
        select_methods("az-nas", several=False)
    with pytest.raises(RecipeError, match="two called 'zen'"):
        select_methods(["zen", Method("zen", "shape", "", lambda inputs: 0.0)])


# Scores of one's own.

OWN = """
from pliant.accuracy.zero_shot import Method

def weights(inputs):
    return float(sum(one.numel() for one in inputs.network.parameters()))

def broken(inputs):
    return float("nan")

labelled = Method("labelled", "labels", "sum of the labels", lambda inputs: inputs.labels.sum())
"""


def size(inputs: ScoringInput) -> float:
    return float(sum(one.numel() for one in inputs.network.parameters()))


def test_scores_of_ones_own_in_python_and_from_a_file(tmp_path):
    file, names = tmp_path / "own.py", _names(3)
    file.write_text(OWN)
    methods = [size, "az-nas", f"{file}:weights", f"{file}:broken"]
    space = preset_networks("digits", SHAPE)
    rows = score_networks(space, methods, architectures=names, workers=2)
    assert rows == _timeless(
        score_networks(space.space, methods, architectures=names), like=rows
    ), "a space, or what makes it, in any number of processes"
    by_key = {(row.architecture, row.method): row for row in rows}
    for name in names:
        assert by_key[name, "size"].score == by_key[name, "weights"].score
        assert by_key[name, "size"].score == by_key[name, "parameters"].score
        assert "broken returned nan, which is no score" in by_key[name, "broken"].failure
    best = max(names, key=lambda name: by_key[name, "az-nas"].score)
    assert by_key[best, "az-nas"].notes == "among 3 networks"
    modules = {name: space.network(name) for name in names}
    batch = training_batch(load("digits", seed=0), 8)
    labelled = score_networks(modules, f"{file}:labelled", batch=batch)
    assert {row.score for row in labelled if row.method == "labelled"} == {batch.labels.sum()}
    with pytest.raises(RecipeError, match="needs training images"):
        score_networks(space, f"{file}:labelled", architectures=names)
    with pytest.raises(RecipeError, match=r"cannot be: .*use one process"):
        score_networks(space, lambda inputs: 0.0, architectures=names, workers=2)


def _timeless(rows: list[ScoreRow], *, like: list[ScoreRow]) -> list[ScoreRow]:
    """The rows with the times of others."""
    return [replace(row, seconds=other.seconds) for row, other in zip(rows, like, strict=True)]


def test_a_table_is_resumed_unless_a_score_has_changed(tmp_path):
    file, table, names = tmp_path / "own.py", tmp_path / "scores.parquet", _names(2)
    file.write_text(OWN)
    space = preset_networks("digits", SHAPE)
    first = score_networks(space, f"{file}:weights", architectures=names, table=table)
    assert read_rows(table) == first
    assert score_networks(space, f"{file}:weights", architectures=names, table=table) == first
    file.write_text(OWN.replace("one.numel()", "1"))
    again = score_networks(space, f"{file}:weights", architectures=names, table=table)
    assert [row for row in again if row.method == "macs"] == first[2::3]
    assert all(row.score < 100 for row in again if row.method == "weights")


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
    require_accepts(networks.network(text), batch, text)
    with ScorePool(Worker(networks, batch, scorer.score), 1) as pool:
        [row] = score_in_pool([text], _selection("parameters"), pool)
    assert row.score == 9 * width + width + 10 * width + 10


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("model.py", "named as file.py:NAME"),
        ("none.py:build", "cannot be read"),
        ("model.py:built", "has no 'built'. Did you mean 'build'"),
        ("model.py:needs", "needs width"),
        ("model.py:text", "received str"),
        ("model.py:made", "is of type Own. Name a function"),
        ("model.py:raises", r"model.py:raises ended in an error at line \d+ .*out of paint"),
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
        require_accepts(network, noise_batch(Shape(3, 8, 10), 4, 0), "model.py:build")
    features = FileNetworks(f"{model}:Features").network("")
    with pytest.raises(DataError, match="must return one logit per class"):
        require_accepts(features, noise_batch(SHAPE, 4, 0), "model.py:Features")


# Search without training.

_KILLED = """
import os, signal, sys
import tiny_scorer
from pathlib import Path
from pliant.objective import Limit
from pliant.scoring.process_pool import ScorePool, Worker
from pliant.scoring.images import Shape, noise_batch
from pliant.scoring.networks import preset_networks
from pliant.scoring.zero_shot_search import ZeroShotSearchConfiguration, search_without_training

def watch(step, done, total, note):
    if step == "search" and done >= int(sys.argv[2]):
        os.kill(os.getpid(), signal.SIGKILL)

networks, batch = preset_networks("digits", Shape(1, 8, 10)), noise_batch(Shape(1, 8, 10), 4, 0)
with ScorePool(Worker(networks, batch, tiny_scorer.score), 1) as pool:
    configuration = ZeroShotSearchConfiguration(networks.space, "output", (Limit("macs", 3e5),), 80)
    search_without_training(Path(sys.argv[1]), configuration, pool, progress=watch)
"""


def _configuration(**changes) -> ZeroShotSearchConfiguration:
    return ZeroShotSearchConfiguration(
        preset_networks("digits", SHAPE).space, "output", (Limit("macs", 3e5),), 80, **changes
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
        result = search_without_training(folder, _configuration(), pool)
        assert (result.scored, result.random_scored, result.failed) == (80, 80, 0)
        with Record.read(folder / "record.sqlite") as record:
            rows = record.evaluations("score")
        assert len(rows) == calls(), "every evaluation is in the record, and none was made twice"
        whole = search_without_training(tmp_path / "whole", _configuration(), pool)
    assert result == whole
    assert (folder / "search.json").read_bytes() == (
        tmp_path / "whole" / "search.json"
    ).read_bytes()
    assert all(
        _configuration().objective.admits(network.cost)
        for network in (*result.best, *result.front, result.random, result.largest)
    )
    assert result.largest.cost.parameters >= max(network.cost.parameters for network in result.best)
    assert result.chosen.score == max(
        network.score for network in (*result.best, result.random, result.largest)
    )
    assert json.loads((folder / "search.json").read_text())["chosen"]["architecture"] == str(
        result.chosen.architecture
    )


def test_search_with_other_limits_looks_up_what_was_scored(worker, calls, tmp_path):
    with ScorePool(worker, 1) as pool:
        search_without_training(tmp_path / "run", _configuration(), pool)
        before = calls()
        capped = search_without_training(tmp_path / "run", _configuration(max_depth=13), pool)
        assert calls() < before + capped.scored + capped.random_scored
        assert (
            max(
                network.depth
                for network in (*capped.best, *capped.front, capped.random, capped.largest)
            )
            <= 13
        )
        with pytest.raises(InfeasibleError, match="Raise --max-depth to at least 11"):
            search_without_training(tmp_path / "run", _configuration(max_depth=8), pool)
        with pytest.raises(RunConflictError):
            search_without_training(
                tmp_path / "run",
                ZeroShotSearchConfiguration(_configuration().space, "parameters"),
                pool,
            )


def test_search_by_a_score_of_ones_own(tmp_path):
    space = preset_networks("digits", SHAPE).space
    found = search_by_score(space, size, tmp_path, limits=["macs=300k"], evaluations=30)
    assert found.chosen.score >= found.largest.score > found.chosen.cost.parameters
    with pytest.raises(RecipeError, match="Did you mean 'gradsign'"):
        search_by_score(space, "gradsing", tmp_path)


def test_search_in_which_everything_fails(worker, tmp_path):
    with ScorePool(worker, 1) as pool:
        result = search_without_training(
            tmp_path,
            ZeroShotSearchConfiguration(_configuration().space, "broken", evaluations=40),
            pool,
        )
    assert (result.best, result.front, result.random, result.chosen, result.failed) == (
        (),
        (),
        None,
        None,
        80,
    )
    assert result.failure == "it has no batch norm"


class _ByDepth:
    """An estimator of the user's own."""

    identity = "by depth"

    def estimate(self, architectures):
        return [Accuracy(len(one.options) / 100, 0) for one in architectures]


def test_a_search_takes_an_estimator_and_a_target_as_objects(tmp_path):
    space = _configuration().space
    arguments = {"limits": "latency_ms=0.2", "evaluations": 20, "progress": silent}
    target = {"target": lambda space: FunctionTarget(space, function=_milliseconds)}
    result = search_by_score(space, _ByDepth(), tmp_path, **arguments, **target)
    assert result.chosen.score == len(result.chosen.architecture.options) / 100
    assert result.chosen.cost.latency_ms <= 0.2
    other = _ByDepth()
    other.identity = "changed"
    with pytest.raises(RunConflictError):
        search_by_score(space, other, tmp_path, **arguments, **target)
    other.identity = None
    with pytest.raises(RecipeError, match="_ByDepth needs an identity"):
        search_by_score(space, other, tmp_path, **arguments, **target)


def _milliseconds(architectures):
    space = _configuration().space
    return [Cost(latency_ms=space.cost(one).macs / 1e6) for one in architectures]


def test_latency_is_limited_on_a_target_only(worker, tmp_path):
    with (
        ScorePool(worker, 1) as pool,
        pytest.raises(RecipeError, match=r"--target; pliant device measure --space digits"),
    ):
        search_without_training(
            tmp_path,
            ZeroShotSearchConfiguration(
                _configuration().space, "output", (Limit("latency_ms", 1.0),)
            ),
            pool,
        )


class _Chip(Arithmetic):
    """A target that reports a latency, of some networks as NaN."""

    metrics = ("latency_ms", "macs")

    def predict(self, architectures):
        costs = [self.space.cost(one) for one in architectures]
        return [
            replace(cost, latency_ms=math.nan if _unknown(cost) else cost.macs / 1e6)
            for cost in costs
        ]


def _unknown(cost):
    return cost.parameters % 3 == 0


def test_search_on_a_target_never_admits_a_cost_that_is_not_a_number(worker, tmp_path):
    space = _configuration().space
    chip = _Chip(space, name="my-chip", metrics=_Chip.metrics)
    configuration = ZeroShotSearchConfiguration(
        space, "output", (Limit("latency_ms", 0.3),), evaluations=40, target=chip
    )
    with ScorePool(worker, 1) as pool:
        result = search_without_training(tmp_path, configuration, pool)
    found = [*result.best, *result.front, result.random, result.largest]
    assert all(network.cost.latency_ms <= 0.3 for network in found)
    assert json.loads((tmp_path / "search.json").read_text())["target"] == "my-chip"
    rng = np.random.default_rng(0)
    drawn = [space.sample(rng) for _ in range(20)]
    failed = Failed("_Chip.predict of target my-chip returned NaN for latency_ms")
    costs = cost_model(configuration)(drawn)
    assert [one == failed for one in costs] == [_unknown(space.cost(one)) for one in drawn]
    assert failed in costs
    with_energy = replace(configuration, limits=(Limit("energy_uj", 1.0),))
    with pytest.raises(RecipeError, match="my-chip reports no energy_uj"):
        cost_model(with_energy)
