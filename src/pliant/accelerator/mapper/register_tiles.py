"""Which register tiles of a spatial split fit, and could be part of a better mapping?

A search over boxes: of every loop a range of tile sizes, at first all of them. A box is narrowed
from both ends, by what the registers hold and by a bound of the value, until nothing changes; then
it is halved along its widest loop. Boxes that end as a single tile are the answer. The bound is
stated for each combination of a tensor that the buffer loops keep in place and a set of bypasses;
those that cannot win in a box are not looked at again inside it.
"""

from __future__ import annotations

from typing import Final, NamedTuple

import numpy as np

from pliant.accelerator.mapper import bounds as bd
from pliant.accelerator.mapper import tile_sizes as sz
from pliant.accelerator.mapper.bounds import Floor, Goal
from pliant.accelerator.mapper.problem import Problem, Split, input_words
from pliant.accelerator.model import counts as ct
from pliant.accelerator.model import energy_latency as el
from pliant.accelerator.model.counts import C, Floats, I, Ints, K, LayerRecord, N, O, P, Q, R, S, W
from pliant.accelerator.model.energy_latency import ChipRecord
from pliant.accelerator.model.kernels import allocating_kernel, kernel

_BOXES: Final = 512
"""Boxes that may wait: a loop of 2^31 tiles is halved 31 times, of eight loops."""

# Rows of a box, with a column for every loop.
TILES, MOST, ACTIVE, STEPS = range(4)


class PossibleBlocks(NamedTuple):
    """The buffer tiles of a split that could win with any register tile, by combination."""

    known: bool
    """Whether they were asked for; else they are not used."""
    first: Ints
    """Where those of each combination 8 keep + bypass begin, shape (25,)."""
    outer: Ints
    """Buffer tiles by loop, shape (blocks, 8)."""
    across: Floats
    """Least energy and bits that a buffer tile decides, shape (blocks, 5)."""


class RegisterTiles(NamedTuple):
    """The register tiles of a split that could win; one row each."""

    places: Ints
    """Place of each loop's tile in its row of the tile sizes, shape (tiles, 8)."""
    numbers: Ints
    """Array tiles by loop, the same shape."""
    facts: Floats
    """Traffic of the register tiles and their compute cycles, shape (tiles, 13)."""
    alive: Ints
    """Combinations with which each could win, as a mask, shape (tiles,)."""
    least: Floats
    """The least facts of all that could win, shape (13,)."""
    shares: Floats
    """`resting_share` of all that could win, for each tensor in place, shape (3,)."""
    mask: int
    """All combinations with which one could win."""


@allocating_kernel
def register_tiles(
    problem: Problem, split: Split, floor: Floor, best: float, blocks: PossibleBlocks, most: int
) -> RegisterTiles:
    """The register tiles that fit and could win, and their traffic.

    Args:
        problem: layer, chip, goal and constraint.
        split: the spatial split.
        floor: of the split.
        best: the value to beat.
        blocks: the buffer tiles that could win.
        most: tiles after which the search ends; the one above it tells that there are more.
    """
    found, room, start = 0, 16, np.empty(8, dtype=np.int64)
    places, numbers = np.empty((room, 8), dtype=np.int64), np.empty((room, 8), dtype=np.int64)
    facts, alive = np.empty((room, 13)), np.empty(room, dtype=np.int64)
    low, high = np.zeros((_BOXES, 8), dtype=np.int64), np.empty((_BOXES, 8), dtype=np.int64)
    masks, waiting = np.empty(_BOXES, dtype=np.int64), 1
    box, traffic, s = np.empty((4, 8)), np.empty(12), np.ones(ct.SCRATCH)
    curved, exact = problem.curved.sum() > 0, np.empty(ct.SCRATCH)
    masks[0], lowest, shares, root = problem.combinations, np.zeros(13), np.zeros(3), -1
    for d in range(8):
        start[d] = problem.sizes.start[split.rows[d]]
        high[0, d] = problem.sizes.counts[split.rows[d]] - 1
        if high[0, d] < 0:
            waiting = 0
    while waiting > 0 and found <= most:
        top = waiting - 1
        mask = _narrow(
            problem,
            split.pes,
            start,
            floor,
            best,
            blocks,
            low[top],
            high[top],
            masks[top],
            box,
            traffic,
            s,
        )
        if root < 0:  # the first box holds all
            root = mask
            tile_traffic(
                problem.layer, problem.chip.multicast, problem.least, split.pes, box, traffic
            )
            lowest[:12], lowest[12] = traffic, 1.0 / problem.chip.macs_per_cycle
            for d in range(8):
                lowest[12] *= box[STEPS, d]
            if problem.ragged:
                for keep in range(3):
                    shares[keep] = resting_share(keep, box[TILES], box[MOST])
        if mask == 0:
            waiting -= 1
            continue
        widest = 0
        for d in range(8):
            if high[top, d] - low[top, d] > high[top, widest] - low[top, widest]:
                widest = d
        if high[top, widest] > low[top, widest]:
            middle = (low[top, widest] + high[top, widest]) // 2
            low[top + 1, :], high[top + 1, :] = low[top], high[top]
            low[top + 1, widest], high[top, widest] = middle + 1, middle
            masks[top], masks[top + 1] = mask, mask
            waiting += 1
            continue
        waiting -= 1
        if found == room:
            places, numbers = np.concatenate((places, places)), np.concatenate((numbers, numbers))
            facts, alive = np.concatenate((facts, facts)), np.concatenate((alive, alive))
            room *= 2
        cycles = 1.0 / problem.chip.macs_per_cycle
        for d in range(8):
            places[found, d], numbers[found, d] = low[top, d], box[TILES, d]
            cycles *= box[STEPS, d]
        if curved:
            _exact_inputs(problem, split, start, low[top], box, traffic, exact)
        facts[found, :12], facts[found, 12], alive[found] = traffic, cycles, mask
        found += 1
    return RegisterTiles(
        places[:found], numbers[:found], facts[:found], alive[:found], lowest, shares, root
    )


