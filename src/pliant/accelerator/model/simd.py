"""The equations for sixteen mappings at once (SIMD), for the vector units of the processor.

Every loop below runs over lanes, one mapping per lane, without branches; LLVM turns it into vector
instructions. All quantities are in one flat scratch `s`, a row of `LANES` values each: row r of
lane l is s[r * LANES + l]. The equations are those of `counts` and `energy_latency` under the same
numbers, and tests hold the two equal. One case is left out (`SPECIAL`): the innermost loop that
moves over a tensor has a last buffer tile of a single array tile, so the tensor rests there and
moves in all others. Such mappings go to the scalar kernel, which counts the parts.
"""

from __future__ import annotations

from typing import Final

import numpy as np

from pliant.accelerator.model import counts as ct
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
    distinct_rows,
    rows_sum,
)
from pliant.accelerator.model.energy_latency import ChipRecord, excess_bits, output_traffic
from pliant.accelerator.model.kernels import inlined, kernel

LANES: Final = 16
# Quantities with a row for each loop; those of `counts` under their names there. POSITION is that
# of the loop in the inner order, FIRST, BLOCKS and ALL are active PEs.
(
    TILE,
    PES,
    INNER,
    OUTER,
    POSITION,
    OUTER_POSITION,
    TILES,
    LAST_ARRAY,
    LAST_BLOCK,
    EXTENT,
    FIRST,
    BLOCKS,
    ALL,
) = range(0, 104, 8)
# Quantities with a row for each tensor: KEPT in the buffer (1 or 0), innermost MOVED positions,
# then words into the array, at the PEs and of buffer tiles, then bits of a tile.
(KEPT, MOVED, OUTER_MOVED, WORDS, DELIVERED, BLOCK, BITS) = range(104, 125, 3)
(BAD, SPECIAL, CYCLES, ENERGY, TIME, OVER, LARGEST) = range(125, 132)
SCRATCH: Final = 132 * LANES


@kernel
def load(rows: Ints, start: int, s: Floats) -> None:
    """Turns mappings into lanes; lanes beyond the end repeat the last. No mapping: marked `BAD`."""
    for lane in range(LANES):
        code = rows[min(start + lane, len(rows) - 1)]
        least, seen = code[0], 0
        for d in range(8):
            s[(TILE + d) * LANES + lane] = code[ct.REGISTER + d]
            s[(INNER + d) * LANES + lane] = code[ct.BUFFER + d]
            s[(OUTER + d) * LANES + lane] = code[ct.DRAM + d]
            a, b, c = code[ct.AXES + d], code[ct.AXES + 8 + d], code[ct.AXES + 16 + d]
            s[(PES + d) * LANES + lane] = float(a) * float(b) * float(c)
            least = min(least, code[d], a, b, c, code[ct.BUFFER + d], code[ct.DRAM + d])
            inner, outer = code[ct.BUFFER_ORDER + d], code[ct.DRAM_ORDER + d]
            # Bits 0 to 7: loops of the inner order, 8 to 15: of the outer one, above: no loop at
            # all.
            seen |= 1 << (inner & 7) | 256 << (outer & 7) | ((inner | outer) & ~7) << 16
            s[(POSITION + (inner & 7)) * LANES + lane] = d
            s[(OUTER_POSITION + (outer & 7)) * LANES + lane] = d
        bypass = code[ct.BYPASS]
        for tensor in range(3):
            s[(KEPT + tensor) * LANES + lane] = 1.0 - float(bypass >> tensor & 1)
        s[BAD * LANES + lane] = 0.0 if least > 0 and seen == 65535 and bypass & ~7 == 0 else 1.0


