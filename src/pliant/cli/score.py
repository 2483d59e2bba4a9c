"""`pliant score`: score networks without training."""

from __future__ import annotations

from contextlib import ExitStack
from pathlib import Path
from statistics import median
from typing import TYPE_CHECKING, Annotated

import typer
from rich.table import Table

from pliant.cli.app import Data, Seed, app, bars, interruptible, say, screen
from pliant.errors import RecipeError

if TYPE_CHECKING:
    from collections.abc import Sequence

    from pliant.scoring.inputs import Batch
    from pliant.scoring.pool import Row

AnySpace = Annotated[
    str | None,
    typer.Option(
        "--space",
        help="digits, mobile-32, plain-32, ofa-mobilenetv3, ofa-resnet50, nas-bench-201; short: mobile, plain, resnet, cell.",
    ),
]
ShapeText = Annotated[
    str | None,
    typer.Option(
        "--shape",
        help="Of the images where there are no --data: channels x size x size, as 3x32x32.",
        metavar="CxHxW",
    ),
]
Classes = Annotated[
    int | None, typer.Option(min=2, help="Labels to tell apart, where there are no --data.")
]
Images = Annotated[
    int, typer.Option(min=2, help="Training images that are shown to every network.")
]
Processes = Annotated[
    int | None,
    typer.Option(min=1, help="Networks that are scored side by side; one a core if not given."),
]
MOST_SHOWN = 3
"""Networks up to which every row is shown."""


@app.command()
def score(
    model: Annotated[
        str | None,
        typer.Argument(
            help="A network of your own, FILE:NAME: a function that gives a module, or its class."
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
            help="Scores with commas between them, or all. Parameters and MACs always stand beside."
        ),
    ] = "all",
    data: Data = None,
    shape: ShapeText = None,
    classes: Classes = None,
    images: Images = 64,
    seed: Seed = None,
    processes: Processes = None,
    out: Annotated[
        Path | None,
        typer.Option(
            help="Table of all rows, .parquet or .csv; a killed command goes on from its record."
        ),
    ] = None,
) -> None:
    """Score a network of your own, or networks of a space, without training them. In every score, higher is better."""
    if (model is None) == (architectures is None) or (architectures is None) != (space is None):
        raise RecipeError(
            "one scores either a file of one's own, as pliant score model.py:build, or --space with --architectures."
        )
    from pliant.scoring.score import read_architectures, require_table_name

    if out is not None:
        require_table_name(out)
    names = read_architectures(architectures) if architectures else [model or ""]
    batch = shown_batch(data, shape, classes, space, images, seed or 0)
    rows = _scored(model, space, names, method, batch, seed or 0, processes, out)
    if out is not None:
        from pliant.scoring.score import write_rows

        write_rows(rows, out)
    screen.print(_every_row(rows) if len(set(names)) <= MOST_SHOWN else _by_method(rows))
    failed = [row for row in rows if row.failure]
    if failed:
        first = failed[0]
        reason = (first.failure or "").removeprefix(f"{first.method}: ")
        say(
            f"{len(failed)} of {len(rows)} scores failed, the first: {first.method} of {first.architecture}: {reason}"
        )
    if out is not None:
        say(
            f"{len(rows)} rows; compare with known accuracies by pliant fidelity {out} --truth FILE.csv",
            about=out,
        )


def _scored(
    model: str | None,
    space: str | None,
    names: Sequence[str],
    method: str,
    batch: Batch,
    seed: int,
    processes: int | None,
    out: Path | None,
) -> list[Row]:
    from pliant.accuracy.zero_shot import SCORES, score
    from pliant.scoring.inputs import FileNetworks, SpaceNetworks, networks_of, require_takes
    from pliant.scoring.pool import ScorePool, Worker
    from pliant.scoring.score import (
        chosen_methods,
        context_digest,
        open_score_record,
        score_networks,
    )
    from pliant.spaces.presets import space_name

    methods = chosen_methods(
        method, SCORES, with_images=batch.labels is not None, several=len(set(names)) > 1
    )
    kind = space_name(space) if space else ""
    if space:
        subjects: SpaceNetworks | FileNetworks = networks_of(kind, batch.shape)
    else:
        assert model is not None
        subjects = FileNetworks(model)
        require_takes(subjects.network(model), batch, model)
    context = context_digest(space=kind, images=batch.digest, seed=seed)
    with ExitStack() as stack:
        stack.enter_context(interruptible())
        # A file of one's own may change between two commands, so its scores are not looked up.
        record = stack.enter_context(open_score_record(out)) if out and space else None
        pool = stack.enter_context(
            ScorePool(
                Worker(subjects, batch, score, seed), 1 if len(set(names)) == 1 else processes
            )
        )
        progress = stack.enter_context(bars())
        return score_networks(
            names, methods, pool, record=record, context=context, progress=progress
        )


def shown_batch(
    data: str | None,
    shape: str | None,
    classes: int | None,
    space: str | None,
    images: int,
    seed: int,
) -> Batch:
    """The images of --data, or noise of the shape that was given or that the space is made for.

    Raises:
        RecipeError: options that contradict each other, or nothing that says what the images are like.
        DataError: images that cannot be used.
    """
    from pliant.scoring.inputs import Shape, noise_batch, training_batch, usual_shape
    from pliant.spaces.presets import space_name

    if data is not None:
        if shape or classes:
            raise RecipeError(
                "the images of --data have a shape and classes of their own; leave --shape and --classes out."
            )
        from pliant.data import load

        return training_batch(load(data, seed=seed), images, seed)
    if shape is None and space is None:
        raise RecipeError(
            "a network needs images to be scored: --data SOURCE, or for scores that look at none --shape, as 3x32x32."
        )
    usual = usual_shape(space_name(space) if space else "")
    channels, size = _parsed(shape) if shape else (usual.channels, usual.image_size)
    return noise_batch(Shape(channels, size, classes or usual.classes), images, seed)


def _parsed(shape: str) -> tuple[int, int]:
    """Channels and size of `3x32x32`."""
    sizes = [int(part) if part.isdecimal() else 0 for part in shape.lower().split("x")]
    if len(sizes) != 3 or sizes[0] not in (1, 3) or sizes[1] != sizes[2] or sizes[1] < 1:
        raise RecipeError(
            f"--shape is channels (1 or 3) x size x size of square images, as 3x32x32; received {shape!r}."
        )
    return sizes[0], sizes[1]


def spelled_score(value: float) -> str:
    """A score as it is shown: counts in full."""
    return f"{value:,.0f}" if value.is_integer() and abs(value) < 1e15 else f"{value:.6g}"


def _every_row(rows: Sequence[Row]) -> Table:
    table = Table("network", "score", "value", "interval", "time", "notes")
    before = ""
    for row in rows:
        interval = "" if row.low is None or row.high is None else f"{row.low:.5g} to {row.high:.5g}"
        value = "failed" if row.score is None else spelled_score(row.score)
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


def _by_method(rows: Sequence[Row]) -> Table:
    table = Table(
        "score", "networks", "failed", "lowest", "highest", "network of the highest", "median time"
    )
    for method in dict.fromkeys(row.method for row in rows):
        of = [row for row in rows if row.method == method]
        sound = sorted((row.score, row.architecture) for row in of if row.score is not None)
        seconds = [row.seconds for row in of if row.seconds is not None]
        ends = (
            (spelled_score(sound[0][0]), spelled_score(sound[-1][0]), sound[-1][1])
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
