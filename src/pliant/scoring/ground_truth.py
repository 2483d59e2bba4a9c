"""A table of scores beside the accuracies that are known: which networks both hold, and how well every score ranks them."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from statistics import median

from pliant.accuracy.ranking import RankCorrelations, rank_correlations
from pliant.errors import DataError, nearest
from pliant.scoring.pool import Row
from pliant.scoring.score import ALWAYS, architecture_column, read_csv, read_rows

_TRUTH = ("test", "top1", "accuracy", "valid")
"""Words of a column of accuracies; the first one that a column holds decides."""


@dataclass(frozen=True, slots=True)
class Judged:
    """The fidelity of all scores of a table."""

    rows: tuple[RankCorrelations, ...]
    """Highest Kendall tau first; parameters and MACs among them."""
    column: str
    """The truth's."""
    networks: int
    without_truth: int
    """Scored networks whose accuracy is not known."""
    failures: Mapping[str, str]
    """The first reason of each score that failed somewhere."""


def judge_table(
    scores: Path, truth: Path, *, column: str | None = None, top: int | None = None, seed: int = 0
) -> Judged:
    """Judge every score of a table on the networks whose accuracy is known.

    Args:
        scores: as `pliant score` wrote it.
        truth: a CSV file with a column of architectures, in the words in which they were scored, and one of accuracies.
        column: of the accuracies; where None, the first whose name says test, top1, accuracy or validation.

    Raises:
        DataError: a file that cannot be read, no parameter count in the table, or fewer than 3 networks in both files.
    """
    rows = read_rows(scores)
    known, column = read_truth(truth, column)
    scored = list(dict.fromkeys(row.architecture for row in rows))
    names = [name for name in scored if name in known]
    if not names:
        raise DataError(
            f"scores are joined with the truth by the text of the architecture; none of the {len(scored)} of {scores} stands in {truth}. "
            f"{scores.name} has {scored[0]!r}, {truth.name} has {next(iter(known))!r}. Score the architectures as the truth writes them."
        )
    methods = list(dict.fromkeys(row.method for row in rows))
    if missing := [name for name in ALWAYS if name not in methods]:
        raise DataError(
            f"every score stands beside parameters and MACs; {scores} has no {missing[0]}. Write it with pliant score --out."
        )
    found = {(row.architecture, row.method): row for row in rows}
    by_method = {method: [found.get((name, method)) for name in names] for method in methods}
    judged = rank_correlations(
        [known[name] for name in names],
        {
            method: [row.score if row else None for row in column_rows]
            for method, column_rows in by_method.items()
        },
        seconds={
            method: seconds
            for method, column_rows in by_method.items()
            if (seconds := _typical_seconds(column_rows)) is not None
        },
        top=top,
        seed=seed,
    )
    judged.sort(key=lambda one: -one.kendall.value if one.kendall else math.inf)
    return Judged(tuple(judged), column, len(names), len(scored) - len(names), _failures(rows))


def _typical_seconds(rows: Sequence[Row | None]) -> float | None:
    told = [row.seconds for row in rows if row is not None and row.seconds is not None]
    return (
        median(told) if told else None
    )  # the first network of a process also pays for what is loaded at first use


def _failures(rows: Sequence[Row]) -> dict[str, str]:
    reasons: dict[str, str] = {}
    for row in rows:
        if row.failure:
            reasons.setdefault(row.method, row.failure)
    return reasons


def read_truth(path: Path, column: str | None = None) -> tuple[dict[str, float], str]:
    """Accuracy by the text of the architecture, and the name of its column; of a network that stands twice, the first.

    Raises:
        DataError: the file cannot be read, has no such column, or an accuracy that is no finite number.
    """
    rows = read_csv(path)
    names = architecture_column(path, rows)
    columns = [name for name in rows[0] if name != names]
    if column is None:
        column = next((name for word in _TRUTH for name in columns if word in name.lower()), None)
        if column is None:
            raise DataError(
                f"no column of {path} says that it holds accuracies; it has {', '.join(columns)}. Name one with --column."
            )
    elif column not in columns:
        raise DataError(f"{path} has no column {column!r}. {nearest(column, columns)}")
    known: dict[str, float] = {}
    for number, row in enumerate(rows, 2):
        try:
            value = float(row[column])
        except ValueError:
            value = math.nan
        if not math.isfinite(value):
            raise DataError(
                f"an accuracy is a finite number; {path}, row {number}, column {column} has {row[column]!r}. Mend or remove it."
            )
        known.setdefault(row[names].strip(), value)
    return known, column
