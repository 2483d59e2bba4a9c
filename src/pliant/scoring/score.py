"""Score networks without training: which methods, the rows, and the file of rows that `pliant fidelity` reads.

With a record beside the table nothing is scored twice: a killed command goes on, and further networks or methods are added to it.
"""

from __future__ import annotations

import csv
import hashlib
import json
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, fields
from pathlib import Path
from typing import Any, Protocol

import pyarrow as pa
import pyarrow.parquet as pq

from pliant.accuracy.zero_shot import COMPONENTS, aggregate_ranks
from pliant.errors import DataError, RecipeError, nearest
from pliant.files import replace_atomically
from pliant.metrics import Score
from pliant.progress import Progress, silent
from pliant.record import Evaluation, Record
from pliant.scoring.pool import Row, ScorePool

JOINED = "az-nas"
"""The score that joins the ranks of others over all networks of a table."""
ALWAYS = ("parameters", "macs")
"""Stand beside every score."""
COLUMNS = ("arch", "architecture")
"""What the column of architectures is called."""
_SCHEMA = pa.schema(
    [(name, pa.string()) for name in ("architecture", "method")]
    + [(name, pa.float64()) for name in ("score", "low", "high", "seconds")]
    + [(name, pa.string()) for name in ("notes", "failure")]
)
_NUMBERS = frozenset({"score", "low", "high", "seconds"})


class Needy(Protocol):
    """A score as its package lists it."""

    @property
    def needs(self) -> str:
        """`shape`, `images` or `labels`."""
        ...


def chosen_methods(
    text: str, known: Mapping[str, Needy], *, with_images: bool = True, several: bool = True
) -> tuple[str, ...]:
    """The methods of `all` or of a list with commas; parameters and MACs always with them.

    Args:
        text: without images, `all` are those that look at none.
        with_images: whether there are labelled images to look at.
        several: whether there are networks to rank among each other.

    Raises:
        RecipeError: an unknown one, or one that needs images or other networks where there are none.
    """
    names = [*known, *([JOINED] if set(COMPONENTS) <= set(known) else [])]
    blind = [
        name for name in names if with_images or name == JOINED or known[name].needs == "shape"
    ]
    wanted = (
        [name for name in blind if several or name != JOINED]
        if text == "all"
        else [word.strip() for word in text.split(",") if word.strip()]
    )
    if unknown := [name for name in wanted if name not in names]:
        raise RecipeError(f"no score is called {unknown[0]!r}. {nearest(unknown[0], names)}")
    if not wanted:
        raise RecipeError(
            f"scores are named with commas between them, received {text!r}. Known: all, {', '.join(names)}."
        )
    if seeing := [name for name in wanted if name not in blind]:
        raise RecipeError(
            f"{seeing[0]} looks at {known[seeing[0]].needs}, so it needs training images. Give them with --data."
        )
    if JOINED in wanted and not several:
        raise RecipeError(
            f"{JOINED} joins the ranks of networks among each other, received one. Name {', '.join(COMPONENTS)} instead."
        )
    return tuple(dict.fromkeys([*wanted, *(name for name in ALWAYS if name in known)]))


def score_networks(
    names: Sequence[str],
    methods: Sequence[str],
    pool: ScorePool,
    *,
    record: Record | None = None,
    context: str = "",
    progress: Progress = silent,
) -> list[Row]:
    """One row a network and method, in the order of the networks; for `az-nas` the views that it joins as well.

    Args:
        names: networks; one that stands twice is scored once.
        record: where rows are kept and looked up.
        context: what else the scores depend on, such as the digest of the images.

    Raises:
        MeasurementError: a process was ended from outside.
    """
    known = _known(record, context) if record else {}
    distinct = list(dict.fromkeys(names))
    joins = JOINED in methods
    methods = list(
        dict.fromkeys(
            [*(method for method in methods if method != JOINED), *(COMPONENTS if joins else ())]
        )
    )
    jobs = [
        (name, tuple(method for method in methods if (name, method) not in known))
        for name in distinct
    ]
    jobs = [job for job in jobs if job[1]]
    done = len(distinct) - len(jobs)
    progress("score", done, len(distinct), "networks")
    for rows in pool.score(jobs):
        known |= {(row.architecture, row.method): row for row in rows}
        if record:
            for row in rows:
                _remember(record, context, row)
        done += 1
        progress("score", done, len(distinct), "networks")
    if joins:
        known |= _joined(distinct, known)
    return [
        known[name, method]
        for name in distinct
        for method in [*methods, *([JOINED] if joins else [])]
    ]


def _joined(
    names: Sequence[str], known: Mapping[tuple[str, str], Row]
) -> dict[tuple[str, str], Row]:
    """The rows of `az-nas`: what it says of a network depends on the others, so it is never looked up."""
    values = aggregate_ranks([{view: known[name, view].score for view in COMPONENTS} for name in names])
    seconds = [sum(known[name, view].seconds or 0.0 for view in COMPONENTS) for name in names]
    notes = f"among {len(names)} networks"
    return {
        (name, JOINED): Row(name, JOINED, value, seconds=spent, notes=notes)
        for name, value, spent in zip(names, values, seconds, strict=True)
    }


