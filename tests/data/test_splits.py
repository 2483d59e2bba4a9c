"""Splits, their order and the lock of the test split."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from pliant.data.splits import (
    ImagesInMemory,
    Split,
    TestSplit,
    balanced_permutation,
    epoch_permutation,
    stratified_split,
)
from pliant.errors import DataError


def numbered_split(count: int = 10) -> Split:
    """Image i is filled with i, and its label is i modulo 3."""
    pixels = (
        torch.arange(count, dtype=torch.uint8).view(-1, 1, 1, 1).expand(-1, 3, 2, 2).contiguous()
    )
    return Split(ImagesInMemory(pixels), np.arange(count) % 3)


def test_batches_and_nested_subsets_keep_images_and_labels_together() -> None:
    inner = numbered_split().subset(np.array([9, 4, 7, 2])).subset(np.array([2, 0]))
    images, labels = inner.batch(np.array([1, 0, 1]))
    assert images[:, 0, 0, 0].tolist() == [9, 7, 9]
    assert labels.tolist() == [0, 1, 0]
    assert (images.dtype, labels.dtype, inner.labels.dtype) == (torch.uint8, torch.int64, np.int64)
    assert images.shape == (3, 3, 2, 2)


def test_a_batch_is_the_callers_own() -> None:
    split = numbered_split()
    split.batch(np.arange(10))[0].zero_()
    split.batch(np.arange(10))[1].zero_()
    assert split.batch(np.array([5]))[0].unique().tolist() == [5]
    assert split.labels[5] == 2
    with pytest.raises(ValueError, match="read-only"):
        split.labels[0] = 1


def test_labels_must_match_images() -> None:
    with pytest.raises(DataError, match="2 images and 3 labels"):
        Split(ImagesInMemory(torch.zeros(2, 1, 2, 2, dtype=torch.uint8)), np.arange(3))


def test_the_test_split_counts_its_openings_and_tells_before_it_hands_out() -> None:
    told: list[str] = []
    guard = TestSplit(numbered_split())
    guard.on_open = told.append
    assert (len(guard), guard.openings) == (10, 0)
    assert len(guard.open("final score").batch(np.arange(3))[0]) == 3
    guard.open("second look")
    assert guard.openings == 2
    assert told == list(guard.purposes) == ["final score", "second look"]
    assert not hasattr(guard, "batch")
    assert not hasattr(guard, "labels")


def test_an_opening_that_cannot_be_written_down_is_refused() -> None:
    def full_disk(purpose: str) -> None:
        raise OSError(f"no space for {purpose}")

    guard = TestSplit(numbered_split(), full_disk)
    with pytest.raises(OSError, match="no space"):
        guard.open("final score")
    with pytest.raises(DataError, match="purpose"):
        guard.open(" ")
    assert guard.openings == 0


@given(
    counts=st.lists(st.integers(2, 40), min_size=2, max_size=5),
    share=st.floats(0.05, 0.5),
    seed=st.integers(0, 100),
)
def test_a_cut_is_disjoint_complete_stratified_and_reproducible(
    counts: list[int], share: float, seed: int
) -> None:
    labels = np.random.default_rng(seed).permutation(np.repeat(np.arange(len(counts)), counts))
    classes = tuple("abcde"[: len(counts)])
    stays, cut = stratified_split(labels, share, seed, part="validation", classes=classes)
    assert sorted([*stays, *cut]) == list(range(len(labels)))
    for label, count in enumerate(counts):
        taken = (labels[cut] == label).sum()
        assert 1 <= taken < count
        assert abs(taken - share * count) <= 1
    again = stratified_split(labels, share, seed, part="validation", classes=classes)
    assert np.array_equal(again[0], stays)
    assert np.array_equal(again[1], cut)


def test_too_few_images_to_cut() -> None:
    with pytest.raises(DataError, match="class 'rare' has only 1 left"):
        stratified_split(np.array([0, 0, 1]), 0.1, 0, part="test", classes=("often", "rare"))


@given(
    count=st.integers(1, 60),
    epoch=st.integers(0, 5),
    seed=st.integers(0, 5),
    world_size=st.integers(1, 4),
)
def test_processes_share_an_epoch_without_overlap(
    count: int, epoch: int, seed: int, world_size: int
) -> None:
    whole = epoch_permutation(count, epoch, seed)
    assert sorted(whole) == list(range(count))
    shares = [
        epoch_permutation(count, epoch, seed, rank=rank, world_size=world_size)
        for rank in range(world_size)
    ]
    assert {len(share) for share in shares} == {count // world_size}
    together = np.stack(shares, axis=1).ravel()  # one image of each process in turn
    assert np.array_equal(together, whole[: len(together)])


def test_epochs_and_seeds_have_orders_of_their_own() -> None:
    orders = {tuple(epoch_permutation(50, epoch, seed)) for epoch in range(3) for seed in range(3)}
    assert len(orders) == 9
    assert tuple(epoch_permutation(50, 2, 1)) in orders


@given(
    counts=st.lists(st.integers(1, 30), min_size=1, max_size=5),
    epoch=st.integers(0, 5),
    seed=st.integers(0, 5),
)
def test_a_balanced_epoch_has_each_class_equally_often(
    counts: list[int], epoch: int, seed: int
) -> None:
    labels = np.random.default_rng(seed).permutation(np.repeat(np.arange(len(counts)), counts))
    order = balanced_permutation(labels, epoch, seed)
    assert len(order) == len(labels)
    found = np.bincount(labels[order], minlength=len(counts))
    assert found.max() - found.min() <= 1
    assert np.array_equal(order, balanced_permutation(labels, epoch, seed))


def test_balanced_epochs_take_turns_with_the_images_of_a_large_class() -> None:
    labels = np.repeat([0, 1], [90, 10])
    orders = [balanced_permutation(labels, epoch, 3) for epoch in range(4)]
    for order in orders[:1]:
        assert np.bincount(order[labels[order] == 1] - 90).tolist() == [5] * 10
    large = [set(order[labels[order] == 0]) for order in orders]
    assert {len(one) for one in large} == {50}
    assert large[0] | large[1] == set(range(90))
    assert not np.array_equal(np.sort(orders[0]), np.sort(orders[1]))
