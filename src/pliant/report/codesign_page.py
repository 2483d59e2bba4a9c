"""A co-design on one page: what was gained by what, how the searches went, and the best design."""

from __future__ import annotations

import html
import itertools
import math
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import plotly.graph_objects as go

from pliant.accelerator.chip import Chip, chip_toml
from pliant.report import pages
from pliant.report.figure import (
    CHOSEN,
    RANDOM,
    SEARCH,
    SERIES,
    Chart,
    apply_theme,
    chart,
    hover,
)
from pliant.report.headline import Tile
from pliant.report.quantities import significant
from pliant.search.codesign_front import FrontObjectives, metric
from pliant.search.mapped_designs import Design


@dataclass(frozen=True, slots=True)
class Stage:
    """One step of the decomposition: the designs that it looked at, in their order."""

    name: str
    designs: tuple[Design, ...]
    chosen: Design | None = None
    """Instead of the one of least energy-delay product; where more than that had to hold."""

    @property
    def best(self) -> Design:
        """The chosen one, or that of least energy-delay product."""
        return self.chosen or min(self.designs, key=lambda one: one.edp)

    @property
    def best_so_far(self) -> list[float]:
        """The least energy-delay product after each design."""
        return list(itertools.accumulate((one.edp for one in self.designs), min))


@dataclass(frozen=True, slots=True)
class SearchedNetwork:
    """The network that was found together with the hardware; accuracies are top-1, 0 to 1."""

    floor: float
    """What its accuracy had to reach."""
    baseline: str
    """The network of the steps before."""
    baseline_top1: float
    """Validated on all validation images."""
    network: str
    predicted_top1: float
    top1: float
    """Validated on all validation images."""
    history: tuple[Design, ...]
    """The networks that were mapped on the best chip, in the order of the search."""


@dataclass(frozen=True, slots=True)
class DesignFront:
    """Designs that no other one beats, by several metrics at once."""

    objectives: FrontObjectives
    designs: tuple[Design, ...]
    """All that were looked at."""
    front: tuple[Design, ...]
    validated_top1: Mapping[str, float]
    """By network, of those of the front that were validated."""


@dataclass(frozen=True, slots=True)
class CodesignResult:
    """What a co-design found."""

    within: Chip
    """Whose resources bound the designs."""
    networks: tuple[str, ...]
    dataflow: str
    """Of the first stage."""
    designs: int
    """Of each search."""
    seed: int
    gap: float
    """By which share of its energy-delay product a layer's mapping may miss the best one."""
    mapper: str
    """How layers are mapped: certified, or by evolution."""
    loops_per_axis: int
    """That an axis of a design chooses among."""
    bound: float
    """Energy-delay product that no design within the resources is below."""
    stages: tuple[Stage, ...]
    """The fixed dataflow, best mappings, best sizes, best hardware, random hardware; then network,
    hardware and mapping together, where a network was searched."""
    searched: SearchedNetwork | None = None
    """The network that was searched; None for given networks."""
    front: DesignFront | None = None
    """By several metrics; None where none was asked for."""

    @property
    def best(self) -> Design:
        """That of the last step where a network was searched, else the best of all steps."""
        if self.searched is not None:
            return self.stages[-1].best
        return min((stage.best for stage in self.stages), key=lambda one: one.edp)

    def gain(self, stage: Stage) -> float | None:
        """Energy-delay product of the first stage over that of a stage; None where one failed."""
        return _ratio(self.stages[0].best.edp, stage.best.edp)

    @property
    def most_gain(self) -> float | None:
        """What no design within the resources gains more than; None where the first stage failed.

        It is a bound: that so much can be gained is not said.
        """
        return _ratio(self.stages[0].best.edp, self.bound)

    def network_gains(self, stage: Stage) -> list[float | None]:
        """The same for each network, on the design that is best for all."""
        first, own = self.stages[0].best, stage.best
        if not first.costs or not own.costs:
            return [None] * len(self.networks)
        return [first.costs[name].edp / own.costs[name].edp for name in self.networks]


