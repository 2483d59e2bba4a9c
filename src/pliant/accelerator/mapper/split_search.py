"""The best mapping of one spatial split: tiles, their bounds, and the pairs that could win.

For each set of bypassed tensors and each tensor that the buffer loops keep in place, register tiles
and buffer tiles are sorted by their own cost, and pairs are visited in that order until no pair can
beat the best mapping so far. A buffer tile is named by how many there are of each loop; how large
it is follows from the register tile of the pair.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np

from pliant.accelerator.mapper import bounds as bd
from pliant.accelerator.mapper import split_tiles as st
from pliant.accelerator.mapper.bounds import Floor, Scratch
from pliant.accelerator.mapper.split_tiles import Problem, Split
from pliant.accelerator.model import counts as ct
from pliant.accelerator.model import energy_latency as el
from pliant.accelerator.model.counts import C, Floats, Ints, LayerRecord, O, R, S, kernel
from pliant.accelerator.model.energy_latency import ChipRecord


class Incumbent(NamedTuple):
    """The best mapping so far, and what the search counted; all are written in place."""

    value: Floats
    """Of the objective, shape (1,); infinite at first."""
    code: Ints
    """As `Mapping.encode`, shape (65,)."""
    evaluated: Ints
    """Mappings costed exactly, shape (1,)."""


class Candidates(NamedTuple):
    """The register tiles of a split for one choice of bypass and of the tensor kept in place."""

    tiles: Ints
    """Register tiles by loop, shape (tiles, 8)."""
    numbers: Ints
    """Array tiles by loop, the same shape."""
    facts: Floats
    """Traffic of the register tiles and their compute cycles, shape (tiles, 13)."""
    inside: Floats
    """Least energy, bits and cycles that a register tile decides, shape (tiles, 5)."""
    refetched: Floats
    """The same where ragged buffer tiles leave nothing in place."""
    lowest: Floats
    """The least of each column of `inside`."""
    keep: int
    """The tensor that the buffer loops keep in place."""
    bypass: int
    """Bits of the tensors that bypass the buffer."""


class Blocks(NamedTuple):
    """The buffer tiles that could win with such register tiles."""

    outer: Ints
    """Buffer tiles by loop, shape (blocks, 8)."""
    across: Floats
    """Least energy and bits that a buffer tile decides, shape (blocks, 5)."""
    refetched: Floats
    """The same where ragged buffer tiles leave nothing in place."""
    kept: Ints
    """The tensor that the DRAM loops had best keep in place, shape (blocks,)."""


@kernel
def search_splits(
    problem: Problem,
    pes: Ints,
    rounds: Ints,
    bounds: Floats,
    order: Ints,
    start: int,
    stop: int,
    incumbent: Incumbent,
) -> int:
    """Searches splits in ascending order of their bound, until a bound reaches the incumbent.

    Args:
        problem: layer, chip, objective and constraint.
        pes: by split and loop, shape (splits, 8).
        rounds: the same shape.
        bounds: least value of each split, shape (splits,).
        order: the splits in ascending order of their bound.
        start: position in the order of the first split to search.
        stop: position after the last one.
        incumbent: the best mapping so far; updated.

    Returns:
        The position of the first split that was not searched.
    """
    for position in range(start, stop):
        split = order[position]
        if bounds[split] >= incumbent.value[0]:
            return position
        search_split(problem, pes[split], rounds[split], incumbent)
    return stop


@kernel
def search_split(problem: Problem, pes: Ints, rounds: Ints, incumbent: Incumbent) -> None:
    """Looks for a mapping of this split that beats the incumbent, and proves that no other does.

    Args:
        problem: layer, chip, objective and constraint.
        pes: by loop, shape (8,).
        rounds: the same.
        incumbent: the best of the splits before; updated.
    """
    layer, chip = problem.layer, problem.chip
    work = Scratch(np.zeros(ct.SCRATCH), np.empty(15), np.empty(6))
    floor = Floor(bd.constant_energy(layer, pes, chip), cycles_of_rounds(rounds, chip))
    split = st.make_split(problem, pes, rounds, work.s)
    tiles, numbers, facts = st.register_tiles(problem, split, floor, incumbent.value[0], work.s)
    if len(tiles) == 0:
        return
    inside, total = np.empty((len(tiles), 5)), np.empty(5)
    refetched = np.empty((len(tiles), 5))
    fewest = fewest_active(problem, split)
    for bypass in range(8):
        for keep in range(3):
            if not (problem.bypasses >> bypass & 1 and problem.keep_inner >> keep & 1):
                continue
            if np.isinf(problem.dram[bypass]):
                continue
            inner_parts(problem, split, numbers, facts, keep, bypass, False, refetched)
            lowest = inner_parts(problem, split, numbers, facts, keep, bypass, True, inside)
            own = Candidates(tiles, numbers, facts, inside, refetched, lowest, keep, bypass)
            _least_outer(problem, own, total)
            if bd.bound(floor, lowest, total, chip, problem.goal) >= incumbent.value[0]:
                continue
            if problem.keep_outer >> keep & 1:
                search_crossing(problem, split, own, floor, incumbent, work)
            blocks = buffer_tiles(problem, split, own, fewest, floor, incumbent.value[0], work.s)
            if len(blocks.outer) > 0:
                search_pairs(problem, split, own, blocks, floor, incumbent, work)


@kernel
def cycles_of_rounds(rounds: Ints, chip: ChipRecord) -> float:
    """(11) Least compute time of a split: the first PE works in every round."""
    cycles = 1.0 / chip.macs_per_cycle
    for d in range(8):
        cycles *= rounds[d]
    return cycles


@kernel
def split_bounds(problem: Problem, pes: Ints, rounds: Ints) -> Floats:
    """Least value of any mapping of each split.

    The fewest words over DRAM, all PEs served, each word once into the array.

    Args:
        problem: layer, chip, goal and constraint.
        pes: by split and loop, shape (splits, 8).
        rounds: the same shape.
    """
    layer, chip, least = problem.layer, problem.chip, problem.least
    part, nothing, bounds = np.empty(5), np.zeros(5), np.full(len(pes), np.inf)
    for split in range(len(pes)):
        constant = bd.constant_energy(layer, pes[split], chip)
        floor = Floor(constant, cycles_of_rounds(rounds[split], chip))
        for bypass in range(8):
            dram = problem.dram[bypass]
            if not problem.bypasses >> bypass & 1 or np.isinf(dram):
                continue
            part[:] = 0.0
            part[bd.ENERGY] = dram * (chip.dram_energy + chip.buffer_energy)
            part[bd.DRAM_BITS] = dram
            for tensor in range(3):
                delivered = least[tensor]
                for d in range(8):
                    delivered *= 1 if ct.RELEVANCE[tensor, d] else pes[split, d]
                past = bypass >> tensor & 1 > 0
                bd.add_array(tensor, least[tensor], delivered, least[O], past, chip, part)
            value = bd.bound(floor, part, nothing, chip, problem.goal)
            bounds[split] = min(bounds[split], value)
    return bounds


@kernel
def least_words(layer: LayerRecord) -> Floats:
    """Words of each tensor, shape (3,): what has to move at least once."""
    s = np.empty(ct.SCRATCH)
    for d in range(8):
        s[ct.EXTENT, d] = layer.sizes[d]
    least = np.empty(3)
    for tensor in range(3):
        least[tensor] = el.tile_words(tensor, s, ct.EXTENT, layer)
    return least


@kernel
def inner_parts(
    problem: Problem,
    split: Split,
    numbers: Ints,
    facts: Floats,
    keep: int,
    bypass: int,
    resting: bool,
    inside: Floats,
) -> Floats:
    """What each register tile costs for the two tensors that the buffer loops refetch.

    Args:
        problem: layer, chip and constraint.
        split: the spatial split.
        numbers: array tiles by loop, shape (tiles, 8).
        facts: of the register tiles, shape (tiles, 13).
        keep: the tensor that is kept in place.
        bypass: bits of the tensors that bypass the buffer.
        resting: whether ragged buffer tiles may leave them in place.
        inside: receives energy, bits and cycles, shape (tiles, 5).

    Returns:
        The least of each column.
    """
    chip, outputs, lowest = problem.chip, problem.least[O], np.full(5, np.inf)
    for a in range(len(inside)):
        inside[a, :] = 0.0
        inside[a, bd.COMPUTE] = facts[a, 12]
        rest = st.resting_share(problem, keep, numbers[a], 0, split.rounds) if resting else 0.0
        for tensor in range(3):
            if tensor != keep:
                full = facts[a, bd.ARRAY_FULL + tensor]
                full += rest * (facts[a, bd.ARRAY_ONCE + tensor] - full)
                delivered = facts[a, bd.DELIVERED_FULL + tensor]
                delivered += rest * (facts[a, bd.DELIVERED_ONCE + tensor] - delivered)
                bypassed = bypass >> tensor & 1 > 0
                bd.add_array(tensor, full, delivered, outputs, bypassed, chip, inside[a])
        for column in range(5):
            lowest[column] = min(lowest[column], inside[a, column])
    return lowest


@kernel
def _least_outer(problem: Problem, own: Candidates, out: Floats) -> None:
    """Least cost of everything that the buffer tile decides."""
    out[:] = 0.0
    chip, keep, bypass = problem.chip, own.keep, own.bypass
    words = own.facts[:, bd.ARRAY_ONCE + keep].min()
    delivered = own.facts[:, bd.DELIVERED_ONCE + keep].min()
    bypassed = bypass >> keep & 1 > 0
    bd.add_array(keep, words, delivered, problem.least[O], bypassed, chip, out)
    out[bd.ENERGY] += problem.dram[bypass] * (chip.dram_energy + chip.buffer_energy)
    out[bd.DRAM_BITS] += problem.dram[bypass]


@kernel
def fewest_active(problem: Problem, split: Split) -> Floats:
    """PEs with work, summed over the first array tiles of so many buffer tiles: the fewest.

    All PEs have work, but in a last buffer tile that holds one array tile only.

    Returns:
        By loop and number of buffer tiles as `Split.outer`, the same shape.
    """
    fewest = np.ones(split.outer.shape)
    for d in range(8):
        pes = split.pes[d]
        for index in range(split.outer_counts[d]):
            outer = split.outer[d, index]
            fewest[d, index] = outer * pes
            if pes == 1 or outer == 1:
                continue
            for row in range(split.counts[d]):
                tiles = split.tiles[d, row]
                if tiles == outer or (problem.ragged and (tiles - 1) % (outer - 1) == 0):
                    last = split.active[d, row] - (tiles - 1) * pes
                    fewest[d, index] = min(fewest[d, index], (outer - 1) * pes + last)
    return fewest


@kernel
def buffer_tiles(
    problem: Problem,
    split: Split,
    own: Candidates,
    fewest: Floats,
    floor: Floor,
    best: float,
    s: Floats,
) -> Blocks:
    """The buffer tiles that may fit, and could win with the best of the register tiles.

    Depth first over the loops, each through its numbers of buffer tiles in ascending order. Fewer
    buffer tiles move less, more of them need less room: a loop stops where even one buffer tile of
    each later loop moves too much, and skips where even the smallest tiles of them do not fit.

    Args:
        problem: layer, chip, goal and constraint.
        split: the spatial split.
        own: register tiles, the tensor in place, and bypasses.
        fewest: as `fewest_active`.
        floor: of the split.
        best: the value to beat.
        s: scratch.
    """
    outer, across = np.ones((64, 8), dtype=np.int64), np.empty((64, 5))
    kept, sure, rests = np.empty(64, dtype=np.int64), np.empty((64, 5)), problem.ragged
    count, active, digit = np.ones(8, dtype=np.int64), np.ones(8), np.zeros(9, dtype=np.int64)
    order, loops, ahead = np.empty(8, dtype=np.int64), 0, 0
    words = own.facts[:, bd.ARRAY_ONCE + own.keep].min()
    delivered = own.facts[:, bd.DELIVERED_ONCE + own.keep].min()
    for d in range(8):
        if not ct.RELEVANCE[own.keep, d]:
            delivered /= split.pes[d]
        active[d] = split.pes[d]
        s[ct.EXTENT, d] = min(split.pes[d], problem.layer.sizes[d])
        if split.rounds[d] > 1:
            order[loops], ahead = d, ahead | 1 << d
            loops += 1
    found, depth, part = 0, 0, np.empty(5)
    while depth >= 0:
        if depth == loops:
            if found == len(outer):
                outer, across = np.concatenate((outer, outer)), np.concatenate((across, across))
                kept, sure = np.concatenate((kept, kept)), np.concatenate((sure, sure))
            _outer_part(problem, split, own, count, active, words, delivered, 0, rests, part)
            if bd.bound(floor, own.lowest, part, problem.chip, problem.goal) < best:
                outer[found, :], across[found, :] = count, part
                kept[found] = _outer_part(
                    problem, split, own, count, active, words, delivered, 0, False, sure[found]
                )
                found += 1
            depth -= 1
            continue
        d, index, grown = order[depth], digit[depth], False
        ahead &= ~(1 << d)
        while index < split.outer_counts[d]:
            count[d], active[d] = split.outer[d, index], fewest[d, index]
            block = (split.rounds[d] + count[d] - 1) // count[d]
            s[ct.EXTENT, d] = min(block * split.pes[d], problem.layer.sizes[d])
            index += 1
            if _buffer_excess(problem, s, False, own.bypass) > 0.0:
                continue
            rising = ahead | 1 << d
            _outer_part(problem, split, own, count, active, words, delivered, rising, rests, part)
            grown = bd.bound(floor, own.lowest, part, problem.chip, problem.goal) < best
            break
        if grown:
            digit[depth] = index
            depth += 1
            digit[depth] = 0
            continue
        count[d], active[d] = 1, split.pes[d]
        s[ct.EXTENT, d] = min(split.pes[d], problem.layer.sizes[d])
        ahead |= 1 << d
        depth -= 1
    return Blocks(outer[:found], across[:found], sure[:found], kept[:found])


@kernel
def _buffer_excess(problem: Problem, s: Floats, partial: bool, bypass: int) -> float:
    return el.buffer_excess(problem.layer, s, partial, bypass, problem.chip)


@kernel
def _outer_part(
    problem: Problem,
    split: Split,
    own: Candidates,
    count: Ints,
    active: Floats,
    words: float,
    delivered: float,
    ahead: int,
    resting: bool,
    out: Floats,
) -> int:
    """What a buffer tile costs: DRAM traffic, and the tensor that buffer loops keep in place.

    Args:
        problem: layer, chip and constraint.
        split: the spatial split.
        own: the tensor in place, and bypasses.
        count: buffer tiles by loop.
        active: as `fewest_active`, by loop.
        words: least traffic of the tensor in place.
        delivered: the same summed over the PEs that have it in common.
        ahead: bits of loops whose count may be larger; the part is a lower bound of those.
        resting: whether ragged buffer tiles may leave the tensor in place.
        out: receives energy and bits, shape (5,).

    Returns:
        The tensor that the DRAM loops had best keep in place.
    """
    chip, keep, bypass, least = problem.chip, own.keep, own.bypass, problem.least
    out[:] = 0.0
    repeats, serving, once, rest = 1.0, 1.0, 1.0, 0.0
    for d in range(8):
        if not ct.RELEVANCE[keep, d]:
            repeats *= count[d]
            serving *= active[d]
            once *= split.pes[d]
        elif resting and split.rounds[d] >= 3 and (count[d] >= 2 or ahead >> d & 1):
            # Where all loops over the tensor end in a buffer tile of one array tile, it may rest
            # there; with so many buffer tiles, this is at most one in 2 count - 1 array tiles.
            rest = max(rest, 1.0 / (2 * max(count[d], 2) - 1))
    serving += rest * (once - serving)
    array = words * (repeats + rest * (1.0 - repeats))
    if not chip.multicast and keep != O:
        array = delivered * serving
    bypassed = bypass >> keep & 1 > 0
    bd.add_array(keep, array, delivered * serving, least[O], bypassed, chip, out)
    bits, kept = st.dram_bits(problem.layer, chip, problem.keep_outer, least, bypass, count)
    out[bd.ENERGY] += bits * (chip.dram_energy + chip.buffer_energy)
    out[bd.DRAM_BITS] += bits
    return kept


@kernel
def search_pairs(
    problem: Problem,
    split: Split,
    own: Candidates,
    blocks: Blocks,
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
        floor: of the split.
        incumbent: the best mapping so far; updated.
        work: scratch.
    """
    chip, goal = problem.chip, problem.goal
    inside, across, best = own.inside, blocks.across, incumbent.value
    key = bd.ENERGY if goal.powers[0] > 0.0 else bd.DRAM_BITS
    least_across = np.full(5, np.inf)
    for b in range(len(across)):
        for column in range(5):
            least_across[column] = min(least_across[column], across[b, column])
    left = by_bound(inside, least_across, floor, problem, best[0], key)
    right = by_bound(across, own.lowest, floor, problem, best[0], key)
    code, edge_a, edge_b = np.ones(65, dtype=np.int64), own.lowest.copy(), least_across.copy()
    for a in left:
        # Both lists ascend in the key: where the best partner of this row cannot win, no later row
        # can.
        edge_a[key] = inside[a, key]
        if bd.bound(floor, edge_a, least_across, chip, goal) >= best[0]:
            break
        for b in right:
            edge_b[key] = across[b, key]
            if bd.bound(floor, inside[a], edge_b, chip, goal) >= best[0]:
                break
            if bd.bound(floor, inside[a], across[b], chip, goal) >= best[0]:
                continue
            sure = bd.bound(floor, own.refetched[a], blocks.refetched[b], chip, goal)
            outer, kept = blocks.outer[b], blocks.kept[b]
            try_pair(problem, split, own, a, outer, kept, sure, incumbent, code, work)


