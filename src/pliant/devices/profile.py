"""What a device is, for a search: how it runs networks, how fast, and how well that is known. A file that can be kept and shared.

`device.json` holds the profile with the latency table of one space; the timings behind it lie beside it as parquet.
"""

from __future__ import annotations

import dataclasses
import os
import platform
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, Literal

import numpy as np
import onnxruntime
import pyarrow as pa
import pyarrow.parquet as pq
from pydantic import BaseModel, ConfigDict, ValidationError

from pliant.devices.lookup import Correction, Fit, LookupTable, block_key, distinct_blocks, fit_table, spread_networks
from pliant.devices.measure import Measurement, Optimisation, Settings, convolution_peak_gflops, measure, pinned
from pliant.errors import DamagedFileError, ProfileMismatchError, nearest
from pliant.files import replace_atomically, write_atomically
from pliant.networks.onnx import block_model, network_model, random_weights
from pliant.spaces import blocks as block_types
from pliant.spaces.blocks import Block
from pliant.spaces.space import Space

FITTED_NETWORKS = 16
HELD_OUT_NETWORKS = 16


class _Table(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True)


class BlockLatency(_Table):
    """One row of the table."""

    type: str
    sizes: dict[str, int | float | bool | str]
    latency_us: float


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
    pinned: bool
    convolution_peak_gflops: float
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
        latency_us = {_block(row): row.latency_us for row in self.blocks}
        fit = Fit(self.fit_networks, self.fit_mape_percent, self.fit_spearman, self.fit_macs_mape_percent)
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
        for field, here in (("machine", machine_name()), ("runtime_version", onnxruntime.__version__)):
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
        raise DamagedFileError(f"a device profile is a JSON file; {path} cannot be read: {error.strerror}.") from error
    except ValidationError as error:
        fault = error.errors()[0]
        key = ".".join(str(part) for part in fault["loc"])
        hint = f" {nearest(str(fault['loc'][-1]), DeviceProfile.model_fields)}" if fault["type"] == "extra_forbidden" else ""
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
        measurements: where to write the figures behind the profile, as parquet.
        progress: called with a note, what is done, and of how much.

    Raises:
        MeasurementError: the machine is too busy.
    """
    rng = np.random.default_rng((seed, 4))
    keys = distinct_blocks(space, rng)
    networks = spread_networks(space, FITTED_NETWORKS + HELD_OUT_NETWORKS, rng)
    models = {f"block {index}": block_model(key, rng, batch=settings.batch).SerializeToString() for index, key in enumerate(keys)}
    models |= {str(one): random_network_model(space.blocks(one), rng) for one in networks}
    with pinned(_processor(settings)) as is_pinned:
        peak = convolution_peak_gflops(settings)
        found = measure(models, settings, seed=seed, progress=lambda done, total: progress(f"{len(models)} models", done, total))
    latency_us = {key: found[f"block {index}"].latency_ms * 1e3 for index, key in enumerate(keys)}
    held_out = len(networks) // 2
    table = fit_table(space, latency_us, networks, [found[str(one)].latency_ms for one in networks], held_out)
    if measurements is not None:
        _write_measurements(measurements, found, keys)
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
        split_half_error=float(np.median([one.split_half_error for one in found.values()])),
        preempted_share=float(np.mean([one.preempted_share for one in found.values()])),
        space=_space_key(space),
        correction=table.correction,
        coefficients=table.coefficients,
        fit_networks=table.fit.networks,
        fit_mape_percent=table.fit.mape_percent,
        fit_spearman=table.fit.spearman,
        fit_macs_mape_percent=table.fit.macs_mape_percent,
        blocks=tuple(BlockLatency(type=type(key).__name__, sizes=key.sizes, latency_us=latency_us[key]) for key in keys),
    )


def random_network_model(blocks: tuple[Block, ...], rng: np.random.Generator) -> bytes:
    """A network with random weights, whose latency is that of the trained one."""
    state = {f"blocks.{block.slot}.{name}": array for block in blocks for name, array in random_weights(block, rng).items()}
    return network_model(blocks, state).SerializeToString()


def measure_networks(models: Mapping[str, bytes], settings: Settings, *, seed: int) -> dict[str, Measurement]:
    """Latency of whole networks on this machine, measured as the profile was.

    Raises:
        MeasurementError: the machine is too busy.
    """
    with pinned(_processor(settings)):
        return measure(models, settings, seed=seed)


def machine_name() -> str:
    """The processor as the system calls it."""
    try:
        lines = Path("/proc/cpuinfo").read_text("utf-8").splitlines()
    except OSError:
        return platform.processor() or platform.machine()
    names = [line.partition(":")[2].strip() for line in lines if line.startswith("model name")]
    return names[0] if names else platform.machine()


def _processor(settings: Settings) -> int | None:
    """The last processor that this process may use: the system puts its own work on the first ones."""
    if settings.threads > 1 or not hasattr(os, "sched_getaffinity"):
        return None
    return max(os.sched_getaffinity(0))


def _space_key(space: Space) -> SpaceKey:
    return SpaceKey(name=space.name, channels=space.channels, image_size=space.image_size, classes=space.classes)


def _words(key: SpaceKey) -> str:
    return f"space {key.name!r} with {key.channels}x{key.image_size}x{key.image_size} images and {key.classes} classes"


def _block(row: BlockLatency) -> Block:
    kind: Any = getattr(block_types, row.type)
    return block_key(kind(slot="", **row.sizes))


def _write_measurements(path: Path, found: Mapping[str, Measurement], keys: list[Block]) -> None:
    rows = [{"model": name} | dataclasses.asdict(one) for name, one in found.items()]
    for row in rows:
        name = row["model"]
        row["what"] = str(keys[int(name.removeprefix("block "))]) if name.startswith("block ") else f"network {name}"
    replace_atomically(path, lambda partial: pq.write_table(pa.Table.from_pylist(rows), partial))
