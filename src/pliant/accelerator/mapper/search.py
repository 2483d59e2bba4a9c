"""What is the best way to run a layer on a chip, and is it proven?

`optimal_mapping` searches the space of `mapspace` to the end. It visits spatial splits in the order of a lower bound,
stops where the bound reaches the best mapping found, and inside a split leaves out what cannot win. The certificate
counts what was left out and why. If the time is up first, the gap between the best so far and the bound is stated.
"""

from __future__ import annotations

import re
import time
from dataclasses import dataclass, replace
from typing import Any, Final, Literal

import numpy as np
from numpy.typing import NDArray

from pliant.accelerator.chip import DIMS, Chip
from pliant.accelerator.mapper.mapspace import (
    ORDERS_AND_BYPASSES,
    SpatialSplits,
    divisors,
    spatial_splits,
)
from pliant.accelerator.mapping import TENSORS, Mapping, stationary_order
from pliant.accelerator.model import energy_latency as el
from pliant.accelerator.model.cost import MappingCost, evaluate, layer_code
from pliant.errors import InfeasibleError, RecipeError, nearest
from pliant.workload import Layer

MappingObjective = Literal["energy", "latency", "edp"]
_TERM: Final = re.compile(r"(energy|latency)(?:\^(\d+(?:\.\d+)?))?")
POWERS: Final = {"energy": (1.0, 0.0), "latency": (0.0, 1.0), "edp": (1.0, 1.0)}
_ROUNDING: Final = 1e-9
"""Sums of floats in another order differ by less than this; bounds are lowered by it."""


@dataclass(frozen=True, slots=True)
class DataflowConstraint:
    """A part of the space: what inner and outer loops may keep in place, whether tensors may bypass the buffer, and loops
    that must be spread over the array whole.
    """

    keep_inner: str = TENSORS
    keep_outer: str = TENSORS
    bypass: bool = True
    spread: str = ""


@dataclass(frozen=True, slots=True)
class Certificate:
    """Why the mapping is the best: what the space holds and what became of it.

    The mappings are those with one of the nine orders that dominate all (8!)^2.
    """

    mappings: int
    """In the space."""
    evaluated: int
    """Costed exactly."""
    pruned_by_spatial_bound: int
    """Share a split whose compute time and least traffic cannot win."""
    pruned_by_registers: int
    """Do not fit the registers."""
    pruned_by_traffic_bound_or_buffer: int
    """Cannot win with the traffic that their tiles imply, or do not fit the buffer."""
    gap: float
    """(value - lower bound) / value; 0 where the search ended by itself."""
    seconds: float

    @property
    def proven(self) -> bool:
        """Whether no mapping of the space is better."""
        return self.gap == 0.0


@dataclass(frozen=True, slots=True)
class BestMapping:
    """The best mapping found, its cost, and how sure that is."""

    layer: Layer
    mapping: Mapping
    cost: MappingCost
    objective: str
    value: float
    certificate: Certificate


def optimal_mapping(
    layer: Layer,
    chip: Chip,
    objective: str | tuple[float, float] = "edp",
    *,
    time_limit_s: float = float("inf"),
    constraint: DataflowConstraint | None = None,
) -> BestMapping:
    """The best mapping of the stated space, with its certificate.

    Args:
        layer: the loops.
        chip: the hardware.
        objective: `energy`, `latency`, `edp`, a product such as `energy^2*latency`, or its powers (2, 1).
        time_limit_s: after this many seconds the best so far is returned, with its gap.
        constraint: a part of the space; the fixed dataflows of `baselines` are such parts.

    Raises:
        RecipeError: an unknown objective or negative powers.
        InfeasibleError: no mapping of the space fits the chip.
    """
    started = time.perf_counter()
    powers = objective_powers(objective)
    allowed = constraint or DataflowConstraint()
    splits = spatial_splits(layer, chip).only_spread(allowed.spread)
    search = _Search(layer, chip, powers, allowed, splits)
    bounds = search.split_bounds()
    order = np.argsort(bounds, kind="stable")
    best, done, gap = np.inf, 0, 0.0
    for split in order:
        if bounds[split] >= best:
            break
        if time.perf_counter() - started > time_limit_s and np.isfinite(best):
            gap = float((best - bounds[split]) / best)
            break
        best = search.improve(int(split), best)
        done += 1
    if not np.isfinite(best):
        raise InfeasibleError(
            f"layer {layer.name!r}: no mapping of the space fits chip {chip.name!r}; its registers or its buffer are too small."
        )
    mapping = search.mapping()
    cost = evaluate(layer, chip, mapping)
    certificate = search.certificate(order, done, gap, time.perf_counter() - started)
    return BestMapping(
        layer,
        mapping,
        cost,
        _objective_name(objective),
        float(cost.energy ** powers[0] * cost.cycles ** powers[1]),
        certificate,
    )


