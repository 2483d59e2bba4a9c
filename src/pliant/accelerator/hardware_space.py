"""The accelerators that fit into the resources of a chip, each a vector of numbers from 0 to 1.

Y. Lin, M. Yang, S. Han, "NAAS: Neural Accelerator Architecture Search", DAC 2021, arXiv:2105.13258,
section II-A: sizing (number of PEs in steps of 8, memories in steps of 16 bytes, bandwidth) and
connectivity (1 to 3 array dimensions, their sizes in steps of 2, and the loop that each runs in
parallel). The parallel loops are encoded by importance: a number for each loop, and the largest k
are taken. `index` instead is one number for the place of an order in a list of all; the paper
compares with it.

A vector that does not describe a chip within the resources decodes to None, and is drawn again.
The memory of a PE has one size for all tensors, as in the paper. Where we depart: the bandwidth to
DRAM is the chip's own, since pins are not what is designed; and an axis may choose among as many
loops, and fold as many, as an axis of the given chip does (one in the paper), since a chip whose
links are more flexible would else be compared with designs that may not have them.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Final

import numpy as np
from numpy.typing import NDArray

from pliant.accelerator.chip import Axis, Chip, Memory
from pliant.errors import RecipeError

PE_STEP: Final = 8
AXIS_STEP: Final = 2
MEMORY_STEP_BYTES: Final = 16
MAX_AXES: Final = 3
PARALLEL_LOOPS: Final = "KCPQRS"
"""Loops that may run in parallel; the paper's K, C, Y', X', R, S. Lanes of K have an output channel
each, so that they run the groups G of a depthwise layer, too."""
LEAST_REGISTER_BYTES: Final = MEMORY_STEP_BYTES
LEAST_BUFFER_BYTES: Final = 1024

ENCODINGS: Final = ("importance", "index")


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
        encoding: of the parallel loops, a member of `ENCODINGS`.
        sizing_only: whether the array keeps the directions and the parallel loops of the chip, so
            that only sizes vary.
        loops_per_axis: that each axis chooses among, 1 as in the paper; where None as many as an
            axis of the chip has at most.

    Raises:
        RecipeError: the chip has memories without end, or no design can have its resources.
    """

    def __init__(
        self,
        within: Chip,
        *,
        encoding: str = "importance",
        sizing_only: bool = False,
        loops_per_axis: int | None = None,
    ) -> None:
        if encoding not in ENCODINGS:
            raise RecipeError(f"an encoding is importance or index, received {encoding!r}.")
        if loops_per_axis is not None and not 1 <= loops_per_axis <= len(PARALLEL_LOOPS):
            raise RecipeError(
                f"an axis chooses among 1 to {len(PARALLEL_LOOPS)} loops, received "
                f"{loops_per_axis}."
            )
        self.within, self.encoding, self.sizing_only = within, encoding, sizing_only
        self.resources = Resources.of(within)
        self.loops_per_axis = loops_per_axis or max(
            sum(loop in axis.loops for loop in PARALLEL_LOOPS) for axis in within.axes
        )
        self.folds = 1 if self.loops_per_axis == 1 else max(a.max_loops for a in within.axes)
        self._orders = list(itertools.permutations(PARALLEL_LOOPS))
        self._require_room()

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
        pes = _stepped(value["pes"], PE_STEP, self.resources.pes)
        axes = self._axes(value, pes)
        if axes is None:
            return None
        array = math.prod(axis.size for axis in axes)
        # Sizes of memories are spread evenly over their logarithms: half of the range of a buffer
        # would else be above half of the resources.
        registers = _logarithmic(
            value["registers"], LEAST_REGISTER_BYTES, self.resources.on_chip_bytes / array
        )
        buffer = _logarithmic(value["buffer"], LEAST_BUFFER_BYTES, self.resources.on_chip_bytes)
        if array * registers + buffer > self.resources.on_chip_bytes:
            return None
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
                    bandwidth_bytes_per_cycle=self._bandwidth(value["bandwidth"]),
                ),
            )
        except RecipeError:  # a memory that cannot hold one word of each tensor
            return None

    def encode(self, chip: Chip) -> NDArray[np.float64]:
        """A vector whose design is near to a chip, from which a search may begin.

        Sizes are met to the step where they leave room for each other; of the orders of loops the
        one whose axes have most loops in common with the chip's.

        Args:
            chip: within the resources.
        """
        array = math.prod(axis.size for axis in chip.axes)
        most_pes = self.resources.pes // PE_STEP
        value = {
            "pes": min(1.0, math.ceil(array / PE_STEP) / max(1, most_pes)),
            "registers": _logarithmic_share(
                chip.registers.total_bytes,
                LEAST_REGISTER_BYTES,
                self.resources.on_chip_bytes / array,
            ),
            "buffer": _logarithmic_share(
                chip.buffer.total_bytes, LEAST_BUFFER_BYTES, self.resources.on_chip_bytes
            ),
            "bandwidth": 1.0,
        }
        if math.isfinite(self.resources.bandwidth_bytes_per_cycle):
            port = chip.buffer.bandwidth_bytes_per_cycle
            value["bandwidth"] = port / self.resources.bandwidth_bytes_per_cycle
        left = PE_STEP * math.ceil(array / PE_STEP)
        for split in ("split1", "split2"):
            value[split] = 0.5
        for split, axis in zip(("split1", "split2"), chip.axes[:-1], strict=False):
            value[split] = math.log(axis.size) / math.log(left) if left > 1 else 0.0
            left //= axis.size
        if not self.sizing_only:
            value["axes"] = (len(chip.axes) - 0.5) / MAX_AXES
            place = max(range(len(self._orders)), key=lambda one: self._common(one, chip.axes))
            value["loops"] = (place + 0.5) / len(self._orders)
            for rank, loop in enumerate(self._orders[place]):
                value[loop] = 1 - (rank + 0.5) / len(PARALLEL_LOOPS)
        return np.clip([value[name] for name in self.names], 0, 1)

    def _bandwidth(self, share: float) -> float:
        """Whole bytes a cycle, never more than the chip has; without end where the chip's is."""
        most = self.resources.bandwidth_bytes_per_cycle
        if math.isinf(most):
            return most
        return min(most, max(1.0, float(round(share * most))))

    def _require_room(self) -> None:
        """Refuses resources that hold no array, whatever is drawn."""
        least = self.within.word_widths
        word = (least.weight_bits + least.input_bits + least.partial_sum_bits) / 8
        needed = AXIS_STEP * max(LEAST_REGISTER_BYTES, word) + LEAST_BUFFER_BYTES
        if self.resources.pes < AXIS_STEP or self.resources.on_chip_bytes < needed:
            raise RecipeError(
                f"a design has at least {AXIS_STEP} PEs and {needed:g} bytes of memory; chip "
                f"{self.within.name!r} has {self.resources.pes} and "
                f"{self.resources.on_chip_bytes}. Name a chip with more of them."
            )

    def _axes(self, value: dict[str, float], pes: int) -> tuple[Axis, ...] | None:
        """The array of a vector; None where it has no PE left for the last axis."""
        own = self.within.axes
        count = min(MAX_AXES, 1 + int(value["axes"] * MAX_AXES)) if "axes" in value else len(own)
        sizes = _axis_sizes(pes, [value["split1"], value["split2"]], count)
        if sizes is None:
            return None
        if self.sizing_only:
            return tuple(replace(axis, size=size) for axis, size in zip(own, sizes, strict=True))
        menus = self._menus(self._order(value), count)
        return tuple(
            Axis(f"axis{number}", size, loops, max_loops=self.folds)
            for number, (size, loops) in enumerate(zip(sizes, menus, strict=True))
        )

    def _order(self, value: dict[str, float]) -> Sequence[str]:
        """The loops, most important first."""
        if self.encoding == "importance":
            return sorted(PARALLEL_LOOPS, key=lambda loop: -value[loop])
        return self._orders[min(len(self._orders) - 1, int(value["loops"] * len(self._orders)))]

    def _menus(self, order: Sequence[str], count: int) -> list[str]:
        """The loops that each axis chooses among: the next ones from its place in the order."""
        menus = []
        for first in range(count):
            places = range(first, first + self.loops_per_axis)
            chosen = "".join(order[place % len(order)] for place in places)
            menus.append(chosen.replace("K", "KG"))
        return menus

    def _common(self, place: int, axes: Sequence[Axis]) -> int:
        """How many loops the axes of an order share with those of a chip."""
        menus = self._menus(self._orders[place], len(axes))
        return sum(len(set(menu) & set(axis.loops)) for menu, axis in zip(menus, axes, strict=True))


def _stepped(share: float, step: int, most: float) -> int:
    """A whole number of steps, at least one, at most as many as there are."""
    if most < step:
        return int(most)
    return max(step, step * round(share * (most // step)))


def _logarithmic(share: float, least: float, most: float) -> int:
    """Bytes in steps, evenly over the logarithm."""
    if most <= least:
        return int(least)
    found = math.exp(math.log(least) + share * math.log(most / least))
    return max(int(least), MEMORY_STEP_BYTES * int((found + 1e-6) // MEMORY_STEP_BYTES))


def _logarithmic_share(size: float, least: float, most: float) -> float:
    """The share that makes a size of `_logarithmic`."""
    if most <= least or size <= least:
        return 0.0
    return min(1.0, math.log(size / least) / math.log(most / least))


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
