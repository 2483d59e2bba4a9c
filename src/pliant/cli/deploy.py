"""`pliant deploy`: deliver a network of a trained run."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from pliant.cli.app import Limits, ProfileFile, RecipeArgument, app, bars, opened, say


@app.command()
def deploy(
    recipe: RecipeArgument,
    limit: Limits = None,
    device: ProfileFile = None,
    architecture: Annotated[
        str | None, typer.Option(help="A network by its text form, as the report shows it.")
    ] = None,
    into: Annotated[
        Path | None,
        typer.Option(help="Folder for the network; best/ or front/NAME of the run if not given."),
    ] = None,
) -> None:
    """Write a network as ONNX, safetensors and plain PyTorch, and prove it. With --limit or --device, choose another one: no training."""
    from pliant.objective import Limit

    if architecture and limit:
        raise typer.BadParameter(
            "an architecture is delivered as it is; give --architecture or --limit, not both."
        )
    limits = tuple(Limit.parse(text) for text in limit or ())
    with opened(recipe) as run:
        from pliant.runs.deliver import deliver, deliver_found, single_finalist
        from pliant.runs.profile import device_profile
        from pliant.runs.search import make_estimator, require_feasible, search_front
        from pliant.runs.specialize import another_network
        from pliant.runs.summary import write_page, write_summary
        from pliant.runs.train import train_supernet

        named = run.space.parse(architecture) if architecture else None
        limits = () if named is not None else limits or run.recipe.parsed_limits
        with bars() as progress:
            profile = device_profile(run, source=device, progress=progress)
            require_feasible(run, profile, limits)
            supernet = train_supernet(run, progress=progress)
            if not (architecture or limit or device or into):
                found = search_front(run, supernet, profile, progress=progress)
                delivered = deliver_found(
                    run, supernet, profile, found, limits=limits, progress=progress
                )
                write_summary(run, profile, found, delivered, limits)
                write_page(run)
            else:
                if named is not None:
                    finalist = single_finalist(run, make_estimator(run, supernet), profile, named)
                else:
                    finalist = another_network(run, supernet, profile, limits, progress=progress)
                folder = into or run.folder / "front" / str(finalist.architecture)
                delivered = deliver(
                    run,
                    supernet,
                    profile,
                    finalist,
                    folder=folder,
                    limits=limits,
                    progress=progress,
                )
        measured_ms, predicted_ms = delivered.fresh_latency_ms, delivered.predicted_ms
        latency = (
            f"{predicted_ms:.4g} ms, predicted only: the device is elsewhere"
            if measured_ms is None
            else f"{measured_ms:.4g} ms measured"
        )
        say(str(delivered.architecture), about=delivered.folder)
        say(f"{latency}; {delivered.test_top1:.2%} of {delivered.test_images} test images")
