"""What tiles cost before all of a mapping is known: the bounds of the mapper, compiled with Numba.

With the spatial split fixed, energy is a sum of a part that depends on the register tile alone and
a part that depends on the buffer tile alone (docs/accelerator.md derives it). This module lists
both kinds of tiles, states what each costs on its own, and adds the two to a lower bound. What a
mapping really costs is asked of the tested model (`exact_value`), so a bound can cost time, never
truth.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np

from pliant.accelerator.model import counts as ct
from pliant.accelerator.model import energy_latency as el
from pliant.accelerator.model.counts import Floats, Ints, LayerRecord, O
from pliant.accelerator.model.energy_latency import ChipRecord
from pliant.accelerator.model.kernels import kernel

# Columns of what a register tile costs, three each for W, I, O: traffic of a tensor if every loop
# outside refetches its array tiles, and if none does; at the array, and summed over the PEs.
ARRAY_FULL, DELIVERED_FULL, ARRAY_ONCE, DELIVERED_ONCE = 0, 3, 6, 9
# Columns of every cost that is added up: energy, bits on DRAM, buffer port and network, and cycles
# of compute.
ENERGY, DRAM_BITS, PORT_BITS, NOC_BITS, COMPUTE = 0, 1, 2, 3, 4


class Floor(NamedTuple):
    """What no mapping of a split can go below."""

    energy: float
    """Of the arithmetic and its operands."""
    cycles: float
    """Of compute."""


class Scratch(NamedTuple):
    """Work space of the model's equations."""

    s: Floats
    """Extents, shape `counts.SCRATCH`."""
    counts: Floats
    """Shape (15,)."""
    parts: Floats
    """Shape (6,)."""


Powers = tuple[float, float]
"""Of energy and of cycles in the objective."""


class Goal(NamedTuple):
    """What is minimised, and what may not get worse by it."""

    powers: Powers
    """Of energy and of cycles."""
    held: Powers
    """Of the objective that came first, and stays at its optimum."""
    cap: float
    """Its value may be at most this; infinite where nothing came first."""


@kernel
def objective(energy: float, cycles: float, powers: Powers) -> float:
    """energy^a cycles^b."""
    if powers[0] == 1.0 and powers[1] == 1.0:
        return energy * cycles
    if powers[0] == 1.0 and powers[1] == 0.0:
        return energy
    if powers[0] == 0.0 and powers[1] == 1.0:
        return cycles
    return float(energy ** powers[0] * cycles ** powers[1])


@kernel
def value_of(energy: float, cycles: float, goal: Goal) -> float:
    """What is minimised; infinite where the objective that came first would get worse.

    It grows with energy and with cycles, so that of lower bounds it makes a lower bound.
    """
    if goal.cap < np.inf and objective(energy, cycles, goal.held) > goal.cap:
        return float(np.inf)
    return objective(energy, cycles, goal.powers)


@kernel
def add_array(
    tensor: int,
    words: float,
    delivered: float,
    outputs: float,
    bypassed: bool,
    chip: ChipRecord,
    out: Floats,
) -> None:
    """(16) to (18) Adds the cost of traffic between the array and the buffer (or DRAM).

    Args:
        tensor: W, I or O.
        words: into, or for outputs out of, the array.
        delivered: the same summed over the PEs.
        outputs: words of the output tensor.
        bypassed: whether the tensor goes past the buffer.
        chip: the hardware.
        out: energy and bits by the columns above.
    """
    if tensor == O:
        bits = el.output_traffic(words, outputs, chip.output_bits, chip.sum_bits)
        noc = (delivered + words - outputs) * chip.sum_bits
        # An accumulator is read when it leaves and written when it comes back; those that begin at
        # zero are in `constant_energy`.
        registers = 2.0 * delivered * chip.sum_bits
    else:
        bits, noc = words * chip.bits[tensor], delivered * chip.bits[tensor]
        registers = noc
    per_bit = chip.dram_energy if bypassed else chip.buffer_energy
    out[ENERGY] += bits * per_bit + noc * chip.noc_energy + registers * chip.register_energy
    out[DRAM_BITS] += bits if bypassed else 0.0
    out[PORT_BITS] += 0.0 if bypassed else bits
    out[NOC_BITS] += noc


