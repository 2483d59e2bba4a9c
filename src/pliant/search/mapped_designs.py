"""What networks cost on a design, each layer with its best mapping; or that it cannot win.

Most designs of a search cannot win, and mapping them takes most of its time. So a design is
bounded before it is mapped: the least energy and the least cycles of any mapping of each layer. The
layers that weigh most are then mapped one by one in place of their bounds, and the design is
rejected as soon as it reaches the value that it has to beat. A rejected design has no energy-delay
product: what is known of it is that bound.
"""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Protocol

from pliant.accelerator.chip import Chip
from pliant.accelerator.mapper.optimal import BestMapping, least_cost
from pliant.accelerator.model.counts import layer_key
from pliant.accelerator.network_mapping import digest, map_layer_below
from pliant.errors import PliantError
from pliant.workload import Layer, Workload


@dataclass(frozen=True, slots=True)
class NetworkCost:
    """One network on one design."""

    cycles: float
    energy: float
    """In the unit of the chip's energy table."""
    proven: bool
    """Whether the mapping of every layer is certified."""

    @property
    def edp(self) -> float:
        """Energy-delay product."""
        return self.cycles * self.energy


@dataclass(frozen=True, slots=True)
class Design:
    """One accelerator, and what the networks cost on it."""

    chip: Chip
    vector: tuple[float, ...]
    """In the hardware space; empty for a chip that was not drawn from it."""
    costs: Mapping[str, NetworkCost]
    """By network; empty where the design failed or was rejected."""
    failure: str | None = None
    """Why there are no costs."""
    bound: float | None = None
    """Where the design was rejected by a bound: no mapping has a smaller energy-delay product."""
    network: str | None = None
    """The architecture that was searched for this design, as text; None for given networks."""
    accuracy: float | None = None
    """Of that network, 0 to 1, as predicted."""

    @property
    def edp(self) -> float:
        """Geometric mean over the networks; infinite where the design has no costs."""
        return geometric_mean([cost.edp for cost in self.costs.values()])

    @property
    def proven(self) -> bool:
        """Whether the mapping of every layer of every network is certified."""
        return bool(self.costs) and all(cost.proven for cost in self.costs.values())


def geometric_mean(values: Sequence[float]) -> float:
    """Of positive numbers; infinite where there are none."""
    if not values:
        return math.inf
    return math.exp(sum(math.log(value) for value in values) / len(values))


_MAX_BOUNDED = 64
"""Chips whose bounds are remembered: more than a generation of a search has."""
_HALVINGS = 12
"""Of the range of a layer's energy-delay product, which begins as a factor of 2."""

LayerCost = tuple[float, float]
"""Energy and cycles."""


class LayerMapper(Protocol):
    """Finds the mapping of a layer on a chip."""

    def __call__(self, layer: Layer, chip: Chip, limit: float = math.inf) -> BestMapping | None:
        """A mapping, or None where its energy-delay product cannot be below the limit.

        Args:
            layer: the loops.
            chip: the hardware.
            limit: of the energy-delay product; not every mapper heeds it.

        Raises:
            InfeasibleError: no mapping fits.
        """
        ...


def best_layer(
    layer: Layer, chip: Chip, limit: float = math.inf, *, gap: float = 0.0
) -> BestMapping | None:
    """The mapping of a layer that has the least energy-delay product, remembered.

    Where off-chip traffic is free, as in MAESTRO's energies, nothing bypasses the buffer: all would
    do so, and none of them pays for it.

    Args:
        layer: the loops.
        chip: the hardware.
        limit: as `LayerMapper`.
        gap: as `map_layer`.
    """
    return map_layer_below(limit, layer, chip, gap=gap, bypass=may_bypass(chip))


def may_bypass(chip: Chip) -> bool:
    """Whether mappings that bypass the buffer are costed fairly."""
    return chip.energy.dram > 0


