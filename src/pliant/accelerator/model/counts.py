"""How many words a loop nest moves: the closed form, one equation a function, compiled with Numba.

The nest of one layer: loops over buffer tiles (`dram`), inside them loops over array tiles
(`buffer`), inside them the processing elements (PEs) side by side (`spatial`), inside each a tile
of its own (`register`). A memory keeps one tile of each tensor; a tile is named by the indices of
the loops that move over the tensor, and is fetched whenever its name changes. Edges are ragged: the
last tile of a loop holds what is left.

The idea is that of A. Parashar et al., "Timeloop: A Systematic Approach to DNN Accelerator
Evaluation", ISPASS 2019, doi:10.1109/ISPASS.2019.00042; distinct input rows, ragged edges and reuse
across buffer tiles are counted exactly here. Numbers in parentheses are those of
docs/accelerator.md. All numbers are float64, exact to 2^53.
"""

from __future__ import annotations

from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from pliant.accelerator.chip import DIMS
from pliant.accelerator.mapping import RELEVANT, layer_sizes
from pliant.accelerator.model.kernels import kernel
from pliant.workload import Layer

Floats = NDArray[np.float64]
Ints = NDArray[np.int64]

N, G, K, C, P, Q, R, S = range(8)
W, I, O = range(3)
RELEVANCE: Final = np.array([[dim in RELEVANT[tensor] for dim in DIMS] for tensor in "WIO"])
_MASK: Final = tuple(sum(1 << d for d in range(8) if RELEVANCE[tensor, d]) for tensor in range(3))
# Where the parts of an encoded mapping begin (`Mapping.encode`): eight integers each, bypass one.
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

