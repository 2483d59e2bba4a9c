"""Chart of the training: losses of the sub-networks and the learning rate, epoch by epoch."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import groupby
from statistics import fmean

import plotly.graph_objects as go
from plotly.subplots import make_subplots

from pliant.report.figure import FAINT, LINE, SERIES, apply_theme, hover
from pliant.report.quantities import significant
from pliant.report.summary import TrainingStep

MAX_POINTS = 150
"""Drawn of each loss; single steps are noisy, and what counts is the trend of the curve."""
_DASHES = ("solid", "dash", "dot", "dashdot", "longdash")


def training_chart(curve: Sequence[TrainingStep]) -> go.Figure:
    """Losses above, learning rate below, a line where a phase begins.

    Args:
        curve: at least one step.
    """
    curve = averaged(curve)
    epochs = [row.epoch for row in curve]
    figure = make_subplots(
        rows=2, cols=1, shared_xaxes=True, row_heights=[0.66, 0.34], vertical_spacing=0.06
    )
    mode = "lines" if len(curve) > 1 else "markers"
    names = list(dict.fromkeys(name for row in curve for name in row.losses))
    of_phase: dict[str, set[str]] = {}
    for row in curve:
        of_phase.setdefault(row.phase, set()).update(row.losses)
    for number, name in enumerate(names):
        # A gap where a phase has no such loss, none where only some of its steps have it.
        rows = [row for row in curve if name in row.losses or name not in of_phase[row.phase]]
        xs = [row.epoch for row in rows]
        losses = [row.losses.get(name) for row in rows]
        figure.add_scatter(
            name=hover(name),
            mode=mode,
            x=xs,
            y=losses,
            line={
                "color": SERIES[number % len(SERIES)],
                "dash": _DASHES[number % len(_DASHES)],
                "width": 2,
            },
            hovertext=_texts(name, "loss", xs, losses),
            hoverinfo="text",
            connectgaps=False,
            row=1,
            col=1,
        )
    rates = [row.learning_rate for row in curve]
    figure.add_scatter(
        mode=mode,
        x=epochs,
        y=rates,
        line={"color": FAINT, "width": 2},
        hovertext=_texts("", "learning rate", epochs, rates),
        hoverinfo="text",
        showlegend=False,
        row=2,
        col=1,
    )
    apply_theme(figure, 460, legend_y=1.07)
    figure.update_yaxes(title_text="Loss", row=1, col=1)
    figure.update_yaxes(title_text="Learning rate", rangemode="tozero", row=2, col=1)
    figure.update_xaxes(title_text="Epoch", row=2, col=1)
    _mark_phases(figure, curve)
    return figure


def averaged(curve: Sequence[TrainingStep]) -> Sequence[TrainingStep]:
    """At most about `MAX_POINTS` rows: means of equally many steps, each of one phase."""
    each = -(-len(curve) // MAX_POINTS)
    if each == 1:
        return curve
    rows = []
    for _, steps in groupby(curve, key=lambda row: row.phase):
        phase = list(steps)
        rows += [_mean(phase[start : start + each]) for start in range(0, len(phase), each)]
    return rows


def _mean(steps: Sequence[TrainingStep]) -> TrainingStep:
    losses = {}
    for name in dict.fromkeys(name for row in steps for name in row.losses):
        known = [loss for row in steps if (loss := row.losses.get(name)) is not None]
        losses[name] = fmean(known) if known else None
    epoch = fmean(row.epoch for row in steps)
    rate = fmean(row.learning_rate for row in steps)
    return TrainingStep(steps[0].step, epoch, steps[0].phase, rate, losses)


def _texts(
    name: str, label: str, epochs: Sequence[float], values: Sequence[float | None]
) -> list[str]:
    texts = []
    for epoch, value in zip(epochs, values, strict=True):
        where = f"{name}, epoch {significant(epoch)}" if name else f"epoch {significant(epoch)}"
        texts.append(hover(where, f"{label} {significant(value)}"))
    return texts


def _mark_phases(figure: go.Figure, curve: Sequence[TrainingStep]) -> None:
    """A thin line and the phase's name where one begins, if there are several."""
    starts = [
        row
        for number, row in enumerate(curve)
        if number == 0 or row.phase != curve[number - 1].phase
    ]
    if len(starts) < 2:
        return
    for number, row in enumerate(starts):
        figure.add_annotation(
            text=hover(row.phase),
            x=row.epoch,
            y=1,
            xref="x",
            yref="y domain",
            showarrow=False,
            font={"size": 11},
            xanchor="left",
            yanchor="bottom",
        )
        if number:
            figure.add_vline(row.epoch, line={"color": LINE, "width": 1.5})
