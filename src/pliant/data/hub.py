"""Data sets of the Hugging Face hub, downloaded once into the hub's own cache."""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pyarrow as pa

from pliant.data.parquet import Table, source_of_tables
from pliant.data.source import Source
from pliant.data.split_names import AUTOMATIC, SplitName, find_splits, parse_splits
from pliant.errors import DataError

_BATCH = 256


@contextmanager
def _quiet() -> Iterator[Any]:
    """The library `datasets`, without its progress bars and messages."""
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


def read_hub(name: str, splits: str = AUTOMATIC) -> Source:
    """A data set of the hub.

    Args:
        name: `NAME` or `NAME:CONFIG`, where NAME is `OWNER/DATASET` or `DATASET`.
        splits: `auto` to recognise splits by their names, or `train=NAME,test=NAME`.

    Raises:
        DataError: it does not exist, cannot be reached, or has no columns of images and labels.
    """
    repository, _, configuration = name.partition(":")
    if not re.fullmatch(r"[\w.-]+(/[\w.-]+)?", repository):
        raise DataError(
            "a data set of the Hugging Face hub is hf:OWNER/NAME or hf:OWNER/NAME:CONFIG; received "
            f"'hf:{name}'."
        )
    with _quiet() as datasets:
        try:
            loaded = datasets.load_dataset(repository, configuration or None)
        except (OSError, ValueError, RuntimeError, datasets.exceptions.DatasetsError) as fault:
            raise DataError(
                f"hf:{name} names a data set of the Hugging Face hub; it cannot be had. Check the "
                f"name and the connection. {fault}"
            ) from fault
        root = Path(datasets.config.HF_CACHE_HOME)
    found: dict[SplitName, str]
    if splits == AUTOMATIC:
        found = {
            split: names[0] for split, names in find_splits(list(loaded), f"hf:{name}").items()
        }
    else:
        found = parse_splits(splits, list(loaded), f"hf:{name}")
    if "train" not in found:
        raise DataError(
            f"a data set has a split called train; hf:{name} has {', '.join(loaded)}. State the "
            "splits: splits = train=NAME,test=NAME."
        )
    tables = {
        split: _table(loaded[word], root, f"hf:{name}, {word}") for split, word in found.items()
    }
    return source_of_tables(repository, f"hf:{name}", tables)


def _table(loaded: Any, root: Path, where: str) -> Table:
    """The rows of one split."""

    def batches(columns: Sequence[str]) -> Iterator[pa.Table]:
        yield from loaded.select_columns(list(columns)).with_format("arrow").iter(_BATCH)

    return Table(loaded.features.arrow_schema, len(loaded), batches, root, where)
