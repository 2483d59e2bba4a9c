"""From the name of a target to the target: this machine, a profile, a chip, or one of your own.

Opening a chip or a profile takes milliseconds; this machine is measured first if it never was.
"""

from __future__ import annotations

import hashlib
import os
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, cast

import numpy as np

from pliant.errors import (
    DamagedFileError,
    MeasurementError,
    ProfileMismatchError,
    RecipeError,
    nearest,
)
from pliant.metrics import (
    ARITHMETIC_METRICS,
    COST_METRICS,
    Claim,
    Cost,
    Failed,
    InferencePrecision,
    Measured,
)
from pliant.objective import CostModel, Target, checked_costs, function_name
from pliant.plugins import call_plugin, is_object, is_plugin, load_plugin, plugin_path
from pliant.progress import Progress, given_or_shown
from pliant.spaces.architecture import Architecture
from pliant.spaces.space import Space

if TYPE_CHECKING:
    from pliant.devices.measured_target import MeasuredTarget
    from pliant.devices.timings import Settings

THIS_CPU = "this-cpu"
"""The machine that the program runs on, under the runtime of the run."""
DEFAULT_RUNTIME = "onnxruntime"


@dataclass(frozen=True)
class TargetOptions:
    """How a target is opened.

    Args:
        threads: that run a network; where None, those of a given profile, or else 1.
        batch: images per run of a network; where None, as for threads.
        optimisation: graph optimisation level of ONNX Runtime: basic, extended or all; where None,
            that of a given profile, or else all.
        mapping: objective of a chip's mappings: energy, latency, edp or a weighted product.
        folder: where the profile of this machine and a chip's mappings are kept; nowhere where
            None, so this machine cannot be opened.
        seed: of measurements.
        precision: of the networks that this machine runs.
        runtime: that runs them, by a name of `pliant.devices.runtimes.RUNTIMES`; where None, that
            of a given profile, or else ONNX Runtime.
        energy: where the energy comes from: a stated power (`6W`), `rapl`, `nvml` or a power log
            (.csv); where None, a profiled machine reports none.
    """

    threads: int | None = None
    batch: int | None = None
    optimisation: str | None = None
    mapping: str = "edp"
    folder: Path | None = None
    seed: int = 0
    precision: InferencePrecision = "fp32"
    runtime: str | None = None
    energy: str | None = None

    @property
    def settings(self) -> Settings:
        """How networks run under the runtime, with the defaults of what is None."""
        from pliant.devices.timings import Settings

        level: Any = self.optimisation or "all"
        return Settings(self.threads or 1, self.batch or 1, level, self.runtime or DEFAULT_RUNTIME)

    @property
    def unstated(self) -> frozenset[str]:
        """The settings that are None, so that a given profile decides."""
        names = ("threads", "batch", "optimisation", "runtime")
        return frozenset(name for name in names if getattr(self, name) is None)

    @property
    def profile(self) -> Path | None:
        """The kept profile of this machine."""
        runtime = f"-{self.runtime}" if self.runtime not in (None, DEFAULT_RUNTIME) else ""
        precision = "-int8" if self.precision == "int8" else ""
        name = f"device{runtime}{precision}.json"
        return None if self.folder is None else self.folder / name


@dataclass(frozen=True)
class ReportedMetrics:
    """What is known of a target before it is opened."""

    name: str
    metrics: tuple[str, ...]


TargetLike = str | Target | Callable[[Space], Target]
"""A target, a function or class that makes one for a space, or the name of one."""


