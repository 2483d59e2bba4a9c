"""The accelerators that fit into the resources of a chip, each a vector of numbers from 0 to 1.

Y. Lin, M. Yang, S. Han, "NAAS: Neural Accelerator Architecture Search", DAC 2021, arXiv:2105.13258,
section II-A: sizing (number of PEs in steps of 8, memories in steps of 16 bytes, bandwidth) and
connectivity (1 to 3 array dimensions, their sizes in steps of 2, and the loop that each runs in
parallel). The parallel loops are encoded by importance: a number for each loop, and the largest k
are taken. `index` instead is one number for the choice of loops in a list of all; the paper
compares with it.

A vector that does not describe a chip within the resources decodes to None, and is drawn again.
The memory of a PE has one size for all tensors, as in the paper. Where we depart: the bandwidth to
DRAM is the chip's own, since pins are not what is designed.
"""

from __future__ import annotations

import itertools
import math
from dataclasses import dataclass, replace
from typing import Final, Literal

import numpy as np
from numpy.typing import NDArray

from pliant.accelerator.chip import Axis, Chip, Memory
from pliant.errors import RecipeError

PE_STEP: Final = 8
AXIS_STEP: Final = 2
MEMORY_STEP_BYTES: Final = 16
MAX_AXES: Final = 3
PARALLEL_LOOPS: Final = "KCPQRS"
"""Loops that may run in parallel; the paper's K, C, Y', X', R, S."""
LEAST_REGISTER_BYTES: Final = MEMORY_STEP_BYTES
LEAST_BUFFER_BYTES: Final = 1024

Encoding = Literal["importance", "index"]


@dataclass(frozen=True, slots=True)
class Resources:
    """What a design may use at most."""

    pes: int
    on_chip_bytes: int
    """Registers of all PEs and the global buffer."""
    bandwidth_bytes_per_cycle: float
    """Between the buffer and the array."""

    @classmethod
    def of(cls, chip: Chip) -> Resources:
        """Those of a chip.

        Raises:
            RecipeError: a memory of it is without end.
        """
        held = chip.pes * chip.registers.total_bytes + chip.buffer.total_bytes
        if math.isinf(held):
            raise RecipeError(
                f"the resources of a chip are the sizes of its memories; those of {chip.name!r} "
                "have no end. State weight_bytes, input_bytes and output_bytes, or shared_bytes."
            )
        return cls(chip.pes, int(held), chip.buffer.bandwidth_bytes_per_cycle)


class HardwareSpace:
    """Designs within the resources of a chip.

    Args:
        within: whose resources they have at most, and whose clock, energies, word widths, area
            constants and DRAM they share.
        encoding: of the parallel loops.
        sizing_only: whether the array keeps the directions and the parallel loops of the chip, so
            that only sizes vary.

    Raises:
        RecipeError: the chip has memories without end.
    """

    def __init__(
        self, within: Chip, *, encoding: Encoding = "importance", sizing_only: bool = False
    ) -> None:
        self.within, self.encoding, self.sizing_only = within, encoding, sizing_only
        self.resources = Resources.of(within)
        self._orders = {
            count: list(itertools.permutations(PARALLEL_LOOPS, count))
            for count in range(1, MAX_AXES + 1)
        }

    @property
    def names(self) -> tuple[str, ...]:
        """What each number of a vector decides."""
        sizes = ("pes", "registers", "buffer", "bandwidth", "split1", "split2")
        if self.sizing_only:
            return sizes
        loops = PARALLEL_LOOPS if self.encoding == "importance" else ("loops",)
        return (*sizes, "axes", *loops)

    @property
    def dimensions(self) -> int:
        """Length of a vector."""
        return len(self.names)

    def decode(self, vector: NDArray[np.float64], name: str = "design") -> Chip | None:
        """The chip of a vector; None where it exceeds the resources.

        Args:
            vector: (dimensions,), each from 0 to 1.
            name: of the chip.
        """
        value = dict(zip(self.names, np.clip(vector, 0, 1), strict=True))
        pes = _stepped(value["pes"], PE_STEP, self.resources.pes, PE_STEP)
        loops = self._loops(value)
        sizes = _axis_sizes(pes, [value["split1"], value["split2"]], len(loops))
        if sizes is None:
            return None
        array = math.prod(sizes)
        # Sizes of memories are spread evenly over their logarithms: half of the range of a buffer
        # would else be above half of the resources.
        registers = _logarithmic(
            value["registers"], LEAST_REGISTER_BYTES, self.resources.on_chip_bytes / array
        )
        buffer = _logarithmic(value["buffer"], LEAST_BUFFER_BYTES, self.resources.on_chip_bytes)
        if array * registers + buffer > self.resources.on_chip_bytes:
            return None
        bandwidth = value["bandwidth"] * self.resources.bandwidth_bytes_per_cycle
        axes = tuple(
            Axis(f"axis{number}", size, loop, max_loops=1)
            for number, (size, loop) in enumerate(zip(sizes, loops, strict=True))
        )
        if self.sizing_only:
            own = self.within.axes
            axes = tuple(replace(axis, size=size) for axis, size in zip(own, sizes, strict=True))
        try:
            return replace(
                self.within,
                name=name,
                source="",
                axes=axes,
                registers=Memory(
                    shared_bytes=registers,
                    double_buffered=self.within.registers.double_buffered,
                    bandwidth_bytes_per_cycle=self.within.registers.bandwidth_bytes_per_cycle,
                ),
                buffer=Memory(
                    shared_bytes=buffer,
                    double_buffered=self.within.buffer.double_buffered,
                    bandwidth_bytes_per_cycle=max(1.0, float(round(bandwidth))),
                ),
            )
        except RecipeError:  # a memory that cannot hold one word of each tensor
            return None

    def _loops(self, value: dict[str, float]) -> list[str]:
        """The loops of each axis."""
        if self.sizing_only:
            return [axis.loops for axis in self.within.axes]
        count = min(MAX_AXES, 1 + int(value["axes"] * MAX_AXES))
        if self.encoding == "importance":
            return sorted(PARALLEL_LOOPS, key=lambda loop: -value[loop])[:count]
        orders = self._orders[count]
        return list(orders[min(len(orders) - 1, int(value["loops"] * len(orders)))])


def _stepped(share: float, step: int, most: float, least: int) -> int:
    """A whole number of steps, from the least to the most."""
    steps = int(most // step)
    return max(least, step * round(share * steps))


def _logarithmic(share: float, least: float, most: float) -> int:
    """Bytes in steps, evenly over the logarithm."""
    if most <= least:
        return int(least)
    found = math.exp(math.log(least) + share * math.log(most / least))
    return max(int(least), MEMORY_STEP_BYTES * int(found // MEMORY_STEP_BYTES))


def _axis_sizes(pes: int, splits: list[float], axes: int) -> list[int] | None:
    """Sizes of the axes in steps, whose product is at most the number of PEs.

    Each split is the share of the logarithm of what is left that an axis takes.
    """
    left, sizes = pes, []
    for split in splits[: axes - 1]:
        size = max(AXIS_STEP, AXIS_STEP * round(left**split / AXIS_STEP))
        sizes.append(size)
        left //= size
    last = left - left % AXIS_STEP
    if last < AXIS_STEP:
        return None
    return [*sizes, last]
