"""Few real evaluations, many predicted ones, in rounds (LINAS: Cummings et al. 2022, A hardware-aware framework for NAS).

A round fits a predictor on everything evaluated so far, lets NSGA-II look at thousands of predicted networks, and asks
for the real evaluation of those that promise most. So the predictor is best where the front is. The first round is
drawn at random, half of it within the limits.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence

import numpy as np

from pliant.metrics import Accuracy, Cost
from pliant.objective import (
    AccuracyEstimator,
    Candidate,
    CostModel,
    Limit,
    holds,
    objectives,
    pareto_front,
)
from pliant.pareto import non_dominated
from pliant.search.explore import explore, joined
from pliant.search.pareto import ParetoSearch
from pliant.search.random import RandomSearch
from pliant.spaces.architecture import Architecture
from pliant.spaces.space import Space

Fit = Callable[[Sequence[Architecture], np.ndarray], AccuracyEstimator]
"""Architectures and their top-1 to an estimator that answers in microseconds."""

FEWEST_TO_FIT = 10


class LinasSearch:
    """Asks for what a predictor, refitted on all that was told, holds to be the front.

    Args:
        fit: makes the predictor, such as `lambda architectures, top1: AccuracyPredictor(space, architectures, top1)`.
        cost_model: arithmetic or a table; it is asked about every predicted candidate.
        limits: what must hold.
        minimise: fields of `Cost`.
        batch: real evaluations of a round.
        candidates: networks that each round looks at by prediction.
        seed: of all draws.
    """

    def __init__(
        self,
        space: Space,
        fit: Fit,
        cost_model: CostModel,
        limits: Sequence[Limit] = (),
        *,
        minimise: Sequence[str] = ("latency_ms",),
        batch: int = 50,
        candidates: int = 20_000,
        seed: int = 0,
    ) -> None:
        self.space = space
        self.limits = tuple(limits)
        self.minimise = tuple(minimise)
        self.batch = batch
        self.candidates = candidates
        self.seed = seed
        self.rounds = 0
        """Rounds asked for so far."""
        self._fit = fit
        self._cost_model = cost_model
        self._asked: list[Architecture] = []
        self._told: dict[Architecture, Candidate] = {}
        self._predicted: dict[Architecture, float] = {}

    @property
    def predicted(self) -> Mapping[Architecture, float]:
        """What the predictor of its round held of each architecture it chose, before that one was evaluated."""
        return self._predicted

    def ask(self, most: int) -> list[Architecture]:
        """The batch of the next round; none where nothing new was found."""
        wanted = min(most, self.batch)
        self.rounds += 1
        sound = [one for one in self._told.values() if one.failure is None]
        self._asked = (
            self._promising(sound, wanted) if len(sound) >= FEWEST_TO_FIT else self._drawn(wanted)
        )
        return self._asked

    def tell(self, candidates: Sequence[Candidate]) -> None:
        """What the last batch is worth; it is what the next predictor learns from.

        Raises:
            KeyError: an architecture that was asked for is missing.
        """
        told = {candidate.architecture: candidate for candidate in candidates}
        # In the order of asking, so that the next fit does not depend on the order of telling.
        self._told |= {architecture: told[architecture] for architecture in self._asked}

    def front(self) -> list[Candidate]:
        """Of all that was told, what holds the limits and is beaten by nothing, cheapest first."""
        return pareto_front(list(self._told.values()), self.minimise, self.limits)

    def _round_seed(self) -> int:
        return int(np.random.SeedSequence([self.seed, self.rounds]).generate_state(1)[0])

    def _drawn(self, wanted: int) -> list[Architecture]:
        within = RandomSearch(
            self.space,
            self.limits,
            cost_model=self._cost_model,
            batch=wanted,
            seed=self._round_seed(),
        )
        anywhere = RandomSearch(self.space, batch=2 * wanted, seed=self._round_seed() + 1)
        ends = [self.space.smallest(), self.space.largest()]
        found = dict.fromkeys([*ends, *within.ask(wanted // 2), *anywhere.ask(2 * wanted)])
        return [architecture for architecture in found if architecture not in self._told][:wanted]

    def _promising(self, sound: Sequence[Candidate], wanted: int) -> list[Architecture]:
        predictor = self._fit(
            [one.architecture for one in sound], np.array([one.top1 for one in sound])
        )
        inner = ParetoSearch(
            self.space,
            self.limits,
            minimise=self.minimise,
            start=[one.architecture for one in self.front()],
            seed=self._round_seed(),
        )
        explored = explore(inner, joined(predictor, self._cost_model), self.candidates)
        new = [
            one
            for one in explored
            if one.architecture not in self._told
            and isinstance(one.accuracy, Accuracy)
            and isinstance(one.cost, Cost)
            and holds(self.limits, one.cost)
        ]
        chosen = best_spread(new, self.minimise, wanted)
        self._predicted |= {one.architecture: one.top1 for one in chosen}
        return [one.architecture for one in chosen]


def best_spread(
    candidates: Sequence[Candidate], minimise: Sequence[str], wanted: int
) -> list[Candidate]:
    """Whole fronts, best first, while they fit; of the front that does not fit, candidates spread evenly over its costs.

    Args:
        candidates: none of them failed.
        minimise: fields of `Cost`.
        wanted: how many to choose; all are chosen where there are fewer.
    """
    values = np.array([objectives(one, minimise) for one in candidates])
    left = np.arange(len(candidates))
    chosen: list[int] = []
    while len(chosen) < wanted and len(left):
        on_front = non_dominated(values[left])
        front = left[on_front]
        front = front[np.argsort(values[front, 1], kind="stable")]
        room = min(wanted - len(chosen), len(front))
        chosen += front[np.linspace(0, len(front) - 1, room).round().astype(int)].tolist()
        left = left[~on_front]
    return [candidates[row] for row in chosen]