`dram_*` crosses the memory interface for tensors that are kept in the buffer. `array_*` leaves or
enters the buffer (or DRAM, for a tensor that bypasses it) after multicast and before reduction;
`delivered_*` arrives at or leaves the single PEs. `restored_sums` are accumulators refilled at a
later visit, `started_sums` those that begin at zero.
"""
(
    OPERATIONS,
    CYCLES,
    DRAM_W,
    DRAM_I,
    DRAM_SUM_READS,
    DRAM_O,
    ARRAY_W,
    ARRAY_I,
    ARRAY_SUM_READS,
    ARRAY_O,
    DELIVERED_W,
    DELIVERED_I,
    DELIVERED_O,
    RESTORED,
    STARTED,
) = range(15)

# Rows of the scratch, each with a column for every loop. `s` is this scratch in every kernel.
SIZE = 0
"""Bound of the loop."""
TILE = 1
"""Extent of a register tile."""
PES = 2
"""PEs that the loop is spread over."""
ARRAY = 3
"""Extent of an array tile: register tile times PEs."""
INNER = 4
"""Array tiles in a buffer tile."""
BLOCK = 5
"""Extent of a buffer tile."""
OUTER = 6
"""Buffer tiles."""
TILES = 7
"""Array tiles of the whole loop."""
LAST_INNER = 8
"""Array tiles in the last buffer tile."""
LAST_BLOCK = 9
"""Extent of the last buffer tile."""
LAST_ARRAY = 10
"""Extent of the last array tile."""
FIRST_ACTIVE = 11
"""PEs with work in the first array tile."""
BLOCK_ACTIVE = 12
"""PEs with work, summed over the first array tile of each buffer tile."""
ALL_ACTIVE = 13
"""PEs with work, summed over all array tiles."""
PART = 14
"""Which buffer tiles an equation looks at: `ALL`, `FULL` (all but the last), or `LAST`."""
BOUND = 15
"""Iterations of the buffer loop in these tiles."""
EXTENT = 16
"""Largest extent of a buffer tile: `BLOCK`, or the loop where that is shorter."""
SCRATCH: Final = (17, 8)
ALL, FULL, LAST = 0.0, 1.0, 2.0


LAYER: Final = np.dtype(
    [
        ("sizes", np.float64, 8),  # loop bounds, in the order of `DIMS`
        # Steps of output and kernel rows over the input, divided by their greatest common divisor.
        ("row_stride", np.float64),
        ("row_dilation", np.float64),
        ("column_stride", np.float64),
        ("column_dilation", np.float64),
        # Tensors of each kind, W, I, O: 0 or 1 weights, the inputs that are read, 1.
        ("copies", np.float64, 3),
    ]
)
"""A layer as the kernels know it: a record, which is passed as one pointer."""
LayerRecord = Any
"""A record of `LAYER`."""


def layer_record(layer: Layer) -> LayerRecord:
    """The record of a layer; steps that are never taken are 1, so equal nests are equal.

    Element-wise layers read every one of their inputs.
    """
    inputs = max(len(layer.inputs), 1) if layer.kind == "elementwise" else 1
    record = np.zeros(1, dtype=LAYER)[0]
    record["sizes"] = layer_sizes(layer)
    record["row_stride"], record["row_dilation"] = _steps(
        layer.P, layer.R, layer.strides[0], layer.dilations[0]
    )
    record["column_stride"], record["column_dilation"] = _steps(
        layer.Q, layer.S, layer.strides[1], layer.dilations[1]
    )
    record["copies"] = float(layer.weighted), inputs, 1.0
    return record


def _steps(outputs: int, kernel: int, stride: int, dilation: int) -> tuple[float, float]:
    if outputs == 1 or kernel == 1:
        return 1.0, 1.0
    common = int(np.gcd(stride, dilation))
    return float(stride // common), float(dilation // common)


def layer_key(layer: Layer) -> tuple[float, ...]:
    """The numbers of a record in one tuple: equal for layers that cost the same everywhere."""
    numbers = np.array([layer_record(layer)], dtype=LAYER).view(np.float64)
    return tuple(numbers.tolist())


@kernel
def distinct_rows(outputs: float, kernel: float, stride: float, dilation: float) -> float:
    """(1) Input rows that `outputs` neighbouring output rows read through `kernel` kernel rows.

    h = p r - max(p - d, 0) max(r - s, 0), with stride s and dilation d divided by their greatest
    common divisor. A row reached twice is reached by output i and kernel row j, and by i + d and
    j - s: all pairs are counted, the coincidences taken off.
    """
    return outputs * kernel - max(outputs - dilation, 0.0) * max(kernel - stride, 0.0)


@kernel
def prepare(layer: LayerRecord, code: Ints, s: Floats) -> bool:
    """(2) Extents of tiles and of the last tile, and active PEs, for each loop.

    Args:
        layer: the loops.
        code: as `Mapping.encode`.
        s: receives the rows above, but for `PART` and `BOUND`; shape `SCRATCH`.

    Returns:
        False where the factors do not cover the layer, or an iteration has no work.
    """
    covered = True
    for d in range(8):
        size, tile = layer.sizes[d], float(code[d])
        inner, outer = float(code[BUFFER + d]), float(code[DRAM + d])
        pes = float(code[AXES + d] * code[AXES + 8 + d] * code[AXES + 16 + d])
        array = tile * pes
        block = array * inner
        s[SIZE, d], s[TILE, d], s[PES, d], s[INNER, d], s[OUTER, d] = size, tile, pes, inner, outer
        s[ARRAY, d], s[BLOCK, d], s[EXTENT, d] = array, block, min(block, size)
        if block * outer == size:  # the factors divide: every tile is whole
            s[LAST_BLOCK, d], s[LAST_INNER, d], s[LAST_ARRAY, d] = block, inner, array
            s[TILES, d] = outer * inner
            s[FIRST_ACTIVE, d], s[BLOCK_ACTIVE, d] = pes, outer * pes
            s[ALL_ACTIVE, d] = outer * inner * pes
            continue
        last_block = size - (outer - 1.0) * block
        last_inner = np.ceil(last_block / array)
        last_array = last_block - (last_inner - 1.0) * array
        s[LAST_BLOCK, d], s[LAST_INNER, d], s[LAST_ARRAY, d] = last_block, last_inner, last_array
        s[TILES, d] = (outer - 1.0) * inner + last_inner
        s[FIRST_ACTIVE, d] = np.ceil(min(array, size) / tile)
        s[BLOCK_ACTIVE, d] = (outer - 1.0) * pes + np.ceil(min(array, last_block) / tile)
        s[ALL_ACTIVE, d] = (s[TILES, d] - 1.0) * pes + np.ceil(last_array / tile)
        covered &= 0.0 < last_block <= block and (outer > 1.0 or last_inner == inner)
    return covered


@kernel
def innermost(tensor: int, code: Ints, order: int, s: Floats, bounds: int) -> int:
    """(3) Position of the innermost loop that moves over the tensor and runs more than once.

    Args:
        tensor: W, I or O.
        code: as `Mapping.encode`.
        order: where the loop order begins in the code.
        s: scratch of `prepare`.
        bounds: row of the scratch with the iterations of the loops.

    Returns:
        -1 where there is none.
    """
    for position in range(7, -1, -1):
        d = code[order + position]
        if _MASK[tensor] >> d & 1 and s[bounds, d] > 1.0:
            return position
    return -1


@kernel
def extent_sum(s: Floats, d: int) -> float:
    """(4) Sum of a loop's tile extents over the buffer tiles that `PART` names."""
    if s[PART, d] == ALL:
        return float(s[SIZE, d])
    if s[PART, d] == FULL:
        return float((s[OUTER, d] - 1.0) * s[BLOCK, d])
    return float(s[LAST_BLOCK, d])


