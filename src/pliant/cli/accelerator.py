"""`pliant accelerator`: chips on paper, and the best way to run a network on one."""

from __future__ import annotations

import math
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from threading import Timer
from typing import TYPE_CHECKING, Annotated

import typer

from pliant.cli.bounds import MOST, MOST_THREADS
from pliant.files import require_writable

if TYPE_CHECKING:
    from pliant.accelerator.chip import Chip
    from pliant.accelerator.mapper.optimal import BestMapping
    from pliant.accelerator.network_mapping import NetworkMapping
    from pliant.workload import Workload

app = typer.Typer(
    help="Accelerators on paper: chips, exact costs, and mappings proven to be the best.",
    no_args_is_help=True,
)

COMPILE_NOTICE_S = 2.0
"""Silence after which a first search says that it compiles."""

Model = Annotated[
    Path | None, typer.Argument(help="An ONNX file; left out where --space names a network.")
]
SpaceName = Annotated[
    str | None,
    typer.Option(
        "--space", help="A search space instead of a file: digits, mobile-32, ofa-resnet50, ..."
    ),
]
Architecture = Annotated[
    str, typer.Option(help="A network of the space: largest, smallest, or its text form.")
]
Images = Annotated[
    str, typer.Option(help="Images that the network of a space gets, channels x size.")
]
IMAGES, CLASSES = "3x224", 1000
Classes = Annotated[int, typer.Option(min=1, max=MOST, help="Labels of the network of a space.")]
ChipName = Annotated[
    str, typer.Option("--chip", help="A chip that ships (see `list`), or a TOML file.")
]
Objective = Annotated[
    str,
    typer.Option(
        help="energy, latency, edp (energy times delay), or a product such as energy^2*latency."
    ),
]
Sizes = Annotated[
    list[str] | None,
    typer.Option(
        "--size",
        help="The value of an open size of the ONNX inputs, as batch=1, or by input and "
        "dimension as image:0=1. Repeatable.",
    ),
]
Skip = Annotated[
    list[str] | None,
    typer.Option(help="An operator without a cost of its own, passed through as free. Repeatable."),
]
Cache = Annotated[
    Path | None,
    typer.Option(
        help="Folder of results; layers of equal shape on equal chips are never mapped twice."
    ),
]


def _finite(seconds: float) -> float:
    if not math.isfinite(seconds):
        raise typer.BadParameter(f"seconds are a finite number, 0 for no limit, received {seconds}")
    return seconds


Limit = Annotated[
    float,
    typer.Option(
        min=0.0,
        callback=_finite,
        help="Seconds per layer shape; then the best so far counts, with its gap. 0: no limit.",
    ),
]


def _share(written: str | float) -> float:
    text = str(written).strip()  # the default is a number
    try:
        share = float(text.removesuffix("%")) / (100 if text.endswith("%") else 1)
    except ValueError:
        share = math.nan
    if not 0.0 <= share < 1.0:
        raise typer.BadParameter(
            f"a gap is a share from 0 to below 1, such as 1% or 0.01, received {text}"
        )
    return share


Gap = Annotated[
    float,
    typer.Option(
        parser=_share,
        metavar="SHARE",
        help="How far from the best a mapping may be, as 1%. Faster, and within the gap instead of "
        "proven best.",
    ),
]


@app.command("list")
def list_chips() -> None:
    """The chips that ship, with their sources."""
    from pliant.accelerator.chip import load_chip, shipped_chips

    for name in shipped_chips():
        chip = load_chip(name)
        array = " x ".join(f"{axis.size} {axis.name} ({axis.loops})" for axis in chip.axes)
        buffer = f"{chip.buffer.total_bytes / 1024:,.0f} KiB buffer"
        typer.echo(
            f"{name:16} {array}, {buffer}, {chip.clock_mhz:g} MHz, "
            f"{chip.area_mm2:.2f} mm2 without control and pads"
        )
        typer.echo(f"{'':16} {chip.source}")


