"""Is a score worth its time? One offline page: rank correlation against seconds a network, one point an estimator."""

from __future__ import annotations

from collections.abc import Sequence
from importlib.resources import files
from pathlib import Path
from string import Template

import plotly.graph_objects as go
from plotly.offline import get_plotlyjs

from pliant.accuracy.ranking import (
    BASELINES,
    EQUAL_SIZE,
    MIN_NETWORKS_FOR_INTERVALS,
    Correlation,
    RankCorrelations,
)
from pliant.files import write_atomically
from pliant.report.figure import CARD, FAINT, RANDOM, SEARCH, chart, hover, look
from pliant.report.markup import joined, tag, text
from pliant.report.pieces import note, section, table
from pliant.report.quantities import duration, percent, significant

LEAST_SECONDS = 1e-6
"""Arithmetic is drawn here, since a logarithmic axis has no 0."""


def write_fidelity_page(rows: Sequence[RankCorrelations], path: Path, *, truth: str) -> None:
    """Write the page, replacing an old one at once.

    Args:
        truth: what the accuracies are, for the headings.
    """
    write_atomically(path, fidelity_page(rows, truth=truth))


def fidelity_page(rows: Sequence[RankCorrelations], *, truth: str) -> str:
    """The page as HTML."""
    assets = files("pliant.report")
    networks = rows[0].networks if rows else 0
    picture = chart(
        "fidelity",
        fidelity_chart(rows),
        "Rank correlation of every score against its seconds a network.",
    )
    return Template(assets.joinpath("page.html").read_text(encoding="utf-8")).substitute(
        title="Rank correlations: Pliant report",
        style=assets.joinpath("page.css").read_text(encoding="utf-8"),
        plotly=get_plotlyjs(),
        script=assets.joinpath("page.js").read_text(encoding="utf-8"),
        head=joined(
            tag("p", "Pliant report", class_="kicker"),
            tag("h1", f"Scores beside {truth}, {networks:,} networks"),
        ),
        body=joined(
            section("cost", "What a ranking costs", note(explained(networks)), picture),
            section("figures", "All figures", fidelity_table(rows, truth)),
        ),
        foot=text("Written by Pliant."),
    )


def explained(networks: int) -> str:
    """What the figures mean, in words."""
    few = (
        f" There are too few networks for intervals, which takes {MIN_NETWORKS_FOR_INTERVALS}."
        if networks < MIN_NETWORKS_FOR_INTERVALS
        else ""
    )
    return (
        "Kendall's tau-b, signed, with its 95 % bootstrap interval over networks; failed networks rank last. Parameters and MACs are "
        f"free: a score is worth its time where it ranks better than they do.{few}"
    )


def fidelity_chart(rows: Sequence[RankCorrelations]) -> go.Figure:
    """Seconds a network against Kendall's tau; a line marks the parameter count."""
    figure = go.Figure()
    for name, colour, symbol, group in (
        ("scores", SEARCH, "circle", [row for row in rows if row.name not in BASELINES]),
        ("arithmetic", RANDOM, "diamond", [row for row in rows if row.name in BASELINES]),
    ):
        known = [(row, row.kendall) for row in group if row.kendall]
        if known:
            figure.add_trace(_points(name, colour, symbol, known))
    for row in rows:
        if row.name == "parameters" and row.kendall:
            figure.add_hline(row.kendall.value, line={"color": RANDOM, "width": 1, "dash": "dash"})
    look(figure, 460)
    figure.update_xaxes(type="log", title_text="Seconds a network, one thread")
    return figure.update_yaxes(title_text="Kendall tau")


def _points(
    name: str, colour: str, symbol: str, known: Sequence[tuple[RankCorrelations, Correlation]]
) -> go.Scatter:
    return go.Scatter(
        name=name,
        mode="markers+text",
        x=[max(LEAST_SECONDS, row.seconds or 0.0) for row, _ in known],
        y=[tau.value for _, tau in known],
        error_y={
            "array": [0 if tau.high is None else tau.high - tau.value for _, tau in known],
            "arrayminus": [0 if tau.low is None else tau.value - tau.low for _, tau in known],
            "color": FAINT,
            "thickness": 1,
            "width": 3,
        },
        text=[row.name for row, _ in known],
        textposition=_label_places([max(LEAST_SECONDS, row.seconds or 0.0) for row, _ in known]),
        cliponaxis=False,
        hovertext=[
            hover(
                row.name,
                f"Kendall tau {tau}",
                f"{duration(row.seconds)} a network",
                f"{row.failed} failed",
            )
            for row, tau in known
        ],
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


def fidelity_table(rows: Sequence[RankCorrelations], truth: str) -> str:
    """All figures, a row an estimator."""
    heads = (
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
    cells = [
        (
            row.name,
            *(
                spelled_estimate(value)
                for value in (row.kendall, row.spearman, row.equal_size, row.over_parameters)
            ),
            percent(row.top_overlap, 0),
            significant(row.regret),
            duration(row.seconds) if row.seconds else "-",
            str(row.failed),
        )
        for row in rows
    ]
    return table(
        f"Regret of the pick in the unit of {truth}; Kendall tau but for Spearman",
        heads,
        cells,
        numbers=range(1, len(heads)),
    )


def spelled_estimate(value: Correlation | None) -> str:
    """A figure with its interval; where it is not defined, words."""
    return "undefined" if value is None else str(value)
