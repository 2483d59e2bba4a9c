"""A measured machine as a target: its profile predicts, and on this very machine it measures."""

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
from pliant.metrics import Claim, Cost, Measured
from pliant.spaces.architecture import Architecture
from pliant.spaces.space import Space

METRICS = ("latency_ms", "peak_memory_bytes", "parameters", "macs")
"""What a measured machine reports: latency from its table, the others by arithmetic."""
LARGEST_ERROR_PERCENT = 5.0


class MeasuredTarget:
    """The machine of a profile, for the networks of one space.

    Args:
        profile: of the machine.
        space: for which the profile was made.
        seed: of the order of measurements.

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
        """The machine, its runtime, and how that runs networks."""
        of = self.profile
        return (
            f"{of.machine}, {of.runtime} {of.runtime_version}, {of.threads} thread(s), "
            f"batch {of.batch}"
        )

    @cached_property
    def identity(self) -> str:
        """Digest of the whole profile."""
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
        """Latency of one batch from the table, the other metrics by arithmetic."""
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
        """Latency of one ONNX file in a process that did nothing else before.

        Raises:
            MeasurementError: the process ends with an error.
        """
        return _measured(measure_in_subprocess(path, self.profile.settings))

    def evidence(self) -> tuple[Claim, ...]:
        """The error of the table on networks that it was not fitted on."""
        fit = self.table.fit
        assert fit is not None
        return (
            Claim(
                "Latency table predicts networks that it was not fitted on",
                f"{fit.mape_percent:.1f} % mean error, rank correlation {fit.spearman:.3f}",
                f"{fit.networks} random networks; a straight line over MACs: "
                f"{fit.macs_mape_percent:.1f} %",
                bound=f"{LARGEST_ERROR_PERCENT:g} %",
                holds=fit.mape_percent <= LARGEST_ERROR_PERCENT,
            ),
        )


def _measured(found: Measurement) -> Measured:
    return Measured(Cost(latency_ms=found.latency_ms), spread=Cost(latency_ms=found.spread_ms))
