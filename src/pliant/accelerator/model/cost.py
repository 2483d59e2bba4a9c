"""What does a mapping cost? Counts, energy, cycles and capacity, of one mapping or of millions.

cost = evaluate(layer, chip, mapping)      # everything about one
costs = evaluate(layer, chip, codes)       # arrays: energy, cycles, whether it fits
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Literal, overload

import numpy as np
from numpy.typing import NDArray

from pliant.accelerator.chip import Chip
from pliant.accelerator.mapping import ENCODED_LENGTH, Mapping, check_mapping
from pliant.accelerator.model import counts as ct
from pliant.accelerator.model import energy_latency as el
from pliant.accelerator.model import simd
from pliant.accelerator.model.halo import halo_credit
from pliant.accelerator.model.kernels import entry_kernel, kernel
from pliant.accelerator.model.row_threads import over_threads
from pliant.accelerator.model.stall import stall_exact_cycles
from pliant.errors import InfeasibleError, RecipeError
from pliant.workload import Layer

LatencyMode = Literal["roofline", "stall_exact"]
_BLOCK = 65536
"""Mappings that are converted to the kernel's integers at a time."""


@dataclass(frozen=True, slots=True)
class MappingCost:
    """What one mapping of one layer costs."""

    counts: dict[str, int]
    """Words moved, by the names of `counts.COUNTS`."""
    cycles: float
    time_cycles: dict[str, float]
    """Cycles of compute, DRAM, buffer port and network, each as if alone."""
    latency_ms: float
    energy: float
    """In the unit of the chip's energy table."""
    energy_unit: str
    energy_parts: dict[str, float]
    utilisation: float
    """Operations done over operations that the array could have done in this time, 0 to 1."""

    @property
    def edp(self) -> float:
        """Energy times cycles."""
        return self.energy * self.cycles

    @property
    def energy_uj(self) -> float | None:
        """Microjoule; None where the energy table is in ratios."""
        return self.energy * 1e-6 if self.energy_unit == "picojoule" else None

    @property
    def bound_by(self) -> str:
        """What is slowest: compute, dram, buffer or noc."""
        return max(self.time_cycles, key=self.time_cycles.__getitem__)


@dataclass(frozen=True, slots=True)
class MappingCosts:
    """What many mappings of one layer cost; arrays of one length."""

    energy: NDArray[np.float64]
    cycles: NDArray[np.float64]
    fits: NDArray[np.bool_]
    """Whether registers and buffer hold the tiles; energy and cycles are as if they did."""


