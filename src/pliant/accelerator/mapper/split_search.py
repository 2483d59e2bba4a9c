"""The best mapping of one spatial split, and of many in ascending order of their bound.

For each set of bypassed tensors and each tensor that the buffer loops keep in place, what can win
of the register tiles (`register_tiles`) meets what can win of the buffer tiles (`buffer_tiles`), in
the order of their bounds (`tile_pairs`).
"""

from __future__ import annotations

from typing import Final

import numpy as np

from pliant.accelerator.mapper import bounds as bd
from pliant.accelerator.mapper.bounds import Floor, Scratch
from pliant.accelerator.mapper.buffer_tiles import Candidates, buffer_tiles
from pliant.accelerator.mapper.problem import (
    ALL_TENSORS,
    Incumbent,
    Problem,
    Split,
    least_dram_bits,
    least_words,
    to_beat,
)
from pliant.accelerator.mapper.register_tiles import (
    PossibleBlocks,
    RegisterTiles,
    register_tiles,
    resting_share,
)
from pliant.accelerator.mapper.tile_pairs import make_extents, search_crossing, search_pairs
from pliant.accelerator.mapper.tile_sizes import fill_fewest_active
from pliant.accelerator.model import counts as ct
from pliant.accelerator.model.counts import Floats, Ints, LayerRecord, O
from pliant.accelerator.model.energy_latency import ChipRecord
from pliant.accelerator.model.kernels import allocating_kernel, kernel

_ALL: Final = 2**62


@allocating_kernel
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
        if bounds[split] >= to_beat(problem, incumbent):
            return position
        search_split(problem, pes[split], rounds[split], incumbent)
    return stop


@allocating_kernel
def search_split(problem: Problem, pes: Ints, rounds: Ints, incumbent: Incumbent) -> None:
    """Looks for a mapping of this split that beats the incumbent, and proves that no other does.

    Args:
        problem: layer, chip, objective and constraint.
        pes: by loop, shape (8,).
        rounds: the same.
        incumbent: the best of the splits before; updated.
    """
    rows = np.empty(8, dtype=np.int64)
    for d in range(8):
        rows[d] = problem.sizes.row[d, pes[d]]
    split = Split(pes, rounds, rows)
    floor = Floor(
        bd.constant_energy(problem.layer, pes, problem.chip), cycles_of_rounds(rounds, problem.chip)
    )
    unknown, best = _no_blocks(), to_beat(problem, incumbent)
    tiles = register_tiles(problem, split, floor, best, unknown, problem.many)
    if len(tiles.alive) == 0:
        return
    for d in range(8):
        fill_fewest_active(problem.sizes, rows[d], pes[d], problem.ragged)
    work = Scratch(np.zeros(ct.SCRATCH), np.empty(15), np.empty(6))
    if len(tiles.alive) > problem.many:
        possible = _possible_blocks(problem, split, floor, best, tiles, work.s)
        tiles = register_tiles(problem, split, floor, best, possible, _ALL)
    alive = 0
    for mask in tiles.alive:
        alive |= mask
    extents = make_extents(problem, split)
    for bypass in range(8):
        for keep in range(3):
            if not alive >> 8 * keep + bypass & 1:
                continue
            own = _candidates(problem, split, tiles, keep, bypass)
            best = to_beat(problem, incumbent)
            if (
                bd.bound(floor, own.lowest, _least_outer(problem, own), problem.chip, problem.goal)
                >= best
            ):
                continue
            if problem.keep_outer >> keep & 1:
                search_crossing(problem, split, own, floor, incumbent, work)
            blocks = buffer_tiles(problem, split, own, floor, to_beat(problem, incumbent), work.s)
            if len(blocks.outer) > 0:
                search_pairs(problem, split, own, blocks, extents, floor, incumbent, work)


@allocating_kernel
def _no_blocks() -> PossibleBlocks:
    """Before they are asked for."""
    none = np.zeros((0, 8), dtype=np.int64)
    return PossibleBlocks(False, np.zeros(25, dtype=np.int64), none, np.zeros((0, 5)))


