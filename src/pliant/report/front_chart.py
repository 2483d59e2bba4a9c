"""Chart of the trade-off: accuracy against the minimised cost, the search's networks beside those of random search."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from itertools import chain
from typing import Any

import plotly.graph_objects as go

from pliant.report.candidates import Candidate, candidates, minimised
from pliant.report.figure import CARD, CHOSEN, LIMIT, RANDOM, SEARCH, hover, look
from pliant.report.quantities import percent, quantity, significant, with_unit, words

MOST_POINTS = 3000
"""Estimates drawn of each search; a browser stays quick with so many."""
_HEIGHT = 480
_MARKS = {"search": (SEARCH, "circle"), "random": (RANDOM, "square")}
_NAMES = {"search": "the search", "random": "random search"}


def front_chart(summary: Mapping[str, Any]) -> go.Figure | None:
    """Estimates of both searches, both fronts as predicted and as measured, the chosen network and the limit; None without any point."""
    metric = minimised(summary)
    networks = candidates(summary)
    points = (summary.get("search") or {}).get("points") or []
    estimates = [trace for by in ("random", "search") for trace in _estimates(points, by, metric)]
    fronts = [
        trace
        for by in ("random", "search")
        for trace in _front([network for network in networks if network.by == by], by, metric)
    ]
    if not estimates and not fronts:
        return None
    figure = go.Figure([*estimates, *fronts, *_chosen(networks, metric)])
    called = words(metric)
    cost = called.title + (f" ({called.unit})" if called.unit else "")
    look(
        figure, _HEIGHT, xaxis_title_text=cost, yaxis_title_text="Accuracy", yaxis_tickformat=".1%"
    )
    for limit in summary.get("limits") or []:
        if limit.get("metric") == metric:
            figure.add_vline(
                limit["bound"],
                line={"color": LIMIT, "width": 1.5, "dash": "dash"},
                annotation={
                    "text": f"limit {quantity(metric, limit['bound'])}",
                    "font": {"color": LIMIT},
                    "yanchor": "bottom",
                    "y": 0,
                    "xshift": 4,
                },
                annotation_position="bottom right",
            )
    return figure


def thinned(points: Sequence[Mapping[str, Any]]) -> Sequence[Mapping[str, Any]]:
    """Every n-th point where there are more than `MOST_POINTS`."""
    return points[:: -(-len(points) // MOST_POINTS)] if points else points


def _estimates(points: Iterable[Mapping[str, Any]], by: str, metric: str) -> Iterable[go.Scatter]:
    cost = (
        metric if metric in ("parameters", "macs", "peak_memory_bytes") else f"predicted_{metric}"
    )
    known = [
        point
        for point in points
        if point.get("by") == by and point.get("top1") is not None and point.get(cost) is not None
    ]
    if not known:
        return
    shown = thinned(known)
    colour, symbol = _MARKS[by]
    yield go.Scatter(
        name=f"estimated by {_NAMES[by]}",
        mode="markers",
        x=[point[cost] for point in shown],
        y=[point["top1"] for point in shown],
        hovertext=[_says_estimate(point, by, _cost(metric, point[cost])) for point in shown],
        hoverinfo="text",
        marker={"color": colour, "symbol": symbol, "size": 5, "opacity": 0.4},
    )


def _says_estimate(point: Mapping[str, Any], by: str, cost: str) -> str:
    return hover(
        f"Estimated by {_NAMES[by]}",
        str(point.get("architecture", "")),
        f"accuracy {percent(point['top1'])}",
        cost,
    )


def _cost(metric: str, value: object, spread: object = None) -> str:
    around = "" if spread is None else f" ± {with_unit(significant(spread, 2), metric)}"
    return f"{words(metric).label} {quantity(metric, value)}{around}"


def _front(networks: Sequence[Candidate], by: str, metric: str) -> Iterable[go.Scatter]:
    """Predicted and measured points of one front, and the thin lines that join them."""
    colour, symbol = _MARKS[by]
    predicted = [
        _point(network, network.predicted(metric), network.facts.get("top1_estimate"))
        for network in networks
    ]
    measured = [
        _point(network, network.measured(metric), network.facts.get("top1_validation"))
        for network in networks
    ]
    pairs = [pair for pair in zip(predicted, measured, strict=True) if pair[0] and pair[1]]
    if pairs:
        ends = [(first, second, (None, None)) for (_, *first), (_, *second) in pairs]  # type: ignore[misc]
        rows = list(chain.from_iterable(ends))
        line = {"color": colour, "width": 1}
        yield go.Scatter(
            mode="lines",
            x=[x for x, _ in rows],
            y=[y for _, y in rows],
            line=line,
            hoverinfo="skip",
            showlegend=False,
        )
    for how, points, hollow in (("predicted", predicted, True), ("measured", measured, False)):
        if known := [point for point in points if point]:
            yield go.Scatter(
                name=f"front of {_NAMES[by]}, {how}",
                mode="markers",
                x=[x for _, x, _ in known],
                y=[y for _, _, y in known],
                customdata=[network.key for network, _, _ in known],
                hovertext=[_says(network, how, metric) for network, _, _ in known],
                hoverinfo="text",
                marker={
                    "color": CARD if hollow else colour,
                    "symbol": symbol,
                    "size": 9 if hollow else 11,
                    "line": {"color": colour if hollow else CARD, "width": 1.5},
                },
            )


def _point(
    network: Candidate, cost: float | None, accuracy: float | None
) -> tuple[Candidate, float, float] | None:
    return None if cost is None or accuracy is None else (network, cost, accuracy)


def _says(network: Candidate, how: str, metric: str) -> str:
    title = f"Front of {_NAMES[network.by]}, {how}" + (" (chosen)" if network.chosen else "")
    if how == "predicted":
        rows = (
            f"accuracy {percent(network.facts.get('top1_estimate'))} (estimate)",
            _cost(metric, network.predicted(metric)),
        )
    else:
        spread = network.spread_ms if metric == "latency_ms" else None
        rows = (
            f"accuracy {percent(network.facts.get('top1_validation'))} (validation)",
            _cost(metric, network.measured(metric), spread),
        )
    return hover(
        title,
        network.architecture,
        *rows,
        f"parameters {quantity('parameters', network.facts.get('parameters'))}",
    )


def _chosen(networks: Sequence[Candidate], metric: str) -> Iterable[go.Scatter]:
    """A ring around the chosen network where it was measured, or else where it was predicted."""
    for network in networks:
        if not network.chosen:
            continue
        point = _point(network, network.measured(metric), network.facts.get("top1_validation"))
        point = point or _point(
            network, network.predicted(metric), network.facts.get("top1_estimate")
        )
        if point:
            ring = {"color": "rgba(0,0,0,0)", "size": 20, "line": {"color": CHOSEN, "width": 2.5}}
            yield go.Scatter(
                name="chosen",
                mode="markers",
                x=[point[1]],
                y=[point[2]],
                hoverinfo="skip",
                marker=ring,
            )