@kernel
def extents(layer: LayerRecord, s: Floats) -> None:
    """(2), (11) Last tiles, active PEs and steps of every loop."""
    for lane in range(LANES):
        s[CYCLES * LANES + lane] = 1.0
    for d in range(8):
        size = layer.sizes[d]
        for lane in range(LANES):
            tile, pes = s[(TILE + d) * LANES + lane], s[(PES + d) * LANES + lane]
            inner, outer = s[(INNER + d) * LANES + lane], s[(OUTER + d) * LANES + lane]
            array = tile * pes
            block = array * inner
            last_block = size - (outer - 1.0) * block
            last_inner = np.ceil(last_block / array)
            last_array = last_block - (last_inner - 1.0) * array
            filled = np.ceil(last_array / tile)
            tiles = (outer - 1.0) * inner + last_inner
            s[(TILES + d) * LANES + lane], s[(LAST_ARRAY + d) * LANES + lane] = tiles, last_array
            s[(LAST_BLOCK + d) * LANES + lane] = last_block
            s[(EXTENT + d) * LANES + lane] = min(block, size)
            s[(FIRST + d) * LANES + lane] = filled if size < array else pes
            in_last = filled if last_block < array else pes
            s[(BLOCKS + d) * LANES + lane] = (outer - 1.0) * pes + in_last
            s[(ALL + d) * LANES + lane] = (tiles - 1.0) * pes + filled
            s[CYCLES * LANES + lane] *= (tiles - 1.0) * tile + min(tile, last_array)
            short = 1.0 if last_inner != inner else 0.0
            gap = 0.0 if (last_block > 0.0) & (last_block <= block) else 1.0
            s[BAD * LANES + lane] += gap + (short if outer == 1.0 else 0.0)
            # Positions are whole; a half marks a loop whose last buffer tile is one array tile.
            s[(POSITION + d) * LANES + lane] += 0.5 * short if last_inner == 1.0 else 0.0


@inlined
def _position(s: Floats, bounds: int, positions: int, d: int, lane: int) -> float:
    bound, position = s[(bounds + d) * LANES + lane], s[(positions + d) * LANES + lane]
    return float(position if bound > 1.0 else -1.0)


@inlined
def innermost(s: Floats, bounds: int, positions: int, out: int) -> None:
    """(3) Position of the innermost loop that moves over each tensor and runs more than once.

    -1 where there is none. A maximum over the loops that move over the tensor, for W, I and O at
    once.
    """
    for lane in range(LANES):
        n, g = _position(s, bounds, positions, N, lane), _position(s, bounds, positions, G, lane)
        k, c = _position(s, bounds, positions, K, lane), _position(s, bounds, positions, C, lane)
        p, q = _position(s, bounds, positions, P, lane), _position(s, bounds, positions, Q, lane)
        kernel_loops = max(
            _position(s, bounds, positions, R, lane), _position(s, bounds, positions, S, lane)
        )
        images, reduction = max(n, p, q), max(c, kernel_loops)
        s[(out + W) * LANES + lane] = max(g, k, reduction)
        s[(out + I) * LANES + lane] = max(g, images, reduction)
        s[(out + O) * LANES + lane] = max(g, k, images)


@inlined
def repeat(tensor: int, d: int, s: Floats) -> None:
    """(8), (9) Multiplies the traffic of a tensor by a loop that does not move over it.

    Only where the loop is outside the innermost one that moves; else reuse makes it free.
    """
    for lane in range(LANES):
        moved, outer = s[(MOVED + tensor) * LANES + lane], s[(OUTER + d) * LANES + lane]
        inside = s[(POSITION + d) * LANES + lane] < moved
        outside = s[(OUTER_POSITION + d) * LANES + lane] < s[(OUTER_MOVED + tensor) * LANES + lane]
        every, block = s[(ALL + d) * LANES + lane], s[(BLOCKS + d) * LANES + lane]
        tiles, first_active = s[(TILES + d) * LANES + lane], s[(FIRST + d) * LANES + lane]
        times, across = tiles if inside else outer, outer if outside else 1.0
        active, few = every if inside else block, block if outside else first_active
        # Position -1: nothing inside a buffer tile moves, so reuse reaches across buffer tiles.
        s[(WORDS + tensor) * LANES + lane] *= times if moved >= 0.0 else across
        s[(DELIVERED + tensor) * LANES + lane] *= active if moved >= 0.0 else few
        s[(BLOCK + tensor) * LANES + lane] *= across


