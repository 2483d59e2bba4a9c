"""The equations once more, for sixteen mappings side by side, so that the processor's vector units work on them.

Every loop below runs over lanes, one mapping a lane, without branches; LLVM turns it into vector instructions. Numbers
stand in one flat scratch, a row of `LANES` values a quantity. The equations are those of `equations` and `price`
(same numbers), tested to be equal. Left out is the one case that needs parts (`SPECIAL`): the innermost loop that moves
over a tensor has a last buffer tile of a single array tile, so the tensor rests there and moves in all others. Such
mappings go to the scalar kernel.
"""

from __future__ import annotations

from typing import Any, Final

import numpy as np
from numba import njit

from pliant.accelerator.model import counts as ct
from pliant.accelerator.model import energy_latency as el
from pliant.accelerator.model.counts import C, G, I, K, N, O, P, Q, R, S, W, distinct_rows, kernel

LANES: Final = 16
inlined = njit(
    cache=True, inline="always", error_model="numpy", fastmath={"reassoc", "nsz", "contract"}
)
"""As `kernel`. Rows have to be constants where a loop is compiled, or LLVM cannot tell that they do not overlap."""
# Quantities with a row for each loop.
(
    TILE,
    WIDE,
    INNER,
    OUTER,
    PLACE,
    OUTER_PLACE,
    TILES,
    LAST_ARRAY,
    LAST_BLOCK,
    EXTENT,
    FIRST,
    BLOCKS,
    ALL,
) = range(0, 104, 8)
# Quantities with a row for each tensor.
(KEPT, MOVED, OUTER_MOVED, WORDS, SENT, BLOCK, BITS) = range(104, 125, 3)
(BAD, SPECIAL, CYCLES, ENERGY, TIME, OVER, LARGEST) = range(125, 132)
SCRATCH: Final = 132 * LANES


@kernel
def load(rows: Any, start: int, s: Any) -> None:
    """Turns mappings into lanes; the last one stands in for those beyond the end. What is no mapping is marked `BAD`."""
    for lane in range(LANES):
        code = rows[min(start + lane, len(rows) - 1)]
        least, seen = code[0], 0
        for d in range(8):
            s[(TILE + d) * LANES + lane], s[(INNER + d) * LANES + lane] = (
                code[d],
                code[ct.BUFFER + d],
            )
            s[(OUTER + d) * LANES + lane] = code[ct.DRAM + d]
            a, b, c = code[ct.AXES + d], code[ct.AXES + 8 + d], code[ct.AXES + 16 + d]
            s[(WIDE + d) * LANES + lane] = float(a) * float(b) * float(c)
            least = min(least, code[d], a, b, c, code[ct.BUFFER + d], code[ct.DRAM + d])
            inner, outer = code[ct.BUFFER_ORDER + d], code[ct.DRAM_ORDER + d]
            seen |= 1 << (inner & 7) | 256 << (outer & 7) | ((inner | outer) & ~7) << 16
            s[(PLACE + (inner & 7)) * LANES + lane] = s[
                (OUTER_PLACE + (outer & 7)) * LANES + lane
            ] = d
        bypass = code[ct.BYPASS]
        for tensor in range(3):
            s[(KEPT + tensor) * LANES + lane] = 1.0 - float(bypass >> tensor & 1)
        s[BAD * LANES + lane] = 0.0 if least > 0 and seen == 65535 and bypass & ~7 == 0 else 1.0


@kernel
def extents(layer: Any, s: Any) -> None:
    """(2), (11) Last tiles, active elements and steps of every loop."""
    for lane in range(LANES):
        s[CYCLES * LANES + lane] = 1.0
    for d in range(8):
        size = float(layer[d])
        for lane in range(LANES):
            tile, wide = s[(TILE + d) * LANES + lane], s[(WIDE + d) * LANES + lane]
            inner, outer = s[(INNER + d) * LANES + lane], s[(OUTER + d) * LANES + lane]
            array = tile * wide
            block = array * inner
            last_block = size - (outer - 1.0) * block
            last_inner = np.ceil(last_block / array)
            last_array = last_block - (last_inner - 1.0) * array
            filled = np.ceil(last_array / tile)
            tiles = (outer - 1.0) * inner + last_inner
            s[(TILES + d) * LANES + lane], s[(LAST_ARRAY + d) * LANES + lane] = tiles, last_array
            s[(LAST_BLOCK + d) * LANES + lane], s[(EXTENT + d) * LANES + lane] = (
                last_block,
                min(block, size),
            )
            s[(FIRST + d) * LANES + lane] = filled if size < array else wide
            s[(BLOCKS + d) * LANES + lane] = (outer - 1.0) * wide + (
                filled if last_block < array else wide
            )
            s[(ALL + d) * LANES + lane] = (tiles - 1.0) * wide + filled
            s[CYCLES * LANES + lane] *= (tiles - 1.0) * tile + min(tile, last_array)
            short = 1.0 if last_inner != inner else 0.0
            gap = 0.0 if (last_block > 0.0) & (last_block <= block) else 1.0
            s[BAD * LANES + lane] += gap + (short if outer == 1.0 else 0.0)
            # Places are whole; the half marks a loop whose last buffer tile holds one array tile only.
            s[(PLACE + d) * LANES + lane] += 0.5 * short if last_inner == 1.0 else 0.0


