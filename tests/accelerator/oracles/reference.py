"""The counts by another way: NumPy over every step of the nest, no closed form of reuse.

Volumes are computed by formula, reuse by comparing the tile names of neighbouring steps. Together
with the walk (coordinates, no formula at all) it checks the kernels in the tests.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from pliant.accelerator.chip import DIMS
from pliant.accelerator.mapping import RELEVANT, Mapping, layer_sizes
from pliant.accelerator.model.counts import COUNTS
from pliant.workload import Layer

Array = NDArray[np.float64]


def reference_counts(layer: Layer, mapping: Mapping, *, multicast: bool = True) -> dict[str, int]:
    """What the nest moves, by the names of `counts.COUNTS`.

    Args:
        layer: every step of its nest becomes a row of an array.
        mapping: covers the layer.
        multicast: False where every PE reads for itself.
    """
    outer, inner, block, array = _steps(layer, mapping)
    result = dict.fromkeys(COUNTS, 0.0)
    result["operations"] = float(array.prod(axis=1).sum())
    result["compute_cycles"] = float(np.minimum(array, mapping.register).prod(axis=1).sum())
    for tensor in "WIO":
        moves = [DIMS.index(dim) for dim in RELEVANT[tensor]]
        new_block = _changes(outer[:, moves])
        new_tile = _changes(np.hstack([outer, inner])[:, moves + [8 + d for d in moves]])
        inputs = len(layer.inputs) if layer.kind == "elementwise" else 1
        scale = {"W": int(layer.weighted), "I": inputs, "O": 1}[tensor]
        union = scale * _volume(tensor, layer, array[:, :, None], np.ones_like(array)[:, :, None])
        parts, counts = _pe_parts(array, mapping)
        sent = scale * _volume(tensor, layer, parts, counts)
        words = float((union if multicast or tensor == "O" else sent)[new_tile].sum())
        delivered = float(sent[new_tile].sum())
        blocks = float(
            scale
            * _volume(tensor, layer, block[:, :, None], np.ones_like(block)[:, :, None])[
                new_block
            ].sum()
        )
        crossing = words if tensor in mapping.bypass else blocks
        if tensor == "O":
            outputs = float(np.prod([layer_sizes(layer)[d] for d in moves]))
            first = np.zeros(len(outer), dtype=bool)
            first[
                np.unique(
                    np.hstack([outer, inner])[:, moves + [8 + d for d in moves]],
                    axis=0,
                    return_index=True,
                )[1]
            ] = True
            started = float(sent[first].sum())
            result |= {"dram_output_writes": crossing, "dram_sum_reads": crossing - outputs}
            result |= {"array_output_writes": words, "array_sum_reads": words - outputs}
            result |= {
                "delivered_sums": delivered,
                "started_sums": started,
                "restored_sums": delivered - started,
            }
        else:
            name = "weight" if tensor == "W" else "input"
            result |= {
                f"dram_{name}_reads": crossing,
                f"array_{name}_reads": words,
                f"delivered_{name}s": delivered,
            }
    return {name: round(value) for name, value in result.items()}


def _steps(layer: Layer, mapping: Mapping) -> tuple[Array, Array, Array, Array]:
    """Of every step with work, by loop: indices of buffer tile and array tile, extents of both."""
    bounds = [mapping.dram[DIMS.index(dim)] for dim in mapping.dram_order] + [
        mapping.buffer[DIMS.index(dim)] for dim in mapping.buffer_order
    ]
    index = np.stack(np.unravel_index(np.arange(int(np.prod(bounds))), bounds), axis=1).astype(
        np.float64
    )
    outer = index[:, [mapping.dram_order.index(dim) for dim in DIMS]]
    inner = index[:, [8 + mapping.buffer_order.index(dim) for dim in DIMS]]
    tile = np.array(mapping.register, dtype=np.float64) * mapping.pes
    whole = tile * mapping.buffer
    block = np.minimum(whole, layer_sizes(layer) - outer * whole)
    array = np.minimum(tile, block - inner * tile)
    work = (array > 0).all(axis=1)
    return outer[work], inner[work], block[work], array[work]


def _changes(names: Array) -> NDArray[np.bool_]:
    changed = np.ones(len(names), dtype=bool)
    changed[1:] = (names[1:] != names[:-1]).any(axis=1)
    return changed


def _pe_parts(array: Array, mapping: Mapping) -> tuple[Array, Array]:
    """Extents that the PEs take of a tile, and how many PEs take each; shape (steps, 8, 2).

    Whole register tiles, and the rest.
    """
    tile = np.array(mapping.register, dtype=np.float64)
    whole = np.floor(array / tile)
    rest = array - whole * tile
    return np.stack([np.broadcast_to(tile, array.shape), rest], axis=2), np.stack(
        [whole, (rest > 0).astype(np.float64)], axis=2
    )


def _volume(tensor: str, layer: Layer, extents: Array, counts: Array) -> Array:
    """Words of a tensor, summed over all combinations of extents, weighted; shape (steps,)."""
    d = {dim: index for index, dim in enumerate(DIMS)}
    total = (extents * counts).sum(axis=2)
    number = counts.sum(axis=2)
    if tensor != "I":
        return np.prod(
            [total[:, d[dim]] if dim in RELEVANT[tensor] else number[:, d[dim]] for dim in DIMS],
            axis=0,
        )

    def rows(axis: int, out: str, kernel: str) -> Array:
        common = np.gcd(layer.strides[axis], layer.dilations[axis])
        stride, dilation = layer.strides[axis] // common, layer.dilations[axis] // common
        a, b = extents[:, d[out], :, None], extents[:, d[kernel], None, :]
        times = counts[:, d[out], :, None] * counts[:, d[kernel], None, :]
        distinct = a * b - np.maximum(a - dilation, 0) * np.maximum(b - stride, 0)
        return (distinct * times).sum(axis=(1, 2))

    return (
        total[:, d["G"]]
        * total[:, d["N"]]
        * total[:, d["C"]]
        * number[:, d["K"]]
        * rows(0, "P", "R")
        * rows(1, "Q", "S")
    )
