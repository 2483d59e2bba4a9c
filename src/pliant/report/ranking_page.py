"""Is a score worth its time? One offline page: rank correlation against seconds per network."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import plotly.graph_objects as go

from pliant.accuracy.ranking import (
    BASELINES,
    EQUAL_SIZE,
    MIN_NETWORKS_FOR_INTERVALS,
    Correlation,
    RankCorrelations,
)
from pliant.report import pages
from pliant.report.figure import CARD, FAINT, RANDOM, SEARCH, apply_theme, chart, hover
from pliant.report.quantities import duration, percent, significant

MIN_SECONDS = 1e-6
"""Arithmetic is drawn here, since a logarithmic axis has no 0."""


def write_ranking_page(rows: Sequence[RankCorrelations], path: Path, *, truth: str) -> None:
    """Write the page, replacing an old one at once.

    Args:
        rows: one per estimator.
        path: of the page.
        truth: what the accuracies are, for the headings.
    """
    pages.write_page(path, "ranking.html", **_values(rows, truth))


def ranking_page(rows: Sequence[RankCorrelations], *, truth: str) -> str:
    """The page as HTML."""
    return pages.render("ranking.html", **_values(rows, truth))


def _values(rows: Sequence[RankCorrelations], truth: str) -> dict[str, object]:
    number = rows[0].networks if rows else 0
    alt = "Rank correlation of every score against its seconds per network."
    return {
        "truth": truth,
        "number": number,
        "explanation": explanation(number),
        "picture": chart("ranking", ranking_chart(rows), alt),
        "caption": f"Regret of the best-ranked network in the unit of {truth}",
        "heads": _heads(rows),
        "rows": [_cells(row) for row in rows],
    }


def explanation(number: int) -> str:
    """What the figures mean.

    Args:
        number: of networks that were ranked.
    """
    text = (
        "Kendall's tau-b, signed, with its 95 % bootstrap interval over networks; failed networks "
        "rank last. Parameters and MACs are free: a score is worth its time where it ranks better "
        "than they do."
    )
    if number < MIN_NETWORKS_FOR_INTERVALS:
        text += f" Intervals are left out: they take {MIN_NETWORKS_FOR_INTERVALS} networks."
    return text


def ranking_chart(rows: Sequence[RankCorrelations]) -> go.Figure:
    """Seconds per network against Kendall's tau; a line marks the parameter count."""
    figure = go.Figure()
    for name, colour, symbol, group in (
        ("scores", SEARCH, "circle", [row for row in rows if row.name not in BASELINES]),
        ("arithmetic", RANDOM, "diamond", [row for row in rows if row.name in BASELINES]),
    ):
        known = [(row, row.kendall) for row in group if row.kendall]
        if known:
            figure.add_trace(_marks(name, colour, symbol, known))
    for row in rows:
        if row.name == "parameters" and row.kendall:
            line = {"color": RANDOM, "width": 1, "dash": "dash"}
            figure.add_hline(row.kendall.value, line=line)
    apply_theme(figure, 460)
    figure.update_xaxes(type="log", title_text="Seconds per network, one thread")
    return figure.update_yaxes(title_text="Kendall tau")


def format_correlation(value: Correlation | None) -> str:
    """A figure with its interval; "undefined" where there is none."""
    return "undefined" if value is None else str(value)


def _marks(
    name: str, colour: str, symbol: str, known: Sequence[tuple[RankCorrelations, Correlation]]
) -> go.Scatter:
    seconds = [max(MIN_SECONDS, row.seconds or 0.0) for row, _ in known]
    texts = []
    for row, tau in known:
        took, failed = f"{duration(row.seconds)} per network", f"{row.failed} failed"
        texts.append(hover(row.name, f"Kendall tau {tau}", took, failed))
    return go.Scatter(
        name=name,
        mode="markers+text",
        x=seconds,
        y=[tau.value for _, tau in known],
        error_y={
            "array": [0 if tau.high is None else tau.high - tau.value for _, tau in known],
            "arrayminus": [0 if tau.low is None else tau.value - tau.low for _, tau in known],
            "color": FAINT,
            "thickness": 1,
            "width": 3,
        },
        text=[hover(row.name) for row, _ in known],
        textposition=_label_places(seconds),
        cliponaxis=False,
        hovertext=texts,
        hoverinfo="text",
        marker={
            "color": colour,
            "symbol": symbol,
            "size": 10,
            "line": {"color": CARD, "width": 1.5},
        },
    )


def _label_places(seconds: Sequence[float]) -> list[str]:
    """Neighbours along the axis get their labels in different corners."""
    corners = ("top right", "bottom left", "bottom right", "top left")
    order = sorted(range(len(seconds)), key=lambda row: seconds[row])
    return [corners[order.index(row) % len(corners)] for row in range(len(seconds))]


def _heads(rows: Sequence[RankCorrelations]) -> tuple[str, ...]:
    return (
        "Score",
        "Kendall",
        "Spearman",
        f"At equal size ({EQUAL_SIZE:.0%})",
        "Over parameters",
        f"Of top {rows[0].top if rows else 0}",
        "Regret",
        "Time",
        "Failed",
    )


def _cells(row: RankCorrelations) -> tuple[str, ...]:
    figures = (row.kendall, row.spearman, row.equal_size, row.over_parameters)
    return (
        row.name,
        *map(format_correlation, figures),
        percent(row.top_overlap, 0),
        significant(row.regret),
        duration(row.seconds) if row.seconds else "—",
        str(row.failed),
    )
