"""Which numbers of buffer tiles may fit, and could win with the best register tiles of a split?

A buffer tile is named by how many there are of each loop; how large it is follows from the register
tile that it is paired with.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np

from pliant.accelerator.mapper import bounds as bd
from pliant.accelerator.mapper.bounds import Floor
from pliant.accelerator.mapper.problem import Problem, Split, dram_bits
from pliant.accelerator.model import counts as ct
from pliant.accelerator.model import energy_latency as el
from pliant.accelerator.model.counts import Floats, Ints, LayerRecord, O
from pliant.accelerator.model.energy_latency import ChipRecord
from pliant.accelerator.model.kernels import allocating_kernel, kernel


class Candidates(NamedTuple):
    """The register tiles of a split for one choice of bypass and of the tensor kept in place."""

    places: Ints
    """Place of each loop's tile in its row of the tile sizes, shape (tiles, 8)."""
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
    words: float
    """Least traffic of the tensor in place."""
    delivered: float
    """The same summed over the PEs."""
    keep: int
    """The tensor that the buffer loops keep in place."""
    bypass: int
    """Bits of the tensors that bypass the buffer."""


class Blocks(NamedTuple):
    """The buffer tiles that could win with such register tiles."""

    places: Ints
    """Place of each loop's number of buffer tiles in its row, shape (blocks, 8)."""
    outer: Ints
    """Buffer tiles by loop, the same shape."""
    across: Floats
    """Least energy and bits that a buffer tile decides, shape (blocks, 5)."""
    refetched: Floats
    """The same where ragged buffer tiles leave nothing in place."""
    kept: Ints
    """The tensor that the DRAM loops had best keep in place, shape (blocks,)."""


@allocating_kernel
def buffer_tiles(
    problem: Problem, split: Split, own: Candidates, floor: Floor, best: float, s: Floats
) -> Blocks:
    """The buffer tiles that may fit, and could win with the best of the register tiles.

    Depth first over the loops, each through its numbers of buffer tiles in ascending order. Fewer
    buffer tiles move less, more of them need less room: a loop stops where even one buffer tile of
    each later loop moves too much, and skips where even the smallest tiles of them do not fit.

    Args:
        problem: layer, chip, goal and constraint; `sizes.fewest_active` is filled.
        split: the spatial split.
        own: register tiles, the tensor in place, and bypasses.
        floor: of the split.
        best: the value to beat.
        s: scratch.
    """
    # Named once: every array that is taken out of a tuple inside a loop is counted there.
    layer, chip, goal, least = problem.layer, problem.chip, problem.goal, problem.least
    outer_start, outer_counts = problem.sizes.outer_start, problem.sizes.outer_counts
    every_outer, fewest_active = problem.sizes.outer, problem.sizes.fewest_active
    pes, rounds, rows = split.pes, split.rounds, split.rows
    keep, bypass, words, lowest = own.keep, own.bypass, own.words, own.lowest
    keep_outer, room = problem.keep_outer, 16
    places, outer = np.zeros((room, 8), dtype=np.int64), np.ones((room, 8), dtype=np.int64)
    across, sure = np.empty((room, 5)), np.empty((room, 5))
    kept, rests = np.empty(room, dtype=np.int64), problem.ragged
    place, count, active = np.zeros(8, dtype=np.int64), np.ones(8, dtype=np.int64), np.ones(8)
    digit, order, loops, ahead = np.zeros(9, dtype=np.int64), np.empty(8, dtype=np.int64), 0, 0
    delivered = own.delivered
    for d in range(8):
        if not ct.RELEVANCE[keep, d]:
            delivered /= pes[d]
        active[d] = pes[d]
        s[ct.EXTENT, d] = min(pes[d], layer.sizes[d])
        if rounds[d] > 1:
            order[loops], ahead = d, ahead | 1 << d
            loops += 1
    found, depth, part = 0, 0, np.empty(5)
    while depth >= 0:
        if depth == loops:
            if found == room:
                room *= 2
                places, outer = np.concatenate((places, places)), np.concatenate((outer, outer))
                across, sure = np.concatenate((across, across)), np.concatenate((sure, sure))
                kept = np.concatenate((kept, kept))
            _outer_part(
                layer,
                chip,
                least,
                keep_outer,
                keep,
                bypass,
                pes,
                rounds,
                words,
                delivered,
                count,
                active,
                0,
                rests,
                part,
            )
            if bd.bound(floor, lowest, part, chip, goal) < best:
                places[found, :], outer[found, :], across[found, :] = place, count, part
                kept[found] = _outer_part(
                    layer,
                    chip,
                    least,
                    keep_outer,
                    keep,
                    bypass,
                    pes,
                    rounds,
                    words,
                    delivered,
                    count,
                    active,
                    0,
                    False,
                    part,
                )
                sure[found, :] = part
                found += 1
            depth -= 1
            continue
        d, index, grown = order[depth], digit[depth], False
        row = rows[d]
        start, last = outer_start[row], outer_counts[row]
        ahead &= ~(1 << d)
        while index < last:
            place[d], count[d] = index, every_outer[start + index]
            active[d] = fewest_active[start + index]
            block = (rounds[d] + count[d] - 1) // count[d]
            s[ct.EXTENT, d] = min(block * pes[d], layer.sizes[d])
            index += 1
            if el.buffer_excess(layer, s, False, bypass, chip) > 0.0:
                continue
            rising = ahead | 1 << d
            _outer_part(
                layer,
                chip,
                least,
                keep_outer,
                keep,
                bypass,
                pes,
                rounds,
                words,
                delivered,
                count,
                active,
                rising,
                rests,
                part,
            )
            grown = bd.bound(floor, lowest, part, chip, goal) < best
            break
        if grown:
            digit[depth] = index
            depth += 1
            digit[depth] = 0
            continue
        place[d], count[d], active[d] = 0, 1, pes[d]
        s[ct.EXTENT, d] = min(pes[d], layer.sizes[d])
        ahead |= 1 << d
        depth -= 1
    return Blocks(places[:found], outer[:found], across[:found], sure[:found], kept[:found])


