"""Which pair of a register tile and a number of buffer tiles is the best mapping?

Both lists are sorted by their own cost, and pairs are visited in that order until no pair can beat
the best mapping so far. What a pair really costs is asked of the tested model.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from pliant.accelerator.mapper import bounds as bd
from pliant.accelerator.mapper.bounds import Floor, Scratch
from pliant.accelerator.mapper.buffer_tiles import Blocks, Candidates
from pliant.accelerator.mapper.problem import Incumbent, Problem, Split, to_beat
from pliant.accelerator.mapper.tile_sizes import TILE, TILES
from pliant.accelerator.model import counts as ct
from pliant.accelerator.model import energy_latency as el
from pliant.accelerator.model.counts import C, Floats, Ints, O, R, S
from pliant.accelerator.model.kernels import allocating_kernel, kernel


class Extents(NamedTuple):
    """How large a buffer tile is at least, by loop, register tile and number of buffer tiles."""

    extent: Floats
    """0 where the two do not go together; a row is valid where `known` says so."""
    start: Ints
    """Where each loop begins in `extent`, shape (8,)."""
    known: NDArray[np.bool_]
    """Rows that are filled, by loop and register tile."""
    known_start: Ints
    """Where each loop begins in `known`, shape (8,)."""


@allocating_kernel
def make_extents(problem: Problem, split: Split) -> Extents:
    """Room for the extents of a split; `fill_extents` fills the rows that are asked for."""
    sizes, room, rows = problem.sizes, 0, 0
    start, known_start = np.empty(8, dtype=np.int64), np.empty(8, dtype=np.int64)
    for d in range(8):
        row = split.rows[d]
        start[d], known_start[d] = room, rows
        room += sizes.counts[row] * sizes.outer_counts[row]
        rows += sizes.counts[row]
    return Extents(np.empty(room), start, np.zeros(rows, dtype=np.bool_), known_start)


@kernel
def fill_extents(
    problem: Problem, split: Split, places: Ints, extents: Extents, base: Ints
) -> None:
    """Fills the rows of a register tile that are not known yet.

    Args:
        problem: layer and tile sizes.
        split: the spatial split.
        places: of the register tile, by loop.
        extents: written.
        base: receives where the row of each loop begins, shape (8,).
    """
    sizes = problem.sizes
    for d in range(8):
        row = split.rows[d]
        numbers = sizes.outer_counts[row]
        base[d] = extents.start[d] + places[d] * numbers
        if extents.known[extents.known_start[d] + places[d]]:
            continue
        extents.known[extents.known_start[d] + places[d]] = True
        place, first = sizes.start[row] + places[d], sizes.outer_start[row]
        array = float(sizes.table[TILE, place] * split.pes[d])
        for number in range(numbers):
            least = _buffer_loop(sizes.table[TILES, place], sizes.outer[first + number], 0, 0)
            extents.extent[base[d] + number] = min(array * least, problem.layer.sizes[d])


@allocating_kernel
def search_pairs(
    problem: Problem,
    split: Split,
    own: Candidates,
    blocks: Blocks,
    extents: Extents,
    floor: Floor,
    incumbent: Incumbent,
    work: Scratch,
) -> None:
    """Visits pairs of register and buffer tiles in the order of their bound.

    Args:
        problem: layer, chip, objective and constraint.
        split: the spatial split.
        own: register tiles and what they cost.
        blocks: buffer tiles and what they cost.
        extents: how large the buffer tiles are.
        floor: of the split.
        incumbent: the best mapping so far; updated.
        work: scratch.
    """
    layer, chip, goal, s = problem.layer, problem.chip, problem.goal, work.s
    inside, across, best = own.inside, blocks.across, to_beat(problem, incumbent)
    key = bd.ENERGY if goal.powers[0] > 0.0 else bd.DRAM_BITS
    least_across = np.full(5, np.inf)
    for b in range(len(across)):
        for column in range(5):
            least_across[column] = min(least_across[column], across[b, column])
    left = _by_bound(inside, least_across, floor, problem, best, key)
    right = _by_bound(across, own.lowest, floor, problem, best, key)
    code, edge_a, edge_b = np.ones(65, dtype=np.int64), own.lowest.copy(), least_across.copy()
    base = np.empty(8, dtype=np.int64)
    # Named once: every array that is taken out of a tuple inside a loop is counted there.
    extent, block_places, bypass = extents.extent, blocks.places, own.bypass
    for a in left:
        # Both lists ascend in the key: where the best partner of this row cannot win, no later row
        # can.
        edge_a[key] = inside[a, key]
        if bd.bound(floor, edge_a, least_across, chip, goal) >= best:
            break
        fill_extents(problem, split, own.places[a], extents, base)
        partial = own.numbers[a, C] > 1 or own.numbers[a, R] > 1 or own.numbers[a, S] > 1
        row = inside[a]
        for b in right:
            edge_b[key] = across[b, key]
            if bd.bound(floor, row, edge_b, chip, goal) >= best:
                break
            value = bd.bound_of_sums(
                floor,
                row[bd.ENERGY] + across[b, bd.ENERGY],
                row[bd.DRAM_BITS] + across[b, bd.DRAM_BITS],
                row[bd.PORT_BITS] + across[b, bd.PORT_BITS],
                row[bd.NOC_BITS] + across[b, bd.NOC_BITS],
                row[bd.COMPUTE],
                chip,
                goal,
            )
            if value >= best:
                continue
            together = True
            for d in range(8):
                s[ct.EXTENT, d] = extent[base[d] + block_places[b, d]]
                together &= s[ct.EXTENT, d] > 0.0
            if not together or el.buffer_excess(layer, s, partial, bypass, chip) > 0.0:
                continue
            sure = bd.bound(floor, own.refetched[a], blocks.refetched[b], chip, goal)
            outer, kept = blocks.outer[b], blocks.kept[b]
            try_pair(problem, split, own, a, outer, kept, sure, incumbent, code, work)
            best = to_beat(problem, incumbent)


@allocating_kernel
def _by_bound(
    own: Floats, other: Floats, floor: Floor, problem: Problem, best: float, key: int
) -> Ints:
    """Rows that could win with the best of the other list, by ascending key.

    Args:
        own: energy, bits and cycles, shape (rows, 5).
        other: the least of each column of the other list.
        floor: of the split.
        problem: chip and objective.
        best: the value to beat.
        key: the column to sort by.
    """
    rows = np.empty(len(own), dtype=np.int64)
    found = 0
    for row in range(len(own)):
        if bd.bound(floor, own[row], other, problem.chip, problem.goal) < best:
            rows[found] = row
            found += 1
    values = np.empty(found)
    for index in range(found):
        values[index] = own[rows[index], key]
    return rows[:found][np.argsort(values)]


@kernel
def _buffer_loop(tiles: int, outer: int, after: int, curved: int) -> int:
    """The next bound of a buffer loop with which so many array tiles make so many buffer tiles.

    The least one leaves most room; the largest matters too where its last buffer tile holds one
    array tile, and along curved loops all do.

    Args:
        tiles: array tiles.
        outer: buffer tiles.
        after: the bound before; 0 at first.
        curved: whether sizes matter beyond their number.

    Returns:
        0 where there is none.
    """
    least = (tiles + outer - 1) // outer
    if (tiles + least - 1) // least != outer:
        return 0
    largest = tiles if outer == 1 else (tiles - 1) // (outer - 1)
    if after == 0:
        return least
    if after >= largest or outer == 1:
        return 0
    if curved > 0:
        return after + 1
    return largest if (tiles - 1) % (outer - 1) == 0 else 0


@kernel
def try_pair(
    problem: Problem,
    split: Split,
    own: Candidates,
    a: int,
    outer: Ints,
    keep_outer: int,
    sure: float,
    incumbent: Incumbent,
    code: Ints,
    work: Scratch,
) -> None:
    """Asks the model what the mappings of a register tile and so many buffer tiles cost.

    Args:
        problem: layer, chip, objective and constraint.
        split: the spatial split.
        own: register tiles, the tensor that buffer loops keep in place, and bypasses.
        a: row of the register tile.
        outer: buffer tiles by loop.
        keep_outer: the tensor that DRAM loops keep in place.
        sure: lower bound of the value where ragged buffer tiles leave nothing in place.
        incumbent: the best mapping so far; updated.
        code: of a mapping; its axes but the first are 1.
        work: scratch.
    """
    numbers, curved, bent, sizes = own.numbers[a], problem.curved, False, problem.sizes
    for d in range(8):
        code[ct.BUFFER + d] = _buffer_loop(numbers[d], outer[d], 0, curved[d])
        if code[ct.BUFFER + d] == 0:
            return
        code[d] = sizes.table[TILE, sizes.start[split.rows[d]] + own.places[a, d]]
        code[ct.AXES + d], code[ct.DRAM + d] = split.pes[d], outer[d]
        bent |= curved[d] > 0
    code[ct.BYPASS] = own.bypass
    partial = numbers[C] > 1 or numbers[R] > 1 or numbers[S] > 1
    for position in range(8):
        code[ct.BUFFER_ORDER + position] = problem.orders[own.keep, position]
    while True:
        if sure >= to_beat(problem, incumbent) and not may_rest(own.keep, numbers, outer, code):
            if not _next_loops(problem, numbers, outer, code):
                return
            continue
        for d in range(8):
            block = code[d] * split.pes[d] * code[ct.BUFFER + d]
            work.s[ct.EXTENT, d] = min(block, problem.layer.sizes[d])
        if el.buffer_excess(problem.layer, work.s, partial, own.bypass, problem.chip) == 0.0:
            for keep in range(3):
                if keep == keep_outer or (bent and problem.keep_outer >> keep & 1):
                    _try(problem, code, keep, incumbent, work)
        if not _next_loops(problem, numbers, outer, code):
            return


@kernel
def may_rest(keep: int, numbers: Ints, outer: Ints, code: Ints) -> bool:
    """Whether a last buffer tile of one array tile may leave more in place than the loop order.

    Either all buffer loops that do not move over `keep` end in such a tile, so that the other two
    tensors may rest there, or all that move over it do.

    Args:
        keep: the tensor that the buffer loops keep in place.
        numbers: array tiles by loop.
        outer: buffer tiles by loop.
        code: of the mapping.
    """
    moving, still, moving_end, still_end = 0, 0, 0, 0
    for d in range(8):
        inner = code[ct.BUFFER + d]
        if inner > 1:
            ends = outer[d] > 1 and numbers[d] - (outer[d] - 1) * inner == 1
            if ct.RELEVANCE[keep, d]:
                moving, moving_end = moving + 1, moving_end + ends
            else:
                still, still_end = still + 1, still_end + ends
    return (still > 0 and still == still_end) or (moving > 0 and moving == moving_end)


@kernel
def _next_loops(problem: Problem, numbers: Ints, outer: Ints, code: Ints) -> bool:
    """Moves the buffer loops on to the next bounds that matter; False after the last."""
    if problem.ragged:
        for d in range(8):
            further = _buffer_loop(numbers[d], outer[d], code[ct.BUFFER + d], problem.curved[d])
            if further > 0:
                code[ct.BUFFER + d] = further
                return True
            code[ct.BUFFER + d] = (numbers[d] + outer[d] - 1) // outer[d]
    return False


@kernel
def _try(
    problem: Problem, code: Ints, keep_outer: int, incumbent: Incumbent, work: Scratch
) -> None:
    """Asks the model what a mapping costs, and makes it the incumbent if it is better.

    Args:
        problem: layer, chip, objective and constraint.
        code: of the mapping, but for the order of its DRAM loops.
        keep_outer: the tensor that DRAM loops keep in place.
        incumbent: the best mapping so far; updated.
        work: scratch.
    """
    for position in range(8):
        code[ct.DRAM_ORDER + position] = problem.orders[keep_outer, position]
    incumbent.evaluated[0] += 1
    value = bd.exact_value(problem.layer, problem.chip, code, problem.goal, work)
    if value < incumbent.value[0]:
        incumbent.value[0] = value
        for place in range(len(code)):
            incumbent.code[place] = code[place]


@allocating_kernel
def search_crossing(
    problem: Problem,
    split: Split,
    own: Candidates,
    floor: Floor,
    incumbent: Incumbent,
    work: Scratch,
) -> None:
    """The case that the two lists do not cover: a tensor stays in the array across buffer tiles.

    It needs buffer tiles that hold one array tile along every loop that moves over the tensor; the
    register tile then fixes the DRAM loops but for those that do not move over it.

    Args:
        problem: layer, chip, objective and constraint.
        split: the spatial split.
        own: register tiles, what they cost, and the tensor that stays.
        floor: of the split.
        incumbent: the best mapping so far; updated.
        work: scratch.
    """
    chip, keep, bypass, least = problem.chip, own.keep, own.bypass, problem.least
    code, outer = np.ones(65, dtype=np.int64), np.ones(8, dtype=np.int64)
    digit = np.empty(8, dtype=np.int64)
    extra, nothing = np.zeros(5), np.zeros(5)
    for a in range(len(own.numbers)):
        # Lower bound: the tensor enters the array once, and DRAM loops refetch the other two.
        extra[:] = 0.0
        words = own.facts[a, bd.ARRAY_ONCE + keep]
        delivered = own.facts[a, bd.DELIVERED_ONCE + keep]
        bd.add_array(keep, words, delivered, least[O], bypass >> keep & 1 > 0, chip, extra)
        for tensor in range(3):
            if not bypass >> tensor & 1:
                words = least[tensor]
                if tensor != keep:
                    for d in range(8):
                        if not ct.RELEVANCE[tensor, d]:
                            words *= own.numbers[a, d]
                bd.add_dram(tensor, words, least[O], chip, extra)
        for column in range(5):
            extra[column] += own.inside[a, column]
        best = to_beat(problem, incumbent)
        if bd.bound(floor, extra, nothing, chip, problem.goal) >= best:
            continue
        for d in range(8):
            digit[d] = 0
            outer[d] = own.numbers[a, d] if ct.RELEVANCE[keep, d] else 1
        while True:
            try_pair(problem, split, own, a, outer, keep, 0.0, incumbent, code, work)
            if not _next_outer(problem, outer, digit, keep, split):
                break


@kernel
def _next_outer(problem: Problem, outer: Ints, digit: Ints, keep: int, split: Split) -> bool:
    """Moves the loops that do not move over the tensor on to their next numbers of buffer tiles.

    Returns:
        False after the last.
    """
    sizes = problem.sizes
    for d in range(8):
        if ct.RELEVANCE[keep, d]:
            continue
        digit[d] += 1
        row = split.rows[d]
        if digit[d] < sizes.outer_counts[row]:
            outer[d] = sizes.outer[sizes.outer_start[row] + digit[d]]
            return True
        digit[d], outer[d] = 0, 1
    return False