def _ratio(first: float, own: float) -> float | None:
    """Of two energy-delay products; None where a design that failed is one of them."""
    return first / own if math.isfinite(first) and math.isfinite(own) else None


def write_codesign_page(result: CodesignResult, path: Path) -> None:
    """Write the page, replacing an old one at once."""
    pages.write_page(path, "codesign.html", **_values(result))


def codesign_page(result: CodesignResult) -> str:
    """The page as HTML."""
    return pages.render("codesign.html", **_values(result))


def _values(result: CodesignResult) -> dict[str, object]:
    counts = ("designs", "rejected by a bound", "mapped with proof")
    heads = ("", "EDP over the best", "gain", *result.networks, *counts)
    certified = "its certified best mapping"
    if result.gap:
        certified = f"a mapping that is certified within {100 * result.gap:g} % of the best"
    if result.mapper == "evolution":
        certified = "the best mapping that an evolution found, of which nothing is proven"
    return {
        "result": result,
        "certified": certified,
        "tiles": _tiles(result),
        "heads": heads,
        "rows": [_row(result, stage) for stage in result.stages],
        "failure": result.stages[0].best.failure,
        "most": result.most_gain,
        "gains": chart("gains", gains_chart(result), "Gain of each step over the first."),
        "convergence": chart(
            "convergence", convergence_chart(result), "Best energy-delay product by designs."
        ),
        "drawing": array_drawing(result.best.chip),
        "array": array_words(result.best.chip),
        "networks": _network_chart(result),
        "front": _front_values(result),
        "toml": chip_toml(result.best.chip),
    }


def _tiles(result: CodesignResult) -> list[Tile]:
    best = result.best
    step = result.stages[3] if result.searched is None else result.stages[-1]
    last = result.gain(step)
    over_mapping = _ratio(result.stages[1].best.edp, best.edp)
    return [
        Tile(
            "Gain in energy-delay product",
            "unknown" if last is None else f"{last:.2f}x",
            f"{step.name} over {result.stages[0].name}",
        ),
        Tile(
            "of it beyond mappings",
            "unknown" if over_mapping is None else f"{over_mapping:.2f}x",
            f"over {result.stages[1].name}",
        ),
        Tile(
            "No design gains more than",
            "unknown" if result.most_gain is None else f"{result.most_gain:.2f}x",
            "bound by PEs and words that must move"
            + ("" if result.searched is None else ", with the same network"),
        ),
        Tile("Array", " x ".join(str(axis.size) for axis in best.chip.axes), _loops(best.chip)),
        Tile("Area", f"{best.chip.area_mm2:.2f} mm²", f"{result.within.area_mm2:.2f} mm² given"),
    ]


def _loops(chip: Chip) -> str:
    return "parallel " + ", ".join(axis.loops for axis in chip.axes)


def _row(result: CodesignResult, stage: Stage) -> list[str]:
    gains = [result.gain(stage), *result.network_gains(stage)]
    over = _ratio(stage.best.edp, result.best.edp)
    texts = ["failed" if one is None else f"{one:.2f}x" for one in gains]
    rejected = sum(one.bound is not None for one in stage.designs)
    mapped = [one for one in stage.designs if one.costs]
    proven = f"{sum(one.proven for one in mapped)} of {len(mapped)}"
    counts = [str(len(stage.designs)), str(rejected), proven]
    return [stage.name, "failed" if over is None else significant(over), *texts, *counts]


def _network_chart(result: CodesignResult) -> Chart | None:
    """The network level on the best design; None for given networks."""
    if result.searched is None:
        return None
    best = list(itertools.accumulate((one.edp for one in result.searched.history), min))
    figure = go.Figure()
    figure.add_scatter(
        mode="lines",
        x=list(range(1, len(best) + 1)),
        y=[_ratio(best[0], edp) for edp in best],
        line={"color": SEARCH, "width": 2, "shape": "hv"},
        hovertext=[
            hover(str(one.network), f"accuracy {one.accuracy or 0:.2%} as predicted")
            for one in result.searched.history
        ],
        hoverinfo="text",
    )
    apply_theme(
        figure,
        300,
        xaxis_title_text="Networks mapped on the best design",
        yaxis_title_text="Gain over the first",
    )
    return chart("networks", figure, "Best energy-delay product by networks on the best design.")


