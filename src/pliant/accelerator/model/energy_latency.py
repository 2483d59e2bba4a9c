"""From counts to energy, latency and capacity: the equations that know the chip, compiled.

Everything is in bits here: words of a tensor times its width, energies of one bit, capacities in
bits. Numbers in parentheses are those of docs/accelerator.md.
"""

from __future__ import annotations

import math
from functools import lru_cache
from typing import Any, Final

import numpy as np

from pliant.accelerator.chip import Chip, Memory
from pliant.accelerator.model.counts import (
    ARRAY_O,
    ARRAY_SUM_READS,
    ARRAY_W,
    CYCLES,
    DELIVERED_I,
    DELIVERED_O,
    DELIVERED_W,
    DRAM_O,
    DRAM_SUM_READS,
    DRAM_W,
    EXTENT,
    OPERATIONS,
    RELEVANCE,
    RESTORED,
    STARTED,
    TILE,
    TILES,
    C,
    Floats,
    G,
    I,
    LayerRecord,
    N,
    O,
    P,
    Q,
    R,
    S,
    W,
    distinct_rows,
)
from pliant.accelerator.model.kernels import kernel

ENERGY_PARTS: Final = ("mac", "register", "noc", "buffer", "dram", "idle")
TIME_PARTS: Final = ("compute", "dram", "buffer", "noc")
EXACT: Final = 2.0**53
"""Counts are refused from here on: float64 holds every whole number below."""


CHIP: Final = np.dtype(
    [
        ("bits", np.float64, 2),  # width of a weight and of an input
        ("output_bits", np.float64),  # width of a finished output
        ("sum_bits", np.float64),  # width of a partial sum
        # In the unit of the energy table: of one multiply-accumulate, of one bit, of one idle
        # cycle.
        ("mac_energy", np.float64),
        ("register_energy", np.float64),
        ("noc_energy", np.float64),
        ("buffer_energy", np.float64),
        ("dram_energy", np.float64),
        ("idle_energy", np.float64),
        ("dram_bits_per_cycle", np.float64),
        ("buffer_bits_per_cycle", np.float64),
        ("noc_bits_per_cycle", np.float64),
        ("macs_per_cycle", np.float64),  # of one PE
        # Bits for weights, inputs, outputs, and all together; infinite where not stated. Half of
        # the memory where it is double-buffered.
        ("register_capacity", np.float64, 4),
        ("buffer_capacity", np.float64, 4),
        ("multicast", np.bool_),  # whether a word for several PEs is read once
    ],
    align=True,
)
"""A chip as the kernels know it: a record, which is passed as one pointer."""
ChipRecord = Any
"""A record of `CHIP`."""


@lru_cache(maxsize=64)
def chip_record(chip: Chip) -> ChipRecord:
    """The record of a chip, its numbers converted to bits; nobody writes to it."""
    widths, table = chip.word_widths, chip.energy
    record = np.zeros(1, dtype=CHIP)[0]
    record["bits"] = widths.weight_bits, widths.input_bits
    record["output_bits"], record["sum_bits"] = widths.output_bits, widths.partial_sum_bits
    record["mac_energy"] = table.mac
    record["idle_energy"] = table.idle(chip.pes, chip.buffer.bandwidth_bytes_per_cycle)
    per_bit = 1.0 / table.word_bits
    register = table.register_access(chip.registers.total_bytes)
    record["register_energy"], record["noc_energy"] = register * per_bit, table.noc * per_bit
    record["buffer_energy"] = table.buffer_access(chip.buffer.total_bytes) * per_bit
    record["dram_energy"] = table.dram * per_bit
    record["dram_bits_per_cycle"] = 8 * chip.dram_bandwidth_bytes_per_cycle
    record["buffer_bits_per_cycle"] = 8 * chip.buffer.bandwidth_bytes_per_cycle
    record["noc_bits_per_cycle"] = 8 * chip.registers.bandwidth_bytes_per_cycle
    record["macs_per_cycle"] = chip.macs_per_pe_per_cycle
    record["register_capacity"] = _capacity_bits(chip.registers)
    record["buffer_capacity"] = _capacity_bits(chip.buffer)
    record["multicast"] = chip.multicast
    return record