@app.command("map")
def map_network(
    model: Model = None,
    chip: ChipName = "eyeriss",
    objective: Objective = "edp",
    report: Annotated[Path | None, typer.Option(help="Write an HTML report here.")] = None,
    space: SpaceName = None,
    architecture: Architecture = "largest",
    images: Images = IMAGES,
    classes: Classes = CLASSES,
    size: Sizes = None,
    skip: Skip = None,
    cache: Cache = None,
    time_limit_s: Limit = 0.0,
    gap: Gap = 0.0,
    threads: Annotated[
        int, typer.Option(min=1, max=MOST_THREADS, help="Layer shapes that are mapped at once.")
    ] = 1,
) -> None:
    """The best mapping of every layer: loop nest, cost, proof."""
    from pliant.accelerator.network_mapping import map_workload

    hardware = _chip(chip)
    workload = _workload(model, size or [], skip or [], space, architecture, images, classes)
    number = 0

    def progress(best: BestMapping) -> None:
        nonlocal number
        number += 1
        typer.echo(_layer_lines(number, best, hardware))

    limit = time_limit_s or float("inf")
    for folder in (cache, report and report.parent):
        if folder is not None:
            require_writable(folder)
    with compile_notice():
        first_mapping(hardware)
    mapped = map_workload(
        workload,
        hardware,
        objective,
        time_limit_s=limit,
        gap=gap,
        threads=threads,
        cache=cache,
        progress=progress,
    )
    typer.echo(_total(mapped))
    if report is not None:
        from pliant.report.mapping_page import write_mapping_report

        write_mapping_report(mapped, report)
        typer.echo(f"Report: {report}")


@app.command()
def explain(
    layer: Annotated[str, typer.Option(help="Number (from 1) or name of the layer.")],
    model: Model = None,
    chip: ChipName = "eyeriss",
    objective: Objective = "edp",
    space: SpaceName = None,
    architecture: Architecture = "largest",
    images: Images = IMAGES,
    classes: Classes = CLASSES,
    size: Sizes = None,
    skip: Skip = None,
    time_limit_s: Limit = 0.0,
) -> None:
    """Where cycles and energy of one layer go, as picture and words."""
    from pliant.accelerator.explain import explanation
    from pliant.accelerator.mapper.optimal import optimal_mapping

    hardware = _chip(chip)
    workload = _workload(model, size or [], skip or [], space, architecture, images, classes)
    names = [item.name for item in workload.layers]
    chosen = workload.layers[_layer_index(layer, names)]
    with compile_notice():
        first_mapping(hardware)
    best = optimal_mapping(chosen, hardware, objective, time_limit_s=time_limit_s or float("inf"))
    typer.echo(explanation(best, hardware))


@contextmanager
def compile_notice() -> Iterator[None]:
    """Says after a while why nothing is there yet: the first search compiles its kernels."""
    text = "The mapper is being compiled; this takes about half a minute, once per installation."
    timer = Timer(COMPILE_NOTICE_S, lambda: typer.echo(text, err=True))
    timer.start()
    try:
        yield
    finally:
        timer.cancel()


def first_mapping(chip: Chip) -> None:
    """Maps one multiply-accumulate: loads the kernels, or compiles them where they are new."""
    from pliant.accelerator.mapper.optimal import optimal_mapping
    from pliant.workload import Layer

    optimal_mapping(Layer("first", "matmul", ("input",)), chip)


def _layer_index(layer: str, names: list[str]) -> int:
    from pliant.errors import RecipeError, nearest

    if layer in names:
        return names.index(layer)
    if layer.isdecimal() and 1 <= int(layer) <= len(names):
        return int(layer) - 1
    raise RecipeError(
        f"--layer is a name, or a number from 1 to {len(names)}; received {layer!r}. "
        f"{nearest(layer, names)}"
    )


def _chip(name: str) -> Chip:
    from pliant.accelerator.chip import load_chip

    return load_chip(name)


