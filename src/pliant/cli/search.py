"""`pliant search`: find the front of a trained run, or the best of a space by an estimator.

Four searches share the command. What was given decides which one runs, and an option that this one
does not use is refused by name. The search without training is in `cli/zero_shot_search.py`; a
search by a training strategy, such as `proxyless`, is a run.
"""

from __future__ import annotations

from collections.abc import Collection
from pathlib import Path
from typing import Annotated

import typer
from rich.table import Table

from pliant.cli.app import (
    Confidence,
    Data,
    Epochs,
    Limits,
    Maximise,
    PrecisionName,
    SearcherName,
    Seed,
    TargetName,
    TimeBudget,
    WorkerText,
    app,
    open_run,
    say,
    screen,
)
from pliant.cli.bounds import MOST
from pliant.cli.estimator_search import (
    SEARCHING_ESTIMATORS,
    SHARING_WEIGHTS,
    run_estimator_search,
)
from pliant.cli.given import given_options, refuse_unused
from pliant.cli.score import AnySpace, Classes, ShapeText
from pliant.cli.zero_shot_search import run_zero_shot_search
from pliant.errors import RecipeError
from pliant.progress import shown

RUN_OPTIONS = frozenset({"recipe", "limit", "confidence", "searcher"})
"""What the search of a run uses."""
STRATEGY_OPTIONS = frozenset(
    {
        "space",
        "strategy",
        "data",
        "target",
        "precision",
        "limit",
        "maximise",
        "epochs",
        "time",
        "seed",
        "run_dir",
    }
)
"""What a search by a training strategy uses."""
ESTIMATOR_OPTIONS = frozenset(
    {
        "space",
        "estimator",
        "data",
        "limit",
        "confidence",
        "target",
        "precision",
        "budget",
        "evaluations",
        "max_depth",
        "epochs",
        "train_share",
        "images",
        "seed",
        "workers",
        "run_dir",
    }
)
"""What a search by an accuracy estimator uses; those with shared weights `shared_epochs` too."""
SCORE_OPTIONS = frozenset(
    {
        "space",
        "estimator",
        "data",
        "limit",
        "confidence",
        "target",
        "precision",
        "evaluations",
        "max_depth",
        "shape",
        "classes",
        "images",
        "seed",
        "workers",
        "run_dir",
    }
)
"""What a search without training uses."""
DEFAULT_SCORE = "zen"
"""What `--estimator zero-shot` means."""


@app.command()
def search(
    context: typer.Context,
    recipe: Annotated[
        str | None,
        typer.Argument(
            help="A recipe by name or path, or a run directory; none to search without training."
        ),
    ] = None,
    limit: Limits = None,
    confidence: Confidence = None,
    space: AnySpace = None,
    estimator: Annotated[
        str | None,
        typer.Option(
            help="scratch, inherit, supernet, hypernetwork or predictor, with --data and --budget; "
            "or a zero-shot score, such as zen."
        ),
    ] = None,
    strategy: Annotated[
        str | None,
        typer.Option(
            help="A training strategy that searches, such as proxyless; with --space and --data."
        ),
    ] = None,
    maximise: Maximise = None,
    epochs: Epochs = None,
    time: TimeBudget = None,
    budget: Annotated[
        str | None,
        typer.Option(
            help="Of a search by an estimator: a time such as 2h, CPU time of each worker with all "
            "training; or epochs such as 200epochs."
        ),
    ] = None,
    evaluations: Annotated[
        int,
        typer.Option(
            min=1, max=MOST, help="Networks to evaluate by evolution, and as many at random."
        ),
    ] = 1000,
    max_depth: Annotated[
        int | None,
        typer.Option(
            min=1, max=MOST, help="Most layers with weights on the longest path of a network."
        ),
    ] = None,
    data: Data = None,
    shape: ShapeText = None,
    classes: Classes = None,
    images: Annotated[
        int | None,
        typer.Option(
            min=2,
            max=MOST,
            help="Images behind every result: 64 for a score, 2500 of the validation split for an "
            "accuracy, if not given.",
        ),
    ] = None,
    shared_epochs: Annotated[
        int | None,
        typer.Option(min=1, max=MOST, help="Of a supernet or a hypernetwork; 24 if not given."),
    ] = None,
    train_share: Annotated[
        float,
        typer.Option(min=0.001, max=1, help="Share of the training images that estimators use."),
    ] = 1.0,
    target: TargetName = None,
    precision: PrecisionName = None,
    searcher: SearcherName = None,
    seed: Seed = None,
    workers: WorkerText = None,
    run_dir: Annotated[
        Path | None,
        typer.Option(
            help="Directory of the search; runs/SPACE-ESTIMATOR, or runs/SPACE-STRATEGY, if not "
            "given."
        ),
    ] = None,
) -> None:
    """Search a trained supernet under the limits, and random search at equal cost for comparison.

    With --space and --estimator instead of a recipe: evolution by an accuracy estimator within a
    budget, its finalists trained from scratch; or by a score, without any training.
    """
    if recipe is not None:
        refuse_options(
            context,
            RUN_OPTIONS,
            "a run is searched with its own settings; only --limit, --confidence and --searcher "
            "may change",
            "To search by a score, leave the recipe out and give --space and --estimator",
        )
        _search_run(recipe, limit, confidence, searcher)
        return
    if strategy is not None:
        refuse_options(
            context,
            STRATEGY_OPTIONS,
            f"a search by training strategy {strategy} takes --"
            + ", --".join(sorted(name.replace("_", "-") for name in STRATEGY_OPTIONS)),
            "Leave them out; pliant run takes the other options of a run",
        )
        _search_by_strategy(
            strategy, space, data, limit, target, precision, maximise, epochs, time, seed, run_dir
        )
        return
    if space is None or estimator is None:
        raise RecipeError(
            "a search takes a recipe or a run directory, --space and --estimator to search "
            "by an estimator or a score, or --space, --strategy and --data to search while "
            f"training; received {_received(context)}."
        )
    from pliant.metrics import as_precision

    if target is None:
        rule = "the precision is that of the networks on a target; name it by --target"
        refuse_unused(context, ["precision"], rule)
    if estimator in SEARCHING_ESTIMATORS:
        used = ESTIMATOR_OPTIONS | ({"shared_epochs"} if estimator in SHARING_WEIGHTS else set())
        refuse_options(
            context,
            used,
            f"a search by estimator {estimator} is by evolution, and trains as the estimator does",
            "Leave them out",
        )
        run_estimator_search(
            space,
            estimator,
            data=data,
            budget=budget,
            limits=limit or [],
            confidence=confidence,
            evaluations=evaluations,
            max_depth=max_depth,
            target=target,
            precision=as_precision(precision) or "fp32",
            epochs=epochs,
            shared_epochs=shared_epochs,
            train_share=train_share,
            images=images or 2500,
            seed=seed or 0,
            workers=workers,
            run_dir=run_dir,
        )
        return
    refuse_options(
        context,
        SCORE_OPTIONS,
        "a search without training is by evolution, has no epochs, no time, no budget and no other "
        "objective than its score",
        "Leave them out",
    )
    run_zero_shot_search(
        space,
        DEFAULT_SCORE if estimator == "zero-shot" else estimator,
        limits=limit or [],
        confidence=confidence,
        evaluations=evaluations,
        max_depth=max_depth,
        data=data,
        shape=shape,
        classes=classes,
        images=images or 64,
        target=target,
        precision=as_precision(precision) or "fp32",
        seed=seed or 0,
        workers=workers,
        run_dir=run_dir,
    )


