"""`pliant roofline`: what each layer of a network waits for on a device, and why one is faster."""

from __future__ import annotations

import tempfile
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal

import typer
from rich.table import Table

from pliant.cli.app import PrecisionName, app, say, screen
from pliant.cli.bounds import MOST, MOST_THREADS
from pliant.cli.given import refuse_unused
from pliant.cli.score import AnySpace
from pliant.errors import DamagedFileError, RecipeError, nearest
from pliant.files import require_writable
from pliant.progress import shown

if TYPE_CHECKING:
    from pliant.workload import Workload
    from pliant.workload.roofline import NetworkRoofline, Roofline

THIS_CPU = "this-cpu"


IMAGES, CLASSES = "3x224", 1000


@app.command()
def roofline(
    context: typer.Context,
    networks: Annotated[
        list[str],
        typer.Argument(
            help="ONNX files, modules of your own as file.py:NAME, or with --space networks of it: "
            "largest, smallest, or the text form of an architecture."
        ),
    ],
    target: Annotated[
        str,
        typer.Option(
            help="this-cpu (its roofs are measured, and the layers timed), a folder of profiles "
            "(this-cpu/), a chip, a data sheet that ships (raspberry-pi-4, ...), or the .toml of "
            "either."
        ),
    ] = THIS_CPU,
    space: AnySpace = None,
    images: Annotated[
        str,
        typer.Option(help="Images that a module or a network of a space gets, channels x size."),
    ] = IMAGES,
    classes: Annotated[
        int, typer.Option(min=1, max=MOST, help="Labels of a network of a space.")
    ] = CLASSES,
    precision: PrecisionName = None,
    size: Annotated[
        list[str] | None,
        typer.Option(
            "--size",
            help="The value of an open size of the ONNX inputs, as N=8; an open batch is 1. "
            "Repeatable.",
        ),
    ] = None,
    skip: Annotated[
        list[str] | None,
        typer.Option(
            help="An operator of ONNX files without a cost of its own, passed through as free. "
            "Repeatable."
        ),
    ] = None,
    threads: Annotated[
        int, typer.Option(min=1, max=MOST_THREADS, help="Threads of this machine.")
    ] = 1,
    roofs: Annotated[
        Path | None,
        typer.Option(help="Where the measured roofs of this machine are kept, .toml."),
    ] = None,
    report: Annotated[Path | None, typer.Option(help="Write an interactive page here.")] = None,
) -> None:
    """Every layer under the roofs of a device: arithmetic intensity, what it waits for, its time.

    Of several networks it says why the fastest is faster.
    """
    from pliant.workload.roofline import why_faster

    _refuse_unused(context, target)
    if report is not None:
        require_writable(report.parent)
    options = (space, images, classes, precision, size or [], skip or [])
    loaded = [_load(name, *options) for name in networks]
    device = _device(target, threads, roofs)
    placed: list[NetworkRoofline] = []
    found: Roofline | None = None
    for one in loaded:
        network, under = device.place(one, threads)
        if found is not None and under != found:
            raise RecipeError(
                "networks are compared under the same roofs; these have different precisions."
                " Compare networks of one precision."
            )
        found = under
        placed.append(network)
    assert found is not None
    for network in placed:
        screen.print(_table(network))
        _say_total(network)
    for sentence in why_faster(placed):
        say(sentence)
    if any(one.model is None for one in loaded) and device.is_here:
        say("A module is not timed: export it to ONNX to see what its layers achieve.")
    if report is not None:
        from pliant.report.roofline_page import write_roofline_page

        write_roofline_page(placed, found, report, device=device.name, source=device.source)
        say("", about=report)


def _refuse_unused(context: typer.Context, target: str) -> None:
    """Refuse what is of this machine where the target is another device.

    Raises:
        RecipeError: such an option.
    """
    from pliant.targets import is_folder

    if target == THIS_CPU:
        return
    rule = f"--roofs keeps what is measured with --target {THIS_CPU}; {target} has its own roofs"
    refuse_unused(context, ["roofs"], rule)
    if not is_folder(target):
        rule = f"threads are those of {THIS_CPU} or of a folder of profiles; {target} has one speed"
        refuse_unused(context, ["threads"], rule)


@dataclass(frozen=True)
class _Loaded:
    """A network: its layers, and the model that ONNX Runtime can run."""

    name: str
    workload: Workload
    model: bytes | None
    sizes: Mapping[str, int] = field(default_factory=dict)
    """Of the open dimensions of the model's inputs, by name."""


