"""The loop that every searcher runs in: ask for architectures, evaluate them, tell the results.

A searcher decides from its seed and from what it was told, from nothing else. A search whose
evaluations are in the record therefore repeats its steps and resumes where it stopped: `memoized`
answers from the record and evaluates only what is new.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable, Mapping, Sequence, Set
from typing import Protocol

from pliant.errors import RecipeError
from pliant.metrics import Failed
from pliant.objective import (
    AccuracyEstimator,
    Candidate,
    CostModel,
    checked_costs,
    checked_qualities,
)
from pliant.record import Evaluation, Record
from pliant.spaces.architecture import Architecture

Evaluate = Callable[[Sequence[Architecture]], list[Candidate]]
"""One candidate per architecture, in order."""


class Searcher(Protocol):
    """A way of choosing which architectures to evaluate.

    Constructors take `(space, objective, costs)` and then keywords, `seed` among them. The history
    of a search belongs to its caller, and `Objective.front` finds the best of it.
    """

    def ask(self, most: int) -> list[Architecture]:
        """Up to `most` architectures that were never asked for before; none if none was found."""
        ...

    def tell(self, candidates: Sequence[Candidate]) -> None:
        """The results of the last `ask`, all of them, in any order."""
        ...


def run_search(searcher: Searcher, evaluate: Evaluate, evaluations: int) -> list[Candidate]:
    """Ask, evaluate and tell until the evaluations are spent or the searcher finds nothing new.

    Args:
        searcher: chooses what to evaluate.
        evaluate: of a batch of architectures.
        evaluations: most architectures to evaluate; failed ones count.

    Returns:
        The history: all candidates in the order of their evaluation.

    Raises:
        RecipeError: the searcher asks for something else than a searcher may ask for.
    """
    history: list[Candidate] = []
    asked: set[Architecture] = set()
    while len(history) < evaluations:
        architectures = _asked(searcher, evaluations - len(history), asked)
        if not architectures:
            break
        asked.update(architectures)
        candidates = evaluate(architectures)
        searcher.tell(candidates)
        history += candidates
    return history


def _asked(searcher: Searcher, most: int, before: Set[Architecture]) -> list[Architecture]:
    """What a searcher asks for next, each of it for the first time.

    Args:
        searcher: to ask.
        most: architectures that are left.
        before: what it asked for already.
    """
    returned: object = searcher.ask(most)
    found = list(returned) if isinstance(returned, Iterable) else []
    wrong = ""
    if not isinstance(returned, Iterable):
        wrong = f"returned {returned!r}"
    elif others := [one for one in found if not isinstance(one, Architecture)]:
        wrong = f"returned {others[0]!r}, of type {type(others[0]).__name__}"
    elif len(found) > most:
        wrong = f"returned {len(found)} where {most} were left"
    elif len(set(found)) < len(found) or not before.isdisjoint(found):
        wrong = "asked for the same one again"
    elif not found and not before and not type(searcher).__module__.startswith("pliant."):
        wrong = "asked for none"
    if wrong:
        raise RecipeError(
            "a searcher's `ask(most)` returns a list of at most so many architectures of its space "
            f"that it did not ask for before; {type(searcher).__name__} {wrong}."
        )
    return found


def combined(quality: AccuracyEstimator, costs: CostModel) -> Evaluate:
    """An evaluation that asks an estimator and a cost model about the same architectures.

    It raises MeasurementError where a cost is NaN, by the name of the cost model.
    """

    def evaluate(architectures: Sequence[Architecture]) -> list[Candidate]:
        qualities = checked_qualities(quality, architectures)
        rows = zip(architectures, qualities, checked_costs(costs, architectures), strict=True)
        return [Candidate(*row) for row in rows]

    return evaluate


def memoized(
    evaluate: Evaluate,
    record: Record,
    *,
    stage: str,
    context: str = "",
    split: str | None = None,
    batch: int = 1,
    asked_by: str | None = None,
    measures: Callable[[Architecture], Mapping[str, float]] = lambda architecture: {},
) -> Evaluate:
    """The same evaluation, written to the record and never repeated, failures included.

    Args:
        evaluate: asked about what the record does not hold.
        record: of the run.
        stage: under which the rows stand, such as `estimate`.
        context: what else the result depends on, such as a digest of the weights.
        split: whose images the accuracy is of.
        batch: architectures evaluated together; a killed process loses at most these.
        asked_by: name of the searcher; the record notes it also for what it held already.
        measures: more numbers of an evaluated architecture, such as the epochs of its lineage.
    """

    def lookup(architectures: Sequence[Architecture]) -> list[Candidate]:
        rows = {one: record.evaluation(stage, str(one), context) for one in architectures}
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
                    quality=one.quality,
                    cost=one.cost,
                    measures={"seconds": seconds, **measures(one.architecture)},
                )
        if asked_by is not None:
            record.note_asked(asked_by, [row for row in rows.values() if row is not None])
        return [_candidate(architecture, rows[architecture]) for architecture in architectures]

    return lookup


def _candidate(architecture: Architecture, row: Evaluation | None) -> Candidate:
    assert row is not None
    missing = Failed("not evaluated")
    failure = row.quality if isinstance(row.quality, Failed) else missing
    return Candidate(architecture, row.quality or missing, row.cost or failure)
