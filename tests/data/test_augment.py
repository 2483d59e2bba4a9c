"""Augmentation against a loop over images with PyTorch's own padding, slicing and flipping."""

from __future__ import annotations

import time

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor
from torch.nn import functional as F

from pliant.data.augment import Augmentation, alternating_flips
from pliant.errors import DataError, RecipeError


def seeded(seed: int) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def random_images(count: int, channels: int, height: int, width: int) -> Tensor:
    return torch.randint(
        0, 256, (count, channels, height, width), dtype=torch.uint8, generator=seeded(1)
    )


def slow(images: Tensor, augmentation: Augmentation, generator: torch.Generator) -> Tensor:
    """The same draws, applied one image at a time."""
    (count, _, height, width), pad, side = images.shape, augmentation.pad, augmentation.cutout
    mirrored = (
        torch.rand(count, generator=generator) < 0.5 if augmentation.flip else [False] * count
    )
    down, right = (
        torch.randint(-pad, pad + 1, (2, count), generator=generator).tolist()
        if pad
        else ([0] * count, [0] * count)
    )
    tops = (
        (torch.randint(0, height, (count,), generator=generator) - side // 2).tolist()
        if side
        else [0] * count
    )
    lefts = (
        (torch.randint(0, width, (count,), generator=generator) - side // 2).tolist()
        if side
        else [0] * count
    )
    results = []
    for index in range(count):
        image = images[index].float() / 255
        if pad:
            padded = F.pad(image[None], (pad,) * 4, mode="reflect")[0]
            image = padded[:, pad + down[index] :, pad + right[index] :][:, :height, :width].clone()
        if mirrored[index]:
            image = image.flip(2)
        square = image[
            :,
            max(0, tops[index]) : max(0, tops[index] + side),
            max(0, lefts[index]) : max(0, lefts[index] + side),
        ]
        square.copy_(torch.tensor(augmentation.fill).view(-1, 1, 1).expand_as(square))
        results.append(image)
    return torch.stack(results)


@settings(max_examples=60, deadline=None)
@given(
    pad=st.integers(0, 4),
    flip=st.booleans(),
    cutout=st.integers(0, 8),
    fill=st.sampled_from([(0.0,), (0.1, 0.5, 0.9)]),
    size=st.sampled_from([(8, 8), (5, 9)]),
    seed=st.integers(0, 2**40),
)
def test_equals_the_slow_way(
    pad: int, flip: bool, cutout: int, fill: tuple[float, ...], size: tuple[int, int], seed: int
) -> None:
    images, augmentation = random_images(7, 3, *size), Augmentation(pad, flip, cutout, fill)
    assert torch.equal(augmentation(images, seeded(seed)), slow(images, augmentation, seeded(seed)))


def test_without_variation_exactly_the_images_and_no_draw() -> None:
    images, generator = random_images(4, 1, 6, 6), seeded(0)
    state = generator.get_state()
    pixels = Augmentation()(images, generator)
    assert torch.equal(pixels, images.float() / 255)
    assert torch.equal(generator.get_state(), state)
    assert torch.equal(Augmentation()(pixels, generator), pixels)


@pytest.mark.parametrize("augmentation", [Augmentation(), Augmentation(2, True, 3)])
def test_float_and_uint8_images_vary_alike_and_stay_unchanged(augmentation: Augmentation) -> None:
    images = random_images(6, 3, 8, 8)
    floats = images.float() / 255
    before = floats.clone()
    varied = augmentation(floats, seeded(3))
    assert torch.equal(varied, augmentation(images, seeded(3)))
    varied.zero_()
    assert torch.equal(floats, before)


def test_images_of_a_batch_vary_each_in_its_own_way() -> None:
    images = random_images(1, 1, 9, 9).expand(400, -1, -1, -1)
    assert len(torch.unique(Augmentation(pad=1, flip=True)(images, seeded(0)), dim=0)) == 9 * 2
    assert len(torch.unique(Augmentation(cutout=1)(images, seeded(0)), dim=0)) >= 80


def test_every_image_alternates_and_half_of_them_start() -> None:
    images = random_images(1000, 1, 2, 2)
    even, odd = alternating_flips(1000, 4, seed=7), alternating_flips(1000, 5, seed=7)
    assert np.array_equal(even, ~odd)
    assert np.array_equal(even, alternating_flips(1000, 0, seed=7))
    assert 430 < even.sum() < 570
    pixels = Augmentation()(images, seeded(0), mirrored=torch.from_numpy(even))
    expected = (
        torch.where(torch.from_numpy(even)[:, None, None, None], images.flip(3), images).float()
        / 255
    )
    assert torch.equal(pixels, expected)


def test_options_that_make_no_sense() -> None:
    with pytest.raises(RecipeError, match="received -1 and 0"):
        Augmentation(pad=-1)
    with pytest.raises(RecipeError, match="fill"):
        Augmentation(fill=(128.0,))
    with pytest.raises(DataError, match="pad 8 and 8x8"):
        Augmentation(pad=8)(random_images(2, 1, 8, 8), seeded(0))


@pytest.mark.slow
def test_fast_enough_for_training_on_a_cpu() -> None:
    """About 2 ms on one free core; the bound leaves room for busy machines."""
    images, augmentation, generator = (
        random_images(512, 3, 32, 32),
        Augmentation(4, True, 8),
        seeded(0),
    )
    augmentation(images, generator)
    seconds = []
    for _ in range(20):
        started = time.perf_counter()
        augmentation(images, generator)
        seconds.append(time.perf_counter() - started)
    assert min(seconds) < 0.02


def test_a_crop_of_known_size_by_hand():
    """A ramp cropped stays a ramp: its slope is the crop's width, its ends are inside the image."""
    images = torch.linspace(0, 1, 64).expand(200, 1, 64, 64).contiguous()
    cropped = Augmentation(min_crop_area=0.25)(images, seeded(3))
    # The borders of a crop at the image's border repeat the last half pixel: left out here.
    slopes = (cropped[:, 0, :, 40] - cropped[:, 0, :, 24]) / 16 * 63
    assert torch.allclose(slopes, slopes[:, :1].expand_as(slopes), atol=1e-4), "all rows alike"
    width = slopes[:, 0]
    assert 0.25**0.5 * 0.86 <= width.min() < 0.55
    assert 0.95 < width.max() <= 1 + 1e-4
    tall = Augmentation(min_crop_area=0.25)(images.transpose(2, 3), seeded(3))
    height = (tall[:, 0, 40, 0] - tall[:, 0, 24, 0]) / 16 * 63
    area = width * height
    assert 0.2 < area.min() < 0.4, "an area beyond the image's width or height is cut"
    assert 0.55 < area.mean() < 0.7
    assert cropped.min() >= 0
    assert cropped.max() <= 1


@pytest.mark.parametrize("channels", [1, 3])
def test_colours_against_the_three_changes_one_after_the_other(channels):
    images, most = torch.rand((5, channels, 6, 7), generator=seeded(1)) * 0.2 + 0.4, 0.4
    found = Augmentation(colour_jitter=most)(images, seeded(8))
    factors = torch.empty((3, 5, 1, 1)).uniform_(1 - most, 1 + most, generator=seeded(8))
    weights = torch.tensor([0.299, 0.587, 0.114] if channels == 3 else [1.0])
    for image, result, (b, c, s) in zip(images, found, factors.flatten(1).T, strict=True):
        gray = (weights[:, None, None] * image).sum(0)
        saturated = s * image + (1 - s) * gray
        contrasted = c * (saturated - gray.mean()) + gray.mean()
        torch.testing.assert_close(result, (b * contrasted).clamp(0, 1))


@pytest.mark.parametrize("wrong", [{"min_crop_area": 0.0}, {"colour_jitter": 1.0}])
def test_shares_outside_of_their_range_are_refused(wrong):
    with pytest.raises(RecipeError, match="received"):
        Augmentation(**wrong)
