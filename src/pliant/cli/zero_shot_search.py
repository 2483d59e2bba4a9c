"""`pliant search --space --estimator`: evolution over a space by a zero-shot score."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from rich.table import Table

from pliant.cli.app import bars, interruptible, say, screen
from pliant.cli.score import shown_batch, spelled_score
from pliant.errors import RecipeError

if TYPE_CHECKING:
    from pliant.scoring.inputs import Batch
    from pliant.scoring.zero_shot_search import Answer, Pick, Question


def search_by_score(
    space: str,
    estimator: str,
    *,
    limits: Sequence[str],
    evaluations: int,
    max_depth: int | None,
    data: str | None,
    shape: str | None,
    classes: int | None,
    images: int,
    target: str | None,
    seed: int,
    processes: int | None,
    run_dir: Path | None,
) -> None:
    """Search the space, print the networks, and say how to train the best one.

    Args:
        space: a preset, or its short name.
        estimator: a score that needs no training.
        limits: as `metric=value`.
        evaluations: networks that evolution scores, and random search as many.
        max_depth: most layers with weights on the longest path.
        data: images for scores that look at some.
        shape: of the images where there are none, as 3x32x32.
        classes: labels to tell apart where there are no images.
        images: in the batch that every network is shown.
        target: a device profile.
        seed: of everything random.
        processes: networks scored at the same time; one per core where None.
        run_dir: of the record and the result; `runs/SPACE-ESTIMATOR` where None.

    Raises:
        PliantError: an option that does not fit the others, or limits that cannot be met.
    """
    from pliant.objective import as_limits

    parsed = as_limits(limits)
    from pliant.scoring.inputs import networks_of
    from pliant.scoring.zero_shot_search import Question
    from pliant.spaces.presets import space_name

    name = space_name(space)
    folder = run_dir or Path("runs") / f"{name}-{estimator}"
    _require_estimator(estimator, data)
    batch = shown_batch(data, shape, classes, name, images, seed)
    question = Question(
        networks_of(name, batch.shape).space,
        estimator,
        parsed,
        evaluations,
        max_depth,
        Path(target) if target else None,
        seed,
    )
    with interruptible():
        answer = _answer(folder, question, batch, processes)
    _show(answer, question)
    say("the result, for programs", about=folder / "search.json")
    _say_how_to_train(answer, name, data, folder / "trained")


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
