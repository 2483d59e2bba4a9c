"""A space that does not fit together is refused by name before anything is trained."""

from __future__ import annotations

import dataclasses

import numpy as np
import pytest

from pliant.devices.profile import profile_device
from pliant.devices.timings import Settings
from pliant.errors import EncodingError
from pliant.networks.supernet import Supernet
from pliant.scoring.networks import SpaceNetworks
from pliant.spaces.architecture import Architecture
from pliant.spaces.block import Block
from pliant.spaces.check import check_space
from pliant.spaces.convolutional_blocks import BasicBlock, ConvBlock
from pliant.spaces.input_output_blocks import Head, Preprocess
from pliant.spaces.presets import PRESETS, preset
from pliant.spaces.space import Choice, Space


class Fitting(Space):
    """A stem and a head; subclasses spoil one thing."""

    choices: tuple[Choice, ...] = (Choice("w", (4, 8)),)

    def layout(self, architecture: Architecture) -> tuple[Block, ...]:
        width = int(architecture["w"])
        return (
            Preprocess(slot="preprocess", size=8, channels=3, resolution=8),
            ConvBlock(slot="stem", size=8, inputs=3, outputs=width),
            Head(slot="head", size=8, inputs=width, classes=5),
        )


def build(change) -> Space:
    class Spoiled(Fitting):
        def layout(self, architecture):
            return change(super().layout(architecture), int(architecture["w"]))

    return Spoiled("spoiled", channels=3, image_size=8, classes=5)


def replaced(index: int, **sizes):
    def change(blocks, width):
        new = dataclasses.replace(blocks[index], **sizes)
        return tuple(new if old is blocks[index] else old for old in blocks)

    return change


def with_block(slot: str, narrow_only: bool = False):
    def change(blocks, width):
        more = BasicBlock(slot=slot, size=8, channels=width, mid_channels=4)
        return blocks if narrow_only and width > 4 else (*blocks[:2], more, blocks[2])

    return change


def two_types(blocks, width):
    other = BasicBlock(slot="more", size=8, channels=width, mid_channels=4)
    usual = ConvBlock(slot="more", size=8, inputs=width, outputs=width)
    return (*blocks[:2], other if width == 4 else usual, blocks[2])


SPOILED = {
    "'stem' occurs twice in w8": with_block("stem"),
    "it lacks 'extra', which is in w4": with_block("extra", narrow_only=True),
    "'more' is BasicBlock in w4 .* and ConvBlock in the largest": two_types,
    "'stem' has 8 channels of 8x8 and 'head' reads 6 channels of 8x8 in w8": replaced(2, inputs=6),
    "'stem' has 8 channels of 4x4 and 'head' reads 8 channels of 8x8": replaced(1, stride=2),
    "the image has 3 channels of 8x8 and 'preprocess' reads 1": replaced(0, channels=1),
    "outputs of 'stem' is int64 .*8": lambda blocks, width: replaced(1, outputs=np.int64(width))(
        blocks, width
    ),
    "'head' has 4 for 5 classes": replaced(2, classes=4),
    "loop sizes are whole numbers from 1 up, received {'K': 0}": replaced(1, outputs=0),
    "received none in w8": lambda blocks, width: (),
    "'preprocess' has 2 x 3 channels": replaced(0, views=2),
    r"Spoiled.layout \(test_check.py, line \d+\) returned None": lambda blocks, width: None,
    "returned 'x', of type str, in w8": lambda blocks, width: ("x", *blocks),
    "returned 'x', of type str, in w4": lambda blocks, width: (
        blocks if width > 4 else ("x", *blocks)
    ),
}


@pytest.mark.parametrize("message", SPOILED)
def test_what_does_not_fit_is_refused_by_name(message):
    with pytest.raises(EncodingError, match=message):
        check_space(build(SPOILED[message]))


CHOICES = {
    "'w' occurs twice in space 'odd'": (Choice("w", (4, 8)), Choice("w", (4, 8))),
    "'odd' has none": (),
    "'k' needs 'd', which does not come before it": (
        Choice("w", (4, 8)),
        Choice("k", (3,), condition=("d", 1)),
    ),
    "is read back from its text: .* received 'ssmall'": (
        Choice("w", (4, 8)),
        Choice("s", ("big", "small")),
    ),
    "ended in an error at line .* of test_check.py in layout: KeyError": (Choice("v", (4, 8)),),
}


@pytest.mark.parametrize("message", CHOICES)
def test_choices_that_do_not_work_are_refused_by_name(message):
    odd = type("Odd", (Fitting,), {"choices": CHOICES[message]})
    with pytest.raises(EncodingError, match=message):
        check_space(odd("odd", channels=3, image_size=8, classes=5))


def test_a_space_is_checked_when_something_is_made_of_it_and_not_at_a_sample():
    spoiled = build(SPOILED["'stem' occurs twice in w8"])
    assert spoiled.cost(spoiled.largest()).macs > 0
    for make in (
        lambda: Supernet(spoiled, mean=[0.5] * 3, std=[0.2] * 3),
        lambda: profile_device(spoiled, Settings(), seed=0),
        lambda: SpaceNetworks(lambda: spoiled),
    ):
        with pytest.raises(EncodingError, match="'stem' occurs twice"):
            make()


@pytest.mark.parametrize("name", PRESETS)
def test_shipped_spaces_fit(name):
    size = min(224, PRESETS[name].largest_image)
    check_space(preset(name, channels=3, image_size=size, classes=1000))
