"""What the commands share: options that change a recipe, progress bars, and error messages."""

from __future__ import annotations

import os
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer
from rich.console import Console
from rich.markup import escape
from rich.text import Text
from typer.core import TyperGroup

import pliant
from pliant.cli.bounds import MOST
from pliant.cli.interrupts import say_stopped
from pliant.errors import RecipeError
from pliant.files import is_device, with_full_place
from pliant.plugins import error_place
from pliant.progress import shown

if TYPE_CHECKING:
    from pliant.runs.recipe import Recipe
    from pliant.runs.run import Run


TRAINING_DEVICES = ("cpu", "cuda", "mps")


def _require_words(words: list[str]) -> None:
    """Refuse empty values, which read as the current folder, what is not in UTF-8, and devices."""
    for before, word in zip(("pliant", *words), words, strict=False):
        name, equals, value = word.partition("=") if word.startswith("-") else (before, "", word)
        if not value.strip() and (equals or not word.startswith("-")):
            raise RecipeError(
                f"an option or argument has a value, received an empty one for {name}. Name one, "
                "or leave it out."
            )
        try:
            word.encode()
        except UnicodeEncodeError:
            raise RecipeError(
                f"names and texts are in UTF-8, received {word!a} after {before!a}. "
                "Rename the file."
            ) from None
        for path in (value, value.rpartition(":")[0]):  # of file.py:NAME, the file
            if is_device(path):
                raise RecipeError(
                    f"paths are of files and folders; {path} is a pipe or a device, which may "
                    "never end. Copy its content to a file."
                )


class _Commands(TyperGroup):
    """The commands, which end in one sentence also where other code would end the process."""

    def parse_args(self, ctx: Any, args: list[str]) -> list[str]:
        """Check the words of a command line before any is read as an option."""
        _require_words(args)
        return super().parse_args(ctx, args)

    def invoke(self, ctx: Any) -> Any:
        """Run the command that was named."""
        try:
            return super().invoke(ctx)
        except KeyboardInterrupt:
            raise typer.Exit(say_stopped()) from None
        except SystemExit as end:
            raise RecipeError(
                f"code of your own ends with an error or a result; {error_place(end)} called "
                f"sys.exit({end.code!r}). Raise an error instead."
            ) from end


def _training_device(name: str | None) -> str | None:
    """The name of a device that trains, known before PyTorch is imported."""
    if name not in (None, *TRAINING_DEVICES):
        raise typer.BadParameter(
            f"training runs on {', '.join(TRAINING_DEVICES)}; received {name!r}."
        )
    return name


app = typer.Typer(
    cls=_Commands,
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
    help="From labelled images, a device and a limit to a measured, exported network.",
)
# Of the processes that torchrun starts, only the first prints.
screen = Console(quiet=os.environ.get("RANK", "0") != "0")
_errors = Console(stderr=True, soft_wrap=True)

RecipeArgument = Annotated[
    str,
    typer.Argument(
        help="A recipe by name (digits, fashion-mnist, cifar10) or path, or a run directory."
    ),
]
OptionalRecipe = Annotated[
    str | None,
    typer.Argument(
        help="A recipe by name (digits, fashion-mnist, cifar10) or path, or a run directory. With "
        "--data it may be left out: space, resolution and epochs then follow from the images."
    ),
]
Data = Annotated[
    str | None, typer.Option(help="Images: a folder, a parquet or .npz file, hf:NAME, or a name.")
]
MovedData = Annotated[
    str | None, typer.Option("--data", help="Where the images of the run are now, if they moved.")
]
SkipBroken = Annotated[
    bool | None,
    typer.Option("--skip-broken", help="Leave out pictures that cannot be decoded."),
]
Limits = Annotated[
    list[str] | None,
    typer.Option(
        "--limit", help="As latency_ms=2, parameters=300k, peak_memory=256kB. Repeatable."
    ),
]
Confidence = Annotated[
    float | None,
    typer.Option(
        "--confidence",
        help="With which measured costs shall be within their limits, such as 0.95.",
    ),
]
SpaceName = Annotated[
    str | None,
    typer.Option(
        "--space",
        help="Search space: digits, mobile-32, plain-32, wide-32, vit-32, micro, photos, "
        "ofa-mobilenetv3, ofa-resnet50, proxyless-32, proxyless, nas-bench-201, or file.py:NAME.",
    ),
]
StrategyName = Annotated[
    str | None,
    typer.Option(
        help="sandwich, single-path, progressive-shrinking, fine-tune, proxyless, "
        "proxyless-all-paths, proxyless-reinforce or file.py:NAME."
    ),
]
StartName = Annotated[
    str | None,
    typer.Option(
        "--start",
        help="Where weights begin: patch-pca, none, published weights such as efficientnet-lite0, "
        "a file, or a network of your own: file.py:NAME or timm:NAME.",
    ),
]
ImageSize = Annotated[
    int | None, typer.Option(min=4, max=10_000, help="Height and width of the images, in pixels.")
]
Epochs = Annotated[
    int | None, typer.Option(min=0, max=MOST, help="Passes over the training images.")
]
TimeBudget = Annotated[
    str | None,
    typer.Option(
        "--time", help="For the whole run, such as 30min; epochs and estimates are planned to fit."
    ),
]
Seed = Annotated[int | None, typer.Option(min=0, max=2**32 - 1, help="Of everything random.")]
RunDir = Annotated[Path | None, typer.Option(help="The run directory; runs/NAME if not given.")]
TrainOn = Annotated[
    str | None,
    typer.Option(
        "--train-on",
        help="Where to train, as PyTorch names it: cpu, cuda or mps.",
        callback=_training_device,
    ),
]
EnergyName = Annotated[
    str | None,
    typer.Option(
        "--energy",
        help="Where the energy of a measured machine comes from: rapl, nvml, a power log (.csv), "
        "or a stated power such as 6W.",
    ),
]
TargetName = Annotated[
    str | None,
    typer.Option(
        "--target",
        help="What the network runs on: this-cpu, a device profile (.json), a chip such as eyeriss "
        "or its .toml, or file.py:NAME.",
    ),
]
PrecisionName = Annotated[
    str | None,
    typer.Option(
        "--precision", help="fp32 or int8: of the network that is delivered, measured and limited."
    ),
]
Minimise = Annotated[
    str | None,
    typer.Option(help="A cost metric to minimise, such as energy_uj; then limit the accuracy too."),
]
Maximise = Annotated[str | None, typer.Option(help="accuracy, which is the default.")]
SearcherName = Annotated[
    str | None, typer.Option("--searcher", help="linas, nsga2, evolution, random or file.py:NAME.")
]

