"""`pliant search --space --estimator inherit`: evolution by an accuracy estimator in a budget."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from rich.table import Column, Table

from pliant.cli.app import say, screen
from pliant.errors import RecipeError
from pliant.progress import shown
from pliant.units import format_cost

if TYPE_CHECKING:
    from pliant.estimation.search_result import EstimatorSearchResult
    from pliant.metrics import InferencePrecision, Quality

# As in `pliant.estimation`, which imports PyTorch.
SEARCHING_ESTIMATORS = ("scratch", "inherit", "supernet", "hypernetwork", "predictor")
SHARING_WEIGHTS = ("supernet", "hypernetwork", "predictor")
"""Estimators of networks that share weights; the predictor learns from a supernet."""


def run_estimator_search(
    space: str,
    estimator: str,
    *,
    data: str | None,
    budget: str | None,
    limits: Sequence[str],
    confidence: float | None,
    evaluations: int,
    max_depth: int | None,
    target: str | None,
    precision: InferencePrecision,
    epochs: int | None,
    shared_epochs: int | None,
    train_share: float,
    images: int,
    seed: int,
    workers: str | None,
    run_dir: Path | None,
) -> None:
    """Search the space, print the finalists, and say what they prove.

    Args:
        space: a preset, or its short name.
        estimator: one of `SEARCHING_ESTIMATORS`.
        data: images that networks are trained on.
        budget: a time, or epochs.
        limits: as `metric=value`.
        confidence: with which measured costs shall be within their limits.
        evaluations: networks that evolution evaluates at most.
        max_depth: most layers with weights on the longest path.
        target: a chip, a device profile, this-cpu or `file.py:NAME`.
        precision: of the networks on the target.
        epochs: of training from scratch.
        shared_epochs: of weights that networks share.
        train_share: of the training images that is used.
        images: of the validation split behind every accuracy.
        seed: of everything random.
        workers: processes, or a Ray cluster.
        run_dir: of the record and the result; `runs/SPACE-ESTIMATOR` where None.

    Raises:
        PliantError: an option that is missing or does not fit the others, or limits that cannot be
            met.
    """
    from pliant.objective import as_limits
    from pliant.spaces.presets import space_name
    from pliant.workers.choose import parse_workers

    if data is None or budget is None:
        missing = " and ".join(
            option for option, given in (("--data", data), ("--budget", budget)) if given is None
        )
        raise RecipeError(
            f"a search by estimator {estimator} trains networks, and needs images and a budget; "
            f"received no {missing}. Add them, as --data SOURCE --budget 2h."
        )
    parsed_limits, parsed_workers = as_limits(limits), parse_workers(workers)
    from pliant.estimation.estimators import EstimatorSettings
    from pliant.estimation.search import search_by_estimator
    from pliant.training.allocator import keep_freed_memory

    keep_freed_memory()
    defaults = EstimatorSettings(space_name(space), data)
    settings = EstimatorSettings(
        defaults.space,
        data,
        seed=seed,
        train_share=train_share,
        images=images,
        epochs=epochs or defaults.epochs,
        shared_epochs=shared_epochs or defaults.shared_epochs,
    )
    folder = run_dir or Path("runs") / f"{Path(settings.space).name}-{estimator}"
    with shown(screen) as progress:
        result = search_by_estimator(
            settings,
            estimator,
            folder,
            budget=budget,
            limits=parsed_limits,
            confidence=confidence,
            evaluations=evaluations,
            max_depth=max_depth,
            target=target,
            precision=precision,
            workers=parsed_workers,
            progress=progress,
        )
    screen.print(_table(result))
    _say(result, folder)


def _table(result: EstimatorSearchResult) -> Table:
    lineages = any(one.lineage_epochs is not None for one in result.finalists)
    table = Table(
        Column("found by", no_wrap=True),
        result.estimator,
        "from scratch",
        "gap, points",
        *(["lineage epochs"] if lineages else []),
        *result.metrics,
        Column("architecture", overflow="fold"),
    )
    for one in result.finalists:
        gap, epochs = one.gap_points, one.lineage_epochs
        table.add_row(
            one.by,
            _accuracy(one.estimated),
            _accuracy(one.retrained),
            "" if gap is None else f"{gap:+.2f}",
            *(["" if epochs is None else str(epochs)] if lineages else []),
            *(_cost(metric, one.cost.metric(metric)) for metric in result.metrics),
            str(one.architecture),
            style="bold" if one is result.chosen else None,
        )
    return table


def _accuracy(quality: Quality | None) -> str:
    from pliant.metrics import Failed

    if quality is None:
        return ""
    return "failed" if isinstance(quality, Failed) else f"{quality.value:.2%}"


def _cost(metric: str, value: float) -> str:
    return f"{value:,.0f}" if metric in ("parameters", "macs") else format_cost(metric, value)


def _say(result: EstimatorSearchResult, folder: Path) -> None:
    spent = f"{result.spent:.4g} and {result.random_spent:.4g} {result.unit}"
    say(
        f"{result.evaluated} networks by evolution and {result.random_evaluated} at random, for "
        f"{spent}, after {result.setup_seconds:.3g} CPU seconds that all of them share"
    )
    say(f"{result.feasible.share:.1%} of random networks are within the limits")
    if result.predictor is not None:
        say(
            f"the predictor on networks held out of its fit: Kendall tau "
            f"{result.predictor.kendall_tau:+.3f}, {result.predictor.rows} networks"
        )
    if result.failures:
        say(f"{len(result.failures)} networks failed, the first because: {result.failures[0]}")
    if result.gap_points is not None:
        say(
            f"the estimates of evolution's finalists are {result.gap_points:+.2f} points from "
            "their accuracy after training from scratch, with another seed"
        )
    say(result.advice)
    say("the result, for programs", about=folder / "search.json")
