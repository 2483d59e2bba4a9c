"""How many words a loop nest moves: the closed form, one equation a function, compiled with Numba.

The nest of one layer: loops over buffer tiles (`dram`), inside them loops over array tiles (`buffer`), inside them the
processing elements side by side (`spatial`), inside each a tile of its own (`register`). A buffer keeps one tile a
tensor; the tile is named by the indices of the loops that move over the tensor, and is fetched whenever its name
changes. Edges are ragged: the last tile of a loop holds what is left.

Numbering follows docs/accelerator.md. All numbers are float64, exact to 2^53.
"""

from __future__ import annotations

from typing import Any, Final

import numpy as np
from numba import njit
from numpy.typing import NDArray

from pliant.accelerator.chip import DIMS
from pliant.accelerator.mapping import RELEVANT

kernel = njit(cache=True, error_model="numpy", fastmath={"reassoc", "nsz", "contract"})
"""How every equation is compiled: no reciprocal tricks and no assumption about infinities, so counts stay exact."""

N, G, K, C, P, Q, R, S = range(8)
W, I, O = range(3)
RELEVANCE: Final = np.array([[dim in RELEVANT[tensor] for dim in DIMS] for tensor in "WIO"])
_MASK: Final = tuple(sum(1 << d for d in range(8) if RELEVANCE[tensor, d]) for tensor in range(3))
# Where the parts of an encoded mapping stand (`Mapping.encode`).
REGISTER, AXES, BUFFER, DRAM, BUFFER_ORDER, DRAM_ORDER, BYPASS = 0, 8, 32, 40, 48, 56, 64

COUNTS: Final = (
    "operations",
    "compute_cycles",
    "dram_weight_reads",
    "dram_input_reads",
    "dram_sum_reads",
    "dram_output_writes",
    "array_weight_reads",
    "array_input_reads",
    "array_sum_reads",
    "array_output_writes",
    "delivered_weights",
    "delivered_inputs",
    "delivered_sums",
    "restored_sums",
    "started_sums",
)
"""What the model counts, in words but for the first two.

`dram_*` crosses the memory interface for tensors that live in the buffer. `array_*` leaves or enters the buffer (or
DRAM, for a tensor that bypasses it) after multicast and before reduction; `delivered_*` arrives at or leaves the
single elements. `restored_sums` are accumulators refilled at a later visit, `started_sums` those that begin at zero.
"""
(
    OPS,
    CYCLES,
    DRAM_W,
    DRAM_I,
    DRAM_BACK,
    DRAM_OUT,
    ARRAY_W,
    ARRAY_I,
    ARRAY_BACK,
    ARRAY_OUT,
    SENT_W,
    SENT_I,
    SENT_O,
    RESTORED,
    STARTED,
) = range(15)

# Rows of the scratch: by loop, the extents and counts that every equation needs.
(SIZE, TILE, ELEMENTS, ARRAY, INNER, BLOCK, OUTER, TILES, LAST_INNER, LAST_BLOCK, LAST_ARRAY) = (
    range(11)
)
(FIRST_ACTIVE, BLOCK_ACTIVE, ALL_ACTIVE, PART, BOUND, EXTENT) = range(11, 17)
SCRATCH: Final = (18, 8)
ALL, FULL, LAST = 0.0, 1.0, 2.0


@kernel
def distinct_rows(outputs: float, kernel: float, stride: float, dilation: float) -> float:
    """(1) Input rows that `outputs` neighbouring output rows read through `kernel` kernel rows.

    Stride and dilation are divided by their greatest common divisor. Every row reached twice is reached by output
    i and kernel row j, and by i + dilation and j - stride: the pairs are counted once, the coincidences taken off.
    """
    return outputs * kernel - max(outputs - dilation, 0.0) * max(kernel - stride, 0.0)


