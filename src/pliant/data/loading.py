"""Labelled images in, three splits of equal-sized pixels out: what a user's word for images means.

| word | meaning |
|---|---|
| `digits` | scikit-learn's handwritten digits, 8x8 |
| `fashion-mnist` | Debian's files, or where they are missing the Hugging Face hub's |
| a folder | a folder for each class, also below a folder for each split; or parquet files |
| a `.parquet` file | a table with a column of images and one of labels |
| a `.npz` file | arrays `x` and `y`, or `x_train`, `y_train`, `x_test`, `y_test` |
| `hf:NAME[:CONFIG]` | a data set of the Hugging Face hub |
| `file.py:NAME` | a function of the user's own; from Python also the function, or what it returns |
"""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import cast

import numpy as np

from pliant.data import arrays, folders, hub, parquet
from pliant.data.cache import prepare_cached
from pliant.data.dataset import DataSet, Statistics, compute_statistics, fingerprint
from pliant.data.decoding import Fit
from pliant.data.own_data import OwnData, own_data
from pliant.data.pictures import ArrayPictures, Digests
from pliant.data.preparing import (
    AUTOMATIC,
    LARGEST_DEFAULT_SIZE,
    Prepared,
    Request,
    prepare_in_memory,
)
from pliant.data.source import Source, require_classes
from pliant.data.split_names import SplitName
from pliant.data.splits import ImagesInMemory, Rows, Split, TestSplit, stratified_split
from pliant.errors import DataError, nearest
from pliant.files import is_device
from pliant.plugins import is_plugin
from pliant.progress import Progress, silent

KNOWN = ("digits", "fashion-mnist")
"""Data sets that have a name of their own."""

_TEST_SEED = 0
"""Test images are split off the same way whatever the run's seed: no run may train on what another
is tested on."""

_LISTED = 20
"""Broken pictures that an error lists."""


def load(
    source: str | Path | OwnData | Callable[[], OwnData],
    *,
    seed: int,
    image_size: int | None = None,
    largest_size: int = LARGEST_DEFAULT_SIZE,
    fit: Fit = "crop",
    background: str = AUTOMATIC,
    channels: int | None = None,
    splits: str = AUTOMATIC,
    skip_broken: bool = False,
    validation_share: float = 0.1,
    test_share: float = 0.1,
    progress: Progress = silent,
) -> DataSet:
    """Read labelled images and split them.

    Splits that the source has stay as they are. A missing test split is split off the training
    images, the same for every seed; then a missing validation split, by the seed. Both take their
    share of every class.

    Images are gray where all training images are, else RGB, or as `channels` says. They become
    squares of `image_size`; unset, the size is the images' own where they all are the same square
    of at most `largest_size`, else the median of their shorter sides rounded to a multiple of 8.
    Pictures are decoded once into a cache, by their content; see `pliant.data.cache`.

    Args:
        source: see the module.
        seed: decides which images validate.
        image_size: height and width, in pixels.
        largest_size: largest size that is chosen where `image_size` is None, in pixels.
        fit: `crop` resizes the shorter side and crops the middle; `pad` resizes the longer side and
            adds mid gray.
        background: colour behind transparent pictures; `auto` is white, or black where the visible
            parts of the training pictures are almost white.
        channels: 1 reads all pictures as gray, 3 as RGB; what the pictures are where None.
        splits: `auto` recognises folders, files and tables of splits by their names; `none` takes
            every folder for a class; `train=NAME,validation=NAME,test=NAME` states them.
        skip_broken: leave out pictures that cannot be decoded, instead of refusing the data set.
        validation_share: share of the source's training images, where it has no validation split.
        test_share: share of the source's training images, where it has no test split.
        progress: told how many images are read and decoded.

    Raises:
        DataError: anything that keeps the images from being used; of broken pictures, all are
            listed.
    """
    if not (validation_share > 0 and test_share > 0 and validation_share + test_share < 1):
        raise DataError(
            "the shares of validation and test are above 0 and below 1 together; received "
            f"{validation_share} and {test_share}."
        )
    request = Request(image_size, largest_size, fit, background, channels)
    found = read_source(source, splits)
    if isinstance(found, DataSet):
        if image_size not in (None, found.image_size):
            raise DataError(
                f"a DataSet has its size, {found.image_size}; received image_size {image_size}. "
                "Leave it out."
            )
        if channels not in (None, found.channels):
            raise DataError(
                f"a DataSet has its channels, {found.channels}; {channels} are asked for, as by "
                "published weights. Convert its images."
            )
        return found
    opened = _open(found, request, skip_broken, progress)
    return _assemble(opened, seed, validation_share, test_share)