@kernel
def input_rows(out: int, window: int, stride: float, dilation: float, s: Floats) -> None:
    """(5) to (7) Multiplies input traffic by the rows (or columns) of all tiles of each level.

    Args:
        out: loop over output rows, P (or columns, Q).
        window: loop over kernel rows, R (or columns, S).
        stride: of this direction.
        dilation: of this direction.
        s: scratch.
    """
    # Of both loops, per level: n whole tiles, their extent, and the extent of the odd tile or 0.
    for lane in range(LANES):
        tile_a, tile_b = s[(TILE + out) * LANES + lane], s[(TILE + window) * LANES + lane]
        pes_a, pes_b = s[(PES + out) * LANES + lane], s[(PES + window) * LANES + lane]
        # Array tiles.
        a, b = tile_a * pes_a, tile_b * pes_b
        last_a, last_b = (
            s[(LAST_ARRAY + out) * LANES + lane],
            s[(LAST_ARRAY + window) * LANES + lane],
        )
        odd_a, odd_b = last_a if last_a < a else 0.0, last_b if last_b < b else 0.0
        n_a = s[(TILES + out) * LANES + lane] - (1.0 if last_a < a else 0.0)
        n_b = s[(TILES + window) * LANES + lane] - (1.0 if last_b < b else 0.0)
        rows = rows_sum((n_a, a, odd_a), (n_b, b, odd_b), stride, dilation)
        s[(WORDS + I) * LANES + lane] *= rows
        # Register tiles: the odd array tile fills some PEs and leaves one more with a part.
        filled_a, filled_b = np.floor(odd_a / tile_a), np.floor(odd_b / tile_b)
        of_a = (n_a * pes_a + filled_a, tile_a, odd_a - filled_a * tile_a)
        of_b = (n_b * pes_b + filled_b, tile_b, odd_b - filled_b * tile_b)
        s[(DELIVERED + I) * LANES + lane] *= rows_sum(of_a, of_b, stride, dilation)
        # Buffer tiles.
        a, b = a * s[(INNER + out) * LANES + lane], b * s[(INNER + window) * LANES + lane]
        last_a, last_b = (
            s[(LAST_BLOCK + out) * LANES + lane],
            s[(LAST_BLOCK + window) * LANES + lane],
        )
        odd_a, odd_b = last_a if last_a < a else 0.0, last_b if last_b < b else 0.0
        n_a = s[(OUTER + out) * LANES + lane] - (1.0 if last_a < a else 0.0)
        n_b = s[(OUTER + window) * LANES + lane] - (1.0 if last_b < b else 0.0)
        rows = rows_sum((n_a, a, odd_a), (n_b, b, odd_b), stride, dilation)
        s[(BLOCK + I) * LANES + lane] *= rows


@kernel
def traffic(layer: LayerRecord, multicast: bool, s: Floats) -> None:
    """(3), (7) to (10) Words of each tensor into the array, at its PEs, and of buffer tiles."""
    innermost(s, INNER, POSITION, MOVED)
    innermost(s, OUTER, OUTER_POSITION, OUTER_MOVED)
    for lane in range(LANES):
        w, i = s[(MOVED + W) * LANES + lane], s[(MOVED + I) * LANES + lane]
        o = s[(MOVED + O) * LANES + lane]
        s[SPECIAL * LANES + lane] = (w - np.floor(w)) + (i - np.floor(i)) + (o - np.floor(o))
    size, copies = layer.sizes, layer.copies
    around = size[N] * size[G] * size[C] * copies[I]
    weights = size[G] * size[K] * size[C] * size[R] * size[S] * copies[W]
    outputs = size[N] * size[G] * size[K] * size[P] * size[Q]
    for base in range(WORDS, BLOCK + 1, 3):
        for lane in range(LANES):
            s[(base + W) * LANES + lane] = weights
            s[(base + I) * LANES + lane], s[(base + O) * LANES + lane] = around, outputs
    repeat(W, N, s)
    repeat(W, P, s)
    repeat(W, Q, s)
    repeat(I, K, s)
    repeat(O, C, s)
    repeat(O, R, s)
    repeat(O, S, s)
    input_rows(P, R, layer.row_stride, layer.row_dilation, s)
    input_rows(Q, S, layer.column_stride, layer.column_dilation, s)
    if not multicast:
        for lane in range(2 * LANES):
            s[WORDS * LANES + lane] = s[DELIVERED * LANES + lane]


