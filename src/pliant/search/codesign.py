"""The search for an accelerator: designs within the resources of a chip, each with best mappings.

Y. Lin, M. Yang, S. Han, "NAAS: Neural Accelerator Architecture Search", DAC 2021, arXiv:2105.13258,
section II: an evolution strategy draws vectors, those that do not decode to a design within the
resources are drawn again, and the fitness of a design is the geometric mean of the energy-delay
products of the benchmark networks, each mapped for it. The strategy is CMA-ES (N. Hansen,
"The CMA Evolution Strategy: A Tutorial", 2016, arXiv:1604.00772), of the library `cmaes`.

Where we depart from the paper: the mapping of each layer is the certified best one, not that of an
inner evolution, so that designs are compared without the luck of a search.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import Literal, Protocol

import numpy as np
from cmaes import CMA
from numpy.typing import NDArray

from pliant.accelerator.chip import Chip
from pliant.accelerator.hardware_space import HardwareSpace
from pliant.accelerator.mapper.optimal import BestMapping
from pliant.accelerator.model.counts import layer_key
from pliant.accelerator.network_mapping import deciding_fields, digest, map_layer
from pliant.errors import InfeasibleError, PliantError
from pliant.workload import Layer, Workload

SIGMA = 0.3
"""Deviation with which the strategy begins; vectors lie from 0 to 1."""
POPULATION = 16
MAX_DRAWS = 10_000
"""Vectors that may fail to decode before a search gives up."""

Algorithm = Literal["cma-es", "random"]


@dataclass(frozen=True, slots=True)
class NetworkCost:
    """One network on one design."""

    cycles: float
    energy: float
    """In the unit of the chip's energy table."""
    proven: bool
    """Whether the mapping of every layer is certified."""

    @property
    def edp(self) -> float:
        """Energy-delay product."""
        return self.cycles * self.energy


@dataclass(frozen=True, slots=True)
class Design:
    """One accelerator, and what the networks cost on it."""

    chip: Chip
    vector: tuple[float, ...]
    """In the hardware space; empty for a chip that was not drawn from it."""
    costs: Mapping[str, NetworkCost]
    """By network."""
    failure: str | None = None
    """Why there are no costs."""

    @property
    def edp(self) -> float:
        """Geometric mean over the networks; infinite where the design failed."""
        if self.failure is not None:
            return math.inf
        logs = [math.log(cost.edp) for cost in self.costs.values()]
        return math.exp(sum(logs) / len(logs))


LayerMapper = Callable[[Layer, Chip], BestMapping]


class MappedNetworks:
    """The networks that designs are judged by; each distinct layer of a design is mapped once.

    Args:
        workloads: by name.
        mapper: finds the mapping of a layer; by default the certified one of least energy-delay
            product, remembered by this process.
    """

    def __init__(self, workloads: Mapping[str, Workload], mapper: LayerMapper = map_layer) -> None:
        self.workloads, self.mapper = dict(workloads), mapper
        shapes: dict[str, Layer] = {}
        self._keys: dict[str, list[str]] = {}
        for name, workload in self.workloads.items():
            keys = [digest(layer_key(layer)) for layer in workload.layers]
            shapes |= dict(zip(keys, workload.layers, strict=True))
            self._keys[name] = keys
        self._shapes = shapes

    @property
    def identity(self) -> str:
        """Digest of all loops, for the record."""
        return digest(self._keys)[:16]

    def design(self, chip: Chip, vector: Sequence[float] = ()) -> Design:
        """A chip with what the networks cost on it; a layer without a mapping is its failure."""
        try:
            mapped = {key: self.mapper(layer, chip) for key, layer in self._shapes.items()}
        except PliantError as error:
            return Design(chip, tuple(vector), {}, str(error))
        costs = {}
        for name, keys in self._keys.items():
            layers = [mapped[key] for key in keys]
            costs[name] = NetworkCost(
                sum(layer.cost.cycles for layer in layers),
                sum(layer.cost.energy for layer in layers),
                all(layer.certificate.proven for layer in layers),
            )
        return Design(chip, tuple(vector), costs)


