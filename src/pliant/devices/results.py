"""Reads what run_bench.py measured on another device, and makes a device profile of it.

A row is one network in one round. Rows that cannot be timings are named and left out, the rest is
kept; so results of a device that was switched off half way are used as far as they go.
"""

from __future__ import annotations

import json
import lzma
import sys
import zipfile
import zlib
from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from fnmatch import fnmatch
from pathlib import Path, PurePosixPath
from typing import Annotated, Any

import numpy as np
from pydantic import BaseModel, BeforeValidator, ConfigDict, Field, ValidationError

from pliant.devices.bundle import ANCHOR, MIN_NETWORKS
from pliant.devices.profile import DeviceProfile, SpaceKey, network_row, run_key
from pliant.devices.timings import (
    Sample,
    Settings,
    Timings,
    detrend,
    reference_time,
    require_repeatable,
    summarise,
)
from pliant.errors import DamagedFileError, MeasurementError
from pliant.metrics import InferencePrecision

RESULTS, FILES = "results.json", "results*.json"
MAX_BYTES = 256 * 2**20
"""Of results.json; a thousand networks in a hundred rounds stay far below."""
MAX_ENTRIES = 10_000
MIN_US, MAX_US = 0.1, 600e6
"""No inference takes less than a tenth of a microsecond, nor more than ten minutes."""
MAX_RUNS, MAX_ROUND = 10**9, 10**6
MAX_BATCH, MAX_THREADS, MAX_CORES = 4096, 1024, 4096
"""What a device may say of itself."""
MAX_OVER_MEDIAN = 50.0
"""A timing this many times the network's median, or the median this many times it, is no timing;
nor is a network's median so far from that of all networks."""
MAX_CPU_OVER_WALL = 1.5
"""CPU time per thread over wall-clock time; above 1 only as far as their clocks differ."""
MAX_NAME = 200
"""Characters in what a device is called."""


def _one_line(text: object) -> object:
    """A name without line breaks and other control characters, which a terminal would obey."""
    if not isinstance(text, str):
        return text
    return " ".join("".join(one if one.isprintable() else " " for one in text).split())


_Name = Annotated[str, Field(min_length=1, max_length=MAX_NAME), BeforeValidator(_one_line)]


class _Bench(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True, allow_inf_nan=False)

    bundle: int = Field(ge=1, le=1)
    space: SpaceKey
    precision: InferencePrecision
    batch: int = Field(ge=1, le=MAX_BATCH)
    networks: dict[str, str | None]


class _Header(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True, allow_inf_nan=False)

    results: int = Field(ge=1, le=1)
    bench: _Bench
    machine: _Name
    system: str
    cores: int = Field(ge=1, le=MAX_CORES)
    runtime: str = Field(pattern=r"^[A-Za-z0-9._-]+$")  # it is part of the profile's file name
    runtime_version: _Name
    threads: int = Field(ge=1, le=MAX_THREADS)
    pinned: bool
    rows: list[Any]


@dataclass(frozen=True)
class Imported:
    """A profile of another device, and what was left out of it."""

    profile: DeviceProfile
    notes: tuple[str, ...]


