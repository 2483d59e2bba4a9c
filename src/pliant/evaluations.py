"""All evaluations of a run as one table, to compare searchers or to draw pictures of one's own.

import pyarrow.compute as pc

table = evaluation_table(record)
random = table.filter(pc.field("searcher") == "random")
random["top1"], random["latency_ms"], random["seconds"]
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any

import pyarrow as pa

from pliant.metrics import ARITHMETIC_METRICS, COST_METRICS, Accuracy, Cost, Score
from pliant.record import Evaluation, Record

_COLUMNS = {
    "id": pa.int64(),
    "stage": pa.string(),
    "searcher": pa.string(),
    "architecture": pa.string(),
    "context": pa.string(),
    "split": pa.string(),
    "top1": pa.float64(),
    "images": pa.int64(),
    "score": pa.float64(),
    "failure": pa.string(),
    **{name: pa.int64() if name in ARITHMETIC_METRICS else pa.float64() for name in COST_METRICS},
    "created": pa.string(),
}


def evaluation_table(record: Record, stage: str | None = None) -> pa.Table:
    """The evaluations of a run: one row per evaluation and searcher that asked for it.

    The rows of one searcher are in the order in which it asked; what no searcher asked for, such as
    the test of the delivered network, comes last with null as its searcher. Every cost metric and
    every measure is a column, null where it is not known. A measure that consists of several, such
    as the spread, has a column for each, as `spread.latency_ms`; one that is named like a column
    here becomes `measures.NAME`.

    Args:
        record: of the run.
        stage: only the evaluations of this kind; all of them if None.
    """
    rows = {row.id: row for row in record.evaluations(stage)}
    pairs: list[tuple[str | None, Evaluation]] = [
        (searcher, rows[number])
        for searcher, numbers in record.asked().items()
        for number in numbers
        if number in rows
    ]
    asked = {row.id for _, row in pairs}
    pairs += [(None, row) for row in rows.values() if row.id not in asked]
    measures = [_flat(row.measures) for _, row in pairs]
    columns: dict[str, list[Any]] = {name: [] for name in _COLUMNS}
    for searcher, row in pairs:
        for name, value in _fields(row, searcher).items():
            columns[name].append(value)
    arrays = {name: pa.array(held, _COLUMNS[name]) for name, held in columns.items()}
    for name in dict.fromkeys(name for measured in measures for name in measured):
        key = f"measures.{name}" if name in _COLUMNS else name
        arrays[key] = _array([measured.get(name) for measured in measures])
    return pa.table(arrays)


def _fields(row: Evaluation, searcher: str | None) -> dict[str, Any]:
    quality, cost, failure = row.quality, row.cost, row.failure
    return {
        "id": row.id,
        "stage": row.stage,
        "searcher": searcher,
        "architecture": row.architecture,
        "context": row.context,
        "split": row.split,
        "top1": quality.top1 if isinstance(quality, Accuracy) else None,
        "images": quality.images if isinstance(quality, Accuracy) else None,
        "score": quality.value if isinstance(quality, Score) else None,
        "failure": failure.reason if failure else None,
        **{name: getattr(cost, name) if isinstance(cost, Cost) else None for name in COST_METRICS},
        "created": row.created,
    }


def _flat(measures: Mapping[str, Any], prefix: str = "") -> dict[str, Any]:
    """Measures with those inside others under dotted names."""
    found: dict[str, Any] = {}
    for name, value in measures.items():
        if isinstance(value, Mapping):
            found |= _flat(value, f"{prefix}{name}.")
        else:
            found[prefix + name] = value
    return found


def _array(values: list[Any]) -> pa.Array:
    """A column of whatever was measured; JSON text where the rows have different types."""
    try:
        return pa.array(values)
    except (pa.ArrowInvalid, pa.ArrowTypeError):
        return pa.array([None if value is None else json.dumps(value) for value in values])
