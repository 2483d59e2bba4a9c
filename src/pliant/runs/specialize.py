"""Another network from a trained supernet, for other limits or another target: no training.

Cai, H. et al., Once-for-All: train one network and specialize it for efficient deployment, 2020,
arXiv:1908.09791, section 3.4. What the run's search evaluated fits an accuracy predictor; NSGA-II
searches thousands of predicted networks, and the most promising ones are validated, and measured
where the target is at hand.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from pliant.accuracy.predictor import AccuracyPredictor
from pliant.errors import RunConflictError
from pliant.metrics import Accuracy, Failed
from pliant.objective import AccuracyEstimator, Candidate
from pliant.runs.search import estimate_context, searched_while_trained
from pliant.runs.session import Session
from pliant.runs.shortlist import Shortlist, ShortlistedNetwork
from pliant.search.ask_tell import combined, run_search
from pliant.search.nsga2 import ParetoSearch
from pliant.spaces.architecture import Architecture

SHORTLISTED = 6
"""Networks that are validated and measured; the best of them is delivered."""
MIN_EVALUATIONS = 20
"""Behind the predictor; smaller spaces have each of their networks evaluated."""


def specialize(session: Session) -> ShortlistedNetwork:
    """The best network by the session's objective, within its limits on its target.

    Raises:
        InfeasibleError: no network is within the limits; after a search while training, not the
            one that was trained.
        RunConflictError: the run was not searched yet, so there is nothing to predict from.
    """
    run, objective = session.run, session.search_objective
    _ = session.feasible
    if session.supernet.trained is not None:
        return searched_while_trained(session, session.supernet.trained).chosen
    searcher = ParetoSearch(run.space, objective, seed=run.recipe.seed)
    evaluate = combined(accuracy_estimator(session), session.target.predict)
    front = objective.front(run_search(searcher, evaluate, run.recipe.search.candidates))
    front.sort(key=lambda one: objective.preference(one.value, one.known_cost))
    _, chosen = Shortlist(session).choose(front[: 2 * SHORTLISTED], SHORTLISTED)
    return chosen


def named_network(session: Session, architecture: Architecture) -> ShortlistedNetwork:
    """A network that the user names, with its predicted cost and validated accuracy."""
    [cost] = session.target.predict([architecture])
    if isinstance(cost, Failed):
        raise RunConflictError(f"{session.target.name} cannot run {architecture}: {cost.reason}")
    accuracy = session.validate(architecture)
    return ShortlistedNetwork(Candidate(architecture, accuracy, cost), accuracy, None)


@dataclass(frozen=True)
class _Evaluated:
    """The accuracies of a space that is so small that each of its networks was evaluated."""

    known: Mapping[Architecture, Accuracy]

    def estimate(self, architectures: Sequence[Architecture]) -> list[Accuracy]:
        """As evaluated."""
        return [self.known[architecture] for architecture in architectures]


def accuracy_estimator(session: Session) -> AccuracyEstimator:
    """What the run's search found, as a predictor of the accuracy of any network of its space.

    Raises:
        RunConflictError: the run was not searched yet, so there is nothing to predict from.
    """
    run, context = session.run, estimate_context(session)
    known = {
        run.space.parse(row.architecture): row.quality
        for row in run.record.evaluations("estimate")
        if isinstance(row.quality, Accuracy) and row.context == context
    }
    if len(known) == run.space.size:
        return _Evaluated(known)
    if len(known) < MIN_EVALUATIONS:
        raise RunConflictError(
            "another network is chosen by what a search found; "
            f"{run.folder} holds {len(known)} evaluations. Run pliant search on it first."
        )
    top1 = np.array([accuracy.top1 for accuracy in known.values()])
    return AccuracyPredictor(run.space, list(known), top1, seed=run.recipe.seed)
