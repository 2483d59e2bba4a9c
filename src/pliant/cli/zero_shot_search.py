"""`pliant search --space --estimator`: evolution over a space by a zero-shot score."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from rich.table import Table

from pliant.cli.app import bars, interruptible, say, screen
from pliant.cli.score import format_score, shown_batch
from pliant.errors import RecipeError
from pliant.metrics import ARITHMETIC_METRICS
from pliant.units import format_cost

if TYPE_CHECKING:
    from pliant.accuracy.zero_shot import Method
    from pliant.objective import Target
    from pliant.scoring.zero_shot_search import (
        ZeroShotSearchConfiguration,
        ZeroShotSearchResult,
    )
    from pliant.spaces.space import Space

SHOWN_METRICS = ("parameters", "macs", "peak_memory_bytes", "latency_ms", "energy_uj")
"""Columns of the table, where the target reports them."""


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
    from pliant.scoring.networks import preset_networks
    from pliant.scoring.zero_shot_search import ZeroShotSearchConfiguration
    from pliant.spaces.presets import space_name

    name = space_name(space)
    method = _method(estimator, data)
    folder = run_dir or Path("runs") / f"{name}-{method.name}"
    batch = shown_batch(data, shape, classes, name, images, seed)
    networks = preset_networks(name, batch.shape)
    configuration = ZeroShotSearchConfiguration(
        networks.space,
        method.name,
        parsed,
        evaluations,
        max_depth,
        _target(target, networks.space),
        seed,
        method.version,
    )
    from pliant.scoring.process_pool import ScorePool, Worker
    from pliant.scoring.selection import MethodScorer
    from pliant.scoring.zero_shot_search import search_without_training

    worker = Worker(networks, batch, MethodScorer({method.name: method}), seed)
    with interruptible(), ScorePool(worker, processes) as pool, bars() as progress:
        result = search_without_training(folder, configuration, pool, progress=progress)
    _show(result, configuration)
    say("the result, for programs", about=folder / "search.json")
    _say_how_to_train(result, name, data, folder / "trained")


def _method(estimator: str, data: str | None) -> Method:
    """The score to maximise, which must not need images that are not there."""
    from pliant.scoring.selection import select_methods

    if "," in estimator or estimator == "all":
        raise RecipeError(
            f"a search maximises one score, received {estimator!r}. Choose one with --estimator."
        )
    return select_methods(estimator, labelled=data is not None, several=False).methods[0]


def _target(name: str | None, space: Space) -> Target | None:
    from pliant.targets import open_target

    return None if name is None else open_target(name, space)


def _show(result: ZeroShotSearchResult, configuration: ZeroShotSearchConfiguration) -> None:
    """The best of the evolution, then what chance and parameter count find in the same limits."""
    reported = configuration.target.metrics if configuration.target else ARITHMETIC_METRICS
    metrics = [one for one in SHOWN_METRICS if one in reported]
    table = Table("found by", configuration.method, *metrics, "depth", "architecture")
    networks = [*result.best, *([result.random] if result.random else []), result.largest]
    for network in networks:
        score = "failed" if network.score is None else format_score(network.score)
        costs = [_format(metric, network.cost.metric(metric)) for metric in metrics]
        table.add_row(
            network.by,
            score,
            *costs,
            str(network.depth),
            str(network.architecture),
            style="bold" if network is result.chosen else None,
        )
    screen.print(table)
    limits = ", ".join(map(str, configuration.limits)) or "none"
    target = f"; target: {configuration.target.name}" if configuration.target else ""
    say(
        f"{result.scored:,} networks scored by evolution and {result.random_scored:,} at random; "
        f"limits: {limits}{target}"
    )
    say(f"{result.feasible.share:.1%} of random networks are within the limits")
    if result.failed:
        say(f"{result.failed} could not be scored, the first because: {result.failure}")


def _format(metric: str, value: float) -> str:
    """A cost with its unit; counts in full."""
    return f"{value:,.0f}" if metric in ("parameters", "macs") else format_cost(metric, value)


def _say_how_to_train(
    result: ZeroShotSearchResult, space: str, data: str | None, folder: Path
) -> None:
    """The next commands: the space is trained once, then this network is extracted and proven."""
    if result.chosen is None:
        return
    recipe = data if data in ("digits", "fashion-mnist") else "cifar10"
    source = "" if data == recipe else f" --data {data or 'YOUR_IMAGES'}"
    say(f"to train it: pliant train {recipe} --space {space}{source} --into {folder}")
    say(f"then: pliant deploy {folder} --architecture {result.chosen.architecture}")
