"""What does a whole network cost on a chip, each layer mapped in the best way?

Layers of equal loops are mapped once, by several threads if wanted. Results are remembered
(`mapping_store`), and a bound tells designs that cannot win before they are mapped.
"""

from __future__ import annotations

import hashlib
import json
import math
import time
from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

from pliant.accelerator.chip import Chip
from pliant.accelerator.mapper.optimal import (
    BestMapping,
    DataflowConstraint,
    LeastCost,
    check_gap,
    least_cost,
    mapping_below,
    no_room,
    optimal_mapping,
)
from pliant.accelerator.mapping_store import MODEL_VERSION, known_mappings, recall, remember
from pliant.accelerator.model.counts import layer_key
from pliant.errors import RecipeError
from pliant.metrics import Cost
from pliant.workload import Layer, Workload


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


@dataclass(frozen=True, slots=True)
class NetworkBound:
    """What no mapping of a network on a chip can go below."""

    energy: float
    """In the unit of the chip's energy table."""
    cycles: float

    @property
    def edp(self) -> float:
        """Least energy times least cycles: no mapping has a smaller energy-delay product."""
        return self.energy * self.cycles


def network_bound(workload: Workload, chip: Chip) -> NetworkBound:
    """A lower bound before anything is mapped, to reject a design that cannot win.

    The sums over the layers of the least energy and the least cycles of any spatial split, by the
    first bound of the mapper; a few milliseconds for each layer shape.

    Args:
        workload: the layers.
        chip: the hardware.

    Raises:
        InfeasibleError: a layer that no mapping fits.
    """
    known: dict[tuple[float, ...], LeastCost] = {}
    energy = cycles = 0.0
    for layer in workload.layers:
        shape = layer_key(layer)
        if shape not in known:
            known[shape] = least_cost(layer, chip)
        energy, cycles = energy + known[shape].energy, cycles + known[shape].cycles
    return NetworkBound(energy, cycles)


def map_workload(
    workload: Workload,
    chip: Chip,
    objective: str | tuple[float, float] = "edp",
    *,
    time_limit_s: float = float("inf"),
    gap: float = 0.0,
    threads: int = 1,
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
        gap: as `optimal_mapping`.
        threads: that map different shapes at once; the kernels hold no interpreter lock.
        cache: folder of results; made if it is not there.
        progress: called with each layer, in the order of the workload.

    Raises:
        InfeasibleError: a layer that no mapping fits.
        RecipeError: a gap or a number of threads out of range.
    """
    if threads < 1:
        raise RecipeError(f"threads are at least 1, received {threads}.")
    started = time.perf_counter()
    shapes = {layer_key(layer): layer for layer in reversed(workload.layers)}
    known: dict[tuple[float, ...], Future[BestMapping]] = {}
    found = []
    with ThreadPoolExecutor(threads) as pool:
        try:
            for layer in workload.layers:
                key = layer_key(layer)
                if key in known:
                    continue
                known[key] = pool.submit(
                    map_layer,
                    shapes[key],
                    chip,
                    objective,
                    time_limit_s=time_limit_s,
                    gap=gap,
                    cache=cache,
                )
            for layer in workload.layers:
                found.append(replace(known[layer_key(layer)].result(), layer=layer))
                if progress is not None:
                    progress(found[-1])
        except BaseException:
            pool.shutdown(wait=False, cancel_futures=True)
            raise
    return NetworkMapping(chip, workload, tuple(found), len(known), time.perf_counter() - started)


def map_layer(
    layer: Layer,
    chip: Chip,
    objective: str | tuple[float, float] = "edp",
    *,
    time_limit_s: float = float("inf"),
    gap: float = 0.0,
    bypass: bool = True,
    cache: Path | None = None,
) -> BestMapping:
    """`optimal_mapping`, or its result from memory or from a folder, where new results go.

    Args:
        layer: the loops.
        chip: the hardware.
        objective: as `optimal_mapping`.
        time_limit_s: after which the best so far is returned, unproven.
        gap: as `optimal_mapping`.
        bypass: whether tensors may bypass the buffer.
        cache: folder of results; made if it is not there. What is damaged in it is made again.

    Raises:
        InfeasibleError: no mapping fits.
        RecipeError: an unknown objective, or a gap out of range.
    """
    check_gap(gap)
    known = recall(layer, chip, objective, gap, cache, bypass)
    if known is not None:
        return known
    constraint = DataflowConstraint(bypass=bypass)
    best = optimal_mapping(
        layer, chip, objective, time_limit_s=time_limit_s, gap=gap, constraint=constraint
    )
    remember(best, chip, objective, cache, bypass)
    return best


def map_layer_below(
    limit: float, layer: Layer, chip: Chip, *, gap: float = 0.0, bypass: bool = True
) -> BestMapping | None:
    """`map_layer` for a search over chips: the least energy-delay product, if it is below a limit.

    The mappings of the layer on other chips give a first value to beat. Where a gap is allowed they
    and the limit are not used: what is found would depend on what was searched before.

    Args:
        limit: of the energy-delay product.
        layer: the loops.
        chip: the hardware.
        gap: as `optimal_mapping`.
        bypass: whether tensors may bypass the buffer.

    Returns:
        None where no mapping is below the limit.

    Raises:
        InfeasibleError: no mapping fits, and there is no limit.
    """
    if gap > 0.0:
        return map_layer(layer, chip, gap=gap, bypass=bypass)
    best = recall(layer, chip, "edp", gap, None, bypass)
    if best is not None:
        return best
    known = known_mappings(layer, "edp", bypass)
    constraint = DataflowConstraint(bypass=bypass)
    best = mapping_below(limit, layer, chip, constraint=constraint, known=known)
    if best is not None:
        remember(best, chip, "edp", None, bypass)
    elif math.isinf(limit):
        raise no_room(layer, chip)
    return best


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
