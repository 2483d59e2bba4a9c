"""The tiles of one spatial split: which sizes matter, and which register tiles could win.

A loop of m rounds takes register tiles of any size F, so T = ceil(m / F) array tiles; T1 of them
make a buffer tile, of which there are T2 = ceil(T / T1). The last ones are ragged. With equal T a
smaller F leaves more room, so of the sizes with equal T those stay that have fewer steps, or fewer
PEs at work in the last array tile, than every smaller one. Where the sum of input rows over tiles
depends on their sizes (dilated outputs, strided kernels), all sizes stay.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np

from pliant.accelerator.mapper import bounds as bd
from pliant.accelerator.mapper.bounds import Floor, Goal
from pliant.accelerator.model import counts as ct
from pliant.accelerator.model import energy_latency as el
from pliant.accelerator.model.counts import (
    C,
    Floats,
    G,
    I,
    Ints,
    K,
    LayerRecord,
    N,
    O,
    P,
    Q,
    R,
    S,
    W,
    kernel,
)
from pliant.accelerator.model.energy_latency import ChipRecord


class Problem(NamedTuple):
    """What a search of one layer is asked for; the same for all splits."""

    layer: LayerRecord
    chip: ChipRecord
    goal: Goal
    """What is minimised."""
    orders: Ints
    """The loop order that keeps each tensor in place, one row each for W, I, O; shape (3, 8)."""
    keep_inner: int
    """Bits 1, 2, 4 of the tensors W, I, O that buffer loops may keep in place."""
    keep_outer: int
    """The same of the DRAM loops."""
    bypasses: int
    """Bit b set: the set of tensors with bits b may bypass the buffer."""
    least: Floats
    """Words of each tensor, shape (3,): what has to move at least once."""
    dram: Floats
    """Fewest bits over DRAM for each bypass, shape (8,), as `least_dram_bits`."""
    curved: Ints
    """1 for loops whose tile sizes change the sum of input rows even where as many; shape (8,)."""
    ragged: bool
    """Whether tiles need not divide; without, the search is a fast first guess."""


class Split(NamedTuple):
    """One spatial split, and the tile sizes of its loops; one row each, ascending."""

    pes: Ints
    """PEs by loop, shape (8,)."""
    rounds: Ints
    """Rounds of the array over each loop, shape (8,)."""
    counts: Ints
    """How many register tiles each row has, shape (8,)."""
    tile: Ints
    """Register tiles, shape (8, longest); the next three likewise."""
    tiles: Ints
    """Array tiles of the whole loop."""
    active: Ints
    """PEs with work, summed over the array tiles."""
    steps: Ints
    """(11) Steps of the first PE."""
    least_active: Ints
    """The least of `active` up to each tile."""
    least_steps: Ints
    """The least of `steps` up to each tile."""
    outer_counts: Ints
    """How many numbers of buffer tiles each row has, shape (8,)."""
    outer: Ints
    """Numbers of buffer tiles, shape (8, longest)."""


@kernel
def curved_loops(layer: LayerRecord) -> Ints:
    """Loops along which the sum of (1) over tiles depends on more than their number."""
    curved = np.zeros(8, dtype=np.int64)
    curved[P], curved[R] = layer.row_dilation > 1.0, layer.row_stride > 1.0
    curved[Q], curved[S] = layer.column_dilation > 1.0, layer.column_stride > 1.0
    return curved


@kernel
def make_split(problem: Problem, pes: Ints, rounds: Ints, s: Floats) -> Split:
    """The tile sizes of a split; register tiles that do not even fit alone are left out.

    Args:
        problem: layer, chip and constraint.
        pes: by loop, shape (8,).
        rounds: the same.
        s: scratch.
    """
    largest, counts = np.ones(8, dtype=np.int64), np.zeros(8, dtype=np.int64)
    s[ct.TILE, :] = 1.0
    width, depth = 1, 1
    for d in range(8):
        low, high = 0, rounds[d]  # the largest tile that fits alone, by bisection
        while low < high:
            middle = (low + high + 1) // 2
            s[ct.TILE, d] = middle
            if el.register_excess(problem.layer, s, problem.chip) == 0.0:
                low = middle
            else:
                high = middle - 1
        s[ct.TILE, d] = 1.0
        largest[d] = low
        width = max(width, low)
        depth = max(depth, 2 * int(np.sqrt(rounds[d])) + 2)
    sizes = np.empty((6, 8, width), dtype=np.int64)
    outer = np.empty((8, depth), dtype=np.int64)
    outer_counts = np.zeros(8, dtype=np.int64)
    for d in range(8):
        size = np.int64(problem.layer.sizes[d])
        counts[d] = _register_sizes(
            size, pes[d], rounds[d], largest[d], problem.curved[d], problem.ragged, sizes[:, d]
        )
        outer_counts[d] = _buffer_counts(rounds[d], problem.ragged, outer[d])
    return Split(
        pes,
        rounds,
        counts,
        sizes[0],
        sizes[1],
        sizes[2],
        sizes[3],
        sizes[4],
        sizes[5],
        outer_counts,
        outer,
    )


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
        out: receives tile, array tiles, active PEs and steps, and the least of the last two so
            far; shape (6, longest).

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
            out[0, found], out[1, found], out[2, found], out[3, found] = tile, tiles, active, steps
            before = max(found - 1, 0)
            out[4, found] = min(active, out[4, before]) if found else active
            out[5, found] = min(steps, out[5, before]) if found else steps
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
def _buffer_counts(rounds: int, ragged: bool, out: Ints) -> int:
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
def input_words(layer: LayerRecord, tiles: Ints) -> float:
    """(6), (7) Words of so many input tiles by loop, or a little less where loops are curved."""
    rows = _rows(
        layer.sizes[P], layer.sizes[R], tiles[P], tiles[R], layer.row_stride, layer.row_dilation
    )
    columns = _rows(
        layer.sizes[Q],
        layer.sizes[S],
        tiles[Q],
        tiles[S],
        layer.column_stride,
        layer.column_dilation,
    )
    words = layer.sizes[G] * layer.sizes[N] * layer.sizes[C] * layer.copies[I]
    return float(words * rows * columns)


@kernel
def _rows(
    outputs: float, kernel_rows: float, a: float, b: float, stride: float, dilation: float
) -> float:
    """Lower bound of (6) over a output tiles and b kernel tiles; exact where neither is curved.

    The overlaps sum to at most the product of both sums: of p - d over the output tiles and of
    r - s over the kernel tiles, each from 0 up. With d = 1 the first is outputs - a.
    """
    across = outputs - a if dilation == 1.0 else max(outputs - dilation, 0.0)
    along = kernel_rows - b if stride == 1.0 else max(kernel_rows - stride, 0.0)
    return outputs * kernel_rows - across * along


@kernel
def tile_traffic(problem: Problem, pes: Ints, tiles: Ints, active: Ints, out: Floats) -> None:
    """(9), (10) Traffic of register tiles, refetched by every loop outside, or by none.

    Args:
        problem: layer and chip.
        pes: by loop.
        tiles: array tiles by loop.
        active: PEs with work by loop, summed over the array tiles.
        out: receives the columns of `bounds`, shape (12,).
    """
    layer, least = problem.layer, problem.least
    words, sent = input_words(layer, tiles), input_words(layer, active)
    images = tiles[N] * tiles[P] * tiles[Q]
    sums = tiles[C] * tiles[R] * tiles[S]
    images_sent = float(active[N] * active[P] * active[Q])
    sums_sent = float(active[C] * active[R] * active[S])
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
    if not problem.chip.multicast:
        for tensor in range(2):
            out[bd.ARRAY_ONCE + tensor] = out[bd.DELIVERED_ONCE + tensor]
            out[bd.ARRAY_FULL + tensor] = out[bd.DELIVERED_FULL + tensor]


@kernel
def resting_share(problem: Problem, keep: int, tiles: Ints, unknown: int, rounds: Ints) -> float:
    """The share of a tensor's traffic that ragged buffer tiles may leave in place.

    Where the last buffer tile of a loop holds a single array tile, nothing may move there, whatever
    the loop order. For the other two tensors all loops that do not move over `keep` have to be such
    loops; the share is largest if there is one of them, with three array tiles.

    Args:
        problem: the constraint.
        keep: the tensor that the buffer loops keep in place.
        tiles: array tiles by loop.
        unknown: bits of loops of which `tiles` holds the fewest only.
        rounds: of the split.
    """
    share = 0.0
    if problem.ragged:
        for d in range(8):
            if not ct.RELEVANCE[keep, d]:
                if unknown >> d & 1:
                    if rounds[d] >= 3:
                        share = max(share, 1.0 / max(tiles[d], 3))
                elif tiles[d] >= 3:
                    share = max(share, 1.0 / tiles[d])
    return share


@kernel
def least_dram_bits(layer: LayerRecord, chip: ChipRecord, keep_outer: int, least: Floats) -> Floats:
    """(8), (15) Fewest bits over DRAM of the tensors that the buffer keeps, for each bypass.

    Over all buffer tiles that fit, of any extents, so it holds for every spatial split; infinite
    where none fits. Depth first as `split_search.buffer_tiles`.

    Args:
        layer: the loops.
        chip: the hardware.
        keep_outer: bits of the tensors that DRAM loops may keep in place.
        least: words of each tensor.

    Returns:
        Shape (8,).
    """
    s, fewest, longest = np.ones(ct.SCRATCH), np.full(8, np.inf), 1
    order, loops = np.empty(8, dtype=np.int64), 0
    for d in range(8):
        size = np.int64(layer.sizes[d])
        longest = max(longest, 2 * int(np.sqrt(size)) + 2)
        if size > 1:
            order[loops] = d
            loops += 1
    outer, counts = np.empty((8, longest), dtype=np.int64), np.ones(8, dtype=np.int64)
    for d in range(8):
        counts[d] = _buffer_counts(np.int64(layer.sizes[d]), True, outer[d])
    count, digit = np.ones(8, dtype=np.int64), np.zeros(9, dtype=np.int64)
    for bypass in range(8):
        depth, digit[0] = 0, 0
        count[:], s[ct.EXTENT, :] = 1, 1.0
        while depth >= 0:
            if depth == loops:
                bits, _ = dram_bits(layer, chip, keep_outer, least, bypass, count)
                fewest[bypass] = min(fewest[bypass], bits)
                depth -= 1
                continue
            d, index, grown = order[depth], digit[depth], False
            while index < counts[d] and not grown:
                count[d] = outer[d, index]
                s[ct.EXTENT, d] = np.ceil(layer.sizes[d] / count[d])
                index += 1
                if el.buffer_excess(layer, s, False, bypass, chip) == 0.0:
                    bits, _ = dram_bits(layer, chip, keep_outer, least, bypass, count)
                    if bits >= fewest[bypass]:
                        break
                    grown = True
            if grown:
                digit[depth] = index
                depth += 1
                digit[depth] = 0
                continue
            count[d], s[ct.EXTENT, d] = 1, 1.0
            depth -= 1
    return fewest


@kernel
def dram_bits(
    layer: LayerRecord,
    chip: ChipRecord,
    keep_outer: int,
    least: Floats,
    bypass: int,
    count: Ints,
) -> tuple[float, int]:
    """(8), (16) Bits between DRAM and the buffer for so many buffer tiles by loop.

    Returns:
        The bits, with the tensor in place that saves most, and that tensor.
    """
    bits, saved, kept = 0.0, -1.0, -1
    for tensor in range(3):
        again = 1.0
        for d in range(8):
            if not ct.RELEVANCE[tensor, d]:
                again *= count[d]
        words, more = least[tensor], 0.0
        if not bypass >> tensor & 1:
            if tensor == O:
                more = 2.0 * words * (again - 1.0) * chip.sum_bits
                bits += words * chip.output_bits + more
            else:
                if tensor == I:
                    words = input_words(layer, count)
                more = words * (again - 1.0) * chip.bits[tensor]
                bits += words * chip.bits[tensor] + more
        if keep_outer >> tensor & 1 and more > saved:
            saved, kept = more, tensor
    return bits - max(saved, 0.0), kept


@kernel
def _tensor_cost(
    problem: Problem, tensor: int, words: float, delivered: float, out: Floats
) -> None:
    """(16) to (18) Array traffic of a tensor: energy from the buffer, energy from DRAM, bits of it,
    and bits on the network; in that order in `out`, shape (4,)."""
    chip, outputs = problem.chip, problem.least[O]
    if tensor == O:
        bits = el.output_traffic(words, outputs, chip.output_bits, chip.sum_bits)
        noc, registers = (
            (delivered + words - outputs) * chip.sum_bits,
            2 * delivered * chip.sum_bits,
        )
    else:
        bits, noc = words * chip.bits[tensor], delivered * chip.bits[tensor]
        registers = noc
    inside = noc * chip.noc_energy + registers * chip.register_energy
    out[0], out[1] = bits * chip.buffer_energy + inside, bits * chip.dram_energy + inside
    out[2], out[3] = bits, noc


@kernel
def tile_bound(
    problem: Problem,
    split: Split,
    floor: Floor,
    tiles: Ints,
    active: Ints,
    steps: Ints,
    unknown: int,
    traffic: Floats,
    cost: Floats,
) -> float:
    """Least value of any mapping with these register tiles, or larger ones of the unknown loops.

    Args:
        problem: layer, chip and goal.
        split: the spatial split.
        floor: of the split.
        tiles: array tiles by loop, the fewest of the unknown loops.
        active: PEs with work, likewise.
        steps: likewise.
        unknown: bits of the loops that have no tile yet.
        traffic: receives the columns of `bounds`, shape (12,).
        cost: scratch of shape (3, 2, 4).
    """
    chip = problem.chip
    tile_traffic(problem, split.pes, tiles, active, traffic)
    compute = 1.0 / chip.macs_per_cycle
    for d in range(8):
        compute *= steps[d]
    for tensor in range(3):
        words, sent = traffic[bd.ARRAY_FULL + tensor], traffic[bd.DELIVERED_FULL + tensor]
        _tensor_cost(problem, tensor, words, sent, cost[tensor, 0])
        words, sent = traffic[bd.ARRAY_ONCE + tensor], traffic[bd.DELIVERED_ONCE + tensor]
        _tensor_cost(problem, tensor, words, sent, cost[tensor, 1])
    lowest = np.inf
    for keep in range(3):
        share = resting_share(problem, keep, tiles, unknown, split.rounds)
        for bypass in range(8):
            if not problem.bypasses >> bypass & 1 or np.isinf(problem.dram[bypass]):
                continue
            dram, port, noc = problem.dram[bypass], 0.0, 0.0
            energy = floor.energy + dram * (chip.dram_energy + chip.buffer_energy)
            for tensor in range(3):
                past = bypass >> tensor & 1
                rest = 1.0 if tensor == keep else share
                full, once = cost[tensor, 0], cost[tensor, 1]
                energy += full[past] + rest * (once[past] - full[past])
                bits = full[2] + rest * (once[2] - full[2])
                noc += full[3] + rest * (once[3] - full[3])
                if past:
                    dram += bits
                else:
                    port += bits
            cycles = max(
                max(compute, dram / chip.dram_bits_per_cycle),
                max(port / chip.buffer_bits_per_cycle, noc / chip.noc_bits_per_cycle),
            )
            value = bd.value_of(energy + cycles * chip.idle_energy, cycles, problem.goal)
            lowest = min(lowest, value)
    return lowest


@kernel
def _exact_inputs(
    problem: Problem, split: Split, tile: Ints, tiles: Ints, s: Floats, out: Floats
) -> None:
    """(7) Replaces the bound of input traffic by its count, where loops are curved."""
    code = np.ones(65, dtype=np.int64)
    for d in range(8):
        code[d], code[ct.AXES + d], code[ct.BUFFER + d] = tile[d], split.pes[d], tiles[d]
        s[ct.PART, d] = ct.ALL
    ct.prepare(problem.layer, code, s)
    words = ct.moved_words(I, s, problem.layer, False) * problem.layer.copies[I]
    sent = ct.moved_words(I, s, problem.layer, True) * problem.layer.copies[I]
    out[bd.ARRAY_ONCE + I], out[bd.ARRAY_FULL + I] = words, words * tiles[K]
    out[bd.DELIVERED_ONCE + I] = sent * split.pes[K]
    out[bd.DELIVERED_FULL + I] = sent * s[ct.ALL_ACTIVE, K]
    if not problem.chip.multicast:
        out[bd.ARRAY_ONCE + I] = out[bd.DELIVERED_ONCE + I]
        out[bd.ARRAY_FULL + I] = out[bd.DELIVERED_FULL + I]


@kernel
def register_tiles(
    problem: Problem, split: Split, floor: Floor, best: float, s: Floats
) -> tuple[Ints, Ints, Floats]:
    """The register tiles that fit and could win, and their traffic.

    Args:
        problem: layer, chip, goal and constraint.
        split: the spatial split.
        floor: of the split.
        best: the value to beat.
        s: scratch.

    Returns:
        Extents by loop, shape (tiles, 8); array tiles by loop, the same shape; the columns of
        `bounds` and the compute cycles, shape (tiles, 13).
    """
    chosen = np.ones((64, 8), dtype=np.int64)
    numbers, facts = np.ones((64, 8), dtype=np.int64), np.empty((64, 13))
    tiles, active = np.empty(8, dtype=np.int64), np.empty(8, dtype=np.int64)
    steps, tile = np.empty(8, dtype=np.int64), np.ones(8, dtype=np.int64)
    traffic, cost = np.empty(12), np.empty((3, 2, 4))
    curved, work = problem.curved.sum() > 0, np.empty(ct.SCRATCH)
    unknown, loops, order = 0, 0, np.empty(8, dtype=np.int64)
    # By depth and loop: the largest tile of a loop that still fits beside the tiles chosen so far.
    top = np.zeros((9, 8), dtype=np.int64)
    for d in (C, K, P, R, Q, S, G, N):
        if split.counts[d] == 0:
            return chosen[:0], numbers[:0], facts[:0]
        top[0, d] = split.counts[d] - 1
        if split.counts[d] > 1:
            unknown |= 1 << d
            order[loops] = d
            loops += 1
    s[ct.TILE, :] = 1.0
    _largest_left(problem, split, 255, top[0], tiles, active, steps, s)
    found, depth = 0, 0
    if tile_bound(problem, split, floor, tiles, active, steps, unknown, traffic, cost) >= best:
        return chosen[:0], numbers[:0], facts[:0]
    # Depth first over the loops, each through its tiles in ascending order, up to the largest that
    # fits beside those of the loops before.
    digit = np.zeros(9, dtype=np.int64)
    while depth >= 0:
        if depth == loops:
            if found == len(chosen):
                chosen = np.concatenate((chosen, chosen))
                numbers = np.concatenate((numbers, numbers))
                facts = np.concatenate((facts, facts))
            if curved:
                _exact_inputs(problem, split, tile, tiles, work, traffic)
            cycles = 1.0 / problem.chip.macs_per_cycle
            for d in range(8):
                chosen[found, d], numbers[found, d] = tile[d], tiles[d]
                cycles *= steps[d]
            facts[found, :12], facts[found, 12] = traffic, cycles
            found += 1
            depth -= 1
            continue
        d = order[depth]
        index = digit[depth]
        grown = False
        while index <= top[depth, d] and not grown:
            tile[d] = split.tile[d, index]
            s[ct.TILE, d] = tile[d]
            top[depth + 1, :] = top[depth]
            left = unknown & ~(1 << d)
            _largest_left(problem, split, left, top[depth + 1], tiles, active, steps, s)
            tiles[d], active[d] = split.tiles[d, index], split.active[d, index]
            steps[d] = split.steps[d, index]
            index += 1
            value = tile_bound(problem, split, floor, tiles, active, steps, left, traffic, cost)
            grown = value < best
        if grown:
            unknown &= ~(1 << d)
            digit[depth] = index
            depth += 1
            digit[depth] = 0
            continue
        s[ct.TILE, d], tile[d] = 1.0, 1
        unknown |= 1 << d
        depth -= 1
    return chosen[:found], numbers[:found], facts[:found]


@kernel
def _largest_left(
    problem: Problem,
    split: Split,
    left: int,
    top: Ints,
    tiles: Ints,
    active: Ints,
    steps: Ints,
    s: Floats,
) -> None:
    """The fewest tiles, PEs and steps of loops that have no tile yet, as far as registers allow.

    Args:
        problem: layer and chip.
        split: the spatial split.
        left: bits of those loops.
        top: index of the largest tile by loop; lowered to what fits beside the others.
        tiles: receives array tiles.
        active: receives PEs with work.
        steps: receives steps.
        s: scratch with the tiles chosen so far, 1 for the others.
    """
    for d in range(8):
        if left >> d & 1:
            index = top[d]
            while index > 0:
                s[ct.TILE, d] = split.tile[d, index]
                if el.register_excess(problem.layer, s, problem.chip) == 0.0:
                    break
                index -= 1
            s[ct.TILE, d] = 1.0
            top[d] = index
            tiles[d] = split.tiles[d, index]
            active[d], steps[d] = split.least_active[d, index], split.least_steps[d, index]
