"""A profiled machine that reports energy as well: latency times its mean power.

The power is measured by a meter, once, while the largest network of the space runs; or it was
stated. Delivered networks are measured by the meter; without one their energy is only predicted.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping, Sequence
from dataclasses import asdict, replace
from functools import cached_property
from pathlib import Path

import numpy as np

from pliant.devices.energy import EnergyMeter, Power, energy_uj, measure_energy, parse_energy
from pliant.devices.interval import Interval
from pliant.devices.measured_target import METRICS, MeasuredTarget
from pliant.devices.profile import random_network_model
from pliant.devices.runtimes import runtime_named
from pliant.errors import DamagedFileError, RecipeError
from pliant.files import CHECKSUM, has_checksum, with_checksum, write_atomically
from pliant.metrics import Claim, Cost, Measured
from pliant.spaces.architecture import Architecture

ENERGY_METRICS = (*METRICS, "energy_uj")
"""Metrics of a profiled machine with a known power."""


class PoweredTarget(MeasuredTarget):
    """A profiled machine with a known power; all but the energy is as of `MeasuredTarget`.

    Args:
        target: the machine without energy.
        power: while networks run.
        meter: measures delivered networks; None where the power was only stated.
    """

    metrics = ENERGY_METRICS

    def __init__(
        self, target: MeasuredTarget, power: Power, meter: EnergyMeter | None = None
    ) -> None:
        super().__init__(
            target.profile,
            target.space,
            seed=target.seed,
            roofs=target.roofs,
            sources=target.sources,
        )
        self.power, self.meter = power, meter

    @cached_property
    def identity(self) -> str:
        """Digest of the profile and the power, as 12 hexadecimal digits."""
        whole = f"{self._content} {self.power.watts!r}"
        return hashlib.sha256(whole.encode()).hexdigest()[:12]

    def predict(self, architectures: Sequence[Architecture]) -> list[Cost]:
        """As the profile predicts, with the energy of one inference."""
        return [self._with_energy(cost) for cost in super().predict(architectures)]

    def interval(self, metric: str) -> Interval | None:
        """That of latency; a stated power adds no error to it, a measured one an unknown one."""
        if metric == "energy_uj":
            return None if self.power.measured else super().interval("latency_ms")
        return super().interval(metric)

    def block_costs(self, architecture: Architecture) -> list[Cost]:
        """As the profile predicts, with the energy of each block."""
        return [self._with_energy(cost) for cost in super().block_costs(architecture)]

    def measure(self, models: Mapping[str, bytes]) -> dict[str, Measured]:
        """Latencies, and with a meter the energy of each network."""
        found = super().measure(models)
        return {name: self._metered(one, models[name]) for name, one in found.items()}

    def measure_file(self, path: Path) -> Measured:
        """Latency of one ONNX file, and with a meter its energy."""
        return self._metered(super().measure_file(path), path.read_bytes())

    def evidence(self) -> tuple[Claim, ...]:
        """How well latencies are predicted, and where the power comes from."""
        kind = "measured power" if self.power.measured else "a stated power, not a measurement"
        claim = Claim(
            f"Energy is predicted as latency times {kind}",
            f"{self.power.watts:.4g} W",
            self.power.source,
        )
        return (*super().evidence(), claim)

    def _with_energy(self, cost: Cost) -> Cost:
        assert cost.latency_ms is not None
        return replace(cost, energy_uj=energy_uj(cost.latency_ms, self.power.watts))

    def _metered(self, found: Measured, model: bytes) -> Measured:
        if self.meter is None:
            return found
        settings = self.profile.settings
        session = runtime_named(settings.runtime).open(model, settings)
        energy = measure_energy(session.run, self.meter)
        return Measured(
            replace(found.cost, energy_uj=energy.energy_uj),
            replace(found.spread, energy_uj=energy.spread_uj),
        )


def with_energy(target: MeasuredTarget, energy: str, folder: Path | None) -> PoweredTarget:
    """A profiled machine, with the energy that a text names.

    Args:
        target: without energy.
        energy: `6W`, `rapl`, `nvml` or a power log, as `parse_energy` reads it.
        folder: where a measured power is kept; measured each time where None.

    Raises:
        RecipeError: the text means nothing, or a meter is asked for on another machine.
        MeasurementError: the meter is not there, or reads nothing.
        DamagedFileError: the kept power was changed since it was written.
    """
    found = parse_energy(energy)
    if isinstance(found, Power):
        return PoweredTarget(target, found)
    if not target.can_measure:
        raise RecipeError(
            f"{found.name} measures this machine; the profile is of {target.profile.machine}. "
            'State its power, as target.energy = "6W".'
        )
    path = None if folder is None else folder / "power.json"
    power = None if path is None else _kept_power(path, found.name)
    if power is None:
        power = _measured_power(target, found)
        if path is not None:
            write_atomically(path, json.dumps(with_checksum(asdict(power)), indent=1) + "\n")
    return PoweredTarget(target, power, found)


def _measured_power(target: MeasuredTarget, meter: EnergyMeter) -> Power:
    """Mean power while the largest network of the space runs."""
    space = target.space
    blocks = space.blocks(space.largest())
    model = random_network_model(blocks, np.random.default_rng(0), target.profile.precision)
    settings = target.profile.settings
    session = runtime_named(settings.runtime).open(model, settings)
    energy = measure_energy(session.run, meter)
    source = f"{meter.name}, while the largest network ran; {energy.idle_watts:.4g} W idle"
    return Power(energy.watts, source, measured=True)


def _kept_power(path: Path, meter: str) -> Power | None:
    """The power that was measured before; None where none was, or by another meter."""
    if not path.is_file():
        return None
    try:
        stored = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError, RecursionError) as error:
        raise DamagedFileError(f"{path} is not a measured power: {error}. Remove it.") from None
    if not isinstance(stored, dict) or not has_checksum(stored):
        raise DamagedFileError(f"{path} was changed since it was written. Remove it.")
    try:
        power = Power(**{key: value for key, value in stored.items() if key != CHECKSUM})
    except (TypeError, RecipeError) as error:
        raise DamagedFileError(f"{path} is not a measured power: {error}. Remove it.") from None
    return power if power.source.startswith(meter) else None
