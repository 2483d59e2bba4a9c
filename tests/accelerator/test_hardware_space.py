"""Designs stay within the resources of their chip, and both encodings reach the same arrays."""

from __future__ import annotations

import math
from dataclasses import replace

import numpy as np
import pytest

from pliant.accelerator.chip import Memory, chip_toml, load_chip, parse_chip, shipped_chips
from pliant.accelerator.hardware_space import PARALLEL_LOOPS, HardwareSpace, Resources
from pliant.errors import RecipeError


def drawn(space, count, seed=0):
    rng = np.random.default_rng(seed)
    chips = (space.decode(rng.random(space.dimensions)) for _ in range(count))
    return [chip for chip in chips if chip is not None]


@pytest.mark.parametrize("name", shipped_chips())
@pytest.mark.parametrize("sizing_only", [False, True])
def test_every_design_is_within_the_resources(name, sizing_only):
    within = load_chip(name)
    found = drawn(HardwareSpace(within, sizing_only=sizing_only), 400)
    assert len(found) > 40
    most = Resources.of(within)
    for chip in found:
        used = Resources.of(chip)
        assert used.pes <= most.pes
        assert used.on_chip_bytes <= most.on_chip_bytes
        assert used.bandwidth_bytes_per_cycle <= most.bandwidth_bytes_per_cycle
        assert all(axis.size % 2 == 0 for axis in chip.axes)
        assert chip.buffer.total_bytes % 16 == 0
        assert chip.energy == within.energy
        assert parse_chip(chip_toml(chip)) == chip
        if sizing_only:
            assert [axis.loops for axis in chip.axes] == [axis.loops for axis in within.axes]


def test_most_of_the_resources_can_be_used():
    within = load_chip("eyeriss")
    found = drawn(HardwareSpace(within), 3000)
    assert max(chip.pes for chip in found) >= 160
    assert max(Resources.of(chip).on_chip_bytes for chip in found) > 0.95 * 197_952


def test_importance_takes_the_largest_numbers_and_index_counts_all_choices():
    within = load_chip("nvdla-1024")
    by_importance, by_index = HardwareSpace(within), HardwareSpace(within, encoding="index")
    vector = np.full(by_importance.dimensions, 0.3)
    vector[by_importance.names.index("axes")] = 0.5
    vector[by_importance.names.index("R")] = 0.9
    vector[by_importance.names.index("K")] = 0.8
    assert [axis.loops for axis in by_importance.decode(vector).axes] == ["R", "K"]
    reached = {
        name: {tuple(axis.loops for axis in chip.axes) for chip in drawn(space, 6000)}
        for name, space in (("importance", by_importance), ("index", by_index))
    }
    everything = sum(math.perm(len(PARALLEL_LOOPS), count) for count in (1, 2, 3))
    assert len(reached["index"]) > 0.95 * everything
    assert len(reached["importance"]) > 0.95 * everything


def test_a_chip_without_end_has_no_resources():
    chip = replace(load_chip("eyeriss"), buffer=Memory())
    with pytest.raises(RecipeError, match=r"those of 'eyeriss' have no end"):
        HardwareSpace(chip)
