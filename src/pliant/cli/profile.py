"""`pliant profile`: measure this machine for a run's space."""

from __future__ import annotations

from pliant.cli.app import (
    Data,
    PrecisionName,
    RecipeArgument,
    RunDir,
    SkipBroken,
    SpaceName,
    app,
    open_run,
    say,
    screen,
)
from pliant.errors import RecipeError
from pliant.progress import shown


@app.command()
def profile(
    recipe: RecipeArgument,
    precision: PrecisionName = None,
    data: Data = None,
    skip_broken: SkipBroken = None,
    space: SpaceName = None,
    run_dir: RunDir = None,
) -> None:
    """Measure this machine: the latency of all blocks of the space, and of whole networks."""
    changes = {
        "data.source": data,
        "data.skip_broken": skip_broken,
        "space": space,
        "target.precision": precision,
    }
    with open_run(recipe, run_dir, changes) as run:
        from pliant.devices.measured_target import MeasuredTarget
        from pliant.runs.session import Session

        with shown(screen) as progress:
            target = Session(run, limits=(), progress=progress).target
        if not isinstance(target, MeasuredTarget):
            raise RecipeError(
                f"a profile is of a machine that is measured; the target of this run is "
                f"{target.name}. Set target.name to this-cpu to measure this machine."
            )
        say(target.name, about=run.profile_path)
        [claim] = target.evidence()
        say(f"{len(target.profile.blocks)} blocks; {claim.value} on {claim.how}")
        say(f"convolution peak {target.profile.convolution_peak_gflops:.0f} GFLOP/s")
