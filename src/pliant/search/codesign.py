"""The search for an accelerator: designs within the resources of a chip, each with best mappings.

Y. Lin, M. Yang, S. Han, "NAAS: Neural Accelerator Architecture Search", DAC 2021, arXiv:2105.13258,
section II: an evolution strategy draws vectors, those that do not decode to a design within the
resources are drawn again, and the fitness of a design is the geometric mean of the energy-delay
products of the benchmark networks, each mapped for it. The strategy is CMA-ES (N. Hansen,
"The CMA Evolution Strategy: A Tutorial", 2016, arXiv:1604.00772), of the library `cmaes`.

Where we depart from the paper: the mapping of each layer is the certified best one, not that of an
inner evolution, so that designs are compared without the luck of a search; the search may begin at
a known design; and a design that cannot be a parent of its generation (or, of random draws, the
best so far) is rejected by a bound before all of it is mapped.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import Literal, Protocol

import numpy as np
from cmaes import CMA
from numpy.typing import NDArray

from pliant.accelerator.chip import Chip
from pliant.accelerator.hardware_space import HardwareSpace
from pliant.accelerator.network_mapping import deciding_fields, digest
from pliant.errors import InfeasibleError
from pliant.search.mapped_designs import Design

SIGMA = 0.3
"""Deviation with which the strategy begins in the middle; vectors lie from 0 to 1."""
SIGMA_NEAR = 0.2
"""The same where it begins at a known design."""
POPULATION = 16
PARENTS = POPULATION // 2
"""Designs of a generation that the next one descends from; all of them are mapped."""
SIDE_BY_SIDE = 4
"""Designs that are judged by one limit, so that threads may share them; the next ones by a lower
one. It is no number of threads, so that any number of them finds the same."""
MAX_DRAWS = 10_000
"""Vectors that may fail to decode before a search gives up."""

Algorithm = Literal["cma-es", "random"]
Drawn = tuple[NDArray[np.float64], Chip]


class Judge(Protocol):
    """What designs are judged by: networks with mappings, or also the search for the network."""

    @property
    def identity(self) -> str:
        """Digest of all that decides its costs but the chip."""
        ...

    def bound(self, chip: Chip) -> float:
        """What the energy-delay product of a design cannot be below."""
        ...

    def design(self, chip: Chip, vector: Sequence[float] = (), limit: float = math.inf) -> Design:
        """A chip with its costs; rejected where its energy-delay product is not below a limit."""
        ...


class DesignMemory(Protocol):
    """Keeps what was evaluated, so that a search that was stopped goes on."""

    def get(self, key: str, chip: Chip, vector: Sequence[float]) -> Design | None:
        """The design as it was evaluated; None where it is unknown."""
        ...

    def put(self, key: str, design: Design) -> None:
        """Keep a design, in place of one that was rejected."""
        ...


@dataclass(frozen=True, slots=True)
class _Bench:
    """What evaluates designs: the judge, the memory, and threads."""

    judge: Judge
    memory: DesignMemory | None
    pool: ThreadPoolExecutor

    def bounds(self, drawn: Sequence[Drawn]) -> list[float]:
        """Of each design."""
        return list(self.pool.map(lambda one: self.judge.bound(one[1]), drawn))

    def designs(self, drawn: Sequence[Drawn], limit: float = math.inf) -> list[Design]:
        """Evaluated side by side, those that are not remembered."""
        keys = [digest(self.judge.identity, deciding_fields(chip)) for _, chip in drawn]
        known: list[Design | None] = [None] * len(drawn)
        for index, (vector, chip) in enumerate(drawn):
            if self.memory is not None:
                one = self.memory.get(keys[index], chip, vector.tolist())
                is_known = one is not None and (one.bound is None or one.bound >= limit)
                known[index] = one if is_known else None
        pending = {
            index: self.pool.submit(self.judge.design, chip, vector.tolist(), limit)
            for index, (vector, chip) in enumerate(drawn)
            if known[index] is None
        }
        found = []
        for index, one in enumerate(known):
            if one is None:
                one = pending[index].result()
                if self.memory is not None:
                    self.memory.put(keys[index], one)
            found.append(one)
        return found

    def in_turn(
        self,
        drawn: Sequence[Drawn],
        bounds: Sequence[float],
        limit: Callable[[Sequence[float]], float],
    ) -> list[Design]:
        """The designs in their order, those of the least bounds evaluated first.

        Args:
            drawn: the designs.
            bounds: of each.
            limit: above which a design is of no interest, by the energy-delay products so far.
        """
        found: dict[int, Design] = {}
        order = _ascending(bounds)
        for start in range(0, len(order), SIDE_BY_SIDE):
            chosen = order[start : start + SIDE_BY_SIDE]
            least = limit([one.edp for one in found.values()])
            designs = self.designs([drawn[index] for index in chosen], least)
            found |= zip(chosen, designs, strict=True)
        return [found[index] for index in range(len(drawn))]


def _ascending(bounds: Sequence[float]) -> list[int]:
    """Places in the order of their bounds."""
    return sorted(range(len(bounds)), key=lambda index: bounds[index])


def search_hardware(
    space: HardwareSpace,
    judge: Judge,
    *,
    designs: int,
    seed: int,
    algorithm: Algorithm = "cma-es",
    start: Chip | None = None,
    memory: DesignMemory | None = None,
    threads: int = 1,
) -> Iterator[Design]:
    """Designs in the order in which they were drawn; the best of them is the result.

    The same seed draws the same designs, whether they are evaluated or remembered, and for any
    number of threads.

    Args:
        space: to draw from.
        judge: of the designs.
        designs: to evaluate; those that a bound rejects count.
        seed: of all draws.
        algorithm: `random` draws evenly, for comparison.
        start: design that the strategy begins at; it is the first of the first generation.
        memory: of designs that were evaluated before.
        threads: that evaluate the designs of one generation.

    Raises:
        InfeasibleError: nearly no vector decodes, or no design of the first generation can run the
            networks.
    """
    draw: _Random | _Strategy
    draw = _Random(space, seed) if algorithm == "random" else _Strategy(space, seed, start)
    done, best = 0, math.inf
    with ThreadPoolExecutor(threads) as pool:
        bench = _Bench(judge, memory, pool)
        while done < designs:
            drawn = draw.generation(min(POPULATION, designs - done), done)
            found = draw.evaluated(bench, drawn, best)
            yield from found
            done += len(found)
            best = min(best, *(one.edp for one in found))
            if math.isinf(best):
                raise InfeasibleError(
                    f"none of {len(found)} designs can run the networks: {found[0].failure}"
                )


class _Random:
    """Draws evenly; only a design that may be the best so far is mapped to its end."""

    def __init__(self, space: HardwareSpace, seed: int) -> None:
        self.space, self.rng = space, np.random.default_rng(seed)

    def generation(self, count: int, first: int) -> list[Drawn]:
        """Designs within the resources, named by their numbers."""
        return _decoded(self.space, self._draw, count, first, ())

    def _draw(self) -> NDArray[np.float64]:
        return self.rng.random(self.space.dimensions)

    def evaluated(self, bench: _Bench, drawn: Sequence[Drawn], best: float) -> list[Design]:
        """The designs of a generation in their order; those of the least bounds come first."""
        return bench.in_turn(drawn, bench.bounds(drawn), lambda edps: min(best, *edps, math.inf))


class _Strategy:
    """CMA-ES that begins in the middle of the space, or at a known design."""

    def __init__(self, space: HardwareSpace, seed: int, start: Chip | None) -> None:
        self.space = space
        middle = np.full(space.dimensions, 0.5)
        self._first = [] if start is None else [space.encode(start)]
        self._strategy = CMA(
            mean=self._first[0] if self._first else middle,
            sigma=SIGMA_NEAR if self._first else SIGMA,
            bounds=np.tile([0.0, 1.0], (space.dimensions, 1)),
            seed=seed,
            population_size=POPULATION,
        )

    def generation(self, count: int, first: int) -> list[Drawn]:
        """Designs within the resources, named by their numbers."""
        # The mean itself, added to its own generation, leaves the strategy unbiased: its step is 0.
        beginning, self._first = self._first, []
        return _decoded(self.space, self._strategy.ask, count, first, beginning)

    def evaluated(self, bench: _Bench, drawn: Sequence[Drawn], best: float) -> list[Design]:
        """The designs of a generation in their order; the strategy learns from a whole one.

        The designs of the least bounds are mapped first, each as far as it may be among the
        parents, so the parents are the same as if all were mapped. The strategy uses nothing of the
        values but their order, that of the others too: it is the order of their bounds, however far
        they were mapped.
        """
        bounds = bench.bounds(drawn)
        found = bench.in_turn(
            drawn,
            bounds,
            lambda edps: math.inf if len(edps) < PARENTS else sorted(edps)[PARENTS - 1],
        )
        if len(drawn) == POPULATION:
            order = _ascending(bounds)
            parents = sorted(order, key=lambda index: found[index].edp)[:PARENTS]
            ranked = [*parents, *(index for index in order if index not in parents)]
            told = [(drawn[index][0], float(rank)) for rank, index in enumerate(ranked)]
            self._strategy.tell(told)
        return found


def _decoded(
    space: HardwareSpace,
    draw: Callable[[], NDArray[np.float64]],
    count: int,
    first: int,
    beginning: Sequence[NDArray[np.float64]],
) -> list[Drawn]:
    """Vectors with their chips; those that do not decode are drawn again.

    Args:
        space: to decode by.
        draw: a vector.
        count: of designs.
        first: number of designs before these.
        beginning: vectors that come before drawn ones.
    """
    found: list[Drawn] = []
    for index in range(MAX_DRAWS):
        vector = beginning[index] if index < len(beginning) else draw()
        chip = space.decode(vector, f"design-{first + len(found) + 1}")
        if chip is not None:
            found.append((vector, chip))
        if len(found) == count:
            return found
    raise InfeasibleError(
        f"fewer than {count} of {MAX_DRAWS:,} drawn designs are within the resources of chip "
        f"{space.within.name!r}. Take a chip with more of them."
    )
