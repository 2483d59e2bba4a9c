"""Random search: what any other searcher has to beat at equal cost (Li & Talwalkar 2019, random search and reproducibility)."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from pliant.metrics import Cost
from pliant.objective import Candidate, CostModel, Limit, holds, pareto_front
from pliant.spaces.architecture import Architecture
from pliant.spaces.space import Space

DRAWS_AN_ARCHITECTURE = 50
"""Most draws for each architecture asked for, before `ask` gives back what it has."""


class RandomSearch:
    """Draws every choice on its own, so small and large networks come up equally often.

    That is a stronger baseline than uniform draws of networks, nearly all of which are of the greatest depth.

    Args:
        limits: what networks on the front must hold.
        minimise: fields of `Cost`, the other objectives of the front beside top-1.
        cost_model: where given, only networks within the limits are asked for; it should answer in microseconds.
        batch: architectures of one `ask`.
        seed: of the draws.
    """

    def __init__(
        self,
        space: Space,
        limits: Sequence[Limit] = (),
        *,
        minimise: Sequence[str] = ("latency_ms",),
        cost_model: CostModel | None = None,
        batch: int = 200,
        seed: int = 0,
    ) -> None:
        self.space = space
        self.limits = tuple(limits)
        self.minimise = tuple(minimise)
        self.batch = batch
        self._cost_model = cost_model
        self._rng = np.random.default_rng(seed)
        self._seen: set[Architecture] = set()
        self._told: list[Candidate] = []

    def ask(self, most: int) -> list[Architecture]:
        """Unseen architectures, within the limits where a cost model was given; fewer or none where draws found no more."""
        wanted = min(most, self.batch)
        found: list[Architecture] = []
        for _ in range(DRAWS_AN_ARCHITECTURE):
            drawn = dict.fromkeys(self.space.sample_choices(self._rng) for _ in range(wanted))
            fresh = [architecture for architecture in drawn if architecture not in self._seen]
            self._seen.update(fresh)
            found += self._within(fresh)
            if len(found) >= wanted:
                break
        self._seen.difference_update(found[wanted:])
        return found[:wanted]

    def _within(self, architectures: list[Architecture]) -> list[Architecture]:
        if self._cost_model is None or not architectures:
            return architectures
        costs = zip(architectures, self._cost_model(architectures), strict=True)
        return [
            architecture
            for architecture, cost in costs
            if isinstance(cost, Cost) and holds(self.limits, cost)
        ]

    def tell(self, candidates: Sequence[Candidate]) -> None:
        """Remember what architectures are worth; it does not change what is asked next."""
        self._told += candidates

    def front(self) -> list[Candidate]:
        """Of all that was told, what holds the limits and is beaten by nothing, cheapest first."""
        return pareto_front(self._told, self.minimise, self.limits)
