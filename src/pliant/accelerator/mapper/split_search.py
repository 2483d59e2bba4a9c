"""The best mapping of one spatial split: tiles, their bounds, and the pairs that could win.

For each set of bypassed tensors and each tensor that the buffer loops keep in place, register tiles
and buffer tiles are sorted by their own cost, and pairs are visited in that order until no pair can
beat the best mapping so far.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np

from pliant.accelerator.mapper import bounds as bd
from pliant.accelerator.mapper.bounds import Floor, Powers, Scratch, Split
from pliant.accelerator.model import counts as ct
from pliant.accelerator.model import energy_latency as el
from pliant.accelerator.model.counts import C, Floats, Ints, LayerRecord, O, R, S, kernel
from pliant.accelerator.model.energy_latency import ChipRecord


class Problem(NamedTuple):
    """What a search of one layer is asked for; the same for all splits."""

    layer: LayerRecord
    chip: ChipRecord
    powers: Powers
    """Of energy and cycles in the objective."""
    orders: Ints
    """The loop order that keeps each tensor in place, one row each for W, I, O; shape (3, 8)."""
    keep_inner: int
    """Bits 1, 2, 4 of the tensors W, I, O that buffer loops may keep in place."""
    keep_outer: int
    """The same of the DRAM loops."""
    bypasses: int
    """Bit b set: the set of tensors with bits b may bypass the buffer."""


class Incumbent(NamedTuple):
    """The best mapping so far, and what the search counted; all are written in place."""

    value: Floats
    """Of the objective, shape (1,); infinite at first."""
    code: Ints
    """As `Mapping.encode`, shape (65,)."""
    evaluated: Ints
    """Mappings costed exactly, shape (1,)."""
    fitting: Ints
    """Tilings whose register tile fits, of all orders and bypasses one; shape (1,)."""


class Candidates(NamedTuple):
    """The two lists of a split for one choice of bypass and of the tensor kept in place."""

    tiles: Ints
    """Register tiles by loop, shape (tiles, 8)."""
    traffic: Floats
    """Of the register tiles, shape (tiles, 12)."""
    inside: Floats
    """Energy and bits that a register tile decides, shape (tiles, 4)."""
    lowest: Floats
    """The least of each column of `inside`."""
    keep: int
    """The tensor that the buffer loops keep in place."""
    bypass: int
    """Bits of the tensors that bypass the buffer."""


class Blocks(NamedTuple):
    """Buffer tiles of a split."""

    outer: Ints
    """Buffer tiles by loop, shape (blocks, 8)."""
    facts: Floats
    """Of the buffer tiles, shape (blocks, 12)."""
    across: Floats
    """Energy and bits that a buffer tile decides, shape (blocks, 4)."""
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
        search_split(problem, bd.make_split(pes[split], rounds[split]), incumbent)
    return stop


@kernel
def search_split(problem: Problem, split: Split, incumbent: Incumbent) -> None:
    """Looks for a mapping of this split that beats the incumbent, and proves that no other does.

    Args:
        problem: layer, chip, objective and constraint.
        split: the spatial split.
        incumbent: the best of the splits before; updated.
    """
    layer, chip = problem.layer, problem.chip
    work = Scratch(np.zeros(ct.SCRATCH), np.empty(15), np.empty(6))
    floor = Floor(bd.constant_energy(layer, split.pes, chip), cycles_of_rounds(split.rounds, chip))
    least = least_words(layer, work.s)
    tiles, traffic = bd.register_tiles(layer, chip, split, work.s)
    if len(tiles) == 0:
        return
    for a in range(len(tiles)):
        incumbent.fitting[0] += outer_factorisations(split, tiles[a])
    inside, total = np.empty((len(tiles), 4)), np.empty(4)
    blocks = _no_blocks()
    for bypass in range(8):
        for keep in range(3):
            if not (problem.bypasses >> bypass & 1 and problem.keep_inner >> keep & 1):
                continue
            lowest = inner_parts(traffic, keep, bypass, least[O], chip, inside)
            own = Candidates(tiles, traffic, inside, lowest, keep, bypass)
            if problem.keep_outer >> keep & 1:
                search_crossing(problem, split, own, least, floor, incumbent, work)
            _least_outer(own, least, chip, total)
            if bd.bound(floor, lowest, total, chip, problem.powers) >= incumbent.value[0]:
                continue
            if len(blocks.outer) == 0:  # made once, and only where a bound lets it come to that
                outer, facts = bd.buffer_tiles(layer, split, work.s)
                kept = np.empty(len(outer), dtype=np.int64)
                blocks = Blocks(outer, facts, np.empty((len(outer), 4)), kept)
            outer_parts(problem, split, own, blocks, least)
            search_pairs(problem, split, own, blocks, floor, incumbent, work)


@kernel
def _no_blocks() -> Blocks:
    outer, kept = np.empty((0, 8), dtype=np.int64), np.empty(0, dtype=np.int64)
    return Blocks(outer, np.empty((0, 12)), np.empty((0, 4)), kept)


@kernel
def outer_factorisations(split: Split, tile: Ints) -> int:
    """Ways to write what a register tile leaves of the rounds as buffer and DRAM loops."""
    chains = 1
    for d in range(8):
        rest, ways = split.rounds[d] // tile[d], 0
        for index in range(split.divisor_counts[d]):
            ways += rest % split.divisors[d, index] == 0
        chains *= ways
    return chains


@kernel
def cycles_of_rounds(rounds: Ints, chip: ChipRecord) -> float:
    """(11) Compute time of a split: the first PE works in every round, whatever the tiles."""
    cycles = 1.0 / chip.macs_per_cycle
    for d in range(8):
        cycles *= rounds[d]
    return cycles


@kernel
def split_bounds(
    layer: LayerRecord, chip: ChipRecord, pes: Ints, rounds: Ints, powers: Powers
) -> Floats:
    """Least value of any mapping of each split.

    Each word crosses DRAM once, all PEs are served, the buffer costs nothing.

    Args:
        layer: the loops.
        chip: the hardware.
        pes: by split and loop, shape (splits, 8).
        rounds: the same shape.
        powers: of the objective.
    """
    s, nothing, bounds = np.zeros(ct.SCRATCH), np.zeros(4), np.empty(len(pes))
    least = least_words(layer, s)
    for split in range(len(pes)):
        total = np.zeros(4)
        for tensor in range(3):
            delivered = least[tensor]
            for d in range(8):
                delivered *= 1 if ct.RELEVANCE[tensor, d] else pes[split, d]
            _add_least(tensor, least, delivered, chip, total)
        constant = bd.constant_energy(layer, pes[split], chip)
        floor = Floor(constant, cycles_of_rounds(rounds[split], chip))
        bounds[split] = bd.bound(floor, total, nothing, chip, powers)
    return bounds


@kernel
def least_words(layer: LayerRecord, s: Floats) -> Floats:
    """Words of each tensor, shape (3,): what has to move at least once."""
    for d in range(8):
        s[ct.EXTENT, d] = layer.sizes[d]
    least = np.empty(3)
    for tensor in range(3):
        least[tensor] = el.tile_words(tensor, s, ct.EXTENT, layer)
    return least


@kernel
def _add_least(tensor: int, least: Floats, delivered: float, chip: ChipRecord, out: Floats) -> None:
    """Lower bound of what a tensor costs: one DRAM crossing, and nothing at the buffer port."""
    added = np.zeros(4)
    bd.add_array(tensor, least[tensor], delivered, least[O], True, chip, added)
    out[bd.ENERGY] += added[bd.ENERGY]
    out[bd.DRAM_BITS] += added[bd.DRAM_BITS]
    out[bd.NOC_BITS] += added[bd.NOC_BITS]


@kernel
def inner_parts(
    traffic: Floats, keep: int, bypass: int, outputs: float, chip: ChipRecord, inside: Floats
) -> Floats:
    """What each register tile costs for the two tensors that the buffer loops refetch.

    Args:
        traffic: of the register tiles, shape (tiles, 12).
        keep: the tensor that is kept in place.
        bypass: bits of the tensors that bypass the buffer.
        outputs: words of the output tensor.
        chip: the hardware.
        inside: receives energy and bits, shape (tiles, 4).

    Returns:
        The least of each column.
    """
    lowest = np.full(4, np.inf)
    for a in range(len(inside)):
        for column in range(4):
            inside[a, column] = 0.0
        for tensor in range(3):
            if tensor != keep:
                full = traffic[a, bd.ARRAY_FULL + tensor]
                delivered = traffic[a, bd.DELIVERED_FULL + tensor]
                bypassed = bypass >> tensor & 1 > 0
                bd.add_array(tensor, full, delivered, outputs, bypassed, chip, inside[a])
        for column in range(4):
            lowest[column] = min(lowest[column], inside[a, column])
    return lowest


@kernel
def _least_outer(own: Candidates, least: Floats, chip: ChipRecord, out: Floats) -> None:
    """Least cost of everything that the buffer tile decides."""
    out[:] = 0.0
    keep, bypass = own.keep, own.bypass
    words = own.traffic[:, bd.ARRAY_ONCE + keep].min()
    delivered = own.traffic[:, bd.DELIVERED_ONCE + keep].min()
    bd.add_array(keep, words, delivered, least[O], bypass >> keep & 1 > 0, chip, out)
    for tensor in range(3):
        if not bypass >> tensor & 1:
            bd.add_dram(tensor, least[tensor], least[O], chip, out)


@kernel
def outer_parts(
    problem: Problem, split: Split, own: Candidates, blocks: Blocks, least: Floats
) -> None:
    """What each buffer tile costs: DRAM traffic, and the tensor that buffer loops keep in place.

    DRAM loops keep the tensor that saves most. Infinite where the tile does not fit the buffer even
    with finished outputs.

    Args:
        problem: layer, chip, objective and constraint.
        split: the spatial split.
        own: register tiles, the tensor in place, and bypasses.
        blocks: buffer tiles; `across` and `kept` are written.
        least: words of each tensor.
    """
    chip, keep, bypass = problem.chip, own.keep, own.bypass
    facts, across, kept = blocks.facts, blocks.across, blocks.kept
    words = own.traffic[:, bd.ARRAY_ONCE + keep].min()
    delivered = own.traffic[:, bd.DELIVERED_ONCE + keep].min()
    for d in range(8):
        if not ct.RELEVANCE[keep, d]:
            delivered /= split.pes[d]
    for b in range(len(facts)):
        across[b, :] = np.inf
        if not bd.fits_buffer(facts[b], False, bypass, chip):
            continue
        across[b, :] = 0.0
        bd.add_array(
            keep,
            words * facts[b, bd.REPEATS + keep],
            delivered * facts[b, bd.ACTIVE + keep],
            least[O],
            bypass >> keep & 1 > 0,
            chip,
            across[b],
        )
        saved, kept[b] = -1.0, -1
        for tensor in range(3):
            full = facts[b, bd.DRAM_FULL + tensor]
            if not bypass >> tensor & 1:
                bd.add_dram(tensor, full, least[O], chip, across[b])
            if problem.keep_outer >> tensor & 1:
                width = 2.0 * chip.sum_bits if tensor == O else chip.bits[tensor]
                bits = (full - full / facts[b, bd.REPEATS + tensor]) * width
                if bypass >> tensor & 1:
                    bits = 0.0
                if bits > saved:
                    saved, kept[b] = bits, tensor
        across[b, bd.ENERGY] -= saved * (chip.dram_energy + chip.buffer_energy)
        across[b, bd.DRAM_BITS] -= saved


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
    chip, powers = problem.chip, problem.powers
    inside, across, best = own.inside, blocks.across, incumbent.value
    key = bd.ENERGY if powers[0] > 0.0 else bd.DRAM_BITS
    least_across = np.full(4, np.inf)
    for b in range(len(across)):
        for column in range(4):
            least_across[column] = min(least_across[column], across[b, column])
    if np.isinf(least_across[0]):
        return
    left = by_bound(inside, least_across, floor, problem, best[0], key)
    right = by_bound(across, own.lowest, floor, problem, best[0], key)
    code, edge_a, edge_b = np.ones(65, dtype=np.int64), own.lowest.copy(), least_across.copy()
    for a in left:
        # Both lists ascend in the key: where the best partner of this row cannot win, no later row
        # can.
        edge_a[key] = inside[a, key]
        if bd.bound(floor, edge_a, least_across, chip, powers) >= best[0]:
            break
        partial = False
        for d in (C, R, S):
            partial |= split.rounds[d] > own.tiles[a, d]
        for b in right:
            edge_b[key] = across[b, key]
            if bd.bound(floor, inside[a], edge_b, chip, powers) >= best[0]:
                break
            if not _divides(split.rounds, own.tiles[a], blocks.outer[b]):
                continue
            if not bd.fits_buffer(blocks.facts[b], partial, own.bypass, chip):
                continue
            if bd.bound(floor, inside[a], across[b], chip, powers) >= best[0]:
                continue
            bd.set_tiles(code, split, own.tiles[a], blocks.outer[b])
            _try(problem, code, own, blocks.kept[b], incumbent, work)


@kernel
def by_bound(
    own: Floats, other: Floats, floor: Floor, problem: Problem, best: float, key: int
) -> Ints:
    """Rows that could win with the best of the other list, by ascending key.

    Args:
        own: energy and bits, shape (rows, 4).
        other: the least of each column of the other list.
        floor: of the split.
        problem: chip and objective.
        best: the value to beat.
        key: the column to sort by.
    """
    rows = np.empty(len(own), dtype=np.int64)
    found = 0
    for row in range(len(own)):
        if bd.bound(floor, own[row], other, problem.chip, problem.powers) < best:
            rows[found] = row
            found += 1
    values = np.empty(found)
    for index in range(found):
        values[index] = own[rows[index], key]
    return rows[:found][np.argsort(values)]


@kernel
def _divides(rounds: Ints, tile: Ints, outer: Ints) -> bool:
    """Whether buffer loops with whole bounds are left between a register tile and a buffer tile."""
    whole = True
    for d in range(8):
        whole &= rounds[d] == 1 or rounds[d] % (tile[d] * outer[d]) == 0
    return whole


@kernel
def _try(
    problem: Problem,
    code: Ints,
    own: Candidates,
    keep_outer: int,
    incumbent: Incumbent,
    work: Scratch,
) -> None:
    """Asks the model what a mapping costs, and makes it the incumbent if it is better.

    Args:
        problem: layer, chip, objective and constraint.
        code: holds the factors; receives orders and bypass.
        own: the tensor that buffer loops keep in place, and bypasses.
        keep_outer: the tensor that DRAM loops keep in place.
        incumbent: the best mapping so far; updated.
        work: scratch.
    """
    for position in range(8):
        code[ct.BUFFER_ORDER + position] = problem.orders[own.keep, position]
        code[ct.DRAM_ORDER + position] = problem.orders[keep_outer, position]
    code[ct.BYPASS] = own.bypass
    incumbent.evaluated[0] += 1
    value = bd.exact_value(problem.layer, problem.chip, code, problem.powers, work)
    if value < incumbent.value[0]:
        incumbent.value[0] = value
        incumbent.code[:] = code


@kernel
def search_crossing(
    problem: Problem,
    split: Split,
    own: Candidates,
    least: Floats,
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
        least: words of each tensor.
        floor: of the split.
        incumbent: the best mapping so far; updated.
        work: scratch.
    """
    chip, keep, bypass, best = problem.chip, own.keep, own.bypass, incumbent.value
    code, outer = np.ones(65, dtype=np.int64), np.ones(8, dtype=np.int64)
    extra, nothing = np.zeros(4), np.zeros(4)
    for a in range(len(own.tiles)):
        # Lower bound: the tensor enters the array once, and DRAM loops refetch the other two.
        extra[:] = 0.0
        words = own.traffic[a, bd.ARRAY_ONCE + keep]
        delivered = own.traffic[a, bd.DELIVERED_ONCE + keep]
        bd.add_array(keep, words, delivered, least[O], bypass >> keep & 1 > 0, chip, extra)
        for tensor in range(3):
            if not bypass >> tensor & 1:
                words = least[tensor]
                if tensor != keep:
                    for d in range(8):
                        if not ct.RELEVANCE[tensor, d]:
                            words *= split.rounds[d] // own.tiles[a, d]
                bd.add_dram(tensor, words, least[O], chip, extra)
        for column in range(4):
            extra[column] += own.inside[a, column]
        if bd.bound(floor, extra, nothing, chip, problem.powers) >= best[0]:
            continue
        for d in range(8):
            outer[d] = split.rounds[d] // own.tiles[a, d] if ct.RELEVANCE[keep, d] else 1
        while True:
            if _divides(split.rounds, own.tiles[a], outer):
                bd.set_tiles(code, split, own.tiles[a], outer)
                _try(problem, code, own, keep, incumbent, work)
            if not _next_outer(outer, keep, split):
                break


@kernel
def _next_outer(outer: Ints, keep: int, split: Split) -> bool:
    """Moves the loops that do not move over the tensor on to their next divisors.

    Returns:
        False after the last.
    """
    for d in range(8):
        if ct.RELEVANCE[keep, d]:
            continue
        for index in range(split.divisor_counts[d]):
            if split.divisors[d, index] == outer[d]:
                if index + 1 < split.divisor_counts[d]:
                    outer[d] = split.divisors[d, index + 1]
                    return True
                outer[d] = 1
                break
    return False
