"""Device profiles: the measured latencies of a machine, in a file that can be kept and shared.

A profile contains the settings of one runtime and the latencies measured under it: of the blocks of
one space, and of whole networks; of whole networks only where it was imported. Predictors are
fitted from these rows whenever the profile is opened, so that a better model needs no new
measurement. The raw timings are in a parquet file next to it.
"""

from __future__ import annotations

import json
import os
from collections.abc import Callable, Mapping, Sequence
from functools import cache, cached_property
from pathlib import Path
from typing import Annotated, Any, Final, Literal

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from pydantic import BaseModel, ConfigDict, Field, TypeAdapter, ValidationError, model_validator

from pliant.devices.measure import (
    anchor_model,
    collect_repeatable,
    convolution_peak_gflops,
    empty_model,
    measure,
    measuring_processor,
    pinned,
)
from pliant.devices.runtimes import runtime_named
from pliant.devices.table import distinct_blocks, sample_evenly_by_macs
from pliant.devices.timings import (
    QUANTILES,
    Measurement,
    Optimisation,
    Settings,
    Timings,
    require_repeatable,
    summarise,
)
from pliant.errors import DamagedFileError, ProfileMismatchError, RecipeError, nearest
from pliant.files import (
    CHECKSUM,
    has_checksum,
    replace_atomically,
    with_checksum,
    write_atomically,
)
from pliant.host import machine_name
from pliant.metrics import InferencePrecision
from pliant.networks.onnx import block_model, network_model, random_weights
from pliant.networks.quantize import quantized_at_random
from pliant.spaces.block import BLOCK_TYPES, Block
from pliant.spaces.check import check_space
from pliant.spaces.foreign import ForeignNetwork, ForeignSpace
from pliant.spaces.space import Space

PROFILE_VERSION: Final = 6
MIN_BLOCK_US = 0.01
"""Blocks take at least this long, even where dispatch overhead explains the whole timing."""
_ANCHOR, _CALL = "anchor", "call"


@cache
def _reader(kind: type[Block]) -> TypeAdapter[Any]:
    return TypeAdapter(kind)


class _Table(BaseModel):
    model_config = ConfigDict(
        extra="forbid",
        frozen=True,
        strict=True,
        allow_inf_nan=False,
        ser_json_inf_nan="constants",
    )


_Quantiles = Annotated[
    tuple[Annotated[float, Field(ge=0)], ...],
    Field(min_length=len(QUANTILES), max_length=len(QUANTILES)),
]


class Timed(_Table):
    """What the timings of one model were like."""

    cpu_us: _Quantiles
    """`timings.QUANTILES` of the CPU time per run over all timings, corrected for drift only."""
    wall_us: _Quantiles
    """The same of the wall-clock time."""
    runs: int = Field(ge=1)
    preempted_share: float = Field(ge=0, le=1)
    """Share of timings with an involuntary context switch."""
    split_half_error: float = Field(ge=0)
    """Relative difference between the estimates from even and from odd rounds."""


class BlockLatency(Timed):
    """Latency of one block in isolation, without dispatch overhead."""

    type: str
    sizes: dict[str, int | float | bool | str]
    latency_us: float = Field(gt=0)

    @cached_property
    def block(self) -> Block:
        """The block without its slot."""
        block: Block = _reader(BLOCK_TYPES[self.type]).validate_python({"slot": "", **self.sizes})
        return block

    @model_validator(mode="after")
    def _is_a_block(self) -> BlockLatency:
        if self.type not in BLOCK_TYPES:
            raise ValueError(
                f"a block is one of {', '.join(BLOCK_TYPES)}, received {self.type!r}."
                " Import the file that defines a custom block first."
            )
        if unknown := set(self.sizes) - set(self.block.sizes):
            raise ValueError(
                f"{self.type} has no size {min(unknown)!r}. "
                f"{nearest(min(unknown), self.block.sizes)}"
            )
        return self


class NetworkLatency(Timed):
    """Latency of one whole network with random weights."""

    architecture: str
    latency_ms: float = Field(gt=0)
    spread_ms: float = Field(ge=0)
    """Half the interquartile range over rounds."""


class SpaceKey(_Table):
    """Identifies the space of a profile."""

    name: str = Field(min_length=1)
    channels: int = Field(ge=1)
    image_size: int = Field(ge=1)
    classes: int = Field(ge=1)
    identity: str
    """`Space.identity`: spaces of one name may describe different networks."""