def context_digest(**settings: object) -> str:
    """One short text for all that scores depend on beside network and method."""
    return hashlib.sha256(json.dumps(settings, sort_keys=True, default=str).encode()).hexdigest()[
        :16
    ]


def open_score_record(table: Path) -> Record:
    """The record beside a table of scores; it holds the rows of every setting, each under its context."""
    return Record.open(table.with_name(f"{table.name}.record"), recipe_digest="scores")


def _remember(record: Record, context: str, row: Row) -> None:
    measures = {"seconds": row.seconds, "low": row.low, "high": row.high, "notes": row.notes}
    record.add_evaluation(
        row.method,
        row.architecture,
        context=context,
        split="train",
        quality=row.quality,
        measures=measures,
    )


def _known(record: Record, context: str) -> dict[tuple[str, str], Row]:
    rows = [row for row in record.evaluations() if row.context == context]
    return {(row.architecture, row.stage): _row(row) for row in rows}


def _row(row: Evaluation) -> Row:
    score = row.quality.value if isinstance(row.quality, Score) else None
    failure = row.failure.reason if row.failure else None
    return Row(row.architecture, row.stage, score, failure=failure, **row.measures)


# Files.


def require_table_name(path: Path) -> None:
    """Refuse a file that would be neither parquet nor CSV, before anything is scored.

    Raises:
        RecipeError: another ending.
    """
    if path.suffix not in (".parquet", ".csv"):
        raise RecipeError(
            f"a table of scores is written as .parquet or .csv, received {path}. Name one of these."
        )


def write_rows(rows: Iterable[Row], path: Path) -> None:
    """Write a table of scores, replacing an old one at once; its columns are the fields of `Row`.

    Raises:
        RecipeError: the file is neither .parquet nor .csv.
    """
    require_table_name(path)
    table = [asdict(row) for row in rows]

    def write(partial: Path) -> None:
        if path.suffix == ".parquet":
            pq.write_table(pa.Table.from_pylist(table, schema=_SCHEMA), partial)
            return
        with partial.open("w", newline="", encoding="utf-8") as file:
            writer = csv.DictWriter(file, [field.name for field in fields(Row)])
            writer.writeheader()
            writer.writerows(table)

    replace_atomically(path, write)


def read_rows(path: Path) -> list[Row]:
    """Read a table of scores back.

    Raises:
        DataError: no such file, or not a table that `pliant score` wrote.
    """
    names = [field.name for field in fields(Row)]
    if path.suffix == ".parquet":
        try:
            columns = pq.read_table(path).to_pylist()
        except (OSError, pa.ArrowInvalid) as error:
            raise DataError(
                f"{path} cannot be read as parquet: {error}. Write it with pliant score --out."
            ) from error
    else:
        columns = read_csv(path)
    if columns and (missing := {"architecture", "method", "score"} - set(columns[0])):
        has = ", ".join(columns[0])
        raise DataError(
            f"a table of scores has a column {min(missing)!r}; {path} has {has}. Write it with pliant score --out."
        )
    if not columns:
        raise DataError(
            f"a table of scores has rows, {path} has none. Write it with pliant score --out."
        )
    values: list[dict[str, Any]] = [
        {name: _value(name, column.get(name), path) for name in names} for column in columns
    ]
    return [Row(**row) for row in values]


def _value(name: str, value: object, path: Path) -> object:
    if name not in _NUMBERS:
        return value or (None if name == "failure" else "")
    try:
        return None if value in (None, "") else float(value)  # type: ignore[arg-type]
    except ValueError:
        raise DataError(
            f"{path}: {name} is a number or empty, received {value!r}. Write the table with pliant score --out."
        ) from None


def read_csv(path: Path) -> list[dict[str, str]]:
    """The rows of a CSV file with a header.

    Raises:
        DataError: it cannot be read, or its rows are of different lengths.
    """
    try:
        with path.open(newline="", encoding="utf-8-sig") as file:
            rows = list(csv.DictReader(file, restkey="", restval=None))
    except (OSError, UnicodeDecodeError, csv.Error) as error:
        raise DataError(f"{path} cannot be read as CSV: {error}.") from error
    for number, row in enumerate(rows, 2):
        if "" in row or None in row.values():
            raise DataError(
                f"every row of a CSV file has the columns of its header; row {number} of {path} has not. Mend that row."
            )
    return rows


def architecture_column(path: Path, rows: Sequence[Mapping[str, str]]) -> str:
    """Which column holds the architectures.

    Raises:
        DataError: none, or no rows.
    """
    names = list(rows[0]) if rows else []
    found = next((name for name in names if name.strip().lower() in COLUMNS), None)
    if found is None:
        has = ", ".join(names) or "no rows"
        raise DataError(
            f"a list of architectures is a CSV file with a column {' or '.join(COLUMNS)}; {path} has {has}. Rename the column."
        )
    return found


def read_architectures(path: Path) -> list[str]:
    """The texts of a list of architectures, as they stand there.

    Raises:
        DataError: the file cannot be read, has no such column, or no row.
    """
    rows = read_csv(path)
    column = architecture_column(path, rows)
    return [row[column].strip() for row in rows]