@kernel
def add_dram(tensor: int, words: float, outputs: float, chip: ChipRecord, out: Floats) -> None:
    """(16) to (18) Adds the cost of traffic between the buffer and DRAM; as `add_array`."""
    bits = (
        el.output_traffic(words, outputs, chip.output_bits, chip.sum_bits)
        if tensor == O
        else words * chip.bits[tensor]
    )
    out[ENERGY] += bits * (chip.dram_energy + chip.buffer_energy)
    out[DRAM_BITS] += bits


@kernel
def constant_energy(layer: LayerRecord, pes: Ints, chip: ChipRecord) -> float:
    """(18) Energy that no mapping of a split changes: operations and their operands.

    Args:
        layer: the loops.
        pes: by loop, shape (8,).
        chip: the hardware.
    """
    operations, started = 1.0, 1.0
    for d in range(8):
        operations *= layer.sizes[d]
        started *= layer.sizes[d] if ct.RELEVANCE[O, d] else pes[d]
    operands = chip.bits[ct.W] * layer.copies[ct.W] + chip.bits[ct.I] * layer.copies[ct.I]
    bits = operations * operands + 2.0 * (operations - started) * chip.sum_bits
    return float(operations * chip.mac_energy + bits * chip.register_energy)


@kernel
def bound(floor: Floor, a: Floats, b: Floats, chip: ChipRecord, goal: Goal) -> float:
    """(19) Least value of any mapping whose energies and bits are at least the sum of two parts.

    Args:
        floor: of the split.
        a: energy, bits and cycles by the columns above, shape (5,).
        b: the same.
        chip: the hardware.
        goal: what is minimised.
    """
    return bound_of_sums(
        floor,
        a[ENERGY] + b[ENERGY],
        a[DRAM_BITS] + b[DRAM_BITS],
        a[PORT_BITS] + b[PORT_BITS],
        a[NOC_BITS] + b[NOC_BITS],
        a[COMPUTE] + b[COMPUTE],
        chip,
        goal,
    )


@kernel
def bound_of_sums(
    floor: Floor,
    energy: float,
    dram_bits: float,
    port_bits: float,
    noc_bits: float,
    compute: float,
    chip: ChipRecord,
    goal: Goal,
) -> float:
    """(19) Least value of any mapping with at least so much of everything.

    Args:
        floor: of the split.
        energy: without that of the floor and of idling.
        dram_bits: over DRAM.
        port_bits: over the buffer port.
        noc_bits: over the network.
        compute: cycles.
        chip: the hardware.
        goal: what is minimised.
    """
    total, cycles = least_cost(floor, energy, dram_bits, port_bits, noc_bits, compute, chip)
    return value_of(total, cycles, goal)


@kernel
def least_cost(
    floor: Floor,
    energy: float,
    dram_bits: float,
    port_bits: float,
    noc_bits: float,
    compute: float,
    chip: ChipRecord,
) -> tuple[float, float]:
    """(19) Least energy and cycles of any mapping with at least so much of everything.

    Args:
        floor: of the split.
        energy: without that of the floor and of idling.
        dram_bits: over DRAM.
        port_bits: over the buffer port.
        noc_bits: over the network.
        compute: cycles.
        chip: the hardware.
    """
    cycles = max(
        max(floor.cycles, compute),
        dram_bits / chip.dram_bits_per_cycle,
        port_bits / chip.buffer_bits_per_cycle,
        noc_bits / chip.noc_bits_per_cycle,
    )
    return floor.energy + energy + cycles * chip.idle_energy, cycles


@kernel
def exact_value(
    layer: LayerRecord, chip: ChipRecord, code: Ints, goal: Goal, work: Scratch
) -> float:
    """What a mapping really costs, infinity where it does not fit.

    Args:
        layer: the loops.
        chip: the hardware.
        code: as `Mapping.encode`.
        goal: what is minimised.
        work: scratch.
    """
    s, counts = work.s, work.counts
    ct.count(layer, code, chip.multicast, counts, s)
    bypass = code[ct.BYPASS]
    over = el.register_excess(layer, s, chip)
    over += el.buffer_excess(layer, s, el.reduction_is_partial(s), bypass, chip)
    if over > 0.0:
        return float(np.inf)
    energy, cycles = el.total_energy_and_cycles(counts, layer, bypass, chip, work.parts)
    return value_of(energy, cycles, goal)