def _load(
    name: str,
    space: str | None,
    images: str,
    classes: int,
    precision: str | None,
    sizes: list[str],
    skip: list[str],
) -> _Loaded:
    from pliant.plugins import is_plugin

    for option, of, given in (("skip", "operators", skip), ("size", "open sizes", sizes)):
        if given and (space is not None or is_plugin(name)):
            raise RecipeError(
                f"--{option} is of {of} of ONNX files, received {', '.join(given)} for {name}."
                " Leave it out."
            )
    if space is not None:
        return _of_space(name, space, images, classes, precision)
    if precision is not None:
        raise RecipeError(
            "--precision is of networks of a --space; a file has its own, received "
            f"{precision} for {name}."
        )
    if is_plugin(name):
        if classes != CLASSES:
            raise RecipeError(
                "--classes is of a network of a --space; a module has its own, received "
                f"{classes} for {name}. Leave it out."
            )
        return _of_module(name, images)
    if (images, classes) != (IMAGES, CLASSES):
        raise RecipeError(
            "--images and --classes are of a module or a network of a --space; a file has its own, "
            f"received {images} and {classes} for {name}. Leave them out."
        )
    return _of_file(Path(name), sizes, skip)


def _of_file(path: Path, sizes: list[str], skip: list[str]) -> _Loaded:
    """An ONNX file; a size that is open in front of an input is the batch."""
    import onnx
    from google.protobuf.message import DecodeError

    from pliant.workload.onnx_reader import onnx_workload

    stated = {}
    for text in sizes:
        key, _, value = text.partition("=")
        if not key or not value.isdecimal() or int(value) < 1:
            raise RecipeError(
                "--size is written name=number, as N=8, and the number is 1 or more; received "
                f"{text!r}."
            )
        stated[key] = int(value)
    try:
        content = path.read_bytes()
        proto = onnx.load_from_string(content)
    except OSError as error:
        raise DamagedFileError(f"the ONNX file {path} cannot be read: {error.strerror}.") from None
    except DecodeError as error:
        raise DamagedFileError(f"{path} is no ONNX model: {error}.") from None
    for value in proto.graph.input:
        for axis, dim in enumerate(value.type.tensor_type.shape.dim):
            is_open = dim.dim_value < 0 or not dim.HasField("dim_value")
            if is_open and axis == 0 and dim.dim_param not in stated:
                stated.setdefault(dim.dim_param or f"{value.name}:0", 1)
    workload = onnx_workload(path, sizes=stated, skip=skip)
    name = path.stem if path.stem != "model" else f"{path.parent.name}/{path.stem}"
    return _Loaded(name, workload, content, stated)


def _of_module(name: str, images: str) -> _Loaded:
    import torch

    from pliant.networks.trace import module_workload
    from pliant.plugins import call_plugin, plugin_name

    channels, pixels = _shape(images)
    module = call_plugin(name, what="a network")
    if not isinstance(module, torch.nn.Module):
        raise RecipeError(f"{name} must return an nn.Module, received {type(module).__name__}.")
    workload = module_workload(module, torch.zeros(1, channels, pixels, pixels))
    return _Loaded(plugin_name(name), workload, None)


def _of_space(
    name: str, space_name: str, images: str, classes: int, precision: str | None
) -> _Loaded:
    import numpy as np

    from pliant.devices.profile import random_network_model
    from pliant.metrics import as_precision
    from pliant.spaces.presets import preset

    channels, pixels = _shape(images)
    kind = as_precision(precision) or "fp32"
    space = preset(space_name, channels=channels, image_size=pixels, classes=classes)
    ends = {"largest": space.largest, "smallest": space.smallest}
    architecture = ends[name]() if name in ends else space.parse(name)
    model = random_network_model(space.blocks(architecture), np.random.default_rng(0), kind)
    # The layers of the file have the names of its nodes, by which the runtime reports times.
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "network.onnx"
        path.write_bytes(model)
        return replace(_of_file(path, [], []), name=name)


def _shape(images: str) -> tuple[int, int]:
    channels, _, pixels = images.partition("x")
    if not (channels.isdecimal() and pixels.isdecimal() and int(channels) and int(pixels)):
        raise RecipeError(f"--images is written channels x size, as 3x224; received {images!r}.")
    return int(channels), int(pixels)


@dataclass(frozen=True)
class _Device:
    """Where the roofs come from: measured here, a chip, or a data sheet."""

    name: str
    source: str
    is_here: bool
    sheet: object = None
    chip: object = None

    def place(self, loaded: _Loaded, threads: int) -> tuple[NetworkRoofline, Roofline]:
        """A network under the roofs of its precision, with times where this is the device."""
        from pliant.accelerator.chip import Chip
        from pliant.devices.data_sheet import DataSheet, workload_bits
        from pliant.workload import with_bits
        from pliant.workload.roofline import NetworkRoofline, layer_bounds

        workload = loaded.workload
        if isinstance(self.chip, Chip):  # a chip has a word width of its own
            narrow = with_bits(workload.layers, self.chip.word_widths.input_bits)
            workload, under = replace(workload, layers=narrow), self.chip.roofline
            return NetworkRoofline(loaded.name, layer_bounds(workload, under)), under
        assert isinstance(self.sheet, DataSheet)
        if self.is_here and loaded.model is not None:
            from pliant.devices.layer_times import timed_roofline
            from pliant.devices.timings import Settings

            settings = Settings(threads=threads)
            return timed_roofline(
                loaded.name, workload, self.sheet, loaded.model, settings, sizes=loaded.sizes
            )
        under = self.sheet.roofline(workload_bits(workload))
        return NetworkRoofline(loaded.name, layer_bounds(workload, under)), under