class DeviceProfile(_Table):
    """The measured latencies of a device for the networks of one space."""

    version: Literal[6] = PROFILE_VERSION
    machine: str = Field(min_length=1)
    cores: int = Field(ge=1)
    runtime: str = Field(min_length=1)
    runtime_version: str = Field(min_length=1)
    threads: int = Field(ge=1)
    batch: int = Field(ge=1)
    optimisation: Optimisation
    precision: InferencePrecision = "fp32"
    """Of the networks that were measured."""
    pinned: bool
    convolution_peak_gflops: float | None = Field(gt=0)
    """Of 3x3 convolutions; None where it was not measured."""
    anchor_us: float = Field(gt=0)
    """Latency of the fixed network of `measure.anchor_model`, to compare two profiles."""
    call_us: float | None = Field(gt=0)
    """Dispatch overhead of the runtime per call, which is subtracted from each block's latency;
    None where no block was measured."""
    split_half_error: float = Field(ge=0)
    """Median over all models."""
    preempted_share: float = Field(ge=0, le=1)
    space: SpaceKey
    blocks: tuple[BlockLatency, ...]
    """None where only whole networks were measured."""
    networks: tuple[NetworkLatency, ...] = Field(min_length=1)
    """In random order, evenly spaced over the MACs of the space."""

    @property
    def settings(self) -> Settings:
        """Settings for measurements that compare with those of the profile."""
        return Settings(self.threads, self.batch, self.optimisation, self.runtime)

    @property
    def title(self) -> str:
        """The machine, its runtime, and the settings of the runtime."""
        level = "" if self.optimisation == "all" else f", optimisation {self.optimisation}"
        return (
            f"{self.machine}, {self.runtime} {self.runtime_version}, {self.threads} thread(s), "
            f"batch {self.batch}{level}" + (", int8" if self.precision == "int8" else "")
        )

    def require_space(self, space: Space) -> None:
        """Check that the profile was made for the networks of a space.

        Raises:
            ProfileMismatchError: it was made for another one.
        """
        ours = space_key(space)
        if ours != self.space:
            here, there = _describe(ours), _describe(self.space)
            if here == there:
                here = "the same name with other choices or blocks"
            raise ProfileMismatchError(
                f"a profile is for one space; this one is for {there}, "
                f"the run needs {here}. Make one for it: pliant device measure on this machine, "
                "pliant device bundle and import for another device."
            )

    def require_settings(self, settings: Settings, precision: InferencePrecision = "fp32") -> None:
        """Check that the profile was made for the same settings of the runtime, and precision.

        Raises:
            ProfileMismatchError: naming the first field that differs, both values and the fix.
        """
        for field, here in run_key(settings, precision).items():
            there = getattr(self, field)
            if here != there:
                start = (
                    f"Choose --precision {there}"
                    if field == "precision"
                    else f"Start a run with target.{field} = {there!r} in its recipe (without a"
                    " recipe it is the default)"
                )
                raise ProfileMismatchError(
                    f"a profile is valid for the {field} with which it was made: {there} there, "
                    f"{here} in this run. {start}, or measure the device again."
                )

    def require_other_device(self, source: DeviceProfile, name: str) -> None:
        """Check that a profile that shall help to predict does not hold the rows of this one.

        Rows that are fitted on and held out at once would make the cross-validated error too small.

        Args:
            source: the other profile.
            name: of it, for the message.

        Raises:
            ProfileMismatchError: most of the networks that both hold have equal latencies.
        """
        ours = {row.architecture: row.latency_ms for row in self.networks}
        shared = [row for row in source.networks if row.architecture in ours]
        equal = sum(row.latency_ms == ours[row.architecture] for row in shared)
        if equal > len(shared) / 2:
            raise ProfileMismatchError(
                f"a source is a profile of another device; {name} holds the same measurements as "
                f"this one, {equal} of {len(shared)} networks. Leave it out."
            )

    def require_here(self) -> None:
        """Check that the profile is of this machine and runtime.

        Raises:
            ProfileMismatchError: naming the first field that differs, both values and the fix.
        """
        try:
            version = runtime_named(self.runtime).version
        except RecipeError as error:
            raise ProfileMismatchError(str(error)) from None
        for field, here in (("machine", machine_name()), ("runtime_version", version)):
            there = getattr(self, field)
            if here != there:
                raise ProfileMismatchError(
                    f"latency is measured where the profile was made; {field} is {there!r} there "
                    f"and {here!r} here. Measure this machine, or use predicted latencies only."
                )

    def save(self, path: Path) -> None:
        """Write the profile with a checksum; an older one is replaced atomically."""
        content = with_checksum(self.model_dump(mode="json"))
        write_atomically(path, json.dumps(content, indent=1) + "\n")


