"""Evaluations by any estimator on any workers, kept in the record and never computed twice."""

from __future__ import annotations

from collections.abc import Callable, Sequence

from pliant.estimation.estimators import Job
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
    open_pool: Callable[[], WorkerPool],
    *,
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
        progress: told after every evaluation.
    """
    distinct = list(dict.fromkeys(architectures))
    known = {one: known_estimate(record, name, one, identity) for one in distinct}
    missing = {str(one): one for one, found in known.items() if found is None}
    done = len(distinct) - len(missing)
    progress(name, done, len(distinct), "networks")
    if missing:
        with open_pool() as pool:
            for (_, text, _), result in pool.run([Job(name, text) for text in missing]):
                lost = isinstance(result, Failed)
                found = Estimate(result, 0.0) if lost else result
                add(record, name, missing[text], space, identity, found, lost=lost)
                known[missing[text]] = found
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
    """
    record.add_evaluation(
        name,
        str(architecture),
        context=identity,
        split="validation",
        quality=found.quality,
        cost=space.cost(architecture),
        measures={"seconds": found.seconds, "curve": list(found.curve), "lost": lost},
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
    curve = tuple((float(epoch), float(loss)) for epoch, loss in row.measures.get("curve", []))
    quality = row.quality if row.quality is not None else Failed("no quality was recorded")
    return Estimate(quality, float(row.measures["seconds"]), curve)
