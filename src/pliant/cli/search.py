"""`pliant search`: find the front of a trained run, or the best of a space by a score without training."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer
from rich.table import Table

from pliant.cli.app import (
    Data,
    Limits,
    ProfileFile,
    Seed,
    app,
    bars,
    interruptible,
    opened,
    say,
    screen,
)
from pliant.cli.score import (
    AnySpace,
    Classes,
    Images,
    Processes,
    ShapeText,
    shown_batch,
    spelled_score,
)
from pliant.errors import RecipeError

if TYPE_CHECKING:
    from collections.abc import Sequence

    from pliant.scoring.inputs import Batch
    from pliant.scoring.zero_shot_search import Answer, Pick, Question


@app.command()
def search(
    recipe: Annotated[
        str | None,
        typer.Argument(
            help="A recipe by name or path, or a run directory; none to search without training."
        ),
    ] = None,
    limit: Limits = None,
    space: AnySpace = None,
    estimator: Annotated[
        str | None, typer.Option(help="A score without training, such as zen; with --space.")
    ] = None,
    evaluations: Annotated[
        int, typer.Option(min=1, help="Networks to score without training, and as many at random.")
    ] = 1000,
    max_depth: Annotated[
        int | None,
        typer.Option(min=1, help="Most layers with weights on the longest way through a network."),
    ] = None,
    data: Data = None,
    shape: ShapeText = None,
    classes: Classes = None,
    images: Images = 64,
    device: ProfileFile = None,
    seed: Seed = None,
    processes: Processes = None,
    into: Annotated[
        Path | None,
        typer.Option(
            help="Folder of a search without training; runs/SPACE-ESTIMATOR if not given."
        ),
    ] = None,
) -> None:
    """Search a trained supernet under the limits, beside random search at equal cost; validate and measure the front.

    With --space and --estimator instead of a recipe: evolution by a score, without any training.
    """
    if recipe is not None:
        _require_none(
            space, estimator, max_depth, data, shape, classes, device, seed, processes, into
        )
        _search_run(recipe, limit)
        return
    if space is None or estimator is None:
        raise RecipeError(
            "a search takes a recipe or a run directory, or --space and --estimator to search without training."
        )
    from pliant.objective import Limit

    limits = tuple(Limit.parse(text) for text in limit or ())
    from pliant.scoring.inputs import networks_of
    from pliant.scoring.zero_shot_search import Question
    from pliant.spaces.presets import space_name

    name = space_name(space)
    folder = into or Path("runs") / f"{name}-{estimator}"
    _require_estimator(estimator, data)
    batch = shown_batch(data, shape, classes, name, images, seed or 0)
    question = Question(
        networks_of(name, batch.shape).space,
        estimator,
        limits,
        evaluations,
        max_depth,
        device,
        seed or 0,
    )
    with interruptible():
        answer = _answer(folder, question, batch, processes)
    _show(answer, question)
    say("the result, for programs", about=folder / "search.json")
    _say_how_to_train(answer, name, data, folder / "trained")


def _require_none(*options: object) -> None:
    """Refuse options of a search without training beside a run."""
    if any(value is not None for value in options):
        raise RecipeError(
            "a run is searched with its own space, data and device, and only --limit may change. "
            "To search by a score, leave the recipe out and give --space and --estimator."
        )


def _answer(folder: Path, question: Question, batch: Batch, processes: int | None) -> Answer:
    from pliant.accuracy.zero_shot import score
    from pliant.scoring.inputs import networks_of
    from pliant.scoring.pool import ScorePool, Worker
    from pliant.scoring.zero_shot_search import search_without_training

    worker = Worker(networks_of(question.space.name, batch.shape), batch, score, question.seed)
    with ScorePool(worker, processes) as pool, bars() as progress:
        return search_without_training(folder, question, pool, progress=progress)


def _require_estimator(name: str, data: str | None) -> None:
    from pliant.accuracy.zero_shot import SCORES
    from pliant.scoring.score import chosen_methods

    if "," in name or name == "all":
        raise RecipeError(
            f"a search maximises one score, received {name!r}. Choose one with --estimator."
        )
    chosen_methods(name, SCORES, with_images=data is not None, several=False)


def _show(answer: Answer, question: Question) -> None:
    """The best of the evolution; below them what chance and parameter count find under the same limits."""
    timed = question.profile is not None
    table = Table(
        "found by",
        question.method,
        "parameters",
        "MACs",
        "peak memory",
        *(["latency"] if timed else []),
        "depth",
        "architecture",
    )
    picks = [*answer.best, *([answer.random] if answer.random else []), answer.largest]
    for pick in picks:
        table.add_row(
            pick.by,
            *_cells(pick, timed),
            str(pick.depth),
            str(pick.architecture),
            style="bold" if pick is answer.chosen else None,
        )
    screen.print(table)
    limits = ", ".join(map(str, question.limits)) or "none"
    say(
        f"{answer.scored:,} networks scored by evolution and {answer.random_scored:,} at random; limits: {limits}"
    )
    say(f"{answer.reach.share:.1%} of random networks hold the limits")
    if answer.failed:
        say(f"{answer.failed} could not be scored, the first because: {answer.failure}")


def _cells(pick: Pick, timed: bool) -> Sequence[str]:
    cost = pick.cost
    latency = [f"{cost.latency_ms:.4g} ms"] if timed else []
    score = "failed" if pick.score is None else spelled_score(pick.score)
    return [
        score,
        f"{cost.parameters:,}",
        f"{cost.macs:,}",
        f"{(cost.peak_memory_bytes or 0) / 1e6:.3g} MB",
        *latency,
    ]


def _say_how_to_train(answer: Answer, space: str, data: str | None, folder: Path) -> None:
    """The commands that come next: the space is trained once, then this network is taken out of it and proven."""
    if answer.chosen is None:
        return
    recipe = data if data in ("digits", "fashion-mnist") else "cifar10"
    source = "" if data == recipe else f" --data {data or 'YOUR_IMAGES'}"
    say(f"to train it: pliant train {recipe} --space {space}{source} --into {folder}")
    say(f"then: pliant deploy {folder} --architecture {answer.chosen.architecture}")


def _search_run(recipe: str, limit: list[str] | None) -> None:
    with opened(recipe, limits=limit) as run:
        from pliant.runs.profile import device_profile
        from pliant.runs.search import require_feasible, search_front
        from pliant.runs.summary import write_summary
        from pliant.runs.train import train_supernet

        with bars() as progress:
            profile = device_profile(run, progress=progress)
            require_feasible(run, profile, run.recipe.parsed_limits)
            found = search_front(
                run, train_supernet(run, progress=progress), profile, progress=progress
            )
        write_summary(run, profile, found, None, run.recipe.parsed_limits)
        table = Table("latency", "predicted", "validation", "parameters", "architecture")
        for one in found.finalists:
            style = "bold" if one.architecture == found.chosen.architecture else None
            table.add_row(
                f"{one.measured.latency_ms:.4g} ms" if one.measured else "elsewhere",
                f"{one.predicted.latency_ms:.4g} ms",
                f"{one.validated.top1:.2%}",
                f"{run.space.cost(one.architecture).parameters:,}",
                str(one.architecture),
                style=style,
            )
        screen.print(table)
        say(f"deliver the best with: pliant deploy {run.folder}")
