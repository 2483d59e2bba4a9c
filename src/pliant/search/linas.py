"""LINAS: few real evaluations and many predicted ones, in rounds.

Cummings, D. et al., A hardware-aware framework for accelerating neural architecture search across
modalities, 2022, arXiv:2205.10358.

Each round fits a predictor on everything evaluated so far, lets NSGA-II search thousands of
predicted networks, and asks for the real evaluation of the most promising ones, so the predictor
is best around the front. The first round is random, half of it within the limits.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence

import numpy as np

from pliant.objective import AccuracyEstimator, Candidate, CostModel, Objective
from pliant.pareto import non_dominated
from pliant.search.ask_tell import combined, run_search
from pliant.search.nsga2 import ParetoSearch
from pliant.search.random import RandomSearch
from pliant.spaces.architecture import Architecture
from pliant.spaces.space import Space

Fit = Callable[[Sequence[Architecture], np.ndarray], AccuracyEstimator]
"""From architectures and their values to an estimator that answers in microseconds."""

MIN_TO_FIT = 10


class LinasSearch:
    """Asks for what a predictor, refitted on all results so far, expects on the front.

    Args:
        space: to search.
        objective: the costs of the front, and the limits.
        costs: predicted costs; asked about every predicted candidate.
        fit: makes the predictor, such as
            `lambda architectures, top1: AccuracyPredictor(space, architectures, top1)`.
        batch: real evaluations per round.
        candidates: networks that each round searches by prediction.
        seed: of all draws.
    """

    def __init__(
        self,
        space: Space,
        objective: Objective,
        costs: CostModel,
        *,
        fit: Fit,
        batch: int = 50,
        candidates: int = 20_000,
        seed: int = 0,
    ) -> None:
        self.space = space
        self.objective = objective
        self.batch = batch
        self.candidates = candidates
        self.seed = seed
        self.rounds = 0
        """Rounds asked for so far."""
        self._fit = fit
        self._costs = costs
        self._asked: list[Architecture] = []
        self._told: dict[Architecture, Candidate] = {}
        self._predicted: dict[Architecture, float] = {}

    @property
    def predicted(self) -> Mapping[Architecture, float]:
        """The prediction for each architecture, made before it was evaluated."""
        return self._predicted

    def ask(self, most: int) -> list[Architecture]:
        """The batch of the next round; none where nothing new was found."""
        wanted = min(most, self.batch)
        self.rounds += 1
        sound = [one for one in self._told.values() if one.failure is None]
        self._asked = (
            self._promising(sound, wanted) if len(sound) >= MIN_TO_FIT else self._drawn(wanted)
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

    def _round_seed(self) -> int:
        return int(np.random.SeedSequence([self.seed, self.rounds]).generate_state(1)[0])

    def _drawn(self, wanted: int) -> list[Architecture]:
        within = RandomSearch(
            self.space,
            self.objective,
            self._costs,
            batch=wanted,
            seed=self._round_seed(),
        )
        anywhere = RandomSearch(
            self.space, self.objective, batch=2 * wanted, seed=self._round_seed() + 1
        )
        ends = [self.space.smallest(), self.space.largest()]
        found = dict.fromkeys([*ends, *within.ask(wanted // 2), *anywhere.ask(2 * wanted)])
        return [architecture for architecture in found if architecture not in self._told][:wanted]

    def _promising(self, sound: Sequence[Candidate], wanted: int) -> list[Architecture]:
        predictor = self._fit(
            [one.architecture for one in sound], np.array([one.value for one in sound])
        )
        inner = ParetoSearch(
            self.space,
            self.objective,
            start=[one.architecture for one in self.objective.front(self._told.values())],
            seed=self._round_seed(),
        )
        explored = run_search(inner, combined(predictor, self._costs), self.candidates)
        new = [
            one
            for one in explored
            if one.architecture not in self._told and self.objective.satisfied(one)
        ]
        chosen = select_diverse(new, self.objective, wanted)
        self._predicted |= {one.architecture: one.value for one in chosen}
        return [one.architecture for one in chosen]


def select_diverse(
    candidates: Sequence[Candidate], objective: Objective, wanted: int
) -> list[Candidate]:
    """Whole fronts, best first, while they fit; the last one evenly spaced over its first cost.

    Args:
        candidates: none of them failed.
        objective: gives the costs of the front.
        wanted: how many to choose; all are chosen where there are fewer.
    """
    values = objective.values(candidates)
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
