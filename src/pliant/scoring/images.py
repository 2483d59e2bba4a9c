"""The images that every network is shown: training images, or noise of their shape."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from pliant.data.dataset import DataSet
from pliant.data.loading import load
from pliant.data.splits import epoch_permutation
from pliant.errors import DataError


@dataclass(frozen=True, slots=True)
class Shape:
    """What a network takes, and how many classes it tells apart."""

    channels: int
    image_size: int
    """Height and width, in pixels."""
    classes: int

    def __str__(self) -> str:
        return f"{self.channels}x{self.image_size}x{self.image_size}, {self.classes} classes"


_PRESET_SHAPES = {
    "digits": Shape(1, 8, 10),
    "photos": Shape(3, 224, 1000),
    "photos-lite1": Shape(3, 240, 1000),
    "photos-lite2": Shape(3, 260, 1000),
    "ofa-mobilenetv3": Shape(3, 224, 1000),
    "ofa-mobilenetv3-w1.2": Shape(3, 224, 1000),
    "ofa-resnet50": Shape(3, 224, 1000),
}
_DEFAULT_SHAPE = Shape(3, 32, 10)


def default_shape(space: str) -> Shape:
    """The images for which a preset is made."""
    return _PRESET_SHAPES.get(space, _DEFAULT_SHAPE)


@dataclass(frozen=True)
class Batch:
    """Images of mean 0 and standard deviation 1 per channel."""

    images: NDArray[np.float32]
    """(N, channels, size, size)"""
    labels: NDArray[np.int64] | None
    """(N,); None where the images are noise."""
    shape: Shape
    digest: str
    """Equal exactly for equal batches of equal shape."""


AnyImages = Batch | DataSet | Shape | str | Path
"""A batch; or what one is made of: a data set, its name or path as `pliant.load` takes it, or the
shape of noise."""


def as_batch(images: AnyImages, count: int = 64, seed: int = 0) -> Batch:
    """The batch that images, or the name of their source, mean.

    Args:
        images: training images of a data set or of its source, or noise of a shape.
        count: of images; a batch keeps its own.
        seed: of the draw, or of the noise.

    Raises:
        DataError: the source cannot be used.
    """
    if isinstance(images, Batch):
        return images
    if isinstance(images, Shape):
        return noise_batch(images, count, seed)
    data = images if isinstance(images, DataSet) else load(images, seed=seed)
    return training_batch(data, count, seed)


def training_batch(data: DataSet, images: int = 64, seed: int = 0) -> Batch:
    """Images of the training split; the other splits stay closed.

    Args:
        data: as `pliant.load` returns it.
        images: how many, at most all.
        seed: of the draw.

    Raises:
        DataError: an image cannot be decoded, or none is asked for.
    """
    _require_images(images)
    pixels, labels = data.train.batch(epoch_permutation(len(data.train), 0, seed)[:images])
    mean = np.array(data.mean, dtype=np.float32).reshape(-1, 1, 1)
    std = np.array(data.std, dtype=np.float32).reshape(-1, 1, 1)
    normalised = (pixels.numpy().astype(np.float32) / 255 - mean) / np.maximum(std, 1e-6)
    shape = Shape(data.channels, data.image_size, len(data.classes))
    return _batch(normalised.astype(np.float32), labels.numpy(), shape)


def noise_batch(shape: Shape, images: int = 64, seed: int = 0) -> Batch:
    """Gaussian noise without labels, for scores that use no images.

    Args:
        shape: of the images, with the number of classes.
        images: how many.
        seed: of the noise.

    Raises:
        DataError: no image is asked for.
    """
    _require_images(images)
    size = (images, shape.channels, shape.image_size, shape.image_size)
    return _batch(np.random.default_rng(seed).standard_normal(size, dtype=np.float32), None, shape)


def _require_images(images: int) -> None:
    if images < 1:
        raise DataError(f"networks are scored on at least one image, received {images}.")


def _batch(images: NDArray[np.float32], labels: NDArray[np.int64] | None, shape: Shape) -> Batch:
    digest = hashlib.sha256(f"{shape}".encode())
    digest.update(np.ascontiguousarray(images).data)
    digest.update(b"" if labels is None else labels.tobytes())
    return Batch(np.ascontiguousarray(images), labels, shape, digest.hexdigest()[:16])
