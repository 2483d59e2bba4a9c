"""The network level of a co-design: for each accelerator the best network of a supernet.

Y. Lin, M. Yang, S. Han, "NAAS: Neural Accelerator Architecture Search", DAC 2021, arXiv:2105.13258,
section II-C: for each design of the hardware, networks of a Once-for-All supernet whose accuracy
reaches a floor are searched by evolution (H. Cai et al., "Once-for-All", 2020, arXiv:1908.09791),
each of them is mapped, and the energy-delay product of the best one is that of the design.

Accuracies are those of an estimator; what is delivered in the end is validated by the caller.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import replace

import numpy as np

from pliant.accelerator.chip import Chip
from pliant.accelerator.network_mapping import digest
from pliant.errors import InfeasibleError
from pliant.metrics import Accuracy, Cost, Failed, Score
from pliant.objective import AccuracyEstimator, Candidate, Objective, checked_qualities
from pliant.search.ask_tell import run_search
from pliant.search.evolution import EvolutionSearch
from pliant.search.mapped_designs import Design, LayerMapper, MappedNetworks, best_layer
from pliant.spaces.architecture import Architecture
from pliant.spaces.space import Space

NETWORK = "network"
"""Name of the searched network among the costs of a design."""
SAMPLES = 512
"""Random networks among which those above the floor are looked for."""
ROUNDS = 20
MUTANTS = 32
"""Of the most accurate network, where no random one is above the floor."""
STARTS = 8
"""Networks above the floor, of the fewest operations, that the search of each design begins with.
"""
BATCH = 8


class NetworkAccuracies:
    """What an estimator says of the networks of a space, each asked once.

    Args:
        space: of the networks.
        estimator: of their accuracies.
    """

    def __init__(self, space: Space, estimator: AccuracyEstimator) -> None:
        self.space, self.estimator = space, estimator
        self._known: dict[Architecture, float] = {}

    def of(self, architectures: Sequence[Architecture]) -> list[float]:
        """Top-1 of each, 0 to 1; below 0 where the estimate failed."""
        fresh = [one for one in dict.fromkeys(architectures) if one not in self._known]
        if fresh:
            for one, found in zip(fresh, checked_qualities(self.estimator, fresh), strict=True):
                self._known[one] = found.top1 if isinstance(found, Accuracy) else -1.0
        return [self._known[one] for one in architectures]

    def reaching(self, floor: float, seed: int) -> list[Architecture]:
        """Networks at or above a floor, of the fewest operations first.

        Args:
            floor: least top-1, 0 to 1.
            seed: of all draws.

        Raises:
            InfeasibleError: none was found; with the range of accuracies that was.
        """
        rng = np.random.default_rng(seed)
        drawn = [self.space.sample_choices(rng) for _ in range(SAMPLES)]
        seen = dict.fromkeys([self.space.smallest(), self.space.largest(), *drawn])
        for _ in range(ROUNDS):
            known = dict(zip(seen, self.of(list(seen)), strict=True))
            best = max(known, key=lambda one: known[one])
            if known[best] >= floor:
                break
            seen |= dict.fromkeys(self.space.mutate(best, rng) for _ in range(MUTANTS))
        known = dict(zip(seen, self.of(list(seen)), strict=True))
        within = [one for one, accuracy in known.items() if accuracy >= floor]
        if not within:
            reached = [accuracy for accuracy in known.values() if accuracy >= 0] or [0.0]
            raise InfeasibleError(
                f"no network of space {self.space.name!r} was found with an accuracy of at least "
                f"{floor:.2%}; of {len(known)} examined, accuracies reach from {min(reached):.2%} "
                f"to {max(reached):.2%}. Lower --min-accuracy to at most that."
            )
        return sorted(within, key=lambda one: self.space.cost(one).metric("macs"))


class SearchedNetworks:
    """Judges a design by the best network for it, of those whose accuracy reaches a floor.

    Args:
        accuracies: of the networks of a space.
        floor: least top-1, 0 to 1.
        networks: that are evaluated for each design; those that a bound rejects count.
        seed: of all draws.
        mapper: of layers.
        context: digest of what the accuracies depend on.

    Raises:
        InfeasibleError: no network reaches the floor.
    """

    def __init__(
        self,
        accuracies: NetworkAccuracies,
        floor: float,
        *,
        networks: int,
        seed: int,
        mapper: LayerMapper = best_layer,
        context: str = "",
    ) -> None:
        self.accuracies, self.floor, self.networks = accuracies, floor, networks
        self.seed, self.mapper, self.context = seed, mapper, context
        self.start = accuracies.reaching(floor, seed)[:STARTS]

    def with_floor(self, floor: float) -> SearchedNetworks:
        """The same search above another floor.

        Raises:
            InfeasibleError: no network reaches it.
        """
        return SearchedNetworks(
            self.accuracies,
            floor,
            networks=self.networks,
            seed=self.seed,
            mapper=self.mapper,
            context=self.context,
        )

    @property
    def identity(self) -> str:
        """Digest of space, accuracies, floor and search, for the record."""
        space = self.accuracies.space.identity
        return digest(space, self.context, self.floor, self.networks, self.seed)[:16]

    def bound(self, chip: Chip) -> float:
        """Of all networks above the floor nothing is known: nothing is rejected."""
        return 0.0

    def design(self, chip: Chip, vector: Sequence[float] = (), limit: float = math.inf) -> Design:
        """A chip with the best network that was found for it; `limit` rejects nothing."""
        ranked = self.ranked(chip)
        best = min(ranked, key=lambda one: one.edp)
        return replace(best, vector=tuple(vector))

    def ranked(self, chip: Chip) -> list[Design]:
        """The chip with every network that was mapped to the end, in the order of the search.

        A network that a bound shows to be worse than the best so far is not mapped. Where the chip
        can run none of them, the failure of the first.
        """
        space, found = self.accuracies.space, []
        failures: list[Design] = []
        best = math.inf

        def evaluate(architectures: Sequence[Architecture]) -> list[Candidate]:
            nonlocal best
            candidates = []
            tops = self.accuracies.of(architectures)
            for architecture, top1 in zip(architectures, tops, strict=True):
                judge = MappedNetworks({NETWORK: space.lower(architecture)}, self.mapper)
                design = judge.design(chip, limit=best)
                design = replace(design, network=str(architecture), accuracy=top1)
                cost = space.cost(architecture)
                if design.failure is not None:
                    failures.append(design)
                    candidates.append(Candidate(architecture, Failed(design.failure), cost))
                    continue
                if design.bound is None:
                    found.append(design)
                    best = min(best, design.edp)
                # A network that was rejected is worth no more than its bound says.
                value = design.edp if design.bound is None else design.bound
                candidates.append(Candidate(architecture, Score(-math.log(value)), cost))
            return candidates

        objective = Objective(("macs",))
        searcher = EvolutionSearch(
            space,
            objective,
            self._above_floor,
            population=2 * BATCH,
            batch=BATCH,
            start=self.start,
            seed=self.seed,
        )
        run_search(searcher, evaluate, self.networks)
        return found or failures[:1]

    def _above_floor(self, architectures: Sequence[Architecture]) -> list[Cost | Failed]:
        """Costs of networks above the floor; the others are never mapped."""
        space = self.accuracies.space
        return [
            space.cost(one) if top1 >= self.floor else Failed(f"an accuracy of {top1:.2%}")
            for one, top1 in zip(architectures, self.accuracies.of(architectures), strict=True)
        ]
