"""Inverted residuals by hand, a published network of the space, and Once-for-All's counts."""

from __future__ import annotations

import pytest

from pliant.errors import EncodingError
from pliant.spaces.convolutional_blocks import InvertedResidual
from pliant.spaces.input_output_blocks import Head
from pliant.spaces.mobile import MobileFrame, MobileSpace, MobileStage
from pliant.spaces.presets import preset
from pliant.spaces.rounding import ceil_div, make_divisible
from pliant.workload import Layer


def test_rounding_of_channels_by_hand():
    assert [make_divisible(channels) for channels in (1, 8, 11, 12, 20, 72, 90, 166.4, 2.5)] == [
        8,
        8,
        16,
        16,
        24,
        72,
        88,
        168,
        8,
    ]
    assert make_divisible(12 - 1e-9) == 16, "8 would be below 90 %"
    assert [ceil_div(size, 2) for size in (8, 7, 1)] == [4, 4, 1]


def test_a_block_by_hand():
    """5 pixels, stride 2: 3 remain; 12 mid channels, squeezed to round(12 / 4), at least 8."""
    block = InvertedResidual(
        slot="b",
        size=5,
        inputs=4,
        mid_channels=12,
        outputs=6,
        kernel=5,
        stride=2,
        squeeze_excite=True,
    )
    assert block.layers("image") == (
        Layer("b.expand", "conv", ("image",), K=12, C=4, P=5, Q=5),
        Layer("b.depthwise", "conv", ("b.expand",), G=12, P=3, Q=3, R=5, S=5, strides=(2, 2)),
        Layer("b.squeeze.pool", "pool", ("b.depthwise",), G=12, R=3, S=3, strides=(3, 3)),
        Layer("b.squeeze.reduce", "conv", ("b.squeeze.pool",), K=8, C=12),
        Layer("b.squeeze.expand", "conv", ("b.squeeze.reduce",), K=12, C=8),
        Layer(
            "b.squeeze.scale", "elementwise", ("b.depthwise", "b.squeeze.expand"), G=12, P=3, Q=3
        ),
        Layer("b.project", "conv", ("b.squeeze.scale",), K=6, C=12, P=3, Q=3),
    )
    assert block.cost.macs == 12 * 4 * 25 + 12 * 25 * 9 + 96 + 96 + 6 * 12 * 9
    assert block.cost.parameters == (48 + 12) + (12 * 25 + 12) + (96 + 8) + (96 + 12) + (72 + 6)
    # Alive at once while the depthwise convolution runs: its input of 12x25 and its output of 12x9;
    # nothing reads the image again.
    assert block.cost.peak_activation_bytes == 4 * (300 + 108)


def test_a_residual_keeps_its_input_alive():
    block = InvertedResidual(
        slot="b", size=2, inputs=8, mid_channels=8, outputs=8, kernel=3, expand=False
    )
    assert [layer.name for layer in block.layers()] == ["b.depthwise", "b.project", "b.add"]
    assert block.layers("before")[-1].inputs == ("b.project", "before")
    assert block.cost.macs == 8 * 9 * 4 + 8 * 8 * 4
    assert block.cost.peak_activation_bytes == 4 * 3 * 32


def stored_with_batchnorm(space, architecture):
    """Parameters as PyTorch counts them.

    A BatchNorm has two numbers a channel, and the workload counts one.
    """
    workload = space.lower(architecture)
    normalised = [
        layer for layer in workload.layers if layer.kind == "conv" and "squeeze" not in layer.name
    ]
    return workload.parameters + sum(layer.G * layer.K for layer in normalised)


