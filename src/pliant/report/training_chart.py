"""Chart of the training: losses of the sub-networks and the learning rate, epoch by epoch."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from itertools import groupby
from statistics import fmean
from typing import Any

import plotly.graph_objects as go
from plotly.subplots import make_subplots

from pliant.report.figure import FAINT, LINE, SERIES, hover, look
from pliant.report.quantities import is_number, significant

MOST_POINTS = 150
"""Drawn of each loss; single steps are noisy, and what counts is where the curve goes."""
_DASHES = ("solid", "dash", "dot", "dashdot", "longdash")


def training_chart(curve: Sequence[Mapping[str, Any]]) -> go.Figure | None:
    """Losses above, learning rate below, a line where a phase begins; None without a curve."""
    if not curve:
        return None
    curve = averaged(curve)
    along = "epoch" if all(row.get("epoch") is not None for row in curve) else "step"
    steps = [row.get(along) for row in curve]
    figure = make_subplots(
        rows=2, cols=1, shared_xaxes=True, row_heights=[0.66, 0.34], vertical_spacing=0.06
    )
    names = list(dict.fromkeys(name for row in curve for name in row.get("losses") or {}))
    mode = "lines" if len(curve) > 1 else "markers"
    for number, name in enumerate(names):
        losses = [(row.get("losses") or {}).get(name) for row in curve]
        says = [
            hover(f"{name}, {along} {significant(step)}", f"loss {significant(loss)}")
            for step, loss in zip(steps, losses, strict=True)
        ]
        line = {
            "color": SERIES[number % len(SERIES)],
            "dash": _DASHES[number % len(_DASHES)],
            "width": 2,
        }
        figure.add_scatter(
            name=hover(name),
            mode=mode,
            x=steps,
            y=losses,
            line=line,
            hovertext=says,
            hoverinfo="text",
            connectgaps=False,
            row=1,
            col=1,
        )
    rates = [row.get("learning_rate") for row in curve]
    says = [
        hover(f"{along} {significant(step)}", f"learning rate {significant(rate)}")
        for step, rate in zip(steps, rates, strict=True)
    ]
    figure.add_scatter(
        mode=mode,
        x=steps,
        y=rates,
        line={"color": FAINT, "width": 2},
        hovertext=says,
        hoverinfo="text",
        showlegend=False,
        row=2,
        col=1,
    )
    look(figure, 460, legend_y=1.07)
    figure.update_yaxes(title_text="Loss", row=1, col=1)
    figure.update_yaxes(title_text="Learning rate", rangemode="tozero", row=2, col=1)
    figure.update_xaxes(title_text=along.capitalize(), row=2, col=1)
    _mark_phases(figure, curve, steps)
    return figure


def averaged(curve: Sequence[Mapping[str, Any]]) -> list[Mapping[str, Any]]:
    """The curve with at most about `MOST_POINTS` rows: where there are more, means of so many logged rows of one phase each."""
    each = -(-len(curve) // MOST_POINTS)
    if each == 1:
        return list(curve)
    phases = [list(rows) for _, rows in groupby(curve, key=lambda row: row.get("phase"))]
    parts = [rows[start : start + each] for rows in phases for start in range(0, len(rows), each)]
    return [_mean_row(part) for part in parts]


def _mean_row(rows: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
    names = dict.fromkeys(name for row in rows for name in row.get("losses") or {})
    numbers = {
        key: _mean([row.get(key) for row in rows]) for key in ("step", "epoch", "learning_rate")
    }
    losses = {name: _mean([(row.get("losses") or {}).get(name) for row in rows]) for name in names}
    return {"phase": rows[0].get("phase"), **numbers, "losses": losses}


def _mean(values: Sequence[object]) -> float | None:
    known = [value for value in values if is_number(value)]
    return fmean(known) if known else None


def _mark_phases(
    figure: go.Figure, curve: Sequence[Mapping[str, Any]], steps: Sequence[Any]
) -> None:
    """A thin line and the phase's name where one begins, if there are several."""
    phases = [str(row.get("phase") or "") for row in curve]
    starts = [row for row in range(len(curve)) if row == 0 or phases[row] != phases[row - 1]]
    if len(starts) < 2:
        return
    for row in starts:
        label = {
            "text": hover(phases[row]),
            "showarrow": False,
            "font": {"size": 11},
            "xanchor": "left",
            "yanchor": "bottom",
        }
        figure.add_annotation(x=steps[row], y=1, xref="x", yref="y domain", **label)
        if row:
            figure.add_vline(steps[row], line={"color": LINE, "width": 1.5})
