"""A co-design on one page: what was gained by what, how the searches went, and the best design."""

from __future__ import annotations

import itertools
import math
from dataclasses import dataclass
from pathlib import Path

import plotly.graph_objects as go

from pliant.accelerator.chip import Chip, chip_toml
from pliant.report import pages
from pliant.report.figure import CHOSEN, RANDOM, SEARCH, SERIES, apply_theme, chart, hover
from pliant.report.headline import Tile
from pliant.report.quantities import significant
from pliant.search.mapped_designs import Design


@dataclass(frozen=True, slots=True)
class Stage:
    """One step of the decomposition: the designs that it looked at, in their order."""

    name: str
    designs: tuple[Design, ...]

    @property
    def best(self) -> Design:
        """Of least energy-delay product."""
        return min(self.designs, key=lambda one: one.edp)

    @property
    def best_so_far(self) -> list[float]:
        """The least energy-delay product after each design."""
        return list(itertools.accumulate((one.edp for one in self.designs), min))


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
    """The fixed dataflow, best mappings, best sizes, best hardware, random hardware."""

    @property
    def best(self) -> Design:
        """Of all stages."""
        return min((stage.best for stage in self.stages), key=lambda one: one.edp)

    def gain(self, stage: Stage) -> float | None:
        """Energy-delay product of the first stage over that of a stage; None where one failed."""
        first, own = self.stages[0].best.edp, stage.best.edp
        return first / own if math.isfinite(first) and math.isfinite(own) else None

    @property
    def most_gain(self) -> float | None:
        """What no design within the resources gains more than; None where the first stage failed.

        It is a bound: that so much can be gained is not said.
        """
        first = self.stages[0].best.edp
        return first / self.bound if math.isfinite(first) else None

    def network_gains(self, stage: Stage) -> list[float | None]:
        """The same for each network, on the design that is best for all."""
        first, own = self.stages[0].best, stage.best
        if first.failure is not None or own.failure is not None:
            return [None] * len(self.networks)
        return [first.costs[name].edp / own.costs[name].edp for name in self.networks]


def write_codesign_page(result: CodesignResult, path: Path) -> None:
    """Write the page, replacing an old one at once."""
    pages.write_page(path, "codesign.html", **_values(result))


def codesign_page(result: CodesignResult) -> str:
    """The page as HTML."""
    return pages.render("codesign.html", **_values(result))


def _values(result: CodesignResult) -> dict[str, object]:
    heads = ("", "EDP over the best", "gain", *result.networks, "designs", "rejected", "proven")
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
        "array": array_words(result.best.chip),
        "toml": chip_toml(result.best.chip),
    }


def _tiles(result: CodesignResult) -> list[Tile]:
    best = result.best
    last = result.gain(result.stages[3])
    over_mapping = result.stages[1].best.edp / best.edp
    return [
        Tile(
            "Gain in energy-delay product",
            "unknown" if last is None else f"{last:.2f}x",
            f"best hardware over {result.stages[0].name}",
        ),
        Tile("of it by the hardware", f"{over_mapping:.2f}x", "over best mappings on the chip"),
        Tile(
            "No design gains more than",
            "unknown" if result.most_gain is None else f"{result.most_gain:.2f}x",
            "bound by PEs, words that must move, and the smallest memories",
        ),
        Tile("Array", " x ".join(str(axis.size) for axis in best.chip.axes), _loops(best.chip)),
        Tile("Area", f"{best.chip.area_mm2:.2f} mm²", f"{result.within.area_mm2:.2f} mm² given"),
    ]


def _loops(chip: Chip) -> str:
    return "parallel " + ", ".join(axis.loops for axis in chip.axes)


def _row(result: CodesignResult, stage: Stage) -> list[str]:
    gains = [result.gain(stage), *result.network_gains(stage)]
    over = stage.best.edp / result.best.edp
    texts = ["failed" if one is None else f"{one:.2f}x" for one in gains]
    rejected = sum(one.bound is not None for one in stage.designs)
    mapped = [one for one in stage.designs if one.costs]
    proven = f"{sum(one.proven for one in mapped)} of {len(mapped)}"
    counts = [str(len(stage.designs)), str(rejected), proven]
    return [stage.name, significant(over) if math.isfinite(over) else "failed", *texts, *counts]


def array_words(chip: Chip) -> str:
    """The array and its memories in a sentence."""
    axes = " x ".join(f"{axis.size} ({axis.loops})" for axis in chip.axes)
    registers, buffer = chip.registers.total_bytes, chip.buffer.total_bytes
    return (
        f"{chip.pes} PEs as {axes}; {registers:g} bytes in each PE, {buffer / 1024:.1f} KiB of "
        f"global buffer, {chip.buffer.bandwidth_bytes_per_cycle:g} bytes a cycle between them."
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


def convergence_chart(result: CodesignResult) -> go.Figure:
    """The best design so far of each search, over the best mapping on the given chip."""
    figure = go.Figure()
    base = result.stages[1].best.edp
    for number, stage in enumerate(result.stages[2:]):
        values = [base / edp if math.isfinite(edp) else None for edp in stage.best_so_far]
        figure.add_scatter(
            name=stage.name,
            mode="lines",
            x=list(range(1, len(values) + 1)),
            y=values,
            line={"color": SERIES[number], "width": 2, "shape": "hv"},
            hovertext=[
                hover(stage.name, f"design {index}", f"{significant(value)} times less")
                for index, value in enumerate(values, 1)
            ],
            hoverinfo="text",
        )
    figure.add_hline(1.0, line={"color": CHOSEN, "width": 1, "dash": "dash"})
    apply_theme(
        figure,
        380,
        xaxis_title_text="Designs evaluated",
        yaxis_title_text="Gain over best mappings on the chip",
    )
    return figure
