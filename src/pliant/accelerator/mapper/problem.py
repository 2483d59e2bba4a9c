"""What a search of one layer is asked for, and what no mapping of it can go below."""

from __future__ import annotations

from typing import Final, NamedTuple

import numpy as np

from pliant.accelerator.mapper.bounds import Goal
from pliant.accelerator.mapper.tile_sizes import TileSizes, buffer_counts
from pliant.accelerator.model import counts as ct
from pliant.accelerator.model import energy_latency as el
from pliant.accelerator.model.counts import C, Floats, G, I, Ints, LayerRecord, N, O, P, Q, R, S
from pliant.accelerator.model.energy_latency import ChipRecord
from pliant.accelerator.model.kernels import allocating_kernel, kernel

COMBINATIONS: Final = 24
"""Tensor that the buffer loops keep in place, times set of tensors that bypass the buffer: bit
8 keep + bypass of a mask."""
ALL_TENSORS: Final = 7
"""Bits 1, 2, 4 of the tensors W, I, O."""


class Problem(NamedTuple):
    """What a search of one layer is asked for; the same for all splits."""

    layer: LayerRecord
    chip: ChipRecord
    goal: Goal
    """What is minimised."""
    below: float
    """A mapping has to be below this share of the best so far: a little less than 1, or 1 - gap."""
    orders: Ints
    """The loop order that keeps each tensor in place, one row each for W, I, O; shape (3, 8)."""
    combinations: int
    """Bits of the combinations that may be searched and that fit at all."""
    keep_outer: int
    """Bits 1, 2, 4 of the tensors W, I, O that DRAM loops may keep in place."""
    least: Floats
    """Words of each tensor, shape (3,): what has to move at least once."""
    dram: Floats
    """Fewest bits over DRAM for each bypass, shape (8,), as `least_dram_bits`."""
    curved: Ints
    """1 for loops whose tile sizes change the sum of input rows even where as many; shape (8,)."""
    ragged: bool
    """Whether tiles need not divide; without, the search is a fast first guess."""
    sizes: TileSizes
    """The tile sizes of every loop, for every number of PEs that it is spread over."""
    many: int
    """Register tiles of a split above which the buffer tiles that could win are listed first."""


class Split(NamedTuple):
    """One spatial split."""

    pes: Ints
    """PEs by loop, shape (8,)."""
    rounds: Ints
    """Rounds of the array over each loop, shape (8,)."""
    rows: Ints
    """Row of each loop in the tile sizes, shape (8,)."""


class Incumbent(NamedTuple):
    """The best mapping so far, and what the search counted; all are written in place."""

    value: Floats
    """Of the objective, shape (1,); infinite at first."""
    code: Ints
    """As `Mapping.encode`, shape (65,)."""
    evaluated: Ints
    """Mappings costed exactly, shape (1,)."""


@kernel
def to_beat(problem: Problem, incumbent: Incumbent) -> float:
    """What the bound of a mapping that is worth a look has to be below."""
    return float(incumbent.value[0] * problem.below)


@allocating_kernel
def curved_loops(layer: LayerRecord) -> Ints:
    """Loops along which the sum of (1) over tiles depends on more than their number."""
    curved = np.zeros(8, dtype=np.int64)
    curved[P], curved[R] = layer.row_dilation > 1.0, layer.row_stride > 1.0
    curved[Q], curved[S] = layer.column_dilation > 1.0, layer.column_stride > 1.0
    return curved


@allocating_kernel
def least_words(layer: LayerRecord) -> Floats:
    """Words of each tensor, shape (3,): what has to move at least once."""
    s = np.empty(ct.SCRATCH)
    for d in range(8):
        s[ct.EXTENT, d] = layer.sizes[d]
    least = np.empty(3)
    for tensor in range(3):
        least[tensor] = el.tile_words(tensor, s, ct.EXTENT, layer)
    return least


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


@allocating_kernel
def least_dram_bits(layer: LayerRecord, chip: ChipRecord, keep_outer: int, least: Floats) -> Floats:
    """(8), (15) Fewest bits over DRAM of the tensors that the buffer keeps, for each bypass.

    Over all buffer tiles that fit, of any extents, so it holds for every spatial split; infinite
    where none fits. Depth first as `buffer_tiles.buffer_tiles`.

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
        counts[d] = buffer_counts(np.int64(layer.sizes[d]), True, outer[d])
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
