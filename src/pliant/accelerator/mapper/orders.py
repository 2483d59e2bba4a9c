"""What do given tiles cost with each of the nine loop orders that matter and each of the eight bypasses?

One pass over the tiles shares what the 72 mappings have in common; this is the fastest way to evaluate many.
"""

from __future__ import annotations

from typing import Any, Final

import numpy as np
from numba import njit, prange
from numpy.typing import NDArray

from pliant.accelerator.chip import DIMS, Chip
from pliant.accelerator.mapper import bounds as bd
from pliant.accelerator.mapping import ENCODED_LENGTH, TENSORS, stationary_order
from pliant.accelerator.model import counts as ct
from pliant.accelerator.model import energy_latency as el
from pliant.accelerator.model.cost import MappingCosts, layer_code, well_formed
from pliant.accelerator.model.counts import I, O, W
from pliant.errors import InfeasibleError
from pliant.workload import Layer

ORDERS: Final = np.array(
    [[DIMS.index(dim) for dim in stationary_order(tensor)] for tensor in TENSORS]
)
"""The order that keeps each tensor in place, one row a tensor."""
_CHUNK: Final = 512


def evaluate_orders(layer: Layer, chip: Chip, codes: NDArray[Any]) -> MappingCosts:
    """Energy, roofline cycles and capacity of 72 mappings a row; shape (rows, 3 inner, 3 outer, 8 bypasses).

    Args:
        layer: the loops.
        chip: the hardware.
        codes: rows of `Mapping.encode`, shape (rows, ENCODED_LENGTH); their orders and bypasses are not read. Orders are
            indexed by the tensor that they keep in place (W, I, O), bypasses by bits 1, 2, 4 for W, I, O.

    Raises:
        InfeasibleError: a row does not cover the layer, or counts above 2^53.
    """
    if codes.ndim != 2 or codes.shape[1] != ENCODED_LENGTH:
        raise InfeasibleError(
            f"mappings are integers of shape (mappings, {ENCODED_LENGTH}), received shape {codes.shape}."
        )
    shape = (len(codes), 3, 3, 8)
    energy, cycles, fits = np.empty(shape), np.empty(shape), np.empty(shape, dtype=np.bool_)
    rows = np.ascontiguousarray(codes, dtype=np.int64)
    wrong = _evaluate_orders(
        layer_code(layer), el.chip_vector(chip), chip.multicast, rows, ORDERS, energy, cycles, fits
    )
    if wrong >= 0:
        raise InfeasibleError(
            f"layer {layer.name!r}: mapping {wrong} does not cover the layer exactly, or its counts exceed 2^53."
        )
    return MappingCosts(energy, cycles, fits)


@njit(cache=True, parallel=True, error_model="numpy")
def _evaluate_orders(
    layer: Any,
    chip: Any,
    multicast: bool,
    rows: Any,
    orders: Any,
    energy: Any,
    cycles: Any,
    fits: Any,
) -> int:
    wrong = np.full((len(rows) + _CHUNK - 1) // _CHUNK, -1)
    for chunk in prange(len(wrong)):
        s, code, parts = (
            np.empty(ct.SCRATCH),
            np.empty(65, dtype=np.int64),
            np.empty((3, 3, 3, 2, 4)),
        )
        for row in range(chunk * _CHUNK, min((chunk + 1) * _CHUNK, len(rows))):
            code[:] = rows[row]
            (
                code[ct.BUFFER_ORDER : ct.DRAM_ORDER],
                code[ct.DRAM_ORDER : ct.BYPASS],
                code[ct.BYPASS],
            ) = orders[0], orders[0], 0
            if (
                not well_formed(code)
                or not ct.prepare(layer, code, s)
                or tensor_parts(layer, chip, multicast, code, orders, s, parts) >= el.EXACT
            ):
                wrong[chunk] = row
                continue
            compute = ct.compute_cycles(s) / chip[el.RATE]
            constant = bd.constant_energy(layer, s[ct.FIRST_ACTIVE], chip)
            partial, small = el.reduction_is_partial(s), el.register_excess(layer, s, chip) == 0.0
            for bypass in range(8):
                w, i, o = bypass & 1, bypass >> 1 & 1, bypass >> 2
                good = small and el.buffer_excess(layer, s, partial, bypass, chip) == 0.0
                for inner in range(3):
                    for outer in range(3):
                        a, b, c = (
                            parts[W, inner, outer, w],
                            parts[I, inner, outer, i],
                            parts[O, inner, outer, o],
                        )
                        links = max(
                            (a[1] + b[1] + c[1]) / chip[el.BW_DRAM],
                            (a[2] + b[2] + c[2]) / chip[el.BW_BUFFER],
                        )
                        time = max(compute, links, (a[3] + b[3] + c[3]) / chip[el.BW_NOC])
                        cycles[row, inner, outer, bypass] = time
                        energy[row, inner, outer, bypass] = (
                            constant + a[0] + b[0] + c[0] + time * chip[el.E_IDLE]
                        )
                        fits[row, inner, outer, bypass] = good
    return int(wrong.max()) if len(wrong) else -1


@ct.kernel
def tensor_parts(
    layer: Any, chip: Any, multicast: bool, code: Any, orders: Any, s: Any, parts: Any
) -> float:
    """Energy and bits on DRAM, port and network of each tensor, by inner order, outer order and bypass; returns the largest count."""
    stride, dilation, largest, outputs = float(layer[8]), float(layer[9]), 0.0, 1.0
    for d in range(8):
        outputs *= s[ct.SIZE, d] if ct.RELEVANCE[O, d] else 1.0
    for tensor in range(3):
        scale = 1.0 if tensor == O else float(layer[10 + tensor])
        moves_alike = ct.mark_special(tensor, s) == 0
        moved = ct.moved_words(tensor, s, stride, dilation, False)
        at_elements = ct.moved_words(tensor, s, stride, dilation, True)
        for outer in range(3):
            for position in range(8):
                code[ct.DRAM_ORDER + position] = orders[outer, position]
            block = ct.block_traffic(tensor, s, stride, dilation, code) * scale
            for inner in range(3):
                for position in range(8):
                    code[ct.BUFFER_ORDER + position] = orders[inner, position]
                if moves_alike:
                    times, elements = ct.refetches(tensor, s, code)
                    words, sent = times * moved * scale, elements * at_elements * scale
                else:
                    words, sent = ct.array_traffic(tensor, s, stride, dilation, code)
                    words, sent = words * scale, sent * scale
                words = words if multicast or tensor == O else sent
                largest = max(largest, sent)
                for bypassed in range(2):
                    part = parts[tensor, inner, outer, bypassed]
                    part[:] = 0.0
                    bd.add_array(tensor, words, sent, outputs, bypassed == 1, chip, part)
                    if bypassed == 0:
                        bd.add_dram(tensor, block, outputs, chip, part)
    return largest
