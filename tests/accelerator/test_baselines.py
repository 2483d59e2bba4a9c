"""Other mappers never beat the certified optimum, and repeat themselves."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from pliant.accelerator.chip import DIMS, load_chip
from pliant.accelerator.mapper.baselines import (
    DATAFLOWS,
    decode,
    fixed_dataflow,
    naas_evolution,
    random_search,
)
from pliant.accelerator.mapper.evolved import evolved_mapping
from pliant.accelerator.mapper.optimal import optimal_mapping
from pliant.accelerator.mapping import Mapping
from pliant.accelerator.model.cost import evaluate
from pliant.errors import InfeasibleError, RecipeError
from pliant.workload import Layer

LAYER = Layer("conv", "conv", ("image",), K=32, C=16, P=14, Q=14, R=3, S=3)


@pytest.mark.parametrize("search", [random_search, naas_evolution])
def test_searches_count_what_fits_repeat_themselves_and_never_beat_the_optimum(
    search: Any,
) -> None:
    chip = load_chip("eyeriss")
    found = search(LAYER, chip, "edp", 300, np.random.default_rng(0))
    assert found.evaluations == 300
    assert found.drawn >= 300
    assert found == search(LAYER, chip, "edp", 300, np.random.default_rng(0))
    cost = evaluate(LAYER, chip, found.mapping)
    assert cost.edp == pytest.approx(found.value)
    assert found.value >= optimal_mapping(LAYER, chip, "edp").value * (1 - 1e-12)


def test_importance_decides_the_order_and_ratios_the_tiles() -> None:
    chip = load_chip("eyeriss")
    gene = np.zeros(32 + 18 + 3)
    gene[:8] = np.linspace(1.0, 0.3, 8)
    gene[8:16] = np.linspace(0.3, 1.0, 8)
    gene[32 + DIMS.index("R")] = gene[41 + DIMS.index("P")] = 1.0
    gene[40] = gene[49] = 1.0
    mapping = Mapping.decode(decode(gene, LAYER, chip), axes=2)
    assert mapping.spatial[0][DIMS.index("R")] == 3
    assert mapping.spatial[1][DIMS.index("P")] == 14
    assert mapping.register == mapping.buffer == (1,) * 8
    assert [dim for dim in mapping.dram_order if dim in "KCQS"] == list("SQCK")


@pytest.mark.parametrize("name", DATAFLOWS)
def test_fixed_dataflows_are_parts_of_the_space(name: str) -> None:
    chip = load_chip("eyeriss")
    fixed = fixed_dataflow(LAYER, chip, name)
    assert fixed.value >= optimal_mapping(LAYER, chip).value
    assert fixed.mapping.bypass == ""
    if name == "row-stationary":
        with pytest.raises(InfeasibleError, match="R over the first axis"):
            fixed_dataflow(LAYER, load_chip("nvdla-256"), name)
    with pytest.raises(RecipeError, match="Did you mean 'row-stationary'"):
        fixed_dataflow(LAYER, chip, "row-stationery")


def test_an_evolved_mapping_says_how_far_from_the_best_it_may_be() -> None:
    chip = load_chip("eyeriss")
    best = optimal_mapping(LAYER, chip, "edp")
    for bypass in (True, False):
        found = evolved_mapping(LAYER, chip, 100, seed=1, bypass=bypass)
        assert found.value >= best.value * (1 - 1e-12)
        assert found.certificate.evaluated == 100
        assert not found.certificate.proven
        assert not found.certificate.complete
        assert found.value * (1 - found.certificate.gap) <= best.value
        assert bypass or not found.mapping.bypass