def require_known(name: TargetLike) -> None:
    """Refuse what means no target, without opening any.

    Raises:
        RecipeError: with the names that are known.
        DamagedFileError: a file that does not exist.
    """
    from pliant.accelerator.chip import shipped_chips
    from pliant.devices.data_sheet import shipped_sheets

    if not isinstance(name, str):
        if not (callable(name) or hasattr(name, "predict")):
            raise RecipeError(
                "a target is a name, a Target, or a function or class that makes one for a space; "
                f"received {type(name).__name__}."
            )
        return
    if is_object(name):
        load_plugin(name, what="a target")
    known = [THIS_CPU, *shipped_chips(), *shipped_sheets()]
    if name in known:
        return
    if name.endswith(".py"):
        raise RecipeError(
            f"a target of your own is named as file.py:NAME, received {name!r}. Add the name of "
            "its class or function."
        )
    path = plugin_path(name) if is_plugin(name) else Path(name)
    if is_folder(name) and path.is_dir():
        return
    if path.suffix in (".json", ".toml", ".py"):
        if not path.is_file():
            raise DamagedFileError(f"a target's file must be there, found none at {path}.")
        return
    raise RecipeError(
        f"a target is one of {', '.join(known)}, a device profile (.json), a folder of them "
        f"(my-board/), a chip or a data sheet (.toml), or file.py:NAME, received {name!r}. "
        f"{nearest(name, known)}"
    )


def is_folder(name: str) -> bool:
    """Whether the name of a target means a folder: it has a slash, as in `my-board/`."""
    return "/" in name or os.sep in name


def reported_metrics(name: TargetLike, energy: str | None = None) -> ReportedMetrics | None:
    """What this machine reports before it is measured; None for all other targets.

    Args:
        name: of the target.
        energy: as of `TargetOptions`.
    """
    from pliant.devices.measured_target import METRICS

    if name != THIS_CPU:
        return None
    return ReportedMetrics(name, METRICS if energy is None else (*METRICS, "energy_uj"))


def open_target(
    name: TargetLike,
    space: Space,
    options: TargetOptions | None = None,
    *,
    progress: Progress | None = None,
) -> Target:
    """The target of a name, for the networks of a space.

    Args:
        name: `this-cpu`, the name or .toml of a chip or data sheet, a profile's .json, a folder
            of profiles, `file.py:NAME`; or a function or class, which that names too, that takes
            the space and returns a `Target`; or a target.
        space: whose networks will run on it.
        options: how they run.
        progress: of measuring this machine; shown where None, `pliant.progress.silent` for none.

    Raises:
        RecipeError: the name means no target.
        ProfileMismatchError: a profile for another space, runtime, precision, thread count, batch
            or optimisation.
        MeasurementError: this machine is too busy to be measured.
        DamagedFileError: a profile that cannot be read.
    """
    options = options or TargetOptions()
    require_known(name)
    if options.energy is None:
        return _without_energy(name, space, options, progress)
    from pliant.devices.energy import parse_energy

    parse_energy(options.energy)  # a meter that is not there is refused before anything is measured
    target = _without_energy(name, space, options, progress)
    return _with_energy(target, options.energy, options.folder)


def _with_energy(target: Target, energy: str, folder: Path | None) -> Target:
    """A profiled machine with a meter or a power, or a data sheet with another power.

    Raises:
        RecipeError: the target has an energy of its own, or the meter is not on it.
    """
    from pliant.devices.data_sheet_target import DataSheetTarget
    from pliant.devices.energy import Power, parse_energy
    from pliant.devices.energy_target import with_energy
    from pliant.devices.measured_target import MeasuredTarget

    if isinstance(target, MeasuredTarget):
        return with_energy(target, energy, folder)
    power = parse_energy(energy)
    if isinstance(target, DataSheetTarget) and isinstance(power, Power):
        return DataSheetTarget(replace(target.sheet, power_w=power.watts), target.space)
    raise RecipeError(
        "target.energy is for machines that were measured, and as a power for data sheets; "
        f"received {energy!r} for {target.name}. Leave it out."
    )