def import_results(path: Path, *, noise_limit: float = Settings().noise_limit) -> Imported:
    """Make a profile of the results of a device.

    Args:
        path: of results.json, or of a .zip that holds one.
        noise_limit: maximum of the 90th percentile of the split-half errors.

    Raises:
        DamagedFileError: not such results.
        MeasurementError: too few networks were measured, or they are too noisy.
    """
    header = _header(path, _content(path))
    notes: list[str] = []
    rounds = _valid_rows(header, notes)
    settings = Settings(header.threads, header.bench.batch, "all", header.runtime)
    found = _measurements(rounds, header, settings, notes)
    if len(found) < MIN_NETWORKS:
        raise MeasurementError(
            f"a profile takes at least {MIN_NETWORKS} measured networks, {path} has "
            f"{len(found)} that can be used. {_advice(header, notes)}"
        )
    noisy = Settings(
        header.threads, header.bench.batch, "all", header.runtime, noise_limit=noise_limit
    )
    measured = {name: summarise(timings, settings) for name, timings in found.items()}
    try:
        require_repeatable(measured, noisy)
    except MeasurementError as error:
        raise MeasurementError(
            f"{error} On the device: python run_bench.py --rounds 30 adds rounds to the same "
            "results; --noise-limit accepts more noise."
        ) from None
    anchor = [
        cpu if settings.by_cpu else wall for row in rounds[ANCHOR].values() for cpu, wall, _ in row
    ]
    networks = [
        network_row(str(header.bench.networks[name]), one) for name, one in measured.items()
    ]
    profile = DeviceProfile(
        machine=header.machine,
        cores=header.cores,
        runtime_version=header.runtime_version,
        **run_key(settings, header.bench.precision),
        pinned=header.pinned,
        convolution_peak_gflops=None,
        anchor_us=float(np.median(anchor)),
        call_us=None,
        split_half_error=float(np.median([one.split_half_error for one in measured.values()])),
        preempted_share=float(np.mean([one.preempted_share for one in measured.values()])),
        space=header.bench.space,
        blocks=(),
        networks=tuple(networks),
    )
    return Imported(profile, tuple(notes))


def _advice(header: _Header, notes: Sequence[str]) -> str:
    """What to do where too little can be used, with the first reasons."""
    if not header.rows or not any(note.startswith("row ") for note in notes):
        advice = "Start run_bench.py again: it goes on where it ended."
    else:
        advice = "Remove the results on the device and start run_bench.py again. Left out were:"
    return advice + "".join(f"\n{note}" for note in notes[:5])


def _content(path: Path) -> bytes:
    """The bytes of results.json, also out of an archive; nothing is ever extracted to disk."""
    try:
        if not zipfile.is_zipfile(path):
            if path.stat().st_size > MAX_BYTES:
                raise DamagedFileError(
                    f"results are at most {MAX_BYTES >> 20} MiB, {path} is larger."
                )
            content = path.read_bytes()
            if content.startswith(b"PK"):
                raise DamagedFileError(f"{path} is an archive that is cut off. Copy it again.")
            return content
        with zipfile.ZipFile(path) as archive:
            return _from_archive(path, archive)
    except OSError as error:
        raise DamagedFileError(
            f"results are a JSON file or a .zip; {path} cannot be read: {error.strerror or error}."
        ) from error
    except DamagedFileError:
        raise  # a RuntimeError as well, which says all already
    except (zipfile.BadZipFile, zlib.error, lzma.LZMAError, EOFError, RuntimeError) as error:
        raise DamagedFileError(f"{path} is not an archive that can be read: {error}.") from error


def _from_archive(path: Path, archive: zipfile.ZipFile) -> bytes:
    """The only results.json of an archive.

    Raises:
        DamagedFileError: it has none or several, a name that leads outside of its folder, or
            contents that are far larger than the archive says.
    """
    entries = archive.infolist()
    if len(entries) > MAX_ENTRIES:
        raise DamagedFileError(f"an archive of results has one file, {path} has {len(entries)}.")
    for one in entries:
        name = PurePosixPath(one.filename.replace("\\", "/"))
        if name.is_absolute() or ".." in name.parts or ":" in one.filename:
            raise DamagedFileError(
                f"the files of an archive stay in its folder; {path} has {one.filename!r}. It was "
                "not made by run_bench.py; nothing of it was read."
            )
    names = [PurePosixPath(one.filename).name for one in entries]
    found = [one for one, name in zip(entries, names, strict=True) if fnmatch(name, FILES)]
    if len(found) != 1:
        raise DamagedFileError(
            f"an archive of results has one {RESULTS}, {path} has {len(found)}. Name the file "
            "itself."
        )
    with archive.open(found[0]) as file:
        content = file.read(MAX_BYTES + 1)  # whatever size the archive claims
    if len(content) > MAX_BYTES:
        raise DamagedFileError(
            f"results are at most {MAX_BYTES >> 20} MiB; {RESULTS} in {path} unpacks to more."
        )
    return content


