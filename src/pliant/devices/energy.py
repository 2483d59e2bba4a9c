"""The energy of an inference: measured where there is a meter, else latency times a stated power.

Three meters: the counters of the processor (RAPL, as Linux shows them under powercap), those of an
NVIDIA GPU (NVML), and the log of an external meter (a CSV file of times and watts). Without one a
power that the user or a data sheet states makes a model, and everything that shows it says so.
Without that a target reports no energy at all, and a limit on it is refused.

On one core the energy of a network is nearly its latency times the mean power, so predictions
multiply the two; networks that a meter saw run have measured values.
"""

from __future__ import annotations

import csv
import ctypes
import math
import re
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final, Protocol

import numpy as np

from pliant.errors import MeasurementError, RecipeError

POWERCAP: Final = Path("/sys/class/powercap")
"""Where Linux shows the energy counters of the processor."""
SAMPLES: Final = 10
SAMPLE_S: Final = 0.5
"""Duration of one sample: counters are updated about a thousand times per second."""
LOG_DELAY_S: Final = 5.0
"""How long a log may lag behind before it counts as ended."""


def energy_uj(latency_ms: float, watts: float) -> float:
    """Energy of one inference in microjoules: milliseconds times watts are millijoules."""
    return 1e3 * latency_ms * watts


class EnergyMeter(Protocol):
    """Measures the energy of work that is done here and now."""

    @property
    def name(self) -> str:
        """What it is and what its energy includes."""
        ...

    def energy_j(self, work: Callable[[], object]) -> float:
        """Do the work; return the joules that were spent meanwhile."""
        ...


class RaplMeter:
    """The energy counters of the processor packages.

    Everything that the packages do counts, other programs included.

    Args:
        root: folder of the powercap tree.

    Raises:
        MeasurementError: no package counter, or one that may not be read.
    """

    name = "RAPL, all processor packages"

    def __init__(self, root: Path = POWERCAP) -> None:
        zones = sorted(root.glob("*-rapl:*")) if root.is_dir() else []
        # Zones such as intel-rapl:0:1 are parts of a package, whose energy counts already.
        packages = [zone for zone in zones if re.fullmatch(r"[a-z]+-rapl:\d+", zone.name)]
        self._zones = [zone for zone in packages if _text(zone / "name").startswith("package")]
        if not self._zones:
            raise MeasurementError(
                f"RAPL counters are folders such as intel-rapl:0 in {root}, found none. This"
                " machine shows no energy; name a power log (.csv) or state a power, such as 6W."
            )
        self._read()

    def energy_j(self, work: Callable[[], object]) -> float:
        """Do the work; return the joules of all packages meanwhile."""
        before = self._read()
        work()
        after = self._read()
        total_uj = 0
        for zone, first, last in zip(self._zones, before, after, strict=True):
            spent = last - first
            if spent < 0:  # The counter passed its maximum and began again.
                spent += _count(zone / "max_energy_range_uj")
            total_uj += spent
        return total_uj * 1e-6

    def _read(self) -> list[int]:
        return [_count(zone / "energy_uj") for zone in self._zones]


def _count(path: Path) -> int:
    text = _text(path)
    if not text.isdecimal():
        raise MeasurementError(
            f"an energy counter is a whole number, {path} has {text!r}. Name another meter, or"
            " state a power, such as 6W."
        )
    return int(text)


def _text(path: Path) -> str:
    try:
        return path.read_text(encoding="ascii").strip()
    except PermissionError:
        raise MeasurementError(
            f"the energy counter {path} may be read by root only. Run as root, or permit it with"
            f" chmod a+r {path}."
        ) from None
    except (OSError, ValueError) as error:
        raise MeasurementError(
            f"the energy counter {path} cannot be read: {error}. Name another meter, or state"
            " a power, such as 6W."
        ) from None


