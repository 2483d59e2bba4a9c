"""What do given tiles cost with each of the nine loop orders that matter and each of the bypasses?

One pass over the tiles shares what the 72 mappings have in common: the fastest way to evaluate
many.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from pliant.accelerator.chip import Chip
from pliant.accelerator.mapper import bounds as bd
from pliant.accelerator.mapper.mapspace import STATIONARY_ORDERS
from pliant.accelerator.mapping import ENCODED_LENGTH
from pliant.accelerator.model import counts as ct
from pliant.accelerator.model import energy_latency as el
from pliant.accelerator.model.cost import MappingCosts, well_formed
from pliant.accelerator.model.counts import Floats, I, Ints, LayerRecord, O, W, layer_record
from pliant.accelerator.model.energy_latency import ChipRecord, chip_record
from pliant.accelerator.model.kernels import entry_kernel, kernel
from pliant.accelerator.model.row_threads import over_threads
from pliant.errors import InfeasibleError
from pliant.workload import Layer


def evaluate_orders(layer: Layer, chip: Chip, codes: NDArray[Any]) -> MappingCosts:
    """Energy, roofline cycles and capacity of 72 mappings per row.

    Args:
        layer: the loops.
        chip: the hardware.
        codes: rows of `Mapping.encode`, shape (rows, ENCODED_LENGTH); orders and bypasses are not
            read.

    Returns:
        Arrays of shape (rows, 3 inner orders, 3 outer orders, 8 bypasses). Orders are indexed by
        the tensor that they keep in place (W, I, O), bypasses by bits 1, 2, 4 for W, I, O.

    Raises:
        InfeasibleError: a row does not cover the layer, or counts above 2^53.
    """
    if codes.ndim != 2 or codes.shape[1] != ENCODED_LENGTH:
        raise InfeasibleError(
            f"mappings are integers of shape (mappings, {ENCODED_LENGTH}), "
            f"received shape {codes.shape}."
        )
    shape = (len(codes), 3, 3, 8)
    energy, cycles, fits = np.empty(shape), np.empty(shape), np.empty(shape, dtype=np.bool_)
    rows = np.ascontiguousarray(codes, dtype=np.int64)
    numbers = layer_record(layer), chip_record(chip)

    def evaluate_part(part: slice) -> int:
        return int(
            _evaluate_orders(
                *numbers, rows[part], STATIONARY_ORDERS, energy[part], cycles[part], fits[part]
            )
        )

    wrong = over_threads(len(rows), evaluate_part)
    if wrong >= 0:
        raise InfeasibleError(
            f"layer {layer.name!r}: mapping {wrong} does not cover the layer exactly, or its "
            "counts exceed 2^53."
        )
    return MappingCosts(energy, cycles, fits)


@entry_kernel
def _evaluate_orders(
    layer: Any,
    chip: Any,
    rows: Ints,
    orders: Ints,
    energy: Floats,
    cycles: Floats,
    fits: NDArray[np.bool_],
) -> int:
    """The kernel behind `evaluate_orders`.

    Args:
        layer: record of the loops.
        chip: record of the hardware.
        rows: encoded mappings.
        orders: as `STATIONARY_ORDERS`.
        energy: receives the energies, shape (rows, 3, 3, 8).
        cycles: receives the cycles, the same shape.
        fits: receives whether the tiles fit, the same shape.

    Returns:
        A row that is no mapping of the layer, or -1.
    """
    wrong = -1
    s, code = np.empty(ct.SCRATCH), np.empty(65, dtype=np.int64)
    parts = np.empty((3, 3, 3, 2, 4))
    for row in range(len(rows)):
        code[:] = rows[row]
        code[ct.BUFFER_ORDER : ct.DRAM_ORDER] = orders[0]
        code[ct.DRAM_ORDER : ct.BYPASS] = orders[0]
        code[ct.BYPASS] = 0
        if (
            not well_formed(code)
            or not ct.prepare(layer, code, s)
            or tensor_parts(layer, chip, code, orders, s, parts) >= el.EXACT
        ):
            wrong = row
            continue
        compute = ct.compute_cycles(s) / chip.macs_per_cycle
        floor = bd.Floor(bd.constant_energy(layer, s[ct.FIRST_ACTIVE], chip), compute)
        partial, small = el.reduction_is_partial(s), el.register_excess(layer, s, chip) == 0.0
        for bypass in range(8):
            w, i, o = bypass & 1, bypass >> 1 & 1, bypass >> 2
            good = small and el.buffer_excess(layer, s, partial, bypass, chip) == 0.0
            for inner in range(3):
                for outer in range(3):
                    a = parts[W, inner, outer, w]
                    b = parts[I, inner, outer, i]
                    c = parts[O, inner, outer, o]
                    links = max(
                        (a[bd.DRAM_BITS] + b[bd.DRAM_BITS] + c[bd.DRAM_BITS])
                        / chip.dram_bits_per_cycle,
                        (a[bd.PORT_BITS] + b[bd.PORT_BITS] + c[bd.PORT_BITS])
                        / chip.buffer_bits_per_cycle,
                        (a[bd.NOC_BITS] + b[bd.NOC_BITS] + c[bd.NOC_BITS])
                        / chip.noc_bits_per_cycle,
                    )
                    time = max(floor.cycles, links)
                    moved = a[bd.ENERGY] + b[bd.ENERGY] + c[bd.ENERGY]
                    cycles[row, inner, outer, bypass] = time
                    energy[row, inner, outer, bypass] = (
                        floor.energy + moved + time * chip.idle_energy
                    )
                    fits[row, inner, outer, bypass] = good
    return wrong


@kernel
def tensor_parts(
    layer: LayerRecord, chip: ChipRecord, code: Ints, orders: Ints, s: Floats, parts: Floats
) -> float:
    """Energy and bits of each tensor's traffic, by inner order, outer order and bypass.

    Args:
        layer: the loops.
        chip: the hardware.
        code: holds the factors; its orders are overwritten.
        orders: as `STATIONARY_ORDERS`.
        s: scratch, prepared for the code.
        parts: receives the columns of `bounds`, shape (3 tensors, 3 inner, 3 outer, 2, 4).

    Returns:
        The largest count.
    """
    largest, outputs = 0.0, 1.0
    for d in range(8):
        outputs *= s[ct.SIZE, d] if ct.RELEVANCE[O, d] else 1.0
    for tensor in range(3):
        copies = layer.copies[tensor]
        moves_alike = ct.mark_special(tensor, s) == 0
        moved = ct.moved_words(tensor, s, layer, False)
        moved_at_pes = ct.moved_words(tensor, s, layer, True)
        for outer in range(3):
            for position in range(8):
                code[ct.DRAM_ORDER + position] = orders[outer, position]
            block = ct.block_traffic(tensor, s, layer, code) * copies
            for inner in range(3):
                for position in range(8):
                    code[ct.BUFFER_ORDER + position] = orders[inner, position]
                if moves_alike:
                    position = ct.innermost(tensor, code, ct.BUFFER_ORDER, s, ct.BOUND)
                    times, active = ct.refetches(tensor, s, code, position)
                    words, delivered = times * moved * copies, active * moved_at_pes * copies
                else:
                    words, delivered = ct.array_traffic(tensor, s, layer, code)
                    words, delivered = words * copies, delivered * copies
                words = words if chip.multicast or tensor == O else delivered
                largest = max(largest, delivered)
                for bypassed in range(2):
                    part = parts[tensor, inner, outer, bypassed]
                    part[:] = 0.0
                    bd.add_array(tensor, words, delivered, outputs, bypassed == 1, chip, part)
                    if bypassed == 0:
                        bd.add_dram(tensor, block, outputs, chip, part)
    return largest