def _header(path: Path, content: bytes) -> _Header:
    try:
        known = json.loads(content)
        what = "it is no table of keys"
        if isinstance(known, dict):
            _require_version(path, known)
            header = _Header.model_validate(known)
            if header.threads <= header.cores:
                return header
            what = f"threads: {header.threads} on a device of {header.cores} cores"
    except (ValueError, RecursionError) as error:
        what = "it is no JSON"
        if isinstance(error, ValidationError):
            fault = error.errors()[0]
            what = f"{'.'.join(map(str, fault['loc']))}: {fault['msg']}"
            if isinstance(fault["input"], (str, int, float)):
                what += f", received {str(fault['input'])[:50]!r}"
    raise DamagedFileError(
        f"{path} is not what run_bench.py writes: {what}. Copy results.json again."
    )


def _require_version(path: Path, known: Mapping[str, Any]) -> None:
    """Refuse results of another version before their fields are validated."""
    bench = known.get("bench")
    bundle = bench.get("bundle") if isinstance(bench, Mapping) else None
    for what, version in (("results", known.get("results")), ("a bundle", bundle)):
        if isinstance(version, int) and version != 1:
            raise DamagedFileError(
                f"{path} is not what run_bench.py writes for this Pliant: it is version {version} "
                f"of {what}, version 1 is read. Import it with the Pliant that made the bundle."
            )


def _valid_rows(header: _Header, notes: list[str]) -> dict[str, dict[int, list[Sample]]]:
    """Samples by network and round; the others are named in `notes`.

    The anchor is timed several times per round; of a network, a second row of a round is left out.
    """
    found: dict[str, dict[int, list[Sample]]] = defaultdict(dict)
    for number, row in enumerate(header.rows, 1):
        where = f"row {number}"
        fault = _row_fault(row, header)
        if isinstance(row, Mapping):
            where += f" ({row.get('network')}, round {row.get('round')})"
        if fault is None:
            samples = list(zip(row["cpu_us"], row["wall_us"], row["preempted"], strict=True))
            rounds = found[row["network"]]
            if row["network"] == ANCHOR:
                rounds.setdefault(row["round"], []).append(min(samples))
            elif row["round"] in rounds:
                fault = "this network was already timed in this round"
            else:
                rounds[row["round"]] = samples
        if fault is not None:
            notes.append(f"{where} is left out: {fault}.")
    _leave_out_absurd(found, notes)
    missing = sorted(set(header.bench.networks) - set(found))
    if missing:
        notes.append(f"{len(missing)} networks have no row: {', '.join(missing)}.")
    return found


def _row_fault(row: Any, header: _Header) -> str | None:
    """Why a row cannot be a timing; None where it can."""
    if not isinstance(row, Mapping):
        return "it is no table of keys"
    known = row.get("network")
    if not isinstance(known, str) or known not in header.bench.networks:
        return f"the bundle has no network {known!r}"
    for key, least, most in (("round", 0, MAX_ROUND), ("runs", 1, MAX_RUNS)):
        if not _is_count(row.get(key), least, most):
            return f"{key} is a whole number from {least} to {most:,}"
    sizes = set()
    for key in ("wall_us", "cpu_us", "preempted"):
        values = row.get(key)
        if not isinstance(values, list) or not values:
            return f"{key} is missing"
        sizes.add(len(values))
    if len(sizes) > 1:
        return "wall_us, cpu_us and preempted differ in length"
    for key in ("wall_us", "cpu_us"):
        for value in row[key]:
            if fault := _time_fault(value, least=MIN_US if key == "wall_us" else 0.0):
                return f"{key} {fault}"
    if not all(isinstance(value, bool) for value in row["preempted"]):
        return "preempted is true or false"
    cpu, wall = np.median(row["cpu_us"]), np.median(row["wall_us"])
    if cpu > MAX_CPU_OVER_WALL * header.threads * wall:
        return f"cpu_us is {cpu:g} of {wall:g} wall_us, more than {header.threads} thread(s) take"
    return None


