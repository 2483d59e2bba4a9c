"""What does a whole network cost on a chip, each layer mapped in the best way?

Layers of equal loops are mapped once. Proven results are kept on disk, one small JSON file a layer
shape, chip and objective; files are replaced whole, so many processes may share a folder.
"""

from __future__ import annotations

import hashlib
import json
import time
from collections.abc import Callable
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Final

from pliant.accelerator.chip import Chip
from pliant.accelerator.mapper.optimal import BestMapping, Certificate, optimal_mapping
from pliant.accelerator.mapping import Mapping
from pliant.accelerator.model.cost import evaluate
from pliant.accelerator.model.counts import layer_key
from pliant.errors import PliantError
from pliant.files import write_atomically
from pliant.metrics import Cost
from pliant.workload import Layer, Workload

MODEL_VERSION: Final = 2
"""Part of every cache key: raised when costs or the mapping space change."""


@dataclass(frozen=True, slots=True)
class NetworkMapping:
    """The best mapping of every layer, in the order of the workload; they run one by one."""

    chip: Chip
    workload: Workload
    layers: tuple[BestMapping, ...]
    distinct: int
    """Layer shapes that were mapped or read from the cache."""
    seconds: float

    @property
    def cycles(self) -> float:
        """Sum over the layers."""
        return sum(layer.cost.cycles for layer in self.layers)

    @property
    def energy(self) -> float:
        """Sum over the layers, in the unit of the chip's energy table."""
        return sum(layer.cost.energy for layer in self.layers)

    @property
    def latency_ms(self) -> float:
        """Time of one pass."""
        return self.cycles / self.chip.clock_mhz * 1e-3

    @property
    def utilisation(self) -> float:
        """Operations done over operations that the array could have done, 0 to 1."""
        done = sum(layer.cost.counts["operations"] for layer in self.layers)
        return done / (self.cycles * self.chip.pes * self.chip.macs_per_pe_per_cycle)

    @property
    def proven(self) -> bool:
        """Whether every layer's mapping is certified, and no operator was left out."""
        certified = all(layer.certificate.proven for layer in self.layers)
        return certified and not self.workload.left_out

    def cost(self) -> Cost:
        """The network's cost in Pliant's words; no energy where only ratios are known."""
        picojoules = self.chip.energy.picojoules
        return Cost(
            latency_ms=self.latency_ms,
            energy_uj=None if picojoules is None else self.energy * picojoules * 1e-6,
            peak_memory_bytes=self.workload.peak_activation_bytes,
            model_size_bytes=self.workload.parameter_bytes,
            parameters=self.workload.parameters,
            macs=self.workload.macs,
            area_mm2=self.chip.area_mm2,
        )


def map_workload(
    workload: Workload,
    chip: Chip,
    objective: str | tuple[float, float] = "edp",
    *,
    time_limit_s: float = float("inf"),
    cache: Path | None = None,
    progress: Callable[[BestMapping], None] | None = None,
) -> NetworkMapping:
    """The best mapping of every layer.

    The objective is each layer's own: the product of the sums (energy-delay product of the network)
    is not minimised.

    Args:
        workload: the layers; pooling and element-wise layers count.
        chip: the hardware.
        objective: as `optimal_mapping`.
        time_limit_s: for each layer shape.
        cache: folder of results; made if it is not there.
        progress: called with each layer.

    Raises:
        InfeasibleError: a layer that no mapping fits.
    """
    started = time.perf_counter()
    known: dict[str, BestMapping] = {}
    found = []
    for layer in workload.layers:
        key = shape_key(layer, chip, objective)
        if key not in known:
            known[key] = map_layer(layer, chip, objective, time_limit_s=time_limit_s, cache=cache)
        best = known[key]
        found.append(
            BestMapping(
                layer, best.mapping, best.cost, best.objective, best.value, best.certificate
            )
        )
        if progress is not None:
            progress(found[-1])
    return NetworkMapping(chip, workload, tuple(found), len(known), time.perf_counter() - started)


def map_layer(
    layer: Layer,
    chip: Chip,
    objective: str | tuple[float, float] = "edp",
    *,
    time_limit_s: float = float("inf"),
    cache: Path | None = None,
) -> BestMapping:
    """`optimal_mapping`, or its result from a folder, where new proven results go.

    Args:
        layer: the loops.
        chip: the hardware.
        objective: as `optimal_mapping`.
        time_limit_s: after which the best so far is returned, unproven.
        cache: folder of results; made if it is not there. A file that cannot be read is made again.

    Raises:
        InfeasibleError: no mapping fits.
    """
    if cache is None:
        return optimal_mapping(layer, chip, objective, time_limit_s=time_limit_s)
    file = cache / f"{shape_key(layer, chip, objective)}.json"
    stored = _read(file, layer, chip)
    if stored is not None:
        return stored
    best = optimal_mapping(layer, chip, objective, time_limit_s=time_limit_s)
    if best.certificate.proven and best.certificate.ties_settled:
        _write(file, best)
    return best


def shape_key(layer: Layer, chip: Chip, objective: str | tuple[float, float]) -> str:
    """Digest of what a result depends on: the loops of the layer, the chip, the objective."""
    return digest(layer_key(layer), deciding_fields(chip), objective)


def deciding_fields(chip: Chip) -> dict[str, Any]:
    """Everything about a chip that decides costs: all fields but names and sources."""
    numbers = asdict(chip)
    for part in (numbers, numbers["energy"]):
        part.pop("name")
        part.pop("source")
    return numbers


def digest(*content: Any) -> str:
    """SHA-256 of plain data and the model's version, as hexadecimal digits."""
    text = json.dumps([MODEL_VERSION, *content], sort_keys=True, default=str)
    return hashlib.sha256(text.encode()).hexdigest()


def _read(file: Path, layer: Layer, chip: Chip) -> BestMapping | None:
    """A stored result, costed again; None where the file is missing or damaged."""
    try:
        stored = json.loads(file.read_text(encoding="utf-8"))
        mapping = Mapping.decode(stored["mapping"], axes=len(chip.axes))
        certificate = Certificate(**stored["certificate"])
        cost = evaluate(layer, chip, mapping)
        return BestMapping(layer, mapping, cost, stored["objective"], stored["value"], certificate)
    except (OSError, ValueError, KeyError, TypeError, PliantError):
        return None


def _write(file: Path, best: BestMapping) -> None:
    stored = {
        "layer": asdict(best.layer),
        "mapping": best.mapping.encode().tolist(),
        "objective": best.objective,
        "value": best.value,
        "certificate": asdict(best.certificate),
    }
    write_atomically(file, json.dumps(stored))
