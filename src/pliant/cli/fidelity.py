"""`pliant fidelity`: rank correlations of scores with known accuracies."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer
from rich.table import Table

from pliant.cli.app import Seed, app, say, screen
from pliant.cli.bounds import MOST


@app.command()
def fidelity(
    scores: Annotated[Path, typer.Argument(help="A table that pliant score --out wrote.")],
    truth: Annotated[
        Path, typer.Option(help="CSV with a column arch or architecture and one of accuracies.")
    ],
    column: Annotated[
        str | None,
        typer.Option(help="Column of the accuracies; found by its name if not given."),
    ] = None,
    top: Annotated[
        int | None,
        typer.Option(min=1, max=MOST, help="Networks that count as the top; a tenth if not given."),
    ] = None,
    seed: Seed = None,
    out: Annotated[
        Path | None, typer.Option(help="The page with the chart; next to the table if not given.")
    ] = None,
) -> None:
    """Compare scores with known accuracies, and with parameters and MACs as baselines.

    Rank correlations are signed and have intervals.
    """
    from pliant.report.ranking_page import explanation, format_correlation, write_ranking_page
    from pliant.scoring.ground_truth import table_correlations

    found = table_correlations(scores, truth, column=column, top=top, seed=seed or 0)
    table = Table(
        "score",
        "Kendall",
        "Spearman",
        "at equal size",
        "over parameters",
        f"of top {found.rows[0].top}",
        "regret",
        "time",
        "failed",
    )
    for row in found.rows:
        figures = (row.kendall, row.spearman, row.equal_size, row.over_parameters)
        seconds = "" if row.seconds is None else f"{row.seconds:.3g} s"
        regret = f"{row.regret:.2f}"
        table.add_row(
            row.name,
            *map(format_correlation, figures),
            f"{row.top_overlap:.0%}",
            regret,
            seconds,
            str(row.failed),
            style="bold" if row.name == "parameters" else None,
        )
    screen.print(table)
    say(
        f"{found.networks} networks, accuracies of column {found.column}. "
        f"{explanation(found.networks)}"
    )
    if found.averaged:
        say(f"{found.averaged} networks have several rows of accuracies, whose mean counts.")
    say(
        f"At equal size: over the {found.rows[0].equal_pairs:,} pairs with parameter counts within "
        "5 %. "
        "Over parameters: significant where the interval excludes 0. Regret: of the network with "
        "the highest score, in the unit of the accuracies."
    )
    if found.without_truth:
        say(f"{found.without_truth} scored networks have no known accuracy and were left out.")
    for name, reason in found.failures.items():
        say(f"{name} failed, first because: {reason.removeprefix(f'{name}: ')}")
    page = out or scores.with_suffix(".html")
    write_ranking_page(found.rows, page, truth=found.column)
    say("the page", about=page)
