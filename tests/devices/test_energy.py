"""Energy meters on faked counters and logs, and the energy that they make of a run."""

from __future__ import annotations

import ctypes
import os
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from pliant.devices.energy import (
    NvmlMeter,
    Power,
    PowerLog,
    RaplMeter,
    energy_uj,
    logged_energy_j,
    measure_energy,
    parse_energy,
    read_power_log,
)
from pliant.errors import MeasurementError, RecipeError


class _Clock:
    """Time passes where somebody sleeps or asks for it."""

    def __init__(self) -> None:
        self.now = 1000.0

    def time(self) -> float:
        self.now += 1e-6
        return self.now

    perf_counter = time

    def sleep(self, seconds: float) -> None:
        self.now += seconds


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> _Clock:
    made = _Clock()
    monkeypatch.setattr("pliant.devices.energy.time", made)
    return made


def _zone(root: Path, name: str, label: str, energy: int = 0) -> Path:
    zone = root / name
    zone.mkdir(parents=True)
    (zone / "name").write_text(f"{label}\n")
    (zone / "energy_uj").write_text(f"{energy}\n")
    (zone / "max_energy_range_uj").write_text("1000000\n")
    return zone


def test_rapl_adds_up_packages_and_survives_an_overflow(tmp_path: Path) -> None:
    first = _zone(tmp_path, "intel-rapl:0", "package-0", 100)
    second = _zone(tmp_path, "intel-rapl:1", "package-1", 900_000)
    core = _zone(tmp_path, "intel-rapl:0:0", "core", 5)
    psys = _zone(tmp_path, "intel-rapl:2", "psys", 5)

    def work() -> None:
        (first / "energy_uj").write_text("200100\n")
        (second / "energy_uj").write_text("50000\n")  # passed its maximum of one joule
        for inside in (core, psys):
            (inside / "energy_uj").write_text("999999\n")

    assert RaplMeter(tmp_path).energy_j(work) == pytest.approx(0.2 + 0.15)


def test_rapl_that_is_not_there_is_refused(tmp_path: Path) -> None:
    for root in (tmp_path, tmp_path / "none"):
        with pytest.raises(MeasurementError, match="found none"):
            RaplMeter(root)


@pytest.mark.skipif(os.name == "nt" or os.geteuid() == 0, reason="root may read everything")
def test_rapl_that_may_not_be_read_is_refused(tmp_path: Path) -> None:
    (_zone(tmp_path, "intel-rapl:0", "package-0") / "energy_uj").chmod(0)
    with pytest.raises(MeasurementError, match="root only"):
        RaplMeter(tmp_path)


@pytest.mark.parametrize(
    ("content", "match"), [(b"many", "whole number.*'many'"), (b"\xff", "cannot be read")]
)
def test_a_counter_that_is_no_number_is_refused(tmp_path: Path, content: bytes, match: str) -> None:
    zone = _zone(tmp_path, "intel-rapl:0", "package-0")
    meter = RaplMeter(tmp_path)
    with pytest.raises(MeasurementError, match=f"{match}.*state a power"):
        meter.energy_j(lambda: (zone / "energy_uj").write_bytes(content))


class _Library:
    """NVIDIA's management library, of a GPU that spends 70 mJ between two readings."""

    def __init__(self, fails: str = "") -> None:
        self.fails, self.millijoules = fails, 1000

    def __getattr__(self, name: str):  # type: ignore[no-untyped-def]
        def call(*arguments):  # type: ignore[no-untyped-def]
            if name == self.fails:
                return 3
            if name == "nvmlDeviceGetTotalEnergyConsumption":
                result = ctypes.cast(arguments[-1], ctypes.POINTER(ctypes.c_ulonglong))
                self.millijoules += 70
                result.contents.value = self.millijoules
            return 0

        return call


def test_nvml_reads_the_difference_of_its_counter() -> None:
    meter = NvmlMeter(1, _Library())
    assert meter.name == "NVML, GPU 1"
    assert meter.energy_j(lambda: None) == pytest.approx(0.07)
    for function in ("nvmlInit_v2", "nvmlDeviceGetHandleByIndex_v2"):
        with pytest.raises(MeasurementError, match=f"{function} failed with code 3"):
            NvmlMeter(0, _Library(function))


def test_without_the_driver_nvml_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    def missing(name: str) -> None:
        raise OSError(name)

    monkeypatch.setattr(ctypes, "CDLL", missing)
    with pytest.raises(MeasurementError, match=r"NVIDIA's driver, found none.*70W"):
        parse_energy("nvml:1")


def test_a_power_that_changes_is_a_trapezium() -> None:
    """From 2 W at 0 s to 6 W at 2 s and back to 0 W at 3 s, by hand."""
    times, watts = np.array([0.0, 2.0, 3.0]), np.array([2.0, 6.0, 0.0])
    assert logged_energy_j(times, watts, 0.0, 3.0) == pytest.approx(8.0 + 3.0)
    assert logged_energy_j(times, watts, 1.0, 2.5) == pytest.approx(5.0 + 2.25)
    assert logged_energy_j(times, watts, 0.5, 1.0) == pytest.approx(0.5 * 3.5)
    with pytest.raises(MeasurementError, match=r"from 2\.000 to 3\.500 s"):
        logged_energy_j(times, watts, 2.0, 3.5)


