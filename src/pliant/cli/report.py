"""`pliant report`: write a run's page again."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from pliant.cli.app import app, say
from pliant.errors import RunConflictError


@app.command()
def report(
    folder: Annotated[Path, typer.Argument(help="A run directory.")],
) -> None:
    """Write report.html from summary.json; also while the run is at work."""
    if not (folder / "summary.json").is_file():
        raise RunConflictError(
            "a report is written from the summary.json of a run directory, found none in "
            f"{folder}. Name a directory that pliant run, search or deploy finished."
        )
    from pliant.runs.summarize import write_page

    write_page(folder)
    say("", about=folder / "report.html")
