"""The whole job, its steps in order; each one picks up what an earlier start of the run left."""

from __future__ import annotations

from dataclasses import dataclass

from pliant.progress import Progress, given_or_shown
from pliant.report.summary import Summary
from pliant.runs.deliver import Delivered, deliver_result
from pliant.runs.run import Run
from pliant.runs.search import SearchResult, search_front
from pliant.runs.session import Session
from pliant.runs.summarize import write_page, write_summary
from pliant.search.registry import Build
from pliant.targets import TargetLike


@dataclass(frozen=True)
class Result:
    """What a whole run gives."""

    found: SearchResult
    delivered: Delivered | None
    """None where the search was the last step."""
    summary: Summary


def run_all(
    run: Run,
    *,
    target: TargetLike | None = None,
    searcher: str | Build | None = None,
    device: str | None = None,
    progress: Progress | None = None,
    deliver: bool = True,
) -> Result:
    """Do the whole job on a run directory: measure, train, search, deliver, report.

    Args:
        run: open.
        target: instead of the recipe's, as `Session` takes it.
        searcher: instead of the recipe's, as `Session` takes it.
        device: that trains, as PyTorch names it.
        progress: told by every step; shown where None, `pliant.progress.silent` for none.
        deliver: whether to deliver a network after the search.

    Raises:
        InfeasibleError: nothing is within the limits; known before anything is trained, and what
            needs no measurement before anything is measured.
        PliantError: as the steps say.
    """
    with given_or_shown(progress) as told:
        session = Session(run, target=target, searcher=searcher, device=device, progress=told)
        return run_steps(session, deliver=deliver)


def run_steps(session: Session, *, deliver: bool = True) -> Result:
    """The steps of a run, in a session of it; `run_all` makes one."""
    session.require_trainable()
    _ = session.feasible  # opens the target: measures this machine where it never was
    _ = session.searched  # refuses limits that leave nothing to search
    session.require_same_search()
    _ = session.baselines  # before the plan of the time that is left
    _ = session.supernet  # trains it where it never was
    found = search_front(session)
    delivered = deliver_result(session, found) if deliver else None
    summary = write_summary(session, found, delivered)
    if deliver:
        write_page(session.run.folder)
    return Result(found, delivered, summary)
