"""Going on from the record: the same search, and no evaluation done twice."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import pytest

from pliant.errors import RecipeError
from pliant.metrics import Failed, Score
from pliant.objective import Candidate, Objective
from pliant.record import Record
from pliant.search.ask_tell import memoized, run_search
from pliant.search.nsga2 import ParetoSearch
from pliant.spaces.architecture import Architecture
from pliant.spaces.space import Space

EVALUATIONS = 120


class KilledError(Exception):
    pass


class Worker:
    """Evaluates, and dies at the `dies_at`-th architecture of its life."""

    def __init__(self, space: Space, dies_at: int | None = None) -> None:
        self.space = space
        self.dies_at = dies_at
        self.done: list[Architecture] = []

    def __call__(self, architectures: Sequence[Architecture]) -> list[Candidate]:
        return [self._one(architecture) for architecture in architectures]

    def _one(self, architecture: Architecture) -> Candidate:
        if len(self.done) == self.dies_at:
            raise KilledError
        self.done.append(architecture)
        cost = self.space.cost(architecture)
        broken = architecture["2.1h"] == 16
        return Candidate(
            architecture,
            Failed("shape") if broken else Score(1 - 1000 / (cost.parameters or 1)),
            cost,
        )


def run(space: Space, worker: Worker, path: Path, batch: int) -> list[Candidate]:
    with Record.open(path, recipe_digest="one") as record:
        searcher = ParetoSearch(space, Objective(("macs",)), population=20, seed=3)
        evaluate = memoized(worker, record, stage="supernet", split="search", batch=batch)
        return run_search(searcher, evaluate, EVALUATIONS)


@pytest.mark.parametrize("batch", [1, 8])
def test_a_killed_search_goes_on_as_if_nothing_had_happened(
    toy_space: Space, tmp_path: Path, batch: int
) -> None:
    undisturbed = run(toy_space, Worker(toy_space), tmp_path / "whole" / "record.sqlite", batch)
    assert len(undisturbed) == EVALUATIONS
    path = tmp_path / "killed" / "record.sqlite"
    lives = [Worker(toy_space, dies_at) for dies_at in (5, 33, 50)]
    for life in lives:
        with pytest.raises(KilledError):
            run(toy_space, life, path, batch)
    last = Worker(toy_space)
    assert run(toy_space, last, path, batch) == undisturbed
    work = [architecture for life in (*lives, last) for architecture in life.done]
    assert EVALUATIONS <= len(work) <= EVALUATIONS + len(lives) * (batch - 1)
    with Record.read(path) as record:
        rows = record.evaluations("supernet")
    assert len(rows) == EVALUATIONS
    assert any(row.failure == Failed("shape") for row in rows)
    assert all(row.split == "search" and row.measures["seconds"] >= 0 for row in rows)


def test_another_context_is_another_evaluation(toy_space: Space, tmp_path: Path) -> None:
    worker = Worker(toy_space)
    with Record.open(tmp_path / "record.sqlite", recipe_digest="one") as record:
        for context in ("weights a", "weights b", "weights a"):
            memoized(worker, record, stage="supernet", context=context)([toy_space.smallest()])
    assert len(worker.done) == 2


class Odd:
    """A searcher that returns anything."""

    def __init__(self, *answers: object) -> None:
        self.answers = list(answers)

    def ask(self, most: int) -> object:
        return self.answers.pop(0)

    def tell(self, candidates: Sequence[Candidate]) -> None:
        pass


def test_what_a_searcher_may_not_ask_for_is_refused(digits_space):
    one, other = digits_space.smallest(), digits_space.largest()

    def worker(asked: Sequence[Architecture]) -> list[Candidate]:
        return [Candidate(each, Score(1.0), digits_space.cost(each)) for each in asked]

    for answers, said in (
        ([None], "returned None"),
        ([[str(one)]], rf"returned '{one}', of type str"),
        ([[one], [one]], "asked for the same one again"),
        ([[one, one]], "asked for the same one again"),
        ([[one, 3]], "returned 3, of type int"),
        ([[]], "asked for none"),
    ):
        with pytest.raises(RecipeError, match=f"; Odd {said}"):
            run_search(Odd(*answers), worker, 3)
    with pytest.raises(RecipeError, match="returned 2 where 1 were left"):
        run_search(Odd([one, other]), worker, 1)
    found = run_search(Odd((each for each in [one]), [other], []), worker, 3)
    assert [each.architecture for each in found] == [one, other]
