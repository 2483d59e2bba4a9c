"""Random search: the baseline of every other searcher at equal cost.

Li, L. and Talwalkar, A., Random search and reproducibility for neural architecture search, 2019,
arXiv:1902.07638.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from pliant.metrics import Cost
from pliant.objective import Candidate, CostModel, Objective, checked_costs
from pliant.spaces.architecture import Architecture
from pliant.spaces.space import Space

DRAWS_PER_ARCHITECTURE = 50
"""Most draws for each architecture asked for, before `ask` returns what it has."""


class RandomSearch:
    """Draws every choice independently, so small and large networks come up equally often.

    That is a stronger baseline than uniform draws of networks, nearly all of which are of the
    greatest depth.

    Args:
        space: to draw from.
        objective: its limits on costs must hold.
        costs: where given, only networks within the limits are asked for; it should answer in
            microseconds.
        batch: architectures per `ask`.
        seed: of the draws.
    """

    def __init__(
        self,
        space: Space,
        objective: Objective,
        costs: CostModel | None = None,
        *,
        batch: int = 200,
        seed: int = 0,
    ) -> None:
        self.space = space
        self.objective = objective
        self.batch = batch
        self._costs = costs
        self._rng = np.random.default_rng(seed)
        self._seen: set[Architecture] = set()

    def ask(self, most: int) -> list[Architecture]:
        """Unseen architectures, within the limits where costs are known; fewer where draws fail."""
        wanted = min(most, self.batch)
        found: list[Architecture] = []
        for _ in range(DRAWS_PER_ARCHITECTURE):
            drawn = dict.fromkeys(self.space.sample_choices(self._rng) for _ in range(wanted))
            fresh = [architecture for architecture in drawn if architecture not in self._seen]
            self._seen.update(fresh)
            found += within_limits(fresh, self.objective, self._costs)
            if len(found) >= wanted:
                break
        self._seen.difference_update(found[wanted:])
        return found[:wanted]

    def tell(self, candidates: Sequence[Candidate]) -> None:
        """Results do not change what is drawn next."""


def within_limits(
    architectures: Sequence[Architecture], objective: Objective, costs: CostModel | None
) -> list[Architecture]:
    """The architectures whose predicted cost is known and within the limits.

    Args:
        architectures: to choose from.
        objective: whose limits must hold.
        costs: all architectures pass where None.
    """
    if costs is None or not architectures:
        return list(architectures)
    rows = zip(architectures, checked_costs(costs, architectures), strict=True)
    return [one for one, cost in rows if isinstance(cost, Cost) and objective.admits(cost)]