@overload
def evaluate(
    layer: Layer,
    chip: Chip,
    mapping: Mapping,
    *,
    latency: LatencyMode = ...,
    check_capacity: bool = ...,
    halo: bool = ...,
) -> MappingCost: ...
@overload
def evaluate(layer: Layer, chip: Chip, mapping: NDArray[Any]) -> MappingCosts: ...
def evaluate(
    layer: Layer,
    chip: Chip,
    mapping: Mapping | NDArray[Any],
    *,
    latency: LatencyMode = "roofline",
    check_capacity: bool = True,
    halo: bool = False,
) -> MappingCost | MappingCosts:
    """Counts, cycles and energy of one mapping; an array of codes goes to `evaluate_many`.

    Args:
        layer: the loops; a word is as wide as the chip says, not as the layer.
        chip: the hardware.
        mapping: covers the layer. An array takes none of the options below.
        latency: `roofline` overlaps everything perfectly (a lower bound); `stall_exact` walks
            lock-step double buffering.
        check_capacity: whether tiles that do not fit are an error.
        halo: whether a buffer keeps the overlap of neighbouring input windows where the innermost
            loop above it slides them; stall-exact latency takes no notice of it.

    Raises:
        InfeasibleError: the mapping does not cover the layer, has idle iterations, exceeds a memory
        (which, and by how
            much), or has counts above 2^53.
        RecipeError: options with an array.
    """
    if isinstance(mapping, np.ndarray):
        if latency != "roofline" or halo or not check_capacity:
            raise RecipeError(
                "arrays of mappings are costed by the roofline, without halos, and say which fit. "
                "Leave the options out."
            )
        return evaluate_many(layer, chip, mapping)
    check_mapping(layer, chip, mapping)
    loops, numbers, code = ct.layer_record(layer), el.chip_record(chip), mapping.encode()
    bypass = int(code[ct.BYPASS])
    counts, s = np.zeros(len(ct.COUNTS)), np.zeros(ct.SCRATCH)
    ct.count(loops, code, chip.multicast, counts, s)
    _refuse_inexact(layer, float(counts.max()))
    if halo:
        _credit_halo(layer, chip, mapping, counts)
    if check_capacity:
        partial = el.reduction_is_partial(s)
        _refuse_over_capacity(
            layer,
            chip,
            el.register_excess(loops, s, numbers),
            el.buffer_excess(loops, s, partial, bypass, numbers),
        )
    moved = el.bits_moved(counts, bypass, numbers)
    times, energies = np.zeros(4), np.zeros(6)
    el.times(counts, moved, numbers, times)
    cycles = float(times.max())
    if latency == "stall_exact":
        cycles = stall_exact_cycles(layer, chip, mapping)
    el.energies(counts, moved, loops, cycles, numbers, energies)
    return MappingCost(
        counts={name: int(value) for name, value in zip(ct.COUNTS, counts, strict=True)},
        cycles=cycles,
        time_cycles=dict(zip(el.TIME_PARTS, times.tolist(), strict=True)),
        latency_ms=cycles / chip.clock_mhz * 1e-3,
        energy=float(energies.sum()),
        energy_unit=chip.energy.unit,
        energy_parts=dict(zip(el.ENERGY_PARTS, energies.tolist(), strict=True)),
        utilisation=float(counts[ct.OPERATIONS]) / (cycles * chip.pes * chip.macs_per_pe_per_cycle),
    )


def evaluate_many(layer: Layer, chip: Chip, codes: NDArray[Any]) -> MappingCosts:
    """Energy, roofline cycles and capacity of many mappings.

    Args:
        layer: the loops.
        chip: the hardware.
        codes: rows of `Mapping.encode`, shape (mappings, ENCODED_LENGTH), of any integer type. Rows
            must cover the layer without idle iterations; this is checked, axes and their loops are
            not.

    Raises:
        InfeasibleError: a row does not cover the layer, or counts above 2^53.
    """
    integers = np.issubdtype(codes.dtype, np.integer)
    if codes.ndim != 2 or codes.shape[1] != ENCODED_LENGTH or not integers:
        raise InfeasibleError(
            f"mappings are integers of shape (mappings, {ENCODED_LENGTH}), "
            f"received {codes.dtype} of shape {codes.shape}."
        )
    energy, cycles = np.empty(len(codes)), np.empty(len(codes))
    fits = np.empty(len(codes), dtype=np.bool_)
    layer_numbers, chip_numbers = ct.layer_record(layer), el.chip_record(chip)

    def evaluate_part(rows: slice) -> int:
        for start in range(rows.start, rows.stop, _BLOCK):
            part = slice(start, min(rows.stop, start + _BLOCK))
            own = np.ascontiguousarray(codes[part], dtype=np.int64)
            wrong = evaluate_rows(
                layer_numbers, chip_numbers, own, energy[part], cycles[part], fits[part]
            )
            if wrong >= 0:
                return int(wrong) + start - rows.start
        return -1

    wrong = over_threads(len(codes), evaluate_part)
    if wrong >= 0:
        raise InfeasibleError(
            f"layer {layer.name!r}: mapping {wrong} is none, does not cover the layer exactly, or "
            "its counts exceed 2^53."
        )
    return MappingCosts(energy, cycles, fits)


