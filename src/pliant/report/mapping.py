"""One offline HTML page about a network on a chip: where time and energy go, layer by layer, and every loop nest.

Plotly is embedded; the page loads nothing.
"""

from __future__ import annotations

import html
from pathlib import Path
from typing import Any

import plotly.graph_objects as go
from plotly.offline import get_plotlyjs

from pliant.accelerator.chip import DIMS, Chip
from pliant.accelerator.explain import PART_NAMES, TENSOR_NAMES, proof, reasons, tiles
from pliant.accelerator.mapper.search import BestMapping
from pliant.accelerator.mapping import format_mapping, layer_sizes
from pliant.accelerator.network import NetworkMapping
from pliant.files import write_atomically

_COLOURS = {
    "mac": "#4269d0",
    "register": "#efb118",
    "noc": "#ff725c",
    "buffer": "#6cc5b0",
    "dram": "#9c6b4e",
    "idle": "#bbbbbb",
    "compute": "#4269d0",
}
_STYLE = """
body { font: 15px/1.5 system-ui, sans-serif; margin: 2rem auto; max-width: 1100px; padding: 0 1rem; color: #222; }
h1 { font-size: 1.5rem; } h2 { font-size: 1.15rem; margin-top: 2rem; }
.tiles { display: flex; flex-wrap: wrap; gap: 1rem; } .tiles div { background: #f4f4f2; padding: .6rem 1rem; border-radius: 6px; }
.tiles b { display: block; font-size: 1.2rem; } pre { background: #f4f4f2; padding: .8rem; overflow-x: auto; border-radius: 6px; }
table { border-collapse: collapse; } td, th { padding: .2rem .8rem; text-align: right; border-bottom: 1px solid #ddd; }
td:first-child, th:first-child { text-align: left; }
details { border-bottom: 1px solid #ddd; padding: .4rem 0; } summary { cursor: pointer; }
"""


def write_mapping_report(mapped: NetworkMapping, path: Path) -> None:
    """Writes the page; an existing file is replaced whole.

    Args:
        mapped: the network, its chip and every layer's best mapping.
        path: where to.
    """
    write_atomically(path, mapping_page(mapped))


def mapping_page(mapped: NetworkMapping) -> str:
    """The page as text."""
    chip = mapped.chip
    figures = [
        ("Energy by layer and memory level", energy_figure(mapped)),
        ("Time by layer: what each resource would need alone", time_figure(mapped)),
        ("Utilisation of the array", utilisation_figure(mapped)),
        ("Roofline of the chip", roofline_figure(mapped)),
    ]
    pictures = "".join(
        f"<h2>{html.escape(title)}</h2>{_embed(figure)}" for title, figure in figures
    )
    nests = "".join(
        _layer_section(number, best, chip) for number, best in enumerate(mapped.layers, start=1)
    )
    return (
        f'<!doctype html><html lang="en"><head><meta charset="utf-8"><title>{html.escape(chip.name)}: mapping report</title>'
        f"<style>{_STYLE}</style><script>{get_plotlyjs()}</script></head><body>"
        f"<h1>{len(mapped.layers)} layers on {html.escape(chip.name)}</h1><p>{html.escape(chip.source)}</p>{_headline(mapped)}{pictures}"
        f"<h2>Every layer: nest, tiles, reasons, proof</h2>{nests}</body></html>"
    )


def _headline(mapped: NetworkMapping) -> str:
    absolute = mapped.chip.energy.unit == "picojoule"
    energy = (
        f"{mapped.energy * 1e-9:.4g} mJ"
        if absolute
        else f"{mapped.energy / 1e6:,.4g} million MAC energies"
    )
    proven = sum(layer.certificate.proven for layer in mapped.layers)
    facts = {
        "latency": f"{mapped.latency_ms:.4g} ms",
        "energy": energy,
        "utilisation": f"{mapped.utilisation:.1%}",
        "area without wires": f"{mapped.chip.area_mm2:.2f} mm²",
        "mappings proven best": f"{proven} of {len(mapped.layers)}",
    }
    return (
        '<div class="tiles">'
        + "".join(f"<div>{name}<b>{html.escape(value)}</b></div>" for name, value in facts.items())
        + "</div>"
    )


def _names(mapped: NetworkMapping) -> list[str]:
    # Numbers keep bars of equal names apart and in the order of the network.
    return [f"{number}. {best.layer.name}" for number, best in enumerate(mapped.layers, start=1)]


def energy_figure(mapped: NetworkMapping) -> go.Figure:
    """Stacked bars: arithmetic, registers, network, buffer, DRAM, idling."""
    scale, unit = (
        (1e-6, "µJ") if mapped.chip.energy.unit == "picojoule" else (1e-6, "million MAC energies")
    )
    names, figure = _names(mapped), go.Figure()
    for part in ("mac", "register", "noc", "buffer", "dram", "idle"):
        values = [best.cost.energy_parts[part] * scale for best in mapped.layers]
        if any(values):
            figure.add_bar(x=names, y=values, name=PART_NAMES[part], marker_color=_COLOURS[part])
    return figure.update_layout(barmode="stack", yaxis_title=unit)