class NvmlMeter:
    """The energy counter of an NVIDIA GPU.

    Args:
        index: of the GPU.
        library: NVIDIA's management library; the system's where left out.

    Raises:
        MeasurementError: no library, no such GPU, or one without a counter (before Volta).
    """

    def __init__(self, index: int = 0, library: Any = None) -> None:
        try:
            self._library = library or ctypes.CDLL("libnvidia-ml.so.1")
        except OSError:
            raise MeasurementError(
                "NVML is the library libnvidia-ml.so.1 of NVIDIA's driver, found none. Name"
                " another meter, or state a power, such as 70W."
            ) from None
        self.name = f"NVML, GPU {index}"
        self._device = ctypes.c_void_p()
        self._call("nvmlInit_v2")
        self._call("nvmlDeviceGetHandleByIndex_v2", ctypes.c_uint(index), self._device)
        self._read_j()

    def energy_j(self, work: Callable[[], object]) -> float:
        """Do the work; return the joules of the GPU meanwhile."""
        before = self._read_j()
        work()
        return self._read_j() - before

    def _read_j(self) -> float:
        millijoules = ctypes.c_ulonglong()
        self._call("nvmlDeviceGetTotalEnergyConsumption", self._device, millijoules)
        return millijoules.value * 1e-3

    def _call(self, function: str, *arguments: Any) -> None:
        passed = []
        for one in arguments:
            # Results are written through pointers; a handle is passed on as it is once it is set.
            is_result = one is arguments[-1] and function != "nvmlInit_v2"
            passed.append(ctypes.byref(one) if is_result else one)
        code = getattr(self._library, function)(*passed)
        if code:
            raise MeasurementError(
                f"NVML reads the energy of a GPU; {function} failed with code {code}. Name another"
                " meter, or state a power, such as 70W."
            )


class PowerLog:
    """The log of an external meter, written while networks run: a CSV of times and watts.

    Two columns, in seconds since 1970 and in watts; a first line of names is allowed.

    Args:
        path: the file.
        delay_s: how long to wait for the meter to write what it measured.

    Raises:
        MeasurementError: no such file.
    """

    def __init__(self, path: Path, delay_s: float = LOG_DELAY_S) -> None:
        self.path, self.delay_s = path, delay_s
        self.name = f"power log {path.name}"
        read_power_log(path)

    def energy_j(self, work: Callable[[], object]) -> float:
        """Do the work; return the integral of the logged power meanwhile."""
        start = time.time()
        work()
        end = time.time()
        deadline = end + self.delay_s
        times, watts = read_power_log(self.path)
        while times[-1] < end and time.time() < deadline:
            time.sleep(min(0.1, self.delay_s))
            times, watts = read_power_log(self.path)
        return logged_energy_j(times, watts, start, end)


def read_power_log(path: Path) -> tuple[np.ndarray, np.ndarray]:
    """Times in seconds and powers in watts of a log.

    Raises:
        MeasurementError: no such file, a row that is not two numbers, a negative or infinite
            power, or times that do not increase; the message names the row.
    """
    try:
        with path.open(newline="", encoding="utf-8") as file:
            rows = [row for row in csv.reader(file) if row]
    except (OSError, UnicodeDecodeError, csv.Error) as error:
        raise MeasurementError(f"a power log is a CSV file, {path} is not: {error}.") from None
    times: list[float] = []
    watts: list[float] = []
    for number, row in enumerate(rows, start=1):
        values = [_number(text) for text in row]
        if number == 1 and values[0] is None:
            continue  # the names of the columns
        if len(values) != 2 or values[0] is None or values[1] is None or values[1] < 0:
            raise MeasurementError(
                f"a row of a power log is a time in seconds and a power in watts; row {number} of"
                f" {path} is {','.join(row)!r}."
            )
        if times and values[0] <= times[-1]:
            raise MeasurementError(
                f"the times of a power log increase; row {number} of {path} is not later than the"
                " row before it."
            )
        times.append(values[0])
        watts.append(values[1])
    if len(times) < 2:
        raise MeasurementError(
            f"a power log has at least two rows of numbers, {path} has {len(times)}."
        )
    return np.array(times), np.array(watts)


def _number(text: str) -> float | None:
    try:
        value = float(text)
    except ValueError:
        return None
    return value if math.isfinite(value) else None


