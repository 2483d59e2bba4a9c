"""`pliant run`: the whole job."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from pliant.cli.app import (
    Confidence,
    Data,
    EnergyName,
    Epochs,
    ImageSize,
    Limits,
    Maximise,
    Minimise,
    OptionalRecipe,
    PrecisionName,
    RunDir,
    SearcherName,
    Seed,
    SkipBroken,
    SpaceName,
    StartName,
    StrategyName,
    TargetName,
    TimeBudget,
    TrainOn,
    app,
    open_run,
    say,
    screen,
)
from pliant.progress import shown

if TYPE_CHECKING:
    from pliant.runs.deliver import Delivered
    from pliant.runs.session import Session


@app.command()
def run(
    recipe: OptionalRecipe = None,
    data: Data = None,
    skip_broken: SkipBroken = None,
    limit: Limits = None,
    confidence: Confidence = None,
    target: TargetName = None,
    energy: EnergyName = None,
    maximise: Maximise = None,
    minimise: Minimise = None,
    precision: PrecisionName = None,
    space: SpaceName = None,
    start: StartName = None,
    image_size: ImageSize = None,
    strategy: StrategyName = None,
    epochs: Epochs = None,
    time: TimeBudget = None,
    searcher: SearcherName = None,
    seed: Seed = None,
    train_on: TrainOn = None,
    run_dir: RunDir = None,
) -> None:
    """Measure the target, train a supernet, search it, deliver the best network, and report."""
    changes = {
        "data.source": data,
        "data.skip_broken": skip_broken,
        "limits": limit,
        "confidence": confidence,
        "target.name": target,
        "target.energy": energy,
        "objective.maximise": maximise,
        "objective.minimise": minimise,
        "target.precision": precision,
        "space": space,
        "train.start": start,
        "data.image_size": image_size,
        "train.strategy": strategy,
        "train.epochs": epochs,
        "time": time,
        "search.searcher": searcher,
        "seed": seed,
    }
    do_run(recipe, run_dir, changes, train_on)


def do_run(
    recipe: str | None, run_dir: Path | None, changes: Mapping[str, Any], train_on: str | None
) -> None:
    """The whole job, and what it delivered.

    Args:
        recipe: name or path of a recipe, or a run directory; None to decide by the images.
        run_dir: the run directory instead of `runs/NAME`.
        changes: dotted keys of the recipe to values; None and empty ones are passed over.
        train_on: device that trains, as PyTorch names it.
    """
    with open_run(recipe, run_dir, changes) as held:
        from pliant.runs.session import Session
        from pliant.runs.workflow import run_steps

        with shown(screen) as progress:
            session = Session(held, device=train_on, progress=progress)
            delivered = run_steps(session).delivered
        assert delivered is not None
        say_delivered(session, delivered)
        say("the report", about=held.folder / "report.html")


def say_delivered(session: Session, delivered: Delivered) -> None:
    """What was delivered, what it costs, and how accurate it is."""
    from pliant.units import format_cost

    metric = session.objective.costs[0]
    apart = delivered.measured_apart
    measured = apart is not None and metric in apart.cost.metrics
    cost = apart.cost if apart is not None and measured else delivered.predicted
    how = "measured" if measured else f"predicted only: {session.target.name} is not measured"
    limits = ", ".join(map(str, session.limits))
    say(str(delivered.architecture), about=delivered.folder)
    value = format_cost(metric, cost.metric(metric))
    say(f"{metric} {value} {how}" + (f"; limits {limits}" if limits else ""))
    say(f"{delivered.test.top1:.2%} of {delivered.test.images} test images")
    if delivered.own_class:
        say(delivered.own_class)
