"""Chart of where a cost goes: each block's share of it, of the MACs and of the parameters."""

from __future__ import annotations

from collections.abc import Sequence

import plotly.graph_objects as go

from pliant.report.figure import INK, RANDOM, SEARCH, apply_theme, hover
from pliant.report.quantities import percent, quantity, words
from pliant.report.slots import slot_name
from pliant.report.summary import BlockResult

_ROW_PX, _AROUND_PX = 40, 110
"""Height of a block, and of axis and legend together."""
_MARKS = {"macs": ("diamond", RANDOM), "parameters": ("circle-open", INK)}


def drawn_metric(blocks: Sequence[BlockResult], wanted: Sequence[str]) -> str | None:
    """The first of the wanted metrics that any block reports; MACs where none is."""
    for metric in (*wanted, "macs"):
        if any(getattr(block.cost, metric) is not None for block in blocks):
            return metric
    return None


def block_chart(blocks: Sequence[BlockResult], metric: str) -> go.Figure:
    """Bars for the metric, marks for MACs and parameters, in running order from the top.

    Args:
        blocks: at least one.
        metric: a field of `Cost`.
    """
    marks = {name: mark for name, mark in _MARKS.items() if name != metric}
    shares = {name: _shares(blocks, name) for name in (metric, *marks)}
    names = [slot_name(block.slot) for block in blocks]
    rows = list(range(len(blocks)))
    texts = []
    for row, block in enumerate(blocks):
        lines = [_line(block, name, shares[name][row]) for name in shares]
        texts.append(hover(names[row], *lines))
    common = {"y": rows, "orientation": "h", "hovertext": texts, "hoverinfo": "text"}
    figure = go.Figure()
    bar = {"color": SEARCH, "opacity": 0.85}
    figure.add_bar(name=words(metric).label, x=shares[metric], marker=bar, **common)
    for name, (symbol, colour) in marks.items():
        line = {"width": 2, "color": colour}
        mark = {"symbol": symbol, "color": colour, "size": 10, "line": line}
        figure.add_scatter(
            name=words(name).label,
            mode="markers",
            x=shares[name],
            marker=mark,
            cliponaxis=False,
            **common,
        )
    height_px = _ROW_PX * len(blocks) + _AROUND_PX
    apply_theme(figure, height_px, xaxis_title_text="Share of the network", bargap=0.35)
    figure.update_xaxes(rangemode="tozero", tickformat=".0%")
    labels = []
    for name, block in zip(names, blocks, strict=True):
        labels.append(f"{hover(name)}<br>{hover(_value(block, metric))}")
    figure.update_yaxes(
        tickvals=rows,
        ticktext=labels,
        range=[len(blocks) - 0.5, -0.5],
        showgrid=False,
        ticklabelstandoff=8,
    )
    return figure


def _shares(blocks: Sequence[BlockResult], metric: str) -> list[float | None]:
    values = [getattr(block.cost, metric) for block in blocks]
    total = sum(value or 0 for value in values)
    return [None if value is None or not total else value / total for value in values]


def _value(block: BlockResult, metric: str) -> str:
    value = getattr(block.cost, metric)
    return "not reported" if value is None else quantity(metric, value)


def _line(block: BlockResult, metric: str, share: float | None) -> str:
    part = "" if share is None else f" ({percent(share, 1)} of the network)"
    return f"{words(metric).label} {_value(block, metric)}{part}"