@kernel
def prepare(layer: Any, code: Any, s: Any) -> bool:
    """(2) Extents of tiles and of the last tile, and active elements, for each loop; False where they do not cover the layer."""
    covered = True
    for d in range(8):
        size, tile, inner, outer = (
            float(layer[d]),
            float(code[d]),
            float(code[BUFFER + d]),
            float(code[DRAM + d]),
        )
        wide = float(code[AXES + d] * code[AXES + 8 + d] * code[AXES + 16 + d])
        array = tile * wide
        block = array * inner
        s[SIZE, d], s[TILE, d], s[ELEMENTS, d], s[INNER, d], s[OUTER, d] = (
            size,
            tile,
            wide,
            inner,
            outer,
        )
        s[ARRAY, d], s[BLOCK, d], s[EXTENT, d] = array, block, min(block, size)
        if block * outer == size:
            s[LAST_BLOCK, d], s[LAST_INNER, d], s[LAST_ARRAY, d], s[TILES, d] = (
                block,
                inner,
                array,
                outer * inner,
            )
            s[FIRST_ACTIVE, d], s[BLOCK_ACTIVE, d], s[ALL_ACTIVE, d] = (
                wide,
                outer * wide,
                outer * inner * wide,
            )
            continue
        last_block = size - (outer - 1.0) * block
        last_inner = np.ceil(last_block / array)
        last_array = last_block - (last_inner - 1.0) * array
        s[LAST_BLOCK, d], s[LAST_INNER, d], s[LAST_ARRAY, d] = last_block, last_inner, last_array
        s[TILES, d] = (outer - 1.0) * inner + last_inner
        s[FIRST_ACTIVE, d] = np.ceil(min(array, size) / tile)
        s[BLOCK_ACTIVE, d] = (outer - 1.0) * wide + np.ceil(min(array, last_block) / tile)
        s[ALL_ACTIVE, d] = (s[TILES, d] - 1.0) * wide + np.ceil(last_array / tile)
        covered &= 0.0 < last_block <= block and (outer > 1.0 or last_inner == inner)
    return covered


@kernel
def innermost(tensor: int, code: Any, order: int, s: Any, bounds: int) -> int:
    """(3) Position of the innermost loop that moves over the tensor and runs more than once; -1 where there is none."""
    for position in range(7, -1, -1):
        d = code[order + position]
        if _MASK[tensor] >> d & 1 and s[bounds, d] > 1.0:
            return position
    return -1


@kernel
def extent_sum(s: Any, d: int) -> float:
    """(4) Sum of a loop's tile extents: over all buffer tiles, all but the last, or the last."""
    if s[PART, d] == ALL:
        return float(s[SIZE, d])
    if s[PART, d] == FULL:
        return float((s[OUTER, d] - 1.0) * s[BLOCK, d])
    return float(s[LAST_BLOCK, d])


@kernel
def tile_list(s: Any, d: int, per_element: bool) -> tuple[float, float, float]:
    """(5) The extents that a loop's array tiles (or element tiles) take: how many whole ones, their extent, the odd last one or 0."""
    if s[PART, d] == ALL:
        whole = s[TILES, d]
    elif s[PART, d] == FULL:
        whole = (s[OUTER, d] - 1.0) * s[INNER, d]
    else:
        whole = s[LAST_INNER, d]
    extent, odd = s[ARRAY, d], 0.0
    if s[PART, d] != FULL and s[LAST_ARRAY, d] != extent:
        whole, odd = whole - 1.0, s[LAST_ARRAY, d]
    if not per_element:
        return whole, extent, odd
    tile = s[TILE, d]
    whole *= s[ELEMENTS, d]
    if odd > 0.0:
        filled = np.floor(odd / tile)
        whole, odd = whole + filled, odd - filled * tile
    return whole, tile, odd


@kernel
def rows_sum(a: Any, b: Any, stride: float, dilation: float) -> float:
    """(6) Sum of `distinct_rows` over every pair of an output tile and a kernel tile."""
    total = a[0] * b[0] * distinct_rows(a[1], b[1], stride, dilation)
    if a[2] > 0.0:
        total += b[0] * distinct_rows(a[2], b[1], stride, dilation)
    if b[2] > 0.0:
        total += a[0] * distinct_rows(a[1], b[2], stride, dilation)
        if a[2] > 0.0:
            total += distinct_rows(a[2], b[2], stride, dilation)
    return float(total)