def _front_values(result: CodesignResult) -> dict[str, object] | None:
    """Chart and table of the front; None where there is none."""
    if result.front is None:
        return None
    names = result.front.objectives.names
    searched = any(one.network is not None for one in result.front.front)
    heads = (*names, *(("validated", "network") if searched else ()), "array")
    rows = []
    for one in result.front.front:
        cells = [_metric_text(one, name) for name in names]
        if searched:
            top1 = result.front.validated_top1.get(str(one.network))
            cells += ["not validated" if top1 is None else f"{top1:.2%}", str(one.network)]
        rows.append([*cells, " x ".join(f"{axis.size} {axis.loops}" for axis in one.chip.axes)])
    alt = f"{names[1]} by {names[0]} of all designs, and the front."
    return {
        "chart": chart("front", front_chart(result.front), alt),
        "heads": heads,
        "rows": rows,
        "numbers": range(len(names)),
        "searched": searched,
    }


def _metric_text(design: Design, name: str) -> str:
    value = metric(design, name)
    units = {"latency": " ms", "area": " mm²"}
    return f"{value:.2%}" if name == "accuracy" else f"{significant(value)}{units.get(name, '')}"


def front_chart(found: DesignFront) -> go.Figure:
    """The first metric against the last: all designs that were mapped, and the front."""
    names = found.objectives.names
    first, last = names[0], names[-1]
    figure = go.Figure()
    mapped = [one for one in found.designs if one.costs]
    for label, designs, colour in (("designs", mapped, RANDOM), ("front", found.front, SEARCH)):
        figure.add_scatter(
            name=label,
            mode="markers",
            x=[metric(one, first) for one in designs],
            y=[metric(one, last) for one in designs],
            marker={"color": colour, "size": 9 if label == "front" else 6},
            hovertext=[
                hover(*(f"{name} {_metric_text(one, name)}" for name in names)) for one in designs
            ],
            hoverinfo="text",
        )
    return apply_theme(figure, 380, xaxis_title_text=first, yaxis_title_text=last)


DRAWN_PES = 32
"""Along each axis, at most; of a longer one the rest is told."""
CELL_PX = 14


def array_drawing(chip: Chip) -> str:
    """The array as SVG: its axes with their loops, the buffer and the port between them."""
    sizes = [axis.size for axis in chip.axes[:2]]
    rows, columns = (sizes[0], sizes[1]) if len(sizes) > 1 else (1, sizes[0])
    drawn_rows, drawn_columns = min(rows, DRAWN_PES), min(columns, DRAWN_PES)
    left, top = 150, 40
    width, height = left + CELL_PX * drawn_columns + 20, top + CELL_PX * drawn_rows + 30
    side = CELL_PX - 2
    cells = (
        f'<defs><pattern id="pe" x="{left}" y="{top}" width="{CELL_PX}" height="{CELL_PX}" '
        f'patternUnits="userSpaceOnUse"><rect width="{side}" height="{side}" rx="2" '
        'fill="var(--search)" fill-opacity="0.35"/></pattern></defs>'
        f'<rect x="{left}" y="{top}" width="{CELL_PX * drawn_columns}" '
        f'height="{CELL_PX * drawn_rows}" fill="url(#pe)"/>'
    )
    own = [f"{axis.size} PEs over {axis.loops}" for axis in chip.axes]
    cut = " (cut in the drawing)" if max(rows, columns) > DRAWN_PES else ""
    down, across = (own[0], own[1]) if len(own) > 1 else ("", own[0])
    deep = f"; {own[2]} behind each" if len(own) > 2 else ""
    per_cycle = chip.buffer.bandwidth_bytes_per_cycle
    port = f"{per_cycle:g} B/cycle" if math.isfinite(per_cycle) else "unlimited"
    buffer = f"{chip.buffer.total_bytes / 1024:.1f} KiB"
    middle = top + CELL_PX * drawn_rows / 2
    ink = 'fill="var(--ink)" font-size="12"'
    return (
        f'<svg viewBox="0 0 {max(width, 460)} {height}" width="{max(width, 460)}" role="img" '
        f'style="max-width:100%;height:auto" '
        f'aria-label="{html.escape(array_words(chip))}">'
        f'<rect x="10" y="{middle - 24}" width="80" height="48" rx="4" fill="none" '
        f'stroke="var(--ink)"/><text x="50" y="{middle - 4}" text-anchor="middle" {ink}>buffer'
        f'</text><text x="50" y="{middle + 12}" text-anchor="middle" {ink}>{buffer}</text>'
        f'<line x1="90" y1="{middle}" x2="{left - 6}" y2="{middle}" stroke="var(--ink)" '
        f'stroke-width="2"/><text x="92" y="{middle - 30}" {ink}>{port}</text>'
        f'<text x="{left}" y="{top - 22}" {ink}>across: {across}{deep}{cut}</text>'
        f'<text x="{left}" y="{top - 6}" {ink}>{"down: " + down if down else ""}</text>'
        f"{''.join(cells)}"
        f'<text x="{left}" y="{height - 10}" {ink}>each PE: {chip.registers.total_bytes:g} bytes'
        f"</text></svg>"
    )