@allocating_kernel
def _possible_blocks(
    problem: Problem, split: Split, floor: Floor, best: float, tiles: RegisterTiles, s: Floats
) -> PossibleBlocks:
    """The buffer tiles of a split that could win with what all register tiles cost at least.

    Args:
        problem: layer, chip, objective and constraint.
        split: the spatial split.
        floor: of the split.
        best: the value to beat.
        tiles: the register tiles; what all of them cost at least is used.
        s: scratch.
    """
    none, nothing = np.zeros((0, 8), dtype=np.int64), np.zeros((0, 5))
    outer, across, first = none, nothing, np.zeros(25, dtype=np.int64)
    for row in range(24):
        if tiles.mask >> row & 1:
            keep, bypass, lowest = row >> 3, row & 7, np.zeros(5)
            _inner_part(problem, tiles.least, keep, bypass, tiles.shares[keep], lowest)
            words = tiles.least[bd.ARRAY_ONCE + keep]
            delivered = tiles.least[bd.DELIVERED_ONCE + keep]
            own = Candidates(
                none, none, nothing, nothing, nothing, lowest, words, delivered, keep, bypass
            )
            blocks = buffer_tiles(problem, split, own, floor, best, s)
            outer = np.concatenate((outer, blocks.outer))
            across = np.concatenate((across, blocks.across))
        first[row + 1] = len(outer)
    return PossibleBlocks(True, first, outer, across)


@kernel
def cycles_of_rounds(rounds: Ints, chip: ChipRecord) -> float:
    """(11) Least compute time of a split: the first PE works in every round."""
    cycles = 1.0 / chip.macs_per_cycle
    for d in range(8):
        cycles *= rounds[d]
    return cycles


@allocating_kernel
def split_bounds(problem: Problem, pes: Ints, rounds: Ints) -> Floats:
    """Least value of any mapping of each split.

    Args:
        problem: layer, chip, goal and constraint.
        pes: by split and loop, shape (splits, 8).
        rounds: the same shape.
    """
    part, bounds = np.empty(5), np.full(len(pes), np.inf)
    combinations = problem.combinations
    bypasses = combinations | combinations >> 8 | combinations >> 16
    for split in range(len(pes)):
        for bypass in range(8):
            if bypasses >> bypass & 1:
                energy, cycles = _least_of_split(
                    problem.layer,
                    problem.chip,
                    problem.least,
                    problem.dram[bypass],
                    bypass,
                    pes[split],
                    rounds[split],
                    part,
                )
                value = bd.value_of(energy, cycles, problem.goal)
                bounds[split] = min(bounds[split], value)
    return bounds


@allocating_kernel
def least_of_splits(
    layer: LayerRecord, chip: ChipRecord, bypasses: int, pes: Ints, rounds: Ints
) -> tuple[float, float, float]:
    """Least energy, cycles and energy-delay product of any mapping, each by itself.

    Args:
        layer: the loops.
        chip: the hardware.
        bypasses: bits of the sets of tensors that may bypass the buffer.
        pes: by split and loop, shape (splits, 8).
        rounds: the same shape.

    Returns:
        Infinite where no buffer tile fits.
    """
    least, part = least_words(layer), np.empty(5)
    dram = least_dram_bits(layer, chip, ALL_TENSORS, least)
    least_energy, least_cycles, least_edp = np.inf, np.inf, np.inf
    for split in range(len(pes)):
        for bypass in range(8):
            if bypasses >> bypass & 1 and dram[bypass] < np.inf:
                energy, cycles = _least_of_split(
                    layer, chip, least, dram[bypass], bypass, pes[split], rounds[split], part
                )
                least_energy, least_cycles = min(least_energy, energy), min(least_cycles, cycles)
                least_edp = min(least_edp, energy * cycles)
    return least_energy, least_cycles, least_edp


