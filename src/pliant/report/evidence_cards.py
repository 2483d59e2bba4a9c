"""The evidence of a run in words: what a comparison of searches means, how ranks agree."""

from __future__ import annotations

from collections.abc import Sequence

from pliant.accuracy.ranking import RankCorrelations
from pliant.report.quantities import duration, percent, points, significant, words
from pliant.report.summary import PredictorFacts, SearchFacts, SplitOpening

Row = tuple[str, str]
"""Name and value."""


def search_rows(search: SearchFacts) -> list[Row]:
    """The search compared with random search."""
    return [
        ("Hypervolume, search", significant(search.hypervolume)),
        ("Hypervolume, random search", significant(search.random_hypervolume)),
        ("Networks evaluated, search", significant(search.evaluations)),
        ("Networks evaluated, random search", significant(search.random_evaluations)),
        ("Time", duration(search.seconds)),
    ]


def comparison(search: SearchFacts) -> str:
    """Whether the search found a better front than random search."""
    if search.random_hypervolume <= 0:
        return "Random search dominates no area, so the two cannot be compared by a ratio."
    gain = search.hypervolume / search.random_hypervolume - 1
    if abs(gain) < 0.0005:
        return "Both cover the same area: random search was as good."
    side = "more" if gain > 0 else "less"
    return f"The search covers {percent(abs(gain), 1)} {side} area than random search."


def predictor_rows(predictor: PredictorFacts) -> list[Row]:
    """How well the accuracy predictor predicts."""
    return [
        ("Rank correlation, Kendall τ", significant(predictor.kendall_tau)),
        ("Rank correlation, Spearman \N{GREEK SMALL LETTER RHO}", significant(predictor.spearman)),
        ("Mean absolute error", points(predictor.mean_absolute_error)),
        ("Networks it was fitted on", significant(predictor.rows)),
    ]


def ranking_rows(ranking: Sequence[RankCorrelations]) -> list[Row]:
    """Kendall's tau of the predictor and of the baselines, with intervals."""
    rows = []
    for one in ranking:
        tau = "undefined" if one.kendall is None else str(one.kendall)
        rows.append((words(one.name).title, tau))
    return rows


def openings_text(openings: Sequence[SplitOpening]) -> str:
    """How often the test images were used."""
    times = {0: "not opened yet", 1: "opened once"}
    return f"The test images were {times.get(len(openings), f'opened {len(openings)} times')}."