@kernel
def moved_words(tensor: int, s: Any, stride: float, dilation: float, per_element: bool) -> float:
    """(7) Words of all array (or element) tiles of a tensor, each taken once; input rows overlap inside a tile only."""
    if tensor == I:
        rows = rows_sum(
            tile_list(s, P, per_element), tile_list(s, R, per_element), stride, dilation
        )
        columns = rows_sum(
            tile_list(s, Q, per_element), tile_list(s, S, per_element), stride, dilation
        )
        return extent_sum(s, G) * extent_sum(s, N) * extent_sum(s, C) * rows * columns
    product = 1.0
    for d in range(8):
        if _MASK[tensor] >> d & 1:
            product *= extent_sum(s, d)
    return product


@kernel
def block_list(s: Any, d: int) -> tuple[float, float, float]:
    """The extents that a loop's buffer tiles take, as `tile_list`."""
    if s[LAST_BLOCK, d] == s[BLOCK, d]:
        return s[OUTER, d], s[BLOCK, d], 0.0
    return s[OUTER, d] - 1.0, s[BLOCK, d], s[LAST_BLOCK, d]


@kernel
def block_words(tensor: int, s: Any, stride: float, dilation: float) -> float:
    """Words of all buffer tiles of a tensor, each taken once; input rows overlap inside a tile only."""
    if tensor == I:
        rows = rows_sum(block_list(s, P), block_list(s, R), stride, dilation)
        columns = rows_sum(block_list(s, Q), block_list(s, S), stride, dilation)
        return float(s[SIZE, G] * s[SIZE, N] * s[SIZE, C] * rows * columns)
    words = 1.0
    for d in range(8):
        if _MASK[tensor] >> d & 1:
            words *= s[SIZE, d]
    return words


@kernel
def block_traffic(tensor: int, s: Any, stride: float, dilation: float, code: Any) -> float:
    """(8) Words between DRAM and a buffer that keeps one tile of the tensor."""
    words = block_words(tensor, s, stride, dilation)
    for position in range(innermost(tensor, code, DRAM_ORDER, s, OUTER)):
        d = code[DRAM_ORDER + position]
        if not _MASK[tensor] >> d & 1:
            words *= s[OUTER, d]
    return float(words)


@kernel
def refetches(tensor: int, s: Any, code: Any) -> tuple[float, float]:
    """(9) How often the loops that do not move over the tensor repeat its array tiles: times, and times elements."""
    times, elements = 1.0, 1.0
    inner = innermost(tensor, code, BUFFER_ORDER, s, BOUND)
    if inner >= 0:
        for position in range(8):
            d = code[BUFFER_ORDER + position]
            if not _MASK[tensor] >> d & 1:
                times *= s[TILES, d] if position < inner else s[OUTER, d]
                elements *= s[ALL_ACTIVE, d] if position < inner else s[BLOCK_ACTIVE, d]
        return times, elements
    # Nothing inside a buffer tile moves over the tensor: reuse reaches across buffer tiles.
    outer = innermost(tensor, code, DRAM_ORDER, s, OUTER)
    for position in range(8):
        d = code[DRAM_ORDER + position]
        if not _MASK[tensor] >> d & 1:
            times *= s[OUTER, d] if position < outer else 1.0
            elements *= s[BLOCK_ACTIVE, d] if position < outer else s[FIRST_ACTIVE, d]
    return times, elements


@kernel
def mark_special(tensor: int, s: Any) -> int:
    """Bits of the loops whose last buffer tile holds one array tile only; sets every loop's bound, all parts together."""
    special = 0
    for d in range(8):
        s[BOUND, d], s[PART, d] = s[INNER, d], ALL
        if (
            _MASK[tensor] >> d & 1
            and s[LAST_INNER, d] == 1.0
            and s[INNER, d] > 1.0
            and s[OUTER, d] > 1.0
        ):
            special |= 1 << d
    return special


