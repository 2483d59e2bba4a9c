"""The loop that every searcher runs in: ask for architectures, evaluate them, tell what they are worth.

A searcher decides from its seed and from what it was told, from nothing else. So a search that is asked and told
again from the evaluations in the record takes the same way as before and goes on where it stopped: `remembered`
answers from the record what stands there and evaluates only what is new.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from typing import Protocol

from pliant.metrics import Failed
from pliant.objective import AccuracyEstimator, Candidate, CostModel
from pliant.record import Evaluation, Record
from pliant.spaces.architecture import Architecture

Evaluate = Callable[[Sequence[Architecture]], list[Candidate]]
"""One candidate an architecture, in order."""


class Searcher(Protocol):
    """A way of choosing which architectures to evaluate."""

    def ask(self, most: int) -> list[Architecture]:
        """Between 1 and `most` architectures that were never asked for before; none where no further one was found."""
        ...

    def tell(self, candidates: Sequence[Candidate]) -> None:
        """What the architectures of the last `ask` are worth, all of them, in any order."""
        ...

    def front(self) -> list[Candidate]:
        """Of all that was told, what holds the limits and is beaten by nothing, cheapest first."""
        ...


def explore(searcher: Searcher, evaluate: Evaluate, evaluations: int) -> list[Candidate]:
    """Ask, evaluate and tell until a number of evaluations is spent or the searcher finds nothing new.

    Args:
        evaluations: most architectures to evaluate; failed ones count.

    Returns:
        All candidates in the order of their evaluation. The best of them are `searcher.front()`.
    """
    history: list[Candidate] = []
    while len(history) < evaluations and (
        architectures := searcher.ask(evaluations - len(history))
    ):
        candidates = evaluate(architectures)
        searcher.tell(candidates)
        history += candidates
    return history


def joined(accuracy: AccuracyEstimator, cost: CostModel) -> Evaluate:
    """An evaluation that asks an accuracy estimator and a cost model about the same architectures."""

    def evaluate(architectures: Sequence[Architecture]) -> list[Candidate]:
        parts = zip(architectures, accuracy(architectures), cost(architectures), strict=True)
        return [Candidate(architecture, right, spent) for architecture, right, spent in parts]

    return evaluate


def remembered(
    evaluate: Evaluate,
    record: Record,
    *,
    stage: str,
    context: str = "",
    split: str | None = None,
    batch: int = 1,
) -> Evaluate:
    """The same evaluation, written to the record and never done again, failures included.

    Args:
        stage: under which the rows stand, such as `supernet`.
        context: what else the result depends on, such as a digest of the weights.
        split: whose images the accuracy is of.
        batch: architectures evaluated together; a killed process loses at most these.
    """

    def lookup(architectures: Sequence[Architecture]) -> list[Candidate]:
        rows = {
            architecture: record.evaluation(stage, str(architecture), context)
            for architecture in architectures
        }
        fresh = [architecture for architecture, row in rows.items() if row is None]
        for start in range(0, len(fresh), batch):
            began = time.perf_counter()
            candidates = evaluate(fresh[start : start + batch])
            seconds = (time.perf_counter() - began) / len(candidates)
            for one in candidates:
                rows[one.architecture] = record.add_evaluation(
                    stage,
                    str(one.architecture),
                    context=context,
                    split=split,
                    accuracy=one.accuracy,
                    cost=one.cost,
                    seconds=seconds,
                )
        return [_candidate(architecture, rows[architecture]) for architecture in architectures]

    return lookup


def _candidate(architecture: Architecture, row: Evaluation | None) -> Candidate:
    assert row is not None
    missing = row.failure or Failed("not evaluated")
    return Candidate(architecture, row.accuracy or missing, row.cost or missing)
