"""From counts to energy, cycles and capacity: the equations that know the chip, compiled with Numba.

A chip is a vector of floats here (`chip_vector`), a layer the twelve integers of `counts.layer_vector`.
"""

from __future__ import annotations

import math
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from pliant.accelerator.chip import Chip, Memory
from pliant.accelerator.model.counts import (
    ARRAY_BACK,
    ARRAY_OUT,
    ARRAY_W,
    CYCLES,
    DRAM_BACK,
    DRAM_OUT,
    DRAM_W,
    EXTENT,
    OPS,
    RELEVANCE,
    RESTORED,
    SENT_I,
    SENT_O,
    SENT_W,
    STARTED,
    TILE,
    TILES,
    C,
    G,
    I,
    N,
    O,
    P,
    Q,
    R,
    S,
    distinct_rows,
    kernel,
)

# The chip's vector.
(BITS_W, BITS_I, BITS_O, BITS_SUM, E_MAC, E_REGISTER, E_NOC, E_BUFFER, E_DRAM, E_IDLE) = range(10)
(BW_DRAM, BW_BUFFER, BW_NOC, RATE, REG_W, REG_I, REG_O, REG_ALL, BUF_W, BUF_I, BUF_O, BUF_ALL) = (
    range(10, 22)
)
ENERGY_PARTS: Final = ("mac", "register", "noc", "buffer", "dram", "idle")
TIME_PARTS: Final = ("compute", "dram", "buffer", "noc")
EXACT: Final = 2.0**53
"""Counts are refused above this: float64 holds every whole number up to here."""


def chip_vector(chip: Chip) -> NDArray[np.float64]:
    """The numbers of a chip in the order of the kernels; energies a bit, capacities in bits of single-buffered tiles."""
    words, table = chip.words, chip.energy
    per_bit = 1.0 / table.word_bits
    energies = [table.register, table.noc, table.buffer_access(chip.buffer.total_bytes), table.dram]
    return np.array(
        [
            words.weight_bits,
            words.input_bits,
            words.output_bits,
            words.partial_sum_bits,
            table.mac,
            *(energy * per_bit for energy in energies),
            table.idle_per_cycle,
            8 * chip.dram_bandwidth_bytes_per_cycle,
            8 * chip.buffer.bandwidth_bytes_per_cycle,
            8 * chip.registers.bandwidth_bytes_per_cycle,
            chip.macs_per_element_per_cycle,
            *_capacity_bits(chip.registers),
            *_capacity_bits(chip.buffer),
        ],
        dtype=np.float64,
    )


def _capacity_bits(memory: Memory) -> list[float]:
    scale = 4.0 if memory.double_buffered else 8.0
    if memory.shared_bytes is not None:
        return [math.inf, math.inf, math.inf, scale * memory.shared_bytes]
    return [
        scale * memory.weight_bytes,
        scale * memory.input_bytes,
        scale * memory.output_bytes,
        math.inf,
    ]


@kernel
def tile_words(tensor: int, s: Any, row: int, layer: Any) -> float:
    """(12) Words of one tile."""
    if tensor == I:
        stride, dilation = float(layer[8]), float(layer[9])
        rows = distinct_rows(s[row, P], s[row, R], stride, dilation)
        columns = distinct_rows(s[row, Q], s[row, S], stride, dilation)
        return float(s[row, G] * s[row, N] * s[row, C] * rows * columns * layer[11])
    words = 1.0
    for d in range(8):
        if RELEVANCE[tensor, d]:
            words *= s[row, d]
    return words * layer[10] if tensor == 0 else words


@kernel
def excess_bits(tile_w: float, tile_i: float, tile_o: float, chip: Any, first: int) -> float:
    """(13) Bits by which three tiles exceed a memory, whose capacities start at `first` of the chip's vector; 0 where they fit."""
    over = max(tile_w - chip[first], tile_i - chip[first + 1], tile_o - chip[first + 2])
    return float(max(over, tile_w + tile_i + tile_o - chip[first + 3], 0.0))


@kernel
def register_excess(layer: Any, s: Any, chip: Any) -> float:
    """(14) Bits by which an element's tile exceeds its registers; sums are kept at their full width."""
    w = tile_words(0, s, TILE, layer) * chip[BITS_W]
    i = tile_words(I, s, TILE, layer) * chip[BITS_I]
    return excess_bits(w, i, tile_words(O, s, TILE, layer) * chip[BITS_SUM], chip, REG_W)


