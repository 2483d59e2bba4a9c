"""What would other mappers find? Random search, the evolution of NAAS, and fixed dataflows.

All are scored by the same cost model. Random search and the evolution count only mappings that fit,
as NAAS does (invalid candidates are drawn again): Y. Lin, M. Yang, S. Han, "NAAS: Neural
Accelerator Architecture Search", DAC 2021, arXiv:2105.13258. The dataflows: Y.-H. Chen, J. Emer,
V. Sze, "Eyeriss: A Spatial Architecture for Energy-Efficient Dataflow for Convolutional Neural
Networks", ISCA 2016, doi:10.1109/ISCA.2016.40.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from pliant.accelerator.chip import DIMS, Chip
from pliant.accelerator.mapper.mapspace import SpatialSplits, divisors, spatial_splits
from pliant.accelerator.mapper.optimal import (
    POWERS,
    BestMapping,
    DataflowConstraint,
    MappingObjective,
    optimal_mapping,
)
from pliant.accelerator.mapping import ENCODED_LENGTH, Mapping, layer_sizes
from pliant.accelerator.model.cost import MappingCosts, evaluate_many
from pliant.errors import InfeasibleError, RecipeError, nearest
from pliant.workload import Layer

_BATCH: Final = 256
BYPASS_PLACE: Final = 64
"""Of the bypass in the code of a mapping."""
_MAX_MISSES: Final = 2000
"""Draws per evaluation that may fail to fit before a search gives up."""


@dataclass(frozen=True, slots=True)
class BestSampled:
    """The best mapping that a search saw."""

    mapping: Mapping
    value: float
    evaluations: int
    drawn: int
    """With those that did not fit."""


# Per dataflow: the constraint on the mappings, and the loops of the first two axes where the
# dataflow asks for its own unrolling.
DATAFLOWS: Final = {
    "weight-stationary": (DataflowConstraint("W", "W", bypass=False), None),
    "output-stationary": (DataflowConstraint("O", "O", bypass=False), None),
    "input-stationary": (DataflowConstraint("I", "I", bypass=False), None),
    "row-stationary": (DataflowConstraint(bypass=False, spread="R"), ("RPCKG", "PNG")),
}
"""The stationary dataflows as parts of the space, by their names in the literature."""


def fixed_dataflow(
    layer: Layer, chip: Chip, name: str, objective: MappingObjective = "edp"
) -> BestMapping:
    """The best tiles that one dataflow allows, nothing bypassing the buffer.

    Row-stationary unrolls all kernel rows down the first axis and output rows along the second, as
    Eyeriss does; what is left of the first axis takes channels, filters, or more output rows
    (Eyeriss folds its strips so; the chip's own description need not list them). Loop orders are
    free: Eyeriss varies its passes too.

    Args:
        layer: the loops.
        chip: the hardware.
        name: a key of `DATAFLOWS`.
        objective: what is minimised.

    Raises:
        RecipeError: an unknown dataflow.
        InfeasibleError: the array cannot unroll it, or no mapping fits.
    """
    if name not in DATAFLOWS:
        raise RecipeError(f"no dataflow is called {name!r}. {nearest(name, DATAFLOWS)}")
    constraint, loops = DATAFLOWS[name]
    if loops is not None:
        if len(chip.axes) < 2 or "R" not in chip.axes[0].loops or "P" not in chip.axes[1].loops:
            raise InfeasibleError(
                f"{name} unrolls R over the first axis and P over the second; chip {chip.name!r} "
                "cannot."
            )
        axes = tuple(
            replace(axis, loops=loops[index]) if index < 2 else axis
            for index, axis in enumerate(chip.axes)
        )
        chip = replace(chip, axes=axes)
    return optimal_mapping(layer, chip, objective, constraint=constraint)


def random_search(
    layer: Layer,
    chip: Chip,
    objective: MappingObjective,
    evaluations: int,
    generator: np.random.Generator,
) -> BestSampled:
    """Uniform over spatial splits, then over factors one by one, any two orders, any bypass.

    Args:
        layer: the loops.
        chip: the hardware.
        objective: what is minimised.
        evaluations: mappings that fit.
        generator: source of randomness.
    """
    splits = spatial_splits(layer, chip)
    score = _Evaluations(layer, chip, objective, splits)
    while score.evaluations < evaluations:
        score.add(np.stack([_draw(splits, generator) for _ in range(_BATCH)]), evaluations)
    return score.found()


def naas_evolution(
    layer: Layer,
    chip: Chip,
    objective: MappingObjective,
    evaluations: int,
    generator: np.random.Generator,
    population: int = 50,
    parents: int = 12,
    bypass: bool = True,
) -> BestSampled:
    """The inner loop of NAAS: a multivariate normal in [0, 1]^n that moves to its best samples.

    Loop orders and the loops of each axis are decoded by importance (the largest is outermost, or
    is spread first), tile sizes as ratios of what is left of a loop. The paper gives no population
    size; ours is stated here. The bypass bits are an addition, since the space has them.

    Args:
        layer: the loops.
        chip: the hardware.
        objective: what is minimised.
        evaluations: mappings that fit.
        generator: source of randomness.
        population: samples of one generation that fit.
        parents: the best of them, which become the next centre.
        bypass: whether tensors may bypass the buffer.
    """
    splits = spatial_splits(layer, chip)
    score = _Evaluations(layer, chip, objective, splits)
    length = 4 * 8 + 9 * len(chip.axes) + 3
    mean, covariance = np.full(length, 0.5), np.eye(length) * 0.09
    while score.evaluations < evaluations:
        wanted = min(population, evaluations - score.evaluations)
        genes, values = np.empty((0, length)), np.empty(0)
        while len(values) < wanted:
            drawn = np.clip(
                generator.multivariate_normal(
                    mean, covariance, size=2 * population, method="cholesky"
                ),
                0.0,
                1.0,
            )
            codes = np.stack([decode(row, layer, chip) for row in drawn])
            codes[:, BYPASS_PLACE] *= bypass
            kept, value = score.add(
                codes,
                score.evaluations + wanted - len(values),
            )
            genes, values = np.vstack([genes, drawn[kept]]), np.concatenate([values, value])
        best = genes[np.argsort(values)[:parents]]
        centre = best.mean(axis=0)
        steps = best - mean
        covariance = 0.7 * covariance + 0.3 * (steps.T @ steps) / len(best) + 1e-6 * np.eye(length)
        mean = centre
    return score.found()


def decode(gene: NDArray[np.float64], layer: Layer, chip: Chip) -> NDArray[np.int64]:
    """The code of a mapping from numbers in [0, 1].

    Args:
        gene: importances of the loops in two orders (16), tile ratios at two levels (16), for each
            axis importances of the loops and one ratio (9), bypass of the three tensors.
        layer: the loops.
        chip: the hardware.
    """
    sizes = np.array(layer_sizes(layer))
    orders = [np.argsort(-gene[start : start + 8], kind="stable") for start in (0, 8)]
    code = np.ones(ENCODED_LENGTH, dtype=np.int64)
    rest = sizes.copy()
    for index, axis in enumerate(chip.axes):
        part = gene[32 + 9 * index : 41 + 9 * index]
        room, used = axis.size, 0
        for d in np.argsort(-part[:8], kind="stable"):
            if DIMS[d] in axis.loops and rest[d] > 1 and room > 1 and used < axis.max_loops:
                share = max(1, round(room * part[8])) if used == 0 and axis.max_loops > 1 else room
                wanted = min(rest[d], max(share, 2))
                factor = -(-rest[d] // -(-rest[d] // wanted))
                code[8 + 8 * index + d], rest[d], room, used = (
                    factor,
                    -(-rest[d] // factor),
                    room // factor,
                    used + 1,
                )
    pes = np.prod([code[8 + 8 * a : 16 + 8 * a] for a in range(3)], axis=0)
    rounds = -(-sizes // pes)
    for d in range(8):
        tiles = divisors(int(rounds[d]))
        code[d] = _nearest(tiles, gene[16 + d])
        left = int(rounds[d] // code[d])
        code[32 + d] = _nearest(divisors(left), gene[24 + d])
        code[40 + d] = left // code[32 + d]
    code[48:56], code[56:64] = orders
    code[BYPASS_PLACE] = int(sum(1 << bit for bit in range(3) if gene[-3 + bit] > 0.5))
    return code


def _nearest(tiles: Sequence[int], ratio: float) -> int:
    """The tile whose logarithm is nearest to a share of the largest one's."""
    wanted = ratio * math.log(tiles[-1])
    return min(tiles, key=lambda tile: abs(math.log(tile) - wanted))


def _draw(splits: SpatialSplits, generator: np.random.Generator) -> NDArray[np.int64]:
    row = int(generator.integers(len(splits.pes)))
    code = np.ones(ENCODED_LENGTH, dtype=np.int64)
    code[8:16] = splits.pes[row]
    for d in range(8):
        rounds = int(splits.rounds[row, d])
        code[d] = generator.choice(divisors(rounds))
        code[32 + d] = generator.choice(divisors(rounds // int(code[d])))
        code[40 + d] = rounds // (code[d] * code[32 + d])
    code[48:56], code[56:64], code[64] = (
        generator.permutation(8),
        generator.permutation(8),
        generator.integers(8),
    )
    return code


class _Evaluations:
    """What a search evaluated: the counts, and the best mapping."""

    def __init__(self, layer: Layer, chip: Chip, objective: str, splits: SpatialSplits) -> None:
        self.layer, self.chip, self.powers, self.splits = layer, chip, POWERS[objective], splits
        self.value, self.code = np.inf, np.zeros(ENCODED_LENGTH, dtype=np.int64)
        self.evaluations = self.drawn = 0

    def add(
        self, codes: NDArray[np.int64], limit: int
    ) -> tuple[NDArray[np.int64], NDArray[np.float64]]:
        """Costs mappings until `limit` evaluations are reached.

        Returns:
            Rows that fit, and their values.
        """
        covering = self._covering(codes)
        costs: MappingCosts = evaluate_many(self.layer, self.chip, codes[covering])
        kept = covering[np.flatnonzero(costs.fits)][: limit - self.evaluations]
        chosen = np.flatnonzero(costs.fits)[: len(kept)]
        values = costs.energy[chosen] ** self.powers[0] * costs.cycles[chosen] ** self.powers[1]
        self.evaluations, self.drawn = self.evaluations + len(kept), self.drawn + len(codes)
        if self.drawn > _MAX_MISSES * max(self.evaluations, 1):
            raise InfeasibleError(
                f"layer {self.layer.name!r}: of {self.drawn} mappings drawn, {self.evaluations} "
                f"fit chip {self.chip.name!r}."
            )
        if len(values) and values.min() < self.value:
            self.value, self.code = float(values.min()), codes[kept[int(values.argmin())]]
        return kept, values

    def _covering(self, codes: NDArray[np.int64]) -> NDArray[np.int64]:
        """Rows without idle iterations: spreading a loop twice may leave some."""
        sizes = np.array(layer_sizes(self.layer))
        tile, good = np.ones_like(codes[:, :8]), np.ones(len(codes), dtype=bool)
        pes = codes[:, 8:16] * codes[:, 16:24] * codes[:, 24:32]
        for factors in (codes[:, :8], pes, codes[:, 32:40], codes[:, 40:48]):
            good &= ((factors - 1) * tile < sizes).all(axis=1)
            tile = tile * factors
        return np.flatnonzero(good & (tile >= sizes).all(axis=1))

    def found(self) -> BestSampled:
        """The best so far, laid over the chip's axes where the splits name it."""
        flat = Mapping.decode(self.code, axes=3)
        axes: Any = flat.spatial[: len(self.chip.axes)]
        if (self.splits.pes == flat.pes).all(axis=1).any():
            axes = self.splits.axes(flat.pes)
        mapping = replace(flat, spatial=axes)
        return BestSampled(mapping, self.value, self.evaluations, self.drawn)
