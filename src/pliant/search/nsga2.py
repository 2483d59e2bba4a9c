"""Accuracy against costs by NSGA-II, as pymoo has it, over the integer encoding of a space.

Deb, K. et al., A fast and elitist multiobjective genetic algorithm: NSGA-II, 2002,
DOI 10.1109/4235.996017. Limits are kept by its constraint domination (section VI): a network within
them beats any that is not, and of two that are not the one with the smaller total violation wins.
No weights, no penalties. Genes of choices that are not active are inherited and matter again when
their parent choice grows; two genotypes with the same active genes are one network.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
from pymoo.algorithms.moo.nsga2 import NSGA2
from pymoo.core.duplicate import DuplicateElimination
from pymoo.core.evaluator import Evaluator
from pymoo.core.mutation import Mutation
from pymoo.core.population import Population
from pymoo.core.problem import Problem
from pymoo.core.sampling import Sampling
from pymoo.core.termination import NoTermination
from pymoo.operators.crossover.ux import UniformCrossover
from pymoo.problems.static import StaticProblem

from pliant.objective import Candidate, CostModel, Objective
from pliant.spaces.architecture import Architecture
from pliant.spaces.space import Space


class ParetoSearch:
    """NSGA-II that maximises accuracy or score and minimises costs within limits.

    Args:
        space: to search.
        objective: the costs of the front, and the limits.
        costs: not used: the limits are kept by what was told.
        population: networks that survive a generation, and the most that one `ask` returns.
        crossover: probability that a child takes its genes from two parents, each gene from
            either with equal probability.
        mutation: probability that a gene is redrawn; None for one gene per network on average. At
            least one is redrawn.
        start: architectures to begin with besides the smallest, the largest and random ones.
        seed: of all draws.
    """

    def __init__(
        self,
        space: Space,
        objective: Objective,
        costs: CostModel | None = None,
        *,
        population: int = 200,
        crossover: float = 0.9,
        mutation: float | None = None,
        start: Sequence[Architecture] = (),
        seed: int = 0,
    ) -> None:
        self.space = space
        self.objective = objective
        self._unseen = _Unseen(space)
        self._asked: Population | None = None
        self._spent = False
        highest = np.array([len(choice.options) - 1 for choice in space.choices])
        self._problem = Problem(
            n_var=len(highest),
            n_obj=1 + len(objective.costs),
            n_ieq_constr=1,
            xl=0,
            xu=highest,
            vtype=int,
        )
        self._algorithm = NSGA2(
            pop_size=population,
            sampling=_Beginning(space, start),
            crossover=UniformCrossover(prob=crossover),
            mutation=_Redraw(1 / len(highest) if mutation is None else mutation),
            eliminate_duplicates=self._unseen,
        )
        self._algorithm.mating.n_max_iterations = MATINGS_PER_ASK
        self._algorithm.setup(self._problem, termination=NoTermination(), seed=seed)

    def ask(self, most: int) -> list[Architecture]:
        """The next generation; none after one in which mating found hardly anything new."""
        infill = None if self._spent else self._algorithm.ask()
        self._spent = infill is None or len(infill) < SPENT_BELOW * self._algorithm.pop_size
        self._asked = None if infill is None else infill[:most]
        architectures = (
            [] if self._asked is None else [one.data["architecture"] for one in self._asked]
        )
        self._unseen.seen.update(architectures)
        return architectures

    def tell(self, candidates: Sequence[Candidate]) -> None:
        """What the last generation is worth; failed candidates have no descendants.

        Raises:
            ValueError: an architecture that was asked for is missing.
        """
        told = {candidate.architecture: candidate for candidate in candidates}
        individuals = [] if self._asked is None else list(self._asked)
        if missing := [
            one.data["architecture"] for one in individuals if one.data["architecture"] not in told
        ]:
            raise ValueError(
                "tell takes one candidate for each architecture of the last ask, "
                f"{len(missing)} are missing: {missing[0]} ..."
            )
        worth = [told[one.data["architecture"]] for one in individuals]
        sound = [row for row, one in enumerate(worth) if one.failure is None]
        if sound:
            assert self._asked is not None
            survivors = self._asked[sound]
            values = self.objective.values([worth[row] for row in sound])
            excess = np.array([[self.objective.violation(worth[row])] for row in sound])
            Evaluator().eval(StaticProblem(self._problem, F=values, G=excess), survivors)
            self._algorithm.tell(infills=survivors)
        self._asked = None


MATINGS_PER_ASK = 5
"""Rounds of mating in which one `ask` looks for networks never asked for before."""
SPENT_BELOW = 0.1
"""A generation with a smaller share of new networks is the last: around the front all is known."""


class _Beginning(Sampling):
    """Both ends of the space, what the caller knows, and random genotypes."""

    def __init__(self, space: Space, start: Sequence[Architecture]) -> None:
        super().__init__()
        self._known = np.array(
            [
                space.encode(architecture)
                for architecture in (space.smallest(), space.largest(), *start)
            ]
        )

    def _do(
        self,
        problem: Problem,
        n_samples: int,
        *_: Any,
        random_state: np.random.Generator,
        **__: Any,
    ) -> np.ndarray:
        drawn = random_state.integers(
            0,
            np.asarray(problem.xu) + 1,
            size=(max(0, n_samples - len(self._known)), problem.n_var),
        )
        return np.vstack([self._known, drawn])


class _Redraw(Mutation):
    """Each gene is drawn again with a probability, at least one in every genotype."""

    def __init__(self, probability: float) -> None:
        super().__init__()
        self._probability = probability

    def _do(
        self,
        problem: Problem,
        genotypes: np.ndarray,
        *_: Any,
        random_state: np.random.Generator,
        **__: Any,
    ) -> np.ndarray:
        rows, genes = genotypes.shape
        again = random_state.random(genotypes.shape) < self._probability
        again[np.arange(rows), random_state.integers(genes, size=rows)] = True
        drawn = random_state.integers(0, np.asarray(problem.xu) + 1, size=genotypes.shape)
        return np.where(again, drawn, genotypes)


class _Unseen(DuplicateElimination):
    """Keeps one genotype per network that was never asked for, with the decoded architecture."""

    def __init__(self, space: Space) -> None:
        super().__init__()
        self.seen: set[Architecture] = set()
        self._space = space

    def do(self, pop: Population, *others: Population, **_: Any) -> Population:
        """The individuals of `pop` that are new, also among those accepted in this round."""
        accepted = {one.data.get("architecture") for one in others[-1]} if others else set()
        fresh = []
        for row, individual in enumerate(pop):
            architecture = self._space.decode(individual.X)
            if architecture not in self.seen and architecture not in accepted:
                individual.data["architecture"] = architecture
                accepted.add(architecture)
                fresh.append(row)
        return pop[fresh]
