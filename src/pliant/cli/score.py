"""`pliant score`: score networks without training."""

from __future__ import annotations

from pathlib import Path
from statistics import median
from typing import TYPE_CHECKING, Annotated

import typer
from rich.table import Table

from pliant.cli.app import Data, Seed, WorkerText, app, say, screen
from pliant.cli.bounds import MOST
from pliant.errors import RecipeError
from pliant.progress import shown

if TYPE_CHECKING:
    from collections.abc import Sequence

    from pliant.scoring.images import Batch
    from pliant.scoring.process_pool import ScoreRow

AnySpace = Annotated[
    str | None,
    typer.Option(
        "--space",
        help="digits, mobile-32, plain-32, wide-32, vit-32, micro, photos, ofa-mobilenetv3, "
        "ofa-resnet50, proxyless, proxyless-32, nas-bench-201; short: mobile, plain, resnet, cell, "
        "vit; or file.py:NAME.",
    ),
]
ShapeText = Annotated[
    str | None,
    typer.Option(
        "--shape",
        help="Of the images if there is no --data: channels x size x size, as 3x32x32.",
        metavar="CxHxW",
    ),
]
Classes = Annotated[
    int | None, typer.Option(min=2, max=MOST, help="Number of classes, if there is no --data.")
]
MAX_SHOWN = 3
"""Up to so many networks, every row is printed; above it, one row per method."""


@app.command()
def score(
    model: Annotated[
        str | None,
        typer.Argument(
            help="A network of your own, file.py:NAME: a function that returns it, or a class."
        ),
    ] = None,
    space: AnySpace = None,
    architectures: Annotated[
        Path | None,
        typer.Option(help="Networks of the space: CSV with a column arch or architecture."),
    ] = None,
    method: Annotated[
        str,
        typer.Option(
            help="Scores with commas between them, all, or file.py:NAME. Parameters and MACs are "
            "always computed too."
        ),
    ] = "all",
    data: Data = None,
    shape: ShapeText = None,
    classes: Classes = None,
    images: Annotated[
        int,
        typer.Option(min=2, max=MOST, help="Images in the batch that every network is scored on."),
    ] = 64,
    seed: Seed = None,
    workers: WorkerText = None,
    out: Annotated[
        Path | None,
        typer.Option(
            help="Table of all rows, .parquet or .csv; a killed command resumes from its record."
        ),
    ] = None,
) -> None:
    """Score a network of your own, or networks of a space, without training them.

    Higher is better in every score. Exit code 1 if every score that was asked for failed.
    """
    if (model is None) == (architectures is None) or (architectures is None) != (space is None):
        raise RecipeError(
            "one scores either a network of one's own, as pliant score model.py:build, or networks "
            "of a space, with --space and --architectures."
        )
    from pliant.scoring.score_tables import read_architectures, require_table_name
    from pliant.workers.choose import require_workers

    pool = require_workers(workers)
    if out is not None:
        require_table_name(out)
    names = read_architectures(architectures) if architectures else None
    batch = shown_batch(data, shape, classes, space, images, seed or 0)
    from pliant.scoring.score import score_networks
    from pliant.scoring.selection import BASELINES

    with shown(screen) as progress:
        rows = score_networks(
            space or model or "",
            method,
            architectures=names,
            batch=batch,
            seed=seed or 0,
            workers=pool,
            table=out,
            progress=progress,
        )
    screen.print(
        _every_row(rows)
        if len({row.architecture for row in rows}) <= MAX_SHOWN
        else _by_method(rows)
    )
    failed = [row for row in rows if row.failure]
    if failed:
        first = failed[0]
        reason = (first.failure or "").removeprefix(f"{first.method}: ")
        say(
            f"{len(failed)} of {len(rows)} scores failed, the first: {first.method} of "
            f"{first.architecture}: {reason}"
        )
    if out is not None:
        advice = f"compare with known accuracies by pliant fidelity {out} --truth FILE.csv"
        say(f"{len(rows)} rows; {advice}", about=out)
    asked = [row for row in rows if row.method not in BASELINES] or rows
    if all(row.failure for row in asked):
        raise typer.Exit(1)


def shown_batch(
    data: str | None,
    shape: str | None,
    classes: int | None,
    space: str | None,
    images: int,
    seed: int,
) -> Batch:
    """The images of --data, or noise of the given shape, or of the one that the space is made for.

    Raises:
        RecipeError: options that contradict each other, or none that says the shape of the images.
        DataError: images that cannot be used.
    """
    from pliant.scoring.images import Shape, default_shape, noise_batch, training_batch
    from pliant.spaces.presets import space_name

    if data is not None:
        if shape or classes:
            raise RecipeError(
                "the images of --data have their own shape and classes. Leave out --shape and "
                "--classes."
            )
        from pliant.data import load

        loaded = load(data, seed=seed)
        for note in loaded.notes:
            say(note)
        return training_batch(loaded, images, seed)
    if shape is None and space is None:
        raise RecipeError(
            "a network needs images to be scored: --data SOURCE, or --shape, as 3x32x32, for "
            "scores that use none."
        )
    default = default_shape(space_name(space) if space else "")
    channels, size = parse_shape(shape) if shape else (default.channels, default.image_size)
    return noise_batch(Shape(channels, size, classes or default.classes), images, seed)


def parse_shape(shape: str) -> tuple[int, int]:
    """Channels and size of `3x32x32`."""
    sizes = [int(part) if part.isdecimal() else 0 for part in shape.lower().split("x")]
    if len(sizes) != 3 or sizes[0] not in (1, 3) or sizes[1] != sizes[2] or sizes[1] < 1:
        raise RecipeError(
            "--shape is channels (1 or 3) x size x size of square images, as 3x32x32; received "
            f"{shape!r}."
        )
    return sizes[0], sizes[1]


def format_score(value: float) -> str:
    """A score for people: counts in full."""
    return f"{value:,.0f}" if value.is_integer() and abs(value) < 1e15 else f"{value:.6g}"


def _every_row(rows: Sequence[ScoreRow]) -> Table:
    table = Table("network", "score", "value", "interval", "time", "notes")
    before = ""
    for row in rows:
        interval = "" if row.low is None or row.high is None else f"{row.low:.5g} to {row.high:.5g}"
        value = "failed" if row.score is None else format_score(row.score)
        seconds = "" if row.seconds is None else f"{row.seconds:.3g} s"
        table.add_row(
            "" if row.architecture == before else row.architecture,
            row.method,
            value,
            interval,
            seconds,
            row.failure or row.notes,
        )
        before = row.architecture
    return table


def _by_method(rows: Sequence[ScoreRow]) -> Table:
    table = Table(
        "score", "networks", "failed", "lowest", "highest", "network of the highest", "median time"
    )
    for method in dict.fromkeys(row.method for row in rows):
        of = [row for row in rows if row.method == method]
        sound = sorted((row.score, row.architecture) for row in of if row.score is not None)
        seconds = [row.seconds for row in of if row.seconds is not None]
        ends = (
            (format_score(sound[0][0]), format_score(sound[-1][0]), sound[-1][1])
            if sound
            else ("", "", "")
        )
        table.add_row(
            method,
            str(len(of)),
            str(len(of) - len(sound)),
            *ends,
            f"{median(seconds):.3g} s" if seconds else "",
        )
    return table
