"""`pliant report`: write a run's page again."""

from __future__ import annotations

from pliant.cli.app import RecipeArgument, app, opened, say


@app.command()
def report(recipe: RecipeArgument) -> None:
    """Write report.html from summary.json."""
    with opened(recipe) as run:
        from pliant.runs.summary import write_page

        write_page(run)
        say("", about=run.folder / "report.html")
