"""`pliant report`: write a run's page again."""

from __future__ import annotations

from pliant.cli.app import RecipeArgument, app, opened, say


@app.command()
def report(recipe: RecipeArgument) -> None:
    """Write report.html from summary.json."""
    from pliant.pipeline.summary import write_page

    with opened(recipe) as run:
        write_page(run)
        say(f"[bold]{run.folder / 'report.html'}[/]")
