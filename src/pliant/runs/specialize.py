"""Another network from a trained supernet, for other limits or another device: seconds, no training.

What the run's search evaluated fits an accuracy predictor; NSGA-II looks at thousands of predicted networks under the new limits,
and the few that promise most are validated, and measured where the device is at hand.
"""

from __future__ import annotations

import json
from collections.abc import Sequence

import numpy as np

from pliant.accuracy.predictor import AccuracyPredictor
from pliant.devices.profile import DeviceProfile
from pliant.errors import RunConflictError
from pliant.metrics import Accuracy
from pliant.networks.supernet import Supernet
from pliant.objective import Candidate, Limit, Objective
from pliant.progress import Progress, silent
from pliant.runs.run import Run
from pliant.runs.search import (
    MINIMISE,
    Finalist,
    finals,
    make_estimator,
    require_feasible,
    weights_digest,
)
from pliant.search.ask_tell import combined, run_search
from pliant.search.pareto import ParetoSearch

VALIDATED = 6
"""Networks that are validated and measured; the best of them is delivered."""


def another_network(
    run: Run,
    supernet: Supernet,
    profile: DeviceProfile,
    limits: Sequence[Limit],
    *,
    progress: Progress = silent,
) -> Finalist:
    """The most accurate network within the limits on the profile's device.

    Raises:
        InfeasibleError: no network holds the limits.
        RunConflictError: the run was not searched yet, so there is nothing to predict from.
    """
    table = profile.table(run.space)
    require_feasible(run, profile, limits)
    predictor = _predictor(run)
    objective = Objective(MINIMISE, tuple(limits))
    searcher = ParetoSearch(run.space, objective, seed=run.recipe.seed)
    history = run_search(searcher, combined(predictor, table), run.recipe.search.candidates)
    front = sorted(objective.front(history), key=lambda one: -one.value)
    _, chosen = finals(run, make_estimator(run, supernet), profile, progress).choose(
        _known(front), limits, VALIDATED
    )
    return chosen


def _known(front: Sequence[Candidate]) -> list[Candidate]:
    """The most promising part of a predicted front, so that the choice among it is by accuracy."""
    return list(front[: 2 * VALIDATED])


def _predictor(run: Run) -> AccuracyPredictor:
    weights = weights_digest(run)
    rows = [
        row
        for row in run.record.evaluations("estimate")
        if isinstance(row.quality, Accuracy) and json.loads(row.context)["weights"] == weights
    ]
    if len(rows) < 20:
        raise RunConflictError(
            f"another network is chosen by what a search found; {run.folder} holds {len(rows)} evaluations. Run pliant search on it first."
        )
    top1 = np.array([row.quality.value for row in rows if isinstance(row.quality, Accuracy)])
    return AccuracyPredictor(
        run.space, [run.space.parse(row.architecture) for row in rows], top1, seed=run.recipe.seed
    )
