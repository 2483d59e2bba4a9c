"""Which tile sizes of a loop matter? Listed once per layer, for every number of PEs per loop.

A loop of m rounds takes register tiles of any size F, so T = ceil(m / F) array tiles; T1 of them
make a buffer tile, of which there are T2 = ceil(T / T1). The last ones are ragged. With equal T a
smaller F leaves more room, so of the sizes with equal T those stay that have fewer steps, or fewer
PEs at work in the last array tile, than every smaller one. Where the sum of input rows over tiles
depends on their sizes (dilated outputs, strided kernels), all sizes stay.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np

from pliant.accelerator.model import counts as ct
from pliant.accelerator.model import energy_latency as el
from pliant.accelerator.model.counts import Floats, Ints, LayerRecord
from pliant.accelerator.model.energy_latency import ChipRecord
from pliant.accelerator.model.kernels import allocating_kernel, kernel

# Rows of the table of register tiles.
TILE = 0
"""Register tiles, ascending."""
TILES = 1
"""Array tiles of the whole loop."""
ACTIVE = 2
"""PEs with work, summed over the array tiles."""
STEPS = 3
"""(11) Steps of the first PE."""
LEAST_ACTIVE = 4
"""The least of `ACTIVE` up to each tile."""
LEAST_STEPS = 5
"""The least of `STEPS` up to each tile."""


class TileSizes(NamedTuple):
    """The tile sizes of every loop and number of PEs, one list after the other."""

    row: Ints
    """List of a loop that is spread over so many PEs, shape (8, PEs + 1); -1 where it never is."""
    start: Ints
    """Where the register tiles of each list begin, shape (lists,)."""
    counts: Ints
    """How many register tiles each list has, shape (lists,)."""
    table: Ints
    """The rows above, shape (6, all register tiles)."""
    outer_start: Ints
    """Where the numbers of buffer tiles of each list begin, shape (lists,)."""
    outer_counts: Ints
    """How many numbers of buffer tiles each list has, shape (lists,)."""
    outer: Ints
    """Numbers of buffer tiles, ascending in each list."""
    fewest_active: Floats
    """PEs with work, summed over the first array tiles of so many buffer tiles: the fewest. 0 until
    `fill_fewest_active` was there."""


@allocating_kernel
def tile_sizes(
    layer: LayerRecord, chip: ChipRecord, curved: Ints, ragged: bool, pes: Ints
) -> TileSizes:
    """The tile sizes of all splits; register tiles that do not even fit alone are left out.

    Args:
        layer: the loops.
        chip: the hardware.
        curved: 1 for loops of which all sizes are kept, shape (8,).
        ragged: whether tiles need not divide.
        pes: of every split by loop, shape (splits, 8).
    """
    row, rows = np.full((8, pes.max() + 1), -1, dtype=np.int64), 0
    for split in range(len(pes)):
        for d in range(8):
            if row[d, pes[split, d]] < 0:
                row[d, pes[split, d]] = rows
                rows += 1
    loops, spread = np.empty(rows, dtype=np.int64), np.empty(rows, dtype=np.int64)
    for d in range(8):
        for width in range(row.shape[1]):
            if row[d, width] >= 0:
                loops[row[d, width]], spread[row[d, width]] = d, width
    largest, rounds = np.empty(rows, dtype=np.int64), np.empty(rows, dtype=np.int64)
    start, outer_start = np.zeros(rows, dtype=np.int64), np.zeros(rows, dtype=np.int64)
    alone, room, outer_room = _largest_alone(layer, chip), 0, 0
    for index in range(rows):
        size = np.int64(layer.sizes[loops[index]])
        rounds[index] = (size + spread[index] - 1) // spread[index]
        largest[index] = min(alone[loops[index]], rounds[index])
        start[index], outer_start[index] = room, outer_room
        room += largest[index]
        outer_room += 2 * int(np.sqrt(rounds[index])) + 2
    sizes, outer = np.empty((6, room), dtype=np.int64), np.empty(outer_room, dtype=np.int64)
    counts, outer_counts = np.zeros(rows, dtype=np.int64), np.zeros(rows, dtype=np.int64)
    for index in range(rows):
        d, first = loops[index], start[index]
        counts[index] = _register_sizes(
            np.int64(layer.sizes[d]),
            spread[index],
            rounds[index],
            largest[index],
            curved[d],
            ragged,
            sizes[:, first : first + largest[index]],
        )
        outer_counts[index] = buffer_counts(rounds[index], ragged, outer[outer_start[index] :])
    return TileSizes(
        row,
        start,
        counts,
        sizes,
        outer_start,
        outer_counts,
        outer,
        np.zeros(outer_room),
    )


@allocating_kernel
def _largest_alone(layer: LayerRecord, chip: ChipRecord) -> Ints:
    """The largest register tile of each loop that fits with 1 of all others, by bisection."""
    s, largest = np.ones(ct.SCRATCH), np.zeros(8, dtype=np.int64)
    for d in range(8):
        low, high = 0, np.int64(layer.sizes[d])
        while low < high:
            middle = (low + high + 1) // 2
            s[ct.TILE, d] = middle
            if el.register_excess(layer, s, chip) == 0.0:
                low = middle
            else:
                high = middle - 1
        s[ct.TILE, d], largest[d] = 1.0, low
    return largest


@kernel
def _register_sizes(
    size: int, pes: int, rounds: int, largest: int, curved: int, ragged: bool, out: Ints
) -> int:
    """Register tiles of a loop that no smaller one dominates.

    Args:
        size: of the loop.
        pes: that it is spread over.
        rounds: of the array.
        largest: tile that fits the registers.
        curved: keep all of them.
        ragged: keep those that do not divide the rounds, too.
        out: receives the rows above, shape (6, longest).

    Returns:
        How many there are.
    """
    found, group, least_steps, least_active, tile = 0, 0, 0, 0, 1
    while tile <= largest:
        tiles = (rounds + tile - 1) // tile
        last = size - (tiles - 1) * tile * pes
        steps = (tiles - 1) * tile + min(tile, last)
        active = (tiles - 1) * pes + (last + tile - 1) // tile
        better = tiles != group or steps < least_steps or active < least_active or curved > 0
        if better and (ragged or rounds % tile == 0):
            out[TILE, found], out[TILES, found] = tile, tiles
            out[ACTIVE, found], out[STEPS, found] = active, steps
            out[LEAST_ACTIVE, found], out[LEAST_STEPS, found] = active, steps
            if found > 0:
                for least in (LEAST_ACTIVE, LEAST_STEPS):
                    out[least, found] = min(out[least, found], out[least, found - 1])
            found += 1
            if tiles != group:
                group, least_steps, least_active = tiles, steps, active
            least_steps, least_active = min(least_steps, steps), min(least_active, active)
        if pes == 1 and not curved and ragged:  # nothing but room differs: on to fewer tiles
            tile = rounds if tiles == 1 else (rounds + tiles - 2) // (tiles - 1)
            tile += tiles == 1
        else:
            tile += 1
    return found


@kernel
def buffer_counts(rounds: int, ragged: bool, out: Ints) -> int:
    """Numbers of buffer tiles that a loop can have, ascending; returns how many."""
    found, block = 0, rounds
    while block > 0:
        count = (rounds + block - 1) // block
        if ragged or rounds % block == 0:
            out[found] = count
            found += 1
        block = (rounds + count - 1) // count - 1 if ragged else block - 1
    return found


@kernel
def fill_fewest_active(sizes: TileSizes, row: int, pes: int, ragged: bool) -> None:
    """Fills the fewest active PEs of a row, once.

    All PEs have work, but in a last buffer tile that holds one array tile only.

    Args:
        sizes: the tables; `fewest_active` is written.
        row: of the tables.
        pes: that its loop is spread over.
        ragged: whether tiles need not divide.
    """
    first, start = sizes.outer_start[row], sizes.start[row]
    if sizes.fewest_active[first] > 0.0:
        return
    for index in range(first, first + sizes.outer_counts[row]):
        outer = sizes.outer[index]
        fewest = outer * pes
        if pes > 1 and outer > 1:
            for place in range(start, start + sizes.counts[row]):
                tiles = sizes.table[TILES, place]
                if tiles == outer or (ragged and (tiles - 1) % (outer - 1) == 0):
                    last = sizes.table[ACTIVE, place] - (tiles - 1) * pes
                    fewest = min(fewest, (outer - 1) * pes + last)
        sizes.fewest_active[index] = fewest
