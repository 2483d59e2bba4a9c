"""What ships can be built for the images that it is said to be for, and says so where it cannot."""

from __future__ import annotations

import itertools

import numpy as np
import pytest

from pliant.errors import EncodingError, PliantError, RecipeError
from pliant.spaces.presets import PRESETS, preset


@pytest.mark.parametrize("channels", [1, 3])
@pytest.mark.parametrize("name", PRESETS)
def test_every_space_works_at_its_smallest_images(name, channels):
    least = PRESETS[name].smallest_image
    space = preset(name, channels=channels, image_size=least, classes=7)
    assert (space.name, space.channels, space.image_size, space.classes) == (
        name,
        channels,
        least,
        7,
    )
    rng = np.random.default_rng(0)
    for architecture in (
        space.smallest(),
        space.largest(),
        *(space.sample_choices(rng) for _ in range(10)),
    ):
        blocks = space.blocks(architecture)
        for before, block in itertools.pairwise(blocks):
            last = before.layers()[-1]
            assert (block.in_channels, block.size) == (last.G * last.K, last.P)
        assert blocks[-1].layers()[-1].K == 7
        assert space.lower(architecture).input_elements == channels * least**2


@pytest.mark.parametrize(
    ("name", "size", "resolutions"),
    [
        ("digits", 8, (6, 8)),
        ("digits", 6, (6,)),
        ("mobile-32", 32, (24, 28, 32)),
        ("mobile-32", 28, (20, 24, 28)),
        ("plain-32", 28, (20, 28)),
        ("photos", 130, (64, 80, 96, 112, 128)),
    ],
)
def test_resolutions_follow_the_images(name, size, resolutions):
    assert preset(name, channels=1, image_size=size, classes=10).choices[0].options == resolutions


@pytest.mark.parametrize("name", PRESETS)
def test_smaller_images_are_refused_with_a_space_that_takes_them(name):
    least = PRESETS[name].smallest_image
    with pytest.raises(
        EncodingError,
        match=f"'{name}' needs images of at least {least} pixels, received {least - 1}",
    ) as caught:
        preset(name, channels=1, image_size=least - 1, classes=10)
    advice = str(caught.value).rsplit(". ", 1)[1]
    if name == "digits":
        assert advice == "Use larger images."
    else:
        other = advice.removeprefix("Use --space ").split(",")[0]
        assert preset(other, channels=1, image_size=least - 1, classes=10).name == other


def test_an_unknown_name_is_answered_with_the_nearest():
    with pytest.raises(
        RecipeError, match=r"no space is called 'mobil-32'. Did you mean 'mobile-32'\?"
    ) as caught:
        preset("mobil-32", channels=1, image_size=32, classes=10)
    assert isinstance(caught.value, PliantError)


def test_every_space_says_what_it_is_for():
    assert all(row.purpose and row.build.__doc__ for row in PRESETS.values())


@pytest.mark.parametrize("name", PRESETS)
def test_larger_images_are_refused_with_a_space_that_takes_them(name):
    most = PRESETS[name].largest_image
    preset(name, channels=1, image_size=most, classes=10)
    with pytest.raises(
        EncodingError, match=f"at most {most} pixels, received {most + 1}"
    ) as caught:
        preset(name, channels=1, image_size=most + 1, classes=10)
    advice = str(caught.value).rsplit(". ", 1)[1]
    if most == 320:
        assert advice == "Use smaller images."
    else:
        other = advice.removeprefix("Use --space ").removesuffix(", or smaller images.")
        preset(other, channels=1, image_size=most + 1, classes=10)