@kernel
def _narrow(
    problem: Problem,
    pes: Ints,
    start: Ints,
    floor: Floor,
    best: float,
    blocks: PossibleBlocks,
    low: Ints,
    high: Ints,
    mask: int,
    box: Floats,
    traffic: Floats,
    s: Floats,
) -> int:
    """Takes off the ends of a box what cannot fit or win.

    Args:
        problem: layer, chip, goal and constraint.
        pes: of the split by loop, shape (8,).
        start: where each loop begins in the table of register tiles, shape (8,).
        floor: of the split.
        best: the value to beat.
        blocks: the buffer tiles that could win.
        low: the first tile of each loop; raised.
        high: the last tile of each loop; lowered.
        mask: combinations that may win.
        box: receives what the box has least of.
        traffic: receives the least traffic of the box, shape (12,).
        s: scratch.

    Returns:
        The combinations that may still win; 0 where the box is empty.
    """
    layer, chip, goal, table = problem.layer, problem.chip, problem.goal, problem.sizes.table
    least, dram, ragged = problem.least, problem.dram, problem.ragged
    keep_outer = problem.keep_outer
    while True:
        if not _lower_to_capacity(layer, chip, table, start, low, high, s):
            return 0
        for d in range(8):
            _set_loop(table, start[d] + low[d], start[d] + high[d], d, box)
        tile_traffic(layer, chip.multicast, least, pes, box, traffic)
        mask = _alive(
            chip,
            goal,
            ragged,
            least,
            dram,
            keep_outer,
            floor,
            best,
            blocks,
            mask,
            False,
            box,
            traffic,
        )
        if mask == 0:
            return 0
        raised = False
        for d in range(8):
            # Small tiles move most: the first one with which the best of the others could win.
            first, last, trial = low[d], high[d], low[d]
            while first < last:
                _set_loop(table, start[d] + low[d], start[d] + trial, d, box)
                tile_traffic(layer, chip.multicast, least, pes, box, traffic)
                if _alive(
                    chip,
                    goal,
                    ragged,
                    least,
                    dram,
                    keep_outer,
                    floor,
                    best,
                    blocks,
                    mask,
                    True,
                    box,
                    traffic,
                ):
                    last = trial
                else:
                    first = trial + 1
                trial = (first + last) // 2
            raised |= first > low[d]
            low[d] = first
            _set_loop(table, start[d] + low[d], start[d] + high[d], d, box)
        if not raised:
            return mask


