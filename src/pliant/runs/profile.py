"""The device of a run: measured, or taken from a profile that somebody measured before."""

from __future__ import annotations

from pathlib import Path

from pliant.devices.measure import Settings
from pliant.devices.profile import DeviceProfile, load_profile, profile_device
from pliant.errors import DamagedFileError, ProfileMismatchError
from pliant.progress import Progress, silent
from pliant.runs.run import Run


def settings(run: Run) -> Settings:
    """How networks run on the device."""
    table = run.recipe.device
    return Settings(threads=table.threads, batch=table.batch, optimisation=table.optimisation)


def device_profile(
    run: Run, *, progress: Progress = silent, source: str | Path | None = None
) -> DeviceProfile:
    """The profile of a run's device, made if it is not there yet.

    Args:
        source: a profile to use instead of the run's own.

    Raises:
        ProfileMismatchError: a profile for another space, thread count, batch or optimisation level.
        MeasurementError: this machine is too busy to be measured.
        DamagedFileError: a profile that cannot be read.
    """
    source = source or run.recipe.device.profile
    if source is None and not run.profile_path.is_file():
        made = profile_device(
            run.space,
            settings(run),
            seed=run.recipe.seed,
            measurements=run.folder / "device-measurements.parquet",
            progress=lambda note, done, total: progress("profile", done, total, note),
        )
        made.save(run.profile_path)
    path = Path(source) if source else run.profile_path
    try:
        profile = load_profile(path)
        profile.require_settings(settings(run))
        profile.table(run.space)
    except (DamagedFileError, ProfileMismatchError) as error:
        if source:
            raise
        raise type(error)(
            f"{error} It stands in {path}: remove it to have this machine measured anew."
        ) from None
    if source and Path(source) != run.profile_path and not run.profile_path.is_file():
        profile.save(run.profile_path)
    return profile