def _capacity_bits(memory: Memory) -> list[float]:
    if memory.shared_bytes is not None:
        held = [math.inf, math.inf, math.inf, memory.shared_bytes]
    else:
        held = [memory.weight_bytes, memory.input_bytes, memory.output_bytes, math.inf]
    scale = 4.0 if memory.double_buffered else 8.0
    return [scale * size for size in held]


@kernel
def tile_words(tensor: int, s: Floats, row: int, layer: LayerRecord) -> float:
    """(12) Words of one tile.

    Args:
        tensor: W, I or O.
        s: scratch of `counts.prepare`.
        row: of the scratch, with the extents of the tile.
        layer: the loops.
    """
    words = layer.copies[tensor]
    if tensor == I:
        rows = distinct_rows(s[row, P], s[row, R], layer.row_stride, layer.row_dilation)
        columns = distinct_rows(s[row, Q], s[row, S], layer.column_stride, layer.column_dilation)
        return float(s[row, G] * s[row, N] * s[row, C] * rows * columns * words)
    for d in range(8):
        if RELEVANCE[tensor, d]:
            words *= s[row, d]
    return float(words)


@kernel
def excess_bits(
    weights: float, inputs: float, outputs: float, capacity: Floats | tuple[float, ...]
) -> float:
    """(13) Bits by which three tiles exceed a memory; 0 where they fit.

    Args:
        weights: bits of the tile.
        inputs: bits of the tile.
        outputs: bits of the tile.
        capacity: bits as `register_capacity` of `CHIP`, or the same four numbers as a tuple.
    """
    over = max(weights - capacity[W], inputs - capacity[I], outputs - capacity[O])
    return float(max(over, weights + inputs + outputs - capacity[3], 0.0))


@kernel
def register_excess(layer: LayerRecord, s: Floats, chip: ChipRecord) -> float:
    """(14) Bits by which a PE's tile exceeds its registers; sums are kept at their full width.

    An element-wise layer reads its inputs one after the other, so that one of them is there.
    """
    weights = tile_words(W, s, TILE, layer) * chip.bits[W]
    inputs = tile_words(I, s, TILE, layer) * chip.bits[I] / layer.copies[I]
    sums = tile_words(O, s, TILE, layer) * chip.sum_bits
    return excess_bits(weights, inputs, sums, chip.register_capacity)


@kernel
def words_excess_buffer(
    weights: float, inputs: float, outputs: float, partial: bool, bypass: int, chip: ChipRecord
) -> float:
    """(15) Bits by which tiles of so many words exceed the buffer.

    Args:
        weights: words of the buffer tile.
        inputs: words of the buffer tile.
        outputs: words of the buffer tile.
        partial: whether sums wait in the buffer, at full width (`reduction_is_partial`).
        bypass: bits 1, 2, 4 of the tensors W, I, O that are not kept there.
        chip: the hardware.
    """
    w = 0.0 if bypass & 1 else weights * chip.bits[W]
    i = 0.0 if bypass & 2 else inputs * chip.bits[I]
    o = 0.0 if bypass & 4 else outputs * (chip.sum_bits if partial else chip.output_bits)
    return excess_bits(w, i, o, chip.buffer_capacity)


@kernel
def buffer_excess(
    layer: LayerRecord, s: Floats, partial: bool, bypass: int, chip: ChipRecord
) -> float:
    """(15) Bits by which the buffer tile of a mapping exceeds the buffer.

    Args:
        layer: the loops.
        s: scratch of `counts.prepare`.
        partial: as `words_excess_buffer`.
        bypass: as `words_excess_buffer`.
        chip: the hardware.
    """
    weights, inputs = tile_words(W, s, EXTENT, layer), tile_words(I, s, EXTENT, layer)
    outputs = tile_words(O, s, EXTENT, layer)
    return words_excess_buffer(weights, inputs, outputs, partial, bypass, chip)


@kernel
def reduction_is_partial(s: Floats) -> bool:
    """(15) Whether the sum of an output is spread over several array tiles."""
    return bool(s[TILES, C] > 1.0 or s[TILES, R] > 1.0 or s[TILES, S] > 1.0)


@kernel
def output_traffic(words: float, outputs: float, output_bits: float, sum_bits: float) -> float:
    """(16) Bits of output traffic where `words` leave, `outputs` of them finished.

    Finished outputs move once at their width, partial sums out and back at theirs.
    """
    return float(outputs * output_bits + 2.0 * (words - outputs) * sum_bits)


