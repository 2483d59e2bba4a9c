"""Search a trained supernet within the limits of a run, and by random search at equal cost."""

from __future__ import annotations

import json
import time
from collections.abc import Sequence
from dataclasses import dataclass

from pliant.errors import EncodingError, InfeasibleError, RecipeError
from pliant.objective import ACCURACY, Candidate, checked_costs
from pliant.plugins import object_text
from pliant.runs.session import Session
from pliant.runs.shortlist import Shortlist, ShortlistedNetwork
from pliant.search.ask_tell import Evaluate, combined, memoized, run_search
from pliant.search.random import RandomSearch
from pliant.search.registry import SearchOptions, make_searcher
from pliant.spaces.architecture import Architecture
from pliant.spaces.space import Space
from pliant.targets import Arithmetic
from pliant.units import format_cost


@dataclass(frozen=True)
class SearchResult:
    """The outcome of a search."""

    shortlist: tuple[ShortlistedNetwork, ...]
    """Cheapest first."""
    chosen: ShortlistedNetwork
    """The best one by the objective that is within all limits, also measured in its own process."""
    random_shortlist: tuple[ShortlistedNetwork, ...]
    history: tuple[Candidate, ...]
    random_history: tuple[Candidate, ...]
    share_within: float
    """Share of random networks that are within the limits."""


def search_front(session: Session) -> SearchResult:
    """Find the networks that are worth delivering.

    Raises:
        InfeasibleError: no network is within the limits; with the range that is feasible.
    """
    run, options = session.run, session.run.recipe.search
    feasible = session.feasible
    trained = session.supernet.trained
    if trained is not None:
        return searched_while_trained(session, trained)
    estimates = session.plan.estimates
    evaluations = _Evaluations(session, 2 * estimates)
    started = time.perf_counter()
    searcher = make_searcher(
        session.searcher,
        run.space,
        session.search_objective,
        session.target.predict,
        SearchOptions(estimates, options.rounds, options.candidates, run.recipe.seed),
    )
    name = session.searcher if isinstance(session.searcher, str) else object_text(session.searcher)
    history = run_search(searcher, evaluations.by(name), estimates)
    baseline = RandomSearch(
        run.space, session.search_objective, session.target.predict, seed=run.recipe.seed + 1
    )
    random_history = run_search(baseline, evaluations.by("random"), estimates)
    before = run.record.metadata("search_seconds") or 0.0
    run.record.set_metadata("search_seconds", before + time.perf_counter() - started)
    shortlist = Shortlist(session)
    front, chosen = shortlist.choose(history, options.front)
    wanted = max(2, options.front // 2)
    random_front = shortlist.evaluate(
        shortlist.promising(random_history, session.search_objective, wanted)
    )
    return SearchResult(
        tuple(front),
        chosen,
        tuple(random_front),
        tuple(history),
        tuple(random_history),
        feasible.share,
    )


def searched_while_trained(session: Session, trained: Sequence[Architecture]) -> SearchResult:
    """The networks that the training chose; there is nothing to compare them with in its weights.

    Args:
        session: of the run.
        trained: the networks whose weights were trained to the end.

    Raises:
        InfeasibleError: none of them is within the limits, which are others than in training.
    """
    evaluate = _Evaluations(session, len(trained)).by(session.run.recipe.train.strategy)
    history = evaluate(trained)
    objective = session.search_objective
    if not any(objective.satisfied(one) for one in history):
        raise InfeasibleError(_why_not_trained(session, history))
    front, chosen = Shortlist(session).choose(history, len(history))
    return SearchResult(tuple(front), chosen, (), tuple(history), (), session.feasible.share)


def _why_not_trained(session: Session, history: Sequence[Candidate]) -> str:
    recipe, limits = session.run.recipe, session.limits
    [one, *_] = history
    values = []
    for limit in limits:
        if limit.metric == ACCURACY:
            values.append(f"accuracy={one.value:.2%}")
        else:
            value = format_cost(limit.metric, one.known_cost.metric(limit.metric))
            values.append(f"{limit.metric}={value}")
    return (
        f"strategy {recipe.train.strategy} trains the network that it finds, and no other; "
        f"{one.architecture} has {', '.join(values)}, and {', '.join(map(str, limits))} was asked."
        " Search for other limits and targets in a run of their own: --run-dir NEW_DIRECTORY."
    )


class _Evaluations:
    """Accuracy by the supernet, kept in the record; costs by the target, which may change."""

    def __init__(self, session: Session, total: int) -> None:
        self.session = session
        self.done = 0
        self.total = total

    def by(self, searcher: str) -> Evaluate:
        """The evaluation for one searcher; both share what was evaluated before."""
        quality = memoized(
            combined(self.session.estimator, Arithmetic(self.session.run.space).predict),
            self.session.run.record,
            stage="estimate",
            context=estimate_context(self.session),
            split="validation",
            asked_by=searcher,
        )

        def evaluate(architectures: Sequence[Architecture]) -> list[Candidate]:
            _require_of(self.session.run.space, architectures, searcher)
            costs = checked_costs(self.session.target.predict, architectures)
            found = []
            for architecture, cost in zip(architectures, costs, strict=True):
                [known] = quality([architecture])
                found.append(Candidate(architecture, known.quality, cost))
                self.done += 1
                self.session.progress("search", self.done, self.total, "estimates by the supernet")
            return found

        return evaluate


def _require_of(space: Space, architectures: Sequence[Architecture], searcher: str) -> None:
    """Refuse architectures of another space before anything of them is recorded.

    Args:
        space: of the run.
        architectures: that are asked for.
        searcher: who asks.

    Raises:
        RecipeError: one is of another space.
    """
    for one in architectures:
        try:
            is_known = space.parse(str(one)) == one
        except EncodingError:
            is_known = False
        if not is_known:
            raise RecipeError(
                f"a searcher asks for architectures of its space, {space.name}; {searcher} asked "
                f"for {one}. Draw them from the space that it was made with."
            )


def estimate_context(session: Session) -> str:
    """What an evaluation depends on except the architecture."""
    images = session.run.recipe.search.images
    return json.dumps({"weights": session.weights_digest, "images": images})
