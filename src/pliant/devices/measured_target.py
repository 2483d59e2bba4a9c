"""A profiled machine as a target: a predictor of its rows, and the machine itself measures."""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import replace
from functools import cached_property
from pathlib import Path

import numpy as np

from pliant.devices.data_sheet import DataSheet
from pliant.devices.data_sheet_target import DataSheetTarget
from pliant.devices.features import BlockSums
from pliant.devices.interval import Interval
from pliant.devices.ladder import DeviceRows, Milliseconds, Predictor, fit
from pliant.devices.measure import measure_in_subprocess
from pliant.devices.profile import DeviceProfile, measure_networks
from pliant.devices.table import MAX_BLOCKS, LookupTable
from pliant.devices.timings import Measurement
from pliant.errors import ProfileMismatchError, RecipeError
from pliant.metrics import ARITHMETIC_METRICS, Claim, Cost, Measured
from pliant.spaces.architecture import Architecture
from pliant.spaces.block import Block
from pliant.spaces.space import Space

METRICS: tuple[str, ...] = ("latency_ms", *ARITHMETIC_METRICS)
"""Metrics of a profiled machine: latency from its table, the others computed from the layers."""
MAX_ERROR_PERCENT = 5.0
"""Mean absolute percentage error up to which predicted latencies count as accurate."""
SHOWN_CONFIDENCE = 0.9
"""Of the interval that is shown with the error."""


class MeasuredTarget:
    """The machine of a profile, for the networks of one space.

    Args:
        profile: of the machine.
        space: the one that the profile was made for.
        seed: of the order in which networks are timed.
        roofs: of the machine, for the first rung of the predictor.
        sources: profiles of other devices for the same space, by name, for the last one.

    Raises:
        ProfileMismatchError: the profile, or one of the sources, was made for another space, or a
            source holds the measurements of the profile itself.
    """

    metrics: tuple[str, ...] = METRICS

    def __init__(
        self,
        profile: DeviceProfile,
        space: Space,
        *,
        seed: int = 0,
        roofs: DataSheet | None = None,
        sources: Mapping[str, DeviceProfile] | None = None,
    ) -> None:
        self.profile = profile
        self.space = space
        self.seed = seed
        self.roofs = roofs
        self.sources = dict(sources or {})
        for one in (profile, *self.sources.values()):
            one.require_space(space)
        for name, one in self.sources.items():
            profile.require_other_device(one, name)

    @cached_property
    def predictor(self) -> Predictor:
        """The model with the lowest cross-validated error on the networks of the profile."""
        networks = [self.space.parse(row.architecture) for row in self.profile.networks]
        latency_ms = [row.latency_ms for row in self.profile.networks]
        block_us = {row.block: row.latency_us for row in self.profile.blocks}
        known = {
            name: MeasuredTarget(one, self.space).predictor.predict_ms
            for name, one in self.sources.items()
        }
        return fit(DeviceRows(networks, latency_ms, block_us, self._bound_ms, known), self.space)

    @cached_property
    def _bound_ms(self) -> Milliseconds | None:
        """Least latency of one image under the roofs; None without roofs of the precision."""
        if self.roofs is None:
            return None
        try:
            sheet = DataSheetTarget(self.roofs, self.space)
        except RecipeError:
            return None
        sums = BlockSums(self.space, lambda block: np.array([sheet.least_ms(block)]))
        return lambda architectures: sums(architectures)[:, 0]

    @property
    def name(self) -> str:
        """The machine, its runtime, and the settings of the runtime."""
        return self.profile.title

    @cached_property
    def identity(self) -> str:
        """Digest of all that decides predictions, as 12 hexadecimal digits."""
        return hashlib.sha256(self._content.encode()).hexdigest()[:12]

    @property
    def _content(self) -> str:
        others = [repr(self.roofs)] if self.roofs else []
        others += [f"{name} {one.model_dump_json()}" for name, one in self.sources.items()]
        return " ".join([self.profile.model_dump_json(), *others])

    @cached_property
    def can_measure(self) -> bool:
        """Whether the profile is of this machine and runtime."""
        try:
            self.profile.require_here()
        except ProfileMismatchError:
            return False
        return True

    def predict(self, architectures: Sequence[Architecture]) -> list[Cost]:
        """Latency of one batch from the predictor, the other metrics computed from the layers."""
        latencies = self.predictor.predict_ms(architectures).tolist()
        return [
            replace(self.space.cost(one), latency_ms=latency)
            for one, latency in zip(architectures, latencies, strict=True)
        ]

    def interval(self, metric: str) -> Interval | None:
        """The errors of predicted latencies; None of the other metrics, which are exact."""
        return self.predictor.interval if metric == "latency_ms" else None

    def block_costs(self, architecture: Architecture) -> list[Cost]:
        """Latency of each block within its network, its MACs and its parameters."""
        blocks = self.space.blocks(architecture)
        latencies = self.predictor.block_ms(architecture)
        return [
            Cost(latency_ms=ms, macs=block.cost.macs, parameters=block.cost.parameters)
            for block, ms in zip(blocks, latencies, strict=True)
        ]

    def unmeasured(self, blocks: Iterable[Block]) -> list[Block]:
        """Those blocks that the profile lacks, so that their latency would be an estimate.

        None where the profile has whole networks only, or as many blocks as are ever measured.

        Args:
            blocks: of the space.
        """
        rows = self.profile.blocks
        if not 0 < len(rows) < MAX_BLOCKS:
            return []
        table = LookupTable(self.space, {row.block: row.latency_us for row in rows})
        return [block for block in blocks if not table.is_measured(block)]

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
        """The error of the predictor on networks that it was not fitted on, and its interval."""
        of = self.predictor
        others = [f"{one.name} {one.mape_percent:.1f} %" for one in of.rungs if one.name != of.rung]
        claims = [
            Claim(
                "Latency predictor is right on networks that it was not fitted on",
                f"{of.mape_percent:.1f} % mean error, "
                f"{of.within(0.1):.0%} of the networks within 10 %, "
                f"rank correlation {of.spearman:.3f}",
                f"{of.rung}; cross-validation over {of.networks} measured networks"
                + (f"; other models: {', '.join(others)}" if others else ""),
                bound=f"{MAX_ERROR_PERCENT:g} %",
                holds=of.mape_percent <= MAX_ERROR_PERCENT,
            )
        ]
        if of.interval.is_enough_for(SHOWN_CONFIDENCE):
            factor = of.interval.factor(SHOWN_CONFIDENCE)
            claims.append(
                Claim(
                    "Measured latencies are within the interval of their predictions",
                    f"{of.interval.coverage(SHOWN_CONFIDENCE):.0%} within "
                    f"+-{100 * (factor - 1):.1f} %",
                    f"each of {of.interval.networks} networks against the errors of the others; "
                    f"the interval asks for {SHOWN_CONFIDENCE:.0%}",
                )
            )
        return tuple(claims)


def _measured(found: Measurement) -> Measured:
    return Measured(Cost(latency_ms=found.latency_ms), spread=Cost(latency_ms=found.spread_ms))
