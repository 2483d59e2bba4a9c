"""A chip as what a run optimises for: what every network of a search space costs on it.

    space = preset("digits", channels=1, image_size=8, classes=10)
    target = ChipTarget(load_chip("nvdla-256"), space)
    costs = target.predict([space.smallest(), space.largest()])

Nothing is measured. Each distinct layer shape is mapped once, by the certified mapper; after that
an architecture is a sum over its blocks, so thousands of architectures take a fraction of a second.
Layers run one after the other, with nothing kept on the chip between them.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import ClassVar

from pliant.accelerator.chip import Chip
from pliant.accelerator.mapper.optimal import objective_powers
from pliant.accelerator.model.counts import layer_key
from pliant.accelerator.network_mapping import deciding_fields, digest, map_layer
from pliant.errors import InfeasibleError, MeasurementError, PliantError
from pliant.metrics import ARITHMETIC_METRICS, Claim, Cost, Failed, Measured
from pliant.spaces.architecture import Architecture
from pliant.spaces.block import Block
from pliant.spaces.space import Space
from pliant.workload import Layer


@dataclass(frozen=True, slots=True)
class _Use:
    """Cycles of the chip, and energy in the unit of its energy table."""

    cycles: float = 0.0
    energy: float = 0.0

    def __add__(self, other: _Use) -> _Use:
        return _Use(self.cycles + other.cycles, self.energy + other.energy)


class ChipTarget:
    """What the networks of a space cost on a chip, predicted; fulfils the protocol of targets.

    Args:
        chip: the hardware.
        space: whose architectures are asked for.
        objective: minimised by the mapping of each layer: energy, latency, edp, or a product.
        cache: folder of mappings that processes may share; unset, they are kept in memory only.

    Raises:
        RecipeError: an unknown objective.
    """

    can_measure: ClassVar[bool] = False

    def __init__(
        self, chip: Chip, space: Space, *, objective: str = "edp", cache: Path | None = None
    ) -> None:
        self.chip, self.space, self.objective, self.cache = chip, space, objective, cache
        powers = objective_powers(objective)
        self.name = chip.name
        self.identity = digest(deciding_fields(chip), powers)[:16]
        """Digest of all that decides predictions: chip, objective of the mapper, model version."""
        energy = ("energy_uj",) if chip.energy.picojoules is not None else ()
        self.metrics: tuple[str, ...] = (
            "latency_ms",
            *energy,
            *ARITHMETIC_METRICS,
            "area_mm2",
        )
        """Fields of `Cost` that are reported; no energy where the energy table is in ratios."""
        self._of_shape: dict[tuple[float, ...], _Use | Failed] = {}
        self._of_block: dict[Block, _Use | Failed] = {}
        self._unproven = 0

    def predict(self, architectures: Sequence[Architecture]) -> list[Cost | Failed]:
        """The cost of each architecture for one image; `Failed` names a layer without a mapping.

        Args:
            architectures: of the space of the target.
        """
        return [self._predict(architecture) for architecture in architectures]

    def block_costs(self, architecture: Architecture) -> list[Cost]:
        """What each block adds to its network, in the order of `space.blocks`.

        Latency, energy, parameters and MACs add up to those of the network. Peak memory and area
        are no sums and are None.

        Raises:
            InfeasibleError: a layer has no mapping.
        """
        costs = []
        for block in self.space.blocks(architecture):
            use = self._block(block)
            if isinstance(use, Failed):
                raise InfeasibleError(use.reason)
            shape = Cost(macs=block.cost.macs, parameters=block.cost.parameters)
            costs.append(self._with_use(shape, use))
        return costs

    def measure(self, models: Mapping[str, bytes]) -> dict[str, Measured]:
        """Nothing: a chip on paper is not at hand."""
        return {}

    def measure_file(self, path: Path) -> Measured:
        """Refused, since `can_measure` is False.

        Raises:
            MeasurementError: always.
        """
        raise MeasurementError(
            f"a chip on paper predicts and measures nothing, received {path} for {self.name!r}. "
            "Choose a target that is at hand, such as this-cpu."
        )

    def evidence(self) -> tuple[Claim, ...]:
        """How many layer shapes were mapped, and whether all mappings are proven optimal."""
        mapped = sum(isinstance(use, _Use) for use in self._of_shape.values())
        return (
            Claim(
                "Mapping of every layer is proven optimal",
                f"{mapped - self._unproven} of {mapped} layer shapes",
                f"certificates of the mapper, which minimises {self.objective} of each layer",
                bound="all",
                holds=self._unproven == 0,
            ),
        )

    def _predict(self, architecture: Architecture) -> Cost | Failed:
        total = _Use()
        for block in self.space.blocks(architecture):
            use = self._block(block)
            if isinstance(use, Failed):
                return use
            total += use
        arithmetic = self.space.cost(architecture)
        return replace(self._with_use(arithmetic, total), area_mm2=self.chip.area_mm2)

    def _with_use(self, cost: Cost, use: _Use) -> Cost:
        # Cycles / MHz are microseconds.
        latency_ms = use.cycles / self.chip.clock_mhz * 1e-3
        picojoules = self.chip.energy.picojoules
        energy_uj = None if picojoules is None else use.energy * picojoules * 1e-6
        return replace(cost, latency_ms=latency_ms, energy_uj=energy_uj)

    def _block(self, block: Block) -> _Use | Failed:
        """Sum over the layers of a block, memoized by block."""
        if block not in self._of_block:
            self._of_block[block] = self._sum(block.layers())
        return self._of_block[block]

    def _sum(self, layers: Sequence[Layer]) -> _Use | Failed:
        total = _Use()
        for layer in layers:
            use = self._layer(layer)
            if isinstance(use, Failed):
                return Failed(f"layer {layer.name!r}: {use.reason}")
            total += use
        return total

    def _layer(self, layer: Layer) -> _Use | Failed:
        """Of the best mapping, memoized by loops. So is a failure, whose reason names no layer."""
        try:
            shape = layer_key(layer)
        except PliantError as error:  # a layer that the model refuses has no shape
            return _failed(layer, error)
        if shape not in self._of_shape:
            try:
                best = map_layer(layer, self.chip, self.objective, cache=self.cache)
                self._of_shape[shape] = _Use(best.cost.cycles, best.cost.energy)
                self._unproven += not best.certificate.proven
            except PliantError as error:
                self._of_shape[shape] = _failed(layer, error)
        return self._of_shape[shape]


def _failed(layer: Layer, error: PliantError) -> Failed:
    return Failed(str(error).removeprefix(f"layer {layer.name!r}: "))
