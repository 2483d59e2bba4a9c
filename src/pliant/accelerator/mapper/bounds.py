"""What tiles cost before all of a mapping is known: the bounds of the mapper, compiled with Numba.

With the spatial split fixed, energy is a sum of a part that depends on the register tile alone and
a part that depends on the buffer tile alone (docs/accelerator.md derives it). This module lists
both kinds of tiles, states what each costs on its own, and adds the two to a lower bound. What a
mapping really costs is asked of the tested model (`exact_value`), so a bound can cost time, never
truth.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np

from pliant.accelerator.model import counts as ct
from pliant.accelerator.model import energy_latency as el
from pliant.accelerator.model.counts import Floats, Ints, LayerRecord, O, kernel
from pliant.accelerator.model.energy_latency import ChipRecord

# Columns of a list of register tiles, three each for W, I, O: traffic of a tensor if every loop
# outside refetches its array tiles, and if none does; at the array, and summed over the PEs.
ARRAY_FULL, DELIVERED_FULL, ARRAY_ONCE, DELIVERED_ONCE = 0, 3, 6, 9
# Columns of a list of buffer tiles, three each for W, I, O: DRAM words if refetched, words of one
# tile, refetches of the array tiles by the DRAM loops, and the same summed over the active PEs.
DRAM_FULL, TILE_WORDS, REPEATS, ACTIVE = 0, 3, 6, 9
# Columns of every cost that is added up: energy, then bits on DRAM, buffer port and network.
ENERGY, DRAM_BITS, PORT_BITS, NOC_BITS = 0, 1, 2, 3


class Split(NamedTuple):
    """One spatial split: how a layer is spread over the array."""

    pes: Ints
    """PEs by loop, shape (8,)."""
    rounds: Ints
    """Rounds of the array over each loop, shape (8,)."""
    divisors: Ints
    """Of the rounds, ascending, one row for each loop; shape (8, longest)."""
    divisor_counts: Ints
    """How many divisors each row has, shape (8,)."""


class Floor(NamedTuple):
    """What no mapping of a split can go below."""

    energy: float
    """Of the arithmetic and its operands."""
    cycles: float
    """Of compute."""


class Scratch(NamedTuple):
    """Work space of the model's equations."""

    s: Floats
    """Extents, shape `counts.SCRATCH`."""
    counts: Floats
    """Shape (15,)."""
    parts: Floats
    """Shape (6,)."""


@kernel
def make_split(pes: Ints, rounds: Ints) -> Split:
    """A split with the divisors of its rounds, found by trial up to their square root."""
    counts, longest = np.zeros(8, dtype=np.int64), 1
    for d in range(8):
        k = 1
        while k * k <= rounds[d]:
            if rounds[d] % k == 0:
                counts[d] += 1 if k * k == rounds[d] else 2
            k += 1
        longest = max(longest, counts[d])
    divisors = np.ones((8, longest), dtype=np.int64)
    for d in range(8):
        found, k = 0, 1
        while k * k <= rounds[d]:
            if rounds[d] % k == 0:
                divisors[d, found] = k
                divisors[d, counts[d] - 1 - found] = rounds[d] // k
                found += 1
            k += 1
    return Split(pes, rounds, divisors, counts)


Powers = tuple[float, float]
"""Of energy and of cycles in the objective."""


@kernel
def objective(energy: float, cycles: float, powers: Powers) -> float:
    """What is minimised: energy^a cycles^b."""
    if powers[0] == 1.0 and powers[1] == 1.0:
        return energy * cycles
    return float(energy ** powers[0] * cycles ** powers[1])


@kernel
def split_code(pes: Ints) -> Ints:
    """The code of a mapping of which only the spatial split is known."""
    code = np.ones(65, dtype=np.int64)
    code[ct.BYPASS] = 0
    for d in range(8):
        code[ct.AXES + d] = pes[d]
    return code


