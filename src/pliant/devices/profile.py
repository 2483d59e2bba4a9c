"""What a device is, for a search: how it runs networks, how fast, and how well that is known. A file that can be kept and shared.

`device.json` holds the profile with the latency table of one space; the timings behind it lie beside it as parquet.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping, Sequence
from functools import cached_property
from pathlib import Path
from typing import Any, Literal

import numpy as np
import onnxruntime
import pyarrow as pa
import pyarrow.parquet as pq
from pydantic import BaseModel, ConfigDict, Field, TypeAdapter, ValidationError, model_validator

from pliant.devices.measure import (
    anchor_model,
    call_model,
    collect_repeatable,
    convolution_peak_gflops,
    measure,
    measuring_processor,
    pinned,
)
from pliant.devices.table import (
    CORRECTIONS,
    Correction,
    Fit,
    LookupTable,
    distinct_blocks,
    fit_table,
    spread_networks,
)
from pliant.devices.timings import (
    Measurement,
    Optimisation,
    Settings,
    Timings,
    require_repeatable,
    summarise,
)
from pliant.errors import DamagedFileError, ProfileMismatchError, nearest
from pliant.files import replace_atomically, write_atomically
from pliant.host import machine_name
from pliant.networks.onnx import block_model, network_model, random_weights
from pliant.spaces.blocks import (
    BasicResidual,
    Block,
    Bottleneck,
    Cell,
    ConvBlock,
    Head,
    InvertedResidual,
    Preprocess,
    Reduction,
)
from pliant.spaces.space import Space

FITTED_NETWORKS = 16
HELD_OUT_NETWORKS = 16
LEAST_BLOCK_US = 0.01
_ANCHOR, _CALL = "anchor", "call"


_READERS: Mapping[str, TypeAdapter[Any]] = {
    kind.__name__: TypeAdapter(kind)
    for kind in (
        Preprocess,
        ConvBlock,
        InvertedResidual,
        BasicResidual,
        Bottleneck,
        Cell,
        Reduction,
        Head,
    )
}


class _Table(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True, ser_json_inf_nan="constants")


class BlockLatency(_Table):
    """One row of the table."""

    type: str
    sizes: dict[str, int | float | bool | str]
    latency_us: float = Field(gt=0, allow_inf_nan=False)

    @cached_property
    def block(self) -> Block:
        """The block without its slot."""
        block: Block = _READERS[self.type].validate_python({"slot": "", **self.sizes})
        return block

    @model_validator(mode="after")
    def _is_a_block(self) -> BlockLatency:
        if self.type not in _READERS:
            raise ValueError(f"a block is one of {', '.join(_READERS)}, received {self.type!r}")
        if unknown := set(self.sizes) - set(self.block.sizes):
            raise ValueError(
                f"{self.type} has no size {min(unknown)!r}. {nearest(min(unknown), self.block.sizes)}"
            )
        return self


class SpaceKey(_Table):
    """For which networks the table is."""

    name: str
    channels: int
    image_size: int
    classes: int


class DeviceProfile(_Table):
    """A device as it was measured."""

    version: Literal[1] = 1
    machine: str
    cores: int
    runtime: str
    runtime_version: str
    threads: int
    batch: int
    optimisation: Optimisation
    dtype: Literal["float32"] = "float32"
    pinned: bool
    convolution_peak_gflops: float
    anchor_us: float
    """Latency of the small fixed network of `measure.anchor_model`: how two measurements of one machine compare."""
    call_us: float
    """Cost of calling the runtime once, which is taken off each block's latency."""
    split_half_error: float
    """Median over all that was measured."""
    preempted_share: float
    space: SpaceKey
    correction: Correction
    coefficients: tuple[float, ...]
    fit_networks: int
    fit_mape_percent: float
    fit_spearman: float
    fit_macs_mape_percent: float
    blocks: tuple[BlockLatency, ...]

    @model_validator(mode="after")
    def _has_its_coefficients(self) -> DeviceProfile:
        if len(self.coefficients) != CORRECTIONS[self.correction]:
            raise ValueError(
                f"correction {self.correction!r} has {CORRECTIONS[self.correction]} coefficients, received {len(self.coefficients)}"
            )
        return self

    def table(self, space: Space) -> LookupTable:
        """The cost model for a space.

        Raises:
            ProfileMismatchError: the profile was made for another space.
        """
        ours = _space_key(space)
        if ours != self.space:
            raise ProfileMismatchError(
                f"a latency table holds the blocks of one space; this profile is for {_words(self.space)}, the run needs {_words(ours)}. "
                "Profile the device for this run: pliant profile RUN."
            )
        latency_us = {row.block: row.latency_us for row in self.blocks}
        fit = Fit(
            self.fit_networks, self.fit_mape_percent, self.fit_spearman, self.fit_macs_mape_percent
        )
        return LookupTable(space, latency_us, self.correction, self.coefficients, fit)

    def require_settings(self, settings: Settings) -> None:
        """Refuse to be used for another way of running networks.

        Raises:
            ProfileMismatchError: naming the first field that differs, both values and what to do.
        """
        for field in ("threads", "batch", "optimisation"):
            here, there = getattr(settings, field), getattr(self, field)
            if here != there:
                raise ProfileMismatchError(
                    f"a profile holds for the {field} with which it was made: {there} there, {here} in this run. "
                    f"Set device.{field} = {there!r} in the recipe, or profile the device again."
                )

    def require_here(self) -> None:
        """Refuse to be measured against on another machine or runtime.

        Raises:
            ProfileMismatchError: likewise.
        """
        for field, here in (
            ("machine", machine_name()),
            ("runtime_version", onnxruntime.__version__),
        ):
            there = getattr(self, field)
            if here != there:
                raise ProfileMismatchError(
                    f"a latency is measured where the profile was made; {field} is {there!r} there and {here!r} here. "
                    "Profile this machine, or take the predicted latencies only."
                )

    def save(self, path: Path) -> None:
        """Write the profile, replacing an older one whole."""
        write_atomically(path, self.model_dump_json(indent=1) + "\n")


