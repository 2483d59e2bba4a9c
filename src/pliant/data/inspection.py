"""What images are like before any is decoded: how many, of which classes, how large.

A run without a recipe decides by it, and images that cannot be split are refused before work
begins.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from pliant.data.dataset import DataSet
from pliant.data.loading import read_source
from pliant.data.preparing import AUTOMATIC
from pliant.errors import DataError
from pliant.progress import silent

FEW_IMAGES = 10
"""A class with fewer training images is named."""
MOST_NAMED = 10


@dataclass(frozen=True)
class SourceFacts:
    """What is known of images from their headers."""

    name: str
    images: Mapping[str, int]
    """By class, of the split called train; the others are split off it where there are none."""
    channels: int
    side: int
    """Median of the shorter sides, in pixels."""
    missing_splits: int
    """Of validation and test, those that are split off the training images."""

    @property
    def few(self) -> dict[str, int]:
        """The classes of fewer images than tell much, with their numbers."""
        return {name: count for name, count in self.images.items() if count < FEW_IMAGES}


def inspect_source(source: str | Path, splits: str = AUTOMATIC) -> SourceFacts:
    """Read labels and headers.

    Args:
        source: as `load` takes it.
        splits: likewise.

    Raises:
        DataError: the source cannot be used, or classes have too few images for the splits; all of
            them are named.
    """
    read = read_source(source, splits)
    if isinstance(read, DataSet):
        images = _by_class(read.classes, read.train.labels)
        return SourceFacts(read.name, images, read.channels, read.image_size, 0)
    train = read.parts["train"]
    images, missing = _by_class(read.classes, train.labels), 3 - len(read.parts)
    lacking = {name: count for name, count in images.items() if count < 1 + missing}
    if lacking:
        raise DataError(
            f"every class needs at least {1 + missing} images, one for each split; "
            f"{listed(lacking)}. Add images or remove the class."
        )
    headers = train.pictures.survey(silent).headers
    sides = [min(header.width, header.height) for header in headers]
    gray = all(header.gray for header in headers)
    side = round(float(np.median(sides))) if sides else 0
    return SourceFacts(read.name, images, 1 if gray else 3, side, missing)


def _by_class(classes: tuple[str, ...], labels: NDArray[np.int64]) -> dict[str, int]:
    counts = np.bincount(labels, minlength=len(classes))
    return {name: int(count) for name, count in zip(classes, counts, strict=True)}


def listed(images: Mapping[str, int]) -> str:
    """Classes with their numbers of images, in words."""
    parts = [f"{name!r} has {count}" for name, count in list(images.items())[:MOST_NAMED]]
    more = f" and {len(images) - MOST_NAMED} more have few" if len(images) > MOST_NAMED else ""
    return ", ".join(parts) + more