@kernel
def _lower_to_capacity(
    layer: LayerRecord, chip: ChipRecord, table: Ints, start: Ints, low: Ints, high: Ints, s: Floats
) -> bool:
    """Lowers the ends of a box to what registers hold; False where they hold none of it."""
    for d in range(8):
        s[ct.TILE, d] = table[sz.TILE, start[d] + low[d]]
    if el.register_excess(layer, s, chip) > 0.0:
        return False
    for d in range(8):
        first, last = low[d], high[d]
        trial = last  # mostly all of them fit
        while first < last:
            s[ct.TILE, d] = table[sz.TILE, start[d] + trial]
            if el.register_excess(layer, s, chip) == 0.0:
                first = trial
            else:
                last = trial - 1
            trial = (first + last + 1) // 2
        high[d], s[ct.TILE, d] = first, table[sz.TILE, start[d] + low[d]]
    return True


@kernel
def _set_loop(table: Ints, low: int, high: int, d: int, box: Floats) -> None:
    """The fewest and most tiles, and the fewest PEs and steps, of one loop of a box."""
    box[TILES, d], box[MOST, d] = table[sz.TILES, high], table[sz.TILES, low]
    single = low == high
    box[ACTIVE, d] = table[sz.ACTIVE if single else sz.LEAST_ACTIVE, high]
    box[STEPS, d] = table[sz.STEPS if single else sz.LEAST_STEPS, high]


@kernel
def tile_traffic(
    layer: LayerRecord, multicast: bool, least: Floats, pes: Ints, box: Floats, out: Floats
) -> None:
    """(9), (10) Traffic of register tiles, refetched by every loop outside, or by none.

    Args:
        layer: the loops.
        multicast: False where every PE reads for itself.
        least: words of each tensor.
        pes: by loop.
        box: array tiles, and PEs with work summed over them, by loop.
        out: receives the columns of `bounds`, shape (12,).
    """
    tiles, active = box[TILES], box[ACTIVE]
    words, sent = input_words(layer, tiles), input_words(layer, active)
    images = tiles[N] * tiles[P] * tiles[Q]
    sums = tiles[C] * tiles[R] * tiles[S]
    images_sent = active[N] * active[P] * active[Q]
    sums_sent = active[C] * active[R] * active[S]
    out[bd.ARRAY_ONCE + W] = least[W]
    out[bd.ARRAY_ONCE + I] = words
    out[bd.ARRAY_ONCE + O] = least[O]
    out[bd.DELIVERED_ONCE + W] = least[W] * (pes[N] * pes[P] * pes[Q])
    out[bd.DELIVERED_ONCE + I] = sent * pes[K]
    out[bd.DELIVERED_ONCE + O] = least[O] * (pes[C] * pes[R] * pes[S])
    out[bd.ARRAY_FULL + W] = least[W] * images
    out[bd.ARRAY_FULL + I] = words * tiles[K]
    out[bd.ARRAY_FULL + O] = least[O] * sums
    out[bd.DELIVERED_FULL + W] = least[W] * images_sent
    out[bd.DELIVERED_FULL + I] = sent * active[K]
    out[bd.DELIVERED_FULL + O] = least[O] * sums_sent
    if not multicast:
        for tensor in range(2):
            out[bd.ARRAY_ONCE + tensor] = out[bd.DELIVERED_ONCE + tensor]
            out[bd.ARRAY_FULL + tensor] = out[bd.DELIVERED_FULL + tensor]


@kernel
def resting_share(keep: int, tiles: Floats, most: Floats) -> float:
    """The share of a tensor's traffic that ragged buffer tiles may leave in place.

    Where the last buffer tile of a loop holds a single array tile, nothing may move there, whatever
    the loop order. For the other two tensors all loops that do not move over `keep` have to be such
    loops; the share is largest if there is one of them, with three array tiles.

    Args:
        keep: the tensor that the buffer loops keep in place.
        tiles: array tiles by loop, the fewest.
        most: array tiles by loop, the most.
    """
    share = 0.0
    for d in range(8):
        if not ct.RELEVANCE[keep, d] and most[d] >= 3:
            share = max(share, 1.0 / max(tiles[d], 3))
    return share


