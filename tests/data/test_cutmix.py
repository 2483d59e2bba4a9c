"""Every image says how much of whom it shows, and its label says the same."""

from __future__ import annotations

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from pliant.data.cutmix import cutmix


def seeded(seed: int) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def tagged(count: int, height: int, width: int) -> Tensor:
    """Image n has the value n everywhere, so that each pixel tells whose it was."""
    return torch.arange(count).float()[:, None, None, None].expand(count, 2, height, width).contiguous()


@settings(deadline=None)
@given(st.integers(1, 12), st.integers(1, 9), st.integers(1, 9), st.sampled_from((0.0, 0.5, 1.0)), st.integers(0, 10_000))
def test_labels_are_the_shares_of_the_pixels(count: int, height: int, width: int, probability: float, seed: int) -> None:
    labels = torch.randint(0, 4, (count,), generator=seeded(seed + 1))
    images, shares = cutmix(tagged(count, height, width), labels, classes=4, probability=probability, generator=seeded(seed))
    for image, share in zip(images, shares, strict=True):
        assert torch.equal(image[0], image[1]), "all channels come from the same image"
        expected = torch.zeros(4).index_add_(0, labels[image[0].flatten().long()], torch.full((height * width,), 1 / (height * width)))
        torch.testing.assert_close(share, expected, atol=1e-5, rtol=0)


def test_what_is_pasted_is_one_rectangle_in_its_own_place() -> None:
    original = torch.rand(64, 1, 8, 6, generator=seeded(0))
    images, _ = cutmix(original, torch.zeros(64, dtype=torch.long), classes=1, probability=1.0, generator=seeded(1))
    changed = (images != original)[:, 0]
    rows, columns = changed.any(2), changed.any(1)
    assert torch.equal(changed, rows[:, :, None] & columns[:, None, :])
    for line in (*rows, *columns):
        assert (line.int().diff(prepend=torch.zeros(1, dtype=torch.int)) == 1).sum() <= 1, "without a gap"
    assert len({tuple(line.tolist()) for line in rows}) > 10, "every image has its own"


def test_probability_is_the_share_of_images_that_are_mixed() -> None:
    labels = torch.arange(4000)
    for probability in (0.0, 0.25, 1.0):
        _, shares = cutmix(tagged(4000, 16, 16), labels, classes=4000, probability=probability, generator=seeded(2))
        mixed = float((shares.max(1).values < 1).float().mean())
        assert mixed == pytest.approx(probability, abs=0.03)
    pasted = 1 - shares[torch.arange(4000), labels].mean()
    assert float(pasted) == pytest.approx(0.32, abs=0.02), "half of the area, of which about a third lies beyond the border"
