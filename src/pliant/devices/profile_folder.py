"""A folder of device profiles: one device under several runtimes, precisions, threads and batches.

this-cpu/
  profile-mobile-32-onnxruntime-fp32-threads1-batch1-all.json
  profile-mobile-32-onnxruntime-fp32-threads1-batch1-all-measurements.parquet
  profile-mobile-32-openvino-int8-threads1-batch1-all.json
"""

from __future__ import annotations

import re
from pathlib import Path

from pliant.devices.profile import DeviceProfile, load_profile, run_key, space_key
from pliant.devices.timings import Settings
from pliant.errors import DamagedFileError, ProfileMismatchError
from pliant.metrics import InferencePrecision
from pliant.spaces.space import Space

PREFIX = "profile-"


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
    any_runtime: bool,
) -> DeviceProfile:
    """The profile of a folder that was made for a space and these settings.

    Args:
        folder: of profiles.
        space: whose networks will run.
        settings: of the runtime.
        precision: of the networks.
        any_runtime: whether another runtime may be chosen where that of the settings has no profile
            and only one other has.

    Raises:
        ProfileMismatchError: none fits, or several runtimes do; with those that there are.
        DamagedFileError: a profile cannot be read.
    """
    wanted, key = run_key(settings, precision), space_key(space)
    found = list(profiles_in(folder).values())
    of_space = [one for one in found if one.space == key]
    fitting = [one for one in of_space if _differences(one, wanted) <= {"runtime"}]
    exact = [one for one in fitting if one.runtime == settings.runtime]
    if exact:
        return exact[0]
    if any_runtime and len(fitting) == 1:
        return fitting[0]
    if not of_space:
        found[0].require_space(space)
    there = "; ".join(_shown(one) for one in of_space)
    raise ProfileMismatchError(
        f"{folder} has no profile for {', '.join(f'{k} {v}' for k, v in wanted.items())}. It has "
        f"these: {there}. Set target.runtime, threads, batch, precision or optimisation in the "
        "recipe to those of one of them, or measure this one with pliant device measure."
    )


def _differences(profile: DeviceProfile, wanted: dict[str, object]) -> set[str]:
    return {name for name, value in wanted.items() if getattr(profile, name) != value}


def _shown(profile: DeviceProfile) -> str:
    keys = run_key(profile.settings, profile.precision)
    return ", ".join(f"{name} {value}" for name, value in keys.items())
