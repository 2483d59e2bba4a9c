"""A data sheet as a target: the least time that its peak and its bandwidth allow.

    space = preset("digits", channels=1, image_size=8, classes=10)
    target = DataSheetTarget(load_sheet("raspberry-pi-4"), space)
    costs = target.predict([space.smallest(), space.largest()])

The latency is a lower bound (the roofline model), and everything that shows it says so.
"""

from __future__ import annotations

import hashlib
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import ClassVar

from pliant.devices.data_sheet import DataSheet
from pliant.devices.energy import energy_uj
from pliant.errors import MeasurementError
from pliant.metrics import ARITHMETIC_METRICS, Claim, Cost, Measured
from pliant.spaces.architecture import Architecture
from pliant.spaces.block import Block
from pliant.spaces.space import Space
from pliant.workload import Workload, with_bits
from pliant.workload.roofline import least_seconds


class DataSheetTarget:
    """The device of a data sheet, for the networks of one space; fulfils the protocol of targets.

    Args:
        sheet: of the device.
        space: whose architectures are asked for; the precision of its costs decides the peak.

    Raises:
        RecipeError: the sheet states no peak of the space's precision.
    """

    can_measure: ClassVar[bool] = False

    def __init__(self, sheet: DataSheet, space: Space) -> None:
        self.sheet, self.space = sheet, space
        self.roofline = sheet.roofline(space.bits)
        self.name = f"{sheet.name} (roofline bound by its data sheet)"
        self.identity = hashlib.sha256(repr((self.roofline, sheet.power_w)).encode()).hexdigest()
        self.identity = self.identity[:12]
        """Digest of the roofs and the power: all that decides predictions."""
        energy = () if sheet.power_w is None else ("energy_uj",)
        self.metrics: tuple[str, ...] = ("latency_ms", *energy, *ARITHMETIC_METRICS)
        """Fields of `Cost` that are reported; no energy where the sheet states no power."""
        self._block_ms: dict[Block, float] = {}

    def predict(self, architectures: Sequence[Architecture]) -> list[Cost]:
        """Least latency of one image, the other metrics by arithmetic; one cost per architecture.

        Args:
            architectures: of the space of the target.
        """
        found = []
        for one in architectures:
            latency_ms = sum(self.least_ms(block) for block in self.space.blocks(one))
            found.append(self._with_latency(self.space.cost(one), latency_ms))
        return found

    def block_costs(self, architecture: Architecture) -> list[Cost]:
        """What each block adds to its network: latency, energy, MACs and parameters are sums."""
        costs = []
        for block in self.space.blocks(architecture):
            shape = Cost(macs=block.cost.macs, parameters=block.cost.parameters)
            costs.append(self._with_latency(shape, self.least_ms(block)))
        return costs

    def measure(self, models: Mapping[str, bytes]) -> dict[str, Measured]:
        """Nothing: a data sheet is not at hand."""
        return {}

    def measure_file(self, path: Path) -> Measured:
        """Refused, since `can_measure` is False.

        Raises:
            MeasurementError: always.
        """
        raise MeasurementError(
            f"a data sheet predicts and measures nothing, received {path} for {self.name!r}. "
            "Choose a target that is at hand, such as this-cpu."
        )

    def evidence(self) -> tuple[Claim, ...]:
        """That the latency is a bound, and that the energy is a model."""
        roofs = (
            f"{2e-9 * self.roofline.peak_macs_per_s:.4g} billion operations and "
            f"{1e-9 * self.roofline.bandwidth_bytes_per_s:.4g} GB per second"
        )
        claims = [
            Claim(
                "Latency is a lower bound, not a measurement",
                roofs,
                f"roofline of the data sheet: {self.sheet.source}",
            )
        ]
        if self.sheet.power_w is not None:
            claims.append(
                Claim(
                    "Energy is a model: latency times power",
                    f"{self.sheet.power_w:g} W",
                    "power that the data sheet states; no energy was measured",
                )
            )
        return tuple(claims)

    def least_ms(self, block: Block) -> float:
        """Least latency of one block, memoized: its layers read only its input and each other."""
        if block not in self._block_ms:
            layers = with_bits(block.layers(), self.space.bits)
            elements = block.in_views * block.in_channels * block.size**2
            workload = Workload(layers, input_elements=elements)
            self._block_ms[block] = 1e3 * least_seconds(workload, self.roofline)
        return self._block_ms[block]

    def _with_latency(self, cost: Cost, latency_ms: float) -> Cost:
        energy = None
        if self.sheet.power_w is not None:
            energy = energy_uj(latency_ms, self.sheet.power_w)
        return replace(cost, latency_ms=latency_ms, energy_uj=energy)