@kernel
def _outer_part(
    layer: LayerRecord,
    chip: ChipRecord,
    least: Floats,
    keep_outer: int,
    keep: int,
    bypass: int,
    pes: Ints,
    rounds: Ints,
    words: float,
    delivered: float,
    count: Ints,
    active: Floats,
    ahead: int,
    resting: bool,
    out: Floats,
) -> int:
    """What a buffer tile costs: DRAM traffic, and the tensor that buffer loops keep in place.

    Args:
        layer: the loops.
        chip: the hardware.
        least: words of each tensor.
        keep_outer: bits of the tensors that DRAM loops may keep in place.
        keep: the tensor that buffer loops keep in place.
        bypass: bits of the tensors that bypass the buffer.
        pes: of the split by loop.
        rounds: of the split by loop.
        words: least traffic of the tensor in place.
        delivered: the same over the PEs that do not have it in common.
        count: buffer tiles by loop.
        active: as `TileSizes.fewest_active`, by loop.
        ahead: bits of loops whose count may be larger; the part is a lower bound of those.
        resting: whether ragged buffer tiles may leave the tensor in place.
        out: receives energy and bits, shape (5,).

    Returns:
        The tensor that the DRAM loops had best keep in place.
    """
    out[:] = 0.0
    repeats, serving, once, rest = 1.0, 1.0, 1.0, 0.0
    for d in range(8):
        if not ct.RELEVANCE[keep, d]:
            repeats *= count[d]
            serving *= active[d]
            once *= pes[d]
        elif resting and rounds[d] >= 3 and (count[d] >= 2 or ahead >> d & 1):
            # Where all loops over the tensor end in a buffer tile of one array tile, it may rest
            # there; with so many buffer tiles, this is at most one in 2 count - 1 array tiles.
            rest = max(rest, 1.0 / (2 * max(count[d], 2) - 1))
    serving += rest * (once - serving)
    array = words * (repeats + rest * (1.0 - repeats))
    if not chip.multicast and keep != O:
        array = delivered * serving
    bypassed = bypass >> keep & 1 > 0
    bd.add_array(keep, array, delivered * serving, least[O], bypassed, chip, out)
    bits, kept = dram_bits(layer, chip, keep_outer, least, bypass, count)
    out[bd.ENERGY] += bits * (chip.dram_energy + chip.buffer_energy)
    out[bd.DRAM_BITS] += bits
    return kept
