"""`pliant train`: train a run's supernet."""

from __future__ import annotations

from typing import Any

from pliant.cli.app import (
    Data,
    Epochs,
    RecipeArgument,
    RunDir,
    Seed,
    SkipBroken,
    SpaceName,
    StrategyName,
    TrainOn,
    app,
    open_run,
    say,
    screen,
)
from pliant.progress import shown


@app.command()
def train(
    recipe: RecipeArgument,
    data: Data = None,
    skip_broken: SkipBroken = None,
    space: SpaceName = None,
    strategy: StrategyName = None,
    epochs: Epochs = None,
    seed: Seed = None,
    train_on: TrainOn = None,
    run_dir: RunDir = None,
) -> None:
    """Train the supernet; resume from the last checkpoint. In parallel under torchrun."""
    changes: dict[str, Any] = {
        "data.source": data,
        "data.skip_broken": skip_broken,
        "space": space,
        "train.strategy": strategy,
        "train.epochs": epochs,
        "seed": seed,
    }
    with open_run(recipe, run_dir, changes, parallel=True) as run:
        from pliant.runs.train import train_supernet

        with shown(screen) as progress:
            train_supernet(run, device=train_on, progress=progress)
        say(f"{run.space.size:,} networks of space {run.space.name}", about=run.weights)
