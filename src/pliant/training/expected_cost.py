"""Costs of a mixed network as a function of the probabilities of its operations.

H. Cai, L. Zhu, S. Han, "ProxylessNAS", 2019, arXiv:1812.00332, section 3.3: the expected latency of
a network is the sum of its fixed blocks and, over the mixed blocks, of the operations' latencies
weighted by their probabilities (eq. 5). Energy, parameters, MACs and the size of the model add up
in the same way. Peak memory is that of the block that needs most, so its expectation is the largest
of those of the blocks.

What a block costs in time and energy comes from the target. Whatever its prediction for whole
networks adds to the sum over blocks is fitted as a constant on random networks.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Protocol

import numpy as np
import torch
from scipy.optimize import Bounds, LinearConstraint, milp
from torch import Tensor

from pliant.errors import InfeasibleError, RecipeError
from pliant.metrics import Cost, Failed
from pliant.networks.mixed import MixedBlock
from pliant.spaces.architecture import Architecture
from pliant.spaces.block import Block, cost_with_bits
from pliant.spaces.space import Space

FITTED_NETWORKS = 64
"""Random networks on which the constant of a metric is fitted."""
MIN_PROBABILITY = 1e-9
PEAK_MEMORY = "peak_memory_bytes"
BY_TARGET = ("latency_ms", "energy_uj")
"""Metrics that the target says of each block, and that add up."""
BY_LAYERS = {"macs": "macs", "parameters": "parameters", "model_size_bytes": "parameter_bytes"}
"""Metrics that add up and follow from the layers: the fields of `BlockCost`."""


class Hardware(Protocol):
    """What the search asks of a target."""

    def predict(self, architectures: Sequence[Architecture]) -> Sequence[Cost | Failed]:
        """Cost of each network."""
        ...

    def block_costs(self, architecture: Architecture) -> Sequence[Cost]:
        """What each block adds, in the order of `space.blocks`."""
        ...


@dataclass(frozen=True, slots=True)
class _Terms:
    """One sum over blocks: a constant, and a value for each operation of each mixed block."""

    fixed: float
    by_slot: Mapping[str, Tensor]
    """(operations,) by slot."""

    def values(self, mixed: MixedBlock) -> np.ndarray:
        """(operations,) of a mixed block; zeros where the sum has nothing of it."""
        if mixed.slot not in self.by_slot:
            return np.zeros(len(mixed.operations))
        found: np.ndarray = self.by_slot[mixed.slot].numpy()
        return found

    def expected(self, probabilities: Mapping[str, Tensor]) -> Tensor:
        """A scalar, differentiable in the probabilities."""
        total = torch.tensor(self.fixed, dtype=torch.float64)
        for slot, values in self.by_slot.items():
            total = total + (probabilities[slot].double() * values).sum()
        return total


class ExpectedCost:
    """Expected costs of the networks that a mixed network draws.

    Args:
        space: of the networks.
        mixed: its blocks with a choice of operations.
        hardware: the target.
        metrics: of `Cost`, to be expected.

    Raises:
        RecipeError: a metric that no probabilities change, such as area.
        InfeasibleError: the target has no cost for an operation.
    """

    def __init__(
        self,
        space: Space,
        mixed: Sequence[MixedBlock],
        hardware: Hardware,
        metrics: Sequence[str],
    ) -> None:
        self.space, self.mixed, self.hardware = space, tuple(mixed), hardware
        known = (*BY_TARGET, *BY_LAYERS, PEAK_MEMORY)
        if wrong := [name for name in metrics if name not in known]:
            raise RecipeError(
                f"a search by architecture parameters limits {', '.join(known)}, received "
                f"{wrong[0]}, which no operation changes."
            )
        self.metrics = tuple(metrics)
        self._sums = {name: self._sums_of(name) for name in metrics}
        """A metric is the largest of its sums over blocks."""

    def expected(self, metric: str, probabilities: Mapping[str, Tensor]) -> Tensor:
        """A metric's expectation, a scalar that is differentiable in the probabilities.

        Args:
            metric: one of `metrics`.
            probabilities: (operations,) by slot.
        """
        return torch.stack([terms.expected(probabilities) for terms in self._sums[metric]]).max()

    def _sums_of(self, metric: str) -> list[_Terms]:
        if metric in BY_TARGET:
            return [self._by_target(metric)]
        if metric in BY_LAYERS:
            return [self._by_layers(BY_LAYERS[metric], {one.slot for one in self._blocks})]
        return [self._by_layers("peak_activation_bytes", {one.slot}) for one in self._blocks]

    @property
    def _blocks(self) -> Sequence[Block]:
        return self.space.blocks(self.space.largest())

    def _by_layers(self, field: str, slots: set[str]) -> _Terms:
        """A field of `BlockCost`, summed over the blocks of some slots."""

        def value(block: Block | None) -> float:
            return 0.0 if block is None else getattr(cost_with_bits(block, self.space.bits), field)

        mixed = {one.slot: one for one in self.mixed if one.slot in slots}
        fixed = [one for one in self._blocks if one.slot in slots and one.slot not in mixed]
        by_slot = {
            slot: torch.tensor([value(block) for block in one.operations], dtype=torch.float64)
            for slot, one in mixed.items()
        }
        return _Terms(sum(value(block) for block in fixed), by_slot)

    def _by_target(self, metric: str) -> _Terms:
        """From the target's block costs; the constant from its predictions of whole networks."""
        by_slot = {}
        for mixed in self.mixed:
            indices = range(len(mixed.operations))
            values = [self._operation_cost(mixed, index, metric) for index in indices]
            by_slot[mixed.slot] = torch.tensor(values, dtype=torch.float64)
        rng = np.random.default_rng(0)
        networks = [self.space.sample_choices(rng) for _ in range(FITTED_NETWORKS)]
        rests = []
        for network, cost in zip(networks, self.hardware.predict(networks), strict=True):
            if isinstance(cost, Cost):
                own = [by_slot[one.slot][self.index_of(one, network)] for one in self.mixed]
                rests.append(cost.metric(metric) - float(sum(own)))
        if not rests:
            raise InfeasibleError(f"the target predicts no {metric} of any network of the space.")
        return _Terms(float(np.mean(rests)), by_slot)

    def _operation_cost(self, mixed: MixedBlock, index: int, metric: str) -> float:
        if mixed.operations[index] is None:
            return 0.0
        network = self.space.architecture(
            {**self.space.largest().mapping, mixed.choice.name: mixed.choice.options[index]}
        )
        blocks = self.space.blocks(network)
        costs = self.hardware.block_costs(network)
        [cost] = [
            cost for block, cost in zip(blocks, costs, strict=True) if block.slot == mixed.slot
        ]
        return cost.metric(metric)

    def index_of(self, mixed: MixedBlock, architecture: Architecture) -> int:
        """Which operation of a mixed block an architecture has."""
        return mixed.choice.options.index(architecture.mapping[mixed.choice.name])

    def most_probable(
        self,
        probabilities: Mapping[str, Tensor],
        limits: Mapping[str, float],
        floors: Mapping[str, float] | None = None,
    ) -> Architecture:
        """The most probable network whose costs are within limits.

        An integer program, solved exactly: an operation for each block, the sum of the logarithms
        of their probabilities as large as can be.

        Args:
            probabilities: (operations,) by slot.
            limits: upper bounds by metric.
            floors: lower bounds by metric that is one sum.

        Raises:
            InfeasibleError: there is none.
        """
        floors = floors or {}
        sizes = [len(one.operations) for one in self.mixed]
        starts = np.cumsum([0, *sizes])
        gains = torch.cat([probabilities[one.slot].detach().double() for one in self.mixed])
        one_each = np.zeros((len(sizes), starts[-1]))
        for row, (start, size) in enumerate(zip(starts, sizes, strict=False)):
            one_each[row, start : start + size] = 1
        constraints = [LinearConstraint(one_each, 1, 1)]
        for metric, sums in self._sums.items():
            for terms in sums:
                values = np.concatenate([terms.values(one) for one in self.mixed])
                low, high = floors.get(metric, -np.inf), limits.get(metric, np.inf)
                scale = max(1e-12, float(np.abs(values).max()))
                bounds = (low - terms.fixed) / scale, (high - terms.fixed) / scale
                constraints.append(LinearConstraint(values[None] / scale, *bounds))
        found = milp(
            -np.log(np.maximum(gains.numpy(), MIN_PROBABILITY)),
            integrality=np.ones(starts[-1]),
            bounds=Bounds(0, 1),
            constraints=constraints,
        )
        if found.x is None:
            wanted = ", ".join(f"{name} <= {bound:g}" for name, bound in limits.items())
            raise InfeasibleError(f"no network of space {self.space.name!r} has {wanted}.")
        chosen = dict(self.space.largest().mapping)
        for one, start, size in zip(self.mixed, starts, sizes, strict=False):
            chosen[one.choice.name] = one.choice.options[
                int(found.x[start : start + size].argmax())
            ]
        return self.space.architecture(chosen)
