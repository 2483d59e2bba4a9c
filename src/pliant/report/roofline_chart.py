"""The roofline chart: layers of one or more networks under the roofs of a device."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import plotly.graph_objects as go

from pliant.report.figure import FAINT, INK, SERIES, apply_theme, hover
from pliant.report.quantities import count, significant, size
from pliant.workload.roofline import LayerBound, NetworkRoofline, Roofline

_HEIGHT_PX = 520
_DASHES = ("solid", "dash", "dot", "dashdot", "longdash")
_MARKER_PX = 9
_LEAST_INTENSITY = 1e-3
"""Where a layer without arithmetic is drawn, in multiply-accumulates per byte."""


def roofline_chart(networks: Sequence[NetworkRoofline], roofline: Roofline) -> go.Figure:
    """Speed against arithmetic intensity, both logarithmic, in MACs.

    A filled mark is what a layer achieved; a hollow one what the roof of its working set allows.
    Layers without multiply-accumulates have no place here; the tables have them.

    Args:
        networks: under the same roofs.
        roofline: of the device.
    """
    figure = go.Figure()
    intensities = [roofline.ridge_macs_per_byte]
    for network in networks:
        intensities += [layer.macs_per_byte for layer in network.layers if layer.macs]
    low, high = min(intensities) / 2, max(intensities) * 2
    _add_roofs(figure, roofline, max(low, _LEAST_INTENSITY), high)
    for number, network in enumerate(networks):
        _add_layers(figure, network, roofline, SERIES[number % len(SERIES)])
    apply_theme(figure, _HEIGHT_PX)
    figure.update_xaxes(
        type="log", dtick="D2", title_text="Multiply-accumulates per byte of traffic"
    )
    return figure.update_yaxes(type="log", dtick="D2", title_text="Billion MACs per second")


def _add_roofs(figure: go.Figure, roofline: Roofline, low: float, high: float) -> None:
    """One line per level of memory, all of which end in the peak."""
    xs = np.geomspace(low, high, 60)
    for number, level in enumerate(roofline.levels):
        speeds = np.minimum(roofline.peak_macs_per_s, xs * level.bandwidth_bytes_per_s)
        rate = f"{significant(1e-9 * level.bandwidth_bytes_per_s)} GB/s"
        figure.add_scatter(
            name=f"{level.name}, {rate}",
            mode="lines",
            x=xs.tolist(),
            y=(1e-9 * speeds).tolist(),
            line={"color": FAINT, "width": 2, "dash": _DASHES[number % len(_DASHES)]},
            hoverinfo="skip",
        )


def _add_layers(
    figure: go.Figure, network: NetworkRoofline, roofline: Roofline, colour: str
) -> None:
    """Hollow marks on the roofs, filled ones at the achieved speeds, and a line between the two."""
    marks: dict[str, list[tuple[float, float, str]]] = {"attainable": [], "achieved": []}
    rows = zip(network.layers, network.achieved, network.shares_of_roof, strict=True)
    for layer, seconds, share in rows:
        if not layer.macs:
            continue
        text = hover(f"{network.name}: {layer.name}", *_hover_lines(layer, seconds, share))
        attainable = 1e-9 * layer.macs / layer.least_seconds
        marks["attainable"].append((layer.macs_per_byte, attainable, text))
        if share is not None:
            marks["achieved"].append((layer.macs_per_byte, attainable * share, text))
    for kind, points in marks.items():
        if not points:
            continue
        symbol = "circle-open" if kind == "attainable" else "circle"
        xs, ys, texts = zip(*points, strict=True)
        figure.add_scatter(
            name=f"{network.name}, {kind}",
            mode="markers",
            x=xs,
            y=ys,
            hovertext=texts,
            hoverinfo="text",
            marker={"color": colour, "size": _MARKER_PX, "symbol": symbol, "opacity": 0.85},
        )


def _hover_lines(layer: LayerBound, seconds: float | None, share: float | None) -> list[str]:
    lines = [
        f"{count(layer.macs)} MACs, {size(layer.traffic_bytes)} of traffic",
        f"waits for {waits_for(layer)}",
        f"at least {significant(1e6 * layer.least_seconds)} µs",
    ]
    if seconds and share is not None:
        lines.append(f"took {significant(1e6 * seconds)} µs: {share:.0%} of the attainable speed")
    return lines


def waits_for(layer: LayerBound) -> str:
    """What bounds a layer, in words."""
    return "arithmetic" if layer.bound == "compute" else f"memory ({layer.level})"


_PART_COLOURS = (SERIES[0], SERIES[1], FAINT)


def time_parts_chart(networks: Sequence[NetworkRoofline]) -> go.Figure:
    """One bar per network: arithmetic at the peak, memory, and what the device needs beyond.

    Args:
        networks: under the same roofs; all of them timed, or none.
    """
    figure = go.Figure()
    names = [network.name for network in networks]
    for number, part in enumerate(networks[0].parts_seconds):
        times = [1e3 * network.parts_seconds[part] for network in networks]
        texts = [
            hover(name, f"{part}: {significant(time)} ms")
            for name, time in zip(names, times, strict=True)
        ]
        figure.add_bar(
            name=part,
            y=names,
            x=times,
            orientation="h",
            hovertext=texts,
            hoverinfo="text",
            marker_color=_PART_COLOURS[number],
        )
    apply_theme(figure, 140 + 60 * len(networks), xaxis_title_text="ms", barmode="relative")
    return figure.update_yaxes(autorange="reversed", tickfont={"color": INK})