@entry_kernel
def evaluate_rows(
    layer: Any,
    chip: Any,
    rows: ct.Ints,
    energy: ct.Floats,
    cycles: ct.Floats,
    fits: NDArray[np.bool_],
) -> int:
    """The kernel behind `evaluate_many`: sixteen mappings at a time.

    Args:
        layer: record of the loops.
        chip: record of the hardware.
        rows: encoded mappings.
        energy: receives the energies, shape (mappings,).
        cycles: receives the cycles, shape (mappings,).
        fits: receives whether the tiles fit, shape (mappings,).

    Returns:
        A row that is no mapping of the layer, or -1.
    """
    wrong = -1
    s, work = np.empty(simd.SCRATCH), np.empty(ct.SCRATCH)
    counts, parts = np.empty(15), np.empty(6)
    for start in range(0, len(rows), simd.LANES):
        simd.evaluate_lanes(layer, chip, rows, start, s)
        for lane in range(min(simd.LANES, len(rows) - start)):
            row = start + lane
            energy[row] = s[simd.ENERGY * simd.LANES + lane]
            cycles[row] = s[simd.TIME * simd.LANES + lane]
            fits[row] = s[simd.OVER * simd.LANES + lane] == 0.0
            largest = s[simd.LARGEST * simd.LANES + lane]
            bad = s[simd.BAD * simd.LANES + lane] > 0.0
            if s[simd.SPECIAL * simd.LANES + lane] > 0.0 and not bad:
                ct.count(layer, rows[row], chip.multicast, counts, work)
                largest = counts[ct.OPERATIONS]
                for tensor in range(3):
                    largest = max(largest, counts[ct.DELIVERED_W + tensor])
                energy[row], cycles[row] = el.total_energy_and_cycles(
                    counts, layer, rows[row, ct.BYPASS], chip, parts
                )
            if bad or largest >= el.EXACT:
                wrong = row
    return wrong


@kernel
def well_formed(code: ct.Ints) -> bool:
    """Whether a row is a mapping at all.

    Factors from 1 up, two orders of the eight loops, a set of three tensors.
    """
    least = 1
    for place in range(ct.BUFFER_ORDER):
        least = min(least, code[place])
    orders = 0
    for place in range(ct.BUFFER_ORDER, ct.BYPASS):
        loop = code[place]
        if loop < 0 or loop > 7:
            return False
        orders |= 1 << (loop if place < ct.DRAM_ORDER else loop + 8)
    return bool(least == 1 and orders == 65535 and 0 <= code[ct.BYPASS] < 8)


def _credit_halo(layer: Layer, chip: Chip, mapping: Mapping, counts: ct.Floats) -> None:
    credit = halo_credit(layer, mapping)
    counts[ct.DELIVERED_I] -= credit["pes"]
    counts[ct.ARRAY_I] -= credit["array" if chip.multicast else "pes"]
    if "I" in mapping.bypass:
        counts[ct.DRAM_I] = counts[ct.ARRAY_I]
    else:
        counts[ct.DRAM_I] -= credit["buffer"]


def _refuse_inexact(layer: Layer, largest: float) -> None:
    if not largest < el.EXACT:
        raise InfeasibleError(
            f"layer {layer.name!r}: counts are exact up to 2^53, and this mapping moves "
            f"{largest:.3g} words. Split the layer."
        )


def _refuse_over_capacity(
    layer: Layer, chip: Chip, register_bits: float, buffer_bits: float
) -> None:
    """Refuse a mapping whose tiles exceed a memory by so many bits."""
    for level, bits in (("registers", register_bits), ("buffer", buffer_bits)):
        if bits > 0:
            memory = getattr(chip, level)
            halves = " (half of it, since it is double-buffered)" if memory.double_buffered else ""
            raise InfeasibleError(
                f"layer {layer.name!r}: tiles fit their memory; the {level} of {chip.name!r} hold "
                f"{memory.total_bytes:g} bytes{halves}, and the tiles exceed that by "
                f"{bits / 8:g} bytes."
            )
