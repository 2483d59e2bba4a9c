"""`pliant codesign`: an accelerator for networks, within the resources of a chip."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer
from rich.table import Table

from pliant.cli.accelerator import Gap, compile_notice, first_mapping
from pliant.cli.app import app, open_run, say, screen
from pliant.cli.bounds import MOST, MOST_THREADS
from pliant.cli.given import refuse_unused
from pliant.progress import shown

if TYPE_CHECKING:
    from pliant.accelerator.chip import Chip
    from pliant.report.codesign_page import CodesignResult
    from pliant.runs.codesign import CodesignOptions
    from pliant.search.codesign_front import FrontObjectives


@app.command()
def codesign(
    context: typer.Context,
    workload: Annotated[
        str | None,
        typer.Option(
            help="Networks, with commas: mobilenet-v2, squeezenet, mnasnet, resnet-50, vgg-16, "
            "u-net, or ONNX files."
        ),
    ] = None,
    supernet: Annotated[
        Path | None,
        typer.Option(help="A trained and searched run, whose networks are searched instead."),
    ] = None,
    within: Annotated[
        str, typer.Option(help="The chip whose resources bound the designs: a name or a .toml.")
    ] = "eyeriss",
    min_accuracy: Annotated[
        float | None,
        typer.Option(
            help="Least accuracy of a searched network, 0 to 1; that of --network if not given."
        ),
    ] = None,
    network: Annotated[
        str | None,
        typer.Option(
            help="Network of the supernet that the steps before the search for networks have, as "
            "text; the largest if not given."
        ),
    ] = None,
    minimise: Annotated[
        str,
        typer.Option(help="edp; or with commas several of edp, latency, energy, area: a front."),
    ] = "edp",
    maximise: Annotated[
        str, typer.Option(help="accuracy, of the networks of a supernet: a front.")
    ] = "",
    designs: Annotated[int, typer.Option(min=1, max=MOST, help="Designs of each search.")] = 200,
    networks: Annotated[
        int,
        typer.Option(
            min=1, max=MOST, help="Networks of the supernet that each design is tried with."
        ),
    ] = 40,
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
        int, typer.Option(min=1, max=MOST, help="That the evolution evaluates of each layer.")
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
    threads: Annotated[
        int, typer.Option(min=1, max=MOST_THREADS, help="Designs mapped side by side.")
    ] = 1,
    out: Annotated[
        Path, typer.Option(help="Folder of the result; a stopped search resumes.")
    ] = Path("designs"),
) -> None:
    """Search for an accelerator within a chip's resources, and show what gained what."""
    from dataclasses import replace

    from pliant.accelerator.chip import load_chip
    from pliant.accelerator.energy import energy_table
    from pliant.runs.codesign import CodesignOptions

    if (workload is None) == (supernet is None):
        raise typer.BadParameter(
            "a co-design is for given networks or for those of a supernet; give --workload or "
            "--supernet, one of them."
        )
    if supernet is None and (min_accuracy is not None or network is not None):
        raise typer.BadParameter(
            "--min-accuracy and --network are of the networks of a supernet; name it by --supernet."
        )
    if supernet is None:
        rule = "--networks is of those of a supernet; name it by --supernet"
        refuse_unused(context, ["networks"], rule)
    if mapper == "certified":
        rule = "--mappings is of --mapper evolution; the certified one needs no number"
        refuse_unused(context, ["mappings"], rule)
    else:
        refuse_unused(context, ["gap"], "--gap is of certified mappings; an evolution proves none")
    chip = load_chip(within)
    if energy is not None:
        chip = replace(chip, energy=energy_table({"table": energy}, "--energy"))
    options = CodesignOptions(
        designs=designs,
        seed=seed,
        dataflow=dataflow,
        gap=gap,
        mapper=mapper,
        mappings=mappings,
        encoding=encoding,
        loops_per_axis=loops_per_axis,
        networks=networks,
        objectives=_objectives(minimise, maximise),
        threads=threads,
    )
    if supernet is None:
        result = _for_workloads(str(workload), chip, out, options)
    else:
        result = _for_supernet(supernet, chip, out, options, min_accuracy, network)
    _say_result(result, out)


def _objectives(minimise: str, maximise: str) -> FrontObjectives | None:
    """Of a front; None for the least energy-delay product alone."""
    from pliant.search.codesign_front import FrontObjectives

    lists = [
        tuple(word.strip() for word in text.split(",") if word.strip())
        for text in (minimise, maximise)
    ]
    return None if lists == [("edp",), ()] else FrontObjectives(*lists)


def _for_workloads(text: str, chip: Chip, out: Path, options: CodesignOptions) -> CodesignResult:
    from pliant.runs.codesign import codesign as search
    from pliant.runs.codesign import parse_workloads

    workloads = parse_workloads(text)
    with compile_notice():
        first_mapping(chip)
    with shown(screen) as progress:
        return search(workloads, chip, out, options, progress=progress)


def _for_supernet(
    folder: Path,
    chip: Chip,
    out: Path,
    options: CodesignOptions,
    min_accuracy: float | None,
    network: str | None,
) -> CodesignResult:
    with open_run(str(folder)) as run:
        baseline = None if network is None else run.parse(network)

        from pliant.runs.codesign_supernet import codesign_supernet
        from pliant.runs.session import Session

        with compile_notice():
            first_mapping(chip)
        with shown(screen) as progress:
            session = Session(run, progress=progress)
            return codesign_supernet(
                session,
                chip,
                out,
                options,
                floor=min_accuracy,
                baseline=baseline,
                progress=progress,
            )


def _say_result(result: CodesignResult, out: Path) -> None:
    table = Table("step", "gain", *result.networks)
    for stage in result.stages:
        gains = [result.gain(stage), *result.network_gains(stage)]
        table.add_row(stage.name, *("failed" if one is None else f"{one:.2f}x" for one in gains))
    screen.print(table)
    if failure := result.stages[0].best.failure:
        say(f"the fixed dataflow cannot run these networks: {failure}")
    if (most := result.most_gain) is not None:
        same = "" if result.searched is None else " with the same network"
        say(f"no design within the resources gains more than {most:.2f}x{same}")
    if (found := result.searched) is not None:
        say(
            f"the network {found.network}: {found.top1:.2%} on all validation images, "
            f"{found.floor:.2%} asked for"
        )
    if result.front is not None:
        names = ", ".join(result.front.objectives.names)
        say(f"{len(result.front.front)} designs on the front of {names}")
    say("the best design", about=out / "best.toml")
    say("the report", about=out / "report.html")