def read_source(
    source: str | Path | OwnData | Callable[[], OwnData], splits: str = AUTOMATIC
) -> Source | DataSet:
    """Find out what a user's word for images means, and read names and labels.

    Args:
        source: see the module.
        splits: as for `load`.

    Raises:
        DataError: nothing is meant, or it cannot be read.
    """
    if not isinstance(source, str | Path) or is_plugin(str(source)):
        return own_data(str(source) if isinstance(source, Path) else source)
    if not str(source).strip():
        raise DataError(
            "a data set is a known name, an existing path, or hf:NAME for the Hugging Face hub; "
            f"received an empty text. Known: {', '.join(KNOWN)}."
        )
    if source == "digits":
        return arrays.read_digits()
    if source == "fashion-mnist":
        if arrays.FASHION_MNIST_FOLDER.is_dir():
            return arrays.read_fashion_mnist(arrays.FASHION_MNIST_FOLDER)
        return hub.read_hub("zalando-datasets/fashion_mnist")
    if isinstance(source, str) and source.startswith("hf:"):
        return hub.read_hub(source.removeprefix("hf:"), splits)
    try:
        path = Path(source).expanduser()
        if not path.exists():
            raise _unknown(source)
        if is_device(path):
            raise DataError(f"images are files; {path} is a pipe or a device. Name a file.")
        if parquet.is_parquet(path):
            return parquet.read_parquet(path, splits)
        if path.is_dir():
            return folders.read_folder(path, splits)
    except (OSError, RuntimeError, ValueError) as fault:
        if isinstance(fault, DataError):
            raise
        raise DataError(
            f"a path to images can be read; {str(source)!r} cannot: "
            f"{getattr(fault, 'strerror', None) or fault}."
        ) from fault
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


@dataclass(frozen=True)
class _Opened:
    """A source whose images are decoded."""

    source: Source
    prepared: Prepared
    splits: Mapping[SplitName, Split]
    """As the source has them, without broken pictures."""
    digests: Mapping[SplitName, Digests]
    """Of the pictures of these splits."""
    skipped: tuple[str, ...]
    """Broken pictures, with the reason."""


def _open(source: Source, request: Request, skip_broken: bool, progress: Progress) -> _Opened:
    """Decode the pictures of a source, or find them in the cache."""
    pictures = {split: part.pictures for split, part in source.parts.items()}
    digests = {split: one.digests(progress) for split, one in pictures.items()}
    if all(isinstance(one, ArrayPictures) for one in pictures.values()):
        prepared = prepare_in_memory(pictures, request, progress)
    else:
        prepared = prepare_cached(pictures, digests, request, progress)
    broken = _broken_pictures(source, prepared)
    if broken and not skip_broken:
        raise _broken_error(source.name, broken)
    splits: dict[SplitName, Split] = {}
    for split, part in source.parts.items():
        whole = np.ones(len(part.labels), dtype=bool)
        whole[list(prepared.broken[split])] = False
        rows = np.flatnonzero(whole)
        if split != "train" and not len(rows):
            continue
        splits[split] = Split(ImagesInMemory(prepared.pixels[split]), part.labels[rows], rows)
        digests[split] = digests[split][rows]
    require_classes(source.name, source.classes, splits["train"].labels)
    return _Opened(source, prepared, splits, digests, broken)


def _broken_pictures(source: Source, prepared: Prepared) -> tuple[str, ...]:
    """Names of all pictures that could not be decoded, each with the reason."""
    found = []
    for split, reasons in prepared.broken.items():
        names = source.parts[split].pictures.names(list(reasons)) if reasons else []
        found += [f"{name}: {why}" for name, why in zip(names, reasons.values(), strict=True)]
    return tuple(found)


def _broken_error(name: str, broken: tuple[str, ...]) -> DataError:
    listed = "\n".join(f"  {one}" for one in broken[:_LISTED])
    more = f"\n  and {len(broken) - _LISTED} more" if len(broken) > _LISTED else ""
    number = "1 picture" if len(broken) == 1 else f"{len(broken)} pictures"
    return DataError(
        f"{number} of {name} cannot be decoded:\n{listed}{more}\nReplace or remove them, or leave "
        "them out with --skip-broken (in a recipe: data.skip_broken = true)."
    )