def _is_count(value: Any, least: int, most: int) -> bool:
    return isinstance(value, int) and not isinstance(value, bool) and least <= value <= most


def _time_fault(value: Any, least: float) -> str | None:
    if isinstance(value, bool) or not isinstance(value, (int, float)):
        return f"has {value!r}, which is no number"
    if value != value:
        return "is NaN"
    if not least <= value <= MAX_US:  # also of integers that no float can hold
        shown = f"{value:g}" if abs(value) < sys.float_info.max else "infinite"
        if value < 0:
            return f"is negative: {shown}"
        return f"is {shown} microseconds, which no inference takes"
    return None


def _leave_out_absurd(found: dict[str, dict[int, list[Sample]]], notes: list[str]) -> None:
    """Leave out rounds whose times are of another order of magnitude than the network's others."""
    for name, rounds in found.items():
        walls = {number: min(wall for _, wall, _ in row) for number, row in rounds.items()}
        middle = float(np.median(list(walls.values())))
        for number, wall in walls.items():
            if not middle / MAX_OVER_MEDIAN <= wall <= middle * MAX_OVER_MEDIAN:
                del rounds[number]
                notes.append(
                    f"{name}, round {number} is left out: {wall:g} microseconds, its other rounds "
                    f"have {middle:g}."
                )
    medians = {
        name: float(np.median([wall for row in rounds.values() for _, wall, _ in row]))
        for name, rounds in found.items()
        if name != ANCHOR and rounds
    }
    middle = float(np.median(list(medians.values()))) if medians else 0.0
    for name, wall in medians.items():
        if not middle / MAX_OVER_MEDIAN <= wall <= middle * MAX_OVER_MEDIAN:
            del found[name]
            notes.append(
                f"{name} is left out: {wall:g} microseconds, the median of all networks is "
                f"{middle:g}."
            )


def _measurements(
    rounds: Mapping[str, Mapping[int, Sequence[Sample]]],
    header: _Header,
    settings: Settings,
    notes: list[str],
) -> dict[str, Timings]:
    """Timings of each network, corrected for the anchor's drift; in the order of the bundle."""
    anchors = {number: row for number, row in rounds.get(ANCHOR, {}).items() if row}
    if not anchors:
        raise MeasurementError(
            "results have timings of the anchor network, by which drift is corrected; these have "
            f"none that can be used. {_advice(header, notes)}"
        )
    least = min(len(row) for row in anchors.values())
    anchor = {number: _timings([row[:least]], 1) for number, row in anchors.items()}
    reference = reference_time(list(anchor.values()))
    found = {}
    for name in header.bench.networks:
        usable = [n for n in sorted(rounds.get(name, {})) if n in anchor]
        if name == ANCHOR:
            continue
        if without := sorted(set(rounds.get(name, {})) - set(usable)):
            notes.append(
                f"{name}, round {', '.join(map(str, without))} is left out: the anchor network, by "
                "which drift is corrected, has no timing there."
            )
        if not usable:
            continue
        samples = min(len(rounds[name][number]) for number in usable)
        timings = _timings([rounds[name][number][:samples] for number in usable], 1)
        beside = _timings([anchors[number][:least] for number in usable], 1)
        if settings.by_cpu and not timings.cpu_us.min() > 0:
            notes.append(f"{name} is left out: its CPU time is 0.")
            continue
        found[name] = detrend(timings, beside, reference)
    return found


def _timings(rows: Sequence[Sequence[Sample]], repeats: int) -> Timings:
    table = np.array(rows, dtype=np.float64)
    return Timings(table[..., 0], table[..., 1], table[..., 2], repeats)
