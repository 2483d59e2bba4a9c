"""Searchers by name, as a recipe and the command line name them; or one of your own."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass

from pliant.errors import RecipeError
from pliant.objective import CostModel, Objective
from pliant.plugins import call_plugin, is_plugin, require_part
from pliant.search.ask_tell import Searcher
from pliant.spaces.space import Space


@dataclass(frozen=True, slots=True)
class SearchOptions:
    """How much a search may do.

    Args:
        evaluations: real evaluations in all.
        rounds: in which they are asked for, where a searcher works in rounds.
        candidates: networks that a round searches by prediction, where a searcher predicts.
        seed: of all draws.
    """

    evaluations: int = 200
    rounds: int = 4
    candidates: int = 20_000
    seed: int = 0

    @property
    def batch(self) -> int:
        """Evaluations per round, rounded up."""
        return -(-self.evaluations // self.rounds)


Build = Callable[[Space, Objective, CostModel, SearchOptions], Searcher]


def _linas(
    space: Space, objective: Objective, costs: CostModel, options: SearchOptions
) -> Searcher:
    from pliant.accuracy.predictor import AccuracyPredictor
    from pliant.search.linas import LinasSearch

    return LinasSearch(
        space,
        objective,
        costs,
        fit=lambda architectures, top1: AccuracyPredictor(
            space, architectures, top1, seed=options.seed
        ),
        batch=options.batch,
        candidates=options.candidates,
        seed=options.seed,
    )


def _nsga2(
    space: Space, objective: Objective, costs: CostModel, options: SearchOptions
) -> Searcher:
    from pliant.search.nsga2 import ParetoSearch

    population = max(4, options.batch // 2)
    return ParetoSearch(space, objective, costs, population=population, seed=options.seed)


def _evolution(
    space: Space, objective: Objective, costs: CostModel, options: SearchOptions
) -> Searcher:
    from pliant.search.evolution import EvolutionSearch

    return EvolutionSearch(space, objective, costs, batch=8, population=32, seed=options.seed)


def _random(
    space: Space, objective: Objective, costs: CostModel, options: SearchOptions
) -> Searcher:
    from pliant.search.random import RandomSearch

    return RandomSearch(space, objective, costs, seed=options.seed)


SEARCHERS: Mapping[str, Build] = {
    "linas": _linas,
    "nsga2": _nsga2,
    "evolution": _evolution,
    "random": _random,
}


def require_searcher(name: str) -> str:
    """The same name, if it means a searcher.

    Raises:
        RecipeError: it means none.
    """
    return require_part(name, SEARCHERS, what="a searcher")


def make_searcher(
    name: str | Build, space: Space, objective: Objective, costs: CostModel, options: SearchOptions
) -> Searcher:
    """The searcher of a name.

    Args:
        name: one of `SEARCHERS`; or a function or class, or `file.py:NAME` of one, that takes the
            other four arguments and returns a `Searcher`.
        space: to search.
        objective: the costs of the front, and the limits.
        costs: predicted costs.
        options: how much it may do.

    Raises:
        RecipeError: the name means no searcher.
    """
    if not isinstance(name, str) or is_plugin(name):
        searcher: Searcher = call_plugin(name, space, objective, costs, options, what="a searcher")
        if not (hasattr(searcher, "ask") and hasattr(searcher, "tell")):
            raise RecipeError(
                f"a searcher has ask and tell; {name} returned {type(searcher).__name__}."
            )
        return searcher
    return SEARCHERS[require_searcher(name)](space, objective, costs, options)
