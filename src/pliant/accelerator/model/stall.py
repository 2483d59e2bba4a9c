"""How long does a nest take when transfers and work overlap only as far as the memories allow?

The machine runs in lock-step. While the array works on one tile, the network brings what the next
tile needs and takes away the outputs of the last one; a step lasts as long as the longer of the two
(their sum, where the memory has no second half). The first tile of a buffer tile can be fetched
only when the buffer tile is there, and its last outputs leave before it does. One level up, DRAM
does the same with buffer tiles. Every tile takes the time of a full one, so ragged edges make this
an upper bound; factors that divide make it exact. Partial sums move at full width.

Steps are not walked: they fall into classes by the loop that brought them and the loop that ends
them, a handful a level, and each class is counted. `walk_stall` of the tests walks them.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from pliant.accelerator.chip import DIMS, Chip
from pliant.accelerator.mapping import RELEVANT, TENSORS, Mapping, layer_sizes
from pliant.accelerator.model.tiles import tile_words
from pliant.workload import Layer


@dataclass(frozen=True, slots=True)
class Slot:
    """Equal steps of a nest, counted."""

    before: int | None
    """The loop that advanced before them; None at the start."""
    after: int | None
    """The loop that advances after them; None at the end."""
    again: bool
    """Whether a reduction loop (C, R, S) is past its first iteration: outputs were here before."""
    again_after: bool
    """The same for the step that follows."""
    times: int


def step_classes(bounds: Sequence[int], sums: Sequence[bool]) -> Iterator[Slot]:
    """The classes of a nest's steps, empty ones left out.

    Args:
        bounds: of the loops that run more than once, outermost first.
        sums: for each, whether it adds to the same outputs.
    """
    if not bounds:
        yield Slot(None, None, False, False, 1)
        return
    m = len(bounds) - 1
    at_start = [
        math.prod(b for b, s in zip(bounds[:a], sums[:a], strict=True) if not s)
        for a in range(m + 1)
    ]
    outer = [math.prod(bounds[:a]) for a in range(m + 1)]
    yield Slot(None, m, False, sums[m], 1)
    yield Slot(m, None, any(sums), False, 1)
    yield from _split(
        m, m, outer[m] * (bounds[m] - 2), 0 if sums[m] else at_start[m] * (bounds[m] - 2), same=True
    )
    for a in range(m):
        total = outer[a] * (bounds[a] - 1)
        fresh = 0 if sums[a] else at_start[a] * (bounds[a] - 1)
        # The loop a advanced, everything inside it starts again, then the innermost loop advances.
        for again, times in ((False, fresh), (True, total - fresh)):
            if times:
                yield Slot(a, m, again, again or sums[m], times)
        # Everything inside the loop a is at its end, then a advances.
        ended_fresh = 0 if any(sums[a + 1 :]) else at_start[a] * (1 if sums[a] else bounds[a] - 1)
        for again, again_after, times in (
            (False, sums[a], ended_fresh),
            (True, False, 0 if sums[a] else fresh - ended_fresh),
            (True, True, total - (ended_fresh if sums[a] else fresh)),
        ):
            if times:
                yield Slot(m, a, again, again_after, times)


def _split(before: int, after: int, total: int, fresh: int, same: bool) -> Iterator[Slot]:
    for again, times in ((False, fresh), (True, total - fresh)):
        if times:
            yield Slot(before, after, again, again and same, times)


@dataclass(frozen=True, slots=True)
class Tiles:
    """Transfer of one full tile a tensor, in cycles of each link."""

    port: dict[str, float]
    """Buffer port and network, whichever is slower; 0 for a tensor that bypasses the buffer."""
    bypass: dict[str, float]
    """DRAM, for tensors that bypass the buffer."""
    dram: dict[str, float]
    """DRAM, a buffer tile."""
    compute: float


def stall_exact_cycles(layer: Layer, chip: Chip, mapping: Mapping) -> float:
    """Cycles of the lock-step machine.

    Args:
        layer: the loops.
        chip: bandwidths and which memories are double-buffered.
        mapping: covers the layer.
    """
    return _Machine(layer, chip, mapping).cycles()


class _Machine:
    """Both levels of the machine for one mapping."""

    def __init__(self, layer: Layer, chip: Chip, mapping: Mapping) -> None:
        self.chip, self.tiles = chip, full_tiles(layer, chip, mapping)
        self.outer = [
            (dim, mapping.dram[DIMS.index(dim)])
            for dim in mapping.dram_order
            if mapping.dram[DIMS.index(dim)] > 1
        ]
        self.inner = [
            (dim, mapping.buffer[DIMS.index(dim)])
            for dim in mapping.buffer_order
            if mapping.buffer[DIMS.index(dim)] > 1
        ]
        self.bypass = mapping.bypass
        self.moves_inside = {t for t in TENSORS if any(dim in RELEVANT[t] for dim, _ in self.inner)}

    def cycles(self) -> float:
        dram = self.tiles.dram
        total = dram["W"] + dram["I"]
        for slot in step_classes(
            [b for _, b in self.outer], [dim in "CRS" for dim, _ in self.outer]
        ):
            changed_before, changed_after = (
                self._changed(self.outer, slot.before),
                self._changed(self.outer, slot.after),
            )
            work, bypassed = self._block(slot, changed_before, changed_after)
            moved = bypassed + sum(
                dram[t] for t in "WI" if slot.after is not None and t in changed_after
            )
            moved += dram["O"] * (
                slot.after is not None and "O" in changed_after and slot.again_after
            )
            moved += dram["O"] * (slot.before is not None and "O" in changed_before)
            total += slot.times * _overlap(work, moved, self.chip.buffer.double_buffered)
        return total + dram["O"]

    def _block(
        self, slot: Slot, changed_before: set[str], changed_after: set[str]
    ) -> tuple[float, float]:
        """Cycles of one buffer tile in the array, and of DRAM for tensors past the buffer."""
        enters = changed_before | self.moves_inside if slot.before is not None else set(TENSORS)
        leaves = slot.after is None or "O" in changed_after | self.moves_inside
        total, bypassed = self._transfer(
            [t for t in TENSORS if t in enters and (t != "O" or slot.again)], 0
        )
        last = self._transfer([], int(leaves))
        total, bypassed = total + last[0], bypassed + last[1]
        for step in step_classes(
            [b for _, b in self.inner], [dim in "CRS" for dim, _ in self.inner]
        ):
            before, after = (
                self._changed(self.inner, step.before),
                self._changed(self.inner, step.after),
            )
            loads = [
                t
                for t in TENSORS
                if step.after is not None
                and t in after
                and (t != "O" or slot.again or step.again_after)
            ]
            moved, skipped = self._transfer(loads, int(step.before is not None and "O" in before))
            total += step.times * _overlap(
                self.tiles.compute, moved, self.chip.registers.double_buffered
            )
            bypassed += step.times * skipped
        return total, bypassed

    def _transfer(self, loads: Sequence[str], drains: int) -> tuple[float, float]:
        """Cycles of one exchange with the array, and the part of DRAM in it."""
        port = sum(self.tiles.port[t] for t in loads) + drains * self.tiles.port["O"]
        skipped = sum(self.tiles.bypass[t] for t in loads) + drains * self.tiles.bypass["O"]
        return max(port, skipped), skipped

    @staticmethod
    def _changed(loops: Sequence[tuple[str, int]], advanced: int | None) -> set[str]:
        """Tensors whose tile changes when a loop advances and those inside it start again."""
        if advanced is None:
            return set()
        return {t for t in TENSORS if any(dim in RELEVANT[t] for dim, _ in loops[advanced:])}


def _overlap(work: float, moved: float, double_buffered: bool) -> float:
    return max(work, moved) if double_buffered else work + moved


def full_tiles(layer: Layer, chip: Chip, mapping: Mapping) -> Tiles:
    """Cycles that one full tile of each tensor takes on each link, and one step of the array."""
    sizes = layer_sizes(layer)
    array = [min(mapping.register[d] * mapping.pes[d], sizes[d]) for d in range(8)]
    block = [
        min(mapping.register[d] * mapping.pes[d] * mapping.buffer[d], sizes[d]) for d in range(8)
    ]
    widths = chip.word_widths
    sum_loops = [DIMS.index(dim) for dim in "CRS"]
    waits_in_array = any(mapping.buffer[d] * mapping.dram[d] > 1 for d in sum_loops)
    waits_in_buffer = any(mapping.dram[d] > 1 for d in sum_loops)
    bits = {
        "W": widths.weight_bits,
        "I": widths.input_bits,
        "O": widths.partial_sum_bits if waits_in_array else widths.output_bits,
    }
    dram_bits = bits | {"O": widths.partial_sum_bits if waits_in_buffer else widths.output_bits}
    port, skipped, dram = {}, {}, {}
    for t in TENSORS:
        union = tile_words(layer, t, [[extent] for extent in array])
        delivered = tile_words(layer, t, _pe_extents(array, mapping))
        read = bits[t] / 8 * (union if chip.multicast or t == "O" else delivered)
        inside = t not in mapping.bypass
        noc_bits = widths.partial_sum_bits if t == "O" else bits[t]
        port[t] = max(
            read / chip.buffer.bandwidth_bytes_per_cycle * inside,
            delivered * noc_bits / 8 / chip.registers.bandwidth_bytes_per_cycle,
        )
        skipped[t] = 0.0 if inside else read / chip.dram_bandwidth_bytes_per_cycle
        held = tile_words(layer, t, [[extent] for extent in block]) * dram_bits[t] / 8
        dram[t] = held / chip.dram_bandwidth_bytes_per_cycle if inside else 0.0
    compute = (
        math.prod(min(mapping.register[d], sizes[d]) for d in range(8)) / chip.macs_per_pe_per_cycle
    )
    return Tiles(port, skipped, dram, compute)


def _pe_extents(array: Sequence[int], mapping: Mapping) -> list[list[int]]:
    return [
        [min(tile, extent - start) for start in range(0, extent, tile)]
        for extent, tile in zip(array, mapping.register, strict=True)
    ]
