"""Tables of scores as parquet or CSV files, and lists of architectures; all through pyarrow."""

from __future__ import annotations

import io
from collections.abc import Iterable
from dataclasses import asdict, fields
from pathlib import Path

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.csv
import pyarrow.parquet as pq

from pliant.errors import DataError, RecipeError
from pliant.files import replace_atomically
from pliant.scoring.process_pool import ScoreRow

ARCHITECTURE_COLUMNS = ("arch", "architecture")
"""What the column of architectures may be called."""
MOST_LETTERS = 10_000
"""Of one architecture; those of large networks have hundreds."""
_TEXTS = ("architecture", "method", "notes", "failure")
_SCHEMA = pa.schema(
    [
        (field.name, pa.string() if field.name in _TEXTS else pa.float64())
        for field in fields(ScoreRow)
    ]
)


def require_table_name(path: Path) -> None:
    """Refuse a file that is neither parquet nor CSV, before anything is scored.

    Raises:
        RecipeError: another ending.
    """
    if path.suffix not in (".parquet", ".csv"):
        raise RecipeError(
            f"a table of scores is written as .parquet or .csv, received {path}. Name one of these."
        )


def write_rows(rows: Iterable[ScoreRow], path: Path) -> None:
    """Write a table of scores, replacing an old one at once; its columns are those of `ScoreRow`.

    Raises:
        RecipeError: the file is neither .parquet nor .csv.
    """
    require_table_name(path)
    table = pa.Table.from_pylist([asdict(row) for row in rows], schema=_SCHEMA)
    write = pq.write_table if path.suffix == ".parquet" else pyarrow.csv.write_csv
    replace_atomically(path, lambda partial: write(table, partial))


def read_rows(path: Path) -> list[ScoreRow]:
    """Read a table of scores.

    Raises:
        DataError: no such file, or not a table that `pliant score` wrote.
    """
    table = _read_parquet(path) if path.suffix == ".parquet" else read_csv(path)
    missing = {"architecture", "method", "score"} - set(table.column_names)
    if missing:
        raise DataError(
            f"a table of scores has a column {min(missing)!r}; {path} has "
            f"{', '.join(table.column_names)}. Write it with pliant score --out."
        )
    if not table.num_rows:
        raise DataError(
            f"a table of scores has rows, {path} has none. Write it with pliant score --out."
        )
    rows = _typed(table, path).to_pylist()
    return [ScoreRow(**row | {"notes": row["notes"] or ""}) for row in rows]


def _typed(table: pa.Table, path: Path) -> pa.Table:
    """The columns of `ScoreRow` in their types; an empty text is none."""
    columns = []
    for field in _SCHEMA:
        if field.name not in table.column_names:
            columns.append(pa.nulls(table.num_rows, field.type))
            continue
        column = table[field.name]
        if pa.types.is_string(column.type):
            column = pc.if_else(pc.equal(column, ""), pa.scalar(None, pa.string()), column)
        try:
            columns.append(column.cast(field.type))
        except pa.ArrowInvalid as error:
            raise DataError(
                f"{path}: column {field.name} holds numbers or nothing; {error}. "
                "Write the table with pliant score --out."
            ) from None
    return pa.table(columns, schema=_SCHEMA)


def _read_parquet(path: Path) -> pa.Table:
    try:
        return pq.read_table(path)
    except (OSError, pa.ArrowInvalid) as error:
        raise DataError(
            f"{path} cannot be read as parquet: {error}. Write it with pliant score --out."
        ) from error


def read_csv(path: Path) -> pa.Table:
    """A CSV file with a header, all columns as text.

    Raises:
        DataError: it cannot be read, its rows are of different lengths, or two columns have one
            name.
    """
    try:
        with path.open("rb") as file:
            names = pyarrow.csv.read_csv(io.BytesIO(file.readline())).column_names
        text = pyarrow.csv.ConvertOptions(column_types=dict.fromkeys(names, pa.string()))
        # On one thread the message of a bad row has its number.
        one_thread = pyarrow.csv.ReadOptions(use_threads=False)
        table = pyarrow.csv.read_csv(path, read_options=one_thread, convert_options=text)
    except (OSError, pa.ArrowException) as error:
        raise DataError(f"{path} cannot be read as CSV: {error}.") from error
    for name in table.column_names:
        if table.column_names.count(name) > 1:
            raise DataError(
                f"each column of a table has a name of its own; {path} has {name!r} more than "
                "once. Rename one of them."
            )
    return table


def architecture_column(path: Path, table: pa.Table) -> str:
    """The name of the column of architectures.

    Raises:
        DataError: there is none.
    """
    for name in table.column_names:
        if name.strip().lower() in ARCHITECTURE_COLUMNS:
            return name
    raise DataError(
        f"a list of architectures is a CSV file with a column {' or '.join(ARCHITECTURE_COLUMNS)}; "
        f"{path} has {', '.join(table.column_names) or 'none'}. Rename the column."
    )


def read_architectures(path: Path) -> list[str]:
    """The texts of a list of architectures.

    Raises:
        DataError: the file cannot be read, has no such column, or no row.
    """
    table = read_csv(path)
    column = table[architecture_column(path, table)]
    if not table.num_rows:
        raise DataError(f"a list of architectures has rows, {path} has none.")
    texts = [text.strip() for text in column.to_pylist()]
    longest = max(texts, key=len)
    if len(longest) > MOST_LETTERS:
        raise DataError(
            f"the text of an architecture has up to {MOST_LETTERS:,} letters; {path} has one of "
            f"{len(longest):,}, {longest[:40]!r}. Remove it."
        )
    return texts
