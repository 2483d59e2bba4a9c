"""A table of scores against known accuracies: how well does every score rank the networks?"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from statistics import median

from pliant.accuracy.ranking import RankCorrelations, rank_correlations
from pliant.errors import DataError, nearest
from pliant.scoring.process_pool import ScoreRow
from pliant.scoring.score_tables import architecture_column, read_csv, read_rows
from pliant.scoring.selection import BASELINES

_ACCURACY_WORDS = ("test", "top1", "accuracy", "valid")
"""Parts of the name of a column of accuracies, the most trusted first."""


@dataclass(frozen=True, slots=True)
class TableCorrelations:
    """The rank correlations of all scores of a table."""

    rows: tuple[RankCorrelations, ...]
    """Highest Kendall tau first; parameters and MACs among them."""
    column: str
    """Of the accuracies."""
    networks: int
    without_truth: int
    """Scored networks whose accuracy is not known."""
    failures: Mapping[str, str]
    """The first reason of each score that failed somewhere."""


def table_correlations(
    scores: Path, truth: Path, *, column: str | None = None, top: int | None = None, seed: int = 0
) -> TableCorrelations:
    """Rank correlations of every score of a table, over the networks of known accuracy.

    Args:
        scores: as `pliant score` wrote it.
        truth: a CSV file with a column of architectures, written as in the table, and one of
            accuracies.
        column: of the accuracies; where None, the first whose name says test, top1, accuracy or
            valid.
        top: networks that count as the top; a tenth of them where None.
        seed: of the bootstrap.

    Raises:
        DataError: a file that cannot be read, no parameter count in the table, or fewer than 3
            networks in both files.
    """
    rows = read_rows(scores)
    known, column = read_truth(truth, column)
    scored = list(dict.fromkeys(row.architecture for row in rows))
    names = [name for name in scored if name in known]
    if not names:
        raise DataError(
            "scores and accuracies are joined by the text of the architecture; none of the "
            f"{len(scored)} of {scores} is in {truth}. {scores.name} has {scored[0]!r}, "
            f"{truth.name} has {next(iter(known))!r}. Score the architectures as written there."
        )
    by_method: dict[str, dict[str, ScoreRow]] = {}
    for row in rows:
        by_method.setdefault(row.method, {})[row.architecture] = row
    for baseline in BASELINES:
        if baseline not in by_method:
            raise DataError(
                f"every score is compared with parameters and MACs; {scores} has no {baseline}. "
                "Write it with pliant score --out."
            )
    values, seconds = {}, {}
    for method, found in by_method.items():
        values[method] = [found[name].score if name in found else None for name in names]
        times = [found[name].seconds for name in names if name in found]
        measured = [one for one in times if one is not None]
        if measured:
            # The first network of a process also pays for what is loaded at first use.
            seconds[method] = median(measured)
    correlations = rank_correlations(
        [known[name] for name in names], values, seconds=seconds, top=top, seed=seed
    )
    correlations.sort(key=lambda one: -one.kendall.value if one.kendall else math.inf)
    left_out = len(scored) - len(names)
    return TableCorrelations(tuple(correlations), column, len(names), left_out, _failures(rows))


def _failures(rows: Sequence[ScoreRow]) -> dict[str, str]:
    reasons: dict[str, str] = {}
    for row in rows:
        if row.failure:
            reasons.setdefault(row.method, row.failure)
    return reasons


def read_truth(path: Path, column: str | None = None) -> tuple[dict[str, float], str]:
    """Accuracy by the text of the architecture, and the name of its column.

    Of a network that is there twice, the first accuracy counts.

    Raises:
        DataError: the file cannot be read, has no such column or no row, or an accuracy is not a
            finite number.
    """
    table = read_csv(path)
    names = architecture_column(path, table)
    columns = [name for name in table.column_names if name != names]
    column = _accuracy_column(path, columns) if column is None else column
    if column not in columns:
        raise DataError(f"{path} has no column {column!r}. {nearest(column, columns)}")
    if not table.num_rows:
        raise DataError(f"a file of accuracies has rows, {path} has none.")
    known: dict[str, float] = {}
    pairs = zip(table[names].to_pylist(), table[column].to_pylist(), strict=True)
    for number, (name, text) in enumerate(pairs, 2):
        try:
            value = float(text)
        except ValueError:
            value = math.nan
        if not math.isfinite(value):
            raise DataError(
                f"an accuracy is a finite number; {path}, row {number}, column {column} has "
                f"{text!r}. Fix or remove it."
            )
        known.setdefault(name.strip(), value)
    return known, column


def _accuracy_column(path: Path, columns: Sequence[str]) -> str:
    for word in _ACCURACY_WORDS:
        for name in columns:
            if word in name.lower():
                return name
    raise DataError(
        f"no column of {path} is named as accuracies are; it has {', '.join(columns)}. "
        "Name one with --column."
    )