@kernel
def register_tiles(
    layer: LayerRecord, chip: ChipRecord, split: Split, s: Floats
) -> tuple[Ints, Floats]:
    """Every register tile that fits, and its traffic.

    Args:
        layer: the loops.
        chip: the hardware.
        split: the spatial split.
        s: scratch of `counts.prepare`.

    Returns:
        Extents by loop, shape (tiles, 8), and the columns above, shape (tiles, 12).
    """
    tiles, traffic = np.ones((256, 8), dtype=np.int64), np.empty((256, 12))
    code = split_code(split.pes)
    digit = np.zeros(8, dtype=np.int64)
    found, depth = 0, 0
    for d in range(8):
        s[ct.TILE, d] = 1.0
    # Depth first over the loops, each through its divisors in ascending order. A tile that does not
    # fit is not grown: neither along later loops, nor further along this one.
    while depth >= 0:
        if depth == 8:
            if found == len(tiles):
                tiles, traffic = np.concatenate((tiles, tiles)), np.concatenate((traffic, traffic))
            for d in range(8):
                tile = split.divisors[d, digit[d]]
                tiles[found, d] = code[d] = tile
                code[ct.BUFFER + d], code[ct.DRAM + d] = split.rounds[d] // tile, 1
            _tile_traffic(layer, code, chip.multicast, s, traffic[found])
            found += 1
            depth -= 1
            digit[depth] += 1
            continue
        if digit[depth] < split.divisor_counts[depth]:
            s[ct.TILE, depth] = split.divisors[depth, digit[depth]]
            for d in range(depth + 1, 8):
                s[ct.TILE, d] = 1.0
            if el.register_excess(layer, s, chip) == 0.0:
                depth += 1
                if depth < 8:
                    digit[depth] = 0
                continue
        s[ct.TILE, depth] = 1.0
        depth -= 1
        if depth >= 0:
            digit[depth] += 1
    return tiles[:found], traffic[:found]


@kernel
def _tile_traffic(layer: LayerRecord, code: Ints, multicast: bool, s: Floats, out: Floats) -> None:
    """Traffic of one register tile, refetched by every loop outside, or by none."""
    ct.prepare(layer, code, s)
    for d in range(8):
        s[ct.PART, d] = ct.ALL
    for tensor in range(3):
        words = ct.moved_words(tensor, s, layer, False)
        delivered = ct.moved_words(tensor, s, layer, True)
        full, full_delivered, once_delivered = words, delivered, delivered
        for d in range(8):
            if not ct.RELEVANCE[tensor, d]:
                full *= s[ct.TILES, d]
                full_delivered *= s[ct.ALL_ACTIVE, d]
                once_delivered *= s[ct.PES, d]
        if not multicast and tensor != O:
            full, words = full_delivered, once_delivered
        copies = layer.copies[tensor]
        out[ARRAY_FULL + tensor] = full * copies
        out[DELIVERED_FULL + tensor] = full_delivered * copies
        out[ARRAY_ONCE + tensor] = words * copies
        out[DELIVERED_ONCE + tensor] = once_delivered * copies


@kernel
def buffer_tiles(layer: LayerRecord, split: Split, s: Floats) -> tuple[Ints, Floats]:
    """Every number of buffer tiles by loop, and what follows from it.

    Args:
        layer: the loops.
        split: the spatial split.
        s: scratch of `counts.prepare`.

    Returns:
        Bounds of the DRAM loops, shape (tiles, 8), and the columns above, shape (tiles, 12).
    """
    total = 1
    for d in range(8):
        total *= split.divisor_counts[d]
    outer, facts = np.empty((total, 8), dtype=np.int64), np.empty((total, 12))
    digit = np.zeros(8, dtype=np.int64)
    code = split_code(split.pes)
    for row in range(total):
        for d in range(8):
            dram = split.divisors[d, digit[d]]
            outer[row, d] = code[ct.DRAM + d] = dram
            code[d] = split.rounds[d] // dram
        # The whole buffer tile as one register tile has the same extents, and the fewest active PEs
        # in the last one.
        ct.prepare(layer, code, s)
        _block_facts(layer, s, facts[row])
        for d in range(7, -1, -1):  # count on, the last loop fastest
            digit[d] += 1
            if digit[d] < split.divisor_counts[d]:
                break
            digit[d] = 0
    return outer, facts


@kernel
def _block_facts(layer: LayerRecord, s: Floats, out: Floats) -> None:
    for tensor in range(3):
        words, repeats, active = ct.block_words(tensor, s, layer), 1.0, 1.0
        for d in range(8):
            if not ct.RELEVANCE[tensor, d]:
                repeats *= s[ct.OUTER, d]
                active *= s[ct.BLOCK_ACTIVE, d]
        out[DRAM_FULL + tensor] = words * repeats * layer.copies[tensor]
        out[REPEATS + tensor], out[ACTIVE + tensor] = repeats, active
        out[TILE_WORDS + tensor] = el.tile_words(tensor, s, ct.EXTENT, layer)


@kernel
def add_array(
    tensor: int,
    words: float,
    delivered: float,
    outputs: float,
    bypassed: bool,
    chip: ChipRecord,
    out: Floats,
) -> None:
    """(16) to (18) Adds the cost of traffic between the array and the buffer (or DRAM).

    Args:
        tensor: W, I or O.
        words: into, or for outputs out of, the array.
        delivered: the same summed over the PEs.
        outputs: words of the output tensor.
        bypassed: whether the tensor goes past the buffer.
        chip: the hardware.
        out: energy and bits by the columns above.
    """
    if tensor == O:
        bits = el.output_traffic(words, outputs, chip.output_bits, chip.sum_bits)
        noc = (delivered + words - outputs) * chip.sum_bits
        # An accumulator is read when it leaves and written when it comes back; those that begin at
        # zero are in `constant_energy`.
        registers = 2.0 * delivered * chip.sum_bits
    else:
        bits, noc = words * chip.bits[tensor], delivered * chip.bits[tensor]
        registers = noc
    per_bit = chip.dram_energy if bypassed else chip.buffer_energy
    out[ENERGY] += bits * per_bit + noc * chip.noc_energy + registers * chip.register_energy
    out[DRAM_BITS] += bits if bypassed else 0.0
    out[PORT_BITS] += 0.0 if bypassed else bits
    out[NOC_BITS] += noc


