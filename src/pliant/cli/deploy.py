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
    architecture: Annotated[str | None, typer.Option(help="A network by its text form, as the report shows it.")] = None,
    into: Annotated[Path | None, typer.Option(help="Folder for the network; best/ or front/NAME of the run if not given.")] = None,
) -> None:
    """Write a network as ONNX, safetensors and plain PyTorch, and prove it. With --limit or --device, choose another one: no training."""
    from pliant.objective import Limit
    from pliant.pipeline.another import another_network
    from pliant.pipeline.deliver import deliver, deliver_found, single_finalist
    from pliant.pipeline.profile import device_profile
    from pliant.pipeline.search import make_estimator, search_front
    from pliant.pipeline.summary import write_page, write_summary
    from pliant.pipeline.train import train_supernet

    if architecture and limit:
        raise typer.BadParameter("an architecture is delivered as it is; give --architecture or --limit, not both.")
    limits = tuple(Limit.parse(text) for text in limit or ())
    with opened(recipe) as run, bars() as progress:
        profile = device_profile(run, source=device, progress=progress)
        supernet = train_supernet(run, progress=progress)
        if not (architecture or limit or device or into):
            found = search_front(run, supernet, profile, progress=progress)
            delivered = deliver_found(run, supernet, profile, found, limits=run.recipe.parsed_limits, progress=progress)
            write_summary(run, profile, found, delivered, run.recipe.parsed_limits)
            write_page(run)
        else:
            limits = limits or run.recipe.parsed_limits
            if architecture:
                limits = ()
                finalist = single_finalist(run, make_estimator(run, supernet), profile, run.space.parse(architecture))
            else:
                finalist = another_network(run, supernet, profile, limits, progress=progress)
            folder = into or run.folder / "front" / str(finalist.architecture)[:120]
            delivered = deliver(run, supernet, profile, finalist, folder=folder, limits=limits, progress=progress)
    latency = (
        f"{delivered.fresh_latency_ms:.4g} ms measured" if delivered.fresh_latency_ms else "latency predicted only: the device is elsewhere"
    )
    say(f"[bold]{delivered.folder}[/]: {delivered.architecture}")
    say(f"{latency}; {delivered.test_top1:.2%} of {delivered.test_images} test images")
