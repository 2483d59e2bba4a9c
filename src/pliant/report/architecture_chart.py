"""Chart of a search by training: the probabilities of every block's operations, and the costs."""

from __future__ import annotations

from collections.abc import Sequence

import plotly.graph_objects as go
from plotly.subplots import make_subplots

from pliant.objective import Limit
from pliant.report.figure import INK, LIMIT, SERIES, apply_theme, hover
from pliant.report.quantities import percent, quantity, words
from pliant.report.slots import slot_name
from pliant.report.summary import ArchitectureSearch

_COST_PX, _BLOCK_PX, _AROUND_PX = 170, 88, 90
LEFT_OUT = "var(--line)"
"""Colour of the operation that leaves a block out."""


def architecture_chart(search: ArchitectureSearch, limits: Sequence[Limit]) -> go.Figure:
    """Expected costs over their limits above, then a band of probabilities for each block.

    Args:
        search: with at least one step.
        limits: of the run.
    """
    slots = list(search.operations)
    heights = [_COST_PX, *[_BLOCK_PX] * len(slots)]
    figure = make_subplots(
        rows=len(heights),
        cols=1,
        shared_xaxes=True,
        row_heights=[height / sum(heights) for height in heights],
        vertical_spacing=0.12 / len(heights),
    )
    _add_costs(figure, search, limits)
    names = list(dict.fromkeys(name for one in search.operations.values() for name in one))
    shown: set[str] = set()
    for row, slot in enumerate(slots, 2):
        _add_block(figure, search, slot, row, names, shown)
        label = f"{hover(slot_name(slot))}<br>{hover(search.chosen[slot])}"
        figure.update_yaxes(
            title_text="",
            tickvals=[0.5],
            ticktext=[label],
            range=[0, 1],
            showgrid=False,
            row=row,
            col=1,
        )
    apply_theme(figure, sum(heights) + _AROUND_PX, legend_y=1.01)
    figure.update_yaxes(title_text="Cost over limit", rangemode="tozero", row=1, col=1)
    figure.update_xaxes(title_text="Epoch", row=len(heights), col=1)
    return figure


def _add_costs(figure: go.Figure, search: ArchitectureSearch, limits: Sequence[Limit]) -> None:
    epochs = [step.epoch for step in search.steps]
    for number, limit in enumerate(one for one in limits if one.metric in search.steps[0].expected):
        values = [step.expected[limit.metric] for step in search.steps]
        texts = [
            hover(
                f"epoch {epoch:.1f}",
                f"expected {words(limit.metric).label} {quantity(limit.metric, value)}",
                f"limit {quantity(limit.metric, limit.bound)}",
            )
            for epoch, value in zip(epochs, values, strict=True)
        ]
        figure.add_scatter(
            name=f"expected {words(limit.metric).label} over limit",
            mode="lines" if len(epochs) > 1 else "markers",
            x=epochs,
            y=[value / limit.bound for value in values],
            line={"color": INK, "width": 2, "dash": ("solid", "dash", "dot")[number % 3]},
            hovertext=texts,
            hoverinfo="text",
            row=1,
            col=1,
        )
    figure.add_hline(1.0, line={"color": LIMIT, "width": 1.5, "dash": "dash"}, row=1, col=1)


def _add_block(
    figure: go.Figure,
    search: ArchitectureSearch,
    slot: str,
    row: int,
    names: list[str],
    shown: set[str],
) -> None:
    """Stacked areas, one for each operation; the legend names each operation once."""
    epochs = [step.epoch for step in search.steps]
    colours = dict(zip([one for one in names if one != "left out"], _COLOURS, strict=False))
    for index, name in enumerate(search.operations[slot]):
        values = [step.probabilities[slot][index] for step in search.steps]
        where = f"{slot_name(slot)}, operation {name}"
        texts = [
            hover(where, f"epoch {epoch:.1f}", percent(value))
            for epoch, value in zip(epochs, values, strict=True)
        ]
        figure.add_scatter(
            name=name,
            mode="lines",
            x=epochs,
            y=values,
            stackgroup=slot,
            line={"width": 0},
            fillcolor=colours.get(name, LEFT_OUT),
            legendgroup=name,
            showlegend=name not in shown,
            hovertext=texts,
            hoverinfo="text",
            row=row,
            col=1,
        )
        shown.add(name)


_COLOURS = (*SERIES, "#7aa2a9", "#b98fb3", "#a9a27a")
