"""Readers of image files and tables: class folders, parquet files, and the Hugging Face hub.

All of them become tables of `datasets`. Folders and parquet files need no network and leave nothing
on the disk: parquet files beyond the memory budget are unpacked into a temporary folder, which is
removed with the data set. Only `hf:NAME` downloads, into the hub's usual cache.
"""

from __future__ import annotations

import shutil
import tempfile
import weakref
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from numpy.typing import NDArray
from PIL import Image

from pliant.data.pictures import Pictures, TablePictures
from pliant.data.source import SPLIT_WORDS, Source, SplitName, make_source
from pliant.errors import DataError

_LABEL_NAMES = ("label", "labels", "fine_label", "class", "target", "y")


@contextmanager
def _quiet() -> Iterator[Any]:
    """`datasets` and the hub's client without progress bars and messages, as only the command line writes; hands out the library."""
    import datasets
    from huggingface_hub.utils import (
        are_progress_bars_disabled,
        disable_progress_bars,
        enable_progress_bars,
    )
    from huggingface_hub.utils import logging as hub_logging

    bars, hub_bars = not datasets.are_progress_bars_disabled(), not are_progress_bars_disabled()
    verbosity, hub_verbosity = datasets.logging.get_verbosity(), hub_logging.get_verbosity()
    datasets.disable_progress_bars()
    disable_progress_bars()
    datasets.logging.set_verbosity_error()
    hub_logging.set_verbosity_error()
    try:
        yield datasets
    finally:
        datasets.logging.set_verbosity(verbosity)
        hub_logging.set_verbosity(hub_verbosity)
        if bars:
            datasets.enable_progress_bars()
        if hub_bars:
            enable_progress_bars()


def read_folder(folder: Path) -> Source:
    """Images in a folder a class, or in `train/`, `validation/` (or `val/`) and `test/` above the class folders.

    Raises:
        DataError: no class folders, a class without images, or class folders beside `train/`.
    """
    inside = _folders(folder)
    split_folders: dict[SplitName, Path] = {
        split: found
        for split, words in SPLIT_WORDS.items()
        for found in inside
        if found.name.lower() in words
    }
    if "train" not in split_folders or not _folders(split_folders["train"]):
        split_folders = {"train": folder}  # a class may well be called "train"
    elif len(split_folders) < len(inside):
        strange = next(found for found in inside if found not in split_folders.values())
        raise DataError(
            f"beside {folder}/train stand only validation and test folders; {strange.name!r} is "
            "none. Move it into them."
        )
    pictures: dict[SplitName, Pictures] = {}
    labels: dict[SplitName, NDArray] = {}
    with _quiet() as datasets:
        for split, path in split_folders.items():
            files = _class_files(path)
            paths = pa.array([str(file) for found in files.values() for file in found], pa.string())
            structs = pa.StructArray.from_arrays(
                [pa.nulls(len(paths), pa.binary()), paths], ["bytes", "path"]
            )
            pictures[split] = TablePictures(
                datasets.Dataset(pa.table({"image": structs})).with_format("arrow"),
                "image",
                str(path),
            )
            labels[split] = np.repeat(
                np.array(list(files), np.str_), [len(found) for found in files.values()]
            )
    return make_source(folder.resolve().name, pictures, labels, None)


def _folders(folder: Path) -> list[Path]:
    """Folders inside a folder, by name, without those that systems and archives leave behind."""
    return sorted(
        found
        for found in folder.iterdir()
        if found.is_dir() and not found.name.startswith((".", "__"))
    )


def _class_files(folder: Path) -> dict[str, list[Path]]:
    """The image files of each class folder, at any depth; files of other kinds are passed over."""
    kinds = Image.registered_extensions()
    files = {
        one.name: sorted(
            file
            for file in one.rglob("*")
            if file.suffix.lower() in kinds and file.is_file() and not file.name.startswith(".")
        )
        for one in _folders(folder)
    }
    if not files:
        raise DataError(
            f"a folder of images holds a folder for each class, named as the class; {folder} holds "
            "none. Sort the images into folders."
        )
    empty = [name for name, found in files.items() if not found]
    if empty:
        raise DataError(
            f"every class folder holds images; {folder / empty[0]} holds none. Add images or "
            "remove the folder."
        )
    return files


def is_parquet(path: Path) -> bool:
    """Whether a path is a parquet file, or a folder of parquet files as the hub lays them out."""
    return (
        path.suffix == ".parquet"
        if path.is_file()
        else any(any(path.glob(pattern)) for pattern in ("*.parquet", "data/*.parquet"))
    )


