"""Residual blocks by hand, ResNet-50 as one of the networks, and Once-for-All's depths."""

from __future__ import annotations

import itertools
from collections import Counter

import numpy as np
import pytest

from pliant.errors import EncodingError
from pliant.spaces.convolutional_blocks import BasicBlock, Bottleneck, ConvBlock
from pliant.spaces.input_output_blocks import Head
from pliant.spaces.presets import preset
from pliant.spaces.resnet import BottleneckSpace, PlainSpace, ResidualStage
from pliant.workload import Layer


def test_a_bottleneck_by_hand():
    block = Bottleneck(
        slot="b", size=7, inputs=8, mid_channels=4, outputs=16, stride=2, project=True
    )
    assert block.layers("x") == (
        Layer("b.conv1", "conv", ("x",), K=4, C=8, P=7, Q=7),
        Layer("b.conv2", "conv", ("b.conv1",), K=4, C=4, P=4, Q=4, R=3, S=3, strides=(2, 2)),
        Layer("b.conv3", "conv", ("b.conv2",), K=16, C=4, P=4, Q=4),
        Layer("b.shortcut.pool", "pool", ("x",), G=8, P=4, Q=4, R=2, S=2, strides=(2, 2)),
        Layer("b.shortcut", "conv", ("b.shortcut.pool",), K=16, C=8, P=4, Q=4),
        Layer("b.add", "elementwise", ("b.conv3", "b.shortcut"), G=16, P=4, Q=4),
    )
    assert block.cost.macs == 4 * 8 * 49 + 16 * 9 * 16 + 64 * 16 + 128 * 16
    assert block.cost.parameters == (32 + 4) + (144 + 4) + (64 + 16) + (128 + 16)
    plain = Bottleneck(slot="b", size=7, inputs=8, mid_channels=4, outputs=8)
    assert [layer.name for layer in plain.layers("x")] == ["b.conv1", "b.conv2", "b.conv3", "b.add"]
    assert plain.layers("x")[-1].inputs == ("b.conv3", "x")


def test_a_plain_stage_by_hand():
    residual = BasicBlock(slot="b", size=5, channels=8, mid_channels=4)
    assert residual.cost.macs == 2 * 8 * 4 * 9 * 25
    assert residual.cost.parameters == 2 * 8 * 4 * 9 + 4 + 8
    pool = ConvBlock(slot="p", size=7, inputs=3, outputs=8, pool=2)
    assert pool.layers("x") == (
        Layer("p.conv", "conv", ("x",), K=8, C=3, P=7, Q=7, R=3, S=3),
        Layer("p.pool", "pool", ("p.conv",), G=8, P=3, Q=3, R=2, S=2, strides=(2, 2)),
    )


def test_resnet_50_is_one_of_the_networks():
    """He et al. 2016: layer1 to layer4 of ResNet-50 have 23,498,496 parameters.

    They are 215,808 + 1,219,584 + 7,098,368 + 14,964,736.
    """
    rows = [(256, 3, 1), (512, 4, 2), (1024, 6, 2), (2048, 3, 2)]
    stages = [
        ResidualStage(width, (depth,), (1.0,), (0.25,), stride) for width, depth, stride in rows
    ]
    space = BottleneckSpace(
        "r", stages, (224,), stem_widths=(1.0,), channels=3, image_size=224, classes=1000
    )
    found = Counter()
    for block in space.blocks(space.largest()):
        if isinstance(block, Bottleneck):
            # A BatchNorm has two numbers a channel, and a workload counts one.
            addends = sum(layer.K for layer in block.layers() if layer.weighted)
            found[block.slot[:6]] += block.cost.parameters + addends
    assert dict(found) == {
        "stage1": 215_808,
        "stage2": 1_219_584,
        "stage3": 7_098_368,
        "stage4": 14_964_736,
    }
    head = space.blocks(space.largest())[-1]
    assert isinstance(head, Head)
    assert (head.size, head.cost.parameters) == (7, 2_049_000)


def test_once_for_all_depths_and_size():
    space = preset("ofa-resnet50", channels=3, image_size=224, classes=1000)
    depths = {
        choice.name: choice.options for choice in space.choices if choice.dimension == "depth"
    }
    assert depths.pop("0d") == (0, 1)
    assert depths == {"1d": (2, 3, 4), "2d": (2, 3, 4), "3d": (4, 5, 6), "4d": (2, 3, 4)}
    by_stage = [3 * sum(3**depth for depth in options) for options in depths.values()]
    # In the stem a block or none, two widths of its first convolutions, and three of its last one.
    assert space.size == 25 * 2 * 2 * 3 * np.prod(by_stage, dtype=object)
    assert [
        sum(isinstance(b, Bottleneck) for b in space.blocks(one))
        for one in (space.smallest(), space.largest())
    ] == [10, 18]


def test_widths_follow_from_stage_and_ratio():
    space = preset("ofa-resnet50", channels=3, image_size=224, classes=1000)
    options = dict(space.smallest().options) | {"r": 224, "2w": 0.8, "2.1e": 0.35, "2.2e": 0.25}
    blocks = {block.slot: block for block in space.blocks(space.architecture(options))}
    first, second, third = (
        blocks[slot] for slot in ("stage2_block1", "stage2_block2", "stage3_block1")
    )
    # 0.65 x 256 = 166.4 becomes 168; 0.8 x 512 = 409.6 becomes 408;
    # 0.35 x 408 = 142.8 becomes 144; 0.25 x 408 = 102 becomes 104.
    assert (
        first.inputs,
        first.mid_channels,
        first.outputs,
        first.project,
        first.size,
        first.stride,
    ) == (
        168,
        144,
        408,
        True,
        56,
        2,
    )
    assert (second.inputs, second.mid_channels, second.outputs, second.project, second.size) == (
        408,
        104,
        408,
        False,
        28,
    )
    assert (third.inputs, third.size) == (408, 28)


@pytest.mark.parametrize("name", ["ofa-resnet50", "plain-32"])
def test_channels_and_sizes_fit_from_block_to_block(name):
    space = preset(name, channels=3, image_size=128 if name.startswith("ofa") else 27, classes=10)
    rng = np.random.default_rng(0)
    for _ in range(30):
        for before, block in itertools.pairwise(space.blocks(space.sample_choices(rng))):
            last = before.layers()[-1]
            assert (block.in_channels, block.size, block.size) == (last.G * last.K, last.P, last.Q)


def test_images_that_pooling_leaves_nothing_of_are_refused():
    stages = [ResidualStage(8, (0,), (1.0,), (1.0,), stride=stride) for stride in (2, 3)]
    shape = {"stem": 8, "channels": 1, "image_size": 8, "classes": 2}
    assert PlainSpace("six", stages, (6, 8), **shape).size == 2
    with pytest.raises(EncodingError, match="at least 6 pixels, received 5"):
        PlainSpace("six", stages, (5, 8), **shape)


def test_a_bottleneck_stage_without_blocks_is_refused():
    with pytest.raises(EncodingError, match="use depths from 1 up"):
        BottleneckSpace(
            "none",
            [ResidualStage(8, (0, 1), (1.0,), (1.0,))],
            (32,),
            stem_widths=(1.0,),
            channels=1,
            image_size=32,
            classes=2,
        )
