"""`pliant train`: train a run's supernet."""

from __future__ import annotations

from typing import Any

from pliant.cli.app import (
    Data,
    Epochs,
    Into,
    RecipeArgument,
    Seed,
    SpaceName,
    StrategyName,
    TrainOn,
    app,
    bars,
    opened,
    say,
)


@app.command()
def train(
    recipe: RecipeArgument,
    data: Data = None,
    space: SpaceName = None,
    strategy: StrategyName = None,
    epochs: Epochs = None,
    seed: Seed = None,
    train_on: TrainOn = None,
    into: Into = None,
) -> None:
    """Train the supernet, from its last checkpoint where there is one; under torchrun, in parallel."""
    changes: dict[str, Any] = {
        "data.source": data,
        "space": space,
        "train.strategy": strategy,
        "train.epochs": epochs,
        "seed": seed,
    }
    with opened(recipe, into, changes, parallel=True) as run:
        from pliant.runs.train import train_supernet

        with bars() as progress:
            train_supernet(run, device=train_on, progress=progress)
        say(f"{run.space.size:,} networks of space {run.space.name}", about=run.weights)