@kernel
def _alive(
    chip: ChipRecord,
    goal: Goal,
    ragged: bool,
    least: Floats,
    dram_bits: Floats,
    keep_outer: int,
    floor: Floor,
    best: float,
    blocks: PossibleBlocks,
    mask: int,
    any_one: bool,
    box: Floats,
    traffic: Floats,
) -> int:
    """(16) to (19) The combinations with which register tiles of a box could win.

    Args:
        chip: the hardware.
        goal: what is minimised.
        ragged: whether tiles need not divide.
        least: words of each tensor.
        dram_bits: fewest bits over DRAM of each bypass.
        keep_outer: bits of the tensors that DRAM loops may keep in place.
        floor: of the split.
        best: the value to beat.
        blocks: the buffer tiles that could win.
        mask: the combinations that are asked for.
        any_one: whether one of them is enough.
        box: array tiles, PEs with work and steps by loop.
        traffic: as `tile_traffic`.
    """
    compute, alive, outputs = 1.0 / chip.macs_per_cycle, 0, least[O]
    for d in range(8):
        compute *= box[STEPS, d]
    compute = max(floor.cycles, compute)
    for keep in range(3):
        if not mask >> 8 * keep & 255:
            continue
        share = resting_share(keep, box[TILES], box[MOST]) if ragged else 0.0
        # Bits of each tensor, the energy of what its place does not change, and bits delivered;
        # the last two of the tensor in place, too.
        bits, inside, noc, own_inside, own_noc = (0.0, 0.0, 0.0), 0.0, 0.0, 0.0, 0.0
        for tensor in range(3):
            rest = 1.0 if tensor == keep else share
            words = traffic[bd.ARRAY_FULL + tensor]
            words += rest * (traffic[bd.ARRAY_ONCE + tensor] - words)
            sent = traffic[bd.DELIVERED_FULL + tensor]
            sent += rest * (traffic[bd.DELIVERED_ONCE + tensor] - sent)
            if tensor == O:
                moved = el.output_traffic(words, outputs, chip.output_bits, chip.sum_bits)
                delivered = (sent + words - outputs) * chip.sum_bits
                accessed = 2.0 * sent * chip.sum_bits
            else:
                moved, delivered = words * chip.bits[tensor], sent * chip.bits[tensor]
                accessed = delivered
            bits = (bits[1], bits[2], moved)
            energy = delivered * chip.noc_energy + accessed * chip.register_energy
            noc, inside = noc + delivered, inside + energy
            if tensor == keep:
                own_inside, own_noc = energy, delivered
        own_bits = bits[0] if keep == 0 else (bits[1] if keep == 1 else bits[2])
        for bypass in range(8):
            bit = 1 << 8 * keep + bypass
            if not mask & bit:
                continue
            past = (bits[0] if bypass & 1 else 0.0) + (bits[1] if bypass & 2 else 0.0)
            past += bits[2] if bypass & 4 else 0.0
            port = (0.0 if bypass & 1 else bits[0]) + (0.0 if bypass & 2 else bits[1])
            port += 0.0 if bypass & 4 else bits[2]
            part = Moved(floor.energy + inside, past, port, noc, compute)
            kept = dram_bits[bypass]
            if not _wins(chip, goal, best, part, kept * _both_sides(chip), kept, 0.0, 0.0):
                continue
            if blocks.known:
                # The tensor in place is among what the buffer tile decides.
                is_past = bypass >> keep & 1 > 0
                others = Moved(
                    floor.energy + inside - own_inside,
                    past - own_bits if is_past else past,
                    port if is_past else port - own_bits,
                    noc - own_noc,
                    compute,
                )
                if not _wins_with_block(
                    chip, goal, best, others, blocks, 8 * keep + bypass, box[MOST]
                ):
                    crossing = _crossing_bits(chip, least, keep, bypass, box[TILES])
                    energy = crossing * _both_sides(chip)
                    if not keep_outer >> keep & 1 or not _wins(
                        chip, goal, best, part, energy, crossing, 0.0, 0.0
                    ):
                        continue
            if any_one:
                return bit
            alive |= bit
    return alive


class Moved(NamedTuple):
    """What a register tile moves, of some tensors."""

    energy: float
    """Without that of the buffer and of DRAM."""
    past: float
    """Bits that bypass the buffer."""
    port: float
    """Bits over the buffer port."""
    noc: float
    """Bits over the network."""
    compute: float
    """Cycles."""


@kernel
def _both_sides(chip: ChipRecord) -> float:
    """Energy of a bit that moves from DRAM into the buffer, or back."""
    return float(chip.dram_energy + chip.buffer_energy)


