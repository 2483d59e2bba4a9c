"""The latency table: sums against brute force, recovery of known coefficients, all blocks found."""

from __future__ import annotations

import itertools

import numpy as np
import pytest

from pliant.devices.table import (
    MAX_BLOCKS,
    LookupTable,
    block_key,
    distinct_blocks,
    fit_table,
    mape_percent,
    sample_evenly_by_macs,
)
from pliant.errors import MeasurementError
from pliant.spaces.convolutional_blocks import BasicBlock, ConvBlock
from pliant.spaces.input_output_blocks import Preprocess
from pliant.spaces.presets import preset


def every_architecture(space):
    """All of a small space, by walking all combinations of options."""
    combinations = itertools.product(*(choice.options for choice in space.choices))
    names = [choice.name for choice in space.choices]
    return list(
        dict.fromkeys(
            space.architecture(dict(zip(names, options, strict=True))) for options in combinations
        )
    )


def made_up_us(blocks, seed=0):
    """A latency for each block: its MACs times a random factor."""
    rng = np.random.default_rng(seed)
    return {block: 5 + block.cost.macs / 2e4 * rng.uniform(0.3, 3.0) for block in blocks}


@pytest.fixture
def everything(toy_space):
    return every_architecture(toy_space)


def test_drawing_finds_every_block_that_enumeration_finds(toy_space, everything):
    assert len(everything) == toy_space.size == 306
    expected = {
        block_key(block) for architecture in everything for block in toy_space.blocks(architecture)
    }
    found = distinct_blocks(toy_space, np.random.default_rng(0))
    assert len(found) == len(set(found))
    assert set(found) == expected


@pytest.mark.parametrize(("name", "size"), [("digits", 8), ("mobile-32", 32), ("plain-32", 32)])
def test_no_network_of_a_preset_has_a_block_outside_the_table(name, size):
    space = preset(name, channels=3, image_size=size, classes=10)
    found = set(distinct_blocks(space, np.random.default_rng(0)))
    rng = np.random.default_rng(1)
    for _ in range(1000):
        assert {block_key(block) for block in space.layout(space.sample_choices(rng))} <= found


def test_the_sum_is_that_of_a_loop_over_blocks(toy_space, everything):
    latency_us = made_up_us(distinct_blocks(toy_space, np.random.default_rng(0)))
    table = LookupTable(toy_space, latency_us, "boundary_traffic", (1.1, 0.2, -0.3))
    for architecture, cost in zip(everything, table(everything), strict=True):
        alone, borders, count = 0.0, 0, 0
        for block in toy_space.layout(architecture):
            alone += latency_us[block_key(block)] / 1e3
            borders += block.in_channels * block.size * block.size
            count += 1
        assert cost.latency_ms == pytest.approx(
            max(1e-6, 1.1 * alone + 0.2 * count / 100 - 0.3 * borders / 1e6)
        )
        plain = toy_space.cost(architecture)
        assert (cost.macs, cost.parameters, cost.peak_memory_bytes) == (
            plain.macs,
            plain.parameters,
            plain.peak_memory_bytes,
        )
        assert sum(table.block_ms(toy_space.blocks(architecture))) == pytest.approx(cost.latency_ms)


def test_no_block_takes_less_than_nothing(toy_space):
    """A negative overhead per block is shared out in proportion; the sum stays the prediction."""
    blocks = toy_space.blocks(toy_space.largest())
    alone = {block_key(block): 10.0 * number for number, block in enumerate(blocks, 1)}
    table = LookupTable(toy_space, alone, "per_block_overhead", (1.0, -2.0))  # 0.02 ms less each
    (cost,) = table([toy_space.largest()])
    found = table.block_ms(blocks)
    assert sum(found) == pytest.approx(cost.latency_ms)
    total = sum(alone[block_key(block)] for block in blocks)
    for block, share in zip(blocks, found, strict=True):
        assert share == pytest.approx(cost.latency_ms * alone[block_key(block)] / total)


@pytest.mark.parametrize(
    ("correction", "coefficients"),
    [
        ("scaled", (0.9,)),
        ("per_block_overhead", (1.05, 0.4)),
        ("boundary_traffic", (1.2, 0.3, -8.0)),
        ("additive", (0.5, 0.03, 0.02)),
    ],
)
def test_known_coefficients_are_recovered(toy_space, correction, coefficients):
    latency_us = made_up_us(distinct_blocks(toy_space, np.random.default_rng(0)))
    truth = LookupTable(toy_space, latency_us, correction, coefficients)
    networks = sample_evenly_by_macs(toy_space, 32, np.random.default_rng(1))
    measured = [cost.latency_ms for cost in truth(networks)]
    table = fit_table(toy_space, latency_us, networks, measured, held_out=16)
    assert table.held_out_error.networks == 16
    assert table.held_out_error.mape_percent == pytest.approx(0, abs=1e-6)
    assert table.held_out_error.spearman == pytest.approx(1)
    assert table.held_out_error.macs_mape_percent > 0.5
    predicted = [cost.latency_ms for cost in table(networks)]
    np.testing.assert_allclose(predicted, measured, rtol=1e-7)
    if table.correction == correction:
        np.testing.assert_allclose(table.coefficients, coefficients, rtol=1e-6)


