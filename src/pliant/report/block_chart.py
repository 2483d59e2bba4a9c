"""Chart of where the latency goes: each block's share of the network's latency beside its shares of MACs and parameters."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import plotly.graph_objects as go

from pliant.report.figure import INK, RANDOM, SEARCH, hover, look
from pliant.report.quantities import percent, quantity
from pliant.report.slots import slot_name

_ROW, _AROUND = 40, 110
"""Height of a block, and of axis and legend together, in pixels."""
_MEASURES = ("latency_ms", "macs", "parameters")


def block_chart(blocks: Sequence[Mapping[str, Any]]) -> go.Figure | None:
    """Bars for latency, marks for MACs and parameters, in running order from the top; None without blocks."""
    if not blocks:
        return None
    names = [slot_name(str(block.get("slot", ""))) for block in blocks]
    totals = {measure: sum(block.get(measure) or 0 for block in blocks) for measure in _MEASURES}
    shares = {
        measure: [
            block[measure] / totals[measure]
            if totals[measure] and block.get(measure) is not None
            else None
            for block in blocks
        ]
        for measure in _MEASURES
    }
    rows = list(range(len(blocks)))
    says = [
        _says(names[row], blocks[row], [shares[measure][row] for measure in _MEASURES])
        for row in rows
    ]
    common = {"y": rows, "orientation": "h", "hovertext": says, "hoverinfo": "text"}
    figure = go.Figure()
    figure.add_bar(
        name="latency", x=shares["latency_ms"], marker={"color": SEARCH, "opacity": 0.85}, **common
    )
    for name, measure, symbol, colour in (
        ("MACs", "macs", "diamond", RANDOM),
        ("parameters", "parameters", "circle-open", INK),
    ):
        mark = {
            "symbol": symbol,
            "color": colour,
            "size": 10,
            "line": {"width": 2, "color": colour},
        }
        figure.add_scatter(
            name=name, mode="markers", x=shares[measure], marker=mark, cliponaxis=False, **common
        )
    look(
        figure,
        _ROW * len(blocks) + _AROUND,
        xaxis_title_text="Share of the network",
        xaxis_tickformat=".0%",
        bargap=0.35,
    )
    labels = [
        f"{hover(name)}<br>{hover(quantity('latency_ms', block.get('latency_ms')))}"
        for name, block in zip(names, blocks, strict=True)
    ]
    figure.update_xaxes(rangemode="tozero")
    figure.update_yaxes(
        tickvals=rows,
        ticktext=labels,
        range=[len(blocks) - 0.5, -0.5],
        showgrid=False,
        ticklabelstandoff=8,
    )
    return figure


def _says(name: str, block: Mapping[str, Any], shares: Sequence[float | None]) -> str:
    rows = []
    for label, measure, share in zip(
        ("latency", "MACs", "parameters"), _MEASURES, shares, strict=True
    ):
        part = "" if share is None else f" ({percent(share, 1)} of the network)"
        rows.append(f"{label} {quantity(measure, block.get(measure))}{part}")
    return hover(name, *rows)
