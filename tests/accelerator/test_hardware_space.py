"""Designs stay within the resources of their chip, and both encodings reach the same arrays."""

from __future__ import annotations

import math
from dataclasses import replace

import numpy as np
import pytest

from pliant.accelerator.chip import (
    Axis,
    Chip,
    Memory,
    chip_toml,
    load_chip,
    parse_chip,
    shipped_chips,
)
from pliant.accelerator.energy import TABLES
from pliant.accelerator.hardware_space import PARALLEL_LOOPS, HardwareSpace, Resources
from pliant.accelerator.network_mapping import map_layer, map_workload, network_bound
from pliant.accelerator.resource_bound import resource_bound
from pliant.errors import RecipeError
from pliant.workload import Layer, Workload


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


@pytest.mark.parametrize("port", [math.inf, 2.6, 0.5])
def test_the_port_of_a_design_is_no_wider_than_that_of_the_chip(port):
    """A port without end stays so: a chip may leave its bandwidth out."""
    eyeriss = load_chip("eyeriss")
    within = replace(eyeriss, buffer=replace(eyeriss.buffer, bandwidth_bytes_per_cycle=port))
    space = HardwareSpace(within)
    ports = {chip.buffer.bandwidth_bytes_per_cycle for chip in drawn(space, 60)}
    assert max(ports) <= port
    assert space.decode(space.encode(within)).buffer.bandwidth_bytes_per_cycle == port
    if math.isinf(port):
        assert ports == {math.inf}
        chip = drawn(space, 60)[0]
        assert parse_chip(chip_toml(chip)) == chip


def test_most_of_the_resources_can_be_used():
    within = load_chip("eyeriss")
    found = drawn(HardwareSpace(within), 3000)
    assert max(chip.pes for chip in found) >= 160
    assert max(Resources.of(chip).on_chip_bytes for chip in found) > 0.95 * 197_952


def test_importance_takes_the_largest_numbers_and_index_counts_all_choices():
    within = load_chip("nvdla-1024")
    by_importance = HardwareSpace(within, loops_per_axis=1)
    by_index = HardwareSpace(within, encoding="index", loops_per_axis=1)
    vector = np.full(by_importance.dimensions, 0.3)
    vector[by_importance.names.index("axes")] = 0.5
    vector[by_importance.names.index("R")] = 0.9
    vector[by_importance.names.index("K")] = 0.8
    assert [axis.loops for axis in by_importance.decode(vector).axes] == ["R", "KG"]
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


@pytest.mark.parametrize("name", shipped_chips())
@pytest.mark.parametrize("options", [{"sizing_only": True}, {}, {"encoding": "index"}])
def test_a_search_can_begin_at_the_chip_itself(name, options):
    within = load_chip(name)
    space = HardwareSpace(within, **options)
    chip = space.decode(space.encode(within))
    assert [axis.size for axis in chip.axes] == [axis.size for axis in within.axes]
    assert within.registers.total_bytes - chip.registers.total_bytes < 16 + 1
    assert 0 <= within.buffer.total_bytes - chip.buffer.total_bytes < 1024
    assert chip.buffer.bandwidth_bytes_per_cycle == within.buffer.bandwidth_bytes_per_cycle


def test_axes_are_as_flexible_as_those_of_the_chip():
    eyeriss = load_chip("eyeriss")  # rows RCKG, columns PKCNG: two loops of three at once
    space = HardwareSpace(eyeriss)
    assert (space.loops_per_axis, space.folds) == (3, 2)
    chip = space.decode(space.encode(eyeriss))
    assert [sorted(axis.loops) for axis in chip.axes] == [sorted("RCKG"), sorted("PKCG")]
    assert HardwareSpace(load_chip("nvdla-256")).folds == 1
    with pytest.raises(RecipeError, match="among 1 to 6 loops, received 7"):
        HardwareSpace(eyeriss, loops_per_axis=7)


def test_resources_that_hold_no_design_are_refused():
    tiny = Chip(
        "tiny", (Axis("a", 1),), Memory(64), Memory(128), load_chip("eyeriss").energy, 100.0
    )
    with pytest.raises(RecipeError, match="a design has at least 2 PEs"):
        HardwareSpace(tiny)


@pytest.mark.parametrize("table", ["maestro", "dosa", "interstellar"])
def test_no_design_goes_below_the_bound_of_its_resources(table):
    within = replace(load_chip("nvdla-256"), energy=TABLES[table])
    layer = Layer("a", "conv", ("image",), K=8, C=6, P=7, Q=7, R=3, S=3, strides=(2, 2))
    pool = Layer("b", "pool", ("a",), G=8, P=3, Q=3, R=2, S=2)
    workload = Workload((layer, pool), 1734)
    bound = resource_bound(workload, within)
    for chip in [within, *drawn(HardwareSpace(within), 12)]:
        for one in (map_workload(workload, chip), network_bound(workload, chip)):
            assert one.energy >= bound.energy
            assert one.cycles >= bound.cycles
    strict = resource_bound(workload, within, bypass=False)
    assert strict.edp > bound.edp
    buffered = [map_layer(one, within, bypass=False) for one in workload.layers]
    assert sum(one.cost.energy for one in buffered) >= strict.energy