@kernel
def output_crossing(words: float, sum_reads: float, chip: ChipRecord) -> float:
    """(16) The same for the counts of one interface: words that leave, and sums that come back."""
    return output_traffic(words, words - sum_reads, chip.output_bits, chip.sum_bits)


@kernel
def bits_moved(counts: Floats, bypass: int, chip: ChipRecord) -> tuple[float, float, float, float]:
    """(17) Bits over DRAM, the buffer port and the network, and bits accessed in the buffer.

    The buffer is accessed on both sides: by its port, and by DRAM for the tensors that it keeps.
    """
    dram, port, kept = 0.0, 0.0, 0.0
    for tensor in range(2):
        crossing = counts[DRAM_W + tensor] * chip.bits[tensor]
        dram += crossing
        if not bypass >> tensor & 1:
            port += counts[ARRAY_W + tensor] * chip.bits[tensor]
            kept += crossing
    crossing = output_crossing(counts[DRAM_O], counts[DRAM_SUM_READS], chip)
    dram += crossing
    if not bypass & 4:
        port += output_crossing(counts[ARRAY_O], counts[ARRAY_SUM_READS], chip)
        kept += crossing
    sums = (counts[DELIVERED_O] + counts[ARRAY_SUM_READS]) * chip.sum_bits
    return dram, port, _loads(counts, chip) + sums, port + kept


@kernel
def _loads(counts: Floats, chip: ChipRecord) -> float:
    """Bits of weights and inputs delivered to the PEs."""
    return float(counts[DELIVERED_W] * chip.bits[W] + counts[DELIVERED_I] * chip.bits[I])


@kernel
def times(
    counts: Floats, moved: tuple[float, float, float, float], chip: ChipRecord, out: Floats
) -> None:
    """(17) Cycles of compute, DRAM, buffer port and network, each as if alone.

    Args:
        counts: as `counts.count`.
        moved: as `bits_moved`.
        chip: the hardware.
        out: receives `TIME_PARTS`.
    """
    out[0] = counts[CYCLES] / chip.macs_per_cycle
    out[1] = moved[0] / chip.dram_bits_per_cycle
    out[2] = moved[1] / chip.buffer_bits_per_cycle
    out[3] = moved[2] / chip.noc_bits_per_cycle


@kernel
def energies(
    counts: Floats,
    moved: tuple[float, float, float, float],
    layer: LayerRecord,
    cycles: float,
    chip: ChipRecord,
    out: Floats,
) -> None:
    """(18) Energy of multiply-accumulates, registers, network, buffer, DRAM and idling.

    Args:
        counts: as `counts.count`.
        moved: as `bits_moved`.
        layer: the loops.
        cycles: of the layer, for the idle energy.
        chip: the hardware.
        out: receives `ENERGY_PARTS`.
    """
    operations = counts[OPERATIONS]
    # Each operation reads a weight, an input and a sum, and writes the sum; a first sum is not
    # read.
    operands = operations * (chip.bits[W] * layer.copies[W] + chip.bits[I] * layer.copies[I])
    sums = 2.0 * operations - counts[STARTED] + counts[RESTORED] + counts[DELIVERED_O]
    registers = operands + sums * chip.sum_bits + _loads(counts, chip)
    out[0] = operations * chip.mac_energy
    out[1] = registers * chip.register_energy
    out[2] = moved[2] * chip.noc_energy
    out[3] = moved[3] * chip.buffer_energy
    out[4] = moved[0] * chip.dram_energy
    out[5] = cycles * chip.idle_energy


@kernel
def total_energy_and_cycles(
    counts: Floats, layer: LayerRecord, bypass: int, chip: ChipRecord, parts: Floats
) -> tuple[float, float]:
    """(19) Energy and roofline cycles: the slowest of compute and the three links, overlapped.

    Args:
        counts: as `counts.count`.
        layer: the loops.
        bypass: bits of the tensors that bypass the buffer.
        chip: the hardware.
        parts: scratch of six numbers.
    """
    moved = bits_moved(counts, bypass, chip)
    times(counts, moved, chip, parts)
    cycles = max(parts[0], parts[1], parts[2], parts[3])
    energies(counts, moved, layer, cycles, chip, parts)
    return parts[0] + parts[1] + parts[2] + parts[3] + parts[4] + parts[5], cycles
