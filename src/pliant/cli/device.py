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
    PrecisionName,
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
from pliant.cli.bounds import MOST, MOST_THREADS
from pliant.cli.given import refuse_unused
from pliant.cli.score import Classes, ShapeText, parse_shape
from pliant.errors import EncodingError, MeasurementError, RecipeError, RunConflictError
from pliant.files import require_writable
from pliant.progress import shown

if TYPE_CHECKING:
    from pliant.devices.profile import DeviceProfile
    from pliant.devices.timings import Settings
    from pliant.metrics import InferencePrecision
    from pliant.runs.recipe import TargetTable
    from pliant.spaces.space import Space

device_app = typer.Typer(
    help="Devices: measure this machine, a phone or a board; see how well latency is predicted.",
    no_args_is_help=True,
)
app.add_typer(device_app, name="device")
LOCK = ".lock"
"""In a folder of profiles while it is measured into."""

Runtimes = Annotated[
    str | None,
    typer.Option(
        "--runtime",
        help="onnxruntime, openvino, pytorch, pytorch-compiled, litert; several with commas.",
    ),
]
Precisions = Annotated[
    str | None, typer.Option("--precision", help="fp32, int8, or both with a comma.")
]
Threads = Annotated[str | None, typer.Option(help="Threads per inference; several with commas.")]
Batches = Annotated[
    str | None, typer.Option("--batch", help="Images per run; several with commas.")
]
Levels = Annotated[
    str | None,
    typer.Option("--optimisation", help="basic, extended or all of ONNX Runtime; commas."),
]