def test_mobilenetv3_large_is_one_of_the_networks():
    """Howard et al. 2019, table 1.

    5.4 million parameters and 219 million MACs; 5,483,032 as torchvision counts them.
    """
    stages = [
        MobileStage(24, (2,), (3,), (3, 4)),
        MobileStage(40, (3,), (5,), (3,), squeeze_excite=True),
        MobileStage(80, (4,), (3,), (2.3, 2.5, 6), activation="hswish"),
        MobileStage(112, (2,), (3,), (6,), stride=1, activation="hswish", squeeze_excite=True),
        MobileStage(160, (3,), (5,), (6,), activation="hswish", squeeze_excite=True),
    ]
    frame = MobileFrame(stem=16, first_block=16, expand=960, hidden=1280)
    space = MobileSpace("v3", stages, (224,), frame, channels=3, image_size=224, classes=1000)
    free = {"1.1e": 4, "1.2e": 3, "3.1e": 6, "3.2e": 2.5, "3.3e": 2.3, "3.4e": 2.3}
    architecture = space.architecture(dict(space.largest().options) | free)
    assert stored_with_batchnorm(space, architecture) == 5_483_032
    assert 215e6 < space.cost(architecture).macs < 220e6


def test_once_for_all_has_its_published_size():
    space = preset("ofa-mobilenetv3", channels=3, image_size=224, classes=1000)
    # A stage of 2, 3 or 4 blocks, each with 3 kernels and 3 expansions: 9^2 + 9^3 + 9^4 = 7371.
    assert space.size == 25 * 7371**5
    assert space.size / 25 == pytest.approx(2.2e19, rel=0.02)


def test_the_largest_of_once_for_all_by_hand():
    space = preset("ofa-mobilenetv3", channels=3, image_size=224, classes=1000)
    cost = {block.slot: block.cost.macs for block in space.blocks(space.largest())}
    assert cost["stem"] == 3 * 16 * 9 * 112**2
    assert cost["first"] == 16 * 9 * 112**2 + 16 * 16 * 112**2
    assert cost["stage1_block1"] == 16 * 96 * 112**2 + 96 * 49 * 56**2 + 96 * 24 * 56**2
    assert (
        cost["stage2_block2"]
        == 40 * 240 * 28**2 + 240 * 49 * 28**2 + 2 * 240 * 64 + 240 * 40 * 28**2
    )
    assert cost["stage5_block4"] == 160 * 960 * 49 + 960 * 49 * 49 + 2 * 960 * 240 + 960 * 160 * 49
    assert cost["head"] == 160 * 960 * 49 + 960 * 1280 + 1280 * 1000
    assert len(cost) == 3 + 5 * 4 + 1


def test_text_names_every_choice():
    space = preset("digits", channels=1, image_size=8, classes=10)
    architecture = space.parse("r8_1d2_1.1k3e2_1.2k5e4_2d1_2.1k5e3")
    one, two, three = [
        block for block in space.blocks(architecture) if isinstance(block, InvertedResidual)
    ]
    assert (one.kernel, one.inputs, one.mid_channels, one.outputs, one.stride) == (3, 16, 32, 16, 1)
    assert (two.kernel, two.inputs, two.mid_channels, two.outputs, two.residual) == (
        5,
        16,
        64,
        16,
        True,
    )
    assert (
        three.kernel,
        three.mid_channels,
        three.outputs,
        three.stride,
        three.squeeze_excite,
    ) == (
        5,
        48,
        32,
        2,
        True,
    )
    head = space.blocks(architecture)[-1]
    assert isinstance(head, Head)
    assert (head.size, head.inputs, head.expand, head.classes) == (4, 32, 64, 10)


def test_a_stage_without_blocks_is_refused():
    with pytest.raises(EncodingError, match="use depths from 1 up"):
        MobileSpace(
            "none",
            [MobileStage(8, (0, 1))],
            (8,),
            MobileFrame(),
            channels=1,
            image_size=8,
            classes=2,
        )


@pytest.mark.parametrize("kernels", [(1, 3), (4,), (3, 6)])
def test_kernels_without_a_centre_are_refused(kernels):
    with pytest.raises(EncodingError, match="odd numbers from 3 up"):
        MobileSpace(
            "odd",
            [MobileStage(8, (1,), kernels)],
            (8,),
            MobileFrame(),
            channels=1,
            image_size=8,
            classes=2,
        )
