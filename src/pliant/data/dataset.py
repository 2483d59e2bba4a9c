"""A data set: three splits, channel statistics and a digest of its content."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Sequence
from dataclasses import asdict, dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from pliant.data.decoding import Decoding
from pliant.data.splits import Split, TestSplit

STATISTICS_IMAGES = 1 << 16
"""Maximum number of images for the statistics, evenly spaced over the split."""

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
    """Standard deviation of each channel over all pixels of all training images, likewise; 1 for a
    channel that is the same everywhere, so that it becomes 0."""
    fingerprint: str
    """SHA-256 of the content of all pictures, their labels and classes, the splits and the
    decoding, in hexadecimal; the same wherever the pictures lie."""
    decoding: Decoding
    """How pictures became images; a network's own pictures take the same way."""
    picture_size: int | None = None
    """Median of the shorter sides of the training pictures before, in pixels."""
    notes: tuple[str, ...] = ()
    """What was recognised, decided or left out, in sentences for the user."""
    skipped: tuple[str, ...] = ()
    """Broken pictures that were left out, each with the reason."""


@dataclass(frozen=True, slots=True)
class Statistics:
    """Statistics of each channel of a split, on the scale from 0 to 1."""

    mean: tuple[float, ...]
    std: tuple[float, ...]


def compute_statistics(split: Split) -> Statistics:
    """Mean and standard deviation of each channel, from exact integer counts of the bytes."""
    rows = evenly_spaced_indices(len(split), STATISTICS_IMAGES)
    histograms: list[Tensor] = []
    for start in range(0, len(rows), _CHUNK):
        images = split.batch(rows[start : start + _CHUNK])[0]
        found = [torch.bincount(channel.reshape(-1), minlength=256) for channel in images.unbind(1)]
        histograms = (
            [old + new for old, new in zip(histograms, found, strict=True)] if histograms else found
        )
    moments = [_moments(histogram.numpy()) for histogram in histograms]
    return Statistics(tuple(mean for mean, _ in moments), tuple(std for _, std in moments))


def _moments(histogram: NDArray[np.int64]) -> tuple[float, float]:
    """Mean and standard deviation of bytes on the scale from 0 to 1, from how often each occurs."""
    values = np.arange(256) / 255
    mean = float(np.average(values, weights=histogram))
    return mean, float(np.average((values - mean) ** 2, weights=histogram)) ** 0.5


def evenly_spaced_indices(count: int, most: int) -> NDArray[np.int64]:
    """At most `most` evenly spaced indices of range(count)."""
    return np.arange(count) if count <= most else np.linspace(0, count - 1, most).astype(np.int64)


def fingerprint(
    classes: tuple[str, ...],
    decoding: Decoding,
    splits: Sequence[tuple[NDArray[np.uint8], NDArray[np.int64]]],
) -> str:
    """Digest of what a data set is, without where it lies.

    Args:
        classes: their names.
        decoding: how pictures become images.
        splits: digests (N, 32) and labels (N,) of train, validation and test.
    """
    digest = hashlib.sha256(json.dumps([classes, asdict(decoding)]).encode())
    for digests, labels in splits:
        digest.update(len(labels).to_bytes(8, "big"))
        digest.update(np.ascontiguousarray(digests).tobytes())
        digest.update(labels.astype("<i8").tobytes())
    return digest.hexdigest()