@kernel
def tile_bits(row: int, layer: LayerRecord, chip: ChipRecord, s: Floats) -> None:
    """(12) Bits of the tiles whose extents are in these rows.

    Outputs in words, since their width depends on the level.
    """
    bits_w, bits_i = layer.copies[W] * chip.bits[W], layer.copies[I] * chip.bits[I]
    row_stride, row_dilation = layer.row_stride, layer.row_dilation
    column_stride, column_dilation = layer.column_stride, layer.column_dilation
    for lane in range(LANES):
        n, g = s[(row + N) * LANES + lane], s[(row + G) * LANES + lane]
        k, c = s[(row + K) * LANES + lane], s[(row + C) * LANES + lane]
        p, q = s[(row + P) * LANES + lane], s[(row + Q) * LANES + lane]
        r, t = s[(row + R) * LANES + lane], s[(row + S) * LANES + lane]
        rows = distinct_rows(p, r, row_stride, row_dilation)
        columns = distinct_rows(q, t, column_stride, column_dilation)
        s[(BITS + W) * LANES + lane] = g * k * c * r * t * bits_w
        s[(BITS + I) * LANES + lane] = g * n * c * rows * columns * bits_i
        s[(BITS + O) * LANES + lane] = g * n * k * p * q


@kernel
def capacity(layer: LayerRecord, chip: ChipRecord, s: Floats) -> None:
    """(13) to (15) Bits by which registers and buffer are exceeded together; 0 where all fits."""
    bits_o, bits_sum, inputs = chip.output_bits, chip.sum_bits, layer.copies[I]
    held = chip.register_capacity
    # Copied out of its array, or every lane would load it again: it might overlap the scratch.
    most = (held[0], held[1], held[2], held[3])
    tile_bits(TILE, layer, chip, s)
    for lane in range(LANES):
        # An element-wise layer reads its inputs one after the other.
        w, i = s[(BITS + W) * LANES + lane], s[(BITS + I) * LANES + lane] / inputs
        o = s[(BITS + O) * LANES + lane] * bits_sum
        s[OVER * LANES + lane] = excess_bits(w, i, o, most)
    held = chip.buffer_capacity
    most = (held[0], held[1], held[2], held[3])
    tile_bits(EXTENT, layer, chip, s)
    for lane in range(LANES):
        kernel_steps = max(s[(TILES + R) * LANES + lane], s[(TILES + S) * LANES + lane])
        partial = max(s[(TILES + C) * LANES + lane], kernel_steps) > 1.0
        w = s[(BITS + W) * LANES + lane] * s[(KEPT + W) * LANES + lane]
        i = s[(BITS + I) * LANES + lane] * s[(KEPT + I) * LANES + lane]
        o = s[(BITS + O) * LANES + lane] * s[(KEPT + O) * LANES + lane]
        o *= bits_sum if partial else bits_o
        s[OVER * LANES + lane] += excess_bits(w, i, o, most)