def array_words(chip: Chip) -> str:
    """The array and its memories in a sentence."""
    axes = " x ".join(f"{axis.size} ({axis.loops})" for axis in chip.axes)
    registers, buffer = chip.registers.total_bytes, chip.buffer.total_bytes
    per_cycle = chip.buffer.bandwidth_bytes_per_cycle
    port = f"{per_cycle:g}" if math.isfinite(per_cycle) else "any number of"
    return (
        f"{chip.pes} PEs as {axes}; {registers:g} bytes in each PE, {buffer / 1024:.1f} KiB of "
        f"global buffer, {port} bytes a cycle between them."
    )


def gains_chart(result: CodesignResult) -> go.Figure:
    """A bar for each step: how many times less energy-delay product than the first."""
    stages = [stage for stage in result.stages if result.gain(stage) is not None]
    gains = [result.gain(stage) or 0.0 for stage in stages]
    colours = [RANDOM if stage.name.startswith("random") else SEARCH for stage in stages]
    figure = go.Figure()
    figure.add_bar(
        x=gains,
        y=[stage.name for stage in stages],
        orientation="h",
        marker={"color": colours},
        hovertext=[
            hover(stage.name, f"{gain:.2f} times less than the first")
            for stage, gain in zip(stages, gains, strict=True)
        ],
        hoverinfo="text",
    )
    apply_theme(figure, 90 + 46 * len(stages), xaxis_title_text="Times less energy x delay")
    figure.update_yaxes(autorange="reversed", showgrid=False)
    return figure


def _times_less(gain: float | None) -> str:
    return "no gain is known" if gain is None else f"{significant(gain)} times less"


def convergence_chart(result: CodesignResult) -> go.Figure:
    """The best design so far of each search, over the best mapping on the given chip."""
    figure = go.Figure()
    base = result.stages[1].best.edp
    for number, stage in enumerate(result.stages[2:]):
        values = [_ratio(base, edp) for edp in stage.best_so_far]
        figure.add_scatter(
            name=stage.name,
            mode="lines",
            x=list(range(1, len(values) + 1)),
            y=values,
            line={"color": SERIES[number], "width": 2, "shape": "hv"},
            hovertext=[
                hover(stage.name, f"design {index}", _times_less(value))
                for index, value in enumerate(values, 1)
            ],
            hoverinfo="text",
        )
    figure.add_hline(1.0, line={"color": CHOSEN, "width": 1, "dash": "dash"})
    apply_theme(
        figure,
        380,
        xaxis_title_text="Designs evaluated",
        yaxis_title_text=f"Gain over {result.stages[1].name}",
    )
    return figure