def test_a_log_is_waited_for(tmp_path: Path, clock: _Clock, monkeypatch) -> None:
    """The meter writes the last row after the work has ended."""
    path, now = tmp_path / "power.csv", clock.now
    path.write_text(f"{now - 1},4\n{now},4\n")
    meter, sleep = PowerLog(path), clock.sleep

    def slept(seconds: float) -> None:
        sleep(seconds)
        path.write_text(f"{now - 1},4\n{now + 9},4\n")

    monkeypatch.setattr(clock, "sleep", slept)
    assert meter.energy_j(lambda: sleep(0.5)) == pytest.approx(2.0, rel=1e-3)


def test_a_power_log_is_integrated_between_the_times_of_the_work(
    tmp_path: Path, clock: _Clock
) -> None:
    path, now = tmp_path / "power.csv", clock.time()
    rows = "\n".join(f"{now + tenth / 10},{4.0}" for tenth in range(-10, 100))
    path.write_text(f"time,watts\n{rows}\n")
    meter = PowerLog(path)
    spent = meter.energy_j(lambda: clock.sleep(0.05))
    assert spent == pytest.approx(0.05 * 4, rel=1e-3)


def test_a_log_that_ends_too_early_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "power.csv"
    path.write_text("1,2\n2,2\n")
    with pytest.raises(MeasurementError, match="covers the measurement"):
        PowerLog(path, delay_s=0.0).energy_j(lambda: None)


@given(st.lists(st.floats(0.1, 5), min_size=1, max_size=6), st.floats(0, 1), st.floats(0, 1))
def test_a_constant_power_is_time_times_power(gaps: list[float], first: float, last: float) -> None:
    times = np.cumsum([0.0, *gaps])
    start, end = sorted((first * times[-1], last * times[-1]))
    spent = logged_energy_j(times, np.full(len(times), 7.0), start, end)
    assert spent == pytest.approx(7.0 * (end - start))


@pytest.mark.parametrize(
    ("text", "match"),
    [
        ("1,2\n2,x\n", "row 2"),
        ("1,2\n2,-1\n", "row 2"),
        ("1,2\n2,inf\n", "row 2"),
        ("1,2\n1,3\n", "not later"),
        ("1,2,3\n2,3,4\n", "row 1"),
        ("time,watts\n1,2\n", "at least two rows"),
    ],
)
def test_wrong_logs_are_refused_by_row(tmp_path: Path, text: str, match: str) -> None:
    path = tmp_path / "power.csv"
    path.write_text(text)
    with pytest.raises(MeasurementError, match=match):
        read_power_log(path)


class _Constant:
    """A meter of a device that draws five watts."""

    name = "constant"

    def __init__(self, clock: _Clock) -> None:
        self._clock = clock

    def energy_j(self, work) -> float:  # type: ignore[no-untyped-def]
        started = self._clock.now
        work()
        return 5.0 * (self._clock.now - started)


def test_the_energy_of_a_run_is_its_share_of_what_the_meter_read(clock: _Clock) -> None:
    found = measure_energy(lambda: clock.sleep(0.002), _Constant(clock), samples=3, sample_s=0.05)
    assert found.watts == pytest.approx(5.0, rel=1e-3)
    assert found.idle_watts == pytest.approx(5.0, rel=1e-3)
    assert found.energy_uj == pytest.approx(energy_uj(2.0, 5.0), rel=1e-3)
    assert found.spread_uj == pytest.approx(0, abs=energy_uj(2.0, 5.0) / 1e3)


def test_a_log_that_is_late_does_not_lower_the_power(
    tmp_path: Path, clock: _Clock, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Five watts all the time, in a log that is written once per second."""
    path, began, sleep = tmp_path / "power.csv", clock.now, clock.sleep

    def slept(seconds: float) -> None:
        sleep(seconds)
        path.write_text(f"{began - 1},5\n{int(clock.now)},5\n")

    monkeypatch.setattr(clock, "sleep", slept)
    slept(0)
    found = measure_energy(
        lambda: clock.sleep(0.002), PowerLog(path, delay_s=2.0), samples=3, sample_s=0.05
    )
    assert found.watts == pytest.approx(5.0, rel=1e-3)
    assert found.idle_watts == pytest.approx(5.0, rel=1e-3)
    assert found.energy_uj == pytest.approx(energy_uj(2.0, 5.0), rel=1e-3)


def test_a_meter_that_reads_nothing_is_refused(clock: _Clock) -> None:
    class Dead(_Constant):
        def energy_j(self, work) -> float:  # type: ignore[no-untyped-def]
            work()
            return 0.0

    with pytest.raises(MeasurementError, match="constant read none"):
        measure_energy(lambda: None, Dead(clock), samples=2, sample_s=0.01)


def test_stated_powers_and_wrong_texts() -> None:
    assert parse_energy("6W") == Power(6.0, "stated by the user")
    assert parse_energy("350 mW") == Power(0.35, "stated by the user")
    for text in ("6", "W", "wall", "rapl:2", "nvml:x", "1e9999W"):
        with pytest.raises(RecipeError, match="energy comes from"):
            parse_energy(text)
    with pytest.raises(RecipeError, match="above 0 W"):
        parse_energy("-3W")
    with pytest.raises(MeasurementError, match="is not"):
        parse_energy("none.csv")