@inlined
def _place(s: Any, bounds: int, places: int, d: int, lane: int) -> float:
    bound, place = s[(bounds + d) * LANES + lane], s[(places + d) * LANES + lane]
    return float(place if bound > 1.0 else -1.0)


@inlined
def innermost(s: Any, bounds: int, places: int, out: int) -> None:
    """(3) Place of the innermost loop that moves over each tensor and runs more than once; -1 where there is none."""
    for lane in range(LANES):
        n, g = _place(s, bounds, places, N, lane), _place(s, bounds, places, G, lane)
        k, c = _place(s, bounds, places, K, lane), _place(s, bounds, places, C, lane)
        p, q = _place(s, bounds, places, P, lane), _place(s, bounds, places, Q, lane)
        kernel_loops = max(_place(s, bounds, places, R, lane), _place(s, bounds, places, S, lane))
        images, reduction = max(n, p, q), max(c, kernel_loops)
        s[(out + W) * LANES + lane] = max(g, k, reduction)
        s[(out + I) * LANES + lane] = max(g, images, reduction)
        s[(out + O) * LANES + lane] = max(g, k, images)


@inlined
def repeat(tensor: int, d: int, s: Any) -> None:
    """(8), (9) Multiplies traffic by a loop that does not move over the tensor, where it repeats it."""
    for lane in range(LANES):
        moved, outer = s[(MOVED + tensor) * LANES + lane], s[(OUTER + d) * LANES + lane]
        inside = s[(PLACE + d) * LANES + lane] < moved
        outside = s[(OUTER_PLACE + d) * LANES + lane] < s[(OUTER_MOVED + tensor) * LANES + lane]
        every, block = s[(ALL + d) * LANES + lane], s[(BLOCKS + d) * LANES + lane]
        tiles, first_active = s[(TILES + d) * LANES + lane], s[(FIRST + d) * LANES + lane]
        times, across = tiles if inside else outer, outer if outside else 1.0
        elements, few = every if inside else block, block if outside else first_active
        words, sent = s[(WORDS + tensor) * LANES + lane], s[(SENT + tensor) * LANES + lane]
        s[(WORDS + tensor) * LANES + lane] = words * (times if moved >= 0.0 else across)
        s[(SENT + tensor) * LANES + lane] = sent * (elements if moved >= 0.0 else few)
        s[(BLOCK + tensor) * LANES + lane] *= across


@kernel
def _pairs(
    aw: float, a: float, ar: float, bw: float, b: float, br: float, stride: float, dilation: float
) -> float:
    """(6) With numbers of whole tiles, their extents, and the odd tiles' (0 where there is none)."""
    whole = aw * bw * distinct_rows(a, b, stride, dilation)
    odd = bw * distinct_rows(ar, b, stride, dilation) + aw * distinct_rows(a, br, stride, dilation)
    return float(whole + odd + distinct_rows(ar, br, stride, dilation))


@kernel
def input_rows(out: int, kernel_loop: int, stride: float, dilation: float, s: Any) -> None:
    """(5) to (7) Multiplies input traffic by the rows (or columns) of all array tiles, element tiles and buffer tiles."""
    for lane in range(LANES):
        at, kt = s[(TILE + out) * LANES + lane], s[(TILE + kernel_loop) * LANES + lane]
        awide, kwide = s[(WIDE + out) * LANES + lane], s[(WIDE + kernel_loop) * LANES + lane]
        a, k = at * awide, kt * kwide
        al, kl = s[(LAST_ARRAY + out) * LANES + lane], s[(LAST_ARRAY + kernel_loop) * LANES + lane]
        ao, ko = al if al < a else 0.0, kl if kl < k else 0.0
        an = s[(TILES + out) * LANES + lane] - (1.0 if al < a else 0.0)
        kn = s[(TILES + kernel_loop) * LANES + lane] - (1.0 if kl < k else 0.0)
        s[(WORDS + I) * LANES + lane] *= _pairs(an, a, ao, kn, k, ko, stride, dilation)
        af, kf = np.floor(ao / at), np.floor(ko / kt)
        an, kn = an * awide + af, kn * kwide + kf
        s[(SENT + I) * LANES + lane] *= _pairs(
            an, at, ao - af * at, kn, kt, ko - kf * kt, stride, dilation
        )
        a, k = a * s[(INNER + out) * LANES + lane], k * s[(INNER + kernel_loop) * LANES + lane]
        al, kl = s[(LAST_BLOCK + out) * LANES + lane], s[(LAST_BLOCK + kernel_loop) * LANES + lane]
        an = s[(OUTER + out) * LANES + lane] - (1.0 if al < a else 0.0)
        kn = s[(OUTER + kernel_loop) * LANES + lane] - (1.0 if kl < k else 0.0)
        blocks = _pairs(
            an, a, al if al < a else 0.0, kn, k, kl if kl < k else 0.0, stride, dilation
        )
        s[(BLOCK + I) * LANES + lane] *= blocks