def _without_energy(
    name: TargetLike, space: Space, options: TargetOptions, progress: Progress | None
) -> Target:
    """The target of a name, with no energy but its own."""
    if not isinstance(name, str) or is_plugin(name):
        return _own_target(name, space)
    if name == THIS_CPU:
        with given_or_shown(progress) as told:
            return _this_cpu(space, options, told)
    if name.endswith(".json"):
        return _profiled(Path(name), space, options)
    if is_folder(name) and Path(name).is_dir():
        return _from_folder(Path(name), space, options)
    from pliant.devices.data_sheet import is_sheet, load_sheet

    if is_sheet(name):
        from pliant.devices.data_sheet_target import DataSheetTarget

        return DataSheetTarget(load_sheet(name), space)
    from pliant.accelerator.chip import load_chip
    from pliant.accelerator.chip_target import ChipTarget

    cache = None if options.folder is None else options.folder / "mappings"
    return ChipTarget(load_chip(name), space, objective=options.mapping, cache=cache)


def _own_target(given: TargetLike, space: Space) -> Target:
    """A target that was given, or what a function or class of the user's own makes of a space."""
    makes = isinstance(given, (str, type)) or not hasattr(given, "predict")
    target = cast(Target, call_plugin(cast(Any, given), space, what="a target") if makes else given)
    if not hasattr(target, "predict"):
        raise RecipeError(
            f"a target predicts the costs of networks; {given} returned {type(target).__name__}, "
            "which has no predict. Use pliant.targets.FunctionTarget for a function of costs."
        )
    _require_consistent(target, space)
    return target


def _require_consistent(target: Target, space: Space) -> None:
    """Refuse a target of the user's own that says other things than it does.

    Raises:
        RecipeError: its identity is no text, it names an unknown metric or one that it does not
            predict, or it predicts something else when it is asked again.
        MeasurementError: a cost is no finite number of 0 or more.
    """
    kind, identity = type(target).__name__, target.identity
    if not isinstance(identity, str) or not identity:
        raise RecipeError(
            "the identity of a target is a text, a digest of all that decides its predictions; "
            f"that of {kind} is {identity!r}. Return for example 'my-board-1'."
        )
    if unknown := [name for name in target.metrics if name not in COST_METRICS]:
        raise RecipeError(
            f"the metrics of a target are fields of Cost; {kind} names {unknown[0]!r}. "
            f"{nearest(str(unknown[0]), COST_METRICS)}"
        )
    smallest = space.smallest()
    [cost] = checked_costs(target.predict, [smallest])
    [again] = checked_costs(target.predict, [smallest])
    if isinstance(cost, Failed):
        return
    if missing := [name for name in target.metrics if name not in cost.metrics]:
        raise RecipeError(
            f"a target predicts what its metrics name; {kind} names {missing[0]} and predicts None "
            f"for {smallest}. Return it from predict, or leave it out of metrics."
        )
    if again != cost:
        raise RecipeError(
            f"a target predicts the same for the same network; {kind} predicted {_known(cost)} "
            f"for {smallest}, then {_known(again)}. Draw no random numbers in predict."
        )


def _known(cost: Cost | Failed) -> str:
    """What is known of a cost, for messages."""
    if isinstance(cost, Failed):
        return f"Failed ({cost.reason})"
    return ", ".join(f"{name}={getattr(cost, name)}" for name in cost.metrics)


def _this_cpu(space: Space, options: TargetOptions, progress: Progress) -> MeasuredTarget:
    """This machine, from the profile in the folder or measured now."""
    from pliant.devices.profile import profile_device

    path = options.profile
    if path is None:
        raise RecipeError(
            f"{THIS_CPU} is measured for a run and its profile kept there. Measure it with pliant "
            "device measure, then name the folder that it writes as the target."
        )
    if not path.is_file():
        made = profile_device(
            space,
            options.settings,
            seed=options.seed,
            precision=options.precision,
            measurements=path.with_name(f"{path.stem}-measurements.parquet"),
            progress=lambda note, done, total: progress("profile", done, total, note),
        )
        made.save(path)
    try:
        return _profiled(path, space, options)
    except (DamagedFileError, ProfileMismatchError) as error:
        raise type(error)(
            f"{error} It is {path}: remove it to measure this machine again."
        ) from None


