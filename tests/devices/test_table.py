"""The latency table: all blocks found, and latencies of those that were not measured."""

from __future__ import annotations

import itertools

import numpy as np
import pytest

from pliant.devices.table import (
    MAX_BLOCKS,
    LookupTable,
    block_key,
    distinct_blocks,
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


@pytest.mark.parametrize(
    ("name", "size"), [("digits", 8), ("mobile-32", 32), ("plain-32", 32), ("vit-32", 28)]
)
def test_no_network_of_a_preset_has_a_block_outside_the_table(name, size):
    space = preset(name, channels=3, image_size=size, classes=10)
    found = set(distinct_blocks(space, np.random.default_rng(0)))
    rng = np.random.default_rng(1)
    for _ in range(1000):
        assert {block_key(block) for block in space.layout(space.sample_choices(rng))} <= found


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
    table = LookupTable(toy_space, latency_us)
    assert table.block_us(stem(16)) == 34
    assert table.block_us(stem(12)) == pytest.approx(10 + 24 * (144 - 64) / (256 - 64))
    assert table.block_us(resized(6)) == pytest.approx(1 + 3 * (36 - 16) / (64 - 16))


def test_a_shape_that_was_never_measured_is_estimated_from_its_type(toy_space):
    blocks = [ConvBlock(slot="", size=8, inputs=3, outputs=width) for width in (8, 16, 24, 32)]
    table = LookupTable(toy_space, {block: block.cost.macs / 1e3 for block in blocks})
    new = ConvBlock(slot="new", size=8, inputs=3, outputs=20)
    assert table.block_us(new) == pytest.approx(new.cost.macs / 1e3, rel=0.01)
    with pytest.raises(MeasurementError, match="no BasicBlock"):
        table.block_us(BasicBlock(slot="new", size=8, channels=4, mid_channels=4))


def test_many_resolutions_are_bounded_and_still_cover_the_space():
    space = preset("ofa-mobilenetv3", channels=3, image_size=224, classes=10)
    found = distinct_blocks(space, np.random.default_rng(0))
    assert len(found) < 700
    table = LookupTable(space, made_up_us(found))
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
    table = LookupTable(space, made_up_us(blocks))
    for _ in range(200):
        assert all(table.block_us(block) > 0 for block in space.layout(space.sample(rng)))


def test_networks_are_spread_over_macs(toy_space):
    networks = sample_evenly_by_macs(toy_space, 20, np.random.default_rng(0))
    assert len(set(networks)) == 20
    macs = sorted(toy_space.cost(one).macs for one in networks)
    assert macs[-1] / macs[0] > 5
    assert len(sample_evenly_by_macs(toy_space, 1000, np.random.default_rng(0))) < 306 + 1


def test_a_table_knows_which_blocks_it_would_estimate():
    space = preset("proxyless-32", channels=3, image_size=32, classes=3)
    blocks = distinct_blocks(space, np.random.default_rng(0))
    whole = LookupTable(space, made_up_us(blocks))
    assert all(whole.is_measured(block) for block in space.blocks(space.largest()))
    operations = [block for block in blocks if getattr(block, "kernel", 0) == 5]
    assert operations
    few = {block: us for block, us in whole.latency_us.items() if block not in operations}
    assert [one for one in blocks if not LookupTable(space, few).is_measured(one)] == operations