@kernel
def array_traffic(
    tensor: int, s: Any, stride: float, dilation: float, code: Any
) -> tuple[float, float]:
    """(10) Words into (or, for outputs, out of) the array, and the same counted at every element.

    A loop whose last buffer tile holds one array tile only is looked at in two parts, because the tensor may rest in
    one and move in the other; 2^n parts for n such loops, nearly always one.
    """
    special = mark_special(tensor, s)
    words, sent, subset = 0.0, 0.0, special
    while True:
        if special:
            for d in range(8):
                if special >> d & 1:
                    last = subset >> d & 1
                    s[PART, d] = LAST if last else FULL
                    s[BOUND, d] = 1.0 if last else s[INNER, d]
        times, elements = refetches(tensor, s, code)
        moved = moved_words(tensor, s, stride, dilation, False)
        words += times * moved
        sent += elements * (
            moved_words(tensor, s, stride, dilation, True) if tensor == I else moved
        )
        if subset == 0:
            return words, sent
        subset = (subset - 1) & special


@kernel
def compute_cycles(s: Any) -> float:
    """(11) Steps of the slowest element, the first one: it is never idle, and its tiles are never smaller."""
    cycles = 1.0
    for d in range(8):
        cycles *= (s[TILES, d] - 1.0) * s[TILE, d] + min(s[TILE, d], s[LAST_ARRAY, d])
    return cycles


@kernel
def count(layer: Any, code: Any, multicast: bool, out: Any, s: Any) -> bool:
    """All counts of one mapping; False where it does not cover the layer without idle iterations.

    Args:
        layer: eight loop bounds, then stride and dilation (both divided by their common divisor), 1 where there are
            weights, and how many input tensors are read.
        code: as `Mapping.encode`.
        multicast: False where every element reads for itself.
        out: receives `COUNTS`.
        s: scratch of shape `SCRATCH`; holds the extents afterwards.
    """
    if not prepare(layer, code, s):
        return False
    stride, dilation = float(layer[8]), float(layer[9])
    operations, outputs, started = 1.0, 1.0, 1.0
    for d in range(8):
        operations *= s[SIZE, d]
        if _MASK[O] >> d & 1:
            outputs *= s[SIZE, d]
        else:
            started *= s[FIRST_ACTIVE, d]
    out[OPS], out[CYCLES] = operations, compute_cycles(s)
    for tensor in range(2):
        scale = float(layer[10 + tensor])
        words, sent = array_traffic(tensor, s, stride, dilation, code)
        words = words if multicast else sent
        block = (
            words
            if code[BYPASS] >> tensor & 1
            else block_traffic(tensor, s, stride, dilation, code)
        )
        out[DRAM_W + tensor], out[ARRAY_W + tensor], out[SENT_W + tensor] = (
            block * scale,
            words * scale,
            sent * scale,
        )
    words, sent = array_traffic(O, s, stride, dilation, code)
    block = words if code[BYPASS] & 4 else block_traffic(O, s, stride, dilation, code)
    out[DRAM_OUT], out[DRAM_BACK] = block, block - outputs
    out[ARRAY_OUT], out[ARRAY_BACK], out[SENT_O] = words, words - outputs, sent
    out[STARTED], out[RESTORED] = outputs * started, sent - outputs * started
    return True


def layer_vector(
    sizes: Any, stride: int, dilation: int, weights: bool, inputs: int
) -> NDArray[np.int64]:
    """The twelve integers by which the kernels know a layer; steps that are never taken are 1, so equal nests are equal."""
    p, q, r, s = sizes[4:]
    if p == q == 1 or r == s == 1:
        stride = dilation = 1
    common = int(np.gcd(stride, dilation))
    return np.array(
        [*sizes, stride // common, dilation // common, int(weights), inputs], dtype=np.int64
    )
