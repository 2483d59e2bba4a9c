"""`pliant profile`: measure this machine for a run's space."""

from __future__ import annotations

from pliant.cli.app import Data, Into, RecipeArgument, SpaceName, app, bars, opened, say


@app.command()
def profile(
    recipe: RecipeArgument, data: Data = None, space: SpaceName = None, into: Into = None
) -> None:
    """Measure this machine: the latency of all blocks of the space, and how well that foresees whole networks."""
    with opened(recipe, into, data__source=data, space=space) as run:
        from pliant.runs.profile import device_profile

        with bars() as progress:
            made = device_profile(run, progress=progress)
        say(
            f"{made.machine}, {made.runtime} {made.runtime_version}, {made.threads} thread(s)",
            about=run.profile_path,
        )
        say(
            f"{len(made.blocks)} blocks; {made.fit_mape_percent:.1f} % mean error on {made.fit_networks} networks not fitted on"
        )
        say(f"convolution peak {made.convolution_peak_gflops:.0f} GFLOP/s")