@kernel
def tile_list(s: Floats, d: int, per_pe: bool) -> tuple[float, float, float]:
    """(5) Extents that the array tiles (or register tiles, `per_pe`) of a loop take.

    Returns:
        How many whole tiles, their extent, and the extent of the one odd tile, 0 where there is
        none.
    """
    if s[PART, d] == ALL:
        whole = s[TILES, d]
    elif s[PART, d] == FULL:
        whole = (s[OUTER, d] - 1.0) * s[INNER, d]
    else:
        whole = s[LAST_INNER, d]
    extent, odd = s[ARRAY, d], 0.0
    if s[PART, d] != FULL and s[LAST_ARRAY, d] != extent:
        whole, odd = whole - 1.0, s[LAST_ARRAY, d]
    if not per_pe:
        return whole, extent, odd
    tile = s[TILE, d]
    whole *= s[PES, d]
    if odd > 0.0:  # the odd array tile fills some PEs and leaves one more with a part
        filled = np.floor(odd / tile)
        whole, odd = whole + filled, odd - filled * tile
    return whole, tile, odd


@kernel
def block_list(s: Floats, d: int) -> tuple[float, float, float]:
    """(5) The extents that the buffer tiles of a loop take, as `tile_list`."""
    if s[LAST_BLOCK, d] == s[BLOCK, d]:
        return s[OUTER, d], s[BLOCK, d], 0.0
    return s[OUTER, d] - 1.0, s[BLOCK, d], s[LAST_BLOCK, d]


@kernel
def rows_sum(
    a: tuple[float, float, float], b: tuple[float, float, float], stride: float, dilation: float
) -> float:
    """(6) Sum of `distinct_rows` over every pair of an output tile and a kernel tile.

    Args:
        a: output tiles, as `tile_list`.
        b: kernel tiles, as `tile_list`.
        stride: of the outputs.
        dilation: of the kernel.
    """
    total = a[0] * b[0] * distinct_rows(a[1], b[1], stride, dilation)
    if a[2] > 0.0:
        total += b[0] * distinct_rows(a[2], b[1], stride, dilation)
    if b[2] > 0.0:
        total += a[0] * distinct_rows(a[1], b[2], stride, dilation)
        if a[2] > 0.0:
            total += distinct_rows(a[2], b[2], stride, dilation)
    return float(total)


@kernel
def moved_words(tensor: int, s: Floats, layer: LayerRecord, per_pe: bool) -> float:
    """(7) Words of all array (or register) tiles of a tensor, each tile taken once.

    Input rows overlap inside a tile only. A tensor of which there are several copies counts once.
    """
    if tensor == I:
        rows = rows_sum(
            tile_list(s, P, per_pe), tile_list(s, R, per_pe), layer.row_stride, layer.row_dilation
        )
        columns = rows_sum(
            tile_list(s, Q, per_pe),
            tile_list(s, S, per_pe),
            layer.column_stride,
            layer.column_dilation,
        )
        return extent_sum(s, G) * extent_sum(s, N) * extent_sum(s, C) * rows * columns
    product = 1.0
    for d in range(8):
        if _MASK[tensor] >> d & 1:
            product *= extent_sum(s, d)
    return product


@kernel
def block_words(tensor: int, s: Floats, layer: LayerRecord) -> float:
    """(7) Words of all buffer tiles of a tensor, each tile taken once."""
    if tensor == I:
        rows = rows_sum(block_list(s, P), block_list(s, R), layer.row_stride, layer.row_dilation)
        columns = rows_sum(
            block_list(s, Q), block_list(s, S), layer.column_stride, layer.column_dilation
        )
        return float(s[SIZE, G] * s[SIZE, N] * s[SIZE, C] * rows * columns)
    words = 1.0
    for d in range(8):
        if _MASK[tensor] >> d & 1:
            words *= s[SIZE, d]
    return words


@kernel
def block_traffic(tensor: int, s: Floats, layer: LayerRecord, code: Ints) -> float:
    """(8) Words between DRAM and a buffer that keeps one tile of the tensor.

    All tiles once, times the loops that do not move over the tensor and are outside the innermost
    one that does.
    """
    words = block_words(tensor, s, layer)
    for position in range(innermost(tensor, code, DRAM_ORDER, s, OUTER)):
        d = code[DRAM_ORDER + position]
        if not _MASK[tensor] >> d & 1:
            words *= s[OUTER, d]
    return float(words)


