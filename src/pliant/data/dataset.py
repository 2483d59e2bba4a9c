"""A data set: three splits, channel statistics and a fingerprint."""

from __future__ import annotations

import hashlib
import json
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from pliant.data.splits import Split, TestSplit

STATISTICS_IMAGES = 1 << 16
"""Maximum number of images for the statistics and the fingerprint, evenly spaced over the split."""

_CHUNK = 2048


@dataclass(frozen=True)
class DataSet:
    """Labelled images of one size in three splits."""

    name: str
    classes: tuple[str, ...]
    channels: int
    """1 for gray, 3 for RGB."""
    image_size: int
    """Height and width, in pixels."""
    train: Split
    validation: Split
    test: TestSplit
    mean: tuple[float, ...]
    """Of each channel of the training images, on the scale from 0 to 1."""
    std: tuple[float, ...]
    """Standard deviation of each channel over all pixels of all training images, likewise."""
    fingerprint: str
    """SHA-256 of the images, labels and classes of all splits, in hexadecimal."""


@dataclass(frozen=True, slots=True)
class Statistics:
    """Digest and channel statistics of a split, from one pass over it."""

    digest: bytes
    mean: tuple[float, ...]
    std: tuple[float, ...]


def compute_statistics(split: Split) -> Statistics:
    """Digest, mean and standard deviation of a split.

    They are exact integer sums, so streamed and in-memory data give the same result.
    """
    digest = hashlib.sha256(split.labels.tobytes())
    rows = evenly_spaced_indices(len(split), STATISTICS_IMAGES)
    histograms: list[Tensor] = []
    for start in range(0, len(rows), _CHUNK):
        images = split.batch(rows[start : start + _CHUNK])[0]
        digest.update(images.numpy().data)
        found = [torch.bincount(channel.reshape(-1), minlength=256) for channel in images.unbind(1)]
        histograms = (
            [old + new for old, new in zip(histograms, found, strict=True)] if histograms else found
        )
    moments = [_moments(histogram.numpy()) for histogram in histograms]
    return Statistics(
        digest.digest(), tuple(mean for mean, _ in moments), tuple(std for _, std in moments)
    )


def _moments(histogram: NDArray[np.int64]) -> tuple[float, float]:
    """Mean and standard deviation of bytes on the scale from 0 to 1, from how often each occurs."""
    values = np.arange(256) / 255
    mean = float(np.average(values, weights=histogram))
    return mean, float(np.average((values - mean) ** 2, weights=histogram)) ** 0.5


def evenly_spaced_indices(count: int, most: int) -> NDArray[np.int64]:
    """At most `most` evenly spaced indices of range(count)."""
    return np.arange(count) if count <= most else np.linspace(0, count - 1, most).astype(np.int64)


def fingerprint(
    classes: tuple[str, ...], shape: tuple[int, int], digests: tuple[bytes, ...]
) -> str:
    """Digest of the classes, the image shape and the splits.

    Args:
        shape: channels and size.
        digests: of train, validation and test.
    """
    return hashlib.sha256(
        json.dumps([classes, shape, [digest.hex() for digest in digests]]).encode()
    ).hexdigest()