class DesignMemory(Protocol):
    """Keeps what was evaluated, so that a search that was stopped goes on."""

    def get(self, key: str) -> Mapping[str, NetworkCost] | str | None:
        """The costs or the failure of a design; None where it is unknown."""
        ...

    def put(self, key: str, design: Design) -> None:
        """Keep a design."""
        ...


def search_hardware(
    space: HardwareSpace,
    networks: MappedNetworks,
    *,
    designs: int,
    seed: int,
    algorithm: Algorithm = "cma-es",
    memory: DesignMemory | None = None,
    threads: int = 1,
) -> Iterator[Design]:
    """Designs in the order in which they were drawn; the best of them is the result.

    The same seed draws the same designs, whether they are evaluated or remembered.

    Args:
        space: to draw from.
        networks: that judge.
        designs: to evaluate.
        seed: of all draws.
        algorithm: `random` draws evenly, for comparison.
        memory: of designs that were evaluated before.
        threads: that evaluate the designs of one generation.

    Raises:
        InfeasibleError: nearly no vector decodes, or a design of it has a mapping.
    """
    rng = np.random.default_rng(seed)
    strategy = _strategy(space, seed) if algorithm == "cma-es" else None
    done = 0
    with ThreadPoolExecutor(threads) as pool:
        while done < designs:
            drawn = _decoded(space, strategy, rng, min(POPULATION, designs - done), done)
            found = _evaluated(networks, memory, drawn, pool)
            yield from found
            done += len(found)
            if strategy is not None and len(found) == strategy.population_size:
                if all(math.isinf(design.edp) for design in found):
                    raise InfeasibleError(
                        f"none of {len(found)} designs can run the networks: {found[0].failure}"
                    )
                strategy.tell(_told(found))


def _strategy(space: HardwareSpace, seed: int) -> CMA:
    middle = np.full(space.dimensions, 0.5)
    bounds = np.tile([0.0, 1.0], (space.dimensions, 1))
    return CMA(mean=middle, sigma=SIGMA, bounds=bounds, seed=seed, population_size=POPULATION)


def _decoded(
    space: HardwareSpace, strategy: CMA | None, rng: np.random.Generator, count: int, start: int
) -> list[tuple[NDArray[np.float64], Chip]]:
    """Vectors with their chips; those that do not decode are drawn again."""
    found: list[tuple[NDArray[np.float64], Chip]] = []
    for _ in range(MAX_DRAWS):
        vector = rng.random(space.dimensions) if strategy is None else strategy.ask()
        chip = space.decode(vector, f"design-{start + len(found) + 1}")
        if chip is not None:
            found.append((vector, chip))
        if len(found) == count:
            return found
    raise InfeasibleError(
        f"fewer than {count} of {MAX_DRAWS:,} drawn designs are within the resources of chip "
        f"{space.within.name!r}. Take a chip with more of them."
    )


def _evaluated(
    networks: MappedNetworks,
    memory: DesignMemory | None,
    drawn: Sequence[tuple[NDArray[np.float64], Chip]],
    pool: ThreadPoolExecutor,
) -> list[Design]:
    """The designs of a generation, those that are not remembered side by side."""
    keys = [digest(networks.identity, deciding_fields(chip)) for _, chip in drawn]
    known = [None if memory is None else memory.get(key) for key in keys]
    pending = {
        index: pool.submit(networks.design, chip, vector.tolist())
        for index, (vector, chip) in enumerate(drawn)
        if known[index] is None
    }
    found = []
    for index, ((vector, chip), costs) in enumerate(zip(drawn, known, strict=True)):
        if costs is None:
            design = pending[index].result()
            if memory is not None:
                memory.put(keys[index], design)
        elif isinstance(costs, str):
            design = Design(chip, tuple(vector.tolist()), {}, costs)
        else:
            design = Design(chip, tuple(vector.tolist()), costs)
        found.append(design)
    return found


def _told(designs: Sequence[Design]) -> list[tuple[NDArray[np.float64], float]]:
    """Vectors and the logarithm of their fitness; a failed design is as bad as the worst."""
    values = [math.log(one.edp) for one in designs if math.isfinite(one.edp)]
    worst = max(values)
    return [
        (np.array(one.vector), math.log(one.edp) if math.isfinite(one.edp) else worst + 1)
        for one in designs
    ]