@kernel
def _least_of_split(
    layer: LayerRecord,
    chip: ChipRecord,
    least: Floats,
    dram: float,
    bypass: int,
    pes: Ints,
    rounds: Ints,
    part: Floats,
) -> tuple[float, float]:
    """The fewest words over DRAM, all PEs served, each word once into the array.

    Args:
        layer: the loops.
        chip: the hardware.
        least: words of each tensor, as `least_words`.
        dram: fewest bits over DRAM, as `least_dram_bits`.
        bypass: bits of the tensors that bypass the buffer.
        pes: by loop, shape (8,).
        rounds: the same.
        part: scratch, shape (5,).

    Returns:
        Energy and cycles that no mapping of the split goes below.
    """
    part[:] = 0.0
    part[bd.ENERGY] = dram * (chip.dram_energy + chip.buffer_energy)
    part[bd.DRAM_BITS] = dram
    for tensor in range(3):
        delivered = least[tensor]
        for d in range(8):
            delivered *= 1 if ct.RELEVANCE[tensor, d] else pes[d]
        past = bypass >> tensor & 1 > 0
        bd.add_array(tensor, least[tensor], delivered, least[O], past, chip, part)
    floor = Floor(bd.constant_energy(layer, pes, chip), cycles_of_rounds(rounds, chip))
    return bd.least_cost(
        floor,
        part[bd.ENERGY],
        part[bd.DRAM_BITS],
        part[bd.PORT_BITS],
        part[bd.NOC_BITS],
        part[bd.COMPUTE],
        chip,
    )


@allocating_kernel
def _candidates(
    problem: Problem, split: Split, tiles: RegisterTiles, keep: int, bypass: int
) -> Candidates:
    """The register tiles that could win with one combination, and what they cost with it."""
    bit, found = 1 << 8 * keep + bypass, 0
    chosen = np.empty(len(tiles.alive), dtype=np.int64)
    for a in range(len(tiles.alive)):
        if tiles.alive[a] & bit:
            chosen[found] = a
            found += 1
    chosen = chosen[:found]
    places, numbers, facts = tiles.places[chosen], tiles.numbers[chosen], tiles.facts[chosen]
    inside, refetched = np.zeros((found, 5)), np.zeros((found, 5))
    lowest, words, delivered = np.full(5, np.inf), np.inf, np.inf
    for a in range(found):
        share = resting_share(keep, numbers[a], numbers[a]) if problem.ragged else 0.0
        _inner_part(problem, facts[a], keep, bypass, share, inside[a])
        _inner_part(problem, facts[a], keep, bypass, 0.0, refetched[a])
        for column in range(5):
            lowest[column] = min(lowest[column], inside[a, column])
        words = min(words, facts[a, bd.ARRAY_ONCE + keep])
        delivered = min(delivered, facts[a, bd.DELIVERED_ONCE + keep])
    return Candidates(
        places, numbers, facts, inside, refetched, lowest, words, delivered, keep, bypass
    )


@kernel
def _inner_part(
    problem: Problem, facts: Floats, keep: int, bypass: int, share: float, out: Floats
) -> None:
    """What a register tile costs for the two tensors that the buffer loops refetch.

    Args:
        problem: layer and chip.
        facts: of the register tile, shape (13,).
        keep: the tensor that is kept in place.
        bypass: bits of the tensors that bypass the buffer.
        share: of their traffic that ragged buffer tiles may leave in place.
        out: receives energy, bits and cycles, shape (5,).
    """
    out[bd.COMPUTE] = facts[12]
    for tensor in range(3):
        if tensor != keep:
            full = facts[bd.ARRAY_FULL + tensor]
            full += share * (facts[bd.ARRAY_ONCE + tensor] - full)
            delivered = facts[bd.DELIVERED_FULL + tensor]
            delivered += share * (facts[bd.DELIVERED_ONCE + tensor] - delivered)
            past = bypass >> tensor & 1 > 0
            bd.add_array(tensor, full, delivered, problem.least[O], past, problem.chip, out)


@allocating_kernel
def _least_outer(problem: Problem, own: Candidates) -> Floats:
    """Least cost of everything that the buffer tile decides, shape (5,)."""
    out, chip, bypass = np.zeros(5), problem.chip, own.bypass
    past = bypass >> own.keep & 1 > 0
    bd.add_array(own.keep, own.words, own.delivered, problem.least[O], past, chip, out)
    out[bd.ENERGY] += problem.dram[bypass] * (chip.dram_energy + chip.buffer_energy)
    out[bd.DRAM_BITS] += problem.dram[bypass]
    return out
