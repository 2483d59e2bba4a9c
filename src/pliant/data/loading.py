"""Labelled images in, three splits of equal-sized pixels out: what does the user's word for a data set mean?

| word | meaning |
|---|---|
| `digits` | scikit-learn's handwritten digits, 8x8 |
| `fashion-mnist` | Debian's files, or where they are missing the Hugging Face hub's |
| a folder | a folder for each class, also below `train/`, `validation/` and `test/`; or parquet files |
| a `.parquet` file | a table with a column of images and one of labels |
| a `.npz` file | arrays `x` and `y`, or `x_train`, `y_train`, `x_test`, `y_test` |
| `hf:NAME[:CONFIG]` | a data set of the Hugging Face hub |
| `file.py:NAME` | a function of the user's own; from Python also the function, or what it returns |
"""

from __future__ import annotations

import math
import os
from collections.abc import Callable
from pathlib import Path

import numpy as np

from pliant.data import arrays, tables
from pliant.data.dataset import DataSet, compute_statistics, evenly_spaced_indices, fingerprint
from pliant.data.own_data import OwnData, own_data
from pliant.data.pictures import Header, Pictures, StreamedImages
from pliant.data.source import Source
from pliant.data.splits import ImagesInMemory, ImageStore, Split, TestSplit, stratified_split
from pliant.errors import DataError, nearest
from pliant.plugins import is_plugin

KNOWN = ("digits", "fashion-mnist")
"""Data sets that have a name of their own."""

LARGEST_DEFAULT_SIZE = 224
_HEADERS = 1000
"""Training images whose size and kind are looked at, evenly spaced."""

_TEST_SEED = 0
"""Test images are cut off the same way whatever the run's seed: no run may train on what another is tested on."""


def load(
    source: str | Path | OwnData | Callable[[], OwnData],
    *,
    seed: int,
    image_size: int | None = None,
    memory_budget_bytes: int = 2 << 30,
    validation_share: float = 0.1,
    test_share: float = 0.1,
) -> DataSet:
    """Read labelled images and split them.

    Splits that the source has stay as they are. A test split that it has not is cut off its training images, the same for
    every seed; then a validation split, by the seed. Both take their share of every class.

    Images are gray where all training images are (of 1,000 looked at), else RGB. They become squares of `image_size`: resized
    until the shorter side fits, then cut to the middle. Unset, the size is the images' own where they all are the same square
    of at most 224, else the median of their shorter sides rounded to a multiple of 8, from 8 to 224.

    Args:
        source: see the module.
        seed: decides which images validate.
        image_size: height and width, in pixels.
        memory_budget_bytes: decoded images up to this size are kept in memory; larger data is decoded whenever it is read.
        validation_share: share of the source's training images, where it has no validation split.
        test_share: share of the source's training images, where it has no test split.

    Raises:
        DataError: anything that keeps the images from being used.
    """
    if validation_share <= 0 or test_share <= 0 or validation_share + test_share >= 1:
        raise DataError(
            "the shares of validation and test are above 0 and below 1 together; received "
            f"{validation_share} and {test_share}."
        )
    if image_size is not None and image_size < 1:
        raise DataError(f"images have a size from 1 pixel; received {image_size}.")
    found = _read(source, memory_budget_bytes)
    if isinstance(found, DataSet):
        if image_size not in (None, found.image_size):
            raise DataError(
                f"a DataSet has its size, {found.image_size}; received image_size {image_size}. "
                "Leave it out."
            )
        return found
    return _assemble(
        found,
        seed,
        image_size,
        memory_budget_bytes,
        validation_share,
        test_share,
    )


def _read(
    source: str | Path | OwnData | Callable[[], OwnData], memory_budget_bytes: int
) -> Source | DataSet:
    """Find out which kind of source it is."""
    if not isinstance(source, str | Path) or is_plugin(str(source)):
        return own_data(str(source) if isinstance(source, Path) else source)
    if source == "digits":
        return arrays.read_digits()
    if source == "fashion-mnist":
        if arrays.FASHION_MNIST_FOLDER.is_dir():
            return arrays.read_fashion_mnist(arrays.FASHION_MNIST_FOLDER)
        return tables.read_hub("zalando-datasets/fashion_mnist")
    if isinstance(source, str) and source.startswith("hf:"):
        return tables.read_hub(source.removeprefix("hf:"))
    path = Path(source).expanduser()
    if not path.exists():
        raise _unknown(source)
    if tables.is_parquet(path):
        return tables.read_parquet(path, memory_budget_bytes)
    if path.is_dir():
        return tables.read_folder(path)
    if path.suffix == ".npz":
        return arrays.read_npz(path)
    raise DataError(
        f"a file of images is .parquet or .npz; received {path}. Convert it, or give a folder with "
        "a folder for each class."
    )


def _unknown(source: str | Path) -> DataError:
    if isinstance(source, Path) or os.sep in source or Path(source).suffix:
        return DataError(
            f"a path to images exists; {str(source)!r} does not. Check the spelling and the folder "
            "you are in."
        )
    return DataError(
        "a data set is a known name, an existing path, or hf:NAME for the Hugging Face hub; "
        f"received {source!r}. {nearest(source, KNOWN)}"
    )


def _assemble(
    source: Source,
    seed: int,
    image_size: int | None,
    memory_budget_bytes: int,
    validation_share: float,
    test_share: float,
) -> DataSet:
    headers = source.parts["train"].pictures.headers(
        evenly_spaced_indices(len(source.parts["train"].labels), _HEADERS)
    )
    channels = 1 if all(header.gray for header in headers) else 3
    size = image_size or _default_size(headers)
    count = sum(len(part.labels) for part in source.parts.values())
    streams = count * channels * size * size > memory_budget_bytes
    splits = {
        name: Split(_store(part.pictures, channels, size, streams), part.labels)
        for name, part in source.parts.items()
    }
    train = splits["train"]
    staying = np.arange(len(train))
    if "test" not in splits:
        staying, cut = stratified_split(
            train.labels, test_share, _TEST_SEED, part="test", classes=source.classes
        )
        splits["test"] = train.subset(cut)
    if "validation" not in splits:
        share = (
            validation_share if len(staying) == len(train) else validation_share / (1 - test_share)
        )
        kept, cut = stratified_split(
            train.labels[staying], share, seed, part="validation", classes=source.classes
        )
        splits["validation"] = train.subset(staying[cut])
        staying = staying[kept]
    splits["train"] = train.subset(staying)
    statistics = {
        name: compute_statistics(splits[name]) for name in ("train", "validation", "test")
    }
    return DataSet(
        name=source.name,
        classes=source.classes,
        channels=channels,
        image_size=size,
        train=splits["train"],
        validation=splits["validation"],
        test=TestSplit(splits["test"]),
        mean=statistics["train"].mean,
        std=statistics["train"].std,
        fingerprint=fingerprint(
            source.classes, (channels, size), tuple(one.digest for one in statistics.values())
        ),
    )


def _store(pictures: Pictures, channels: int, size: int, streams: bool) -> ImageStore:
    if streams:
        return StreamedImages(pictures, channels, size)
    return ImagesInMemory(pictures.decode(np.arange(len(pictures)), channels, size))


def _default_size(headers: list[Header]) -> int:
    sides = {(header.width, header.height) for header in headers}
    width, height = min(sides)
    if len(sides) == 1 and width == height <= LARGEST_DEFAULT_SIZE:
        return width
    median = float(np.median([min(header.width, header.height) for header in headers]))
    return int(np.clip(math.floor(median / 8 + 0.5) * 8, 8, LARGEST_DEFAULT_SIZE))
