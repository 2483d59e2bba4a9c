"""What if a buffer keeps the overlap of neighbouring input windows? Halos, as Timeloop counts them.

Where the innermost loop above a buffer slides the input window (P, Q, R or S), the next tile
overlaps the one that is there, and only its new rows or columns are fetched. The base model
refetches whole tiles.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from itertools import pairwise

from pliant.accelerator.chip import DIMS
from pliant.accelerator.mapping import Mapping, layer_sizes
from pliant.workload import Layer

SLIDING = {"P": ("P", "R"), "R": ("P", "R"), "Q": ("Q", "S"), "S": ("Q", "S")}


def sliding_loop(mapping: Mapping, inside_buffer: bool) -> str | None:
    """The innermost loop above the buffer, if it slides the input window.

    Args:
        mapping: of the layer.
        inside_buffer: ask for the loop above the array instead.
    """
    loops = [dim for dim in mapping.dram_order if mapping.dram[DIMS.index(dim)] > 1]
    if inside_buffer:
        loops += [dim for dim in mapping.buffer_order if mapping.buffer[DIMS.index(dim)] > 1]
    return loops[-1] if loops and loops[-1] in SLIDING else None


def halo_credit(layer: Layer, mapping: Mapping) -> dict[str, int]:
    """Input words that the overlap saves: in the buffer, in the array, and summed over the pes.

    Args:
        layer: the loops.
        mapping: covers the layer.
    """
    credit = {"buffer": 0, "array": 0, "pes": 0}
    if (loop := sliding_loop(mapping, inside_buffer=False)) is not None:
        tiles = {dim: _tiles(layer, mapping, dim, array=False) for dim in DIMS}
        credit["buffer"] = _saved(layer, loop, tiles, mapping.dram[2])
    if (loop := sliding_loop(mapping, inside_buffer=True)) is not None:
        tiles = {dim: _tiles(layer, mapping, dim, array=True) for dim in DIMS}
        repeats = sum(len(block) for block in tiles["K"])
        credit["array"] = _saved(layer, loop, tiles, repeats)
        pes = {
            dim: [[_split(tile, mapping.register[d]) for tile in block] for block in tiles[dim]]
            for d, dim in enumerate(DIMS)
        }
        credit["pes"] = _saved_at_pes(layer, loop, pes, _active(tiles["K"], mapping.register[2]))
    copies = len(layer.inputs) if layer.kind == "elementwise" else 1
    return {level: copies * words for level, words in credit.items()}


def _tiles(layer: Layer, mapping: Mapping, dim: str, array: bool) -> list[list[range]]:
    """Ranges of a loop's tiles; those between which the loop advances by one are in one list."""
    d = DIMS.index(dim)
    size, tile = layer_sizes(layer)[d], mapping.register[d] * mapping.pes[d]
    block = tile * mapping.buffer[d]
    blocks = [range(start, min(start + block, size)) for start in range(0, size, block)]
    if not array:
        return [blocks]
    inner = [
        [range(start, min(start + tile, part.stop)) for start in range(part.start, part.stop, tile)]
        for part in blocks
    ]
    # Where the loop runs over buffer tiles only, its array tiles follow each other across them.
    return inner if mapping.buffer[d] > 1 else [[tile for part in inner for tile in part]]


def _split(tile: range, width: int) -> list[range]:
    return [
        range(start, min(start + width, tile.stop)) for start in range(tile.start, tile.stop, width)
    ]


def _active(blocks: Sequence[Sequence[range]], width: int) -> int:
    return sum(math.ceil(len(tile) / width) for block in blocks for tile in block)


def _rows(layer: Layer, axis: int, outputs: range, kernel: range) -> set[int]:
    """Input rows (axis 0) or columns (axis 1) that a tile reads."""
    stride, dilation = layer.strides[axis], layer.dilations[axis]
    return {out * stride + k * dilation for out in outputs for k in kernel}


def _saved(layer: Layer, loop: str, tiles: dict[str, list[list[range]]], repeats: int) -> int:
    """Overlap of neighbouring tiles along the loop, everything else once, times `repeats`."""
    nested = {
        dim: [[[tile] for tile in block] for block in blocks] for dim, blocks in tiles.items()
    }
    return _saved_at_pes(layer, loop, nested, repeats)


def _saved_at_pes(
    layer: Layer, loop: str, parts: dict[str, list[list[list[range]]]], repeats: int
) -> int:
    out, kernel = SLIDING[loop]
    other = kernel if loop == out else out
    axis = 0 if out == "P" else 1
    overlap = 0
    fixed = [part for block in parts[other] for tile in block for part in tile]
    for block in parts[loop]:
        for before, after in pairwise(block):
            for left, right in zip(before, after, strict=False):
                for rest in fixed:
                    pair = (
                        [(left, rest), (right, rest)]
                        if loop == out
                        else [(rest, left), (rest, right)]
                    )
                    rows = [_rows(layer, axis, *tile) for tile in pair]
                    overlap += len(rows[0] & rows[1])
    across_out, across_kernel = ("Q", "S") if out == "P" else ("P", "R")
    flat = {
        dim: [part for block in parts[dim] for tile in block for part in tile]
        for dim in (across_out, across_kernel)
    }
    across = sum(
        len(_rows(layer, 1 - axis, a, b)) for a in flat[across_out] for b in flat[across_kernel]
    )
    return overlap * across * repeats * layer.G * layer.N * layer.C