def read_parquet(path: Path, memory_budget_bytes: int) -> Source:
    """A parquet file of training images, or a folder with `train*.parquet` and, where there are any, `validation*` and `test*`.

    Args:
        memory_budget_bytes: larger files are unpacked into a temporary folder and read from there.

    Raises:
        DataError: files that cannot be read, no training file, or no columns of images and labels.
    """
    files = _split_files(path)
    fits = (
        sum(file.stat().st_size for found in files.values() for file in found)
        <= memory_budget_bytes
    )
    folder = None if fits else _TemporaryFolder()
    tables: dict[SplitName, Any] = {}
    with _quiet() as datasets:
        try:
            for split, found in files.items():
                if folder is None:
                    tables[split] = datasets.Dataset(
                        pa.concat_tables(pq.read_table(file) for file in found)
                    )
                else:
                    tables[split] = datasets.Dataset.from_parquet(
                        [str(file) for file in found], split=split, cache_dir=folder.path
                    )
        except (pa.ArrowException, OSError, datasets.exceptions.DatasetsError) as fault:
            raise DataError(
                f"a data set's parquet files are whole and have the same columns; those of {path}: "
                f"{fault}."
            ) from fault
    return _from_tables(path.resolve().stem, str(path), tables, folder)


def _split_files(folder: Path) -> dict[SplitName, list[Path]]:
    if folder.is_file():
        return {"train": [folder]}
    files = sorted(folder.glob("*.parquet")) or sorted(folder.glob("data/*.parquet"))
    split_files = {
        split: [file for file in files if file.name.lower().startswith(words)]
        for split, words in SPLIT_WORDS.items()
    }
    split_files = {split: found for split, found in split_files.items() if found}
    if not split_files:
        return {"train": files}
    if "train" not in split_files:
        raise DataError(
            f"training images are in files called train*.parquet; {folder} has "
            f"{', '.join(file.name for file in files[:5])}. Rename them."
        )
    return split_files


class _TemporaryFolder:
    """A folder that is removed with its owners, and at exit."""

    def __init__(self) -> None:
        self.path = tempfile.mkdtemp(prefix="pliant-")
        weakref.finalize(self, shutil.rmtree, self.path, ignore_errors=True)


def read_hub(name: str) -> Source:
    """A data set of the Hugging Face hub, `NAME` or `NAME:CONFIG`, downloaded once into the hub's cache.

    Raises:
        DataError: it does not exist, cannot be reached, or has no columns of images and labels.
    """
    repository, _, configuration = name.partition(":")
    with _quiet() as datasets:
        try:
            loaded = datasets.load_dataset(repository, configuration or None)
        except (OSError, ValueError, RuntimeError, datasets.exceptions.DatasetsError) as fault:
            raise DataError(
                f"hf:{name} names a data set of the Hugging Face hub; it cannot be had. Check the "
                f"name and the connection. {fault}"
            ) from fault
    found = {
        split: loaded[word]
        for split, words in SPLIT_WORDS.items()
        for word in words
        if word in loaded
    }
    if "train" not in found:
        raise DataError(
            f"a data set has a split called train; hf:{name} has {', '.join(loaded)}. Download it "
            "and rename the split."
        )
    return _from_tables(repository, f"hf:{name}", found)


def _from_tables(
    name: str, where: str, tables: Mapping[SplitName, Any], owned: object = None
) -> Source:
    """Find the columns of images and labels, and the names of the classes.

    Args:
        where: the tables come from, for messages.
        owned: what must live as long as the tables.
    """
    import datasets

    features = tables["train"].features
    image = next((column for column, feature in features.items() if _holds_images(feature)), None)
    named = [
        column for column, feature in features.items() if isinstance(feature, datasets.ClassLabel)
    ]
    label = next((column for column in (*_LABEL_NAMES, *named) if column in features), None)
    if image is None or label is None:
        raise DataError(
            "a table has a column of images (bytes and path) and one of labels "
            f"({', '.join(_LABEL_NAMES[:4])}); "
            f"{where} has "
            f"{', '.join(f'{column}: {type(feature).__name__}' for column, feature in features.items())}. Rename the columns."
        )
    other = next(
        (split for split, table in tables.items() if not {image, label} <= set(table.features)),
        None,
    )
    if other is not None:
        raise DataError(
            f"all splits have the same columns; {where}, {other}, lacks {image!r} or {label!r}."
        )
    classes = (
        tuple(features[label].names) if isinstance(features[label], datasets.ClassLabel) else None
    )
    pictures, labels = {}, {}
    for split, table in tables.items():
        arrow = table.select_columns([image, label]).with_format("arrow")
        pictures[split] = TablePictures(arrow, image, f"{where}, {split}", owned)
        labels[split] = np.array(arrow[:][label].to_pylist())
    return make_source(name, pictures, labels, classes)


def _holds_images(feature: Any) -> bool:
    """Whether a column's type is the library's Image, or the struct of bytes and path under it."""
    import datasets

    return isinstance(feature, datasets.Image) or (
        isinstance(feature, dict) and set(feature) == {"bytes", "path"}
    )