def _workload(
    model: Path | None,
    sizes: list[str],
    skip: list[str],
    space: str | None,
    architecture: str,
    images: str,
    classes: int,
) -> Workload:
    """The network of an ONNX file, or of a space where one is named."""
    from pliant.errors import RecipeError
    from pliant.workload.onnx_reader import onnx_workload

    if space is not None:
        if sizes or skip:
            raise RecipeError(
                "--size and --skip are of an ONNX file; the network of a --space has neither open "
                f"sizes nor unknown operators, received {', '.join([*sizes, *skip])}. Leave them "
                "out."
            )
        return _of_space(model, space, architecture, images, classes)
    if model is None:
        raise RecipeError(
            "a network is needed: an ONNX file, or --space with the name of a search space."
        )
    if (architecture, images, classes) != ("largest", IMAGES, CLASSES):
        raise RecipeError(
            "--architecture, --images and --classes are of a network of a --space; a file has its "
            f"own, received {architecture}, {images} and {classes} for {model}. Leave them out."
        )
    stated = {}
    for text in sizes:
        name, _, value = text.partition("=")
        if not name or not value.isdecimal() or int(value) < 1:
            raise RecipeError(
                "--size is written name=number, as batch=1, and the number is 1 or more; received "
                f"{text!r}."
            )
        stated[name] = int(value)
    return onnx_workload(model, sizes=stated, skip=skip)


def _of_space(
    model: Path | None, name: str, architecture: str, images: str, classes: int
) -> Workload:
    from pliant.errors import RecipeError
    from pliant.spaces.presets import preset

    if model is not None:
        raise RecipeError(f"one network at a time: leave out {model}, or --space {name}.")
    channels, _, size = images.partition("x")
    if not (channels.isdecimal() and size.isdecimal() and int(channels) > 0):
        raise RecipeError(f"--images is written channels x size, as 3x224; received {images!r}.")
    space = preset(name, channels=int(channels), image_size=int(size), classes=classes)
    ends = {"largest": space.largest, "smallest": space.smallest}
    return space.lower(ends[architecture]() if architecture in ends else space.parse(architecture))


def _layer_lines(number: int, best: BestMapping, chip: Chip) -> str:
    from pliant.accelerator.explain import proof
    from pliant.accelerator.mapping import format_mapping

    cost = best.cost
    energy = _energy(cost.energy, cost.energy_unit)
    head = (
        f"{number}. {best.layer.name}: {cost.latency_ms:.4g} ms, {energy}, "
        f"utilisation {cost.utilisation:.1%}, bound by {cost.bound_by}"
    )
    nest = format_mapping(best.mapping, [axis.name for axis in chip.axes])
    return "\n".join([head, *("   " + line for line in nest.splitlines()), f"   {proof(best)}", ""])


def _total(mapped: NetworkMapping) -> str:
    energy = _energy(mapped.energy, mapped.chip.energy.unit)
    left_out = ", ".join(mapped.workload.left_out)
    if left_out:
        proven = f"without {left_out}, so nothing is proven of the network"
    elif mapped.proven:
        proven = "every mapping proven best"
    elif all(best.certificate.complete for best in mapped.layers):
        gap = max(best.certificate.gap for best in mapped.layers)
        proven = f"every mapping within {100 * gap:.3g} % of the best"
    else:
        proven = "not every mapping proven (time limit)"
    return (
        f"{len(mapped.layers)} layers, {mapped.distinct} shapes on {mapped.chip.name}: "
        f"{mapped.latency_ms:.4g} ms, {energy}, utilisation {mapped.utilisation:.1%}; {proven}, "
        f"{mapped.seconds:.1f} s"
    )


def _energy(energy: float, unit: str) -> str:
    return (
        f"{energy * 1e-9:.4g} mJ"
        if unit == "picojoule"
        else f"{energy / 1e6:,.4g} million MAC energies"
    )
