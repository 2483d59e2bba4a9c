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

import itertools
import math
from dataclasses import dataclass
from functools import lru_cache

import numpy as np
from numpy.typing import NDArray

from pliant.accelerator.chip import DIMS, Axis, Chip
from pliant.accelerator.mapping import TENSORS, layer_sizes, stationary_order
from pliant.workload import Layer

ORDERS_AND_BYPASSES = 9 * 8
STATIONARY_ORDERS = np.array(
    [[DIMS.index(dim) for dim in stationary_order(tensor)] for tensor in TENSORS]
)
"""The loop order that keeps each tensor in place, one row each for W, I, O; shape (3, 8)."""


@dataclass(frozen=True, slots=True)
class SpatialSplits:
    """Every way to spread a layer over an array that differs in cost, one row each."""

    pes: NDArray[np.int64]
    """PEs by loop, shape (splits, 8)."""
    rounds: NDArray[np.int64]
    """m of every loop, the same shape."""
    axes: tuple[tuple[tuple[int, ...], ...], ...]
    """One way to lay each row over the axes: factors by axis and loop."""
    mappings: tuple[int, ...]
    """How many mappings each row holds, with nine orders and eight bypasses."""

    def only_spread(self, loops: str) -> SpatialSplits:
        """The rows in which these loops are spread whole, so that one round covers them."""
        if not loops:
            return self
        columns = [DIMS.index(dim) for dim in loops]
        kept = np.flatnonzero((self.rounds[:, columns] == 1).all(axis=1))
        axes = tuple(self.axes[row] for row in kept)
        mappings = tuple(self.mappings[row] for row in kept)
        return SpatialSplits(self.pes[kept], self.rounds[kept], axes, mappings)


@lru_cache(maxsize=4096)
def divisors(number: int) -> tuple[int, ...]:
    """All divisors, ascending."""
    small = [d for d in range(1, math.isqrt(number) + 1) if number % d == 0]
    return tuple(small + [number // d for d in reversed(small) if d * d != number])


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
    per_axis = [
        _axis_splits(axis, sizes, [other for other in chip.axes if other is not axis])
        for axis in chip.axes
    ]
    # All combinations axis by axis; rows that are too long or wasteful are dropped at once.
    good = [
        np.array([0 < s <= size and _smallest_for_its_rounds(s, size) for s in range(chip.pes + 1)])
        for size in sizes
    ]
    table = np.ones((1, 8), dtype=np.int64)
    chosen = np.zeros((1, 0), dtype=np.int64)
    for splits in per_axis:
        own = np.array(splits, dtype=np.int64)
        table = (table[:, None, :] * own[None, :, :]).reshape(-1, 8)
        index = np.tile(np.arange(len(own)), len(chosen))
        chosen = np.hstack([np.repeat(chosen, len(own), axis=0), index[:, None]])
        kept = (table <= np.array(sizes)).all(axis=1)
        table, chosen = table[kept], chosen[kept]
    kept = np.logical_and.reduce([good[d][table[:, d]] for d in range(8)])
    table, first = np.unique(table[kept], axis=0, return_index=True)
    chosen = chosen[kept][first]
    axes = tuple(tuple(per_axis[a][index] for a, index in enumerate(row)) for row in chosen)
    rounds = -(-np.array(sizes, dtype=np.int64) // table)
    counts = {int(m): tilings(int(m)) for m in np.unique(rounds)}
    mappings = tuple(ORDERS_AND_BYPASSES * math.prod(counts[int(m)] for m in row) for row in rounds)
    return SpatialSplits(table, rounds, axes, mappings)


def _axis_splits(axis: Axis, sizes: tuple[int, ...], others: list[Axis]) -> list[tuple[int, ...]]:
    """Factors by loop that one axis can take."""
    splits: set[tuple[int, ...]] = {(1,) * 8}
    loops = [d for d, dim in enumerate(DIMS) if dim in axis.loops and sizes[d] > 1]
    for count in range(1, min(axis.max_loops, len(loops)) + 1):
        for chosen in itertools.combinations(loops, count):
            options = []
            for d in chosen:
                shared = any(DIMS[d] in other.loops for other in others)
                factors = range(2, min(sizes[d], axis.size) + 1)
                options.append(
                    [f for f in factors if shared or _smallest_for_its_rounds(f, sizes[d])]
                )
            for factors_chosen in itertools.product(*options):
                if math.prod(factors_chosen) <= axis.size:
                    row = [1] * 8
                    for d, factor in zip(chosen, factors_chosen, strict=True):
                        row[d] = factor
                    splits.add(tuple(row))
    return sorted(splits)


def _smallest_for_its_rounds(factor: int, size: int) -> bool:
    return factor <= size and math.ceil(size / math.ceil(size / factor)) == factor
