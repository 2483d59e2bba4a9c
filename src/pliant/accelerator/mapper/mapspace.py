"""Which mappings are there? The space over which the optimum is certified, stated and counted.

* Spatial: on every axis, at most `max_loops` of its loops take factors whose product is at most its
  size. A factor is kept if no smaller one needs as few rounds (of 64 channels on 12 PEs, 11 are
  enough for the 6 rounds of 12).
* Temporal: with S PEs a loop of bound D has m = ceil(D / S) rounds. Any register tile F of 1..m
  makes T = ceil(m / F) array tiles; any buffer loop T1 of 1..T makes T2 = ceil(T / T1) buffer
  tiles. Tiles need not divide: the last one of a loop is ragged.
* Orders: nine, which dominate all (8!)^2 pairs. At each level, the loops that do not move over one
  tensor are innermost. The three sets of such loops, W {N, P, Q}, I {K}, O {C, R, S}, are disjoint,
  so a level can keep one tensor in place only, and keeps it longest with all its loops inside. The
  one exception: in a last buffer tile that holds a single array tile another tensor could rest than
  in the others, for which other orders may be better; they are outside the space.
* Bypass: all eight sets of tensors.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import cached_property, lru_cache
from typing import Any

import numpy as np
from numpy.typing import NDArray

from pliant.accelerator.chip import DIMS, Axis, Chip
from pliant.accelerator.mapper.axis_products import combined_rows
from pliant.accelerator.mapping import TENSORS, layer_sizes, stationary_order
from pliant.errors import InfeasibleError
from pliant.workload import Layer

ORDERS_AND_BYPASSES = 9 * 8
STATIONARY_ORDERS = np.array(
    [[DIMS.index(dim) for dim in stationary_order(tensor)] for tensor in TENSORS]
)
"""The loop order that keeps each tensor in place, one row each for W, I, O; shape (3, 8)."""


@dataclass(frozen=True)
class SpatialSplits:
    """Every way to spread a layer over an array that differs in cost, one row each."""

    pes: NDArray[np.int64]
    """PEs by loop, shape (splits, 8); in lexical order."""
    rounds: NDArray[np.int64]
    """m of every loop, the same shape."""
    axis_factors: tuple[NDArray[np.int64], ...]
    """Factors by loop that each axis can take, shape (ways, 8), in lexical order."""

    @cached_property
    def mappings(self) -> NDArray[Any]:
        """How many mappings each row holds, with nine orders and eight bypasses, shape (splits,).

        Python integers where 64 bits are too few.
        """
        return _mappings(self.rounds)

    def only_spread(self, loops: str) -> SpatialSplits:
        """The rows in which these loops are spread whole, so that one round covers them."""
        if not loops:
            return self
        columns = [DIMS.index(dim) for dim in loops]
        kept = np.flatnonzero((self.rounds[:, columns] == 1).all(axis=1))
        return replace(self, pes=self.pes[kept], rounds=self.rounds[kept])

    def axes(self, pes: Sequence[int]) -> tuple[tuple[int, ...], ...]:
        """The first way to lay PEs by loop over the axes: factors by axis and loop."""
        laid = _lay(np.array(pes, dtype=np.int64), self.axis_factors)
        if laid is None:
            raise InfeasibleError(f"PEs by loop come from the rows of the table, received {pes}.")
        return laid


def _lay(
    pes: NDArray[np.int64], axes: tuple[NDArray[np.int64], ...]
) -> tuple[tuple[int, ...], ...] | None:
    """Factors of each axis whose product is `pes`; None where there are none."""
    if not axes:
        return () if (pes == 1).all() else None
    for factors in axes[0][(pes % axes[0] == 0).all(axis=1)]:
        rest = _lay(pes // factors, axes[1:])
        if rest is not None:
            return (tuple(factors.tolist()), *rest)
    return None


@lru_cache(maxsize=4096)
def divisors(number: int) -> tuple[int, ...]:
    """All divisors, ascending."""
    small = [d for d in range(1, math.isqrt(number) + 1) if number % d == 0]
    return tuple(small + [number // d for d in reversed(small) if d * d != number])


@lru_cache(maxsize=4096)
def tilings(rounds: int) -> int:
    """Ways to cover so many rounds: register tile F, buffer loop T1 of 1..ceil(rounds / F)."""
    total, tile = 0, 1
    while tile <= rounds:  # all tiles with as many array tiles at once
        tiles = -(-rounds // tile)
        following = rounds + 1 if tiles == 1 else -(-rounds // (tiles - 1))
        total += tiles * (following - tile)
        tile = following
    return total


def spatial_splits(layer: Layer, chip: Chip) -> SpatialSplits:
    """The spatial part of the space, rows with equal PEs kept once."""
    sizes = layer_sizes(layer)
    axis_factors = tuple(
        _axis_factors(axis, sizes, [other for other in chip.axes if other is not axis])
        for axis in chip.axes
    )
    limits, most = np.array(sizes, dtype=np.int64), min(chip.pes, max(sizes))
    everything = np.ones((8, most + 1), dtype=np.bool_)
    good = np.stack([_smallest_for_their_rounds(most, size) for size in sizes])
    table = np.ones((1, 8), dtype=np.int64)
    for number, factors in enumerate(axis_factors, start=1):
        last = number == len(axis_factors)
        table = combined_rows(table, factors, limits, good if last else everything)
    table = table[np.lexsort(table.T[::-1])]
    rounds = -(-limits // table)
    return SpatialSplits(table, rounds, axis_factors)


def _mappings(rounds: NDArray[np.int64]) -> NDArray[Any]:
    """How many mappings rows of rounds hold; exact."""
    ways = np.full(len(rounds), float(ORDERS_AND_BYPASSES))
    columns = []
    for column in rounds[:, (rounds > 1).any(axis=0)].T:
        distinct, place = np.unique(column, return_inverse=True)
        columns.append(np.array([tilings(int(m)) for m in distinct])[place])
        ways *= columns[-1]
    small = ways.sum() < 2.0**62
    exact = np.full(len(rounds), ORDERS_AND_BYPASSES, dtype=np.int64 if small else object)
    for column in columns:
        exact = exact * column
    return exact


def _axis_factors(axis: Axis, sizes: tuple[int, ...], others: list[Axis]) -> NDArray[np.int64]:
    """Factors by loop that one axis can take, shape (ways, 8), in lexical order."""
    options = {}
    for d, dim in enumerate(DIMS):
        if dim in axis.loops and sizes[d] > 1:
            most = min(sizes[d], axis.size)
            allowed = _smallest_for_their_rounds(most, sizes[d])
            if any(dim in other.loops for other in others):
                allowed = np.ones_like(allowed)
            options[d] = tuple(factor for factor in np.flatnonzero(allowed).tolist() if factor > 1)
    return _products(axis.size, axis.max_loops, tuple(options.items()))


@lru_cache(maxsize=4096)
def _products(
    size: int, max_loops: int, options: tuple[tuple[int, tuple[int, ...]], ...]
) -> NDArray[np.int64]:
    """Factors by loop whose product is at most a size, shape (ways, 8), in lexical order.

    Args:
        size: of the axis.
        max_loops: that may have a factor above 1.
        options: factors above 1 that each loop can take, ascending.
    """
    rows: list[tuple[tuple[int, ...], int]] = [((1,) * 8, 0)]
    found: list[tuple[int, ...]] = [(1,) * 8]
    for d, factors in options:
        for row, used in list(rows):
            if used == max_loops:
                continue
            room = size // math.prod(row)
            grown = [
                ((*row[:d], factor, *row[d + 1 :]), used + 1)
                for factor in factors
                if factor <= room
            ]
            rows += grown
            found += [row for row, _ in grown]
    return np.array(sorted(found), dtype=np.int64)


@lru_cache(maxsize=4096)
def _smallest_for_their_rounds(most: int, size: int) -> NDArray[np.bool_]:
    """Of the factors 0 to `most`, those for which no smaller one needs as few rounds."""
    factors = np.arange(1, most + 1)
    rounds = -(-size // factors)
    return np.concatenate(([False], (factors <= size) & (-(-size // rounds) == factors)))