WorkerText = Annotated[
    str | None,
    typer.Option(
        "--workers",
        help="Processes of this machine, one per core if not given; or a Ray cluster, as "
        "ray://HEAD:10001.",
    ),
]


def print_error(message: str) -> None:
    """Print an error, in plain letters where there is no memory for colours."""
    try:
        _errors.print(f"[bold red]error:[/] {escape(message)}", highlight=False)
    except MemoryError:
        os.write(2, f"error: {message}\n".encode())


def say(message: str, *, about: Path | None = None) -> None:
    """Print a line of result, after the file or folder that it is about."""
    line = (
        Text.assemble((f"{about}", "bold"), ": " if message else "", message)
        if about
        else Text(message)
    )
    screen.print(line, soft_wrap=True)


@contextmanager
def open_run(
    recipe: str | None,
    run_dir: Path | None = None,
    changes: Mapping[str, Any] | None = None,
    *,
    parallel: bool = False,
) -> Iterator[Run]:
    """The run that the options of a command describe.

    A command imports what needs PyTorch inside this context, so that a mistake in an option is
    reported at once.

    Args:
        recipe: name or path of a recipe, or a run directory; None to decide by the images.
        run_dir: the run directory instead of `runs/NAME`.
        changes: dotted keys of the recipe to values; None and empty ones are passed over.
        parallel: whether torchrun may start the command several times.
    """
    if not parallel and int(os.environ.get("WORLD_SIZE", "1")) > 1:
        raise RecipeError(
            "of all commands only pliant train runs under torchrun. Train with it, then start this "
            "one without torchrun."
        )
    given = {key: value for key, value in (changes or {}).items() if value not in (None, [], ())}
    folder, resolved = _named(recipe, run_dir, given) if recipe else _automatic(run_dir, given)

    from pliant.runs.run import Run
    from pliant.training.allocator import keep_freed_memory

    keep_freed_memory()
    with shown(screen) as progress:
        held = Run(folder, resolved, progress=progress)
    with held:
        for note in held.notes:
            say(note)
        try:
            yield held
        except Exception as fault:
            raise with_full_place(fault, held.folder) from fault.__cause__


def _named(recipe: str, run_dir: Path | None, given: Mapping[str, Any]) -> tuple[Path, Recipe]:
    """The directory and the recipe of a run whose recipe is named; arguments as of `open_run`."""
    from pliant.runs.recipe import load_recipe

    folder = Path(recipe)
    if not (folder / "recipe.toml").is_file():
        resolved = load_recipe(recipe, given)
        return run_dir or Path("runs") / resolved.name, resolved
    if run_dir is not None:
        raise RecipeError(
            f"{recipe} is the directory of a run, which is resumed in place. To begin another: "
            f"{folder / 'recipe.toml'} --run-dir {run_dir}"
        )
    return folder, load_recipe(str(folder / "recipe.toml"), given)


def _automatic(run_dir: Path | None, given: Mapping[str, Any]) -> tuple[Path, Recipe]:
    """The directory and the recipe of a run that only names images; resumed where it began."""
    if "data.source" not in given:
        raise RecipeError(
            "a run has a recipe or images, received neither. Name a recipe, such as `digits`, or "
            "a folder with a folder of images for each class: --data photos/"
        )
    from pliant.runs.automatic import automatic_recipe, resumed_recipe, run_name

    folder = run_dir or Path("runs") / run_name(given["data.source"])
    resumed = resumed_recipe(folder, given)
    if resumed is not None:
        return folder, resumed
    decided = automatic_recipe(given)
    for note in decided.notes:
        say(note)
    recipe = decided.recipe
    size = f"{recipe.data.image_size} pixels" if recipe.data.image_size else "their size"
    say(
        f"space {recipe.space}, images of {size}, strategy {recipe.train.strategy} from "
        f"{recipe.train.start}",
        about=folder / "recipe.toml",
    )
    return folder, recipe


@app.callback(invoke_without_command=True)
def _version(
    version: Annotated[bool, typer.Option("--version", help="Print the version and stop.")] = False,
) -> None:
    if version:
        say(pliant.__version__)
        raise typer.Exit


# Each import registers its command.
from pliant.cli import (  # noqa: E402
    accelerator,
    codesign,  # noqa: F401
    deploy,  # noqa: F401
    device,  # noqa: F401
    elastic,  # noqa: F401
    estimate,  # noqa: F401
    fidelity,  # noqa: F401
    grow,  # noqa: F401
    predict,  # noqa: F401
    report,  # noqa: F401
    roofline,  # noqa: F401
    run,  # noqa: F401
    score,  # noqa: F401
    search,  # noqa: F401
    train,  # noqa: F401
)

app.add_typer(accelerator.app, name="accelerator")
