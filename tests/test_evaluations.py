"""The table of a run's evaluations: who asked, what came out, and null for what is not known."""

from __future__ import annotations

from pathlib import Path

import pyarrow.compute as pc
import pytest

from pliant.evaluations import evaluation_table
from pliant.metrics import COST_METRICS, Accuracy, Cost, Failed, Score
from pliant.objective import Candidate, Objective
from pliant.record import Record
from pliant.search.ask_tell import memoized, run_search
from pliant.search.nsga2 import ParetoSearch
from pliant.search.random import RandomSearch
from pliant.spaces.space import Space


def test_two_searchers_share_evaluations_and_each_keeps_its_history(
    toy_space: Space, tmp_path: Path
) -> None:
    objective, done = Objective(("macs",)), []

    def evaluate(architectures):
        done.extend(architectures)
        return [Candidate(one, Accuracy(0.5, 10), toy_space.cost(one)) for one in architectures]

    with Record.open(tmp_path / "record.sqlite", recipe_digest="one") as record:
        histories = {}
        for _ in range(2):  # resumed: the same again, nothing new
            for name, searcher in (
                ("pareto", ParetoSearch(toy_space, objective, population=20)),
                ("random", RandomSearch(toy_space, objective, seed=3)),
            ):
                answers = memoized(evaluate, record, stage="estimate", asked_by=name)
                histories[name] = run_search(searcher, answers, 100)
        record.add_evaluation("test", "r8", split="test", quality=Accuracy(0.9, 50))
        table = evaluation_table(record)
    assert len(done) == len(set(done)) < 200, "what both asked for was evaluated once"
    assert table.num_rows == 201
    for name, history in histories.items():
        rows = table.filter(pc.field("searcher") == name)
        assert rows["architecture"].to_pylist() == [str(one.architecture) for one in history]
        assert rows["macs"].to_pylist() == [one.known_cost.macs for one in history]
    assert table["searcher"].to_pylist()[-1] is None
    assert table["split"].to_pylist()[-1] == "test"


def test_every_kind_of_result_has_its_column(tmp_path: Path) -> None:
    measures = {"seconds": 0.5, "spread": {"latency_ms": 0.1}, "images": 64, "note": 1}
    with Record.open(tmp_path / "record.sqlite", recipe_digest="one") as record:
        cost = Cost(latency_ms=1.5, macs=7)
        record.add_evaluation("front", "a", quality=Accuracy(0.5, 10), cost=cost, measures=measures)
        record.add_evaluation("score", "b", quality=Score(float("-inf")), measures={"note": "x"})
        record.add_evaluation("score", "c", quality=Failed("shape"), cost=Cost(energy_uj=2.0))
        table = evaluation_table(record)
        scores = evaluation_table(record, "score")
    held = {name: table[name].to_pylist() for name in table.column_names}
    assert set(COST_METRICS) <= set(held)
    assert held["top1"] == [0.5, None, None]
    assert held["score"] == [None, float("-inf"), None]
    assert held["failure"] == [None, None, "shape"]
    assert (held["latency_ms"], held["energy_uj"]) == ([1.5, None, None], [None, None, 2.0])
    assert held["spread.latency_ms"] == [0.1, None, None]
    assert (held["images"], held["measures.images"]) == ([10, None, None], [64, None, None])
    assert held["note"] == ["1", '"x"', None]
    assert held["seconds"] == [pytest.approx(0.5), None, None]
    assert scores["architecture"].to_pylist() == ["b", "c"]