def _objective_name(objective: str | tuple[float, float]) -> str:
    return (
        objective
        if isinstance(objective, str)
        else f"energy^{objective[0]:g} cycles^{objective[1]:g}"
    )


def objective_powers(objective: str | tuple[float, float]) -> tuple[float, float]:
    """The powers of energy and of cycles in an objective; both are 1 in `edp`.

    Raises:
        RecipeError: an unknown objective or negative powers.
    """
    if isinstance(objective, str):
        return POWERS.get(objective) or _product(objective)
    energy, cycles = objective
    if min(energy, cycles) < 0 or energy + cycles == 0:
        raise RecipeError(
            f"the powers of energy and cycles are from 0 up and not both 0, received {objective}."
        )
    return float(energy), float(cycles)


def _product(text: str) -> tuple[float, float]:
    """Powers of a product such as `energy^2*latency`."""
    terms = [_TERM.fullmatch(term.strip()) for term in text.split("*")]
    powers = {term[1]: float(term[2] or 1) for term in terms if term}
    if len(powers) < len(terms) or not any(powers.values()):
        raise RecipeError(
            f"objective is one of {', '.join(POWERS)}, or a product such as energy^2*latency; received {text!r}. {nearest(text, POWERS)}"
        )
    return powers.get("energy", 0.0), powers.get("latency", 0.0)


class _Search:
    """The state of one search: the arrays of the kernel, the best code, the counters."""

    def __init__(
        self,
        layer: Layer,
        chip: Chip,
        powers: tuple[float, float],
        constraint: DataflowConstraint,
        splits: SpatialSplits,
    ) -> None:
        from pliant.accelerator.mapper import split_search

        self._kernel = split_search
        self.layer, self.chip, self.splits = layer, chip, splits
        self.code, self.vector = layer_code(layer), el.chip_vector(chip)
        self.powers = np.array(powers)
        self.orders = np.array(
            [[DIMS.index(dim) for dim in stationary_order(tensor)] for tensor in TENSORS]
        )
        tensors = [
            sum(1 << TENSORS.index(t) for t in kept)
            for kept in (constraint.keep_inner, constraint.keep_outer)
        ]
        self.masks = np.array([*tensors, 255 if constraint.bypass else 1])
        self.best_code = np.zeros(65, dtype=np.int64)
        self.stats = np.zeros(3, dtype=np.int64)

    def split_bounds(self) -> NDArray[np.float64]:
        """Least value that any mapping of each split could have."""
        splits = self.splits
        return self._kernel.split_bounds(
            self.code, self.vector, splits.elements, splits.rounds, self.powers
        ) * (1 - _ROUNDING)

    def improve(self, split: int, best: float) -> float:
        """Value of the best mapping so far after one more split."""
        rounds = self.splits.rounds[split]
        lists = [divisors(int(m)) for m in rounds]
        table = np.ones((8, max(map(len, lists))), dtype=np.int64)
        for d, row in enumerate(lists):
            table[d, : len(row)] = row
        numbers = np.array([len(row) for row in lists])
        return float(
            self._kernel.search_split(
                self.code, self.vector, self.chip.multicast, self.splits.elements[split], rounds, table, numbers,
                self.orders, self.masks, self.powers, best, self.best_code, self.stats,
            )
        )  # fmt: skip

    def mapping(self) -> Mapping:
        """The best mapping, laid over the axes."""
        flat = Mapping.decode(self.best_code, axes=1)
        row = int(np.flatnonzero((self.splits.elements == flat.spatial[0]).all(axis=1))[0])
        return replace(flat, spatial=self.splits.axes[row])  # type: ignore[arg-type]

    def certificate(
        self, order: NDArray[Any], done: int, gap: float, seconds: float
    ) -> Certificate:
        """What became of every mapping of the space."""
        mappings = self.splits.mappings
        total, visited = sum(mappings), sum(mappings[int(split)] for split in order[:done])
        evaluated, fitting = int(self.stats[0]), int(self.stats[1]) * ORDERS_AND_BYPASSES
        return Certificate(
            mappings=total,
            evaluated=evaluated,
            pruned_by_spatial_bound=total - visited,
            pruned_by_registers=visited - fitting,
            pruned_by_traffic_bound_or_buffer=fitting - evaluated,
            gap=gap,
            seconds=seconds,
        )
