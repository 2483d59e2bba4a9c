"""Counts of layers: equal to sums over blocks, for every space."""

import dataclasses
import time

import numpy as np
import pytest

from pliant.devices.features import NETWORK, TOTALS, BlockSums, LayerCounts, positions
from pliant.errors import EncodingError, MeasurementError
from pliant.spaces.architecture import Architecture
from pliant.spaces.presets import PRESETS

SPACES = {name: preset.build(3, preset.smallest_image, 10) for name, preset in PRESETS.items()}


def sample(space, count, seed=1):
    rng = np.random.default_rng(seed)
    return [space.sample_choices(rng) for _ in range(count)]


@pytest.mark.parametrize("name", SPACES)
def test_sums_by_slot_equal_sums_over_blocks(name):
    space = SPACES[name]
    networks = sample(space, 120)
    counts = LayerCounts(space)
    rows = [[*counts._layers_of(one)] for one in networks]
    macs = [sum(layer.macs for _, layer in layers) for layers in rows]
    moved = [sum(one.output_elements + one.parameters for _, one in layers) for layers in rows]
    found = counts(networks)
    np.testing.assert_allclose(found[:, : len(TOTALS)].T, [macs, moved, list(map(len, rows))])
    np.testing.assert_array_equal(counts(networks), found)  # also from the tables
    np.testing.assert_array_equal(counts._sums.slow(networks), found)


def test_a_choice_whose_effect_was_not_found_makes_sums_exact_but_slow():
    space = SPACES["mobile-32"]
    networks = sample(space, 50)
    sums = BlockSums(space, lambda block: np.array([block.cost.macs]))
    exact = sums.slow(networks)
    sums.__dict__["_deciding"] = {slot: [] for slot in sums._deciding}
    np.testing.assert_array_equal(sums(networks), exact)
    np.testing.assert_array_equal(sums(networks[::-1]), exact[::-1])


def test_positions_are_the_encoding_with_inactive_choices_marked():
    space = SPACES["mobile-32"]
    networks = sample(space, 30)
    found = positions(space, networks)
    for row, one in zip(found, networks, strict=True):
        np.testing.assert_array_equal(np.maximum(row, 0), space.encode(one))
        assert [name for name, place in zip(space.names, row, strict=True) if place >= 0] == [
            name for name, _ in one
        ]
    with pytest.raises(EncodingError, match="no \\('q', 3\\)"):
        positions(space, [Architecture((("q", 3),))])


def test_an_operator_that_no_sample_has_is_named():
    space = SPACES["digits"]
    counts = LayerCounts(space)
    [layer, *_] = space.lower(space.largest()).layers
    other = dataclasses.replace(layer, kind="conv", R=11, S=11)
    with pytest.raises(MeasurementError, match="'depthwise 11x11' is in none"):
        counts._count([(1, other)])


def test_counts_of_a_graph_repeat_its_layers():
    space = SPACES["nas-bench-201"]
    counts = LayerCounts(space, "as written")
    [found] = counts([space.largest()])
    layers = list(space.graphs["as written"](space.largest()))
    assert found[0] == sum(times * layer.macs for times, layer in layers)
    assert LayerCounts(space).graph == NETWORK


@pytest.mark.slow
def test_many_networks_are_counted_fast():
    space = SPACES["mobile-32"]
    counts = LayerCounts(space)
    networks = sample(space, 5000)
    counts(networks)
    started = time.process_time()
    counts(networks)
    assert time.process_time() - started < 0.5  # 100,000 in 1 s is a benchmark
