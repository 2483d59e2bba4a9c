"""What images are like before any is decoded: how many, of which classes, how large.

A run without a recipe decides by it, and images that cannot be split are refused before work begins.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from pliant.data.dataset import evenly_spaced_indices
from pliant.data.loading import _HEADERS, _read
from pliant.errors import DataError

FEW_IMAGES = 10
"""A class with fewer training images is named."""
MOST_NAMED = 10


@dataclass(frozen=True)
class SourceFacts:
    """What is known of images from their headers."""

    name: str
    images: Mapping[str, int]
    """By class: of the split called train, which the other splits come from where there are none."""
    channels: int
    side: int
    """Median of the shorter sides, in pixels."""
    missing_splits: int
    """Of validation and test, those that are split off the training images."""

    @property
    def few(self) -> dict[str, int]:
        """The classes of fewer images than tell much, with their numbers."""
        return {name: count for name, count in self.images.items() if count < FEW_IMAGES}


def inspect_source(source: str | Path, *, memory_budget_bytes: int = 2 << 30) -> SourceFacts:
    """Read labels and headers.

    Args:
        source: as `load` takes it.
        memory_budget_bytes: likewise.

    Raises:
        DataError: the source cannot be used, or classes have too few images for the splits; all of
            them are named.
    """
    read = _read(source, memory_budget_bytes)
    train = read.parts["train"]
    counts = np.bincount(train.labels, minlength=len(read.classes))
    images = {name: int(count) for name, count in zip(read.classes, counts, strict=True)}
    missing = 3 - len(read.parts)
    lacking = {name: count for name, count in images.items() if count < 1 + missing}
    if lacking:
        raise DataError(
            f"every class needs at least {1 + missing} images, one for each split; "
            f"{listed(lacking)}. Add images or remove the class."
        )
    headers = train.pictures.headers(evenly_spaced_indices(len(train.labels), _HEADERS))
    sides = [min(header.width, header.height) for header in headers]
    gray = all(header.gray for header in headers)
    side = round(float(np.median(sides)))
    return SourceFacts(read.name, images, 1 if gray else 3, side, missing)


def listed(images: Mapping[str, int]) -> str:
    """Classes with their numbers of images, in words."""
    parts = [f"{name!r} has {count}" for name, count in list(images.items())[:MOST_NAMED]]
    more = f" and {len(images) - MOST_NAMED} more have few" if len(images) > MOST_NAMED else ""
    return ", ".join(parts) + more