@device_app.command()
def measure(
    context: typer.Context,
    recipe: OptionalRecipe = None,
    space: SpaceName = None,
    runtime: Runtimes = None,
    precision: Precisions = None,
    threads: Threads = None,
    batch: Batches = None,
    optimisation: Levels = None,
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
    profile per runtime, precision, threads, batch and optimisation level, and the roofs of the
    machine per thread count; what it already has is kept. How the networks run is as in the run or
    recipe where it is not given.
    """
    if out is None:
        rule = "the images of a run have their own shape and classes"
        refuse_unused(context, ["shape", "classes"], rule)
        changes = {
            "target.runtime": runtime,
            "target.precision": precision,
            "target.threads": threads and _number(threads),
            "target.batch": batch and _number(batch),
            "target.optimisation": optimisation,
            "space": space,
            "seed": seed,
        }
        _measure_run(recipe, changes | _data(data, skip_broken), run_dir)
        return
    own = _target_table(recipe)
    runs = _combinations(
        runtime or own.runtime or "onnxruntime",
        precision or own.precision,
        threads or str(own.threads),
        batch or str(own.batch),
        optimisation or own.optimisation,
    )
    require_writable(out)
    opening = _space(recipe, space, shape, classes, _data(data, skip_broken), run_dir)
    with opening as opened, _only_writer(out):
        done = [_measured(opened, settings, of, out, seed or 0) for settings, of in runs]
        for count in sorted({settings.threads for settings, _ in runs}):
            _measure_roofs(count, out)
    if failed := done.count(False):
        raise typer.Exit(2 if failed == len(runs) else 1)


@contextmanager
def _only_writer(folder: Path) -> Iterator[None]:
    """The right to measure into a folder; the system releases it when the process ends.

    Raises:
        RunConflictError: another process measures into it.
    """
    from filelock import FileLock, Timeout

    folder.mkdir(parents=True, exist_ok=True)
    lock = FileLock(folder / LOCK, blocking=False)
    try:
        lock.acquire()
    except Timeout:
        raise RunConflictError(
            f"one process measures into a folder at a time, another one does into {folder}. Wait "
            "until it ends, or name another folder with --out."
        ) from None
    try:
        yield
    finally:
        lock.release()  # the file stays: to remove it would race with the next process


def _target_table(recipe: str | None) -> TargetTable:
    """How the networks of a run or recipe run; the defaults where none is named.

    Raises:
        RecipeError: there is no such recipe.
    """
    from pliant.runs.recipe import TargetTable, load_recipe

    if recipe is None:
        return TargetTable()
    of_run = Path(recipe) / "recipe.toml"
    return load_recipe(str(of_run) if of_run.is_file() else recipe).target


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
    parts = [part.strip() for part in text.split(",")]
    if not all(parts):
        raise RecipeError(f"values are separated by one comma each, received {text!r}.")
    return parts


def _number(text: str) -> int:
    if not text.isdecimal() or not 1 <= int(text) <= MOST_THREADS:
        raise RecipeError(
            f"threads and batches are whole numbers from 1 to {MOST_THREADS}, received {text!r}."
        )
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
    if run_dir is not None:
        raise RecipeError(
            f"--run-dir is of a run, received {run_dir} without one. Name a recipe or --data."
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


def _measure_roofs(threads: int, out: Path) -> None:
    """Measure what this machine could do at most, where the folder does not know it yet."""
    from pliant.devices.data_sheet import save_sheet
    from pliant.devices.profile_folder import roofs_file
    from pliant.devices.roofs import FEW_ROUNDS, measure_roofs

    path = roofs_file(out, threads)
    if path.is_file():
        return
    with shown(screen) as progress:
        sheet = measure_roofs(
            threads,
            rounds=FEW_ROUNDS,
            progress=lambda note, done, total: progress("roofs", done, total, note),
        )
    save_sheet(sheet, path)
    say(f"pliant roofline NETWORK --target {out}/ shows networks under them", about=path)


def _say(profile: DeviceProfile, space: Space, path: Path) -> None:
    """What was measured, and how well latency is predicted from it."""
    from pliant.devices.profile_folder import folder_target

    say(profile.title, about=path)
    counts: Sequence[str] = (f"{len(profile.blocks)} blocks", f"{len(profile.networks)} networks")
    for claim in folder_target(path, profile, space).evidence():
        say(f"{', '.join(counts)}; {claim.value} on {claim.how}")


@device_app.command()
def bundle(
    out: Annotated[Path, typer.Option(help="The archive to write, such as bench.zip.")],
    recipe: OptionalRecipe = None,
    space: SpaceName = None,
    networks: Annotated[
        int,
        typer.Option(
            help="Networks to time there; up to ten are chosen by what they say about the device."
        ),
    ] = 40,
    precision: PrecisionName = None,
    batch: Annotated[
        int | None, typer.Option(min=1, max=MOST_THREADS, help="Images per run.")
    ] = None,
    shape: ShapeText = None,
    classes: Classes = None,
    data: Data = None,
    skip_broken: SkipBroken = None,
    run_dir: RunDir = None,
    seed: Seed = None,
) -> None:
    """Write networks and a script that times them on a phone or board, without Pliant.

    Precision and batch are those of the run or recipe where they are not given.
    """
    from pliant.metrics import as_precision

    own = _target_table(recipe)
    known = as_precision(precision) or own.precision
    with _space(recipe, space, shape, classes, _data(data, skip_broken), run_dir) as opened:
        from pliant.devices.bundle import write_bundle

        with shown(screen) as progress:
            has_tflite = write_bundle(
                out,
                opened,
                networks,
                precision=known,
                batch=batch or own.batch,
                seed=seed or 0,
                progress=lambda done, total: progress("bundle", done, total, ""),
            )
    formats = "ONNX and TFLite" if has_tflite else "ONNX"
    say(f"{networks} networks of space {opened.name} as {formats}", about=out)
    if not has_tflite:
        say("TFLite models for LiteRT are fp32, and need `pip install 'pliant[tflite]'`")
    say("on the device: unzip it, pip install onnxruntime, python run_bench.py")


@device_app.command("import")
def import_(
    results: Annotated[Path, typer.Argument(help="results.json of run_bench.py, or a .zip of it.")],
    out: Annotated[Path, typer.Option(help="Folder for the profile, such as my-board/.")],
    space: SpaceName = None,
    noise_limit: Annotated[
        float, typer.Option(min=0, max=MOST, help="Largest split-half error that is accepted.")
    ] = 0.05,
    sources: Annotated[
        list[Path] | None,
        typer.Option(
            help="Profiles of other devices for the same space, or folders of them; used where "
            "cross-validation says that they help. Repeatable.",
        ),
    ] = None,
    sheet: Annotated[
        str | None,
        typer.Option(
            help="Its data sheet: one that ships, such as raspberry-pi-4, or a .toml; for pliant "
            "roofline, and as the simplest predictor."
        ),
    ] = None,
) -> None:
    """Make a device profile of what run_bench.py measured.

    Rows that cannot be timings are named, the rest is kept. Exit code 0 where nothing was left
    out, else 1.
    """
    from pliant.devices.data_sheet import load_sheet, save_sheet
    from pliant.devices.profile_folder import keep_sources, profile_file, roofs_file
    from pliant.devices.results import import_results

    require_writable(out)
    roofs = None if sheet is None else load_sheet(sheet)
    imported = import_results(results, noise_limit=noise_limit)
    profile = imported.profile
    for note in imported.notes:
        print_error(note)
    opened = _space_of(profile, space)
    for row in profile.networks:
        _require_network(opened, row.architecture, results)  # nothing is written of ones unknown
    keep_sources(out, sources or [], opened, profile)
    if roofs is not None:
        save_sheet(roofs, roofs_file(out, profile.threads))
    path = profile_file(out, profile.space.name, profile.settings, profile.precision)
    _say(profile, opened, path)  # fits a predictor first
    profile.save(path)
    if imported.notes:
        raise typer.Exit(1)


def _require_network(space: Space, architecture: str, source: Path) -> None:
    """Check that a file's network is one of the space.

    Raises:
        RecipeError: it is none; names the file and the network.
    """
    try:
        space.parse(architecture)
    except EncodingError as error:
        raise RecipeError(
            f"{source} has a network {architecture!r} that space {space.name} lacks: {error}"
        ) from None


@device_app.command()
def show(
    folder: Annotated[Path, typer.Argument(help="A folder of profiles, or one profile.")],
    space: SpaceName = None,
) -> None:
    """What a device reports, how well its latency is predicted, and why to believe it."""
    from pliant.devices.profile import load_profile
    from pliant.devices.profile_folder import profiles_in

    found = profiles_in(folder) if folder.is_dir() else {folder: load_profile(folder)}
    for path, profile in found.items():
        _show(profile, _space_of(profile, space), path)


def _space_of(profile: DeviceProfile, name: str | None) -> Space:
    """The space of a profile by its name, or by the name of a space of one's own.

    Raises:
        RecipeError: its name means no shipped space; a file that it names is not run.
        ProfileMismatchError: it has changed since, or is another one.
    """
    from pliant.plugins import is_plugin
    from pliant.spaces.presets import preset

    key = profile.space
    if name is None and is_plugin(key.name):
        raise RecipeError(
            f"code that a data file names is never run; the space there is {key.name!r}. Name your"
            " own file with --space file.py:NAME."
        )
    try:
        opened = preset(
            name or key.name,
            channels=key.channels,
            image_size=key.image_size,
            classes=key.classes,
        )
    except RecipeError as error:
        if name is not None:
            raise
        raise RecipeError(f"{error} Name the space of the profile with --space.") from None
    profile.require_space(opened)
    return opened


def _show(profile: DeviceProfile, space: Space, path: Path) -> None:
    """One profile as a table."""
    from rich.table import Table
    from rich.text import Text

    from pliant.devices.profile_folder import folder_target

    target = folder_target(path, profile, space)
    latencies = [row.latency_ms for row in profile.networks]
    worst = max(row.split_half_error for row in profile.networks)
    table = Table("what", "found", title=Text(str(path)), show_header=False, title_justify="left")
    rows = {
        "device": profile.title,
        "space": f"{profile.space.name}, {profile.space.channels}x{profile.space.image_size}x"
        f"{profile.space.image_size}, {profile.space.classes} classes",
        "reports": ", ".join(target.metrics),
        "measured": f"{len(profile.networks)} networks of {min(latencies):.3g} to "
        f"{max(latencies):.3g} ms, {len(profile.blocks)} blocks",
        **{claim.claim: f"{claim.value} ({claim.how})" for claim in target.evidence()},
        "two halves of the rounds differ by": f"{profile.split_half_error:.1%} in the median, at "
        f"most {worst:.1%} of a network",
        "timings with other programs between": f"{profile.preempted_share:.0%}"
        + ("; pinned to its processors" if profile.pinned else ""),
        "known devices": ", ".join(target.sources) or "none",
        "roofs": "none" if target.roofs is None else target.roofs.name,
        "measures more here": "yes" if target.can_measure else "no: another machine or runtime",
    }
    for name, text in rows.items():
        table.add_row(Text(name), Text(text))  # as it is, also with brackets
    screen.print(table)