@kernel
def refetches(tensor: int, s: Floats, code: Ints, inner: int) -> tuple[float, float]:
    """(9) How often the loops that do not move over the tensor repeat its array tiles.

    Args:
        tensor: W, I or O.
        s: scratch of `prepare`.
        code: as `Mapping.encode`.
        inner: position of the innermost buffer loop that moves over the tensor, as `innermost`.

    Returns:
        The repetitions, and their sum over the active PEs.
    """
    times, active = 1.0, 1.0
    if inner >= 0:
        for position in range(8):
            d = code[BUFFER_ORDER + position]
            if not _MASK[tensor] >> d & 1:
                times *= s[TILES, d] if position < inner else s[OUTER, d]
                active *= s[ALL_ACTIVE, d] if position < inner else s[BLOCK_ACTIVE, d]
        return times, active
    # Nothing inside a buffer tile moves over the tensor: reuse reaches across buffer tiles.
    outer = innermost(tensor, code, DRAM_ORDER, s, OUTER)
    for position in range(8):
        d = code[DRAM_ORDER + position]
        if not _MASK[tensor] >> d & 1:
            times *= s[OUTER, d] if position < outer else 1.0
            active *= s[BLOCK_ACTIVE, d] if position < outer else s[FIRST_ACTIVE, d]
    return times, active


@kernel
def mark_special(tensor: int, s: Floats) -> int:
    """Bits of the loops over the tensor whose last buffer tile holds a single array tile.

    Also sets `BOUND` and `PART` of every loop for an equation over all buffer tiles.
    """
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
def array_traffic(tensor: int, s: Floats, layer: LayerRecord, code: Ints) -> tuple[float, float]:
    """(10) Words into (or, for outputs, out of) the array, and the same counted at every PE.

    The innermost loop that moves over the tensor decides what is refetched. Where its last buffer
    tile holds a single array tile, the tensor rests there: that tile is looked at by itself, and
    the next loop outside decides. So n such loops make n + 1 parts, nearly always one.
    """
    for d in range(8):
        s[BOUND, d], s[PART, d] = s[INNER, d], ALL
    words, delivered = 0.0, 0.0
    while True:
        position, rests = innermost(tensor, code, BUFFER_ORDER, s, BOUND), -1
        if position >= 0:
            d = code[BUFFER_ORDER + position]
            if s[LAST_INNER, d] == 1.0 and s[OUTER, d] > 1.0:
                rests, s[PART, d] = d, FULL
        times, active = refetches(tensor, s, code, position)
        moved = moved_words(tensor, s, layer, False)
        words += times * moved
        delivered += active * (moved_words(tensor, s, layer, True) if tensor == I else moved)
        if rests < 0:
            return words, delivered
        s[PART, rests], s[BOUND, rests] = LAST, 1.0


@kernel
def compute_cycles(s: Floats) -> float:
    """(11) Steps of the slowest PE, the first one: it is never idle, and no tile is larger."""
    cycles = 1.0
    for d in range(8):
        cycles *= (s[TILES, d] - 1.0) * s[TILE, d] + min(s[TILE, d], s[LAST_ARRAY, d])
    return cycles


@kernel
def count(layer: LayerRecord, code: Ints, multicast: bool, out: Floats, s: Floats) -> bool:
    """All counts of one mapping.

    Args:
        layer: the loops.
        code: as `Mapping.encode`.
        multicast: False where every PE reads for itself.
        out: receives `COUNTS`.
        s: scratch of shape `SCRATCH`; holds the extents afterwards.

    Returns:
        False where the mapping does not cover the layer, or an iteration has no work.
    """
    if not prepare(layer, code, s):
        return False
    operations, outputs, started = 1.0, 1.0, 1.0
    for d in range(8):
        operations *= s[SIZE, d]
        if _MASK[O] >> d & 1:
            outputs *= s[SIZE, d]
        else:
            started *= s[FIRST_ACTIVE, d]
    out[OPERATIONS], out[CYCLES] = operations, compute_cycles(s)
    for tensor in range(2):
        copies = layer.copies[tensor]
        words, delivered = array_traffic(tensor, s, layer, code)
        words = words if multicast else delivered
        bypassed = code[BYPASS] >> tensor & 1
        block = words if bypassed else block_traffic(tensor, s, layer, code)
        out[DRAM_W + tensor], out[ARRAY_W + tensor] = block * copies, words * copies
        out[DELIVERED_W + tensor] = delivered * copies
    # Outputs leave n times and come back whenever they were here before: n less the first visits.
    words, delivered = array_traffic(O, s, layer, code)
    block = words if code[BYPASS] & 4 else block_traffic(O, s, layer, code)
    out[DRAM_O], out[DRAM_SUM_READS] = block, block - outputs
    out[ARRAY_O], out[ARRAY_SUM_READS], out[DELIVERED_O] = words, words - outputs, delivered
    out[STARTED], out[RESTORED] = outputs * started, delivered - outputs * started
    return True
