"""`pliant device`: measure this machine, or one that only runs a script, for a search space."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from itertools import product
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from pliant.cli.app import (
    Data,
    OptionalRecipe,
    RunDir,
    Seed,
    SkipBroken,
    SpaceName,
    app,
    open_run,
    print_error,
    say,
    screen,
)
from pliant.cli.score import Classes, ShapeText, parse_shape
from pliant.errors import MeasurementError, RecipeError
from pliant.progress import shown

if TYPE_CHECKING:
    from pliant.devices.profile import DeviceProfile
    from pliant.devices.timings import Settings
    from pliant.metrics import InferencePrecision
    from pliant.spaces.space import Space

device_app = typer.Typer(
    help="Devices: measure this machine, a phone or a board; see how well latency is predicted.",
    no_args_is_help=True,
)
app.add_typer(device_app, name="device")

Runtimes = Annotated[
    str,
    typer.Option(
        "--runtime", help="onnxruntime, openvino, pytorch, pytorch-compiled; several with commas."
    ),
]
Precisions = Annotated[str, typer.Option("--precision", help="fp32, int8, or both with a comma.")]
Threads = Annotated[str, typer.Option(help="Threads per inference; several with commas.")]
Batches = Annotated[str, typer.Option("--batch", help="Images per run; several with commas.")]
Levels = Annotated[
    str, typer.Option("--optimisation", help="basic, extended or all of ONNX Runtime; commas.")
]


@device_app.command()
def measure(
    recipe: OptionalRecipe = None,
    space: SpaceName = None,
    runtime: Runtimes = "onnxruntime",
    precision: Precisions = "fp32",
    threads: Threads = "1",
    batch: Batches = "1",
    optimisation: Levels = "all",
    out: Annotated[
        Path | None, typer.Option(help="Folder for the profiles; the run's own if left out.")
    ] = None,
    shape: ShapeText = None,
    classes: Classes = None,
    data: Data = None,
    skip_broken: SkipBroken = None,
    run_dir: RunDir = None,
    seed: Seed = None,
) -> None:
    """Measure this machine: the latency of all blocks of a space, and of whole networks.

    The space is that of a run or recipe, or --space with the images of --shape. A folder holds one
    profile per runtime, precision, threads, batch and optimisation level; those that it already
    has are kept.
    """
    if out is None:
        changes = {"target.runtime": runtime, "target.precision": precision, "space": space}
        _measure_run(recipe, changes | _data(data, skip_broken), run_dir)
        return
    runs = _combinations(runtime, precision, threads, batch, optimisation)
    with _space(recipe, space, shape, classes, _data(data, skip_broken), run_dir) as opened:
        done = [_measured(opened, settings, of, out, seed or 0) for settings, of in runs]
    if failed := done.count(False):
        raise typer.Exit(2 if failed == len(runs) else 1)


def _measure_run(recipe: str | None, changes: dict[str, Any], run_dir: Path | None) -> None:
    """Measure this machine for a run, which keeps the profile."""
    if recipe is None and "data.source" not in changes:
        raise RecipeError(
            "profiles that belong to no run are written to a folder, received none. Name it with "
            "--out, such as --out this-cpu/, or name a recipe or a run."
        )
    with open_run(recipe, run_dir, changes) as run:
        from pliant.devices.measured_target import MeasuredTarget
        from pliant.runs.session import Session

        with shown(screen) as progress:
            target = Session(run, limits=(), progress=progress).target
        if not isinstance(target, MeasuredTarget):
            raise RecipeError(
                f"a profile is of a machine that is measured; the target of this run is "
                f"{target.name}. Set target.name to this-cpu to measure this machine."
            )
        _say(target.profile, run.space, run.profile_path)


def _combinations(
    runtimes: str, precisions: str, threads: str, batches: str, levels: str
) -> list[tuple[Settings, InferencePrecision]]:
    """Every combination of the values that the options list; refused before anything is measured.

    Raises:
        RecipeError: a runtime is not installed or unknown, or has no such precision or level.
    """
    from pliant.devices.runtimes import runtime_named
    from pliant.devices.timings import Settings
    from pliant.metrics import as_precision

    found = []
    for runtime, precision, count, images, level in product(
        _listed(runtimes), _listed(precisions), _listed(threads), _listed(batches), _listed(levels)
    ):
        settings = Settings(_number(count), _number(images), level, runtime)  # type: ignore[arg-type]
        known = as_precision(precision)
        assert known is not None
        runtime_named(runtime).require(settings, known)
        found.append((settings, known))
    return found


def _listed(text: str) -> list[str]:
    return [part.strip() for part in text.split(",") if part.strip()]


def _number(text: str) -> int:
    if not text.isdecimal() or int(text) < 1:
        raise RecipeError(f"threads and batches are whole numbers from 1, received {text!r}.")
    return int(text)


def _data(data: str | None, skip_broken: bool | None) -> dict[str, Any]:
    given = {"data.source": data, "data.skip_broken": skip_broken}
    return {key: value for key, value in given.items() if value is not None}


@contextmanager
def _space(
    recipe: str | None,
    name: str | None,
    shape: str | None,
    classes: int | None,
    data: dict[str, Any],
    run_dir: Path | None,
) -> Iterator[Space]:
    """The space of a run, or one by its name for images of a shape."""
    if recipe is not None or data:
        if shape or classes:
            raise RecipeError(
                "the images of a run have their own shape and classes. Leave out --shape and "
                "--classes."
            )
        with open_run(recipe, run_dir, {"space": name} | data) as run:
            yield run.space
        return
    if name is None:
        raise RecipeError(
            "a device is measured for the networks of a space, received none. Name it with "
            "--space, or name a recipe, a run or --data."
        )
    from pliant.scoring.images import default_shape
    from pliant.spaces.presets import preset, space_name

    default = default_shape(space_name(name))
    channels, size = parse_shape(shape) if shape else (default.channels, default.image_size)
    yield preset(name, channels=channels, image_size=size, classes=classes or default.classes)


def _measured(
    space: Space, settings: Settings, precision: InferencePrecision, out: Path, seed: int
) -> bool:
    """Whether one profile was measured; where the machine is too busy, the others may still be."""
    try:
        _measure(space, settings, precision, out, seed)
    except MeasurementError as error:
        print_error(f"{settings.runtime}, {precision}: {error}")
        return False
    return True


def _measure(
    space: Space, settings: Settings, precision: InferencePrecision, out: Path, seed: int
) -> None:
    """Measure one profile into a folder, or say what the folder already has."""
    from pliant.devices.profile import load_profile, profile_device
    from pliant.devices.profile_folder import profile_file

    path = profile_file(out, space.name, settings, precision)
    if path.is_file():
        kept = load_profile(path)
        kept.require_space(space)
        say("kept; remove it to measure again", about=path)
        _say(kept, space, path)
        return
    with shown(screen) as progress:
        title = f"{settings.runtime}, {precision}"
        made = profile_device(
            space,
            settings,
            seed=seed,
            precision=precision,
            measurements=path.with_name(f"{path.stem}-measurements.parquet"),
            progress=lambda note, done, total: progress(title, done, total, note),
        )
    made.save(path)
    _say(made, space, path)


def _say(profile: DeviceProfile, space: Space, path: Path) -> None:
    """What was measured, and how well latency is predicted from it."""
    from pliant.devices.measured_target import MeasuredTarget

    say(profile.title, about=path)
    counts: Sequence[str] = (f"{len(profile.blocks)} blocks", f"{len(profile.networks)} networks")
    for claim in MeasuredTarget(profile, space).evidence():
        say(f"{', '.join(counts)}; {claim.value} on {claim.how}")