@kernel
def traffic(layer: Any, multicast: bool, s: Any) -> None:
    """Words of every tensor into the array, at its elements, and of its buffer tiles."""
    stride, dilation = float(layer[8]), float(layer[9])
    innermost(s, INNER, PLACE, MOVED)
    innermost(s, OUTER, OUTER_PLACE, OUTER_MOVED)
    for lane in range(LANES):
        w, i, o = (
            s[(MOVED + W) * LANES + lane],
            s[(MOVED + I) * LANES + lane],
            s[(MOVED + O) * LANES + lane],
        )
        s[SPECIAL * LANES + lane] = (w - np.floor(w)) + (i - np.floor(i)) + (o - np.floor(o))
    around = float(layer[N]) * layer[G] * layer[C] * layer[11]
    weights = float(layer[G]) * layer[K] * layer[C] * layer[R] * layer[S] * layer[10]
    outputs = float(layer[N]) * layer[G] * layer[K] * layer[P] * layer[Q]
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
    input_rows(P, R, stride, dilation, s)
    input_rows(Q, S, stride, dilation, s)
    if not multicast:
        for lane in range(2 * LANES):
            s[WORDS * LANES + lane] = s[SENT * LANES + lane]


@kernel
def tile_bits(row: int, layer: Any, chip: Any, s: Any) -> None:
    """(12) Bits of the tiles whose extents stand in these rows; outputs as words, since their width depends on the level."""
    stride, dilation = float(layer[8]), float(layer[9])
    bits_w, bits_i = layer[10] * chip[el.BITS_W], layer[11] * chip[el.BITS_I]
    for lane in range(LANES):
        n, g = s[(row + N) * LANES + lane], s[(row + G) * LANES + lane]
        k, c = s[(row + K) * LANES + lane], s[(row + C) * LANES + lane]
        p, q = s[(row + P) * LANES + lane], s[(row + Q) * LANES + lane]
        r, t = s[(row + R) * LANES + lane], s[(row + S) * LANES + lane]
        pixels = distinct_rows(p, r, stride, dilation) * distinct_rows(q, t, stride, dilation)
        s[(BITS + W) * LANES + lane] = g * k * c * r * t * bits_w
        s[(BITS + I) * LANES + lane] = g * n * c * pixels * bits_i
        s[(BITS + O) * LANES + lane] = g * n * k * p * q


@kernel
def capacity(layer: Any, chip: Any, s: Any) -> None:
    """(13) to (15) Bits by which registers and buffer are exceeded together; 0 where everything fits."""
    bits_o, bits_sum = chip[el.BITS_O], chip[el.BITS_SUM]
    most_w, most_i, most_o, most = chip[el.REG_W], chip[el.REG_I], chip[el.REG_O], chip[el.REG_ALL]
    tile_bits(TILE, layer, chip, s)
    for lane in range(LANES):
        w, i, o = (
            s[(BITS + W) * LANES + lane],
            s[(BITS + I) * LANES + lane],
            s[(BITS + O) * LANES + lane] * bits_sum,
        )
        s[OVER * LANES + lane] = max(
            max(w - most_w, i - most_i), max(o - most_o, w + i + o - most), 0.0
        )
    most_w, most_i, most_o, most = chip[el.BUF_W], chip[el.BUF_I], chip[el.BUF_O], chip[el.BUF_ALL]
    tile_bits(EXTENT, layer, chip, s)
    for lane in range(LANES):
        steps = max(
            s[(TILES + C) * LANES + lane],
            s[(TILES + R) * LANES + lane],
            s[(TILES + S) * LANES + lane],
        )
        w = s[(BITS + W) * LANES + lane] * s[(KEPT + W) * LANES + lane]
        i = s[(BITS + I) * LANES + lane] * s[(KEPT + I) * LANES + lane]
        o = (
            s[(BITS + O) * LANES + lane]
            * s[(KEPT + O) * LANES + lane]
            * (bits_sum if steps > 1.0 else bits_o)
        )
        s[OVER * LANES + lane] += max(
            max(w - most_w, i - most_i), max(o - most_o, w + i + o - most), 0.0
        )


