"""A front of accelerators, or of networks with accelerators, by NSGA-II.

K. Deb et al., "A fast and elitist multiobjective genetic algorithm: NSGA-II", IEEE Transactions on
Evolutionary Computation, 2002, doi:10.1109/4235.996017, of the library pymoo. A genotype is the
vector of the hardware and, where a supernet is searched too, one number for each choice of its
space. Vectors that do not decode to a design within the resources are drawn again.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray
from pymoo.algorithms.moo.nsga2 import NSGA2
from pymoo.core.duplicate import DuplicateElimination
from pymoo.core.evaluator import Evaluator
from pymoo.core.population import Population
from pymoo.core.problem import Problem
from pymoo.core.sampling import Sampling
from pymoo.core.termination import NoTermination
from pymoo.problems.static import StaticProblem

from pliant.accelerator.chip import Chip
from pliant.accelerator.hardware_space import HardwareSpace
from pliant.accelerator.network_mapping import deciding_fields, digest
from pliant.errors import InfeasibleError, RecipeError, nearest
from pliant.pareto import non_dominated
from pliant.search.codesign import DesignMemory
from pliant.search.mapped_designs import Design, LayerMapper, MappedNetworks, geometric_mean
from pliant.search.searched_networks import NETWORK, NetworkAccuracies
from pliant.spaces.architecture import Architecture

POPULATION = 24
MAX_DRAWS = 10_000
MATINGS_PER_GENERATION = 100

MINIMISED = ("edp", "latency", "energy", "area")
MAXIMISED = ("accuracy",)


@dataclass(frozen=True, slots=True)
class FrontObjectives:
    """What the designs of a front are compared by.

    Raises:
        RecipeError: a metric is unknown or named twice, or fewer than two are named.
    """

    minimise: tuple[str, ...] = ("edp", "area")
    """Members of `MINIMISED`; of several networks, geometric means."""
    maximise: tuple[str, ...] = ()
    """Members of `MAXIMISED`; needs a supernet."""

    def __post_init__(self) -> None:
        for names, known in ((self.minimise, MINIMISED), (self.maximise, MAXIMISED)):
            for name in names:
                if name not in known:
                    raise RecipeError(
                        f"a design is judged by {', '.join(MINIMISED)}, which are minimised, and "
                        f"accuracy, which is maximised; received {name!r}. {nearest(name, known)}"
                    )
        named = self.names
        if len(set(named)) < len(named) or len(named) < 2:
            raise RecipeError(
                f"a front has two metrics or more, each named once; received {', '.join(named)}."
            )

    @property
    def names(self) -> tuple[str, ...]:
        """All metrics, the minimised ones first."""
        return (*self.minimise, *self.maximise)

    def values(self, design: Design) -> tuple[float, ...]:
        """What is minimised of a design that did not fail."""
        signs = [1.0] * len(self.minimise) + [-1.0] * len(self.maximise)
        metrics = [metric(design, name) for name in self.names]
        return tuple(sign * value for sign, value in zip(signs, metrics, strict=True))

    def front(self, designs: Sequence[Design]) -> list[Design]:
        """The designs that no other one beats, the least of the first metric first."""
        mapped = [one for one in designs if one.costs]
        if not mapped:
            return []
        mask = non_dominated(np.array([self.values(one) for one in mapped]))
        front = [one for one, kept in zip(mapped, mask.tolist(), strict=True) if kept]
        return sorted(front, key=self.values)


def metric(design: Design, name: str) -> float:
    """One metric of a design that did not fail.

    Energy-delay product and energy in units of the energy table, latency in milliseconds, area in
    square millimetres, accuracy from 0 to 1.

    Args:
        design: mapped.
        name: a member of `MINIMISED` or `MAXIMISED`.
    """
    if name == "area":
        return design.chip.area_mm2
    if name == "accuracy":
        assert design.accuracy is not None, "only a searched network has an accuracy"
        return design.accuracy
    costs = design.costs.values()
    if name == "latency":
        return geometric_mean([cost.cycles for cost in costs]) / design.chip.clock_mhz * 1e-3
    if name == "energy":
        return geometric_mean([cost.energy for cost in costs])
    return design.edp


class FrontJudge(Protocol):
    """Costs a genotype: a chip, and what the rest of the vector means."""

    @property
    def identity(self) -> str:
        """Digest of all that decides its costs but the genotype."""
        ...

    @property
    def genes(self) -> int:
        """Numbers of the genotype behind those of the hardware."""
        ...

    def key(self, genes: NDArray[np.float64]) -> str:
        """What the genes mean, so that equal ones are evaluated once."""
        ...

    def design(self, chip: Chip, vector: Sequence[float]) -> Design:
        """The chip with its costs."""
        ...


class GivenNetworks:
    """Designs for given networks: all of the genotype is hardware.

    Args:
        networks: that judge.
    """

    genes = 0

    def __init__(self, networks: MappedNetworks) -> None:
        self.networks = networks
        self.identity = networks.identity

    def key(self, genes: NDArray[np.float64]) -> str:
        """Nothing."""
        return ""

    def design(self, chip: Chip, vector: Sequence[float]) -> Design:
        """The chip with what the networks cost on it."""
        return self.networks.design(chip, vector)


class JointNetworks:
    """Designs with a network each: the rest of the genotype picks an option of every choice.

    Args:
        accuracies: of the networks.
        mapper: of layers.
        context: digest of what the accuracies depend on.
        floor: least top-1; networks below it are not mapped.
    """

    def __init__(
        self, accuracies: NetworkAccuracies, mapper: LayerMapper, context: str, floor: float = 0.0
    ) -> None:
        self.accuracies, self.mapper, self.floor = accuracies, mapper, floor
        self.identity = digest(accuracies.space.identity, context, floor)[:16]

    @property
    def genes(self) -> int:
        """One for each choice of the space."""
        return len(self.accuracies.space.choices)

    def key(self, genes: NDArray[np.float64]) -> str:
        """The architecture as text."""
        return str(self._architecture(genes))

    def design(self, chip: Chip, vector: Sequence[float]) -> Design:
        """The chip with what its network costs; a network below the floor is a failure."""
        genes = np.array(vector[len(vector) - self.genes :])
        architecture = self._architecture(genes)
        [top1] = self.accuracies.of([architecture])
        if top1 < self.floor:
            reason = f"an accuracy of {top1:.2%}, below the floor of {self.floor:.2%}"
            return Design(chip, tuple(vector), {}, reason, network=str(architecture))
        space = self.accuracies.space
        judge = MappedNetworks({NETWORK: space.lower(architecture)}, self.mapper)
        design = judge.design(chip, vector)
        return replace(design, network=str(architecture), accuracy=top1)

    def _architecture(self, genes: NDArray[np.float64]) -> Architecture:
        space = self.accuracies.space
        counts = [len(choice.options) for choice in space.choices]
        places = [
            min(count - 1, int(gene * count)) for gene, count in zip(genes, counts, strict=True)
        ]
        return space.decode(places)


def search_designs(
    space: HardwareSpace,
    judge: FrontJudge,
    objectives: FrontObjectives,
    *,
    designs: int,
    seed: int,
    memory: DesignMemory | None = None,
) -> Iterator[Design]:
    """Designs in the order in which they were drawn; `objectives.front` finds the best of them.

    Args:
        space: of the hardware; the given chip is among the first designs.
        judge: of the designs.
        objectives: what they are compared by.
        designs: to evaluate.
        seed: of all draws.
        memory: of designs that were evaluated before.

    Raises:
        InfeasibleError: nearly no vector decodes, or no design of the first generation has costs.
    """
    length = space.dimensions + judge.genes
    problem = Problem(n_var=length, n_obj=len(objectives.names), xl=0.0, xu=1.0)
    decoding = _Decoding(space, judge)
    algorithm = NSGA2(
        pop_size=POPULATION,
        sampling=_Beginning(space, decoding),
        eliminate_duplicates=decoding,
    )
    algorithm.mating.n_max_iterations = MATINGS_PER_GENERATION
    algorithm.setup(problem, termination=NoTermination(), seed=seed)
    done = 0
    while done < designs:
        asked = algorithm.ask()
        if asked is None or len(asked) == 0:
            return  # mating finds nothing new: the front is known
        asked = asked[: designs - done]
        decoding.seen.update(one.data["meaning"] for one in asked)
        found = [
            _evaluated(space, judge, one.X, done + n, memory) for n, one in enumerate(asked, 1)
        ]
        yield from found
        done += len(found)
        mapped = [index for index, one in enumerate(found) if one.costs]
        if not mapped and done == len(found):
            raise InfeasibleError(
                f"none of {len(found)} designs can run the networks: {found[0].failure}"
            )
        if mapped:
            survivors = asked[mapped]
            values = np.array([objectives.values(found[index]) for index in mapped])
            Evaluator().eval(StaticProblem(problem, F=values), survivors)
            algorithm.tell(infills=survivors)


def _evaluated(
    space: HardwareSpace,
    judge: FrontJudge,
    vector: NDArray[np.float64],
    number: int,
    memory: DesignMemory | None,
) -> Design:
    hardware, genes = vector[: space.dimensions], vector[space.dimensions :]
    chip = space.decode(hardware, f"design-{number}")
    assert chip is not None, "vectors that do not decode are drawn again"
    key = digest(judge.identity, deciding_fields(chip), judge.key(genes))
    known = memory.get(key, chip, vector.tolist()) if memory is not None else None
    if known is None:
        known = judge.design(chip, vector.tolist())
        if memory is not None:
            memory.put(key, known)
    return known


class _Decoding(DuplicateElimination):
    """Keeps genotypes that decode, and each meaning once."""

    def __init__(self, space: HardwareSpace, judge: FrontJudge) -> None:
        super().__init__()
        self.space, self.judge = space, judge
        self.seen: set[str] = set()

    def meaning(self, vector: NDArray[np.float64]) -> str | None:
        """Chip and network of a genotype; None where the chip exceeds the resources."""
        chip = self.space.decode(vector[: self.space.dimensions])
        if chip is None:
            return None
        return digest(deciding_fields(chip), self.judge.key(vector[self.space.dimensions :]))

    def do(self, pop: Population, *others: Population, **_: Any) -> Population:
        """The individuals of `pop` that decode and are new, also among those of this round."""
        accepted = {one.data.get("meaning") for one in others[-1]} if others else set()
        fresh = []
        for row, individual in enumerate(pop):
            meaning = self.meaning(individual.X)
            if meaning is not None and meaning not in self.seen and meaning not in accepted:
                individual.data["meaning"] = meaning
                accepted.add(meaning)
                fresh.append(row)
        return pop[fresh]


class _Beginning(Sampling):
    """The given chip, then random genotypes that decode."""

    def __init__(self, space: HardwareSpace, decoding: _Decoding) -> None:
        super().__init__()
        self.space, self.decoding = space, decoding

    def _do(
        self,
        problem: Problem,
        n_samples: int,
        *_: Any,
        random_state: np.random.Generator,
        **__: Any,
    ) -> NDArray[np.float64]:
        first = random_state.random(problem.n_var)
        first[: self.space.dimensions] = self.space.encode(self.space.within)
        found = [first] if self.decoding.meaning(first) is not None else []
        for _draw in range(MAX_DRAWS):
            if len(found) == n_samples:
                return np.array(found)
            vector = random_state.random(problem.n_var)
            if self.decoding.meaning(vector) is not None:
                found.append(vector)
        raise InfeasibleError(
            f"fewer than {n_samples} of {MAX_DRAWS:,} drawn designs are within the resources of "
            f"chip {self.space.within.name!r}. Take a chip with more of them."
        )
