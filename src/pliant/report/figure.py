"""One theme for all charts, and how a chart gets into a page.

A figure names its colours as the stylesheet does, `var(--search)`; the page's script puts in the
colours of the light or the dark scheme before Plotly draws.
"""

from __future__ import annotations

import html
from dataclasses import dataclass

import plotly.graph_objects as go

from pliant.report.packed import Packed, pack

INK, FAINT, LINE, CARD = "var(--ink)", "var(--faint)", "var(--line)", "var(--card)"
SEARCH, RANDOM, CHOSEN, LIMIT = "var(--search)", "var(--random)", "var(--chosen)", "var(--limit)"
SERIES = (SEARCH, RANDOM, "var(--third)", "var(--fourth)", "var(--fifth)")
CLEAR = "rgba(0,0,0,0)"
_FONT = 'system-ui, -apple-system, "Segoe UI", Roboto, "Helvetica Neue", Arial, sans-serif'


@dataclass(frozen=True, slots=True)
class Chart:
    """A figure as the templates place it."""

    name: str
    """By which style and script know it."""
    alt: str
    """The chart in words, for those who cannot see it."""
    height_px: int
    data: Packed
    """The figure as JSON."""


def chart(name: str, figure: go.Figure, alt: str) -> Chart:
    """A themed figure for a page.

    Args:
        name: unique within the page.
        figure: with the theme applied.
        alt: the chart in words.
    """
    return Chart(name, alt, int(figure.layout.height), pack(str(figure.to_json())))


def apply_theme(figure: go.Figure, height_px: int, **layout: object) -> go.Figure:
    """Give a figure the page's type, grid and hover box.

    Args:
        figure: changed in place, and returned.
        height_px: the width follows the page.
        layout: further keys of Plotly's layout.
    """
    figure.update_layout(
        template=go.layout.Template(),
        height=height_px,
        paper_bgcolor=CLEAR,
        plot_bgcolor=CLEAR,
        font={"family": _FONT, "size": 13, "color": FAINT},
        margin={"l": 8, "r": 12, "t": 8, "b": 8},
        hoverlabel={
            "bgcolor": CARD,
            "bordercolor": LINE,
            "font": {"family": _FONT, "size": 13, "color": INK},
            "align": "left",
        },
        hovermode="closest",
        legend={
            "orientation": "h",
            "x": 0,
            "y": 1.02,
            "yanchor": "bottom",
            "font": {"color": INK},
            "itemsizing": "constant",
        },
        dragmode=False,
    )
    axis = {
        "gridcolor": LINE,
        "zeroline": False,
        "linecolor": LINE,
        "automargin": True,
        "title": {"standoff": 10, "font": {"size": 13}},
    }
    figure.update_xaxes(**axis)
    figure.update_yaxes(**axis)
    return figure.update_layout(**layout)


def hover(*lines: str) -> str:
    """Lines of a hover box. What Plotly would read as HTML is escaped, long words are broken."""
    return "<br>".join(html.escape(row, quote=False) for line in lines for row in wrapped(line))


def wrapped(line: str, width: int = 44) -> list[str]:
    """A line in rows of about `width` characters, broken behind underscores only."""
    rows = [""]
    for word in line.replace("_", "_\0").split("\0"):
        if rows[-1] and len(rows[-1]) + len(word) > width and len(line) > width:
            rows.append("")
        rows[-1] += word
    return rows