@kernel
def by_bound(
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
    numbers, curved, bent = own.numbers[a], problem.curved, False
    for d in range(8):
        code[ct.BUFFER + d] = _buffer_loop(numbers[d], outer[d], 0, curved[d])
        if code[ct.BUFFER + d] == 0:
            return
        code[d], code[ct.AXES + d], code[ct.DRAM + d] = own.tiles[a, d], split.pes[d], outer[d]
        bent |= curved[d] > 0
    code[ct.BYPASS] = own.bypass
    partial = numbers[C] > 1 or numbers[R] > 1 or numbers[S] > 1
    for position in range(8):
        code[ct.BUFFER_ORDER + position] = problem.orders[own.keep, position]
    while True:
        if sure >= incumbent.value[0] and not may_rest(own.keep, numbers, outer, code):
            if not _next_loops(problem, numbers, outer, code):
                return
            continue
        for d in range(8):
            block = code[d] * split.pes[d] * code[ct.BUFFER + d]
            work.s[ct.EXTENT, d] = min(block, problem.layer.sizes[d])
        if _buffer_excess(problem, work.s, partial, own.bypass) == 0.0:
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
        incumbent.code[:] = code


@kernel
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
    chip, keep, bypass, best = problem.chip, own.keep, own.bypass, incumbent.value
    least = problem.least
    code, outer = np.ones(65, dtype=np.int64), np.ones(8, dtype=np.int64)
    digit = np.empty(8, dtype=np.int64)
    extra, nothing = np.zeros(5), np.zeros(5)
    for a in range(len(own.tiles)):
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
        if bd.bound(floor, extra, nothing, chip, problem.goal) >= best[0]:
            continue
        for d in range(8):
            digit[d] = 0
            outer[d] = own.numbers[a, d] if ct.RELEVANCE[keep, d] else 1
        while True:
            try_pair(problem, split, own, a, outer, keep, 0.0, incumbent, code, work)
            if not _next_outer(outer, digit, keep, split):
                break


@kernel
def _next_outer(outer: Ints, digit: Ints, keep: int, split: Split) -> bool:
    """Moves the loops that do not move over the tensor on to their next numbers of buffer tiles.

    Returns:
        False after the last.
    """
    for d in range(8):
        if ct.RELEVANCE[keep, d]:
            continue
        digit[d] += 1
        if digit[d] < split.outer_counts[d]:
            outer[d] = split.outer[d, digit[d]]
            return True
        digit[d], outer[d] = 0, 1
    return False
