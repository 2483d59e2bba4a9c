"""`pliant search`: find the front of a trained run."""

from __future__ import annotations

from rich.table import Table

from pliant.cli.app import Limits, RecipeArgument, app, bars, opened, say, screen


@app.command()
def search(recipe: RecipeArgument, limit: Limits = None) -> None:
    """Search the supernet under the limits, beside random search at equal cost; validate and measure the front."""
    with opened(recipe, limits=limit) as run:
        from pliant.pipeline.profile import device_profile
        from pliant.pipeline.search import require_feasible, search_front
        from pliant.pipeline.summary import write_summary
        from pliant.pipeline.train import train_supernet

        with bars() as progress:
            profile = device_profile(run, progress=progress)
            require_feasible(run, profile, run.recipe.parsed_limits)
            found = search_front(run, train_supernet(run, progress=progress), profile, progress=progress)
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