def logged_energy_j(times: np.ndarray, watts: np.ndarray, start: float, end: float) -> float:
    """Joules between two times: the integral of the power, linear between rows.

    Args:
        times: in seconds, increasing; shape (rows,).
        watts: at these times; shape (rows,).
        start: in seconds.
        end: in seconds.

    Raises:
        MeasurementError: the log does not cover the interval.
    """
    if start < times[0] or end > times[-1]:
        raise MeasurementError(
            f"a power log covers the measurement, which lasted from {start:.3f} to {end:.3f} s; its"
            f" rows are from {times[0]:.3f} to {times[-1]:.3f} s. Keep the meter logging, with the"
            " clock of this machine."
        )
    inside = (times > start) & (times < end)
    at = np.concatenate([[start], times[inside], [end]])
    power = np.interp(at, times, watts)
    return float(np.sum(np.diff(at) * (power[1:] + power[:-1]) / 2))


@dataclass(frozen=True, slots=True)
class Power:
    """A mean power, and where it comes from.

    Raises:
        RecipeError: not a positive number.
    """

    watts: float
    source: str
    measured: bool = False
    """Whether a meter measured it; a stated power makes the energy a model."""

    def __post_init__(self) -> None:
        if not (math.isfinite(self.watts) and self.watts > 0):
            raise RecipeError(f"a power is above 0 W, received {self.watts:g} W ({self.source}).")


@dataclass(frozen=True, slots=True)
class MeasuredEnergy:
    """What a meter saw of a network that ran in a loop."""

    energy_uj: float
    """Of one run, idle power included: the median over samples."""
    spread_uj: float
    """Half the interquartile range over samples."""
    watts: float
    """Mean power while it ran: the median over samples."""
    idle_watts: float
    """Mean power of the sample before, in which nothing ran."""


def measure_energy(
    run: Callable[[], object],
    meter: EnergyMeter,
    *,
    samples: int = SAMPLES,
    sample_s: float = SAMPLE_S,
) -> MeasuredEnergy:
    """The energy of one run of a network.

    Args:
        run: one inference.
        meter: reads the energy.
        samples: how often it is read.
        sample_s: duration of each sample, in seconds.

    Raises:
        MeasurementError: the meter reads no energy, or cannot be read.
    """
    spent, seconds = _metered(meter, lambda: time.sleep(sample_s))
    idle_watts = spent / seconds
    joules, watts = [], []
    for _ in range(samples):
        runs = 0

        def loop() -> None:
            nonlocal runs
            end = time.perf_counter() + sample_s
            while time.perf_counter() < end:
                run()
                runs += 1

        spent, seconds = _metered(meter, loop)
        joules.append(spent / runs)
        watts.append(spent / seconds)
    low, middle, high = np.quantile(joules, [0.25, 0.5, 0.75])
    if not middle > 0:
        raise MeasurementError(
            f"a meter reads energy while a network runs; {meter.name} read none in {samples}"
            f" samples of {sample_s:g} s. Name another meter, or state a power, such as 6W."
        )
    return MeasuredEnergy(
        1e6 * float(middle), 0.5e6 * float(high - low), float(np.median(watts)), idle_watts
    )


def _metered(meter: EnergyMeter, work: Callable[[], object]) -> tuple[float, float]:
    """Joules and seconds of some work.

    The clock runs while the work does: a meter takes time of its own, a log seconds to be written.
    """
    seconds = 0.0

    def timed() -> None:
        nonlocal seconds
        started = time.perf_counter()
        work()
        seconds = time.perf_counter() - started

    joules = meter.energy_j(timed)
    return joules, seconds


def parse_energy(text: str) -> Power | EnergyMeter:
    """A power or a meter from its text: `6W`, `rapl`, `nvml`, `nvml:1` or a power log's `.csv`.

    Raises:
        RecipeError: none of these.
        MeasurementError: the meter is not there.
    """
    stated = re.fullmatch(r"([0-9.eE+-]+)\s*(m?)W", text.strip())
    if stated:
        watts = _number(stated[1])
        if watts is not None:
            return Power(watts / (1000 if stated[2] else 1), "stated by the user")
    name, _, index = text.partition(":")
    if name == "rapl" and not index:
        return RaplMeter()
    if name == "nvml" and (not index or index.isdecimal()):
        return NvmlMeter(int(index or 0))
    if text.endswith(".csv"):
        return PowerLog(Path(text))
    raise RecipeError(
        "energy comes from rapl, nvml, a power log (.csv) or a stated power such as 6W, received"
        f" {text!r}."
    )