@kernel
def buffer_excess(layer: Any, s: Any, partial: bool, bypass: int, chip: Any) -> float:
    """(15) Bits by which a buffer tile exceeds the buffer.

    Args:
        layer: as `counts.layer_vector`.
        s: scratch of `counts.prepare`.
        partial: whether the reduction is spread over several array tiles, so that sums wait in the buffer at full width.
        bypass: bits of the tensors that are not kept there.
        chip: as `chip_vector`.
    """
    w = 0.0 if bypass & 1 else tile_words(0, s, EXTENT, layer) * chip[BITS_W]
    i = 0.0 if bypass & 2 else tile_words(I, s, EXTENT, layer) * chip[BITS_I]
    o = (
        0.0
        if bypass & 4
        else tile_words(O, s, EXTENT, layer) * (chip[BITS_SUM] if partial else chip[BITS_O])
    )
    return excess_bits(w, i, o, chip, BUF_W)


@kernel
def output_bits(out: float, back: float, chip: Any) -> float:
    """(16) Bits of output traffic: finished outputs at their width, partial sums at theirs, both ways."""
    return float((out - back) * chip[BITS_O] + 2.0 * back * chip[BITS_SUM])


@kernel
def times(counts: Any, bypass: int, chip: Any, out: Any) -> None:
    """(17) Cycles of compute, DRAM, buffer port and network, each as if alone."""
    dram = (
        counts[DRAM_W] * chip[BITS_W]
        + counts[DRAM_W + 1] * chip[BITS_I]
        + output_bits(counts[DRAM_OUT], counts[DRAM_BACK], chip)
    )
    port = 0.0
    for tensor in range(2):
        if not bypass >> tensor & 1:
            port += counts[ARRAY_W + tensor] * chip[BITS_W + tensor]
    if not bypass & 4:
        port += output_bits(counts[ARRAY_OUT], counts[ARRAY_BACK], chip)
    sent = (
        counts[SENT_W] * chip[BITS_W]
        + counts[SENT_I] * chip[BITS_I]
        + (counts[SENT_O] + counts[ARRAY_BACK]) * chip[BITS_SUM]
    )
    out[0], out[1], out[2], out[3] = (
        counts[CYCLES] / chip[RATE],
        dram / chip[BW_DRAM],
        port / chip[BW_BUFFER],
        sent / chip[BW_NOC],
    )


@kernel
def energies(counts: Any, layer: Any, bypass: int, cycles: float, chip: Any, out: Any) -> None:
    """(18) Energy of multiply-accumulates, registers, network, buffer, DRAM and idling."""
    w, i, sums = chip[BITS_W], chip[BITS_I], chip[BITS_SUM]
    operations = counts[OPS]
    out[0] = operations * chip[E_MAC]
    register = (
        operations * (w * layer[10] + i * layer[11])
        + (2.0 * operations - counts[STARTED] + counts[RESTORED] + counts[SENT_O]) * sums
    )
    out[1] = (register + counts[SENT_W] * w + counts[SENT_I] * i) * chip[E_REGISTER]
    out[2] = (
        counts[SENT_W] * w + counts[SENT_I] * i + (counts[SENT_O] + counts[ARRAY_BACK]) * sums
    ) * chip[E_NOC]
    buffer = 0.0
    for tensor in range(2):
        if not bypass >> tensor & 1:
            buffer += (counts[ARRAY_W + tensor] + counts[DRAM_W + tensor]) * chip[BITS_W + tensor]
    dram_outputs = output_bits(counts[DRAM_OUT], counts[DRAM_BACK], chip)
    if not bypass & 4:
        buffer += output_bits(counts[ARRAY_OUT], counts[ARRAY_BACK], chip) + dram_outputs
    out[3] = buffer * chip[E_BUFFER]
    out[4] = (counts[DRAM_W] * w + counts[DRAM_W + 1] * i + dram_outputs) * chip[E_DRAM]
    out[5] = cycles * chip[E_IDLE]


@kernel
def total_energy_and_cycles(
    counts: Any, layer: Any, bypass: int, chip: Any, parts: Any
) -> tuple[float, float]:
    """Energy and roofline cycles (19): the slowest of compute and the three links, perfectly overlapped."""
    times(counts, bypass, chip, parts)
    cycles = max(parts[0], parts[1], parts[2], parts[3])
    energies(counts, layer, bypass, cycles, chip, parts)
    return parts[0] + parts[1] + parts[2] + parts[3] + parts[4] + parts[5], cycles


@kernel
def reduction_is_partial(s: Any) -> bool:
    """Whether the sum of an output is spread over several array tiles."""
    return bool(s[TILES, C] > 1.0 or s[TILES, R] > 1.0 or s[TILES, S] > 1.0)