def time_figure(mapped: NetworkMapping) -> go.Figure:
    """Grouped bars: compute, DRAM, buffer port, network; the highest is the layer's time."""
    names, figure = _names(mapped), go.Figure()
    for part in ("compute", "dram", "buffer", "noc"):
        values = [
            best.cost.time_cycles[part] / mapped.chip.clock_mhz * 1e-3 for best in mapped.layers
        ]
        if any(values):
            figure.add_bar(x=names, y=values, name=PART_NAMES[part], marker_color=_COLOURS[part])
    return figure.update_layout(barmode="group", yaxis_title="ms")


def utilisation_figure(mapped: NetworkMapping) -> go.Figure:
    """Operations done over operations possible in the layer's time."""
    values = [100 * best.cost.utilisation for best in mapped.layers]
    figure = go.Figure(go.Bar(x=_names(mapped), y=values, marker_color=_COLOURS["mac"]))
    return figure.update_layout(yaxis_title="% of the array", yaxis_range=[0, 100])


def roofline_figure(mapped: NetworkMapping) -> go.Figure:
    """Operations a cycle against operations a DRAM byte, under the chip's two roofs."""
    chip = mapped.chip
    peak = chip.pes * chip.macs_per_pe_per_cycle
    intensity = [
        best.cost.counts["operations"] / max(_dram_bytes(best, chip), 1.0) for best in mapped.layers
    ]
    speed = [best.cost.counts["operations"] / best.cost.cycles for best in mapped.layers]
    figure = go.Figure(
        go.Scatter(
            x=intensity,
            y=speed,
            mode="markers",
            text=_names(mapped),
            name="layers",
            marker_color=_COLOURS["dram"],
        )
    )
    if chip.dram_bandwidth_bytes_per_cycle < float("inf"):
        knee = peak / chip.dram_bandwidth_bytes_per_cycle
        low, high = min([*intensity, knee]) / 2, max([*intensity, knee]) * 2
        roof = [low * chip.dram_bandwidth_bytes_per_cycle, peak, peak]
        figure.add_scatter(
            x=[low, knee, high], y=roof, mode="lines", name="roof", line_color="#222"
        )
    return figure.update_layout(
        xaxis_type="log",
        yaxis_type="log",
        xaxis_title="operations a byte of DRAM traffic",
        yaxis_title="operations a cycle",
    )


def _dram_bytes(best: BestMapping, chip: Chip) -> float:
    counts, words = best.cost.counts, chip.word_widths
    back = counts["dram_sum_reads"]
    bits = (
        counts["dram_weight_reads"] * words.weight_bits
        + counts["dram_input_reads"] * words.input_bits
    )
    return (
        bits
        + (counts["dram_output_writes"] - back) * words.output_bits
        + 2 * back * words.partial_sum_bits
    ) / 8


def _embed(figure: go.Figure) -> str:
    figure.update_layout(
        template="plotly_white",
        height=380,
        margin={"l": 60, "r": 20, "t": 20, "b": 80},
        legend={"orientation": "h", "y": 1.12},
    )
    text: Any = figure.to_html(full_html=False, include_plotlyjs=False)
    return str(text)


def _layer_section(number: int, best: BestMapping, chip: Chip) -> str:
    layer, cost = best.layer, best.cost
    sizes = " ".join(
        f"{dim}={size}" for dim, size in zip(DIMS, layer_sizes(layer), strict=True) if size > 1
    )
    bound = PART_NAMES[cost.bound_by]
    head = f"{number}. {layer.name} ({layer.kind}, {sizes}): {cost.latency_ms:.4g} ms, utilisation {cost.utilisation:.1%}, bound by {bound}"
    nest = format_mapping(best.mapping, [axis.name for axis in chip.axes])
    said = "".join(f"<li>{html.escape(reason)}</li>" for reason in reasons(best, chip))
    return (
        f"<details><summary>{html.escape(head)}</summary><pre>{html.escape(nest)}</pre>{_tile_table(best)}<ul>{said}</ul>"
        f"<p>{html.escape(proof(best))}</p></details>"
    )


def _tile_table(best: BestMapping) -> str:
    held = {(tile.tensor, tile.level): tile.words for tile in tiles(best)}
    levels = {
        "register": "one element's registers",
        "array": "whole array",
        "buffer": "global buffer",
        "dram": "all",
    }
    head = "".join(f"<th>{name}</th>" for name in levels.values())
    rows = ""
    for tensor in dict.fromkeys(tensor for tensor, _ in held):
        words = (held[tensor, level] for level in levels)
        cells = "".join(
            f"<td>{'bypassed' if count is None else format(count, ',')}</td>" for count in words
        )
        rows += f"<tr><td>{TENSOR_NAMES[tensor]}</td>{cells}</tr>"
    return f"<table><tr><th>tile, words</th>{head}</tr>{rows}</table>"