class MappedNetworks:
    """The networks that designs are judged by; each distinct layer of a design is mapped once.

    Args:
        workloads: by name.
        mapper: finds the mapping of a layer; by default the certified one of least energy-delay
            product, remembered by this process.
    """

    def __init__(self, workloads: Mapping[str, Workload], mapper: LayerMapper = best_layer) -> None:
        self.workloads, self.mapper = dict(workloads), mapper
        self._layers: dict[str, Layer] = {}
        self._bounded: dict[Chip, dict[str, LayerCost]] = {}
        """What the layers cost at least on the last chips."""
        self._counts: dict[str, Counter[str]] = {}
        """How often each network has each layer."""
        for name, workload in self.workloads.items():
            keys = [digest(layer_key(layer)) for layer in workload.layers]
            for key, layer in zip(keys, workload.layers, strict=True):
                self._layers.setdefault(key, layer)
            self._counts[name] = Counter(keys)

    @property
    def identity(self) -> str:
        """Digest of all loops, for the record."""
        return digest({name: sorted(one.items()) for name, one in self._counts.items()})[:16]

    def bound(self, chip: Chip) -> float:
        """What no mapping makes the energy-delay product of a design smaller than.

        Infinite where a layer has no mapping.
        """
        try:
            return self._value(self._least(chip))
        except PliantError:
            return math.inf

    def design(self, chip: Chip, vector: Sequence[float] = (), limit: float = math.inf) -> Design:
        """A chip with what the networks cost on it; a layer without a mapping is its failure.

        Args:
            chip: the hardware.
            vector: of the chip, in the space that it was drawn from.
            limit: a design whose energy-delay product cannot be below it is rejected.
        """
        point = tuple(vector)
        try:
            # Energy and cycles of each layer: first the bounds, then those of its mapping.
            is_limited = math.isfinite(limit)
            known: dict[str, LayerCost] = dict(self._least(chip)) if is_limited else {}
            proven = True
            for key in self._heaviest_first(known):
                least = math.inf
                if is_limited:
                    if (value := self._value(known)) >= limit:
                        return Design(chip, point, {}, bound=value)
                    least = self._largest_edp(key, known, limit)
                best = self.mapper(self._layers[key], chip, least)
                if best is None:
                    return Design(chip, point, {}, bound=limit)
                known[key] = best.cost.energy, best.cost.cycles
                proven = proven and best.certificate.proven
        except PliantError as error:
            return Design(chip, point, {}, str(error))
        costs = {}
        for name in self._counts:
            energy, cycles = self._sums(name, known)
            costs[name] = NetworkCost(cycles, energy, proven)
        return Design(chip, point, costs)

    def _least(self, chip: Chip) -> dict[str, LayerCost]:
        """The least energy and cycles of each layer."""
        found = self._bounded.get(chip)
        if found is None:
            found = {}
            for key, layer in self._layers.items():
                least = least_cost(layer, chip, bypass=may_bypass(chip))
                found[key] = least.energy, least.cycles
            self._bounded[chip] = found
            if len(self._bounded) > _MAX_BOUNDED:
                self._bounded.pop(next(iter(self._bounded)), None)
        return found

    def _largest_edp(self, key: str, known: Mapping[str, LayerCost], limit: float) -> float:
        """A layer's energy-delay product from which on a design is not below the limit.

        Args:
            key: of the layer, whose energy and cycles are still its bounds.
            known: energy and cycles of each layer, or their bounds.
            limit: of the design.
        """
        low = high = math.prod(known[key])
        if low == 0.0:
            return math.inf  # nothing is known of the layer
        while self._value_with(key, high, known) < limit:
            low, high = high, 2 * high
        for _ in range(_HALVINGS):
            middle = math.sqrt(low * high)
            if self._value_with(key, middle, known) < limit:
                low = middle
            else:
                high = middle
        return high

    def _value_with(self, key: str, edp: float, known: Mapping[str, LayerCost]) -> float:
        """What the design cannot be below if a layer has at least this energy-delay product.

        Of (A + n e)(B + n c), the energy and cycles of a network in which the layer occurs n times,
        only the product e c is known, and what e and c are at least. With e = edp / c the sum A c +
        B e is least at c = sqrt(B edp / A), or at the end of the range nearest to it.
        """
        values = []
        for name, counts in self._counts.items():
            energy, cycles = self._sums(name, known)
            count = counts[key]
            if count:
                least_energy, least_cycles = known[key]
                rest_energy, rest_cycles = (
                    energy - count * least_energy,
                    cycles - count * least_cycles,
                )
                own = math.sqrt(rest_cycles * edp / rest_energy) if rest_energy > 0 else math.inf
                own = max(least_cycles, min(own, edp / least_energy))
                energy, cycles = rest_energy + count * edp / own, rest_cycles + count * own
            values.append(energy * cycles)
        return geometric_mean(values)

    def _heaviest_first(self, least: Mapping[str, LayerCost]) -> list[str]:
        """The layers in the order in which they are mapped: those that decide most come first."""
        if not least:
            return list(self._layers)
        weight = dict.fromkeys(self._layers, 0.0)
        for name, counts in self._counts.items():
            energy, cycles = self._sums(name, least)
            for key, count in counts.items():
                weight[key] += count * (least[key][0] / energy + least[key][1] / cycles)
        return sorted(self._layers, key=lambda key: -weight[key])

    def _sums(self, name: str, known: Mapping[str, LayerCost]) -> tuple[float, float]:
        """Energy and cycles of a network."""
        energy = cycles = 0.0
        for key, count in self._counts[name].items():
            energy, cycles = energy + count * known[key][0], cycles + count * known[key][1]
        return energy, cycles

    def _value(self, known: Mapping[str, LayerCost]) -> float:
        """The geometric mean of the energy-delay products."""
        return geometric_mean([math.prod(self._sums(name, known)) for name in self._counts])
