"""The whole job: profile, train, search, deliver, report. Each step picks up what an earlier start of the same run left."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from pliant.progress import Progress, silent
from pliant.runs.deliver import Delivered, deliver_found
from pliant.runs.profile import device_profile
from pliant.runs.run import Run
from pliant.runs.search import Found, require_feasible, search_front
from pliant.runs.summary import write_page, write_summary
from pliant.runs.train import train_supernet


@dataclass(frozen=True)
class Result:
    """What a whole run gives."""

    found: Found
    delivered: Delivered
    summary: dict[str, Any]


def run_all(run: Run, *, device: str | None = None, progress: Progress = silent) -> Result:
    """Do the whole job on a run directory.

    Args:
        device: that trains, as PyTorch names it.

    Raises:
        InfeasibleError: nothing meets the limits; said before anything is trained.
        PliantError: as the steps say.
    """
    limits = run.recipe.parsed_limits
    profile = device_profile(run, progress=progress)
    require_feasible(run, profile, limits)
    supernet = train_supernet(run, device=device, progress=progress)
    found = search_front(run, supernet, profile, progress=progress)
    delivered = deliver_found(run, supernet, profile, found, limits=limits, progress=progress)
    summary = write_summary(run, profile, found, delivered, limits)
    write_page(run)
    return Result(found, delivered, summary)
