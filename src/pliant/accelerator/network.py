"""What does a whole network cost on a chip, each layer mapped in the best way?

Layers of equal loops are mapped once. Proven results are kept on disk, one small JSON file a layer shape, chip and
objective; files are replaced whole, so many processes may share a folder.
"""

from __future__ import annotations

import hashlib
import json
import os
import time
from collections.abc import Callable
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Final

from pliant.accelerator.chip import Chip
from pliant.accelerator.mapper.search import BestMapping, Certificate, optimal_mapping
from pliant.accelerator.mapping import Mapping
from pliant.accelerator.model.cost import evaluate, layer_code
from pliant.errors import PliantError
from pliant.metrics import Cost
from pliant.workload import Layer, Workload

MODEL_VERSION: Final = 1
"""Part of every cache key: raised when costs or the mapping space change."""


@dataclass(frozen=True, slots=True)
class NetworkMapping:
    """The best mapping of every layer, in the order of the workload. Layers run one after the other."""

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
        return done / (self.cycles * self.chip.elements * self.chip.macs_per_element_per_cycle)

    @property
    def proven(self) -> bool:
        """Whether every layer's mapping is certified."""
        return all(layer.certificate.proven for layer in self.layers)

    def cost(self) -> Cost:
        """The network's cost in Pliant's words; energy only where the table is in picojoule."""
        absolute = self.chip.energy.unit == "picojoule"
        return Cost(
            latency_ms=self.latency_ms,
            energy_mj=self.energy * 1e-9 if absolute else None,
            peak_memory_bytes=self.workload.peak_memory_bytes,
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

    The objective is each layer's own: the product of the sums (energy-delay product of the network) is not minimised.

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
            best = _read(cache, key, layer, chip) or optimal_mapping(
                layer, chip, objective, time_limit_s=time_limit_s
            )
            known[key] = best
            _write(cache, key, best)
        best = known[key]
        found.append(
            BestMapping(
                layer, best.mapping, best.cost, best.objective, best.value, best.certificate
            )
        )
        if progress is not None:
            progress(found[-1])
    return NetworkMapping(chip, workload, tuple(found), len(known), time.perf_counter() - started)


def shape_key(layer: Layer, chip: Chip, objective: str | tuple[float, float]) -> str:
    """What a result depends on, hashed: the layer's loops (not its name), the chip's numbers (not its name), the objective."""
    hardware = asdict(chip)
    for name in ("name", "source"):
        hardware.pop(name)
    for name in ("name", "source"):
        hardware["energy"].pop(name)
    content = json.dumps(
        [MODEL_VERSION, layer_code(layer).tolist(), hardware, objective],
        sort_keys=True,
        default=str,
    )
    return hashlib.sha256(content.encode()).hexdigest()


def _read(cache: Path | None, key: str, layer: Layer, chip: Chip) -> BestMapping | None:
    """A cached result; None where there is none or the file is no longer readable, so that it is made again."""
    if cache is None:
        return None
    try:
        stored = json.loads((cache / f"{key}.json").read_text(encoding="utf-8"))
        mapping = Mapping.decode(stored["mapping"], axes=len(chip.axes))
        certificate = Certificate(**stored["certificate"])
        cost = evaluate(layer, chip, mapping)
        return BestMapping(layer, mapping, cost, stored["objective"], stored["value"], certificate)
    except (OSError, ValueError, KeyError, TypeError, PliantError):
        return None


def _write(cache: Path | None, key: str, best: BestMapping) -> None:
    if cache is None or not best.certificate.proven:
        return
    cache.mkdir(parents=True, exist_ok=True)
    stored = {
        "layer": asdict(best.layer),
        "mapping": best.mapping.encode().tolist(),
        "objective": best.objective,
        "value": best.value,
        "certificate": asdict(best.certificate),
    }
    partial = cache / f".{key}.{os.getpid()}.json"
    with partial.open("w", encoding="utf-8") as file:
        json.dump(stored, file)
        file.flush()
        os.fsync(file.fileno())
    partial.replace(cache / f"{key}.json")
