"""The best accuracy or score within limits by evolution, as in Zen-NAS.

Lin, M. et al., Zen-NAS: a zero-shot NAS for high-performance image recognition, 2021,
arXiv:2102.01063 (algorithm 2). A population grows by mutants of random members; when it is full,
the members of least value leave. Mutants over a limit are never evaluated. A zero-shot score often
prefers depth to all else, so depth can be limited too.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from pliant.metrics import Cost, Failed
from pliant.objective import Candidate, CostModel, Objective
from pliant.search.random import RandomSearch, within_limits
from pliant.spaces.architecture import Architecture
from pliant.spaces.space import Space
from pliant.workload import NETWORK_INPUT, Workload

ROUNDS_PER_ASK = 50
"""Batches of mutants in which one `ask` looks for networks that are new and within the limits."""


class EvolutionSearch:
    """Asks for mutants of the best networks so far, a batch at a time.

    Args:
        space: to search.
        objective: its limits on costs must hold.
        costs: predicted costs; asked about every mutant before any is evaluated.
        population: most networks that have descendants.
        batch: mutants per `ask`; they can be evaluated side by side.
        start: networks to begin with, besides random ones within the limits.
        seed: of all draws.
    """

    def __init__(
        self,
        space: Space,
        objective: Objective,
        costs: CostModel,
        *,
        population: int = 256,
        batch: int = 32,
        start: Sequence[Architecture] = (),
        seed: int = 0,
    ) -> None:
        self.space = space
        self.objective = objective
        self.population = population
        self.batch = batch
        self._start = tuple(start)
        self._costs = costs
        self._rng = np.random.default_rng((seed, 0))
        self._random = RandomSearch(space, objective, costs, batch=batch, seed=seed)
        self._seen: set[Architecture] = set()
        self._asked: list[Architecture] = []
        self._members: list[Candidate] = []
        self.parents: dict[Architecture, Architecture] = {}
        """What each mutant was made from; networks that were drawn at random have no parent."""

    def ask(self, most: int) -> list[Architecture]:
        """New networks within the limits; none where neither mutation nor chance found any."""
        # A whole batch whatever was asked for, so that a search with more evaluations begins with
        # those of a search with fewer.
        found = self._mutants() if self._members else self._within(self._new(self._start))
        if len(found) < self.batch:
            found += self._new(self._random.ask(self.batch))
        self._asked = found[: min(most, self.batch)]
        self._seen.difference_update(found[len(self._asked) :])
        return self._asked

    def tell(self, candidates: Sequence[Candidate]) -> None:
        """What the last batch is worth; networks that failed have no descendants.

        Raises:
            KeyError: an architecture that was asked for is missing.
        """
        told = {candidate.architecture: candidate for candidate in candidates}
        # In the order of asking, so that the next mutants do not depend on the order of telling.
        fresh = [told[architecture] for architecture in self._asked]
        within = [one for one in fresh if self.objective.satisfied(one)]
        members = sorted([*self._members, *within], key=lambda one: -one.value)
        self._members = members[: self.population]

    def _mutants(self) -> list[Architecture]:
        found: list[Architecture] = []
        for _ in range(ROUNDS_PER_ASK):
            parents = self._rng.integers(len(self._members), size=self.batch)
            members = [self._members[row].architecture for row in parents]
            drawn = [self.space.mutate(parent, self._rng) for parent in members]
            for mutant, parent in zip(drawn, members, strict=True):
                if mutant not in self._seen:
                    self.parents.setdefault(mutant, parent)
            found += self._within(self._new(drawn))
            if len(found) >= self.batch:
                break
        return found

    def _new(self, architectures: Sequence[Architecture]) -> list[Architecture]:
        fresh = [
            architecture
            for architecture in dict.fromkeys(architectures)
            if architecture not in self._seen
        ]
        self._seen.update(fresh)
        return fresh

    def _within(self, architectures: list[Architecture]) -> list[Architecture]:
        return within_limits(architectures, self.objective, self._costs)


def depth(workload: Workload) -> int:
    """Layers with weights on the longest path from the image to the output."""
    longest = {NETWORK_INPUT: 0}
    for layer in workload.layers:
        longest[layer.name] = max(longest[name] for name in layer.inputs) + layer.weighted
    return longest[workload.layers[-1].name]


def no_deeper(space: Space, cost_model: CostModel, deepest: int) -> CostModel:
    """The same cost model, where a network of more than `deepest` layers fails.

    Args:
        space: of the architectures.
        cost_model: of all networks.
        deepest: layers with weights on the longest path.
    """

    def costs(architectures: Sequence[Architecture]) -> list[Cost | Failed]:
        depths = [depth(space.lower(architecture)) for architecture in architectures]
        return [
            cost
            if layers <= deepest
            else Failed(f"{layers} layers deep, at most {deepest} are wanted")
            for layers, cost in zip(depths, cost_model(architectures), strict=True)
        ]

    return costs
