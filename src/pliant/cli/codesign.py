"""`pliant codesign`: an accelerator for networks, within the resources of a chip."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer
from rich.table import Table

from pliant.cli.accelerator import Gap, compile_notice
from pliant.cli.app import app, say, screen
from pliant.progress import shown


@app.command()
def codesign(
    workload: Annotated[
        str,
        typer.Option(
            help="Networks, with commas: mobilenet-v2, squeezenet, mnasnet, resnet-50, vgg-16, "
            "u-net, or ONNX files."
        ),
    ],
    within: Annotated[
        str, typer.Option(help="The chip whose resources bound the designs: a name or a .toml.")
    ] = "eyeriss",
    designs: Annotated[int, typer.Option(min=1, help="Designs of each search.")] = 200,
    energy: Annotated[
        str | None,
        typer.Option(
            help="Energy table instead of the chip's: eyeriss, nn-dataflow, dosa, interstellar, "
            "maestro."
        ),
    ] = None,
    dataflow: Annotated[
        str | None,
        typer.Option(
            help="Of the first step: weight-, output-, input- or row-stationary; the chip's own "
            "if not given."
        ),
    ] = None,
    gap: Gap = 0.0,
    mapper: Annotated[
        str,
        typer.Option(help="Of layers: certified, or the evolution of the paper, unproven."),
    ] = "certified",
    mappings: Annotated[
        int, typer.Option(min=1, help="That the evolution evaluates of each layer.")
    ] = 200,
    encoding: Annotated[
        str, typer.Option(help="Of the loops that run in parallel: importance or index.")
    ] = "importance",
    loops_per_axis: Annotated[
        int | None,
        typer.Option(
            min=1,
            max=6,
            help="Loops that an axis of a design chooses among; 1 as in the paper, as many as the "
            "chip's own if not given.",
        ),
    ] = None,
    seed: Annotated[int, typer.Option(min=0, max=2**32 - 1, help="Of all draws.")] = 0,
    threads: Annotated[int, typer.Option(min=1, help="Designs mapped side by side.")] = 1,
    out: Annotated[
        Path, typer.Option(help="Folder of the result; a stopped search resumes.")
    ] = Path("designs"),
) -> None:
    """Search for an accelerator within a chip's resources, and show what gained what."""
    from dataclasses import replace

    from pliant.accelerator.chip import load_chip
    from pliant.accelerator.energy import energy_table
    from pliant.runs.codesign import CodesignOptions, parse_workloads
    from pliant.runs.codesign import codesign as search

    chip = load_chip(within)
    if energy is not None:
        chip = replace(chip, energy=energy_table({"table": energy}, "--energy"))
    workloads = parse_workloads(workload)
    options = CodesignOptions(
        designs=designs,
        seed=seed,
        dataflow=dataflow,
        gap=gap,
        mapper=mapper,
        mappings=mappings,
        encoding=encoding,
        loops_per_axis=loops_per_axis,
        threads=threads,
    )
    with compile_notice(), shown(screen) as progress:
        result = search(workloads, chip, out, options, progress=progress)
    table = Table("step", "gain", *result.networks)
    for stage in result.stages:
        gains = [result.gain(stage), *result.network_gains(stage)]
        table.add_row(stage.name, *("failed" if one is None else f"{one:.2f}x" for one in gains))
    screen.print(table)
    if failure := result.stages[0].best.failure:
        say(f"the fixed dataflow cannot run these networks: {failure}")
    say("the best design", about=out / "best.toml")
    say("the report", about=out / "report.html")