def run_key(settings: Settings, precision: InferencePrecision) -> dict[str, Any]:
    """What decides how networks run, by the names of a profile's fields."""
    return {
        "runtime": settings.runtime,
        "precision": precision,
        "threads": settings.threads,
        "batch": settings.batch,
        "optimisation": settings.optimisation,
    }


def load_profile(path: Path) -> DeviceProfile:
    """Read a profile.

    Raises:
        DamagedFileError: the file does not exist, is not a profile of this version, or was
            changed since it was written.
    """
    try:
        content = path.read_bytes()
        _require_version(path, content)
        stored = _without_checksum(content)
        profile = DeviceProfile.model_validate_json(stored)
    except OSError as error:
        raise DamagedFileError(
            f"a device profile is a JSON file; {path} cannot be read: {error.strerror}."
        ) from error
    except ValidationError as error:
        fault = error.errors()[0]
        key = ".".join(str(part) for part in fault["loc"])
        hint = (
            f" {nearest(str(fault['loc'][-1]), DeviceProfile.model_fields)}"
            if fault["type"] == "extra_forbidden"
            else ""
        )
        raise DamagedFileError(
            f"{path} is not a device profile: {key or 'file'}: {fault['msg']}.{hint} "
            "Make it again with pliant device measure."
        ) from None
    if not has_checksum(json.loads(content)):
        raise DamagedFileError(
            f"{path} is not the device profile that was written: its checksum differs. "
            "Make it again with pliant device measure."
        )
    return profile


def _without_checksum(content: bytes) -> bytes:
    try:
        stored = json.loads(content)
    except (ValueError, RecursionError):
        return content  # the validation that follows reports where the JSON is invalid
    if isinstance(stored, dict):
        stored.pop(CHECKSUM, None)
    return json.dumps(stored).encode()


def _require_version(path: Path, content: bytes) -> None:
    """Refuse a profile of another version before its fields are validated."""
    try:
        stored = json.loads(content)
    except (ValueError, RecursionError):
        return  # the validation that follows reports where the JSON is invalid
    if isinstance(stored, dict) and "results" in stored and "rows" in stored:
        raise DamagedFileError(
            f"{path} has the results of a device, which are no profile yet. Import them first: "
            f"pliant device import {path} --out my-board/"
        )
    version = stored.get("version") if isinstance(stored, dict) else None
    if isinstance(version, int) and version != PROFILE_VERSION:
        raise DamagedFileError(
            f"{path} is a device profile of version {version}, this Pliant reads version "
            f"{PROFILE_VERSION}. Make it again with pliant device measure."
        )


def profile_device(
    space: Space,
    settings: Settings,
    *,
    seed: int,
    precision: InferencePrecision = "fp32",
    measurements: Path | None = None,
    progress: Callable[[str, int, int], None] = lambda note, done, total: None,
) -> DeviceProfile:
    """Measure this machine: peak of convolutions, blocks of a space, and whole networks.

    Where a runtime takes long to open a model, only whole networks are measured.

    Args:
        space: the one whose blocks are measured.
        settings: of the runtime and of the timings.
        seed: of the sampled networks, their weights and the order of timings.
        precision: of the networks; blocks of int8 ones read and write integers.
        measurements: parquet file for the raw timings, which is written even if they are too noisy.
        progress: called with a note, the rounds done and the maximum number of rounds.

    Raises:
        EncodingError: the networks of the space do not fit together.
        RecipeError: the runtime is not installed, or cannot run this precision.
        MeasurementError: the machine is too busy.
    """
    runtime = runtime_named(settings.runtime)
    runtime.require(settings, precision)
    check_space(space)
    rng = np.random.default_rng((seed, 4))
    has_blocks = runtime.times_blocks and not isinstance(space, ForeignSpace)
    keys = distinct_blocks(space, rng) if has_blocks else []
    networks = sample_evenly_by_macs(space, runtime.networks, rng)
    models = {_ANCHOR: anchor_model(), _CALL: empty_model()}
    models |= {
        f"block {index}": timed_block(key, rng, settings.batch, precision)
        for index, key in enumerate(keys)
    }
    models |= {
        f"network {one}": random_network_model(space.blocks(one), rng, precision)
        for one in networks
    }
    with pinned(measuring_processor(settings)) as is_pinned:
        peak = convolution_peak_gflops(settings)
        timings = collect_repeatable(
            models,
            settings,
            seed=seed,
            progress=lambda done, total: progress(f"{len(models)} models", done, total),
        )
    found = {name: summarise(raw, settings) for name, raw in timings.items()}
    if measurements is not None:
        _write_measurements(measurements, timings, keys)
    require_repeatable(found, settings)
    call_us = found[_CALL].latency_ms * 1e3
    # The latencies of the smallest blocks differ from the dispatch overhead only by noise.
    blocks = []
    for index, key in enumerate(keys):
        one = found[f"block {index}"]
        latency_us = max(one.latency_ms * 1e3 - call_us, MIN_BLOCK_US)
        blocks.append(
            BlockLatency(
                type=type(key).__name__, sizes=key.sizes, latency_us=latency_us, **timed(one)
            )
        )
    return DeviceProfile(
        machine=machine_name(),
        cores=os.cpu_count() or 1,
        runtime_version=runtime.version,
        **run_key(settings, precision),
        pinned=is_pinned,
        convolution_peak_gflops=peak,
        anchor_us=found[_ANCHOR].latency_ms * 1e3,
        call_us=call_us,
        split_half_error=float(np.median([one.split_half_error for one in found.values()])),
        preempted_share=float(np.mean([one.preempted_share for one in found.values()])),
        space=space_key(space),
        blocks=tuple(blocks),
        networks=tuple(network_row(str(one), found[f"network {one}"]) for one in networks),
    )


