"""What can no design within the resources of a chip go below, whatever its mappings?

    bound = resource_bound(network("mobilenet-v2"), load_chip("eyeriss"))
    most_gain = baseline.energy * baseline.cycles / bound.edp

A search that ends near this bound has nothing left to find; and a published gain that exceeds it
cannot be reached from the same baseline. The bound is simple, and may be far from what is possible:
every PE computes in every cycle, every word crosses each interface once, and memories cost as
little as the smallest ones.
"""

from __future__ import annotations

import math

import numpy as np

from pliant.accelerator.chip import Chip
from pliant.accelerator.hardware_space import (
    LEAST_BUFFER_BYTES,
    LEAST_REGISTER_BYTES,
    Resources,
)
from pliant.accelerator.mapping import layer_sizes
from pliant.accelerator.model.counts import RELEVANCE, I, O, W, layer_record
from pliant.accelerator.network_mapping import NetworkBound
from pliant.workload import Layer, Workload


def resource_bound(workload: Workload, within: Chip, *, bypass: bool = True) -> NetworkBound:
    """The least energy and the least cycles of a network, each by itself.

    Args:
        workload: the layers.
        within: the chip whose resources bound the designs.
        bypass: whether tensors may bypass the buffer.

    Raises:
        RecipeError: the chip has memories without end.
    """
    resources = Resources.of(within)
    energy = cycles = 0.0
    for layer in workload.layers:
        least = _layer_bound(layer, within, resources, bypass)
        energy, cycles = energy + least.energy, cycles + least.cycles
    return NetworkBound(energy, cycles)


def _layer_bound(layer: Layer, within: Chip, resources: Resources, bypass: bool) -> NetworkBound:
    # Loading the kernels takes a second where they are not compiled yet.
    from pliant.accelerator.mapper.problem import least_words

    loops, widths, table = layer_record(layer), within.word_widths, within.energy
    words = least_words(loops)
    operations = float(math.prod(layer_sizes(layer)))
    weights, inputs = words[W] * widths.weight_bits, words[I] * widths.input_bits
    crossing = weights + inputs + words[O] * widths.output_bits
    sums = words[O] * widths.partial_sum_bits
    cycles = max(
        operations / (resources.pes * within.macs_per_pe_per_cycle),
        crossing / (8 * within.dram_bandwidth_bytes_per_cycle),
        0.0 if bypass else crossing / (8 * resources.bandwidth_bytes_per_cycle),
        (weights + inputs + sums) / (8 * within.registers.bandwidth_bytes_per_cycle),
    )
    # First sums are not read: at most one for each output and each PE, and one for each operation.
    started = min(operations, words[O] * min(resources.pes, _reduction(layer)))
    operands = operations * (
        loops["copies"][W] * widths.weight_bits + loops["copies"][I] * widths.input_bits
    )
    accumulated = (2 * operations - started + words[O]) * widths.partial_sum_bits
    registers = operands + accumulated + weights + inputs
    parts = (
        operations * table.mac,
        registers * _least_register_access(within) / table.word_bits,
        (weights + inputs + sums) * table.noc / table.word_bits,
        crossing * table.dram / table.word_bits,
        cycles * table.idle_per_cycle,
        # Both sides of the buffer.
        0.0 if bypass else 2 * crossing * table.buffer_access(LEAST_BUFFER_BYTES) / table.word_bits,
    )
    return NetworkBound(sum(parts), cycles)


def _reduction(layer: Layer) -> float:
    """How many operations each output sums."""
    sizes = np.array(layer_sizes(layer))
    return float(np.prod(sizes[~np.array(RELEVANCE[O], dtype=bool)]))


def _least_register_access(within: Chip) -> float:
    """Energy of a word at the smallest registers that a design or the chip itself has."""
    return within.energy.register_access(min(LEAST_REGISTER_BYTES, within.registers.total_bytes))