def test_the_error_reported_is_of_networks_not_fitted_on(toy_space):
    """Held-out networks that take twice as long as predicted have 50 % error."""
    latency_us = made_up_us(distinct_blocks(toy_space, np.random.default_rng(0)))
    networks = sample_evenly_by_macs(toy_space, 32, np.random.default_rng(1))
    measured = np.array(
        [cost.latency_ms for cost in LookupTable(toy_space, latency_us, "scaled", (1.0,))(networks)]
    )
    measured[16:] *= 2
    fit = fit_table(toy_space, latency_us, networks, measured, held_out=16).held_out_error
    assert fit.mape_percent == pytest.approx(50)


def test_noise_does_not_choose_more_coefficients_than_it_can_fit(toy_space):
    latency_us = made_up_us(distinct_blocks(toy_space, np.random.default_rng(0)))
    networks = sample_evenly_by_macs(toy_space, 4, np.random.default_rng(1))
    measured = [
        cost.latency_ms for cost in LookupTable(toy_space, latency_us, "scaled", (1.0,))(networks)
    ]
    table = fit_table(toy_space, latency_us, networks, measured, held_out=2)
    assert table.correction == "scaled"
    [only] = networks[:1]
    alone = fit_table(toy_space, latency_us, [only], measured[:1], held_out=0)
    assert alone([only])[0].latency_ms == pytest.approx(measured[0])
    assert np.isnan(alone.held_out_error.mape_percent)


def test_between_measured_sizes_latency_is_interpolated_over_pixels(toy_space):
    def stem(size):
        return ConvBlock(slot="stem", size=size, inputs=3, outputs=8)

    def resized(resolution):
        return Preprocess(slot="first", size=8, channels=3, resolution=resolution)

    latency_us = {
        block_key(stem(8)): 10.0,
        block_key(stem(16)): 34.0,
        block_key(resized(4)): 1.0,
        block_key(resized(8)): 4.0,
    }
    table = LookupTable(toy_space, latency_us, "scaled", (1.0,))
    assert table.block_us(stem(16)) == 34
    assert table.block_us(stem(12)) == pytest.approx(10 + 24 * (144 - 64) / (256 - 64))
    assert table.block_us(resized(6)) == pytest.approx(1 + 3 * (36 - 16) / (64 - 16))


def test_a_shape_that_was_never_measured_is_estimated_from_its_type(toy_space):
    blocks = [ConvBlock(slot="", size=8, inputs=3, outputs=width) for width in (8, 16, 24, 32)]
    table = LookupTable(
        toy_space, {block: block.cost.macs / 1e3 for block in blocks}, "scaled", (1.0,)
    )
    new = ConvBlock(slot="new", size=8, inputs=3, outputs=20)
    assert table.block_us(new) == pytest.approx(new.cost.macs / 1e3, rel=0.01)
    with pytest.raises(MeasurementError, match="no BasicBlock"):
        table.block_us(BasicBlock(slot="new", size=8, channels=4, mid_channels=4))


def test_many_resolutions_are_bounded_and_still_cover_the_space():
    space = preset("ofa-mobilenetv3", channels=3, image_size=224, classes=10)
    found = distinct_blocks(space, np.random.default_rng(0))
    assert len(found) < 700
    table = LookupTable(space, made_up_us(found), "scaled", (1.0,))
    rng = np.random.default_rng(1)
    known = table._by_shape
    for _ in range(50):
        for block in space.layout(space.sample_choices(rng)):
            assert table.block_us(block) > 0
    assert all(len(points) > 1 for points in known.values()), (
        "every shape was measured at more than one size"
    )
    assert sum(isinstance(block, Preprocess) for block in found) == 25


def test_a_space_of_many_blocks_is_measured_in_part_and_costed_whole():
    space = preset("nas-bench-201", channels=3, image_size=32, classes=10)
    rng = np.random.default_rng(0)
    blocks = distinct_blocks(space, rng)
    assert MAX_BLOCKS <= len(blocks) < MAX_BLOCKS + 20
    table = LookupTable(space, made_up_us(blocks), "scaled", (1.0,))
    assert all(cost.latency_ms > 0 for cost in table([space.sample(rng) for _ in range(200)]))


def test_networks_are_spread_over_macs(toy_space):
    networks = sample_evenly_by_macs(toy_space, 20, np.random.default_rng(0))
    assert len(set(networks)) == 20
    macs = sorted(toy_space.cost(one).macs for one in networks)
    assert macs[-1] / macs[0] > 5
    assert len(sample_evenly_by_macs(toy_space, 1000, np.random.default_rng(0))) < 306 + 1


def test_mape_by_hand():
    assert mape_percent(np.array([1.1, 1.8]), np.array([1.0, 2.0])) == pytest.approx(10)
