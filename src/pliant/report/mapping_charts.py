"""Charts of a network on a chip: energy, time and utilisation by layer, and the chip's roofline."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import plotly.graph_objects as go

from pliant.accelerator.chip import Chip
from pliant.accelerator.explain import PART_NAMES
from pliant.accelerator.mapper.optimal import BestMapping
from pliant.accelerator.network_mapping import NetworkMapping
from pliant.report.figure import FAINT, RANDOM, SEARCH, SERIES, apply_theme, hover
from pliant.report.quantities import significant

_HEIGHT_PX = 420
_COLOURS: Mapping[str, str] = {
    "mac": SERIES[0],
    "compute": SERIES[0],
    "dram": SERIES[1],
    "buffer": SERIES[2],
    "noc": SERIES[3],
    "register": SERIES[4],
    "idle": FAINT,
}
"""One part has one colour in all charts."""


def energy_chart(mapped: NetworkMapping) -> go.Figure:
    """Stacked bars: arithmetic, registers, network on chip, buffer, DRAM, idling."""
    parts = ("mac", "register", "noc", "buffer", "dram", "idle")
    values = {
        part: [best.cost.energy_parts[part] * 1e-6 for best in mapped.layers] for part in parts
    }
    # An energy table is in picojoule, or in multiples of one MAC.
    unit = "µJ" if mapped.chip.energy.unit == "picojoule" else "million MAC energies"
    return _bars(mapped, values, unit, barmode="stack")


def time_chart(mapped: NetworkMapping) -> go.Figure:
    """Grouped bars: compute, DRAM, buffer port, network; the highest is the layer's time."""
    values = {}
    for part in ("compute", "dram", "buffer", "noc"):
        cycles = [best.cost.time_cycles[part] for best in mapped.layers]
        values[part] = [number / mapped.chip.clock_mhz * 1e-3 for number in cycles]
    return _bars(mapped, values, "ms", barmode="group")


def utilisation_chart(mapped: NetworkMapping) -> go.Figure:
    """Operations done over operations possible in the layer's time."""
    shares = [best.cost.utilisation for best in mapped.layers]
    texts = []
    for name, share in zip(_names(mapped), shares, strict=True):
        texts.append(hover(name, f"{share:.1%} of the array"))
    bar = go.Bar(x=_numbers(mapped), y=shares, hovertext=texts, hoverinfo="text")
    figure = apply_theme(go.Figure(bar), _HEIGHT_PX, xaxis_title_text="Layer")
    figure.update_traces(marker_color=SEARCH)
    return figure.update_yaxes(title_text="Utilisation", tickformat=".0%", range=[0, 1])


def roofline_chart(mapped: NetworkMapping) -> go.Figure:
    """Operations per cycle against operations per DRAM byte, under the chip's two roofs.

    Williams, Waterman & Patterson, "Roofline: An Insightful Visual Performance Model for Multicore
    Architectures", 2009, doi:10.1145/1498765.1498785.
    """
    roofline, cycles_per_s = mapped.chip.roofline, 1e6 * mapped.chip.clock_mhz
    intensities, speeds, texts = [], [], []
    for name, best in zip(_names(mapped), mapped.layers, strict=True):
        operations = best.cost.counts["operations"]
        intensity = operations / max(_dram_bytes(best, mapped.chip), 1.0)
        speed = operations / best.cost.cycles
        intensities.append(intensity)
        speeds.append(speed)
        per_byte = f"{significant(intensity)} operations per byte"
        texts.append(hover(name, per_byte, f"{significant(speed)} operations per cycle"))
    figure = go.Figure()
    figure.add_scatter(
        name="layers",
        mode="markers",
        x=intensities,
        y=speeds,
        hovertext=texts,
        hoverinfo="text",
        marker={"color": SEARCH, "size": 9, "opacity": 0.8},
    )
    if mapped.chip.dram_bandwidth_bytes_per_cycle < float("inf"):
        # The bandwidth's slope up to the ridge point, then the array's peak.
        ridge = roofline.ridge_macs_per_byte
        xs = [min([*intensities, ridge]) / 2, ridge, max([*intensities, ridge]) * 2]
        ys = [roofline.attainable_macs_per_s(x) / cycles_per_s for x in xs]
        line = {"color": RANDOM, "width": 2}
        figure.add_scatter(name="roof", mode="lines", x=xs, y=ys, line=line, hoverinfo="skip")
    apply_theme(figure, _HEIGHT_PX)
    figure.update_xaxes(type="log", title_text="Operations per byte of DRAM traffic")
    return figure.update_yaxes(type="log", title_text="Operations per cycle")


def _dram_bytes(best: BestMapping, chip: Chip) -> float:
    """Traffic of one layer: reads of weights and inputs, writes of outputs and partial sums."""
    counts, words = best.cost.counts, chip.word_widths
    sums = counts["dram_sum_reads"]
    bits = counts["dram_weight_reads"] * words.weight_bits
    bits += counts["dram_input_reads"] * words.input_bits
    bits += (counts["dram_output_writes"] - sums) * words.output_bits
    # A partial sum that is read back was written before.
    bits += 2 * sums * words.partial_sum_bits
    return bits / 8


def _bars(
    mapped: NetworkMapping, values: Mapping[str, Sequence[float]], unit: str, *, barmode: str
) -> go.Figure:
    """One bar per layer and part; parts that are 0 everywhere are left out."""
    names, figure = _names(mapped), go.Figure()
    for part, heights in values.items():
        if not any(heights):
            continue
        texts = []
        for name, height in zip(names, heights, strict=True):
            texts.append(hover(name, f"{PART_NAMES[part]} {significant(height)} {unit}"))
        figure.add_bar(
            name=PART_NAMES[part],
            x=_numbers(mapped),
            y=heights,
            hovertext=texts,
            hoverinfo="text",
            marker_color=_COLOURS[part],
        )
    apply_theme(figure, _HEIGHT_PX, xaxis_title_text="Layer", yaxis_title_text=unit)
    return figure.update_layout(barmode=barmode)


def _numbers(mapped: NetworkMapping) -> list[int]:
    return list(range(1, len(mapped.layers) + 1))


def _names(mapped: NetworkMapping) -> list[str]:
    return [f"{number}. {best.layer.name}" for number, best in enumerate(mapped.layers, start=1)]
