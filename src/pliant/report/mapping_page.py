"""A network on a chip: where time and energy go, layer by layer, and every loop nest. One page."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from pliant.accelerator.chip import DIMS, Chip
from pliant.accelerator.explain import PART_NAMES, TENSOR_NAMES, proof, reasons, tiles
from pliant.accelerator.mapper.optimal import BestMapping
from pliant.accelerator.mapping import format_mapping, layer_sizes
from pliant.accelerator.network_mapping import NetworkMapping
from pliant.report import pages
from pliant.report.figure import Chart, chart
from pliant.report.headline import Tile
from pliant.report.mapping_charts import (
    energy_chart,
    roofline_chart,
    time_chart,
    utilisation_chart,
)
from pliant.report.quantities import percent, quantity, significant

_LEVELS = {
    "register": "Registers of one PE",
    "array": "Whole array",
    "buffer": "Global buffer",
    "dram": "DRAM",
}


@dataclass(frozen=True, slots=True)
class LayerMapping:
    """One layer as the page shows it."""

    title: str
    loop_nest: str
    tile_heads: tuple[str, ...]
    tile_rows: list[list[str]]
    """Words of each tensor at each level."""
    reasons: list[str]
    proof: str


def write_mapping_report(mapped: NetworkMapping, path: Path) -> None:
    """Write the page, replacing an old one at once.

    Args:
        mapped: the network, its chip and every layer's best mapping.
        path: of the page.
    """
    pages.write_page(path, "mapping.html", **_values(mapped))


def mapping_page(mapped: NetworkMapping) -> str:
    """The page as HTML."""
    return pages.render("mapping.html", **_values(mapped))


def _values(mapped: NetworkMapping) -> dict[str, object]:
    layers = []
    for number, best in enumerate(mapped.layers, start=1):
        layers.append(_layer(number, best, mapped.chip))
    return {
        "chip": mapped.chip,
        "tiles": _tiles(mapped),
        "charts": _charts(mapped),
        "layers": layers,
    }


def _charts(mapped: NetworkMapping) -> list[tuple[str, Chart]]:
    """Charts under their titles, which also say to a screen reader what they show."""
    titles = {
        "energy": ("Energy by layer and memory level", energy_chart(mapped)),
        "time": ("Time by layer: what each resource would need alone", time_chart(mapped)),
        "utilisation": ("Utilisation of the array by layer", utilisation_chart(mapped)),
        "roofline": ("Roofline of the chip", roofline_chart(mapped)),
    }
    return [(title, chart(name, figure, f"{title}.")) for name, (title, figure) in titles.items()]


def _tiles(mapped: NetworkMapping) -> list[Tile]:
    chip = mapped.chip
    if chip.energy.unit == "picojoule":
        energy = quantity("energy_uj", mapped.energy * 1e-6)
    else:
        energy = f"{significant(mapped.energy / 1e6)} million"
    of = "" if chip.energy.unit == "picojoule" else "in energies of one MAC"
    proven = sum(best.certificate.proven for best in mapped.layers)
    number = len(mapped.layers)
    left_out = ", ".join(mapped.workload.left_out)
    without = f"without {left_out}, so nothing is proven of the network" if left_out else ""
    return [
        Tile("Latency", quantity("latency_ms", mapped.latency_ms), f"at {chip.clock_mhz:g} MHz"),
        Tile("Energy", energy, of),
        Tile("Utilisation", percent(mapped.utilisation, 1), "of the array's operations"),
        Tile("Area", quantity("area_mm2", chip.area_mm2), "without control and pads"),
        Tile("Mappings proven best", f"{proven} of {number}", without),
    ]


def _layer(number: int, best: BestMapping, chip: Chip) -> LayerMapping:
    layer, cost = best.layer, best.cost
    loops = zip(DIMS, layer_sizes(layer), strict=True)
    sizes = " ".join(f"{dim}={size}" for dim, size in loops if size > 1)
    title = (
        f"{number}. {layer.name} ({layer.kind}, {sizes}): "
        f"{quantity('latency_ms', cost.latency_ms)}, utilisation {percent(cost.utilisation, 1)}, "
        f"bound by {PART_NAMES[cost.bound_by]}"
    )
    return LayerMapping(
        title=title,
        loop_nest=format_mapping(best.mapping, [axis.name for axis in chip.axes]),
        tile_heads=("Tensor", *_LEVELS.values()),
        tile_rows=_tile_rows(best),
        reasons=list(reasons(best, chip)),
        proof=proof(best),
    )


def _tile_rows(best: BestMapping) -> list[list[str]]:
    words = {(tile.tensor, tile.level): tile.words for tile in tiles(best)}
    rows = []
    for tensor in dict.fromkeys(tensor for tensor, _ in words):
        row = [TENSOR_NAMES[tensor]]
        for level in _LEVELS:
            held = words[tensor, level]
            row.append("bypassed" if held is None else f"{held:,}")
        rows.append(row)
    return rows
