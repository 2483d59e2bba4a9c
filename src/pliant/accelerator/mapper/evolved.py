"""The mapping that the evolution of NAAS finds, beside the certified one.

Y. Lin, M. Yang, S. Han, "NAAS: Neural Accelerator Architecture Search", DAC 2021, arXiv:2105.13258,
section II-B. It proves nothing; what the mapper's first bound leaves open stands in the
certificate, so that results of both can be told apart.
"""

from __future__ import annotations

import time

import numpy as np

from pliant.accelerator.chip import Chip
from pliant.accelerator.mapper.baselines import naas_evolution
from pliant.accelerator.mapper.mapspace import spatial_splits
from pliant.accelerator.mapper.optimal import (
    BestMapping,
    Certificate,
    least_cost,
)
from pliant.accelerator.model.cost import evaluate
from pliant.workload import Layer


def evolved_mapping(
    layer: Layer, chip: Chip, evaluations: int, *, seed: int = 0, bypass: bool = True
) -> BestMapping:
    """The best mapping by energy-delay product that the evolution saw.

    Args:
        layer: the loops.
        chip: the hardware.
        evaluations: mappings that fit.
        seed: of all draws.
        bypass: whether tensors may bypass the buffer.

    Raises:
        InfeasibleError: nearly no mapping that is drawn fits.
    """
    started = time.perf_counter()
    rng = np.random.default_rng(seed)
    sampled = naas_evolution(layer, chip, "edp", evaluations, rng, bypass=bypass)
    least = least_cost(layer, chip, bypass=bypass)
    mappings = int(spatial_splits(layer, chip).mappings.sum())
    certificate = Certificate(
        mappings=mappings,
        evaluated=sampled.evaluations,
        pruned_by_spatial_bound=0,
        pruned_by_tiles=0,
        gap=max(0.0, 1 - least.edp / sampled.value),
        seconds=time.perf_counter() - started,
        # Nothing was searched to its end, so that even a gap of 0 proves nothing of ties.
        ties_settled=False,
    )
    cost = evaluate(layer, chip, sampled.mapping)
    return BestMapping(layer, sampled.mapping, cost, "edp", sampled.value, certificate)
