"""Parquet files of pictures: a column of encoded images and one of labels.

Images are bytes, or a struct of `bytes` and `path` as the Hugging Face hub writes it. A path
without bytes is read only below the folder of the parquet file. Names of classes are taken from the
hub's metadata where there are any. Files are read row group by row group.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from numpy.typing import NDArray

from pliant.data.pictures import EncodedPicture, EncodedPictures, Pictures
from pliant.data.source import Source, make_source
from pliant.data.split_names import AUTOMATIC, NONE, SplitName, find_splits, parse_splits
from pliant.errors import DataError

LABEL_NAMES = ("label", "labels", "fine_label", "class", "target", "y")
"""What a column of labels may be called, the first found counts."""

IMAGE_NAMES = ("image", "img", "picture", "photo", "images", "bytes")
"""What a column of images is called where several could be meant."""

_BATCH = 256
"""Rows in memory at a time."""


def is_parquet(path: Path) -> bool:
    """Whether a path is a parquet file, or a folder of such files as the hub lays them out."""
    if path.is_file():
        return path.suffix == ".parquet"
    return any(any(path.glob(pattern)) for pattern in ("*.parquet", "data/*.parquet"))


def read_parquet(path: Path, splits: str = AUTOMATIC) -> Source:
    """A parquet file of training images, or a folder with files for each split.

    Args:
        path: a file, or a folder with files such as `train-00000-of-00002.parquet`.
        splits: `auto` to recognise files by their names, `none` where all are training images, or
            `train=NAME,test=NAME` with names of files.

    Raises:
        DataError: files that cannot be read, no training file, or no columns of images and labels.
    """
    files, notes = _split_files(path, splits)
    root = path.parent if path.is_file() else path
    tables: dict[SplitName, Table] = {}
    for split, found in files.items():
        tables[split] = _table(found, root, f"{path}, {split}")
    return source_of_tables(path.resolve().stem, str(path), tables, notes)


def _split_files(folder: Path, splits: str) -> tuple[dict[SplitName, list[Path]], tuple[str, ...]]:
    if folder.is_file():
        return {"train": [folder]}, ()
    files = sorted(folder.glob("*.parquet")) or sorted(folder.glob("data/*.parquet"))
    by_name = {file.name: file for file in files}
    if splits == NONE:
        return {"train": files}, ()
    if splits != AUTOMATIC:
        chosen = parse_splits(splits, list(by_name), str(folder))
        return {split: [by_name[name]] for split, name in chosen.items()}, ()
    found = find_splits([file.stem for file in files], str(folder))
    if not found:
        return {"train": files}, ("No file is named as a split, so all are training images.",)
    names = ", ".join(file.name for file in files[:5])
    if "train" not in found:
        raise DataError(
            f"training images are in files called train*.parquet; {folder} has {names}. Rename "
            "them, or state the splits: splits = train=NAME,test=NAME."
        )
    by_stem = {file.stem: file for file in files}
    split_files = {split: [by_stem[stem] for stem in stems] for split, stems in found.items()}
    taken = {file for some in split_files.values() for file in some}
    left = [file.name for file in files if file not in taken]
    notes = (f"Parquet files of no split are ignored: {', '.join(left)}.",) if left else ()
    return split_files, notes


class Table:
    """Rows with encoded images and labels, from one or more files or from the hub.

    Args:
        schema: of all rows, with the hub's metadata where there is any.
        count: number of rows.
        batches: of these columns, in order, anew for every pass.
        root: the only folder in which paths of images are followed; None for nowhere.
        where: the rows come from, for messages.
    """

    def __init__(
        self,
        schema: pa.Schema,
        count: int,
        batches: Callable[[Sequence[str]], Iterable[pa.RecordBatch | pa.Table]],
        root: Path | None,
        where: str,
    ) -> None:
        self.schema, self.count, self.where = schema, count, where
        self._batches, self._root = batches, root

    def pictures(self, column: str) -> EncodedPictures:
        """The images of a column."""

        def items() -> Iterator[EncodedPicture]:
            row = 0
            for values in self._read(column):
                for value in values:
                    yield self._picture(row, value)
                    row += 1

        return EncodedPictures(self.count, items)

    def _picture(self, row: int, value: bytes | Mapping[str, Any] | None) -> EncodedPicture:
        if isinstance(value, bytes):
            value = {"bytes": value}
        content, path = (value or {}).get("bytes"), (value or {}).get("path")
        name = f"row {row} ({path or 'no file name'}) of {self.where}"
        if content is not None:
            return EncodedPicture(name, content)
        if not path:
            return EncodedPicture(name, None, "it has neither bytes nor a path")
        if self._root is None:
            return EncodedPicture(name, None, "it has a path and no bytes")
        root = self._root.resolve()
        try:
            file = (root / path).resolve()
        except (OSError, ValueError, RuntimeError) as fault:
            return EncodedPicture(name, None, f"its path cannot be followed: {fault}")
        if not file.is_relative_to(root):
            return EncodedPicture(name, None, f"its path leaves the folder of the data, {root}")
        if file.exists() and not file.is_file():
            return EncodedPicture(name, None, "its path is no file")
        return EncodedPicture(name, file)

    def labels(self, column: str) -> NDArray:
        """The labels of a column, whole numbers or text.

        Raises:
            DataError: another type, or a row without a label.
        """
        kind = self.schema.field(column).type
        value_type = kind.value_type if pa.types.is_dictionary(kind) else kind
        text = pa.types.is_string(value_type) or pa.types.is_large_string(value_type)
        if not text and not pa.types.is_integer(value_type):
            raise DataError(
                f"labels are one whole number or one text an image; {self.where}, column "
                f"{column!r} has {kind}. Convert them."
            )
        found: list[Any] = []
        for values in self._read(column):
            if None in values:
                raise DataError(
                    f"every image has a label; {self.where}, row {len(found) + values.index(None)}"
                    ", has none. Add it or remove the row."
                )
            found += values
        return np.array(found, np.str_ if text else value_type.to_pandas_dtype())

    def _read(self, column: str) -> Iterator[list[Any]]:
        """The values of a column, a batch of rows at a time."""
        try:
            for batch in self._batches([column]):
                yield batch.column(0).to_pylist()
        except (pa.ArrowException, OSError, ValueError, KeyError) as fault:
            raise DataError(
                f"a data set's parquet files are whole and have the same columns; {self.where}: "
                f"{fault}."
            ) from fault


def _table(files: Sequence[Path], root: Path, where: str) -> Table:
    """The rows of parquet files with the same columns."""
    try:
        opened = [pq.ParquetFile(file) for file in files]
        schemas = [file.schema_arrow for file in opened]
        count = sum(file.metadata.num_rows for file in opened)
    except (pa.ArrowException, OSError, ValueError, KeyError) as fault:
        raise DataError(
            f"a data set's parquet files are whole and have the same columns; {where}: {fault}."
        ) from fault
    for file, schema in zip(files, schemas, strict=True):
        if not schema.equals(schemas[0]):
            raise DataError(
                f"a data set's parquet files are whole and have the same columns; {files[0]} has "
                f"{_columns(schemas[0])}, {file} has {_columns(schema)}."
            )

    def batches(columns: Sequence[str]) -> Iterator[pa.RecordBatch]:
        for file in files:
            with pq.ParquetFile(file) as parquet:
                yield from parquet.iter_batches(_BATCH, columns=list(columns))

    return Table(schemas[0], count, batches, root, where)


def source_of_tables(
    name: str, where: str, tables: Mapping[SplitName, Table], notes: tuple[str, ...] = ()
) -> Source:
    """Find the columns of images and labels, and the names of the classes.

    Args:
        name: of the data set.
        where: the tables come from, for messages.
        tables: of each split, with train.
        notes: sentences for the user.

    Raises:
        DataError: no such columns, several that could be meant, or labels that make no sense.
    """
    schema = tables["train"].schema
    image, label = _image_column(schema, where), _label_column(schema)
    if image is None or label is None:
        raise DataError(
            "a table has a column of images (bytes and path) and one of labels "
            f"({', '.join(LABEL_NAMES[:4])}); {where} has {_columns(schema)}. Rename the columns."
        )
    for split, table in tables.items():
        if not {image, label} <= set(table.schema.names):
            raise DataError(
                f"all splits have the same columns; {where}, {split}, lacks {image!r} or {label!r}."
            )
        for column in (image, label):
            if table.schema.names.count(column) > 1:
                raise DataError(
                    f"columns have different names; {where}, {split}, has several called "
                    f"{column!r}. Rename them."
                )
    pictures: dict[SplitName, Pictures] = {
        split: table.pictures(image) for split, table in tables.items()
    }
    labels = {split: table.labels(label) for split, table in tables.items()}
    classes = hub_features(schema).get(label)
    if classes is None or labels["train"].dtype.kind == "U":
        return make_source(name, pictures, labels, None, notes)
    return make_source(name, pictures, labels, tuple(classes), notes)


def _image_column(schema: pa.Schema, where: str) -> str | None:
    found = [field.name for field in schema if _holds_images(field.type)]
    if len(found) < 2:
        return found[0] if found else None
    for name in IMAGE_NAMES:
        if name in found:
            return name
    raise DataError(
        f"one column holds the images; in {where} it may be {' or '.join(found)}. Call it image."
    )


def _label_column(schema: pa.Schema) -> str | None:
    named = [*LABEL_NAMES, *hub_features(schema)]
    return next((name for name in named if name in schema.names), None)


def _holds_images(kind: pa.DataType) -> bool:
    """Whether a column's type is bytes, or the hub's struct of bytes and path."""
    if not pa.types.is_struct(kind):
        return pa.types.is_binary(kind) or pa.types.is_large_binary(kind)
    fields = {kind.field(place).name: kind.field(place).type for place in range(kind.num_fields)}
    if set(fields) != {"bytes", "path"}:
        return False
    content, path = fields["bytes"], fields["path"]
    is_content = pa.types.is_binary(content) or pa.types.is_large_binary(content)
    is_path = pa.types.is_string(path) or pa.types.is_large_string(path)
    return (is_content or pa.types.is_null(content)) and (is_path or pa.types.is_null(path))


def hub_features(schema: pa.Schema) -> dict[str, list[str]]:
    """Column to names of classes, of the columns that the hub's metadata declares as labels."""
    raw = (schema.metadata or {}).get(b"huggingface", b"{}")
    try:
        features = json.loads(raw)["info"]["features"]
        labels = {
            column: feature["names"]
            for column, feature in features.items()
            if isinstance(feature, dict) and feature.get("_type") == "ClassLabel"
        }
    except (ValueError, KeyError, TypeError, AttributeError):
        return {}  # columns are found by their names and types
    return {
        column: names
        for column, names in labels.items()
        if isinstance(names, list) and all(isinstance(name, str) for name in names)
    }


def _columns(schema: pa.Schema) -> str:
    return ", ".join(f"{field.name}: {field.type}" for field in schema) or "none"