@kernel
def cost(layer: LayerRecord, chip: ChipRecord, s: Floats) -> None:
    """(16) to (19) Energy and roofline cycles."""
    # Read before the loop: stores into the scratch might overlap the record.
    bits_w, bits_i = chip.bits[W], chip.bits[I]
    bits_o, bits_sum = chip.output_bits, chip.sum_bits
    per_register, per_noc_bit = chip.register_energy, chip.noc_energy
    per_buffer, per_dram_bit, idle = chip.buffer_energy, chip.dram_energy, chip.idle_energy
    size, operations = layer.sizes, 1.0
    for d in range(8):
        operations *= size[d]
    outputs = size[N] * size[G] * size[K] * size[P] * size[Q]
    # What no mapping changes: the arithmetic, and the operands of each operation.
    operand_bits = bits_w * layer.copies[W] + bits_i * layer.copies[I] + 2.0 * bits_sum
    constant = operations * (chip.mac_energy + operand_bits * chip.register_energy)
    rate, per_dram = 1.0 / chip.macs_per_cycle, 1.0 / chip.dram_bits_per_cycle
    per_port, per_noc = 1.0 / chip.buffer_bits_per_cycle, 1.0 / chip.noc_bits_per_cycle
    for lane in range(LANES):
        kept_w, kept_i = s[(KEPT + W) * LANES + lane], s[(KEPT + I) * LANES + lane]
        kept_o = s[(KEPT + O) * LANES + lane]
        array_w = s[(WORDS + W) * LANES + lane] * bits_w
        array_i = s[(WORDS + I) * LANES + lane] * bits_i
        drained, delivered = s[(WORDS + O) * LANES + lane], s[(DELIVERED + O) * LANES + lane]
        array_o = output_traffic(drained, outputs, bits_o, bits_sum)
        block_o = output_traffic(s[(BLOCK + O) * LANES + lane], outputs, bits_o, bits_sum)
        dram_w = s[(BLOCK + W) * LANES + lane] * bits_w if kept_w > 0.0 else array_w
        dram_i = s[(BLOCK + I) * LANES + lane] * bits_i if kept_i > 0.0 else array_i
        dram_o = block_o if kept_o > 0.0 else array_o
        dram = dram_w + dram_i + dram_o
        port = kept_w * array_w + kept_i * array_i + kept_o * array_o
        buffer = port + kept_w * dram_w + kept_i * dram_i + kept_o * dram_o
        loads_w = s[(DELIVERED + W) * LANES + lane] * bits_w
        loads = loads_w + s[(DELIVERED + I) * LANES + lane] * bits_i
        noc = loads + (delivered + drained - outputs) * bits_sum
        started = outputs * s[(FIRST + C) * LANES + lane]
        started *= s[(FIRST + R) * LANES + lane] * s[(FIRST + S) * LANES + lane]
        registers = 2.0 * (delivered - started) * bits_sum + loads
        slowest = max(s[CYCLES * LANES + lane] * rate, dram * per_dram)
        slowest = max(slowest, max(port * per_port, noc * per_noc))
        s[TIME * LANES + lane] = slowest
        s[ENERGY * LANES + lane] = (
            constant
            + registers * per_register
            + noc * per_noc_bit
            + buffer * per_buffer
            + dram * per_dram_bit
            + slowest * idle
        )
        sent = max(s[(DELIVERED + W) * LANES + lane], s[(DELIVERED + I) * LANES + lane])
        s[LARGEST * LANES + lane] = max(operations, max(sent, delivered))


@kernel
def evaluate_lanes(layer: LayerRecord, chip: ChipRecord, rows: Ints, start: int, s: Floats) -> None:
    """Everything about the mappings from `start` on, one per lane.

    Args:
        layer: the loops.
        chip: the hardware.
        rows: encoded mappings, shape (mappings, ENCODED_LENGTH).
        start: the first one.
        s: flat scratch of `SCRATCH` numbers; afterwards holds `BAD`, `SPECIAL`, `ENERGY`, `TIME`,
            `OVER` and `LARGEST`.
    """
    load(rows, start, s)
    extents(layer, s)
    traffic(layer, chip.multicast, s)
    capacity(layer, chip, s)
    cost(layer, chip, s)
