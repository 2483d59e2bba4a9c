"""`pliant run`: the whole job."""

from __future__ import annotations

from typing import Any

from pliant.cli.app import (
    Data,
    Epochs,
    Into,
    Limits,
    ProfileFile,
    RecipeArgument,
    Schedule,
    Seed,
    SpaceName,
    TrainOn,
    app,
    bars,
    opened,
    say,
)


@app.command()
def run(
    recipe: RecipeArgument,
    data: Data = None,
    limit: Limits = None,
    space: SpaceName = None,
    schedule: Schedule = None,
    epochs: Epochs = None,
    seed: Seed = None,
    device: ProfileFile = None,
    train_on: TrainOn = None,
    into: Into = None,
) -> None:
    """Measure the device, train a supernet, search it, deliver the best network within the limits, and report."""
    changes: dict[str, Any] = {
        "data__source": data,
        "limits": limit,
        "space": space,
        "train__schedule": schedule,
        "train__epochs": epochs,
        "seed": seed,
    }
    with opened(
        recipe, into, **changes, device__profile=str(device) if device else None
    ) as opened_run:
        from pliant.runs.workflow import run_all

        with bars() as progress:
            result = run_all(opened_run, device=train_on, progress=progress)
        delivered, chosen = result.delivered, result.found.chosen
        latency = delivered.fresh_latency_ms or chosen.cost.latency_ms
        say(str(chosen.architecture), about=delivered.folder)
        limits = ", ".join(opened_run.recipe.limits)
        say(
            f"{latency:.4g} ms {'measured' if delivered.fresh_latency_ms else 'predicted'}"
            + (f", limits {limits}" if limits else "")
        )
        say(f"{delivered.test_top1:.2%} of {delivered.test_images} test images")
        say("the report", about=opened_run.folder / "report.html")