def _profiled(path: Path, space: Space, options: TargetOptions) -> MeasuredTarget:
    from pliant.devices.profile import load_profile
    from pliant.devices.profile_folder import folder_target

    profile = load_profile(path)
    own = {name: getattr(profile, name) for name in options.unstated}
    settings = replace(options.settings, **own)
    profile.require_settings(settings, options.precision)
    return folder_target(path, profile, space, seed=options.seed)


def _from_folder(folder: Path, space: Space, options: TargetOptions) -> MeasuredTarget:
    from pliant.devices.profile_folder import choose_profile, folder_target

    path, profile = choose_profile(
        folder, space, options.settings, options.precision, unstated=options.unstated
    )
    return folder_target(path, profile, space, seed=options.seed)


@dataclass(frozen=True)
class Arithmetic:
    """No target at all: parameters, MACs and peak memory of the networks of a space."""

    space: Space
    name: str = "arithmetic"
    metrics: tuple[str, ...] = ARITHMETIC_METRICS
    can_measure: bool = field(default=False, init=False)

    @property
    def identity(self) -> str:
        """The same for all spaces: nothing but the layers decides."""
        return "arithmetic"

    def predict(self, architectures: Sequence[Architecture]) -> list[Cost]:
        """One cost per architecture, in order."""
        return [self.space.cost(one) for one in architectures]

    def block_costs(self, architecture: Architecture) -> list[Cost]:
        """MACs and parameters of each block."""
        blocks = self.space.blocks(architecture)
        return [Cost(macs=one.cost.macs, parameters=one.cost.parameters) for one in blocks]

    def measure(self, models: object) -> dict[str, Measured]:
        """Nothing can be measured."""
        return {}

    def measure_file(self, path: Path) -> Measured:
        """Refused, since `can_measure` is False.

        Raises:
            MeasurementError: always.
        """
        raise MeasurementError(
            f"arithmetic on layers measures nothing, received {path} for {self.name!r}. Choose a "
            "target that is at hand, such as this-cpu."
        )

    def evidence(self) -> tuple[Claim, ...]:
        """Arithmetic needs none."""
        return ()


PROBED_NETWORKS = 16
"""Random networks whose costs tell two functions apart."""


@dataclass(frozen=True)
class FunctionTarget(Arithmetic):
    """A function of costs as a target; metrics that it leaves out follow from the layers.

        target = FunctionTarget(space, function=lambda some: [Cost(latency_ms=1.0)] * len(some))

    Args:
        function: architectures in, one cost per architecture out.
        name: for people; that of the function where it is left out.

    Raises:
        MeasurementError: a cost is NaN or negative, or there is not one per network.
        RecipeError: the cost of the smallest network fails.
    """

    function: CostModel = field(kw_only=True)

    def __post_init__(self) -> None:
        if self.name == "arithmetic":
            object.__setattr__(self, "name", function_name(self.function))
        [cost] = self.predict([self.space.smallest()])
        if isinstance(cost, Failed):
            raise RecipeError(
                f"a target costs the smallest network; {self.name} fails: {cost.reason}"
            )
        object.__setattr__(self, "metrics", cost.metrics)

    @property
    def identity(self) -> str:
        """Digest of the costs of both ends of the space and of a few random networks."""
        rng = np.random.default_rng(0)
        networks = [self.space.smallest(), self.space.largest()]
        networks += [self.space.sample_choices(rng) for _ in range(PROBED_NETWORKS)]
        return hashlib.sha256(repr(self.predict(networks)).encode()).hexdigest()[:12]

    def predict(  # type: ignore[override]
        self, architectures: Sequence[Architecture]
    ) -> list[Cost | Failed]:
        """What the function returns, with what follows from the layers."""
        found: list[Cost | Failed] = []
        for one, cost in zip(
            architectures, checked_costs(self.function, architectures), strict=True
        ):
            if isinstance(cost, Cost):
                own = {name: getattr(cost, name) for name in cost.metrics}
                cost = replace(self.space.cost(one), **own)
            found.append(cost)
        return found
