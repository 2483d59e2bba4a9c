"""A folder of device profiles: one device under several runtimes, precisions, threads and batches.

this-cpu/
  profile-mobile-32-onnxruntime-fp32-threads1-batch1-all.json
  profile-mobile-32-onnxruntime-fp32-threads1-batch1-all-measurements.parquet
  profile-mobile-32-openvino-int8-threads1-batch1-all.json
  roofs-threads1.toml                what the device could do at most, as a data sheet
  sources/old-phone-onnxruntime-fp32.json        profiles of other devices that help to predict
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence
from pathlib import Path

from pliant.devices.data_sheet import DataSheet, load_sheet
from pliant.devices.measured_target import MeasuredTarget
from pliant.devices.profile import (
    DeviceProfile,
    load_profile,
    run_key,
    space_key,
)
from pliant.devices.timings import Settings
from pliant.errors import DamagedFileError, ProfileMismatchError
from pliant.metrics import InferencePrecision
from pliant.spaces.space import Space

PREFIX = "profile-"
SOURCES = "sources"


def profile_file(
    folder: Path, space_name: str, settings: Settings, precision: InferencePrecision
) -> Path:
    """Where a folder keeps the profile of a space under these settings.

    Args:
        folder: of profiles.
        space_name: of the space that was measured.
        settings: of the runtime.
        precision: of the networks that were measured.
    """
    name = re.sub(r"[^A-Za-z0-9._-]", "_", space_name)
    how = f"threads{settings.threads}-batch{settings.batch}-{settings.optimisation}"
    return folder / f"{PREFIX}{name}-{settings.runtime}-{precision}-{how}.json"


def profiles_in(folder: Path) -> dict[Path, DeviceProfile]:
    """The profiles of a folder, by their files.

    Raises:
        DamagedFileError: there is none, or one cannot be read.
    """
    files = sorted(folder.glob(f"{PREFIX}*.json"))
    if not files:
        raise DamagedFileError(
            f"a folder of device profiles holds {PREFIX}*.json, found none in {folder}. Make one "
            "with pliant device measure or pliant device import."
        )
    return {file: load_profile(file) for file in files}


def choose_profile(
    folder: Path,
    space: Space,
    settings: Settings,
    precision: InferencePrecision,
    *,
    unstated: frozenset[str],
) -> tuple[Path, DeviceProfile]:
    """The profile of a folder that was made for a space and these settings, and its file.

    Args:
        folder: of profiles.
        space: whose networks will run.
        settings: of the runtime.
        precision: of the networks.
        unstated: names of settings that may be others, where no profile has those given and only
            one has others.

    Raises:
        ProfileMismatchError: none fits, or several with other settings do; with those that there
            are.
        DamagedFileError: a profile cannot be read.
    """
    wanted, key = run_key(settings, precision), space_key(space)
    found = list(profiles_in(folder).items())
    of_space = [(path, one) for path, one in found if one.space == key]
    fitting = [(path, one) for path, one in of_space if _differences(one, wanted) <= unstated]
    exact = [(path, one) for path, one in fitting if not _differences(one, wanted)]
    if exact:
        return exact[0]
    if len(fitting) == 1:
        return fitting[0]
    if not of_space:
        found[0][1].require_space(space)
    there = "; ".join(_shown(one) for _, one in of_space)
    raise ProfileMismatchError(
        f"{folder} has no profile for {', '.join(f'{k} {v}' for k, v in wanted.items())}. It has "
        f"these: {there}. {_advice(of_space, fitting, precision)}"
    )


def _advice(
    of_space: Sequence[tuple[Path, DeviceProfile]],
    fitting: Sequence[tuple[Path, DeviceProfile]],
    precision: InferencePrecision,
) -> str:
    """What to do where no profile of a space, or no single one, fits."""
    if fitting:
        return f"Name the file of one of them as the target, such as {fitting[0][0]}."
    others = {one.precision for _, one in of_space} - {precision}
    if len(others) == 1 and all(one.precision in others for _, one in of_space):
        return f"Choose their precision, --precision {others.pop()}, or measure the device with it."
    return (
        "Start a run with the settings of one of them in its recipe: target.runtime, threads, "
        "batch, precision and optimisation (without a recipe they are the defaults), or measure "
        "the device with these."
    )


def roofs_file(folder: Path, threads: int) -> Path:
    """Where a folder keeps the roofs of its device."""
    return folder / f"roofs-threads{threads}.toml"


def folder_roofs(folder: Path, threads: int) -> DataSheet | None:
    """The roofs of a folder's device for so many threads; None where it keeps none.

    Raises:
        RecipeError: the file does not describe roofs.
    """
    path = roofs_file(folder, threads)
    return load_sheet(path) if path.is_file() else None


def folder_target(
    path: Path, profile: DeviceProfile, space: Space, *, seed: int = 0
) -> MeasuredTarget:
    """The device of a profile, with what its folder knows besides.

    Args:
        path: of the profile, or where it is about to be saved.
        profile: of the device.
        space: the one that the profile was made for.
        seed: of the order in which networks are timed.

    Raises:
        ProfileMismatchError: the profile was made for another space.
        DamagedFileError: a source cannot be read.
        RecipeError: the roofs cannot be read.
    """
    key, sources = space_key(space), {}
    for file in sorted((path.parent / SOURCES).glob("*.json")):
        source = load_profile(file)
        if source.space == key:
            sources[file.stem] = source
    roofs = folder_roofs(path.parent, profile.threads)
    return MeasuredTarget(profile, space, seed=seed, roofs=roofs, sources=sources)


def keep_sources(
    folder: Path, sources: Iterable[Path], space: Space, profile: DeviceProfile
) -> list[str]:
    """Copy profiles of other devices for a space into a folder.

    Args:
        folder: of the device that they shall help to predict.
        sources: profiles, or folders of them.
        space: of the networks; profiles for another one are left out.
        profile: of the device.

    Returns:
        Names of the copies.

    Raises:
        ProfileMismatchError: a source has no profile for the space, or the rows of the device.
        DamagedFileError: a source cannot be read.
    """
    kept = {}
    for path in sources:
        found = profiles_in(path) if path.is_dir() else {path: load_profile(path)}
        fitting = [one for one in found.values() if one.space == space_key(space)]
        if not fitting:
            next(iter(found.values())).require_space(space)
        for one in fitting:
            profile.require_other_device(one, str(path))
            of = f"threads{one.threads}-batch{one.batch}-{one.optimisation}"
            name = f"{path.resolve().stem}-{one.runtime}-{one.precision}-{of}"
            kept[re.sub(r"[^A-Za-z0-9._-]", "_", name)] = one
    for name, one in kept.items():
        one.save(folder / SOURCES / f"{name}.json")
    return list(kept)


def _differences(profile: DeviceProfile, wanted: dict[str, object]) -> set[str]:
    return {name for name, value in wanted.items() if getattr(profile, name) != value}


def _shown(profile: DeviceProfile) -> str:
    keys = run_key(profile.settings, profile.precision)
    return ", ".join(f"{name} {value}" for name, value in keys.items())
