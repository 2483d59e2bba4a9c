"""Networks under the roofs of a device: what each layer waits for, and why one is faster."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from pliant.report import pages
from pliant.report.figure import Chart, chart
from pliant.report.headline import Tile
from pliant.report.quantities import GAP, NOT_MEASURED, count, percent, quantity, significant, size
from pliant.report.roofline_chart import roofline_chart, time_parts_chart, waits_for
from pliant.workload.roofline import NetworkRoofline, Roofline, why_faster, without_time

HEADS = (
    "Layer", "MACs", "Traffic", "MACs per byte", "Waits for", "At least", "Took", "Of attainable"
)  # fmt: skip
"""Columns of the table of layers."""


@dataclass(frozen=True, slots=True)
class LayerTable:
    """The layers of one network as texts."""

    title: str
    rows: list[list[str]]
    note: str


def write_roofline_page(
    networks: Sequence[NetworkRoofline],
    roofline: Roofline,
    path: Path,
    *,
    device: str,
    source: str,
) -> None:
    """Write the page, replacing an old one at once.

    Args:
        networks: under the same roofs.
        roofline: of the device, for the precision of the networks.
        path: of the page.
        device: its name.
        source: where its roofs come from.
    """
    values = _values(networks, roofline)
    pages.write_page(path, "roofline.html", device=device, source=source, **values)


def _values(networks: Sequence[NetworkRoofline], roofline: Roofline) -> dict[str, object]:
    return {
        "names": [network.name for network in networks],
        "tiles": _tiles(networks, roofline),
        "charts": roofline_charts(networks, roofline),
        "reasons": why_faster(networks),
        "heads": HEADS,
        "tables": [layer_table(network) for network in networks],
    }


def _tiles(networks: Sequence[NetworkRoofline], roofline: Roofline) -> list[Tile]:
    peak = f"{significant(1e-9 * roofline.peak_macs_per_s)} G"
    bandwidth = f"{significant(1e-9 * roofline.bandwidth_bytes_per_s)} GB/s"
    tiles = [
        Tile("Peak arithmetic", peak, "multiply-accumulates per second"),
        Tile("Memory bandwidth", bandwidth, "reads and writes"),
    ]
    for network in networks:
        least = quantity("latency_ms", 1e3 * network.least_seconds)
        bound = f"{network.memory_bound_layers} of {len(network.layers)} layers wait for memory"
        if network.seconds is None:
            tiles.append(Tile(network.name, least, f"at least; {bound}"))
        else:
            took = quantity("latency_ms", 1e3 * network.seconds)
            tiles.append(Tile(network.name, took, f"in kernels, at least {least}; {bound}"))
    return tiles


def roofline_charts(
    networks: Sequence[NetworkRoofline], roofline: Roofline
) -> list[tuple[str, Chart]]:
    """Charts under their titles, which also say to a screen reader what they show.

    Args:
        networks: under the same roofs.
        roofline: of the device.
    """
    title = "Speed of every layer under the roofs"
    charts = [(title, chart("roofline", roofline_chart(networks, roofline), f"{title}."))]
    title = "Where the time goes"
    charts.append((title, chart("parts", time_parts_chart(networks), f"{title}.")))
    return charts


def layer_table(network: NetworkRoofline) -> LayerTable:
    """Every layer under the roofs, as texts.

    Args:
        network: under the roofs of a device.
    """
    rows = []
    timed = zip(network.layers, network.achieved, network.shares_of_roof, strict=True)
    for layer, seconds, of_roof in timed:
        took, share = NOT_MEASURED, NOT_MEASURED
        if seconds and of_roof is not None:
            took, share = microseconds(seconds), percent(of_roof, 0)
        elif network.achieved_seconds:
            took, share = without_time(network, layer), ""
        row = [
            layer.name,
            count(layer.macs),
            size(layer.traffic_bytes),
            significant(layer.macs_per_byte),
            waits_for(layer),
            microseconds(layer.least_seconds),
            took,
            share,
        ]
        rows.append(row)
    notes = (runtime_note(network), *network.notes)
    return LayerTable(network.name, rows, " ".join(filter(None, notes)))


def microseconds(seconds: float) -> str:
    """The time of a layer."""
    return f"{significant(1e6 * seconds)}{GAP}µs"


def runtime_note(network: NetworkRoofline) -> str:
    """What belongs to no layer, in words: preprocessing, and what the runtime adds."""
    times = []
    for name, seconds in sorted(network.runtime_seconds, key=lambda one: -one[1]):
        times.append(f"{name} {microseconds(seconds)}")
    return f"Of no layer: {', '.join(times)}." if times else ""
