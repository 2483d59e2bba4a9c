"""Training, validation and test splits, and the order in which an epoch reads their images.

A split is a list of rows of an image store and their labels. Splits of one source share the store,
so splitting copies no image. The test split is locked: its images are available only by opening it
for a stated purpose, and every opening is counted.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import lru_cache
from typing import Protocol

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from pliant.data.pixel_range import array_to_bytes
from pliant.errors import DataError

Rows = NDArray[np.int64]


class ImageStore(Protocol):
    """Images of one size, by row number."""

    def __len__(self) -> int:
        """Number of images."""
        ...

    def take(self, rows: Rows) -> Tensor:
        """The images of these rows, uint8 (N, channels, size, size), as a new tensor."""
        ...


@dataclass(frozen=True)
class ImagesInMemory:
    """All images decoded, side by side; in memory, or in a file that is mapped into it.

    Args:
        pixels: (N, channels, size, size), bytes from 0 to 255, or floats from 0 to 1, which are
            rounded to 256 levels.

    Raises:
        DataError: another shape, or values beyond.
    """

    pixels: Tensor
    """uint8 (N, channels, size, size)."""

    def __post_init__(self) -> None:
        if self.pixels.ndim != 4 or self.pixels.shape[1] not in (1, 3):
            raise DataError(
                "images are (N, channels, height, width) with 1 or 3 channels; received "
                f"{tuple(self.pixels.shape)}."
            )
        if self.pixels.dtype != torch.uint8:
            values = self.pixels.detach().cpu().numpy()
            converted = torch.from_numpy(array_to_bytes(values, "ImagesInMemory"))
            object.__setattr__(self, "pixels", converted)

    def __len__(self) -> int:
        return len(self.pixels)

    def take(self, rows: Rows) -> Tensor:
        """The images of these rows."""
        return self.pixels.index_select(0, torch.from_numpy(rows))


class Split:
    """Labelled images for one use.

    Args:
        store: where the images are.
        labels: class index of each image of the split.
        rows: the split's rows of the store; all of them where None.
    """

    def __init__(
        self, store: ImageStore, labels: NDArray[np.integer], rows: Rows | None = None
    ) -> None:
        self._store = store
        self._rows = np.arange(len(store)) if rows is None else np.asarray(rows, dtype=np.int64)
        self.labels: NDArray[np.int64] = np.array(labels, dtype=np.int64)
        self.labels.flags.writeable = False
        if len(self._rows) != len(self.labels):
            raise DataError(
                f"every image has one label; received {len(self._rows)} images and "
                f"{len(self.labels)} labels."
            )

    def __len__(self) -> int:
        return len(self.labels)

    def batch(self, indices: NDArray[np.integer]) -> tuple[Tensor, Tensor]:
        """Images, uint8 (N, channels, size, size), and labels, int64 (N,).

        Args:
            indices: of the split, in the order of the result.
        """
        return self._store.take(self._rows[indices]), torch.from_numpy(self.labels[indices])

    @property
    def rows(self) -> Rows:
        """The row of each image in the store, shape (N,)."""
        return self._rows

    def subset(self, indices: NDArray[np.integer]) -> Split:
        """A split of these images only, sharing the store."""
        return Split(self._store, self.labels[indices], self._rows[indices])


class TestSplit:
    """The locked test images, for a final evaluation rather than for selection.

    Set `on_open` to a function that records the purpose. It runs before the images are returned, so
    an opening that cannot be recorded fails.
    """

    __test__ = False  # not a class of tests, whatever pytest thinks of its name

    def __init__(self, split: Split, on_open: Callable[[str], object] | None = None) -> None:
        self._split = split
        self.on_open = on_open
        self._purposes: list[str] = []

    def __len__(self) -> int:
        return len(self._split)

    @property
    def openings(self) -> int:
        """How often the images were handed out."""
        return len(self._purposes)

    @property
    def purposes(self) -> tuple[str, ...]:
        """What for, in order."""
        return tuple(self._purposes)

    def open(self, purpose: str) -> Split:
        """Hand out the test images.

        Args:
            purpose: what the images decide, for the record: "final score of the chosen network".

        Raises:
            DataError: no purpose given.
        """
        if not purpose.strip():
            raise DataError(
                "the test split is opened for a purpose that is written down; received none. Say "
                "what it is for."
            )
        if self.on_open is not None:
            self.on_open(purpose)
        self._purposes.append(purpose)
        return self._split


def stratified_split(
    labels: NDArray[np.integer], share: float, seed: int, *, part: str, classes: tuple[str, ...]
) -> tuple[Rows, Rows]:
    """Split off a share of every class, at least one image of each, and leave at least one.

    Args:
        labels: class index of each image.
        share: of each class, between 0 and 1.
        seed: of the draw.
        part: name of the new split, for the error.
        classes: names of the classes, for the error.

    Returns:
        The indices of the remaining images and of the new split, both ascending.

    Raises:
        DataError: a class has fewer than two images, so nothing would be left of it.
    """
    counts = np.bincount(labels, minlength=len(classes))
    small = [f"{classes[index]!r} has only {counts[index]}" for index in np.flatnonzero(counts < 2)]
    if small:
        raise DataError(
            f"a {part} split is cut off the training images, so every class needs an image for "
            f"each; class {', class '.join(small)} left. Add images of it or remove the class."
        )
    rng = np.random.default_rng(seed)
    cut = np.zeros(len(labels), dtype=bool)
    for label in range(len(classes)):
        members = rng.permutation(np.flatnonzero(labels == label))
        cut[members[: min(len(members) - 1, max(1, round(share * len(members))))]] = True
    return np.flatnonzero(~cut), np.flatnonzero(cut)


@lru_cache(maxsize=4)
def _permutation(count: int, epoch: int, seed: int) -> Rows:
    order = np.random.default_rng((seed, epoch)).permutation(count)
    order.flags.writeable = False
    return order


def epoch_permutation(
    count: int, epoch: int, seed: int, *, rank: int = 0, world_size: int = 1
) -> Rows:
    """The order in which an epoch reads its images.

    It is a function of the arguments alone, so a run can resume in the middle of an epoch.

    Args:
        count: number of images.
        epoch: counted from 0.
        seed: of the run.
        rank: of this process among those that share the epoch.
        world_size: number of these processes. Each reads equally many images; the last
            `count % world_size` of the order are read by none.

    Returns:
        A read-only permutation of range(count), or this process's share of it.
    """
    return _permutation(count, epoch, seed)[rank : count - count % world_size : world_size]


def balanced_permutation(labels: NDArray[np.int64], epoch: int, seed: int) -> Rows:
    """The order in which an epoch reads equally many images of each class.

    The expected gradient is that of a loss whose classes have weights inverse to their numbers.
    Images of large classes take turns from epoch to epoch; those of small ones occur several times.

    Args:
        labels: class index of each image; every class that occurs counts the same.
        epoch: counted from 0.
        seed: of the run.

    Returns:
        As many indices as there are images; the number of each class differs by at most 1.
    """
    return _balanced(labels.astype(np.int64).tobytes(), epoch, seed)


@lru_cache(maxsize=4)
def _balanced(raw_labels: bytes, epoch: int, seed: int) -> Rows:
    labels = np.frombuffer(raw_labels, np.int64)
    rng = np.random.default_rng((seed, epoch, 1))
    classes = rng.permutation(np.unique(labels))  # the first ones get what does not divide
    quota, rest = divmod(len(labels), len(classes))
    chosen = []
    for place, label in enumerate(classes):
        members, wanted = np.flatnonzero(labels == label), quota + (place < rest)
        # One fixed order per class, read on from where the last epoch stopped.
        turn = np.random.default_rng((seed, int(label), 2)).permutation(members)
        chosen.append(turn[(epoch * quota + np.arange(wanted)) % len(members)])
    order = rng.permutation(np.concatenate(chosen))
    order.flags.writeable = False
    return order