@dataclass(frozen=True)
class _Chosen:
    """Some rows of one split of the source."""

    origin: SplitName
    rows: Rows


def _assemble(opened: _Opened, seed: int, validation_share: float, test_share: float) -> DataSet:
    """Split the images, and describe them."""
    source, decoding = opened.source, opened.prepared.decoding
    chosen = _choose(opened, seed, validation_share, test_share)
    splits = {name: opened.splits[one.origin].subset(one.rows) for name, one in chosen.items()}
    content = [
        (opened.digests[one.origin][one.rows], splits[name].labels) for name, one in chosen.items()
    ]
    statistics = compute_statistics(splits["train"])
    notes = [*source.notes, *opened.prepared.notes, *_blank_channels(statistics, source.name)]
    notes += _shared_pictures(opened, chosen)
    if opened.skipped:
        count = len(opened.skipped)
        notes.append(
            "1 broken picture is left out."
            if count == 1
            else f"{count} broken pictures are left out."
        )
    return DataSet(
        name=source.name,
        classes=source.classes,
        channels=decoding.channels,
        image_size=decoding.size,
        train=splits["train"],
        validation=splits["validation"],
        test=TestSplit(splits["test"]),
        mean=statistics.mean,
        std=tuple(std or 1.0 for std in statistics.std),
        fingerprint=fingerprint(source.classes, decoding, content),
        decoding=decoding,
        picture_size=opened.prepared.picture_size,
        notes=tuple(notes),
        skipped=opened.skipped,
    )


def _choose(
    opened: _Opened, seed: int, validation_share: float, test_share: float
) -> dict[SplitName, _Chosen]:
    """The rows of train, validation and test; those that are missing are split off train."""
    classes = opened.source.classes
    chosen = {split: _Chosen(split, np.arange(len(one))) for split, one in opened.splits.items()}
    labels, staying = opened.splits["train"].labels, chosen["train"].rows
    share = validation_share
    if "test" not in chosen:
        staying, cut = stratified_split(
            labels, test_share, _TEST_SEED, part="test", classes=classes
        )
        chosen["test"] = _Chosen("train", cut)
        share = validation_share / (1 - test_share)
    if "validation" not in chosen:
        kept, cut = stratified_split(
            labels[staying], share, seed, part="validation", classes=classes
        )
        chosen["validation"] = _Chosen("train", staying[cut])
        staying = staying[kept]
    chosen["train"] = _Chosen("train", staying)
    return {name: chosen[name] for name in cast("list[SplitName]", ["train", "validation", "test"])}


def _shared_pictures(opened: _Opened, chosen: Mapping[SplitName, _Chosen]) -> list[str]:
    """A warning where pictures occur in two splits: what was trained on tests nothing."""
    seen: dict[bytes, str] = {}
    notes = []
    for split, one in chosen.items():
        rows = opened.splits[one.origin].subset(one.rows).rows
        found = [digest.tobytes() for digest in opened.digests[one.origin][one.rows]]
        shared = [place for place, digest in enumerate(found) if digest in seen]
        if shared:
            others = " and ".join(dict.fromkeys(seen[found[place]] for place in shared))
            [first] = opened.source.parts[one.origin].pictures.names([int(rows[shared[0]])])
            notes.append(
                f"{len(shared)} of {len(rows):,} {split} pictures are also among those of {others},"
                f" such as {first}: accuracy is overstated. Remove the copies."
            )
        seen |= dict.fromkeys((one for one in found if one not in seen), split)
    return notes


def _blank_channels(statistics: Statistics, name: str) -> list[str]:
    """A warning for each channel that is the same in all training images.

    Raises:
        DataError: all channels are.
    """
    blank = [place for place, std in enumerate(statistics.std) if std == 0]
    values = [f"{255 * statistics.mean[place]:.0f}" for place in blank]
    if len(blank) == len(statistics.std):
        raise DataError(
            f"images differ; all training images of {name} are of one colour, "
            f"{', '.join(values)} of 255. Check how they were written, and the value range."
        )
    colours = ("red", "green", "blue")
    return [
        f"The {colours[place]} channel carries nothing: it is {value} of 255 in every training "
        "image."
        for place, value in zip(blank, values, strict=True)
    ]
