"""Chart of the trade-off: accuracy against the first cost, of the search and of random search."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

import plotly.graph_objects as go

from pliant.objective import ACCURACY, Limit
from pliant.report.figure import (
    CARD,
    CHOSEN,
    CLEAR,
    LIMIT,
    RANDOM,
    SEARCH,
    apply_theme,
    hover,
)
from pliant.report.quantities import percent, quantity, words
from pliant.report.shown import ShownNetwork, axis, shown_networks
from pliant.report.summary import FoundBy, SearchPoint, Summary

MAX_POINTS = 3000
"""Estimates drawn of each search; a browser stays quick with so many."""
_HEIGHT_PX = 480
_BY: tuple[FoundBy, ...] = ("random", "search")
_MARKS = {"search": (SEARCH, "circle"), "random": (RANDOM, "square")}
_NAMES = {"search": "the search", "random": "random search"}


def front_chart(summary: Summary) -> go.Figure:
    """Estimates of both searches, both fronts, the chosen network and the limits.

    Each network of a front has a hollow mark, estimated accuracy at the predicted cost, and a
    filled one, validated accuracy at the measured cost (or the predicted one, on a target that is
    not measured).
    """
    metric, networks = axis(summary), shown_networks(summary)
    traces: list[go.Scatter] = []
    for by in _BY:
        points = [one for one in summary.search.points if one.by == by]
        traces += _estimates(points, by, metric)
    for by in _BY:
        front = [one for one in networks if one.by == by]
        traces += _front(front, by, metric, measured=summary.target.measured)
    figure = go.Figure([*traces, *_chosen(networks, metric)])
    called = words(metric)
    title = called.title + (f" ({called.unit})" if called.unit else "")
    apply_theme(figure, _HEIGHT_PX, xaxis_title_text=title, yaxis_title_text="Accuracy")
    # A single network would have an axis to 200 %.
    figure.update_yaxes(tickformat=".1%", autorangeoptions={"clipmin": -0.05, "clipmax": 1.05})
    for limit in summary.objective.limits:
        _draw_limit(figure, limit, metric)
    return figure


def thinned(points: Sequence[SearchPoint]) -> Sequence[SearchPoint]:
    """Every n-th point where there are more than `MAX_POINTS`."""
    return points[:: -(-len(points) // MAX_POINTS)] if points else points


def is_thinned(summary: Summary) -> bool:
    """Whether the chart leaves estimates out."""
    by = [one.by for one in summary.search.points]
    return max(by.count("search"), by.count("random")) > MAX_POINTS


def _draw_limit(figure: go.Figure, limit: Limit, metric: str) -> None:
    """A dashed line: upright for the cost of the axis, level for the least accuracy."""
    line = {"color": LIMIT, "width": 1.5, "dash": "dash"}
    label = {"text": f"limit {quantity(limit.metric, limit.bound)}", "font": {"color": LIMIT}}
    if limit.metric == metric:
        place = {"yanchor": "bottom", "y": 0, "xshift": 4}
        figure.add_vline(
            limit.bound, line=line, annotation=label | place, annotation_position="bottom right"
        )
    elif limit.metric == ACCURACY:
        figure.add_hline(limit.bound, line=line, annotation=label, annotation_position="top left")


def _estimates(points: Sequence[SearchPoint], by: FoundBy, metric: str) -> Iterable[go.Scatter]:
    known = [(one, getattr(one.cost, metric)) for one in thinned(points)]
    known = [(one, cost) for one, cost in known if cost is not None]
    if not known:
        return
    colour, symbol = _MARKS[by]
    texts = []
    for one, cost in known:
        title, accuracy = f"Estimated by {_NAMES[by]}", f"accuracy {percent(one.top1)}"
        texts.append(hover(title, one.architecture, accuracy, _cost_text(metric, cost)))
    yield go.Scatter(
        name=f"estimated by {_NAMES[by]}",
        mode="markers",
        x=[cost for _, cost in known],
        y=[one.top1 for one, _ in known],
        hovertext=texts,
        hoverinfo="text",
        marker={"color": colour, "symbol": symbol, "size": 5, "opacity": 0.4},
    )


def _cost_text(metric: str, value: float | None, spread: float | None = None) -> str:
    return f"{words(metric).label} {quantity(metric, value, spread)}"


def _front(
    networks: Sequence[ShownNetwork], by: FoundBy, metric: str, *, measured: bool
) -> Iterable[go.Scatter]:
    """Hollow and filled marks of one front, and the thin lines that join the two of one network."""
    known = [one for one in networks if one.cost(metric).value is not None]
    expected = [one for one in known if one.predicted(metric) is not None]
    if not known:
        return
    colour, symbol = _MARKS[by]
    xs: list[float | None] = []
    ys: list[float | None] = []
    for one in expected:
        # A pair of points, then a gap.
        xs += [one.predicted(metric), one.cost(metric).value, None]
        ys += [one.result.estimate.top1, one.result.validated.top1, None]
    line = {"color": colour, "width": 1}
    yield go.Scatter(mode="lines", x=xs, y=ys, line=line, hoverinfo="skip", showlegend=False)
    filled = "measured" if measured else "validated"
    for how, shown in (("predicted", expected), (filled, known)):
        hollow = how == "predicted"
        edge = {"color": colour if hollow else CARD, "width": 1.5}
        yield go.Scatter(
            name=f"front of {_NAMES[by]}, {how}",
            mode="markers",
            x=[one.predicted(metric) if hollow else one.cost(metric).value for one in shown],
            y=[(one.result.estimate if hollow else one.result.validated).top1 for one in shown],
            customdata=[one.key for one in shown],
            hovertext=[_hover_text(one, how, metric) for one in shown],
            hoverinfo="text",
            marker={
                "color": CARD if hollow else colour,
                "symbol": symbol,
                "size": 9 if hollow else 11,
                "line": edge,
            },
        )


def _hover_text(network: ShownNetwork, how: str, metric: str) -> str:
    title = f"Front of {_NAMES[network.by]}, {how}" + (" (chosen)" if network.chosen else "")
    result, known = network.result, network.cost(metric)
    if how == "predicted":
        accuracy = f"accuracy {percent(result.estimate.top1)} (estimate)"
        cost = _cost_text(metric, network.predicted(metric))
    else:
        accuracy = f"accuracy {percent(result.validated.top1)} (validation)"
        predicted = " (predicted)" if known.how == "predicted" else ""
        cost = _cost_text(metric, known.value, known.spread) + predicted
    parameters = _cost_text("parameters", result.predicted.parameters)
    return hover(title, result.architecture, accuracy, cost, parameters)


def _chosen(networks: Sequence[ShownNetwork], metric: str) -> Iterable[go.Scatter]:
    """A ring around the filled mark of the chosen network."""
    for network in networks:
        if network.chosen and network.cost(metric).value is not None:
            yield go.Scatter(
                name="chosen",
                mode="markers",
                x=[network.cost(metric).value],
                y=[network.result.validated.top1],
                hoverinfo="skip",
                marker={"color": CLEAR, "size": 20, "line": {"color": CHOSEN, "width": 2.5}},
            )