def network_row(architecture: str, found: Measurement) -> NetworkLatency:
    """The row of one measured network."""
    return NetworkLatency(
        architecture=architecture,
        latency_ms=found.latency_ms,
        spread_ms=found.spread_ms,
        **timed(found),
    )


def timed(found: Measurement) -> dict[str, Any]:
    """The fields of `Timed` of a measurement."""
    return {name: getattr(found, name) for name in Timed.model_fields}


def timed_block(
    block: Block, rng: np.random.Generator, batch: int, precision: InferencePrecision
) -> bytes:
    """An ONNX model of one block with random weights."""
    model = block_model(block, rng, batch=batch)
    if precision == "int8":
        model = quantized_at_random(model, rng, integer_ends=True)
    return model.SerializeToString()


def random_network_model(
    blocks: tuple[Block, ...], rng: np.random.Generator, precision: InferencePrecision = "fp32"
) -> bytes:
    """An ONNX model of a network with random weights, which is as fast as the trained one."""
    if isinstance(blocks[0], ForeignNetwork):
        from pliant.networks.foreign.onnx import random_foreign_model  # needs PyTorch

        model = random_foreign_model(blocks[0])
        made = quantized_at_random(model, rng) if precision == "int8" else model
        return made.SerializeToString()
    state = {
        f"blocks.{block.slot}.{name}": array
        for block in blocks
        for name, array in random_weights(block, rng).items()
    }
    model = network_model(blocks, state, pictures=True)
    if precision == "int8":
        model = quantized_at_random(model, rng)
    return model.SerializeToString()


def measure_networks(
    models: Mapping[str, bytes], settings: Settings, *, seed: int
) -> dict[str, Measurement]:
    """Latency of whole networks on this machine, pinned to the processor as for a profile.

    Args:
        models: serialised ONNX models by name.
        settings: of the runtime and of the timings.
        seed: of the order in which models are timed.

    Raises:
        MeasurementError: the machine is too busy.
    """
    with pinned(measuring_processor(settings)):
        return measure(models, settings, seed=seed)


def space_key(space: Space) -> SpaceKey:
    """What identifies a space in a profile."""
    return SpaceKey(
        name=space.name,
        channels=space.channels,
        image_size=space.image_size,
        classes=space.classes,
        identity=space.identity,
    )


def _describe(key: SpaceKey) -> str:
    return (
        f"space {key.name!r} with {key.channels}x{key.image_size}x{key.image_size} images and "
        f"{key.classes} classes"
    )


def _write_measurements(path: Path, timings: Mapping[str, Timings], keys: Sequence[Block]) -> None:
    """One row per timing; the column `what` names the block or network."""
    rows = []
    for name, raw in timings.items():
        what = str(keys[int(name.removeprefix("block "))]) if name.startswith("block ") else name
        for (number, sample), cpu_us in np.ndenumerate(raw.cpu_us):
            row = {
                "what": what,
                "round": number,
                "sample": sample,
                "runs": raw.repeats,
                "cpu_us": float(cpu_us),
            }
            rows.append(
                row
                | {
                    "wall_us": float(raw.wall_us[number, sample]),
                    "preempted": bool(raw.preempted[number, sample]),
                }
            )
    replace_atomically(path, lambda partial: pq.write_table(pa.Table.from_pylist(rows), partial))