def _device(target: str, threads: int, roofs: Path | None) -> _Device:
    from pliant.accelerator.chip import load_chip, shipped_chips
    from pliant.devices.data_sheet import is_sheet, load_sheet, shipped_sheets
    from pliant.targets import is_folder

    if target == THIS_CPU:
        sheet = _measured(threads, roofs)
        return _Device(sheet.name, sheet.source, is_here=True, sheet=sheet)
    if is_folder(target) and Path(target).is_dir():
        return _of_folder(Path(target), threads)
    if is_sheet(target):
        sheet = load_sheet(target)
        return _Device(sheet.name, sheet.source, is_here=False, sheet=sheet)
    if target in shipped_chips() or target.endswith(".toml"):
        chip = load_chip(target)
        return _Device(chip.name, chip.source or target, is_here=False, chip=chip)
    known = [THIS_CPU, *shipped_chips(), *shipped_sheets()]
    raise RecipeError(
        f"roofs are those of {THIS_CPU}, of a folder of profiles (this-cpu/), of a chip or of a "
        f"data sheet ({', '.join(known[1:])}, or a .toml file), received {target!r}. "
        f"{nearest(target, known)}"
    )


def _of_folder(folder: Path, threads: int) -> _Device:
    """The roofs that a folder of profiles keeps; layers are timed where it is of this machine."""
    from pliant.devices.profile_folder import folder_roofs, profiles_in, roofs_file
    from pliant.devices.roofs import roofs_name

    profiles = profiles_in(folder).values()
    sheet = folder_roofs(folder, threads)
    if sheet is None:
        raise RecipeError(
            f"{folder} keeps no roofs for {threads} thread(s), {roofs_file(folder, threads).name}. "
            "On this machine pliant device measure adds them; of another device name the data "
            "sheet: pliant device import RESULTS --sheet raspberry-pi-4."
        )
    for one in profiles:
        if one.threads == threads:
            sheet = sheet.with_convolutions(one.convolution_peak_gflops)
    return _Device(sheet.name, sheet.source, is_here=sheet.name == roofs_name(threads), sheet=sheet)


def _measured(threads: int, path: Path | None):  # type: ignore[no-untyped-def]
    """The roofs of this machine, measured now or kept in a file."""
    from pliant.devices.data_sheet import load_sheet, save_sheet
    from pliant.devices.roofs import measure_roofs, roofs_name

    if path is not None and path.suffix != ".toml":
        raise RecipeError(f"--roofs is a .toml file, received {path}.")
    if path is not None and path.is_file():
        kept = load_sheet(path)
        if kept.name != roofs_name(threads):
            raise RecipeError(
                f"{path} has the roofs of {kept.name}, this is {roofs_name(threads)}. Name another"
                " file, or remove it to measure again."
            )
        return kept
    with shown(screen) as progress:
        sheet = measure_roofs(
            threads, progress=lambda note, done, total: progress("roofs", done, total, note)
        )
    if path is not None:
        save_sheet(sheet, path)
    return sheet


def _table(network: NetworkRoofline) -> Table:
    from pliant.report.roofline_page import runtime_note, waits_for
    from pliant.workload.roofline import without_time

    table = Table(title=network.name, caption=runtime_note(network) or None)
    for head in ("Layer", "MACs/byte", "Waits for", "At least µs", "Took µs", "Of roof"):
        justify: Literal["left", "right"] = "left" if head in ("Layer", "Waits for") else "right"
        width = {"Layer": None, "Waits for": len("memory (L2)")}.get(head, len(head))
        table.add_column(head, justify=justify, no_wrap=True, min_width=width)
    rows = zip(network.layers, network.achieved, network.shares_of_roof, strict=True)
    for layer, seconds, of_roof in rows:
        took, share = without_time(network, layer), ""
        if seconds and of_roof is not None:
            took, share = f"{1e6 * seconds:.3g}", f"{of_roof:.0%}"
        table.add_row(
            layer.name,
            f"{layer.macs_per_byte:.3g}",
            waits_for(layer),
            f"{1e6 * layer.least_seconds:.3g}",
            took,
            share,
        )
    return table


def _say_total(network: NetworkRoofline) -> None:
    from pliant.report.quantities import count, quantity

    least = quantity("latency_ms", 1e3 * network.least_seconds)
    took = "" if network.seconds is None else (
        f"{quantity('latency_ms', 1e3 * network.seconds)} in kernels, "
    )  # fmt: skip
    say(
        f"{network.name}: {count(network.macs)} MACs, {took}at least {least}; "
        f"{network.memory_bound_layers} of {len(network.layers)} layers wait for memory"
    )
    for note in network.notes:
        say(note)
