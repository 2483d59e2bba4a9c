"""`pliant search --space --estimator`: evolution over a space by a zero-shot score."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from rich.table import Table

from pliant.cli.app import say, screen
from pliant.cli.score import format_score, shown_batch
from pliant.errors import RecipeError
from pliant.metrics import ARITHMETIC_METRICS
from pliant.progress import shown
from pliant.units import format_cost

if TYPE_CHECKING:
    from pliant.accuracy.zero_shot import Method
    from pliant.metrics import InferencePrecision
    from pliant.objective import Limit, Target
    from pliant.progress import Progress
    from pliant.scoring.zero_shot_search import (
        ZeroShotSearchResult,
    )
    from pliant.spaces.space import Space

SHOWN_METRICS = (
    "parameters",
    "macs",
    "peak_memory_bytes",
    "model_size_bytes",
    "latency_ms",
    "energy_uj",
)
"""Columns of the table, where the target reports them."""


def run_zero_shot_search(
    space: str,
    estimator: str,
    *,
    limits: Sequence[str],
    confidence: float | None,
    evaluations: int,
    max_depth: int | None,
    data: str | None,
    shape: str | None,
    classes: int | None,
    images: int,
    target: str | None,
    precision: InferencePrecision,
    seed: int,
    workers: str | None,
    run_dir: Path | None,
) -> None:
    """Search the space, print the networks, and say how to train the best one.

    Args:
        space: a preset, or its short name.
        estimator: a score that needs no training.
        limits: as `metric=value`.
        confidence: with which measured costs shall be within their limits.
        evaluations: networks that evolution scores, and random search as many.
        max_depth: most layers with weights on the longest path.
        data: images for scores that look at some.
        shape: of the images where there are none, as 3x32x32.
        classes: labels to tell apart where there are no images.
        images: in the batch that every network is shown.
        target: a chip, a device profile, this-cpu or `file.py:NAME`.
        precision: of the networks on the target.
        seed: of everything random.
        workers: processes, one per core where None; or a Ray cluster.
        run_dir: of the record and the result; `runs/SPACE-ESTIMATOR` where None.

    Raises:
        PliantError: an option that does not fit the others, or limits that cannot be met.
    """
    from pliant.objective import as_limits
    from pliant.workers.choose import require_workers

    # A mistake in an option is told before PyTorch is imported.
    parsed, pool = as_limits(limits), require_workers(workers)
    from pliant.scoring import search_by_score
    from pliant.scoring.networks import preset_networks
    from pliant.spaces.presets import space_name

    name = space_name(space)
    method = _method(estimator, data)
    batch = shown_batch(data, shape, classes, name, images, seed)
    networks = preset_networks(name, batch.shape)
    folder = run_dir or Path("runs") / f"{networks.space.name}-{method.name}"
    with shown(screen) as progress:
        opened = _target(target, networks.space, folder, seed, precision, progress)
        result = search_by_score(
            networks,
            method,
            folder,
            limits=parsed,
            confidence=confidence,
            evaluations=evaluations,
            max_depth=max_depth,
            target=opened,
            batch=batch,
            seed=seed,
            workers=pool,
            progress=progress,
        )
    screen.print(_table(result, method.name, opened))
    _say_what_was_searched(result, parsed, confidence, opened)
    say("the result, for programs", about=folder / "search.json")
    int8 = f" --target {target} --precision int8" if precision == "int8" else ""
    _say_how_to_train(result, name, data, folder / "trained", int8)


def _method(estimator: str, data: str | None) -> Method:
    """The score to maximise, which must not need images that are not there."""
    from pliant.scoring.selection import select_methods

    if "," in estimator or estimator == "all":
        raise RecipeError(
            f"a search maximises one score, received {estimator!r}. Choose one with --estimator."
        )
    return select_methods(estimator, labelled=data is not None, several=False).methods[0]


def _target(
    name: str | None,
    space: Space,
    folder: Path,
    seed: int,
    precision: InferencePrecision,
    progress: Progress,
) -> Target | None:
    """The target, whose profile or mappings are kept in the folder of the search."""
    from pliant.targets import TargetOptions, open_target

    if name is None:
        return None
    options = TargetOptions(folder=folder, seed=seed, precision=precision)
    of_target = space.with_bits(8) if precision == "int8" else space
    return open_target(name, of_target, options, progress=progress)


def _table(result: ZeroShotSearchResult, method: str, target: Target | None) -> Table:
    """The best of the evolution, then what chance and parameter count find in the same limits."""
    reported = target.metrics if target else ARITHMETIC_METRICS
    metrics = [one for one in SHOWN_METRICS if one in reported]
    table = Table("found by", method, *metrics, "depth", "architecture")
    networks = [*result.best, *([result.random] if result.random else []), result.largest]
    for network in networks:
        table.add_row(
            network.by,
            "failed" if network.score is None else format_score(network.score),
            *(_format(metric, network.cost.metric(metric)) for metric in metrics),
            str(network.depth),
            str(network.architecture),
            style="bold" if network is result.chosen else None,
        )
    return table


def _say_what_was_searched(
    result: ZeroShotSearchResult,
    limits: Sequence[Limit],
    confidence: float | None,
    target: Target | None,
) -> None:
    sure = "" if confidence is None else f" at confidence {confidence:g}"
    say(
        f"{result.scored:,} networks scored by evolution and {result.random_scored:,} at random; "
        f"limits: {', '.join(map(str, limits)) or 'none'}{sure}; "
        f"target: {target.name if target else 'none'}"
    )
    say(f"{result.feasible.share:.1%} of random networks are within the limits")
    if result.failed:
        say(f"{result.failed} could not be scored, the first because: {result.failure}")


def _format(metric: str, value: float) -> str:
    """A cost with its unit; counts in full."""
    return f"{value:,.0f}" if metric in ("parameters", "macs") else format_cost(metric, value)


def _say_how_to_train(
    result: ZeroShotSearchResult, space: str, data: str | None, folder: Path, options: str
) -> None:
    """The next commands: the space is trained once, then this network is extracted and proven."""
    if result.chosen is None:
        return
    recipe = data if data in ("digits", "fashion-mnist") else "cifar10"
    source = "" if data == recipe else f" --data {data or 'YOUR_IMAGES'}"
    say(f"to train it: pliant train {recipe} --space {space}{source} --run-dir {folder}")
    say(f"then: pliant deploy {folder} --architecture {result.chosen.architecture}{options}")