def _search_by_strategy(
    strategy: str,
    space: str | None,
    data: str | None,
    limit: list[str] | None,
    target: str | None,
    precision: str | None,
    maximise: str | None,
    epochs: int | None,
    time: str | None,
    seed: int | None,
    run_dir: Path | None,
) -> None:
    """Train and search at once, and deliver what was found; arguments are the options.

    Raises:
        RecipeError: the strategy does not search, or no space is given.
    """
    from pliant.cli.run import do_run
    from pliant.spaces.presets import space_name
    from pliant.training.registry import SEARCHING, require_strategy

    if require_strategy(strategy) not in SEARCHING:
        raise RecipeError(
            f"a search while training is by {', '.join(sorted(SEARCHING))}, received {strategy}. "
            "A supernet that another strategy trains is searched by pliant run."
        )
    if space is None:
        raise RecipeError(
            f"a search by training strategy {strategy} takes a space in which each choice picks "
            "the operation of one block, received none. Add one, such as --space proxyless-32."
        )
    changes = {
        "data.source": data,
        "space": space,
        "train.strategy": strategy,
        "limits": limit,
        "target.name": target,
        "target.precision": precision,
        "objective.maximise": maximise,
        "train.epochs": epochs,
        "time": time,
        "seed": seed,
    }
    if run_dir is None:  # beside other runs on the same images
        run_dir = Path("runs") / f"{Path(space_name(space)).name}-{strategy}"
    do_run(None, run_dir, changes, None)


def refuse_options(context: typer.Context, used: Collection[str], rule: str, advice: str) -> None:
    """Refuse the options of a command that the chosen mode would ignore.

    Args:
        context: of the command, which knows what stood on the command line.
        used: names of the parameters that the mode uses.
        rule: the beginning of the message.
        advice: its end: what to do instead.

    Raises:
        RecipeError: naming every such option.
    """
    given = given_options(context)
    if unused := [option for name, option in given.items() if name not in used]:
        raise RecipeError(f"{rule}, received {', '.join(unused)}. {advice}.")


def _received(context: typer.Context) -> str:
    return ", ".join(given_options(context).values()) or "neither"


def _search_run(
    recipe: str, limit: list[str] | None, confidence: float | None, searcher: str | None
) -> None:
    changes = {"limits": limit, "confidence": confidence, "search.searcher": searcher}
    with open_run(recipe, changes=changes) as run:
        from pliant.runs.session import Session
        from pliant.runs.workflow import run_steps
        from pliant.units import format_cost

        with shown(screen) as progress:
            session = Session(run, progress=progress)
            found = run_steps(session, deliver=False).found
        metric = session.objective.costs[0]
        table = Table(metric, "predicted", "validation", "parameters", "architecture")
        for one in found.shortlist:
            measured = one.measured is not None and metric in one.measured.cost.metrics
            table.add_row(
                format_cost(metric, one.cost.metric(metric)) if measured else "not measured",
                format_cost(metric, one.predicted.metric(metric)),
                f"{one.validated.top1:.2%}",
                f"{run.space.cost(one.architecture).parameters:,}",
                str(one.architecture),
                style="bold" if one.architecture == found.chosen.architecture else None,
            )
        screen.print(table)
        say(f"deliver the best with: pliant deploy {run.folder}")