@kernel
def cost(layer: Any, chip: Any, s: Any) -> None:
    """(16) to (19) Energy and roofline cycles."""
    bits_w, bits_i, bits_o, bits_sum = (
        chip[el.BITS_W],
        chip[el.BITS_I],
        chip[el.BITS_O],
        chip[el.BITS_SUM],
    )
    outputs, operations = float(layer[N]) * layer[G] * layer[K] * layer[P] * layer[Q], 1.0
    for d in range(8):
        operations *= layer[d]
    always = operations * (bits_w * layer[10] + bits_i * layer[11] + 2.0 * bits_sum)
    arithmetic, rate = operations * chip[el.E_MAC], 1.0 / chip[el.RATE]
    per_dram, per_port, per_noc = (
        1.0 / chip[el.BW_DRAM],
        1.0 / chip[el.BW_BUFFER],
        1.0 / chip[el.BW_NOC],
    )
    e_register, e_noc, e_buffer, e_dram, e_idle = (
        chip[el.E_REGISTER],
        chip[el.E_NOC],
        chip[el.E_BUFFER],
        chip[el.E_DRAM],
        chip[el.E_IDLE],
    )
    for lane in range(LANES):
        kept_w, kept_i, kept_o = (
            s[(KEPT + W) * LANES + lane],
            s[(KEPT + I) * LANES + lane],
            s[(KEPT + O) * LANES + lane],
        )
        array_w, array_i = (
            s[(WORDS + W) * LANES + lane] * bits_w,
            s[(WORDS + I) * LANES + lane] * bits_i,
        )
        drained, sent_o = s[(WORDS + O) * LANES + lane], s[(SENT + O) * LANES + lane]
        array_o = outputs * bits_o + 2.0 * (drained - outputs) * bits_sum
        block_o = outputs * bits_o + 2.0 * (s[(BLOCK + O) * LANES + lane] - outputs) * bits_sum
        dram_w = s[(BLOCK + W) * LANES + lane] * bits_w if kept_w > 0.0 else array_w
        dram_i = s[(BLOCK + I) * LANES + lane] * bits_i if kept_i > 0.0 else array_i
        dram_o = block_o if kept_o > 0.0 else array_o
        dram = dram_w + dram_i + dram_o
        port = kept_w * array_w + kept_i * array_i + kept_o * array_o
        loads = s[(SENT + W) * LANES + lane] * bits_w + s[(SENT + I) * LANES + lane] * bits_i
        noc = loads + (sent_o + drained - outputs) * bits_sum
        started = (
            outputs
            * s[(FIRST + C) * LANES + lane]
            * s[(FIRST + R) * LANES + lane]
            * s[(FIRST + S) * LANES + lane]
        )
        time = max(
            max(s[CYCLES * LANES + lane] * rate, dram * per_dram),
            max(port * per_port, noc * per_noc),
        )
        registers = always + 2.0 * (sent_o - started) * bits_sum + loads
        buffer = port + kept_w * dram_w + kept_i * dram_i + kept_o * dram_o
        s[TIME * LANES + lane] = time
        s[ENERGY * LANES + lane] = (
            arithmetic
            + registers * e_register
            + noc * e_noc
            + buffer * e_buffer
            + dram * e_dram
            + time * e_idle
        )
        sent = max(s[(SENT + W) * LANES + lane], s[(SENT + I) * LANES + lane], sent_o)
        s[LARGEST * LANES + lane] = max(operations, sent)


@kernel
def evaluate_lanes(layer: Any, chip: Any, multicast: bool, rows: Any, start: int, s: Any) -> None:
    """Everything about the mappings from `start` on, one a lane.

    Args:
        layer: as `counts.layer_vector`.
        chip: as `el.chip_vector`.
        multicast: whether a word for several elements is read once.
        rows: encoded mappings.
        start: the first one.
        s: flat scratch of `SCRATCH` numbers; holds `BAD`, `SPECIAL`, `ENERGY`, `TIME`, `OVER` and `LARGEST` afterwards.
    """
    load(rows, start, s)
    extents(layer, s)
    traffic(layer, multicast, s)
    capacity(layer, chip, s)
    cost(layer, chip, s)
