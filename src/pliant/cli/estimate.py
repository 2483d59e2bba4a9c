"""`pliant estimate`: networks by several accuracy estimators, and which of them to trust."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer
from rich.table import Column, Table

from pliant.cli.app import Seed, WorkerText, app, say, screen
from pliant.cli.bounds import MOST
from pliant.cli.given import refuse_unused
from pliant.errors import RecipeError
from pliant.progress import shown

if TYPE_CHECKING:
    from pliant.estimation import Comparison, EstimationResult

OF_ESTIMATORS = {
    "seeds": {"scratch"},
    "scores": {"zero-shot"},
    "predictor_source": {"predictor"},
    "predictor_evaluations": {"predictor"},
    "strategy": {"supernet"},
    "shared_epochs": {"supernet", "hypernetwork"},
}
"""Options that only these estimators use; all use the others."""


@app.command()
def estimate(
    context: typer.Context,
    space: Annotated[
        str, typer.Option("--space", help="As of pliant score: mobile-32, or file.py:NAME.")
    ],
    data: Annotated[
        str, typer.Option(help="Images: a folder, a parquet or .npz file, hf:NAME, or a name.")
    ],
    out: Annotated[
        Path,
        typer.Option(help="Table of all estimates, .parquet or .csv; a killed command resumes."),
    ],
    estimator: Annotated[
        str,
        typer.Option(
            help="scratch, inherit, supernet, hypernetwork, predictor, zero-shot: several, with "
            "commas."
        ),
    ] = "scratch,supernet,predictor,zero-shot",
    architectures: Annotated[
        str,
        typer.Option(
            help="How many networks, spread over the range of MACs; or a CSV file with a column "
            "arch or architecture."
        ),
    ] = "24",
    epochs: Annotated[int, typer.Option(min=1, max=MOST, help="Of training from scratch.")] = 8,
    shared_epochs: Annotated[
        int, typer.Option(min=1, max=MOST, help="Of weights that networks share, as of a supernet.")
    ] = 24,
    strategy: Annotated[
        str, typer.Option(help="Of the supernet: sandwich, single-path, progressive-shrinking.")
    ] = "sandwich",
    train_share: Annotated[
        float, typer.Option(min=0.001, max=1, help="Share of the training images that is used.")
    ] = 1.0,
    images: Annotated[
        int, typer.Option(min=1, max=MOST, help="Validation images behind every accuracy.")
    ] = 2500,
    seeds: Annotated[
        int,
        typer.Option(
            min=1, max=MOST, help="Of training from scratch; their mean is the ground truth."
        ),
    ] = 2,
    predictor_source: Annotated[
        str, typer.Option(help="Estimator from which the predictor learns.")
    ] = "supernet",
    predictor_evaluations: Annotated[
        int, typer.Option(min=10, max=MOST, help="Networks on which the predictor learns.")
    ] = 100,
    scores: Annotated[str, typer.Option(help="Zero-shot scores with commas, or all.")] = "all",
    halving: Annotated[
        int | None,
        typer.Option(
            min=2,
            max=MOST,
            help="Early stopping of training from scratch (ASHA): of so many networks at a number "
            "of epochs, one is trained on. All are trained to the end if not given.",
        ),
    ] = None,
    workers: WorkerText = None,
    seed: Seed = None,
) -> None:
    """Estimate the accuracy of networks, and compare the estimators with training from scratch.

    The first estimator of the ground truth is scratch; without it, no estimator is compared.
    """
    from pliant.workers.choose import parse_workers

    parsed = parse_workers(workers)  # a mistake in an option is told before PyTorch is imported
    from pliant.estimation.estimators import EstimatorSettings, require_estimators
    from pliant.estimation.run import estimate_networks
    from pliant.training.allocator import keep_freed_memory

    names = require_estimators(estimator)
    _refuse_unused(context, names, predictor_source)
    keep_freed_memory()
    settings = EstimatorSettings(
        space,
        data,
        seed=seed or 0,
        train_share=train_share,
        images=images,
        epochs=epochs,
        shared_epochs=shared_epochs,
        strategy=strategy,
        predictor_source=predictor_source,
        predictor_evaluations=predictor_evaluations,
    )
    with shown(screen) as progress:
        result = estimate_networks(
            settings,
            names,
            out,
            architectures=_architectures(architectures),
            seeds=seeds,
            scores=scores,
            halving=halving,
            workers=parsed,
            progress=progress,
        )
    screen.print(_costs(result))
    _say_failures(result)
    say(f"{len(result.architectures)} networks by {len(result.evaluated)} estimators", about=out)
    if result.predictor is not None:
        found = result.predictor
        tau = "undefined" if found.kendall_tau is None else f"{found.kendall_tau:+.3f}"
        say(
            f"the predictor on networks held out of its fit: Kendall tau {tau}, mean absolute "
            f"error {100 * found.mean_absolute_error:.2f} points, {found.rows} networks"
        )
    if result.comparison is None:
        say("to know which estimator to trust, add scratch to --estimator, with 3 networks or more")
    else:
        _say_comparison(result.comparison, out.with_suffix(".html"))


def _refuse_unused(context: typer.Context, names: list[str], predictor_source: str) -> None:
    """Refuse the options of estimators that were not asked for.

    Raises:
        RecipeError: such an option.
    """
    used = [*names, *([predictor_source] if "predictor" in names else [])]
    for option, needed in OF_ESTIMATORS.items():
        if not needed & set(used):
            needing, asked = " or ".join(sorted(needed)), ", ".join(used)
            rule = f"the option is of estimator {needing}; those of this command are {asked}"
            refuse_unused(context, [option], rule)


def _architectures(text: str) -> int | list[str]:
    """A number, or the texts of a file."""
    if text.isdecimal():
        return int(text)
    if not Path(text).is_file():
        raise RecipeError(
            f"--architectures is a number of networks or a CSV file of them, received {text!r}."
        )
    from pliant.scoring.score_tables import read_architectures

    return read_architectures(Path(text))


def _costs(result: EstimationResult) -> Table:
    """What every estimator found and took."""
    table = Table(
        Column("estimator", no_wrap=True),
        "mean",
        "range",
        "once",
        "each network",
        "amortised",
        "failed",
    )
    for one in result.evaluated:
        known = [value for value in one.scores if value is not None]
        low, high = (min(known), max(known)) if known else (0.0, 0.0)
        table.add_row(
            one.name,
            f"{sum(known) / len(known):.4g}" if known else "none",
            f"{low:.4g} to {high:.4g}" if known else "none",
            f"{one.setup_seconds:.3g} s",
            f"{one.seconds:.3g} s",
            f"{one.amortised_seconds:.3g} s",
            str(one.failed),
        )
    return table


def _say_failures(result: EstimationResult) -> None:
    from pliant.metrics import Failed, Stopped

    for one in result.evaluated:
        stopped = [found for found in one.estimates if isinstance(found.quality, Stopped)]
        if stopped:
            say(f"{len(stopped)} networks were stopped early by {one.name}: no ground truth")
        reasons = [
            f"{architecture}: {found.quality.reason}"
            for architecture, found in zip(result.architectures, one.estimates, strict=True)
            if isinstance(found.quality, Failed) and not isinstance(found.quality, Stopped)
        ]
        if reasons:
            say(f"{len(reasons)} networks failed by {one.name}, the first {reasons[0]}")


def _say_comparison(comparison: Comparison, page: Path) -> None:
    from pliant.report.ranking_page import explanation, format_correlation, write_ranking_page

    rows = comparison.rows
    table = Table(
        Column("estimator", no_wrap=True),
        "Kendall",
        "Spearman",
        "at equal size",
        "over parameters",
        f"of top {rows[0].top}",
        "regret",
        "failed",
    )
    for row in rows:
        figures = (row.kendall, row.spearman, row.equal_size, row.over_parameters)
        table.add_row(
            row.name,
            *map(format_correlation, figures),
            f"{row.top_overlap:.0%}",
            f"{row.regret:.3f}",
            str(row.failed),
            style="bold" if row.name == "parameters" else None,
        )
    screen.print(table)
    say(explanation(comparison.networks))
    if comparison.without_truth:
        say(f"{comparison.without_truth} networks have no ground truth and were left out.")
    if comparison.reliability is not None:
        say(
            f"Ground truth, one seed against another: Kendall tau {comparison.reliability}; an "
            "estimator can hardly rank better than that."
        )
    write_ranking_page(rows, page, truth="accuracy from scratch")
    say("the page", about=page)
    say(comparison.advice)
