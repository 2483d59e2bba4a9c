"""A table of scores against known accuracies: how well does every score rank the networks?"""

from __future__ import annotations

import math
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from statistics import fmean, median

from pliant.accuracy.ranking import RankCorrelations, rank_correlations
from pliant.errors import DataError, nearest
from pliant.scoring.process_pool import ScoreRow
from pliant.scoring.score_tables import architecture_column, read_csv, read_rows
from pliant.scoring.selection import BASELINES

_ACCURACY_WORDS = (
    ("test",),
    ("top1", "acc", "accuracy"),
    ("valid", "validation", "val"),
)
"""Words in the name of a column of accuracies, the most trusted first."""

_OTHER_WORD = re.compile(
    r"loss(es)?|nll|entropy|perplexity|err(ors?)?"
    r"|times?|s|ms|us|sec(ond)?s?|minutes|hours|latency"
    r"|energy|power|memory|size|bytes|kb|mb|param(eter)?s|macs|[mg]?flops"
    r"|(epoch|step|seed)s?|std|deviation|var(iance)?|rank|index|id|count|images|samples"
)
"""Words that say that a column is something else, as in `test_loss`. `12_epochs_pct` is none."""


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
    averaged: int
    """Networks with several rows of accuracies, whose mean counts."""
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
        column: of the accuracies; where None, the one whose name says test, else top1 or accuracy,
            else valid.
        top: networks that count as the top; a tenth of them where None.
        seed: of the bootstrap.

    Raises:
        DataError: a file that cannot be read, no parameter count in the table, or fewer than 3
            networks in both files.
    """
    rows = read_rows(scores)
    found_truth = read_truth(truth, column)
    known = found_truth.accuracies
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
    return TableCorrelations(
        rows=tuple(correlations),
        column=found_truth.column,
        networks=len(names),
        without_truth=left_out,
        averaged=sum(name in found_truth.averaged for name in names),
        failures=_failures(rows),
    )


def _failures(rows: Sequence[ScoreRow]) -> dict[str, str]:
    reasons: dict[str, str] = {}
    for row in rows:
        if row.failure:
            reasons.setdefault(row.method, row.failure)
    return reasons


@dataclass(frozen=True, slots=True)
class GroundTruth:
    """Known accuracies of networks."""

    accuracies: Mapping[str, float]
    """By the text of the architecture; the mean where the file has several."""
    column: str
    """Of the accuracies."""
    averaged: frozenset[str]
    """Architectures with several rows, such as those of several training seeds."""


def read_truth(path: Path, column: str | None = None) -> GroundTruth:
    """Read known accuracies.

    Several rows of a network are averaged, as benchmarks list one per training seed.

    Args:
        path: a CSV file.
        column: of the accuracies; found by its name where None.

    Raises:
        DataError: the file cannot be read, has no such column or no row, several columns could be
            meant, or an accuracy is not a finite number.
    """
    table = read_csv(path)
    names = architecture_column(path, table)
    columns = [name for name in table.column_names if name != names]
    column = _accuracy_column(path, columns) if column is None else column
    if column not in columns:
        raise DataError(f"{path} has no column {column!r}. {nearest(column, columns)}")
    if columns.count(column) > 1:
        raise DataError(
            f"columns have different names; {path} has {columns.count(column)} called {column!r}. "
            "Rename all but one."
        )
    if not table.num_rows:
        raise DataError(f"a file of accuracies has rows, {path} has none.")
    known: dict[str, list[float]] = {}
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
        known.setdefault(name.strip(), []).append(value)
    return GroundTruth(
        accuracies={name: fmean(values) for name, values in known.items()},
        column=column,
        averaged=frozenset(name for name, values in known.items() if len(values) > 1),
    )


def _accuracy_column(path: Path, columns: Sequence[str]) -> str:
    """The column whose name says accuracy, by the most trusted word that any name has."""
    candidates = [name for name in columns if not _is_other(_words(name))]
    for words in _ACCURACY_WORDS:
        matching = [name for name in candidates if not _words(name).isdisjoint(words)]
        if len(matching) > 1:
            raise DataError(
                f"one column holds the accuracies; in {path} it may be "
                f"{' or '.join(matching)}. Name one with --column."
            )
        if matching:
            return matching[0]
    raise DataError(
        f"no column of {path} is named as accuracies are; it has {', '.join(columns)}. "
        "Name one with --column."
    )


def _words(name: str) -> set[str]:
    """The words of a column's name, in lower case: `testLoss` is equal to `test_loss`."""
    spaced = re.sub(r"(?<=[a-z0-9])(?=[A-Z])", " ", name).lower().replace("top-1", "top1")
    spaced = re.sub(r"\d+[ _-]*(epochs?|steps?)", " ", spaced)  # how long it was trained
    return set(re.findall(r"[a-z]+\d*", spaced))


def _is_other(words: set[str]) -> bool:
    return any(_OTHER_WORD.fullmatch(word) for word in words)
