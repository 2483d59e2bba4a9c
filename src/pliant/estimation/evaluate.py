"""Evaluations by any estimator on any workers, kept in the record and never computed twice."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from contextlib import AbstractContextManager
from types import MappingProxyType
from typing import Any

from pliant.estimation.estimators import Job
from pliant.estimation.lineage import LineageOf, untrained
from pliant.metrics import Estimate, Failed
from pliant.progress import Progress, silent
from pliant.record import Evaluation, Record
from pliant.spaces.architecture import Architecture
from pliant.spaces.space import Space
from pliant.workers import WorkerPool


def evaluate_recorded(
    name: str,
    architectures: Sequence[Architecture],
    space: Space,
    record: Record,
    identity: str,
    open_pool: Callable[[], AbstractContextManager[WorkerPool]],
    *,
    lineage: LineageOf = untrained,
    progress: Progress = silent,
) -> list[Estimate]:
    """One estimate per architecture, in order; what the record holds is not evaluated again.

    An architecture that lost its workers twice is tried again when the command is started again;
    one that failed otherwise is not.

    Args:
        name: of the estimator, under which its rows are in the record.
        architectures: to evaluate; repeats are evaluated once.
        space: whose costs the rows get.
        record: stays with this process; every result is committed as it arrives.
        identity: of the estimator: rows of another identity do not count.
        open_pool: opens the workers, only where something is left to evaluate.
        lineage: where each architecture inherits its weights from, which decides its result, too.
        progress: told after every evaluation.
    """
    distinct = list(dict.fromkeys(architectures))
    lines = {one: lineage(one) for one in distinct}
    contexts = {one: line.context(identity) for one, line in lines.items()}
    known = {one: known_estimate(record, name, one, contexts[one]) for one in distinct}
    missing = {str(one): one for one, found in known.items() if found is None}
    done = len(distinct) - len(missing)
    progress(name, done, len(distinct), "networks")
    if missing:
        with open_pool() as pool:
            jobs = [
                Job(name, text, ancestors=lines[one].ancestors) for text, one in missing.items()
            ]
            for job, result in pool.run(jobs):
                one, lost = missing[job.architecture], isinstance(result, Failed)
                found = Estimate(result, 0.0) if lost else result
                measures = lines[one].measures
                add(record, name, one, space, contexts[one], found, lost=lost, measures=measures)
                known[one] = found
                done += 1
                progress(name, done, len(distinct), "networks")
    return [found for one in architectures if (found := known[one]) is not None]


def add(
    record: Record,
    name: str,
    architecture: Architecture,
    space: Space,
    identity: str,
    found: Estimate,
    *,
    lost: bool = False,
    measures: Mapping[str, Any] = MappingProxyType({}),
) -> None:
    """Write an estimate to the record.

    Args:
        record: of the command.
        name: of the estimator.
        architecture: that was evaluated.
        space: whose costs it gets.
        identity: of the estimator.
        found: its quality, seconds and curve.
        lost: whether its workers died, so that it is worth another try.
        measures: further numbers of the row.
    """
    record.add_evaluation(
        name,
        str(architecture),
        context=identity,
        split="validation",
        quality=found.quality,
        cost=space.cost(architecture),
        measures={
            "seconds": found.seconds,
            "curve": list(found.curve),
            "lost": lost,
            **measures,
        },
    )


def known_estimate(
    record: Record, name: str, architecture: Architecture, identity: str
) -> Estimate | None:
    """What the record holds; None for nothing, or for lost workers, which deserve another try.

    Args:
        record: of the command.
        name: of the estimator.
        architecture: that was evaluated.
        identity: of the estimator.
    """
    row = record.evaluation(name, str(architecture), identity)
    if row is None or row.measures.get("lost"):
        return None
    return from_row(row)


def from_row(row: Evaluation) -> Estimate:
    """The estimate of a row of the record."""
    curve = tuple(
        (float(epoch), math.inf if loss is None else float(loss))
        for epoch, loss in row.measures.get("curve", [])
    )
    quality = row.quality if row.quality is not None else Failed("no quality was recorded")
    return Estimate(quality, float(row.measures["seconds"]), curve)
