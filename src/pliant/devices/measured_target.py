"""A profiled machine as a target: its latency table predicts, and the machine itself measures."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping, Sequence
from functools import cached_property
from pathlib import Path

from pliant.devices.measure import measure_in_subprocess
from pliant.devices.profile import DeviceProfile, measure_networks
from pliant.devices.table import LookupTable
from pliant.devices.timings import Measurement
from pliant.errors import ProfileMismatchError
from pliant.metrics import ARITHMETIC_METRICS, Claim, Cost, Measured
from pliant.spaces.architecture import Architecture
from pliant.spaces.space import Space

METRICS = ("latency_ms", *ARITHMETIC_METRICS)
"""Metrics of a profiled machine: latency from its table, the others computed from the layers."""
MAX_ERROR_PERCENT = 5.0
"""Mean absolute percentage error up to which the latency table counts as accurate."""


class MeasuredTarget:
    """The machine of a profile, for the networks of one space.

    Args:
        profile: of the machine.
        space: the one that the profile was made for.
        seed: of the order in which networks are timed.

    Raises:
        ProfileMismatchError: the profile was made for another space.
    """

    metrics = METRICS

    def __init__(self, profile: DeviceProfile, space: Space, *, seed: int = 0) -> None:
        self.profile = profile
        self.space = space
        self.seed = seed
        self.table: LookupTable = profile.table(space)

    @property
    def name(self) -> str:
        """The machine, its runtime, and the settings of the runtime."""
        return self.profile.title

    @cached_property
    def identity(self) -> str:
        """Digest of the profile, as 12 hexadecimal digits."""
        return hashlib.sha256(self.profile.model_dump_json().encode()).hexdigest()[:12]

    @cached_property
    def can_measure(self) -> bool:
        """Whether the profile is of this machine and runtime."""
        try:
            self.profile.require_here()
        except ProfileMismatchError:
            return False
        return True

    def predict(self, architectures: Sequence[Architecture]) -> list[Cost]:
        """Latency of one batch from the table, the other metrics computed from the layers."""
        return self.table(architectures)

    def block_costs(self, architecture: Architecture) -> list[Cost]:
        """Latency of each block within its network, its MACs and its parameters."""
        blocks = self.space.blocks(architecture)
        latencies = self.table.block_ms(blocks)
        return [
            Cost(latency_ms=ms, macs=block.cost.macs, parameters=block.cost.parameters)
            for block, ms in zip(blocks, latencies, strict=True)
        ]

    def measure(self, models: Mapping[str, bytes]) -> dict[str, Measured]:
        """Latency of whole networks, in interleaved rounds.

        Raises:
            MeasurementError: the machine is too busy.
        """
        found = measure_networks(models, self.profile.settings, seed=self.seed)
        return {name: _measured(one) for name, one in found.items()}

    def measure_file(self, path: Path) -> Measured:
        """Latency of one ONNX file, measured in a subprocess.

        Raises:
            MeasurementError: the subprocess fails.
        """
        return _measured(measure_in_subprocess(path, self.profile.settings))

    def evidence(self) -> tuple[Claim, ...]:
        """The error of the table on networks that it was not fitted on."""
        error = self.table.held_out_error
        assert error is not None
        predictor = "Latency table" if self.profile.blocks else "Additive latency model"
        return (
            Claim(
                f"{predictor} predicts networks that it was not fitted on",
                f"{error.mape_percent:.1f} % mean error, "
                f"{error.within_10_percent:.0%} of the networks within 10 %, "
                f"rank correlation {error.spearman:.3f}",
                f"{error.networks} random networks; linear regression on MACs: "
                f"{error.macs_mape_percent:.1f} %",
                bound=f"{MAX_ERROR_PERCENT:g} %",
                holds=error.mape_percent <= MAX_ERROR_PERCENT,
            ),
        )


def _measured(found: Measurement) -> Measured:
    return Measured(Cost(latency_ms=found.latency_ms), spread=Cost(latency_ms=found.spread_ms))
