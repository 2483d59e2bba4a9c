"""The commands and what they share: options that change a recipe, the progress bars, the way errors are printed."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TaskID, TextColumn, TimeRemainingColumn

import pliant

if TYPE_CHECKING:
    from pliant.pipeline.run import Run

app = typer.Typer(
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
    help="From labelled images, a device and a limit to a measured, exported network.",
)
screen = Console()
_errors = Console(stderr=True, soft_wrap=True)

RecipeArgument = Annotated[str, typer.Argument(help="A recipe by name (digits, fashion-mnist, cifar10) or path, or a run directory.")]
Data = Annotated[str | None, typer.Option(help="Images: a folder, a parquet or .npz file, hf:NAME, or a name.")]
Limits = Annotated[list[str] | None, typer.Option("--limit", help="As latency_ms=2, parameters=300k, peak_memory=256kB. Repeatable.")]
SpaceName = Annotated[str | None, typer.Option("--space", help="Search space: digits, mobile-32, plain-32, ofa-mobilenetv3, ofa-resnet50.")]
Schedule = Annotated[str | None, typer.Option(help="sandwich or progressive-shrinking.")]
Epochs = Annotated[int | None, typer.Option(min=1, help="Passes over the training images.")]
Seed = Annotated[int | None, typer.Option(min=0, help="Of everything random.")]
Into = Annotated[Path | None, typer.Option(help="The run directory; runs/NAME if not given.")]
TrainOn = Annotated[str | None, typer.Option("--train-on", help="Where to train, as PyTorch names it: cpu, cuda.")]
ProfileFile = Annotated[Path | None, typer.Option("--device", help="A device profile made before, instead of measuring this machine.")]


def complain(message: str) -> None:
    """Print an error."""
    _errors.print(f"[bold red]error:[/] {_escaped(message)}", highlight=False)


def _escaped(text: str) -> str:
    from rich.markup import escape

    return escape(text)


def say(message: str) -> None:
    """Print a line of result."""
    screen.print(message, highlight=False, soft_wrap=True)


@contextmanager
def opened(recipe: str, into: Path | None = None, **changes: Any) -> Iterator[Run]:
    """The run that the options of a command describe."""
    from pliant.accuracy.training import keep_freed_memory
    from pliant.pipeline.run import Run

    keep_freed_memory()
    given = {key: value for key, value in changes.items() if value not in (None, [], ())}
    known = (Path(recipe) / "recipe.toml").is_file()
    with Run.reopen(recipe, **given) if known else Run.create(recipe, folder=into, **given) as found:
        yield found


@contextmanager
def bars() -> Iterator[Any]:
    """A progress bar for each step, as a function of step, done, total and note."""
    columns = (
        TextColumn("{task.description:<8}"),
        BarColumn(),
        MofNCompleteColumn(),
        TimeRemainingColumn(),
        TextColumn("{task.fields[note]}"),
    )
    with Progress(*columns, console=screen) as progress:
        tasks: dict[str, TaskID] = {}

        def show(step: str, done: int, total: int, note: str) -> None:
            if step not in tasks:
                tasks[step] = progress.add_task(step, total=total, note=note)
            progress.update(tasks[step], completed=done, total=total, note=note)

        yield show


@app.callback(invoke_without_command=True)
def _version(version: Annotated[bool, typer.Option("--version", help="Print the version and stop.")] = False) -> None:
    if version:
        say(pliant.__version__)
        raise typer.Exit


from pliant.cli import deploy, profile, report, run, search, train  # noqa: E402, F401 - each registers its command