@kernel
def add_dram(tensor: int, words: float, outputs: float, chip: ChipRecord, out: Floats) -> None:
    """(16) to (18) Adds the cost of traffic between the buffer and DRAM; as `add_array`."""
    bits = (
        el.output_traffic(words, outputs, chip.output_bits, chip.sum_bits)
        if tensor == O
        else words * chip.bits[tensor]
    )
    out[ENERGY] += bits * (chip.dram_energy + chip.buffer_energy)
    out[DRAM_BITS] += bits


@kernel
def constant_energy(layer: LayerRecord, pes: Ints, chip: ChipRecord) -> float:
    """(18) Energy that no mapping of a split changes: operations and their operands.

    Args:
        layer: the loops.
        pes: by loop, shape (8,).
        chip: the hardware.
    """
    operations, started = 1.0, 1.0
    for d in range(8):
        operations *= layer.sizes[d]
        started *= layer.sizes[d] if ct.RELEVANCE[O, d] else pes[d]
    operands = chip.bits[ct.W] * layer.copies[ct.W] + chip.bits[ct.I] * layer.copies[ct.I]
    bits = operations * operands + 2.0 * (operations - started) * chip.sum_bits
    return float(operations * chip.mac_energy + bits * chip.register_energy)


@kernel
def bound(floor: Floor, a: Floats, b: Floats, chip: ChipRecord, powers: Powers) -> float:
    """(19) Least value of any mapping whose energies and bits are at least the sum of two parts.

    Args:
        floor: of the split.
        a: energy and bits by the columns above, shape (4,).
        b: the same.
        chip: the hardware.
        powers: of the objective.
    """
    cycles = max(
        floor.cycles,
        (a[DRAM_BITS] + b[DRAM_BITS]) / chip.dram_bits_per_cycle,
        (a[PORT_BITS] + b[PORT_BITS]) / chip.buffer_bits_per_cycle,
        (a[NOC_BITS] + b[NOC_BITS]) / chip.noc_bits_per_cycle,
    )
    energy = floor.energy + a[ENERGY] + b[ENERGY] + cycles * chip.idle_energy
    return objective(energy, cycles, powers)


@kernel
def fits_buffer(facts: Floats, partial: bool, bypass: int, chip: ChipRecord) -> bool:
    """(15) Whether a buffer tile fits.

    Args:
        facts: of the buffer tile, the columns above.
        partial: whether sums wait in the buffer, at full width.
        bypass: bits of the tensors that bypass it.
        chip: the hardware.
    """
    w, i, o = facts[TILE_WORDS], facts[TILE_WORDS + 1], facts[TILE_WORDS + 2]
    return bool(el.words_excess_buffer(w, i, o, partial, bypass, chip) == 0.0)


@kernel
def set_tiles(code: Ints, split: Split, tile: Ints, outer: Ints) -> None:
    """Writes the factors of a mapping into its code.

    Args:
        code: of a mapping.
        split: the spatial split.
        tile: register tile by loop.
        outer: buffer tiles by loop.
    """
    for d in range(8):
        code[d], code[ct.DRAM + d] = tile[d], outer[d]
        code[ct.AXES + d], code[ct.AXES + 8 + d], code[ct.AXES + 16 + d] = split.pes[d], 1, 1
        code[ct.BUFFER + d] = split.rounds[d] // (tile[d] * outer[d])


@kernel
def exact_value(
    layer: LayerRecord, chip: ChipRecord, code: Ints, powers: Powers, work: Scratch
) -> float:
    """What a mapping really costs, infinity where it does not fit.

    Args:
        layer: the loops.
        chip: the hardware.
        code: as `Mapping.encode`.
        powers: of the objective.
        work: scratch.
    """
    s, counts = work.s, work.counts
    ct.count(layer, code, chip.multicast, counts, s)
    bypass = code[ct.BYPASS]
    over = el.register_excess(layer, s, chip)
    over += el.buffer_excess(layer, s, el.reduction_is_partial(s), bypass, chip)
    if over > 0.0:
        return float(np.inf)
    energy, cycles = el.total_energy_and_cycles(counts, layer, bypass, chip, work.parts)
    return objective(energy, cycles, powers)