@kernel
def _wins(
    chip: ChipRecord,
    goal: Goal,
    best: float,
    part: Moved,
    energy: float,
    dram_bits: float,
    port_bits: float,
    noc_bits: float,
) -> bool:
    """(19) Whether a register tile with what else has to move at least is better than the best.

    Args:
        chip: the hardware.
        goal: what is minimised.
        best: the value to beat.
        part: of the register tile.
        energy: of the rest.
        dram_bits: of the rest.
        port_bits: of the rest.
        noc_bits: of the rest.
    """
    energy += part.energy + part.past * chip.dram_energy + part.port * chip.buffer_energy
    cycles = max(
        max(part.compute, (dram_bits + part.past) / chip.dram_bits_per_cycle),
        max(
            (port_bits + part.port) / chip.buffer_bits_per_cycle,
            (noc_bits + part.noc) / chip.noc_bits_per_cycle,
        ),
    )
    return bool(bd.value_of(energy + cycles * chip.idle_energy, cycles, goal) < best)


@kernel
def _wins_with_block(
    chip: ChipRecord,
    goal: Goal,
    best: float,
    part: Moved,
    blocks: PossibleBlocks,
    row: int,
    most: Floats,
) -> bool:
    """Whether a register tile is better than the best with one of the buffer tiles.

    Args:
        chip: the hardware.
        goal: what is minimised.
        best: the value to beat.
        part: of the register tile, without the tensor in place.
        blocks: the buffer tiles.
        row: the combination.
        most: array tiles by loop, the most; there are at least as many as buffer tiles.
    """
    for block in range(blocks.first[row], blocks.first[row + 1]):
        together = True
        for d in range(8):
            together &= blocks.outer[block, d] <= most[d]
        across = blocks.across[block]
        if together and _wins(
            chip,
            goal,
            best,
            part,
            across[bd.ENERGY],
            across[bd.DRAM_BITS],
            across[bd.PORT_BITS],
            across[bd.NOC_BITS],
        ):
            return True
    return False


@kernel
def _crossing_bits(chip: ChipRecord, least: Floats, keep: int, bypass: int, tiles: Floats) -> float:
    """Fewest bits over DRAM where a tensor stays in the array across buffer tiles.

    The DRAM loops then refetch the other two, as `tile_pairs.search_crossing` says.

    Args:
        chip: the hardware.
        least: words of each tensor.
        keep: the tensor.
        bypass: bits of the tensors that bypass the buffer.
        tiles: array tiles by loop, the fewest.
    """
    bits = 0.0
    for tensor in range(3):
        if bypass >> tensor & 1:
            continue
        words = least[tensor]
        if tensor != keep:
            for d in range(8):
                if not ct.RELEVANCE[tensor, d]:
                    words *= tiles[d]
        if tensor == O:
            bits += el.output_traffic(words, least[O], chip.output_bits, chip.sum_bits)
        else:
            bits += words * chip.bits[tensor]
    return bits


@allocating_kernel
def _exact_inputs(
    problem: Problem,
    split: Split,
    start: Ints,
    index: Ints,
    box: Floats,
    out: Floats,
    s: Floats,
) -> None:
    """(7) Replaces the bound of input traffic by its count, where loops are curved.

    Args:
        problem: layer and chip.
        split: the spatial split.
        start: where each loop begins in the table of register tiles.
        index: of the register tile.
        box: its array tiles.
        out: its traffic; that of inputs is written.
        s: scratch.
    """
    code = np.ones(65, dtype=np.int64)
    for d in range(8):
        code[d] = problem.sizes.table[sz.TILE, start[d] + index[d]]
        code[ct.AXES + d], code[ct.BUFFER + d] = split.pes[d], np.int64(box[TILES, d])
        s[ct.PART, d] = ct.ALL
    ct.prepare(problem.layer, code, s)
    words = ct.moved_words(I, s, problem.layer, False) * problem.layer.copies[I]
    sent = ct.moved_words(I, s, problem.layer, True) * problem.layer.copies[I]
    out[bd.ARRAY_ONCE + I], out[bd.ARRAY_FULL + I] = words, words * box[TILES, K]
    out[bd.DELIVERED_ONCE + I] = sent * split.pes[K]
    out[bd.DELIVERED_FULL + I] = sent * s[ct.ALL_ACTIVE, K]
    if not problem.chip.multicast:
        out[bd.ARRAY_ONCE + I] = out[bd.DELIVERED_ONCE + I]
        out[bd.ARRAY_FULL + I] = out[bd.DELIVERED_FULL + I]
