"""Words of tiles in plain Python: for explanations and for the machine that stalls."""

from __future__ import annotations

import math
from collections.abc import Sequence

from pliant.accelerator.chip import DIMS
from pliant.accelerator.mapping import RELEVANT
from pliant.accelerator.model.counts import I, W, distinct_rows, layer_record
from pliant.workload import Layer


def tile_words(layer: Layer, tensor: str, extents: Sequence[Sequence[int]]) -> int:
    """(7), (12) Words of the tiles of a tensor, summed over every combination of extents.

    Args:
        layer: the loops.
        tensor: W, I or O. Weights of a layer without any are 0 words, the inputs of an element-wise
            layer are all counted.
        extents: of the tiles, one list for each loop in the order of `DIMS`; with one extent in
            each list they are a single tile.
    """
    record = layer_record(layer)
    of = dict(zip(DIMS, extents, strict=True))
    if tensor == "I":
        rows = _rows(of["P"], of["R"], record["row_stride"], record["row_dilation"])
        columns = _rows(of["Q"], of["S"], record["column_stride"], record["column_dilation"])
        around = math.prod(sum(of[dim]) for dim in "GNC") * len(of["K"])
        return int(record["copies"][I]) * around * rows * columns
    words = int(record["copies"][W]) if tensor == "W" else 1
    for dim in DIMS:
        words *= sum(of[dim]) if dim in RELEVANT[tensor] else len(of[dim])
    return words


def _rows(outputs: Sequence[int], kernels: Sequence[int], stride: float, dilation: float) -> int:
    """(6) Input rows, summed over every pair of an output tile and a kernel tile."""
    total = 0.0
    for p in outputs:
        for r in kernels:
            total += distinct_rows(float(p), float(r), float(stride), float(dilation))
    return int(total)