def load_profile(path: Path) -> DeviceProfile:
    """Read a profile.

    Raises:
        DamagedFileError: no such file, or it is not a profile.
    """
    try:
        return DeviceProfile.model_validate_json(path.read_bytes())
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
            f"{path} is not a device profile: {key or 'file'}: {fault['msg']}.{hint} Make it again with pliant profile."
        ) from None


def profile_device(
    space: Space,
    settings: Settings,
    *,
    seed: int,
    measurements: Path | None = None,
    progress: Callable[[str, int, int], None] = lambda note, done, total: None,
) -> DeviceProfile:
    """Measure this machine: its convolution peak, all blocks of a space, and whole networks to correct and to test the table.

    Args:
        measurements: where to write the timings behind the profile, as parquet; also where they are too noisy.
        progress: called with a note, what is done, and of how much.

    Raises:
        MeasurementError: the machine is too busy.
    """
    rng = np.random.default_rng((seed, 4))
    keys = distinct_blocks(space, rng)
    networks = spread_networks(space, FITTED_NETWORKS + HELD_OUT_NETWORKS, rng)
    models = {_ANCHOR: anchor_model(), _CALL: call_model()}
    models |= {
        f"block {index}": block_model(key, rng, batch=settings.batch).SerializeToString()
        for index, key in enumerate(keys)
    }
    models |= {f"network {one}": random_network_model(space.blocks(one), rng) for one in networks}
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
    # A block is never free: timings of the very smallest differ from the call by little more than noise.
    latency_us = {
        key: max(found[f"block {index}"].latency_ms * 1e3 - call_us, LEAST_BLOCK_US)
        for index, key in enumerate(keys)
    }
    table = fit_table(
        space,
        latency_us,
        networks,
        [found[f"network {one}"].latency_ms for one in networks],
        len(networks) // 2,
    )
    return _profile(settings, table, found, peak=peak, is_pinned=is_pinned)


def _profile(
    settings: Settings,
    table: LookupTable,
    found: Mapping[str, Measurement],
    *,
    peak: float,
    is_pinned: bool,
) -> DeviceProfile:
    assert table.fit is not None
    return DeviceProfile(
        machine=machine_name(),
        cores=os.cpu_count() or 1,
        runtime="onnxruntime",
        runtime_version=onnxruntime.__version__,
        threads=settings.threads,
        batch=settings.batch,
        optimisation=settings.optimisation,
        pinned=is_pinned,
        convolution_peak_gflops=peak,
        anchor_us=found[_ANCHOR].latency_ms * 1e3,
        call_us=found[_CALL].latency_ms * 1e3,
        split_half_error=float(np.median([one.split_half_error for one in found.values()])),
        preempted_share=float(np.mean([one.preempted_share for one in found.values()])),
        space=_space_key(table.space),
        correction=table.correction,
        coefficients=table.coefficients,
        fit_networks=table.fit.networks,
        fit_mape_percent=table.fit.mape_percent,
        fit_spearman=table.fit.spearman,
        fit_macs_mape_percent=table.fit.macs_mape_percent,
        blocks=tuple(
            BlockLatency(type=type(key).__name__, sizes=key.sizes, latency_us=value)
            for key, value in table.latency_us.items()
        ),
    )


def random_network_model(blocks: tuple[Block, ...], rng: np.random.Generator) -> bytes:
    """A network with random weights, whose latency is that of the trained one."""
    state = {
        f"blocks.{block.slot}.{name}": array
        for block in blocks
        for name, array in random_weights(block, rng).items()
    }
    return network_model(blocks, state).SerializeToString()


def measure_networks(
    models: Mapping[str, bytes], settings: Settings, *, seed: int
) -> dict[str, Measurement]:
    """Latency of whole networks on this machine, measured as the profile was.

    Raises:
        MeasurementError: the machine is too busy.
    """
    with pinned(measuring_processor(settings)):
        return measure(models, settings, seed=seed)


def _space_key(space: Space) -> SpaceKey:
    return SpaceKey(
        name=space.name, channels=space.channels, image_size=space.image_size, classes=space.classes
    )


def _words(key: SpaceKey) -> str:
    return f"space {key.name!r} with {key.channels}x{key.image_size}x{key.image_size} images and {key.classes} classes"


def _write_measurements(path: Path, timings: Mapping[str, Timings], keys: Sequence[Block]) -> None:
    """One row a timing, with what was timed in words."""
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
